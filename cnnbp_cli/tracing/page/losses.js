/** The head and the loss: what the backward pass starts with. */

import { logistic, softmax, softplus } from "./activations.js";
import { functionOf, term } from "./terms.js";

/**
 * @typedef {import("./terms.js").Term} Term
 * @typedef {import("./terms.js").Factor} Factor
 *
 * @typedef {object} LossSpec
 * @property {"softmax" | "sigmoid" | "none"} head
 * @property {"cross_entropy" | "binary_cross_entropy" | "mse"} loss
 * @property {number} label_smoothing
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
export function judge({ head, loss, label_smoothing: smoothing }, z, numbers, count, channels) {
  const prediction = predict(head, z, count, channels);
  const target = loss === "cross_entropy" ? numbers.map((y) => (1 - smoothing) * y + smoothing / channels) : numbers;
  const divisor = loss === "mse" ? z.length : count;
  let total = 0;
  if (loss === "mse") for (let k = 0; k < z.length; k++) total += (prediction[k] - target[k]) ** 2;
  else if (loss === "binary_cross_entropy") {
    for (let k = 0; k < z.length; k++) total += softplus(z[k]) - target[k] * z[k];
  } else {
    for (let n = 0; n < count; n++) {
      const own = z.subarray(n * channels, (n + 1) * channels);
      const most = Math.max(...own);
      total += Math.log(own.reduce((sum, value) => sum + Math.exp(value - most), 0));
      own.forEach((value, k) => (total -= target[n * channels + k] * (value - most)));
    }
  }
  return { prediction, target, loss: total / divisor, divisor };
}

/** @param {LossSpec["head"]} head @param {Float64Array} z @param {number} count @param {number} channels */
export function predict(head, z, count, channels) {
  if (head === "softmax") return softmax(z, count, channels);
  return head === "sigmoid" ? z.map(logistic) : z;
}

/**
 * The gradient at the last layer's output, of the mean loss.
 *
 * @param {LossSpec} spec
 * @param {Judged} judged
 * @param {number} channels
 */
export function lossGradient({ head, loss }, { prediction: p, target, divisor }, channels) {
  if (loss !== "mse") return p.map((value, k) => (value - target[k]) / divisor);
  const dp = p.map((value, k) => (2 * (value - target[k])) / divisor);
  if (head === "none") return dp;
  if (head === "sigmoid") return dp.map((value, k) => value * p[k] * (1 - p[k]));
  return dp.map((value, k) => {
    const start = k - (k % channels);
    let mean = 0;
    for (let l = start; l < start + channels; l++) mean += p[l] * dp[l];
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
export function lossGradientTerms({ head, loss }, { prediction: p, target, divisor }, channels, size, at, sample) {
  /** @param {number} k @returns {Factor} */
  const predicted = (k) => ({ tensor: "prediction", of: "value", at: k, sample, value: p[sample * size + k] });
  /** @param {number} k @returns {Factor} */
  const wanted = (k) => ({ tensor: "target", of: "value", at: k, sample, value: target[sample * size + k] });
  if (loss !== "mse") return [term(1 / divisor, [predicted(at)]), term(-1 / divisor, [wanted(at)])];
  const own = p[sample * size + at];
  if (head !== "softmax") {
    const slope = ((head === "sigmoid" ? own * (1 - own) : 1) * 2) / divisor;
    return [term(slope, [predicted(at)]), term(-slope, [wanted(at)])];
  }
  return Array.from({ length: channels }, (_, k) => {
    const slope = (p[sample * size + k] * ((k === at ? 1 : 0) - own) * 2) / divisor;
    return [term(slope, [predicted(k)]), term(-slope, [wanted(k)])];
  }).flat();
}

/**
 * @param {LossSpec} spec
 * @param {Judged} judged
 * @param {string} output the last layer's name
 * @param {Float64Array} z
 * @param {number} size
 * @param {number} at
 * @param {number} sample
 * @returns {Term[]}
 */
export function predictionTerms({ head }, { prediction }, output, z, size, at, sample) {
  /** @param {number} k @returns {Factor} */
  const logit = (k) => ({ tensor: output, of: "value", at: k, sample, value: z[sample * size + k] });
  if (head === "none") return [term(1, [logit(at)])];
  const sources = head === "sigmoid" ? [logit(at)] : Array.from({ length: size }, (_, k) => logit(k));
  return [functionOf(head, prediction[sample * size + at], sources)];
}
