/** The pass, step by step: forward to the loss, back to the pixels, and an update. */

import { INPUT } from "./network.js";

/**
 * @typedef {import("./network.js").Network} Network
 * @typedef {{tensor: string, of: import("./terms.js").Of, says: string}} Step
 */

/** @param {Network} network @returns {Step[]} */
export function stepsOf(network) {
  /** @type {Step[]} */
  const steps = [{ tensor: INPUT, of: "value", says: "forward: the image" }];
  for (const { name } of network.nodes) steps.push({ tensor: name, of: "value", says: `forward: ${name}` });
  for (const tensor of network.beyond.filter((name) => name !== "target")) {
    steps.push({ tensor, of: "value", says: `forward: the ${tensor}` });
  }
  for (const { name, parameters } of [...network.nodes].reverse()) {
    steps.push({ tensor: name, of: "gradient", says: `backward: at the output of ${name}` });
    for (const key of Object.keys(parameters)) {
      const tensor = `${name}.${key}`;
      if (network.trainable.has(tensor)) steps.push({ tensor, of: "gradient", says: `backward: ${tensor}` });
    }
  }
  steps.push({ tensor: INPUT, of: "gradient", says: "backward: the pixels" });
  const [first] = network.trainable;
  if (first) steps.push({ tensor: first, of: "update", says: `the update of ${first}` });
  return steps;
}
