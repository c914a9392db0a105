/** Merges: where branches of the network meet. */

import { dy, term, x } from "./terms.js";

/**
 * @typedef {import("./terms.js").Call} Call
 * @typedef {import("./network.js").Rule} Rule
 */

/**
 * Which cell of the k-th input each cell of one image's output reads: sizes of 1 are repeated, and so is a vector
 * beside images.
 *
 * @param {Call} call
 * @param {number} k
 */
function cellsRead(call, k) {
  const { shape } = call.node;
  if (call.inSizes[k] === call.size) return Int32Array.from({ length: call.size }, (_, at) => at);
  const sizes = shape.map((_, axis) => call.inShapes[k][axis] ?? 1);
  return Int32Array.from({ length: call.size }, (_, at) => {
    let [rest, cell, step] = [at, 0, 1];
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      if (sizes[axis] > 1) cell += step * (rest % shape[axis]);
      step *= sizes[axis];
      rest = Math.floor(rest / shape[axis]);
    }
    return cell;
  });
}

/** Every input, repeated to the size of the output. @param {Call} call */
function repeated(call) {
  return call.xs.map((input, k) => {
    if (call.inSizes[k] === call.size) return input;
    const cells = cellsRead(call, k);
    return Float64Array.from(
      { length: call.count * call.size },
      (_, at) => input[Math.floor(at / call.size) * call.inSizes[k] + cells[at % call.size]],
    );
  });
}

/** The sum over all cells that read one, of gradients to a repeated input. @param {Call} call @param {number} k @param {Float64Array} gradients */
function gathered(call, k, gradients) {
  if (call.inSizes[k] === call.size) return gradients;
  const cells = cellsRead(call, k);
  const dx = new Float64Array(call.xs[k].length);
  gradients.forEach((value, at) => {
    dx[Math.floor(at / call.size) * call.inSizes[k] + cells[at % call.size]] += value;
  });
  return dx;
}

/** The output's cells that read a cell of the k-th input. @param {Call} call @param {number} k @param {number} cell */
function readersOf(call, k, cell) {
  if (call.inSizes[k] === call.size) return [cell];
  return [...cellsRead(call, k)].flatMap((read, at) => (read === cell ? [at] : []));
}

/** @type {Rule} */
export const add = {
  forward(call) {
    const [first, ...others] = repeated(call);
    const y = Float64Array.from(first);
    for (const input of others) for (let k = 0; k < y.length; k++) y[k] += input[k];
    return { y, saved: null };
  },
  backward: (call) => ({ dxs: call.xs.map((_, k) => gathered(call, k, call.dy)), grads: {} }),
  valueTerms: (call, at, sample) => call.xs.map((_, k) => term(1, [x(call, k, cellsRead(call, k)[at], sample)])),
  inputTerms: (call, own, at, sample) => readersOf(call, own, at).map((place) => term(1, [dy(call, place, sample)])),
  parameterTerms: () => [],
};

/** @type {Rule} */
export const multiply = {
  forward(call) {
    const [first, ...others] = repeated(call);
    const y = Float64Array.from(first);
    for (const input of others) for (let k = 0; k < y.length; k++) y[k] *= input[k];
    return { y, saved: null };
  },
  backward(call) {
    const inputs = repeated(call);
    const dxs = inputs.map((_, own) =>
      gathered(
        call,
        own,
        call.dy.map((value, k) =>
          inputs.reduce((product, input, l) => (l === own ? product : product * input[k]), value),
        ),
      ),
    );
    return { dxs, grads: {} };
  },
  valueTerms: (call, at, sample) => [
    term(
      1,
      call.xs.map((_, k) => x(call, k, cellsRead(call, k)[at], sample)),
    ),
  ],
  inputTerms(call, own, at, sample) {
    const others = call.xs.flatMap((_, k) => (k === own ? [] : [{ k, cells: cellsRead(call, k) }]));
    return readersOf(call, own, at).map((place) =>
      term(1, [dy(call, place, sample), ...others.map(({ k, cells }) => x(call, k, cells[place], sample))]),
    );
  },
  parameterTerms: () => [],
};

/** Where each input begins in the output. @param {Call} call */
function beginnings(call) {
  let start = 0;
  return call.inSizes.map((size) => (start += size) - size);
}

/** @type {Rule} */
export const concat = {
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
