/** Where a kernel lies on an image: the geometry of convolutions and pools. */

/** @typedef {number | [number, number]} Size */
/** @typedef {Size | [number, number, number, number] | "valid" | "same"} Padding */

/**
 * @typedef {object} Windows
 * @property {number[]} image height and width of what the windows slide over
 * @property {number[]} kernel
 * @property {number[]} stride
 * @property {number[]} dilation
 * @property {number[]} before padding on top and on the left
 * @property {number[]} after padding at the bottom and on the right
 * @property {number[]} out the number of windows down and across
 */

/** @param {Size} size @returns {[number, number]} */
export function pair(size) {
  return Array.isArray(size) ? size : [size, size];
}

/** The padding before and after each axis; of `same`, which depends on the image, none. @param {Padding} padding */
export function sides(padding) {
  if (typeof padding === "string") return { before: [0, 0], after: [0, 0] };
  if (!Array.isArray(padding) || padding.length === 2) return { before: [...pair(padding)], after: [...pair(padding)] };
  const [top, bottom, left, right] = padding;
  return { before: [top, left], after: [bottom, right] };
}

/**
 * @param {readonly number[]} image
 * @param {Size} kernelSize
 * @param {Size} strideSize
 * @param {Padding} padding
 * @param {Size} dilationSize
 * @param {boolean} ceilMode one more window, which starts on the image, may reach over the end
 * @returns {Windows}
 */
export function windowsOver(image, kernelSize, strideSize, padding, dilationSize = 1, ceilMode = false) {
  const kernel = pair(kernelSize);
  const stride = pair(strideSize);
  const dilation = pair(dilationSize);
  const { before, after } = sides(padding);
  const out = [0, 0];
  for (const axis of [0, 1]) {
    const reach = dilation[axis] * (kernel[axis] - 1) + 1;
    if (padding === "same") {
      const windows = Math.ceil(image[axis] / stride[axis]);
      const total = Math.max((windows - 1) * stride[axis] + reach - image[axis], 0);
      before[axis] = Math.floor(total / 2); // an odd pixel goes to the end
      after[axis] = total - before[axis];
    }
    const last = (image[axis] + before[axis] + after[axis] - reach) / stride[axis];
    out[axis] = (ceilMode ? Math.ceil(last) : Math.floor(last)) + 1;
    if (ceilMode && (out[axis] - 1) * stride[axis] >= image[axis] + before[axis]) out[axis] -= 1;
  }
  return { image: [...image], kernel, stride, dilation, before, after, out };
}

/**
 * The windows whose tap `k` lies on the image, along one axis: the first, and one past the last.
 *
 * @param {Windows} windows
 * @param {0 | 1} axis
 * @param {number} k
 */
export function onImage(windows, axis, k) {
  const offset = k * windows.dilation[axis] - windows.before[axis];
  const first = Math.max(0, Math.ceil(-offset / windows.stride[axis]));
  const stop = Math.min(windows.out[axis], Math.floor((windows.image[axis] - 1 - offset) / windows.stride[axis]) + 1);
  return { offset, first, stop: Math.max(first, stop) };
}

/**
 * The pixel under tap `k` of window `p`, or -1 where that is padding.
 *
 * @param {Windows} windows
 * @param {0 | 1} axis
 * @param {number} p
 * @param {number} k
 */
export function pixelUnder(windows, axis, p, k) {
  const pixel = p * windows.stride[axis] + k * windows.dilation[axis] - windows.before[axis];
  return pixel >= 0 && pixel < windows.image[axis] ? pixel : -1;
}

/**
 * The windows that see a pixel, along one axis, each with the tap that lies on it.
 *
 * @param {Windows} windows
 * @param {0 | 1} axis
 * @param {number} pixel
 */
export function seenBy(windows, axis, pixel) {
  const found = [];
  for (let k = windows.kernel[axis] - 1; k >= 0; k--) {
    const start = pixel + windows.before[axis] - k * windows.dilation[axis];
    const p = start / windows.stride[axis];
    if (Number.isInteger(p) && p >= 0 && p < windows.out[axis]) found.push({ p, k });
  }
  return found;
}
