/** What a cell is made of: a sum of terms, each a coefficient times the numbers of other cells. */

/**
 * @typedef {"value" | "gradient" | "update"} Of
 *
 * @typedef {object} Factor
 * @property {string} tensor a layer's name, `<layer>.<parameter>`, `input`, `prediction` or `target`
 * @property {Of} of
 * @property {number} at the cell's place in the tensor of one image, counted in row-major order
 * @property {number} sample which image of the batch; 0 for parameters
 * @property {number} value
 *
 * @typedef {object} Term
 * @property {number} coefficient
 * @property {Factor[]} factors
 * @property {number} product coefficient times all factors, or the function of them that `rule` names
 * @property {string} [rule] the function that makes the product, where it is none
 * @property {string} [part] which part of the sum this is, where the sum has parts
 * @property {string} [via] the layer that sends this part of a gradient back
 *
 * @typedef {import("./network.js").Call} Call
 */

/**
 * @param {number} coefficient
 * @param {Factor[]} factors
 * @param {string} [part]
 * @returns {Term}
 */
export function term(coefficient, factors, part) {
  let product = coefficient;
  for (const factor of factors) product *= factor.value;
  return part === undefined ? { coefficient, factors, product } : { coefficient, factors, product, part };
}

/**
 * A term that is a function of cells, not a product.
 *
 * @param {string} rule
 * @param {number} product
 * @param {Factor[]} factors
 * @returns {Term}
 */
export function functionOf(rule, product, factors) {
  return { coefficient: 1, factors, product, rule };
}

/** @param {Call} call @param {number} k @param {number} at @param {number} sample @returns {Factor} */
export function x(call, k, at, sample) {
  const value = call.xs[k][sample * call.inSizes[k] + at];
  return { tensor: call.node.inputs[k], of: "value", at, sample, value };
}

/** @param {Call} call @param {number} at @param {number} sample @returns {Factor} */
export function y(call, at, sample) {
  return { tensor: call.node.name, of: "value", at, sample, value: call.y[sample * call.size + at] };
}

/** @param {Call} call @param {number} at @param {number} sample @returns {Factor} */
export function dy(call, at, sample) {
  return { tensor: call.node.name, of: "gradient", at, sample, value: call.dy[sample * call.size + at] };
}

/** @param {Call} call @param {string} key @param {number} at @returns {Factor} */
export function parameter(call, key, at) {
  return {
    tensor: `${call.node.shares ?? call.node.name}.${key}`,
    of: "value",
    at,
    sample: 0,
    value: call.params[key][at],
  };
}
