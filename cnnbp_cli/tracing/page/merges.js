/** Merges: where branches of the network meet. */

import { dy, term, x } from "./terms.js";

/**
 * @typedef {import("./terms.js").Call} Call
 * @typedef {import("./network.js").Rule} Rule
 */

/** @type {Rule} */
export const add = {
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
export const multiply = {
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
