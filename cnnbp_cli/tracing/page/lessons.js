/** Ten things to see, each at a cell of this network, or of a network in miniature where this one lacks it. */

import { SWAPPED } from "./explain.js";
import { button, make } from "./maps.js";
import { nameOf } from "./microscope.js";
import { INPUT } from "./network.js";

/**
 * @typedef {import("./app.js").App} App
 * @typedef {import("./network.js").Network} Network
 * @typedef {import("./terms.js").Of} Of
 *
 * @typedef {object} Place
 * @property {string} tensor
 * @property {Of} of
 *
 * @typedef {object} Point
 * @property {string} title
 * @property {string} says
 * @property {(network: Network) => Place | null} find where it is seen
 * @property {string} [miniature] where it is seen otherwise
 */

/** The gradient that a layer of a type sends back. @param {Network} network @param {...string} types @returns {Place | null} */
function before(network, ...types) {
  const node = network.nodes.find(({ type }) => types.includes(type));
  return node ? { tensor: node.inputs[0], of: "gradient" } : null;
}

/** @param {Network} network @param {string} type @param {string} key @returns {Place | null} */
function parameterOf(network, type, key) {
  const node = network.nodes.find((candidate) => candidate.type === type && key in candidate.parameters);
  return node ? { tensor: `${node.name}.${key}`, of: "gradient" } : null;
}

/** @type {Point[]} */
const POINTS = [
  {
    title: "The loss starts it",
    says: "With softmax and cross-entropy, and with sigmoid and binary cross-entropy, the gradient at the last layer is prediction less target: p − y.",
    find: (network) => ({ tensor: network.output, of: "gradient" }),
  },
  {
    title: "A dense layer passes it on",
    says: "dW = dy · xᵀ, db = dy, dx = Wᵀ · dy.",
    find: (network) => parameterOf(network, "dense", "weight"),
    miniature: "batch-norm",
  },
  {
    title: "Flatten only renumbers",
    says: "A gradient goes back to the place that its value came from. Neither layer has parameters.",
    find: (network) => before(network, "flatten"),
    miniature: "batch-norm",
  },
  {
    title: "Averages share",
    says: "Global average pooling divides by h·w. A window of average pooling shares its gradient equally, over fewer pixels at a padded border.",
    find: (network) => before(network, "global_avg_pool2d", "avg_pool2d"),
    miniature: "pools",
  },
  {
    title: "The winner takes all",
    says: "Max pooling sends the whole gradient to the largest cell of the window; of equal ones to the first, row by row.",
    find: (network) => before(network, "max_pool2d", "global_max_pool2d"),
    miniature: "pools",
  },
  {
    title: "Activations are gates",
    says: "ReLU passes the gradient where its input was above 0. The others multiply by their slope.",
    find: (network) => before(network, "relu", "leaky_relu", "elu", "gelu", "silu", "sigmoid", "tanh", "softplus"),
    miniature: "branches",
  },
  {
    title: "Convolution: the weights",
    says: "dW adds up the patches of the input, each weighted by dy; db is the sum of dy.",
    find: (network) => parameterOf(network, "conv2d", "weight"),
    miniature: "branches",
  },
  {
    title: "Convolution: the input",
    says: "dx gathers dy through the flipped kernel. That is the same as every dy stamping its kernel, with overlaps adding up.",
    find: (network) => before(network, "conv2d"),
    miniature: "branches",
  },
  {
    title: "Branches add",
    says: "Where an output feeds two layers its gradients add. A merge that adds passes on, one that multiplies swaps, concat splits.",
    find(network) {
      const branch = [...network.readers].find(([name, readers]) => name !== INPUT && readers.length > 1);
      return branch ? { tensor: branch[0], of: "gradient" } : null;
    },
    miniature: "branches",
  },
  {
    title: "Batch norm takes a bias away",
    says: "A bias before it gets no gradient in training, as the mean is subtracted again. Its backward pass has a term for the mean and one for the variance.",
    find: (network) => (network.payload.mode === "training" ? before(network, "batch_norm") : null),
    miniature: "batch-norm",
  },
  {
    title: "The update",
    says: "w ← w − η · g for plain SGD, and next to it what the configured optimizer does to the same weight.",
    find(network) {
      const [first] = network.trainable;
      return first ? { tensor: first, of: "update" } : null;
    },
    miniature: "branches",
  },
  {
    title: "Back at the image",
    says: "The gradient of every pixel: a saliency map.",
    find: () => ({ tensor: INPUT, of: "gradient" }),
  },
];

/** @param {App} app */
export function lessonPanel(app) {
  const list = make("ol", { className: "points" });
  for (const { title, says, find, miniature } of POINTS) {
    const place = find(app.network);
    const item = make("li", {}, make("strong", {}, title), make("p", {}, says));
    if (place) {
      const cell = app.largest(place);
      item.append(app.link(`see ${nameOf(app.network, cell.tensor, cell.at)}`, cell));
    } else if (miniature && app.payload.miniatures?.[miniature] && !app.miniature) {
      item.append(button("see it in miniature", () => app.open(miniature, find)));
    }
    list.append(item);
  }
  return make(
    "div",
    { className: "microscope" },
    make("h2", { className: "cell-name" }, "What to see"),
    list,
    make("p", { className: "aside" }, SWAPPED),
  );
}
