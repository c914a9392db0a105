/**
 * Arrays as Python ships them, and how a cell's place in a tensor is counted and written.
 *
 * A tensor of one image is a Float64Array in row-major order; a batch is those of its images, one after another.
 */

/** @typedef {{shape: number[], dtype: "f4" | "f8", data: string}} PackedArray */

/**
 * @param {PackedArray} packed
 * @returns {Float64Array}
 */
export function unpack(packed) {
  const text = atob(packed.data);
  const bytes = new Uint8Array(text.length);
  for (let k = 0; k < text.length; k++) bytes[k] = text.charCodeAt(k);
  return packed.dtype === "f8" ? new Float64Array(bytes.buffer) : Float64Array.from(new Float32Array(bytes.buffer));
}

/** @param {readonly number[]} shape */
export function sizeOf(shape) {
  return shape.reduce((product, size) => product * size, 1);
}

/**
 * @param {readonly number[]} shape
 * @param {readonly number[]} index
 */
export function flatten(shape, index) {
  return shape.reduce((flat, size, axis) => flat * size + index[axis], 0);
}

/**
 * @param {readonly number[]} shape
 * @param {number} flat
 */
export function unflatten(shape, flat) {
  const index = new Array(shape.length);
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    index[axis] = flat % shape[axis];
    flat = Math.floor(flat / shape[axis]);
  }
  return index;
}

/** @param {number} start @param {number} count */
export function range(start, count) {
  return Array.from({ length: count }, (_, k) => start + k);
}

/** The largest absolute value; NaN and infinities are left out. @param {Float64Array} array */
export function largest(array) {
  let most = 0;
  for (const value of array) {
    const size = Math.abs(value);
    if (size > most && size < Infinity) most = size;
  }
  return most;
}

/**
 * `conv1[0,2,3]` as tensor and index; a name may contain brackets itself.
 *
 * @param {string} text
 */
export function parseCell(text) {
  const open = text.endsWith("]") ? text.lastIndexOf("[") : -1;
  if (open < 0) return { tensor: text, index: /** @type {number[]} */ ([]) };
  const inner = text.slice(open + 1, -1);
  return { tensor: text.slice(0, open), index: inner === "" ? [] : inner.split(",").map(Number) };
}

/**
 * @param {string} tensor
 * @param {readonly number[]} index
 */
export function cellText(tensor, index) {
  return index.length ? `${tensor}[${index.join(",")}]` : tensor;
}
