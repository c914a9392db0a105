/** The head and the loss: what the backward pass starts with. */

import { logistic, softmax, softplus } from "./activations.js";
import { functionOf, term } from "./terms.js";

/**
 * @typedef {import("./terms.js").Term} Term
 * @typedef {import("./terms.js").Factor} Factor
 *
 * A loss at the output of a layer; the total is the weighted sum of all of them.
 *
 * @typedef {object} LossSpec
 * @property {string} layer
 * @property {number} weight
 * @property {string} prediction what the tensor with the head's outputs is called
 * @property {string} target
 * @property {"softmax" | "sigmoid" | "none"} head
 * @property {"cross_entropy" | "binary_cross_entropy" | "mse"} loss
 * @property {number} label_smoothing
 * @property {number} per_image what one image adds to the divisor: 1, or its pixels, or all its outputs
 *
 * @typedef {object} Judged
 * @property {Float64Array} prediction the head's outputs
 * @property {Float64Array} target what they are compared with, after label smoothing
 * @property {number} loss the mean over the batch
 * @property {number} divisor what the sum is divided by
 */

/**
 * Labels as the numbers to compare with: a one at the label, or the label itself where there is one unit.
 *
 * @param {readonly number[]} labels
 * @param {number} classes
 */
export function oneHot(labels, classes) {
  if (classes === 1) return Float64Array.from(labels);
  const target = new Float64Array(labels.length * classes);
  labels.forEach((label, n) => (target[n * classes + label] = 1));
  return target;
}

/**
 * @param {LossSpec} spec
 * @param {Float64Array} z
 * @param {Float64Array} numbers what the network should give, before label smoothing
 * @param {number} count images
 * @param {number} channels
 * @returns {Judged}
 */
export function judge({ head, loss, label_smoothing: smoothing, per_image }, z, numbers, count, channels) {
  const prediction = predict(head, z, count, channels);
  const target = loss === "cross_entropy" ? numbers.map((y) => (1 - smoothing) * y + smoothing / channels) : numbers;
  const divisor = per_image * count;
  let total = 0;
  if (loss === "mse") for (let k = 0; k < z.length; k++) total += (prediction[k] - target[k]) ** 2;
  else if (loss === "binary_cross_entropy") {
    for (let k = 0; k < z.length; k++) total += softplus(z[k]) - target[k] * z[k];
  } else {
    const size = z.length / count;
    for (let n = 0; n < count; n++) {
      for (let place = 0; place < size / channels; place++) {
        const own = alike(size, channels, place).map((k) => n * size + k);
        const most = Math.max(...own.map((k) => z[k]));
        total += Math.log(own.reduce((sum, k) => sum + Math.exp(z[k] - most), 0));
        for (const k of own) total -= target[k] * (z[k] - most);
      }
    }
  }
  return { prediction, target, loss: total / divisor, divisor };
}

/**
 * The outputs of one image that a softmax makes one distribution of: all, or the channels of one pixel.
 *
 * @param {number} size of one image's output
 * @param {number} channels
 * @param {number} at one of them
 */
export function alike(size, channels, at) {
  const places = size / channels;
  return Array.from({ length: channels }, (_, k) => (at % places) + k * places);
}

/** @param {LossSpec["head"]} head @param {Float64Array} z @param {number} count @param {number} channels */
export function predict(head, z, count, channels) {
  if (head === "softmax") return softmax(z, count, channels);
  return head === "sigmoid" ? z.map(logistic) : z;
}

/**
 * The gradient at the layer's output, of the mean loss times its weight.
 *
 * @param {LossSpec} spec
 * @param {Judged} judged
 * @param {number} channels
 * @param {number} size of one image's output
 */
export function lossGradient({ head, loss, weight }, { prediction: p, target, divisor }, channels, size) {
  if (loss !== "mse") return p.map((value, k) => (weight * (value - target[k])) / divisor);
  const dp = p.map((value, k) => (weight * 2 * (value - target[k])) / divisor);
  if (head === "none") return dp;
  if (head === "sigmoid") return dp.map((value, k) => value * p[k] * (1 - p[k]));
  return dp.map((value, k) => {
    const start = k - (k % size);
    let mean = 0;
    for (const l of alike(size, channels, k - start)) mean += p[start + l] * dp[start + l];
    return p[k] * (value - mean);
  });
}

/**
 * @param {LossSpec} spec
 * @param {Judged} judged
 * @param {number} channels
 * @param {number} size of one image's output
 * @param {number} at
 * @param {number} sample
 * @returns {Term[]}
 */
export function lossGradientTerms(spec, { prediction: p, target, divisor }, channels, size, at, sample) {
  const { head, loss, weight } = spec;
  /** @param {number} k @returns {Factor} */
  const predicted = (k) => ({ tensor: spec.prediction, of: "value", at: k, sample, value: p[sample * size + k] });
  /** @param {number} k @returns {Factor} */
  const wanted = (k) => ({ tensor: spec.target, of: "value", at: k, sample, value: target[sample * size + k] });
  if (loss !== "mse") return [term(weight / divisor, [predicted(at)]), term(-weight / divisor, [wanted(at)])];
  const own = p[sample * size + at];
  if (head !== "softmax") {
    const slope = (weight * (head === "sigmoid" ? own * (1 - own) : 1) * 2) / divisor;
    return [term(slope, [predicted(at)]), term(-slope, [wanted(at)])];
  }
  return alike(size, channels, at).flatMap((k) => {
    const slope = (weight * p[sample * size + k] * ((k === at ? 1 : 0) - own) * 2) / divisor;
    return [term(slope, [predicted(k)]), term(-slope, [wanted(k)])];
  });
}

/**
 * @param {LossSpec} spec
 * @param {Judged} judged
 * @param {Float64Array} z
 * @param {number} channels
 * @param {number} size
 * @param {number} at
 * @param {number} sample
 * @returns {Term[]}
 */
export function predictionTerms({ head, layer }, { prediction }, z, channels, size, at, sample) {
  /** @param {number} k @returns {Factor} */
  const logit = (k) => ({ tensor: layer, of: "value", at: k, sample, value: z[sample * size + k] });
  if (head === "none") return [term(1, [logit(at)])];
  const sources = head === "sigmoid" ? [logit(at)] : alike(size, channels, at).map(logit);
  return [functionOf(head, prediction[sample * size + at], sources)];
}
