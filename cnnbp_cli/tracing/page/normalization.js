/** Normalization: less the mean, divided by the standard deviation, over the batch or within an image. */

import { dy, parameter, term, x } from "./terms.js";

/**
 * @typedef {import("./terms.js").Call} Call
 * @typedef {import("./network.js").Rule} Rule
 */

/**
 * @typedef {object} Normalized
 * @property {Float64Array} xhat
 * @property {Float64Array} mean of each group of cells that are normalized together
 * @property {Float64Array} r one over the standard deviation, of each group
 * @property {boolean} constant mean and deviation are given, they do not depend on the input
 * @property {number} members cells in a group
 */

/**
 * How a layer groups cells: which group a cell lies in, and which weight scales it.
 *
 * @typedef {object} Grouping
 * @property {(call: Call) => number} groups
 * @property {(call: Call, k: number) => number} groupOf
 * @property {(call: Call, at: number) => number} weightOf
 */

/** @param {Grouping} grouping @returns {Rule} */
function normalization({ groups, groupOf, weightOf }) {
  /** The cells of the group that cell `k` lies in. @param {Call} call @param {number} k */
  const fellows = (call, k) => {
    const group = groupOf(call, k);
    const found = [];
    for (let l = 0; l < call.dy.length; l++) if (groupOf(call, l) === group) found.push(l);
    return found;
  };
  /** @param {Call} call @param {number} at */
  const scaleOf = (call, at) => (call.params.weight ? call.params.weight[weightOf(call, at)] : 1);
  /** @param {Call} call @param {number} k */
  const cellOf = (call, k) => ({ at: k % call.size, sample: Math.floor(k / call.size) });
  return {
    forward(call) {
      const input = call.xs[0];
      const count = groups(call);
      const constant = call.node.type === "batch_norm" && !call.training;
      const members = input.length / count;
      const mean = new Float64Array(count);
      const variance = new Float64Array(count);
      if (constant) {
        mean.set(call.params.running_mean);
        variance.set(call.params.running_var);
      } else {
        for (let k = 0; k < input.length; k++) mean[groupOf(call, k)] += input[k] / members;
        for (let k = 0; k < input.length; k++) {
          const group = groupOf(call, k);
          variance[group] += (input[k] - mean[group]) ** 2 / members;
        }
      }
      const r = variance.map((value) => 1 / Math.sqrt(value + call.node.fields.epsilon));
      const xhat = new Float64Array(input.length);
      const y = new Float64Array(input.length);
      for (let k = 0; k < input.length; k++) {
        const group = groupOf(call, k);
        xhat[k] = (input[k] - mean[group]) * r[group];
        const { bias } = call.params;
        y[k] = scaleOf(call, k % call.size) * xhat[k] + (bias ? bias[weightOf(call, k % call.size)] : 0);
      }
      return { y, saved: { xhat, mean, r, constant, members } };
    },
    backward(call) {
      const { xhat, r, constant, members } = /** @type {Normalized} */ (call.saved);
      const count = groups(call);
      const mean = new Float64Array(count); // of dx̂
      const slope = new Float64Array(count); // of dx̂ · x̂
      /** @type {Record<string, Float64Array>} */
      const grads = {};
      const { weight, bias } = call.params;
      if (weight) {
        grads.weight = new Float64Array(weight.length);
        grads.bias = new Float64Array(bias.length);
      }
      const dxhat = new Float64Array(call.dy.length);
      for (let k = 0; k < dxhat.length; k++) {
        const at = k % call.size;
        dxhat[k] = scaleOf(call, at) * call.dy[k];
        mean[groupOf(call, k)] += dxhat[k] / members;
        slope[groupOf(call, k)] += (dxhat[k] * xhat[k]) / members;
        if (!weight) continue;
        grads.weight[weightOf(call, at)] += call.dy[k] * xhat[k];
        grads.bias[weightOf(call, at)] += call.dy[k];
      }
      const dx = dxhat.map((value, k) => {
        const group = groupOf(call, k);
        return constant ? r[group] * value : r[group] * (value - mean[group] - xhat[k] * slope[group]);
      });
      return { dxs: [dx], grads };
    },
    valueTerms(call, at, sample) {
      const { mean, r } = /** @type {Normalized} */ (call.saved);
      const group = groupOf(call, sample * call.size + at);
      const weight = call.params.weight ? [parameter(call, "weight", weightOf(call, at))] : [];
      const terms = [term(r[group], [...weight, x(call, 0, at, sample)])];
      terms.push(term(-r[group] * mean[group], weight, "mean"));
      if (call.params.bias) terms.push(term(1, [parameter(call, "bias", weightOf(call, at))], "bias"));
      return terms;
    },
    inputTerms(call, _, at, sample) {
      const { xhat, r, constant, members } = /** @type {Normalized} */ (call.saved);
      const k = sample * call.size + at;
      const factor = r[groupOf(call, k)];
      /** @param {number} l */
      const dxhat = (l) => {
        const { at: place, sample: n } = cellOf(call, l);
        const weight = call.params.weight ? [parameter(call, "weight", weightOf(call, place))] : [];
        return [dy(call, place, n), ...weight];
      };
      const own = term(factor, dxhat(k), "own");
      if (constant) return [own];
      return [
        own,
        ...fellows(call, k).map((l) => term(-factor / members, dxhat(l), "mean")),
        ...fellows(call, k).map((l) => term((-factor * xhat[k] * xhat[l]) / members, dxhat(l), "variance")),
      ];
    },
    parameterTerms(call, key, at) {
      const { xhat } = /** @type {Normalized} */ (call.saved);
      const terms = [];
      for (let k = 0; k < call.dy.length; k++) {
        const { at: place, sample } = cellOf(call, k);
        if (weightOf(call, place) === at) terms.push(term(key === "bias" ? 1 : xhat[k], [dy(call, place, sample)]));
      }
      return terms;
    },
  };
}

/** @param {Call} call @param {number} at */
const channelOf = (call, at) => Math.floor((at * call.node.shape[0]) / call.size);

export const batchNorm = normalization({
  groups: (call) => call.node.shape[0],
  groupOf: (call, k) => channelOf(call, k % call.size),
  weightOf: channelOf,
});

export const layerNorm = normalization({
  groups: (call) => call.count,
  groupOf: (call, k) => Math.floor(k / call.size),
  weightOf: (_, at) => at,
});

export const groupNorm = normalization({
  groups: (call) => call.count * call.node.fields.groups,
  groupOf: (call, k) => Math.floor((k * call.node.fields.groups) / call.size),
  weightOf: channelOf,
});
