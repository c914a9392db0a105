/** Activations: one function for every cell, and softmax. */

import { dy, functionOf, term, x, y } from "./terms.js";

/**
 * @typedef {import("./terms.js").Call} Call
 * @typedef {import("./network.js").Rule} Rule
 */

/** @param {number} z */
export function logistic(z) {
  return z >= 0 ? 1 / (1 + Math.exp(-z)) : Math.exp(z) / (1 + Math.exp(z));
}

/** @param {number} z log(1 + exp(z)), without overflow. */
export function softplus(z) {
  return Math.max(z, 0) + Math.log1p(Math.exp(-Math.abs(z)));
}

/**
 * Softmax over the first axis of each image.
 *
 * @param {Float64Array} z
 * @param {number} count images
 * @param {number} channels
 */
export function softmax(z, count, channels) {
  const size = z.length / count;
  const inner = size / channels;
  const p = new Float64Array(z.length);
  for (let n = 0; n < count; n++) {
    for (let k = 0; k < inner; k++) {
      const start = n * size + k;
      let most = -Infinity;
      for (let c = 0; c < channels; c++) most = Math.max(most, z[start + c * inner]);
      let total = 0;
      for (let c = 0; c < channels; c++) total += p[start + c * inner] = Math.exp(z[start + c * inner] - most);
      for (let c = 0; c < channels; c++) p[start + c * inner] /= total;
    }
  }
  return p;
}

/**
 * @typedef {object} Scalar
 * @property {(x: number, fields: any) => number} f
 * @property {(x: number, y: number, fields: any) => number} slope
 * @property {boolean} [linear] y is the slope times x
 */

const GELU_SCALE = Math.sqrt(2 / Math.PI);
const GELU_CUBIC = 0.044715;
/** @param {number} z */
const geluTanh = (z) => Math.tanh(GELU_SCALE * (z + GELU_CUBIC * (z * z * z)));

/** @type {Record<string, Scalar>} */
export const ACTIVATIONS = {
  relu: { f: (z) => (z > 0 || Number.isNaN(z) ? z : 0), slope: (z) => (z > 0 ? 1 : 0), linear: true },
  leaky_relu: {
    f: (z, { slope }) => (z > 0 ? z : slope * z),
    slope: (z, _, { slope }) => (z > 0 ? 1 : slope),
    linear: true,
  },
  elu: {
    f: (z, { alpha }) => (z > 0 ? z : alpha * Math.expm1(z)),
    slope: (z, value, { alpha }) => (z > 0 ? 1 : value + alpha),
  },
  gelu: {
    f: (z) => 0.5 * z * (1 + geluTanh(z)),
    slope: (z) => {
      const t = geluTanh(z);
      return 0.5 * (1 + t) + 0.5 * z * (1 - t * t) * GELU_SCALE * (1 + 3 * GELU_CUBIC * (z * z));
    },
  },
  silu: { f: (z) => z * logistic(z), slope: (z) => logistic(z) * (1 + z * (1 - logistic(z))) },
  sigmoid: { f: logistic, slope: (_, value) => value * (1 - value) },
  tanh: { f: Math.tanh, slope: (_, value) => 1 - value * value },
  softplus: { f: softplus, slope: logistic },
  identity: { f: (z) => z, slope: () => 1, linear: true },
};

/** @param {string} type @returns {Rule} */
export function pointwise(type) {
  const { f, slope, linear } = ACTIVATIONS[type];
  /** @param {Call} call @param {number} at @param {number} sample */
  const slopeAt = (call, at, sample) => {
    const k = sample * call.size + at;
    return slope(call.xs[0][k], call.y[k], call.node.fields);
  };
  return {
    forward: (call) => ({ y: call.xs[0].map((value) => f(value, call.node.fields)), saved: null }),
    backward(call, mistake) {
      const dx = new Float64Array(call.dy.length);
      const gated = mistake === "gate" && type === "relu";
      for (let k = 0; k < dx.length; k++) {
        dx[k] = call.dy[k] * slope(gated ? call.dy[k] : call.xs[0][k], call.y[k], call.node.fields);
      }
      return { dxs: [dx], grads: {} };
    },
    valueTerms(call, at, sample) {
      const source = x(call, 0, at, sample);
      if (linear) return [term(slopeAt(call, at, sample), [source])];
      return [functionOf(type, call.y[sample * call.size + at], [source])];
    },
    inputTerms: (call, _, at, sample) => [term(slopeAt(call, at, sample), [dy(call, at, sample)])],
    parameterTerms: () => [],
  };
}

/** @type {Rule} */
export const softmaxLayer = {
  forward: (call) => ({ y: softmax(call.xs[0], call.count, call.node.shape[0]), saved: null }),
  backward(call) {
    const dx = new Float64Array(call.dy.length);
    const inner = call.size / call.node.shape[0];
    for (let k = 0; k < dx.length; k++) {
      const start = Math.floor(k / call.size) * call.size + (k % inner);
      let mean = 0;
      for (let l = start; l < start + call.size; l += inner) mean += call.y[l] * call.dy[l];
      dx[k] = call.y[k] * (call.dy[k] - mean);
    }
    return { dxs: [dx], grads: {} };
  },
  valueTerms(call, at, sample) {
    const sources = alongChannels(call, at).map((l) => x(call, 0, l, sample));
    return [functionOf("softmax", call.y[sample * call.size + at], sources)];
  },
  inputTerms(call, _, at, sample) {
    const own = y(call, at, sample);
    return alongChannels(call, at).flatMap((l) => {
      const through = term(-1, [dy(call, l, sample), own, y(call, l, sample)], "all");
      return l === at ? [term(1, [dy(call, at, sample), own], "own"), through] : [through];
    });
  },
  parameterTerms: () => [],
};

/** The same pixel in every channel. @param {Call} call @param {number} at */
function alongChannels(call, at) {
  const inner = call.size / call.node.shape[0];
  return Array.from({ length: call.node.shape[0] }, (_, channel) => channel * inner + (at % inner));
}
