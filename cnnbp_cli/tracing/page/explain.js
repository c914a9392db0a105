/** What the page says about a cell: its rule in words and as a formula, and why it is 0. */

import { bare } from "./numbers.js";
import { pair, sides } from "./windows.js";

/**
 * @typedef {import("./network.js").Network} Network
 * @typedef {import("./network.js").NodeSpec} NodeSpec
 * @typedef {import("./losses.js").LossSpec} LossSpec
 * @typedef {import("./terms.js").Of} Of
 * @typedef {import("./terms.js").Term} Term
 *
 * @typedef {object} Story
 * @property {string} formula see `formulas.js`
 * @property {string} says
 *
 * What is told about a layer: of its output, of the gradient that it sends back, and of its parameters' gradients.
 * @typedef {Record<string, (node: NodeSpec) => Story>} Stories
 */

/** @param {string} letter @param {number} factor @param {string} inner @param {number} step @param {number} offset */
function place(letter, factor, inner, step, offset) {
  return `${factor > 1 ? factor : ""}${letter} + ${step > 1 ? step : ""}${inner}${offset ? ` − ${offset}` : ""}`;
}

/** The pixel under a tap, as a convolution's formula writes it. @param {NodeSpec} node */
function pixel({ fields }) {
  const stride = pair(fields.stride);
  const dilation = pair(fields.dilation ?? 1);
  const same = fields.padding === "same";
  const padding = sides(fields.padding).before;
  const [row, column] = [
    place("p", stride[0], "i", dilation[0], padding[0]),
    place("q", stride[1], "j", dilation[1], padding[1]),
  ];
  return same ? `${row} − a, ${column} − b` : `${row}, ${column}`;
}

/** @type {Stories} */
const CONVOLUTION = {
  value: (node) => ({
    formula: `y[f,p,q] = ${node.fields.bias ? "b[f] + " : ""}Σ{c,i,j} w[f,c,i,j] · x[c, ${pixel(node)}]`,
    says:
      "The kernel lies on the image at this place. Each weight times the pixel under it, all added up" +
      (node.fields.bias ? ", and the bias." : "."),
  }),
  input: (node) => ({
    formula: `dx[c, ${pixel(node)}] = Σ{f,p,q} w[f,c,i,j] · dy[f,p,q]`,
    says: "Every output that looked at this cell sends its gradient back, times the weight it looked through.",
  }),
  weight: (node) => ({
    formula: `dw[f,c,i,j] = Σ{p,q} dy[f,p,q] · x[c, ${pixel(node)}]`,
    says: "Wherever the kernel went, this weight met one pixel. Each of those pixels counts as much as the gradient at the output it went into.",
  }),
  bias: () => ({
    formula: "db[f] = Σ{p,q} dy[f,p,q]",
    says: "The bias was added to every output of its channel, so its gradient is the sum of all of theirs: not the mean.",
  }),
};

/** @type {Stories} */
const TRANSPOSED = {
  value: (node) => ({
    formula: `y[f, ${pixel(node)}] += w[c,f,i,j] · x[c,p,q]`,
    says: "Every input stamps its kernel on the output, scaled by its value; overlaps add up. It is a convolution's backward pass, run forward.",
  }),
  input: (node) => ({
    formula: `dx[c,p,q] = Σ{f,i,j} w[c,f,i,j] · dy[f, ${pixel(node)}]`,
    says: "The gradient of a stamp is what lies under it: each weight times the gradient at the output it fell on.",
  }),
  weight: (node) => ({
    formula: `dw[c,f,i,j] = Σ{p,q} x[c,p,q] · dy[f, ${pixel(node)}]`,
    says: "Each input stamped this weight once: its value times the gradient at the output that the weight fell on.",
  }),
  bias: CONVOLUTION.bias,
};

/** @param {string} formula @param {string} says */
const told = (formula, says) => () => ({ formula, says });

const AVERAGE =
  "Every pixel of a window takes an equal share of its gradient; at a padded border the window has fewer pixels, unless padding counts.";

/** @type {Record<string, Stories>} */
const STORIES = {
  conv2d: CONVOLUTION,
  conv_transpose2d: TRANSPOSED,
  dense: {
    value: ({ fields }) => ({
      formula: `y[u] = ${fields.bias ? "b[u] + " : ""}Σ{k} w[u,k] · x[k]`,
      says: `Every input times its weight, all added up${fields.bias ? ", and the bias." : "."}`,
    }),
    input: told(
      "dx[k] = Σ{u} w[u,k] · dy[u]",
      "The input went into every unit, through its weight. Through the same weights the gradients come back: the transposed matrix.",
    ),
    weight: told(
      "dw[u,k] = dy[u] · x[k]",
      "The weight's gradient is the gradient at its unit, times the input that the weight met.",
    ),
    bias: told("db[u] = dy[u]", "The bias is added as it is, so it takes the unit's gradient as it is."),
  },
  flatten: {
    value: told("y[(c·h + p)·w + q] = x[c,p,q]", "Only the numbering changes."),
    input: told(
      "dx[c,p,q] = dy[(c·h + p)·w + q]",
      "Only the numbering changes: the gradient goes back to where the value came from.",
    ),
  },
  max_pool2d: {
    value: told(
      "y[c,p,q] = max{i,j} x[c, p·s + i, q·s + j]",
      "The largest of the window; of several equal ones the first, row by row.",
    ),
    input: told(
      "dx[text{winner}] += dy[c,p,q]",
      "The winner of the window takes its whole gradient, the others get nothing. Of equal ones the first wins.",
    ),
  },
  avg_pool2d: {
    value: told("y[c,p,q] = frac{1}{m} Σ{i,j} x[c, p·s + i, q·s + j]", "The mean of the window."),
    input: told("dx[c, p·s + i, q·s + j] += frac{1}{m} dy[c,p,q]", AVERAGE),
  },
  global_avg_pool2d: {
    value: told("y[c] = frac{1}{h·w} Σ{p,q} x[c,p,q]", "The mean of the channel."),
    input: told(
      "dx[c,p,q] = frac{1}{h·w} dy[c]",
      "Each of the h·w pixels takes an equal share of the channel's gradient.",
    ),
  },
  global_max_pool2d: {
    value: told("y[c] = max{p,q} x[c,p,q]", "The largest of the channel; of several equal ones the first, row by row."),
    input: told("dx[text{winner}] = dy[c]", "The winner takes the channel's whole gradient, the others get nothing."),
  },
  relu: {
    value: told("y = max(x, 0)", "What is above 0 passes, the rest becomes 0."),
    input: told(
      "dx = dy · (x > 0)",
      "The gate that the input opened: where it was above 0 the gradient passes unchanged, elsewhere nothing does. The gradient's own sign does not matter.",
    ),
  },
  leaky_relu: {
    value: ({ fields }) => ({
      formula: `y = x text{ where } x > 0, text{ else } ${fields.slope} · x`,
      says: "What is below 0 passes, made small.",
    }),
    input: ({ fields }) => ({
      formula: `dx = dy · (1 text{ where } x > 0, text{ else } ${fields.slope})`,
      says: "The gradient times the slope at the input.",
    }),
  },
  elu: {
    value: told("y = x text{ where } x > 0, text{ else } α · (e^{x} − 1)", "What is below 0 runs into −α."),
    input: told("dx = dy · (1 text{ where } x > 0, text{ else } y + α)", "The gradient times the slope at the input."),
  },
  gelu: {
    value: told(
      "y = frac{x}{2} · (1 + tanh(sqrt{2/π} · (x + 0.044715 · x^{3})))",
      "The input, weighted by how likely a normal number is to be below it.",
    ),
    input: told("dx = dy · y′(x)", "The gradient times the slope at the input."),
  },
  silu: {
    value: told("y = x · σ(x)", "The input times its own sigmoid."),
    input: told("dx = dy · σ(x) · (1 + x · (1 − σ(x)))", "The gradient times the slope at the input."),
  },
  sigmoid: {
    value: told("y = frac{1}{1 + e^{−x}}", "Squeezed between 0 and 1."),
    input: told(
      "dx = dy · y · (1 − y)",
      "The gradient times the slope, which is 1/4 at most: sigmoids make gradients small.",
    ),
  },
  tanh: {
    value: told("y = tanh(x)", "Squeezed between −1 and 1."),
    input: told("dx = dy · (1 − y^{2})", "The gradient times the slope, which is 1 at most and near 0 far from 0."),
  },
  softplus: {
    value: told("y = log(1 + e^{x})", "A ReLU with a rounded corner."),
    input: told("dx = dy · σ(x)", "The gradient times the slope, which is the sigmoid of the input."),
  },
  softmax: {
    value: told(
      "y[k] = frac{e^{x[k]}}{Σ{l} e^{x[l]}}",
      "Each channel's share of the whole: all channels at this place add up to 1.",
    ),
    input: told(
      "dx[k] = y[k] · (dy[k] − Σ{l} y[l] · dy[l])",
      "More for one channel is less for the others, so each loses the weighted mean of all gradients.",
    ),
  },
  identity: {
    value: told("y = x", "Passed on as it is."),
    input: told("dx = dy", "Passed back as it is."),
  },
  dropout: {
    value: told(
      "y = x · m",
      "m is 0 for the cells that were dropped in this step and 1/(1 − rate) for the others; in evaluation it is 1.",
    ),
    input: told("dx = dy · m", "The gradient goes through the same mask as the value."),
  },
  batch_norm: {
    value: told(
      "y = w · (x − μ) · r + b",
      "μ is the channel's mean and r one over its standard deviation: of the batch in training, the running ones in evaluation.",
    ),
    input: told(
      "dx = r · w · (dy − text{mean}(dy) − hat{x} · text{mean}(dy · hat{x}))",
      "In training three parts: the cell's own gradient; less the mean gradient, as every cell moves the mean; less its share through the variance. In evaluation only the first, as mean and variance are fixed.",
    ),
    weight: told("dw = Σ dy · hat{x}", "Each gradient times the normalized value that the weight scaled."),
    bias: told(
      "db = Σ dy",
      "The sum of the channel's gradients. A bias before this layer would get none in training: subtracting the mean takes it away again.",
    ),
  },
  add: {
    value: told("y = Σ{k} x_{k}", "The branches, added."),
    input: told("dx_{k} = dy", "An addition hands its gradient on to every branch, unchanged."),
  },
  multiply: {
    value: told("y = x_{1} · x_{2}", "The branches, multiplied."),
    input: told(
      "dx_{1} = dy · x_{2}",
      "A product swaps: each branch takes the gradient times the other branch's value.",
    ),
  },
  concat: {
    value: told("y = [x_{1}, x_{2}]", "The channels of all branches, one after another."),
    input: told("dx_{k} = dy[text{its own channels}]", "The gradient is cut where the channels were put together."),
  },
};
STORIES.layer_norm = {
  ...STORIES.batch_norm,
  value: told(
    "y = w · (x − μ) · r + b",
    "μ is the mean of this image's values, and r one over their standard deviation.",
  ),
};
STORIES.group_norm = {
  ...STORIES.batch_norm,
  value: told(
    "y = w · (x − μ) · r + b",
    "μ is the mean of this image's group of channels, and r one over its standard deviation.",
  ),
};
for (const type of ["layer_norm", "group_norm"]) {
  STORIES[type].input = told(
    "dx = r · (dhat{x} − text{mean}(dhat{x}) − hat{x} · text{mean}(dhat{x} · hat{x})), text{ where } dhat{x} = w · dy",
    "Three parts: the cell's own gradient; less the mean gradient, as every cell moves the mean; less its share through the variance.",
  );
  STORIES[type].bias = told("db = Σ dy", "The sum of the gradients of all that the bias was added to.");
}

/** Said wherever the two kinds of a gradient meet. */
export const SWAPPED =
  "Weights need the input, the input needs the filter. A sentence that circulates, “output_grad * filter updates the weights, output_grad * input goes back”, has the two swapped.";

/** Over what the loss of masks is a mean. @param {import("./losses.js").LossSpec} loss @param {number} count */
function pixels({ per_image: each }, count) {
  return count > 1 ? `the ${each} pixels of each of ${count} images` : `${each} pixels`;
}

/** @param {Network} network @param {LossSpec} loss @returns {Story} */
function lossStory({ count }, loss) {
  const divisor = count * loss.per_image;
  const weight = loss.weight === 1 ? "" : `${loss.weight} · `;
  const mean = weight + (divisor > 1 ? `frac{1}{${divisor}} ` : "");
  if (loss.loss === "cross_entropy" && loss.per_image > 1) {
    return {
      formula: `dz[k, i, j] = ${mean}(p[k, i, j] − y[k, i, j])`,
      says: `Softmax with cross-entropy, at each pixel: what was predicted less what was wanted. The loss is the mean over ${pixels(loss, count)}, so each has one part in ${divisor}.`,
    };
  }
  if (loss.loss === "cross_entropy") {
    return {
      formula: `dz[k] = ${mean}(p[k] − y[k])`,
      says: "Softmax with cross-entropy: what was predicted less what was wanted, and nothing else.",
    };
  }
  if (loss.loss === "binary_cross_entropy") {
    return {
      formula: `dz[k] = ${mean}(p[k] − y[k])`,
      says:
        loss.per_image > 1
          ? `Sigmoid with binary cross-entropy, at each pixel: what was predicted less what was wanted. The loss is the mean over ${pixels(loss, count)}.`
          : "Sigmoid with binary cross-entropy: what was predicted less what was wanted, and nothing else.",
    };
  }
  const slope = { none: "", sigmoid: " · p · (1 − p)", softmax: " text{ through the softmax}" }[loss.head];
  return {
    formula: `dz = ${weight}frac{2}{N} · (p − y)${slope}`,
    says: "The mean of squares: twice the error, divided by how many numbers there are.",
  };
}

/** @param {LossSpec} loss @returns {Story} */
function predictionStory(loss) {
  if (loss.head === "softmax" && loss.per_image > 1 && loss.loss !== "mse")
    return {
      formula: "p[k, i, j] = frac{e^{z[k, i, j]}}{Σ{l} e^{z[l, i, j]}}",
      says: "The head, at each pixel: the scores of its channels become probabilities that add up to 1.",
    };
  if (loss.head === "softmax")
    return {
      formula: "p[k] = frac{e^{z[k]}}{Σ{l} e^{z[l]}}",
      says: "The head: scores become probabilities that add up to 1.",
    };
  if (loss.head === "sigmoid")
    return { formula: "p = frac{1}{1 + e^{−z}}", says: "The head: a score becomes a probability." };
  return { formula: "p = z", says: "There is no head: the last layer's output is the prediction." };
}

/**
 * The rules that a cell follows; a gradient where branches meet, or of a layer used several times, one for each.
 *
 * @param {Network} network
 * @param {string} tensor
 * @param {Of} of
 * @returns {{by: string, story: Story}[]}
 */
export function stories(network, tensor, of) {
  const owner = network.owners.get(tensor);
  /** @param {string} name @param {string} which */
  const from = (name, which) => {
    const node = /** @type {import("./network.js").PackedNode} */ (network.byName.get(name));
    if (node.type === "batch_norm" && which === "input" && network.payload.mode === "evaluation") {
      const says =
        "In evaluation mean and deviation are fixed numbers, so only a factor is left. In training two more parts come in, through the mean and through the variance.";
      return [{ by: name, story: { formula: "dx = r · w · dy", says } }];
    }
    const story = node.opaque
      ? {
          formula: "",
          says: `${name} ${node.opaque}: its terms are not known here, only the numbers that Python wrote.`,
        }
      : STORIES[node.type][which]?.(node);
    return story ? [{ by: name, story }] : [];
  };
  if (owner) return of === "gradient" ? (network.usesOf(tensor) ?? []).flatMap((use) => from(use, owner.key)) : [];
  if (network.byName.has(tensor) && of === "value") return from(tensor, "value");
  if (of === "value") {
    const k = network.predictedBy(tensor);
    if (k >= 0) return [{ by: "the head", story: predictionStory(network.losses[k]) }];
    if (tensor === "loss")
      return [{ by: "the loss", story: { formula: lossFormula(network), says: lossMeaning(network) } }];
    return [];
  }
  const readers = (network.readers.get(tensor) ?? []).flatMap(({ node }) => from(node, "input"));
  const loss = network.losses.find(({ layer }) => layer === tensor);
  return loss ? [{ by: "the loss", story: lossStory(network, loss) }, ...readers] : readers;
}

/** @param {Network} network */
function lossMeaning({ losses, pass }) {
  if (losses.length === 1)
    return "How wrong the prediction is, as one number. Everything on the right is the slope of this one number.";
  const parts = losses.map(({ layer, weight }, k) => `${weight} · ${bare(pass.judged[k].loss)} (${layer})`);
  return `How wrong the predictions are, as one number: ${parts.join(" + ")}. Everything on the right is the slope of this one number.`;
}

/** @param {Network} network */
function lossFormula({ losses, labels, count }) {
  const [loss] = losses;
  if (losses.length > 1 || loss.weight !== 1) return "L = Σ{k} w[k] · L[k]";
  if (loss.loss === "mse") return "L = frac{1}{N} Σ (p − y)^{2}";
  if (loss.per_image > 1) {
    const mean = `L = −frac{1}{${loss.per_image * count}} Σ{i,j} `;
    if (loss.loss === "cross_entropy") return `${mean}Σ{k} y[k, i, j] · log p[k, i, j]`;
    return `${mean}(y[i, j] · log p[i, j] + (1 − y[i, j]) · log(1 − p[i, j]))`;
  }
  if (loss.loss === "binary_cross_entropy") return "L = −y · log p − (1 − y) · log(1 − p)";
  return labels && !loss.label_smoothing ? "L = −log p[text{label}]" : "L = −Σ{k} y[k] · log p[k]";
}

/** Whether a number is what rounding leaves of terms that cancel. @param {number} value @param {Term[]} terms */
export function cancels(value, terms) {
  const size = terms.reduce((sum, { product }) => sum + Math.abs(product), 0);
  return Math.abs(value) <= 64 * Number.EPSILON * Math.sqrt(terms.length) * size;
}

/**
 * Why a gradient is 0, but for rounding; an empty text where it is not.
 *
 * @param {Network} network
 * @param {string} tensor
 * @param {number} at
 * @param {Term[]} [terms]
 * @returns {string}
 */
export function whyZero(network, tensor, at, terms = network.terms(tensor, "gradient", at)) {
  const value = network.shown(tensor, "gradient")[at];
  if (value !== 0) return cancels(value, terms) ? "canceled" : "";
  if (!terms.length) return network.readers.get(tensor)?.length ? "not read" : "detached";
  if (terms.some(({ product }) => product !== 0)) return "canceled";
  const arriving = terms.filter(({ factors }) => factors.every(({ of, value }) => of !== "gradient" || value !== 0));
  if (!arriving.length) return "nothing arrived";
  const stopped = arriving.find(({ coefficient }) => coefficient === 0);
  if (!stopped) return "multiplied by 0";
  const reader = network.byName.get(stopped.factors[0].tensor)?.type ?? "";
  if (reader.includes("max_pool")) return "not the winner";
  if (reader === "dropout") return "dropped";
  return reader === "relu" ? "gate closed" : "saturated";
}

/** What each reason means, for the legend and the microscope. @type {Record<string, string>} */
export const REASONS = {
  "gate closed": "The ReLU's input was not above 0, so its gate is closed.",
  "not the winner": "Another cell won the window, and the winner takes all.",
  "nothing arrived": "No gradient arrives at anything that this cell went into.",
  "multiplied by 0": "Gradients arrive, and meet a 0.",
  dropped: "Dropout dropped this cell in this step.",
  saturated: "The activation is so flat here that its slope is 0.",
  canceled: "Its terms are not 0, but they add up to 0.",
  "not read": "No window covers this cell, so nothing depends on it.",
  detached: "Nothing that leads to the loss reads it.",
};

/** The names of the parts of a sum that has parts. @type {Record<string, string>} */
export const PARTS = {
  bias: "the bias",
  mean: "through the mean",
  variance: "through the variance",
  own: "its own gradient",
  all: "through the sum of all",
};
