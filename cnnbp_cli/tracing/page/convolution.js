/** Convolution and transposed convolution: forward, backward, and the terms of every cell. */

import { dy, parameter, term, x } from "./terms.js";
import { onImage, pixelUnder, seenBy, windowsOver } from "./windows.js";

/**
 * @typedef {import("./terms.js").Term} Term
 * @typedef {import("./terms.js").Call} Call
 * @typedef {import("./network.js").Rule} Rule
 * @typedef {import("./windows.js").Windows} Windows
 */

/**
 * The sums over windows that both layers are made of, each the gradient of the others.
 *
 * `image` (c, h, w) is what the windows slide over, `map` (f, oh, ow) has a number for each window, and `kernels` is
 * (f, c/g, kh, kw). All three run along the same triples of cells; `visit` is called with each run of them.
 *
 * @param {Windows} windows
 * @param {{c: number, f: number, groups: number, count: number}} sizes
 * @param {(image: number, map: number, weight: number, length: number, stride: number) => void} visit
 * @param {{flipped?: boolean, lastRow?: boolean}} [mistaken]
 */
function overWindows(windows, { c, f, groups, count }, visit, mistaken = {}) {
  const [h, w] = windows.image;
  const [kh, kw] = windows.kernel;
  const [oh, ow] = windows.out;
  const perGroup = c / groups;
  const stride = windows.stride[1];
  for (let i = 0; i < kh; i++) {
    const rows = onImage(windows, 0, i);
    const stop = mistaken.lastRow ? Math.min(rows.stop, oh - 1) : rows.stop;
    for (let j = 0; j < kw; j++) {
      const columns = onImage(windows, 1, j);
      const length = columns.stop - columns.first;
      if (length <= 0) continue;
      const tap = mistaken.flipped ? (kh - 1 - i) * kw + (kw - 1 - j) : i * kw + j;
      for (let n = 0; n < count; n++) {
        for (let filter = 0; filter < f; filter++) {
          const firstChannel = Math.floor(filter / (f / groups)) * perGroup;
          for (let channel = 0; channel < perGroup; channel++) {
            const weight = (filter * perGroup + channel) * kh * kw + tap;
            const plane = (n * c + firstChannel + channel) * h;
            for (let p = rows.first; p < stop; p++) {
              const row = plane + p * windows.stride[0] + rows.offset;
              const image = row * w + columns.first * stride + columns.offset;
              visit(image, ((n * f + filter) * oh + p) * ow + columns.first, weight, length, stride);
            }
          }
        }
      }
    }
  }
}

/** map[p, q] += Σ kernel · image @type {(i: Float64Array, k: Float64Array, m: Float64Array, ...rest: any) => void} */
function correlate(image, kernels, map, windows, sizes) {
  overWindows(windows, sizes, (at, to, weight, length, stride) => {
    const factor = kernels[weight];
    for (let q = 0; q < length; q++, at += stride) map[to + q] += factor * image[at];
  });
}

/** image += Σ kernel · map @type {(i: Float64Array, k: Float64Array, m: Float64Array, ...rest: any) => void} */
function correlateTransposed(image, kernels, map, windows, sizes, mistaken) {
  /** @param {number} at @param {number} from @param {number} weight @param {number} length @param {number} stride */
  const stamp = (at, from, weight, length, stride) => {
    const factor = kernels[weight];
    for (let q = 0; q < length; q++, at += stride) image[at] += factor * map[from + q];
  };
  overWindows(windows, sizes, stamp, mistaken);
}

/** kernel += Σ map · image @type {(i: Float64Array, k: Float64Array, m: Float64Array, ...rest: any) => void} */
function correlateKernels(image, kernels, map, windows, sizes, mistaken) {
  overWindows(
    windows,
    sizes,
    (at, from, weight, length, stride) => {
      let sum = 0;
      for (let q = 0; q < length; q++, at += stride) sum += map[from + q] * image[at];
      kernels[weight] += sum;
    },
    mistaken,
  );
}

/**
 * The transposed sum with a mistake: each window's stamp replaces what lies there, instead of adding to it.
 *
 * @param {Float64Array} image
 * @param {Float64Array} kernels
 * @param {Float64Array} map
 * @param {Windows} windows
 * @param {{c: number, f: number, groups: number, count: number}} sizes
 */
function stampOver(image, kernels, map, windows, { c, f, groups, count }) {
  const [h, w] = windows.image;
  const [kh, kw] = windows.kernel;
  const [oh, ow] = windows.out;
  for (let n = 0; n < count; n++) {
    for (let p = 0; p < oh; p++) {
      for (let q = 0; q < ow; q++) {
        for (let channel = 0; channel < c; channel++) {
          const group = Math.floor(channel / (c / groups));
          for (let i = 0; i < kh; i++) {
            for (let j = 0; j < kw; j++) {
              const row = pixelUnder(windows, 0, p, i);
              const column = pixelUnder(windows, 1, q, j);
              if (row < 0 || column < 0) continue;
              let sum = 0;
              for (let filter = (group * f) / groups; filter < ((group + 1) * f) / groups; filter++) {
                const weight = ((filter * (c / groups) + (channel % (c / groups))) * kh + i) * kw + j;
                sum += kernels[weight] * map[((n * f + filter) * oh + p) * ow + q];
              }
              image[((n * c + channel) * h + row) * w + column] = sum;
            }
          }
        }
      }
    }
  }
}

/**
 * @param {Float64Array} map
 * @param {number} count
 * @param {number[]} shape (channels, h, w)
 * @param {{mean?: boolean, lastRow?: boolean}} [mistaken]
 */
function sumPerChannel(map, count, [channels, h, w], mistaken = {}) {
  const sums = new Float64Array(channels);
  const rows = mistaken.lastRow ? h - 1 : h;
  for (let n = 0; n < count; n++) {
    for (let channel = 0; channel < channels; channel++) {
      const start = (n * channels + channel) * h * w;
      for (let k = start; k < start + rows * w; k++) sums[channel] += map[k];
    }
  }
  return mistaken.mean ? sums.map((sum) => sum / (count * h * w)) : sums;
}

/** @param {Float64Array} y @param {Float64Array} bias @param {number} count @param {number} pixels */
function addBias(y, bias, count, pixels) {
  for (let n = 0, at = 0; n < count; n++) {
    for (const value of bias) for (let k = 0; k < pixels; k++) y[at++] += value;
  }
}

/** @param {Call} call */
function convolutionSizes(call) {
  return {
    c: call.inShapes[0][0],
    f: call.node.shape[0],
    groups: call.node.fields.groups ?? 1,
    count: call.count,
  };
}

/** @param {Float64Array} kernels @param {number} taps Each kernel turned by half a turn. */
function turned(kernels, taps) {
  return kernels.map((_, k) => kernels[k - (k % taps) + (taps - 1 - (k % taps))]);
}

/** @type {Rule} */
export const conv2d = {
  forward(call) {
    const { kernel_size: kernel, stride, padding, dilation } = call.node.fields;
    const windows = windowsOver(call.inShapes[0].slice(1), kernel, stride, padding, dilation);
    const y = new Float64Array(call.count * call.size);
    correlate(call.xs[0], call.params.weight, y, windows, convolutionSizes(call));
    if (call.params.bias) addBias(y, call.params.bias, call.count, windows.out[0] * windows.out[1]);
    return { y, saved: windows };
  },
  backward(call, mistake) {
    const windows = /** @type {Windows} */ (call.saved);
    const sizes = convolutionSizes(call);
    const { weight, bias } = call.params;
    let dweight = new Float64Array(weight.length);
    const lastRow = mistake === "last-row";
    correlateKernels(call.xs[0], dweight, call.dy, windows, sizes, { lastRow });
    if (mistake === "swapped") dweight = turned(dweight, windows.kernel[0] * windows.kernel[1]);
    /** @type {Record<string, Float64Array>} */
    const grads = { weight: dweight };
    if (bias) grads.bias = sumPerChannel(call.dy, call.count, call.node.shape, { mean: mistake === "mean", lastRow });
    const dx = new Float64Array(call.xs[0].length);
    if (mistake === "overwrite") stampOver(dx, weight, call.dy, windows, sizes);
    else correlateTransposed(dx, weight, call.dy, windows, sizes, { flipped: mistake === "not-flipped" });
    return { dxs: [dx], grads };
  },
  valueTerms(call, at, sample) {
    const windows = /** @type {Windows} */ (call.saved);
    const { c, f, groups } = convolutionSizes(call);
    const [filter, p, q] = placeIn(at, windows.out);
    /** @type {Term[]} */
    const terms = [];
    for (let channel = 0; channel < c / groups; channel++) {
      const source = Math.floor(filter / (f / groups)) * (c / groups) + channel;
      eachTap(windows, (i, j) => {
        const row = pixelUnder(windows, 0, p, i);
        const column = pixelUnder(windows, 1, q, j);
        if (row < 0 || column < 0) return;
        const weight = parameter(call, "weight", weightAt(windows, c / groups, filter, channel, i, j));
        const pixel = x(call, 0, (source * windows.image[0] + row) * windows.image[1] + column, sample);
        terms.push(term(1, [weight, pixel]));
      });
    }
    if (call.params.bias) terms.push(term(1, [parameter(call, "bias", filter)], "bias"));
    return terms;
  },
  inputTerms(call, _, at, sample) {
    const windows = /** @type {Windows} */ (call.saved);
    const { c, f, groups } = convolutionSizes(call);
    const [channel, row, column] = placeIn(at, windows.image);
    const group = Math.floor(channel / (c / groups));
    /** @type {Term[]} */
    const terms = [];
    for (let filter = (group * f) / groups; filter < ((group + 1) * f) / groups; filter++) {
      for (const { p, k: i } of seenBy(windows, 0, row)) {
        for (const { p: q, k: j } of seenBy(windows, 1, column)) {
          const weight = weightAt(windows, c / groups, filter, channel % (c / groups), i, j);
          const gradient = dy(call, (filter * windows.out[0] + p) * windows.out[1] + q, sample);
          terms.push(term(1, [gradient, parameter(call, "weight", weight)]));
        }
      }
    }
    return terms;
  },
  parameterTerms(call, key, at) {
    const windows = /** @type {Windows} */ (call.saved);
    const [oh, ow] = windows.out;
    const { c, f, groups } = convolutionSizes(call);
    const taps = windows.kernel[0] * windows.kernel[1];
    const filter = key === "bias" ? at : Math.floor(at / ((c / groups) * taps));
    const channel = Math.floor(at / taps) % (c / groups);
    const source = Math.floor(filter / (f / groups)) * (c / groups) + channel;
    const i = Math.floor((at % taps) / windows.kernel[1]);
    const j = at % windows.kernel[1];
    /** @type {Term[]} */
    const terms = [];
    for (let sample = 0; sample < call.count; sample++) {
      for (let p = 0; p < oh; p++) {
        for (let q = 0; q < ow; q++) {
          const gradient = dy(call, (filter * oh + p) * ow + q, sample);
          if (key === "bias") {
            terms.push(term(1, [gradient]));
            continue;
          }
          const row = pixelUnder(windows, 0, p, i);
          const column = pixelUnder(windows, 1, q, j);
          if (row < 0 || column < 0) continue;
          const pixel = x(call, 0, (source * windows.image[0] + row) * windows.image[1] + column, sample);
          terms.push(term(1, [gradient, pixel]));
        }
      }
    }
    return terms;
  },
};

/** @param {Windows} windows @param {(i: number, j: number) => void} visit */
function eachTap(windows, visit) {
  for (let i = 0; i < windows.kernel[0]; i++) for (let j = 0; j < windows.kernel[1]; j++) visit(i, j);
}

/** @param {number} at @param {number[]} size @returns {[number, number, number]} channel, row, column */
function placeIn(at, [h, w]) {
  return [Math.floor(at / (h * w)), Math.floor(at / w) % h, at % w];
}

/**
 * @param {Windows} windows
 * @param {number} channels of each filter
 * @param {number} filter
 * @param {number} channel
 * @param {number} i
 * @param {number} j
 */
function weightAt(windows, channels, filter, channel, i, j) {
  return ((filter * channels + channel) * windows.kernel[0] + i) * windows.kernel[1] + j;
}

/**
 * The transpose of a convolution: the windows slide over the output, the input has a number for each window, and the
 * kernels (c, f, kh, kw) are those of a convolution from the output to the input.
 *
 * @type {Rule}
 */
export const convTranspose2d = {
  forward(call) {
    const { fields, shape } = call.node;
    const windows = windowsOver(shape.slice(1), fields.kernel_size, fields.stride, fields.padding, fields.dilation);
    const y = new Float64Array(call.count * call.size);
    correlateTransposed(y, call.params.weight, call.xs[0], windows, transposedSizes(call));
    if (call.params.bias) addBias(y, call.params.bias, call.count, shape[1] * shape[2]);
    return { y, saved: windows };
  },
  backward(call, mistake) {
    const windows = /** @type {Windows} */ (call.saved);
    const { weight, bias } = call.params;
    const dx = new Float64Array(call.xs[0].length);
    correlate(call.dy, weight, dx, windows, transposedSizes(call));
    const dweight = new Float64Array(weight.length);
    correlateKernels(call.dy, dweight, call.xs[0], windows, transposedSizes(call));
    /** @type {Record<string, Float64Array>} */
    const grads = { weight: dweight };
    if (bias) grads.bias = sumPerChannel(call.dy, call.count, call.node.shape, { mean: mistake === "mean" });
    return { dxs: [dx], grads };
  },
  valueTerms(call, at, sample) {
    const windows = /** @type {Windows} */ (call.saved);
    const { c, f, groups } = transposedSizes(call);
    const [filter, row, column] = placeIn(at, windows.image);
    const group = Math.floor(filter / (c / groups));
    /** @type {Term[]} */
    const terms = [];
    for (let channel = (group * f) / groups; channel < ((group + 1) * f) / groups; channel++) {
      for (const { p, k: i } of seenBy(windows, 0, row)) {
        for (const { p: q, k: j } of seenBy(windows, 1, column)) {
          const weight = parameter(call, "weight", weightAt(windows, c / groups, channel, filter % (c / groups), i, j));
          terms.push(term(1, [weight, x(call, 0, (channel * windows.out[0] + p) * windows.out[1] + q, sample)]));
        }
      }
    }
    if (call.params.bias) terms.push(term(1, [parameter(call, "bias", filter)], "bias"));
    return terms;
  },
  inputTerms(call, _, at, sample) {
    const windows = /** @type {Windows} */ (call.saved);
    const { c, f, groups } = transposedSizes(call);
    const [channel, p, q] = placeIn(at, windows.out);
    const first = Math.floor(channel / (f / groups)) * (c / groups);
    /** @type {Term[]} */
    const terms = [];
    for (let k = 0; k < c / groups; k++) {
      eachTap(windows, (i, j) => {
        const row = pixelUnder(windows, 0, p, i);
        const column = pixelUnder(windows, 1, q, j);
        if (row < 0 || column < 0) return;
        const gradient = dy(call, ((first + k) * windows.image[0] + row) * windows.image[1] + column, sample);
        terms.push(term(1, [gradient, parameter(call, "weight", weightAt(windows, c / groups, channel, k, i, j))]));
      });
    }
    return terms;
  },
  parameterTerms(call, key, at) {
    const windows = /** @type {Windows} */ (call.saved);
    const { c, f, groups } = transposedSizes(call);
    const [h, w] = windows.image;
    const taps = windows.kernel[0] * windows.kernel[1];
    const channel = Math.floor((at / (taps * c)) * groups);
    const first = Math.floor(channel / (f / groups)) * (c / groups);
    const filter = key === "bias" ? at : first + (Math.floor(at / taps) % (c / groups));
    /** @type {Term[]} */
    const terms = [];
    for (let sample = 0; sample < call.count; sample++) {
      if (key === "bias") {
        for (let k = 0; k < h * w; k++) terms.push(term(1, [dy(call, filter * h * w + k, sample)]));
        continue;
      }
      const i = Math.floor((at % taps) / windows.kernel[1]);
      const j = at % windows.kernel[1];
      for (let p = 0; p < windows.out[0]; p++) {
        for (let q = 0; q < windows.out[1]; q++) {
          const row = pixelUnder(windows, 0, p, i);
          const column = pixelUnder(windows, 1, q, j);
          if (row < 0 || column < 0) continue;
          const gradient = dy(call, (filter * h + row) * w + column, sample);
          terms.push(term(1, [gradient, x(call, 0, (channel * windows.out[0] + p) * windows.out[1] + q, sample)]));
        }
      }
    }
    return terms;
  },
};

/** @param {Call} call As seen from the convolution whose transpose it is: `c` of the output, `f` of the input. */
function transposedSizes(call) {
  return { c: call.node.shape[0], f: call.inShapes[0][0], groups: call.node.fields.groups, count: call.count };
}
