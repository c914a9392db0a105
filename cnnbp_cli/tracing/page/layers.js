/** Every layer but the convolutions: forward, backward, and the terms of every cell. */

import { conv2d, convTranspose2d } from "./convolution.js";
import { dy, functionOf, parameter, term, x, y } from "./terms.js";
import { pixelUnder, seenBy, windowsOver } from "./windows.js";

/**
 * @typedef {import("./terms.js").Term} Term
 * @typedef {import("./terms.js").Call} Call
 * @typedef {import("./network.js").Rule} Rule
 * @typedef {import("./windows.js").Windows} Windows
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

// Activations -----------------------------------------------------------------------------------------------------

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
function pointwise(type) {
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
const softmaxLayer = {
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

// Pools -----------------------------------------------------------------------------------------------------------

/** @typedef {{windows: Windows, winners: Int32Array}} MaxPoolSaved */

/** @param {Call} call */
function poolWindows(call) {
  const { pool_size: size, stride, padding } = call.node.fields;
  return windowsOver(call.inShapes[0].slice(1), size, stride ?? size, padding);
}

/** @param {Windows} windows @param {number} channel @param {number} p @param {number} q The pixels of a window. */
function pixelsOf(windows, channel, p, q) {
  const pixels = [];
  for (let i = 0; i < windows.kernel[0]; i++) {
    for (let j = 0; j < windows.kernel[1]; j++) {
      const row = pixelUnder(windows, 0, p, i);
      const column = pixelUnder(windows, 1, q, j);
      if (row >= 0 && column >= 0) pixels.push((channel * windows.image[0] + row) * windows.image[1] + column);
    }
  }
  return pixels;
}

/** @param {Windows} windows @param {number} at */
function windowAt(windows, at) {
  const [oh, ow] = windows.out;
  return pixelsOf(windows, Math.floor(at / (oh * ow)), Math.floor(at / ow) % oh, at % ow);
}

/** The windows that see a pixel, as places in the output. @param {Windows} windows @param {number} at */
function windowsThatSee(windows, at) {
  const [h, w] = windows.image;
  const [oh, ow] = windows.out;
  const channel = Math.floor(at / (h * w));
  const columns = seenBy(windows, 1, at % w);
  return seenBy(windows, 0, Math.floor(at / w) % h).flatMap(({ p }) =>
    columns.map(({ p: q }) => (channel * oh + p) * ow + q),
  );
}

/** The place of the largest, the first of several; that of a NaN where there is one. @param {Float64Array} values @param {number} start @param {number[]} pixels */
function winnerOf(values, start, pixels) {
  let best = pixels[0];
  for (const pixel of pixels) {
    if (Number.isNaN(values[start + pixel])) return pixel;
    if (values[start + pixel] > values[start + best]) best = pixel;
  }
  return best;
}

/** @param {(call: Call) => Windows} windowsFor @returns {Rule} */
function maxPool(windowsFor) {
  return {
    forward(call) {
      const windows = windowsFor(call);
      const y = new Float64Array(call.count * call.size);
      const winners = new Int32Array(y.length);
      for (let at = 0; at < call.size; at++) {
        const pixels = windowAt(windows, at);
        for (let n = 0; n < call.count; n++) {
          const start = n * call.inSizes[0];
          winners[n * call.size + at] = winnerOf(call.xs[0], start, pixels);
          y[n * call.size + at] = call.xs[0][start + winners[n * call.size + at]];
        }
      }
      return { y, saved: { windows, winners } };
    },
    backward(call, mistake) {
      const { windows, winners } = /** @type {MaxPoolSaved} */ (call.saved);
      const dx = new Float64Array(call.xs[0].length);
      for (let k = 0; k < call.dy.length; k++) {
        const start = Math.floor(k / call.size) * call.inSizes[0];
        if (mistake !== "ties") dx[start + winners[k]] += call.dy[k];
        else {
          for (const pixel of windowAt(windows, k % call.size)) {
            if (call.xs[0][start + pixel] === call.y[k]) dx[start + pixel] += call.dy[k];
          }
        }
      }
      return { dxs: [dx], grads: {} };
    },
    valueTerms(call, at, sample) {
      const { windows, winners } = /** @type {MaxPoolSaved} */ (call.saved);
      const winner = winners[sample * call.size + at];
      return windowAt(windows, at).map((pixel) => term(pixel === winner ? 1 : 0, [x(call, 0, pixel, sample)]));
    },
    inputTerms(call, _, at, sample) {
      const { windows, winners } = /** @type {MaxPoolSaved} */ (call.saved);
      return windowsThatSee(windows, at).map((window) =>
        term(winners[sample * call.size + window] === at ? 1 : 0, [dy(call, window, sample)]),
      );
    },
    parameterTerms: () => [],
  };
}

/** @param {(call: Call) => Windows} windowsFor @returns {Rule} */
function averagePool(windowsFor) {
  /** @param {Call} call @param {Windows} windows @param {number} at */
  const divisor = (call, windows, at) =>
    call.node.fields.count_include_pad ? windows.kernel[0] * windows.kernel[1] : windowAt(windows, at).length;
  return {
    forward(call) {
      const windows = windowsFor(call);
      const y = new Float64Array(call.count * call.size);
      for (let k = 0; k < y.length; k++) {
        const at = k % call.size;
        const start = Math.floor(k / call.size) * call.inSizes[0];
        for (const pixel of windowAt(windows, at)) y[k] += call.xs[0][start + pixel];
        y[k] /= divisor(call, windows, at);
      }
      return { y, saved: windows };
    },
    backward(call) {
      const windows = /** @type {Windows} */ (call.saved);
      const dx = new Float64Array(call.xs[0].length);
      for (let k = 0; k < call.dy.length; k++) {
        const at = k % call.size;
        const start = Math.floor(k / call.size) * call.inSizes[0];
        const share = call.dy[k] / divisor(call, windows, at);
        for (const pixel of windowAt(windows, at)) dx[start + pixel] += share;
      }
      return { dxs: [dx], grads: {} };
    },
    valueTerms(call, at, sample) {
      const windows = /** @type {Windows} */ (call.saved);
      const share = 1 / divisor(call, windows, at);
      return windowAt(windows, at).map((pixel) => term(share, [x(call, 0, pixel, sample)]));
    },
    inputTerms(call, _, at, sample) {
      const windows = /** @type {Windows} */ (call.saved);
      return windowsThatSee(windows, at).map((window) =>
        term(1 / divisor(call, windows, window), [dy(call, window, sample)]),
      );
    },
    parameterTerms: () => [],
  };
}

/** One window, as large as the image. @param {Call} call */
function wholeImage(call) {
  const [, h, w] = call.inShapes[0];
  return windowsOver([h, w], [h, w], 1, "valid");
}

// Dense -----------------------------------------------------------------------------------------------------------

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

// Normalization ---------------------------------------------------------------------------------------------------

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

const batchNorm = normalization({
  groups: (call) => call.node.shape[0],
  groupOf: (call, k) => channelOf(call, k % call.size),
  weightOf: channelOf,
});

const layerNorm = normalization({
  groups: (call) => call.count,
  groupOf: (call, k) => Math.floor(k / call.size),
  weightOf: (_, at) => at,
});

const groupNorm = normalization({
  groups: (call) => call.count * call.node.fields.groups,
  groupOf: (call, k) => Math.floor((k * call.node.fields.groups) / call.size),
  weightOf: channelOf,
});

// Merges ----------------------------------------------------------------------------------------------------------

/** @type {Rule} */
const add = {
  forward(call) {
    const y = Float64Array.from(call.xs[0]);
    for (const input of call.xs.slice(1)) for (let k = 0; k < y.length; k++) y[k] += input[k];
    return { y, saved: null };
  },
  backward: (call) => ({ dxs: call.xs.map(() => call.dy), grads: {} }),
  valueTerms: (call, at, sample) => call.xs.map((_, k) => term(1, [x(call, k, at, sample)])),
  inputTerms: (call, _, at, sample) => [term(1, [dy(call, at, sample)])],
  parameterTerms: () => [],
};

/** @type {Rule} */
const multiply = {
  forward(call) {
    const y = Float64Array.from(call.xs[0]);
    for (const input of call.xs.slice(1)) for (let k = 0; k < y.length; k++) y[k] *= input[k];
    return { y, saved: null };
  },
  backward(call) {
    const dxs = call.xs.map((_, own) =>
      call.dy.map((value, k) =>
        call.xs.reduce((product, input, l) => (l === own ? product : product * input[k]), value),
      ),
    );
    return { dxs, grads: {} };
  },
  valueTerms: (call, at, sample) => [
    term(
      1,
      call.xs.map((_, k) => x(call, k, at, sample)),
    ),
  ],
  inputTerms(call, own, at, sample) {
    const others = call.xs.flatMap((_, k) => (k === own ? [] : [x(call, k, at, sample)]));
    return [term(1, [dy(call, at, sample), ...others])];
  },
  parameterTerms: () => [],
};

/** Where each input begins in the output. @param {Call} call */
function beginnings(call) {
  let start = 0;
  return call.inSizes.map((size) => (start += size) - size);
}

/** @type {Rule} */
const concat = {
  forward(call) {
    const y = new Float64Array(call.count * call.size);
    for (let n = 0; n < call.count; n++) {
      beginnings(call).forEach((start, k) => {
        const size = call.inSizes[k];
        y.set(call.xs[k].subarray(n * size, (n + 1) * size), n * call.size + start);
      });
    }
    return { y, saved: null };
  },
  backward(call) {
    const starts = beginnings(call);
    const dxs = call.xs.map((input, k) => {
      const dx = new Float64Array(input.length);
      const size = call.inSizes[k];
      for (let n = 0; n < call.count; n++) {
        const start = n * call.size + starts[k];
        dx.set(call.dy.subarray(start, start + size), n * size);
      }
      return dx;
    });
    return { dxs, grads: {} };
  },
  valueTerms(call, at, sample) {
    const starts = beginnings(call);
    const k = starts.findLastIndex((start) => start <= at);
    return [term(1, [x(call, k, at - starts[k], sample)])];
  },
  inputTerms: (call, k, at, sample) => [term(1, [dy(call, beginnings(call)[k] + at, sample)])],
  parameterTerms: () => [],
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
