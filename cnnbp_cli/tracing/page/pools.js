/** Pooling: each window, or the whole image, becomes its maximum or its mean. */

import { dy, term, x } from "./terms.js";
import { pixelUnder, seenBy, windowsOver } from "./windows.js";

/**
 * @typedef {import("./terms.js").Call} Call
 * @typedef {import("./network.js").Rule} Rule
 * @typedef {import("./windows.js").Windows} Windows
 */

/** @typedef {{windows: Windows, winners: Int32Array}} MaxPoolSaved */

/** @param {Call} call */
export function poolWindows(call) {
  const { pool_size: size, stride, padding, ceil_mode: ceilMode } = call.node.fields;
  return windowsOver(call.inShapes[0].slice(1), size, stride ?? size, padding, 1, ceilMode);
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

/** How many pixels of a window lie on the image or on its padding. @param {Windows} windows @param {number} at */
function paddedPixels(windows, at) {
  const place = [Math.floor(at / windows.out[1]) % windows.out[0], at % windows.out[1]];
  const counts = [0, 1].map((axis) => {
    const end = windows.image[axis] + windows.before[axis] + windows.after[axis];
    const first = place[axis] * windows.stride[axis];
    return Math.min(first + windows.kernel[axis], end) - first;
  });
  return counts[0] * counts[1];
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
export function maxPool(windowsFor) {
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
export function averagePool(windowsFor) {
  /** @param {Call} call @param {Windows} windows @param {number} at */
  const divisor = (call, windows, at) =>
    call.node.fields.count_include_pad ? paddedPixels(windows, at) : windowAt(windows, at).length;
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
export function wholeImage(call) {
  const [, h, w] = call.inShapes[0];
  return windowsOver([h, w], [h, w], 1, "valid");
}
