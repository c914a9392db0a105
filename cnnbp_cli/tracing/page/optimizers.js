/** One update of a weight, as the configured optimizer makes it: a chain of links, each with its numbers. */

/**
 * @typedef {object} OptimizerSpec
 * @property {string} type
 * @property {Record<string, any>} fields
 * @property {number} learning_rate what the schedule gives for this update
 * @property {number} step the number of this update, 1 for the first
 * @property {number | null} clip_norm
 *
 * @typedef {object} Link
 * @property {string} name what the link is called
 * @property {string} symbol what it makes
 * @property {string} rule its formula
 * @property {number} value
 *
 * @typedef {Record<string, number>} State
 */

/** The state vectors of each optimizer, and what they start at. @param {OptimizerSpec} spec @returns {State} */
export function freshState({ type, fields }) {
  if (type === "sgd") return fields.momentum ? { momentum: 0 } : {};
  if (type === "adagrad") return { sum: fields.initial_accumulator };
  if (type !== "rmsprop") return { mean: 0, square: 0 };
  return { square: 0, ...(fields.centered ? { mean: 0 } : {}), ...(fields.momentum ? { momentum: 0 } : {}) };
}

/**
 * @param {OptimizerSpec} spec
 * @param {number} weight
 * @param {number} gradient
 * @param {number} norm the L2 norm of the whole gradient
 * @param {State} [before]
 * @returns {{links: Link[], decrease: number, after: State}}
 */
export function update(spec, weight, gradient, norm, before = freshState(spec)) {
  const { type, fields, step } = spec;
  /** @type {Link[]} */
  const links = [];
  /** @type {State} */
  const after = {};
  let g = gradient;
  /** @param {string} name @param {string} symbol @param {string} rule @param {number} value */
  const link = (name, symbol, rule, value) => {
    links.push({ name, symbol, rule, value });
    return value;
  };
  const momentum = () => {
    if (!fields.momentum) return;
    after.momentum = link("momentum", "b", "μ·b + g", fields.momentum * before.momentum + g);
    g = fields.nesterov ? link("Nesterov", "g", "g + μ·b", g + fields.momentum * after.momentum) : after.momentum;
  };
  const decay = () => {
    if (fields.weight_decay) g = link("weight decay", "g", "g + λ·w", g + fields.weight_decay * weight);
  };
  if (spec.clip_norm !== null) {
    g = link("clipping", "g", "g · min(1, c / ‖g‖)", g * Math.min(1, spec.clip_norm / (norm + 1e-6)));
  }
  if (type !== "adamw") decay();
  if (type === "sgd") momentum();
  if (type === "adam" || type === "adamw") {
    const [b1, b2] = fields.betas;
    after.mean = link("running mean", "m", "β₁·m + (1 − β₁)·g", b1 * before.mean + (1 - b1) * g);
    after.square = link("running square", "v", "β₂·v + (1 − β₂)·g²", b2 * before.square + (1 - b2) * g * g);
    const mean = link("freed of bias", "m̂", `m / (1 − β₁${power(step)})`, after.mean / (1 - b1 ** step));
    const square = link("freed of bias", "v̂", `v / (1 − β₂${power(step)})`, after.square / (1 - b2 ** step));
    g = link("scaled", "g", "m̂ / (√v̂ + ε)", mean / (Math.sqrt(square) + fields.epsilon));
  }
  if (type === "adamw") decay();
  if (type === "rmsprop") {
    const { alpha, epsilon } = fields;
    after.square = link("running square", "s", "α·s + (1 − α)·g²", alpha * before.square + (1 - alpha) * g * g);
    let variance = after.square;
    if (fields.centered) {
      after.mean = link("running mean", "a", "α·a + (1 − α)·g", alpha * before.mean + (1 - alpha) * g);
      variance = link("variance", "s", "s − a²", Math.max(after.square - after.mean * after.mean, 0));
    }
    g = link("scaled", "g", "g / (√s + ε)", g / (Math.sqrt(variance) + epsilon));
    momentum();
  }
  if (type === "adagrad") {
    after.sum = link("sum of squares", "s", "s + g²", before.sum + g * g);
    g = link("scaled", "g", "g / (√s + ε)", g / (Math.sqrt(after.sum) + fields.epsilon));
  }
  const rate = spec.learning_rate / (1 + (step - 1) * (fields.learning_rate_decay ?? 0));
  return { links, decrease: link("step", "η·g", "η · g", rate * g), after };
}

/** @param {number} exponent */
function power(exponent) {
  return exponent === 1 ? "" : [...String(exponent)].map((digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[Number(digit)]).join("");
}
