/** Questions about the network on show, drawn from a seed: what to predict before seeing it. */

import { INPUT } from "./network.js";
import { range } from "./tensor.js";

/**
 * @typedef {import("./network.js").Network} Network
 * @typedef {import("./column.js").Cell} Cell
 * @typedef {import("./terms.js").Term} Term
 *
 * @typedef {object} Question
 * @property {"winner" | "gate" | "sign" | "blank" | "whole"} kind
 * @property {Cell} cell what it is about
 * @property {{tensor: string, of: "value" | "gradient"}} hidden the tensor that gives the answer away
 * @property {Term[]} terms what the answer is made of
 * @property {number} blank of which term the product is asked, or -1
 * @property {number[]} options places to choose from; none where a number is asked
 * @property {number} answer a place, a sign, 1 or 0 for yes or no, or a number
 */

/** A small generator of random numbers from 0 to 1 (mulberry32). @param {number} seed */
export function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

const MOST_TERMS = 9;

/**
 * Questions in the order of their difficulty: winners, gates and signs, a blank in a sum, a whole gradient.
 *
 * @param {Network} network
 * @param {number} seed
 * @returns {Question[]}
 */
export function questions(network, seed) {
  const draw = random(seed);
  /** @template T @param {T[]} items @returns {T | undefined} */
  const one = (items) => items[Math.floor(draw() * items.length)];
  const readable = network.nodes.filter((node) => !node.opaque);
  const found = [
    winner(network, one(readable.filter(({ type }) => type === "max_pool2d")), draw),
    gate(network, one(readable.filter(({ type }) => type === "relu")), draw),
    sign(network, one(weights(network)), draw),
    gate(network, one(readable.filter(({ type }) => type === "relu")), draw),
    sum(network, one([...weights(network), ...outputs(network)]), draw, "blank"),
    sum(network, one([...weights(network), ...outputs(network)]), draw, "blank"),
    sum(network, one(weights(network)), draw, "whole"),
  ];
  return found.filter((question) => question !== null);
}

/** Parameters whose gradients are sums. @param {Network} network */
function weights(network) {
  return [...network.trainable].filter((name) => {
    const owner = network.owners.get(name);
    return owner && !network.byName.get(owner.node)?.opaque && network.parameters.has(name);
  });
}

/** Outputs whose gradients are sums. @param {Network} network */
function outputs(network) {
  const readers = [...network.readers].filter(([, reading]) =>
    reading.some(({ node }) => /^(conv|dense)/.test(network.byName.get(node)?.type ?? "")),
  );
  return readers.map(([name]) => name).filter((name) => !network.blockedBy(name) || name === INPUT);
}

/** @param {Float64Array} numbers @param {() => number} draw @param {(at: number) => boolean} fits */
function pick(numbers, draw, fits) {
  const size = numbers.length;
  const start = Math.floor(draw() * size);
  const step = size > 2 ? 1 + Math.floor(draw() * Math.min(size - 1, 97)) : 1;
  for (let k = 0; k < Math.min(size, 400); k++) {
    const at = (start + k * (gcd(step, size) === 1 ? step : 1)) % size;
    if (fits(at)) return at;
  }
  return -1;
}

/** @param {number} a @param {number} b @returns {number} */
function gcd(a, b) {
  return b ? gcd(b, a % b) : a;
}

/** @param {Network} network @param {import("./network.js").NodeSpec | undefined} node @param {() => number} draw @returns {Question | null} */
function winner(network, node, draw) {
  if (!node) return null;
  const at = pick(network.shown(node.name, "gradient"), draw, (place) => {
    const values = network.terms(node.name, "value", place).map(({ factors: [factor] }) => factor.value);
    return values.some((value) => value !== values[0]);
  });
  if (at < 0) return null;
  const terms = network.terms(node.name, "value", at);
  const won = terms.find(({ coefficient }) => coefficient === 1);
  return {
    kind: "winner",
    cell: { tensor: node.name, of: "gradient", at },
    hidden: { tensor: node.inputs[0], of: "gradient" },
    terms,
    blank: -1,
    options: terms.map(({ factors: [factor] }) => factor.at),
    answer: won ? won.factors[0].at : -1,
  };
}

/** @param {Network} network @param {import("./network.js").NodeSpec | undefined} node @param {() => number} draw @returns {Question | null} */
function gate(network, node, draw) {
  if (!node) return null;
  const open = draw() < 0.5;
  const inputs = network.shown(node.inputs[0], "value");
  let at = pick(inputs, draw, (place) => inputs[place] > 0 === open);
  if (at < 0) at = pick(inputs, draw, () => true);
  return {
    kind: "gate",
    cell: { tensor: node.inputs[0], of: "gradient", at },
    hidden: { tensor: node.inputs[0], of: "gradient" },
    terms: network.terms(node.name, "value", at),
    blank: -1,
    options: [1, 0],
    answer: inputs[at] > 0 ? 1 : 0,
  };
}

/** @param {Network} network @param {string} tensor @param {number} at */
function liveTerms(network, tensor, at) {
  return network.terms(tensor, "gradient", at).filter(({ product }) => product !== 0);
}

/** @param {Network} network @param {string | undefined} tensor @param {() => number} draw @returns {Question | null} */
function sign(network, tensor, draw) {
  if (!tensor) return null;
  const numbers = network.shown(tensor, "gradient");
  const at = pick(
    numbers,
    draw,
    (place) => numbers[place] !== 0 && liveTerms(network, tensor, place).length <= MOST_TERMS,
  );
  if (at < 0) return null;
  return {
    kind: "sign",
    cell: { tensor, of: "gradient", at },
    hidden: { tensor, of: "gradient" },
    terms: liveTerms(network, tensor, at),
    blank: -1,
    options: [1, -1],
    answer: Math.sign(numbers[at]),
  };
}

/** @param {Network} network @param {string | undefined} tensor @param {() => number} draw @param {"blank" | "whole"} kind @returns {Question | null} */
function sum(network, tensor, draw, kind) {
  if (!tensor) return null;
  const numbers = network.shown(tensor, "gradient");
  const at = pick(numbers, draw, (place) => {
    const { length } = liveTerms(network, tensor, place);
    return length >= (kind === "blank" ? 2 : 1) && length <= MOST_TERMS;
  });
  if (at < 0) return null;
  const terms = liveTerms(network, tensor, at);
  const blank = kind === "blank" ? Math.floor(draw() * terms.length) : -1;
  return {
    kind,
    cell: { tensor, of: "gradient", at },
    hidden: { tensor, of: "gradient" },
    terms,
    blank,
    options: [],
    answer: kind === "blank" ? terms[blank].product : numbers[at],
  };
}

/**
 * Whether an answer is right: a choice exactly, a number to 1% or to what its digits show.
 *
 * @param {Question} question
 * @param {number} given
 * @param {number} decimals digits that the page shows of the answer
 */
export function isRight({ options, answer }, given, decimals) {
  if (options.length) return given === answer;
  return Math.abs(given - answer) <= Math.max(0.01 * Math.abs(answer), 0.6 * 10 ** -decimals);
}

/** The questions of several seeds, each cell once, for a sheet. @param {Network} network @param {number} seed @param {number} count */
export function sheet(network, seed, count) {
  /** @type {Map<string, Question>} */
  const found = new Map();
  for (const k of range(0, 12)) {
    for (const question of questions(network, seed + k)) {
      const key = `${question.kind} ${question.cell.tensor} ${question.cell.at}`;
      if (!found.has(key)) found.set(key, question);
    }
  }
  const order = ["winner", "gate", "sign", "blank", "whole"];
  /** @type {Question[]} */
  const chosen = [];
  const most = { winner: 2, gate: 2, sign: 1, blank: 3, whole: 2 };
  for (const question of found.values()) {
    if (chosen.filter(({ kind }) => kind === question.kind).length < most[question.kind]) chosen.push(question);
  }
  return chosen.sort((a, b) => order.indexOf(a.kind) - order.indexOf(b.kind)).slice(0, count);
}
