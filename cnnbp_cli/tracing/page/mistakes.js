/** The seven mistakes of the lab: backward passes that are nearly right. */

import { INPUT } from "./network.js";
import { largest } from "./tensor.js";

/**
 * @typedef {import("./network.js").Network} Network
 * @typedef {import("./network.js").Pass} Pass
 *
 * @typedef {object} Mistake
 * @property {string} key
 * @property {string} name
 * @property {string} wrong the line of code as it should not be
 * @property {string} right and as it should
 * @property {string} says what it does
 * @property {string} hidden when it does no harm, so that a test may miss it
 * @property {(network: Network) => boolean} occurs whether the network has a place for it
 */

/** @param {string[]} types @returns {(network: Network) => boolean} */
const has =
  (...types) =>
  (network) =>
    network.nodes.some(({ type }) => types.includes(type));

/** @param {Network} network */
const branches = (network) => [...network.readers.values()].some((readers) => readers.length > 1);

/** @type {Mistake[]} */
export const MISTAKES = [
  {
    key: "not-flipped",
    name: "The kernel is not flipped",
    wrong: "dx[p + i, q + j] += w[K−1−i, K−1−j] · dy[p, q]",
    right: "dx[p + i, q + j] += w[i, j] · dy[p, q]",
    says: "The gradient reaches the right pixels through the wrong weights: those of the kernel turned by half a turn. The weights' own gradients in this layer stay right, those of every layer before it do not.",
    hidden: "the kernel is symmetric",
    occurs: has("conv2d"),
  },
  {
    key: "ties",
    name: "Every tied winner takes the gradient",
    wrong: "dx += dy · (x == max)",
    right: "dx += dy at the first maximum",
    says: "Where several cells of a window are equal, the gradient is multiplied by their number. Flat backgrounds and zeros after a ReLU are full of ties.",
    hidden: "no window has two equal maxima that pass a gradient on",
    occurs: has("max_pool2d", "global_max_pool2d"),
  },
  {
    key: "gate",
    name: "ReLU is gated by the gradient",
    wrong: "dx = dy · (dy > 0)",
    right: "dx = dy · (x > 0)",
    says: "Negative gradients are stopped and positive ones pass, whatever the unit did. What decides is whether the input was above 0.",
    hidden: "gradients are positive exactly where the inputs were",
    occurs: has("relu"),
  },
  {
    key: "mean",
    name: "The bias takes the mean",
    wrong: "db = mean(dy)",
    right: "db = sum(dy)",
    says: "The bias was added at every place, so every place adds to its gradient. The mean is too small by a constant factor: training still works, slowly, for the bias alone.",
    hidden: "each bias was added at one place only",
    occurs: (network) =>
      [...network.trainable].some(
        (name) => name.endsWith(".bias") && has("conv2d", "conv_transpose2d", "dense")(network),
      ),
  },
  {
    key: "swapped",
    name: "Patch and gradient are swapped",
    wrong: "dw = correlate(dy, x)",
    right: "dw = correlate(x, dy)",
    says: "Correlation does not commute: with its arguments swapped the result comes out turned by half a turn. Each weight takes the gradient of the weight opposite to it.",
    hidden: "the gradient of the kernel is symmetric, as that of a 1×1 kernel",
    occurs: has("conv2d"),
  },
  {
    key: "last-row",
    name: "The last row is forgotten",
    wrong: "for p in range(oh − 1)",
    right: "for p in range(oh)",
    says: "The sums over places leave out the last row of the output. Most of the gradient is there, so the loss falls and nothing looks wrong.",
    hidden: "no gradient reaches the last row",
    occurs: has("conv2d"),
  },
  {
    key: "overwrite",
    name: "Overwritten instead of added",
    wrong: "dx[…] = part",
    right: "dx[…] += part",
    says: "Where gradients meet, at a branch or where the stamps of a kernel overlap, only the last part is left.",
    hidden: "no gradients meet",
    occurs: (network) => branches(network) || has("conv2d")(network),
  },
];

/** Differences below this share of a tensor's largest gradient are rounding. */
const ROUNDING = 1e-9;

/**
 * @typedef {object} Damage
 * @property {string} tensor
 * @property {Float64Array} right
 * @property {Float64Array} wrong
 * @property {number[]} cells where the two differ
 * @property {string} kind what kind of wrong it is
 */

/**
 * The tensors whose gradients a mistake spoils, from the last to the first.
 *
 * @param {Network} network
 * @param {string} key
 * @returns {{pass: Pass, damages: Damage[]}}
 */
export function commit(network, key) {
  const { pass } = network;
  const spoilt = network.backward({ ...pass, calls: new Map(pass.calls), gradients: new Map() }, key);
  const names = [...network.nodes].reverse().flatMap(({ name, parameters }) => [
    ...(network.losses.some(({ layer }) => layer === name) && !network.readers.get(name)?.length ? [] : [name]),
    ...Object.keys(parameters)
      .map((parameter) => `${name}.${parameter}`)
      .filter((tensor) => network.trainable.has(tensor)),
  ]);
  /** @type {Damage[]} */
  const damages = [];
  for (const tensor of [...names, INPUT]) {
    const right = network.shown(tensor, "gradient", pass);
    const wrong = network.shown(tensor, "gradient", spoilt);
    const limit = ROUNDING * Math.max(largest(right), largest(wrong));
    const cells = [...right.keys()].filter((k) => Math.abs(wrong[k] - right[k]) > limit);
    if (cells.length) damages.push({ tensor, right, wrong, cells, kind: kindOf(network, tensor, right, wrong) });
  }
  return { pass: spoilt, damages };
}

/**
 * What kind of wrong a gradient is.
 *
 * @param {Network} network
 * @param {string} tensor
 * @param {Float64Array} right
 * @param {Float64Array} wrong
 */
export function kindOf(network, tensor, right, wrong) {
  const scale = Math.max(largest(right), largest(wrong));
  /** @param {(k: number) => number} expected */
  const all = (expected) => wrong.every((value, k) => Math.abs(value - expected(k)) <= ROUNDING * scale);
  if (all(() => 0)) return "all zero";
  const [most] = [...right.keys()].sort((a, b) => Math.abs(right[b]) - Math.abs(right[a]));
  const factor = wrong[most] / right[most];
  if (Number.isFinite(factor) && all((k) => factor * right[k])) {
    if (Math.abs(factor + 1) < ROUNDING) return "the sign is flipped";
    const inverse = 1 / factor;
    const ratio = Math.abs(factor) < 1 ? `1/${round(inverse)}` : round(factor);
    return `${ratio} times what it should be`;
  }
  const shape = network.shape(tensor);
  if (shape.length === 4) {
    const taps = shape[2] * shape[3];
    if (all((k) => right[k - (k % taps) + (taps - 1 - (k % taps))])) return "turned by half a turn";
  }
  const missing = [...right.keys()].filter((k) => wrong[k] === 0 && right[k] !== 0).length;
  const extra = [...right.keys()].filter((k) => wrong[k] !== 0 && right[k] === 0).length;
  const flipped = [...right.keys()].filter((k) => wrong[k] * right[k] < 0).length;
  const parts = [];
  if (missing) parts.push(`${missing} missing`);
  if (extra) parts.push(`${extra} that should be 0`);
  if (flipped) parts.push(`${flipped} with the wrong sign`);
  const norm = Math.sqrt(
    right.reduce((sum, value, k) => sum + (value - wrong[k]) ** 2, 0) /
      (right.reduce((sum, value) => sum + value ** 2, 0) || 1),
  );
  parts.push(`off by ${Number((100 * norm).toPrecision(2))}% in norm`);
  return parts.join(", ");
}

/** @param {number} value */
function round(value) {
  return String(Number(value.toPrecision(4)));
}

/**
 * Losses of some steps of plain gradient descent from the same start, with the right gradients and with wrong ones.
 *
 * It takes a breath after every step, so that the page stays alive.
 *
 * @param {Network} network
 * @param {string} mistake
 * @param {{images: Float64Array, numbers: Float64Array, count: number}} batch
 * @param {number} rate
 * @param {number} steps
 */
export async function trainWith(network, mistake, batch, rate, steps) {
  /** @param {string | null} which */
  const losses = async (which) => {
    const parameters = new Map([...network.parameters].map(([name, values]) => [name, values.slice()]));
    const found = [];
    for (let k = 0; k <= steps; k++) {
      await new Promise((resolve) => setTimeout(resolve));
      const pass = network.forward({ input: batch.images, numbers: batch.numbers, count: batch.count, parameters });
      found.push(pass.loss);
      if (k === steps) break;
      network.backward(pass, which);
      for (const name of network.trainable) {
        const values = parameters.get(name);
        const gradient = pass.gradients.get(name);
        if (values && gradient) gradient.forEach((value, l) => (values[l] -= rate * value));
      }
    }
    return found;
  };
  return { right: await losses(null), wrong: await losses(mistake) };
}
