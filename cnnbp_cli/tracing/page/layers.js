/** Every layer of the format, by its type: forward, backward, and the terms of every cell. */

import { ACTIVATIONS, pointwise, softmaxLayer } from "./activations.js";
import { conv2d, convTranspose2d } from "./convolution.js";
import { add, concat, multiply } from "./merges.js";
import { batchNorm, groupNorm, layerNorm } from "./normalization.js";
import { averagePool, maxPool, poolWindows, wholeImage } from "./pools.js";
import { dy, parameter, term, x } from "./terms.js";

/** @typedef {import("./network.js").Rule} Rule */

/** @type {Rule} */
const dropout = {
  forward(call) {
    const { mask } = call;
    return { y: mask ? call.xs[0].map((value, k) => value * mask[k]) : call.xs[0], saved: null };
  },
  backward(call) {
    const { mask } = call;
    return { dxs: [mask ? call.dy.map((value, k) => value * mask[k]) : call.dy], grads: {} };
  },
  valueTerms: (call, at, sample) => [term(call.mask?.[sample * call.size + at] ?? 1, [x(call, 0, at, sample)])],
  inputTerms: (call, _, at, sample) => [term(call.mask?.[sample * call.size + at] ?? 1, [dy(call, at, sample)])],
  parameterTerms: () => [],
};

/** @type {Rule} */
const flattenLayer = {
  forward: (call) => ({ y: call.xs[0], saved: null }),
  backward: (call) => ({ dxs: [call.dy], grads: {} }),
  valueTerms: (call, at, sample) => [term(1, [x(call, 0, at, sample)])],
  inputTerms: (call, _, at, sample) => [term(1, [dy(call, at, sample)])],
  parameterTerms: () => [],
};

/** @type {Rule} */
const dense = {
  forward(call) {
    const y = new Float64Array(call.count * call.size);
    const features = call.inSizes[0];
    const { weight, bias } = call.params;
    for (let k = 0; k < y.length; k++) {
      const unit = k % call.size;
      const start = Math.floor(k / call.size) * features;
      let sum = bias ? bias[unit] : 0;
      for (let l = 0; l < features; l++) sum += weight[unit * features + l] * call.xs[0][start + l];
      y[k] = sum;
    }
    return { y, saved: null };
  },
  backward(call, mistake) {
    const features = call.inSizes[0];
    const { weight, bias } = call.params;
    const dx = new Float64Array(call.xs[0].length);
    const dweight = new Float64Array(weight.length);
    const dbias = new Float64Array(call.size);
    for (let k = 0; k < call.dy.length; k++) {
      const unit = k % call.size;
      const start = Math.floor(k / call.size) * features;
      const gradient = call.dy[k];
      for (let l = 0; l < features; l++) {
        dx[start + l] += weight[unit * features + l] * gradient;
        dweight[unit * features + l] += gradient * call.xs[0][start + l];
      }
      dbias[unit] += mistake === "mean" ? gradient / call.count : gradient;
    }
    /** @type {Record<string, Float64Array>} */
    const grads = { weight: dweight };
    if (bias) grads.bias = dbias;
    return { dxs: [dx], grads };
  },
  valueTerms(call, at, sample) {
    const features = call.inSizes[0];
    const terms = Array.from({ length: features }, (_, l) =>
      term(1, [parameter(call, "weight", at * features + l), x(call, 0, l, sample)]),
    );
    if (call.params.bias) terms.push(term(1, [parameter(call, "bias", at)], "bias"));
    return terms;
  },
  inputTerms: (call, _, at, sample) =>
    Array.from({ length: call.size }, (_, unit) =>
      term(1, [dy(call, unit, sample), parameter(call, "weight", unit * call.inSizes[0] + at)]),
    ),
  parameterTerms(call, key, at) {
    const features = call.inSizes[0];
    return Array.from({ length: call.count }, (_, sample) => {
      if (key === "bias") return term(1, [dy(call, at, sample)]);
      return term(1, [dy(call, Math.floor(at / features), sample), x(call, 0, at % features, sample)]);
    });
  },
};

/** Every layer of the format by the name that YAML calls it. @type {Record<string, Rule>} */
export const RULES = {
  conv2d,
  conv_transpose2d: convTranspose2d,
  max_pool2d: maxPool(poolWindows),
  avg_pool2d: averagePool(poolWindows),
  global_avg_pool2d: averagePool(wholeImage),
  global_max_pool2d: maxPool(wholeImage),
  flatten: flattenLayer,
  dense,
  batch_norm: batchNorm,
  layer_norm: layerNorm,
  group_norm: groupNorm,
  dropout,
  softmax: softmaxLayer,
  add,
  multiply,
  concat,
  ...Object.fromEntries(Object.keys(ACTIVATIONS).map((type) => [type, pointwise(type)])),
};
