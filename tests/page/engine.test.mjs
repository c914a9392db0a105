// The page's engine against NumPy: node --test tests/page (VECTORS names a file of tests/page/vectors.py).

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { Network } from "../../cnnbp_cli/tracing/page/network.js";
import { freshState, update } from "../../cnnbp_cli/tracing/page/optimizers.js";
import { unpack } from "../../cnnbp_cli/tracing/page/tensor.js";

const path = process.env.VECTORS;
const skip = path ? false : "VECTORS is not set; tests/page/test_engine.py sets it";
const vectors = path ? JSON.parse(readFileSync(path, "utf8")) : { networks: [], updates: [] };

const describe = ({ nodes, mode, losses }) =>
  `${mode}, ${losses.map(({ head, loss }) => `${head}, ${loss}`).join(" + ")}: ${nodes.map((node) => `${node.name} ${JSON.stringify(node.fields)}`).join("; ")}`;

// Normalizing by a tiny deviation multiplies rounding, in both implementations.
const amplification = ({ pass }) =>
  [...pass.calls.values()].reduce((gain, { saved }) => gain * Math.max(1, ...(saved?.r ?? [])), 1);

test("values, losses and gradients are NumPy's to 1e-12", { skip }, () => {
  for (const payload of vectors.networks) {
    const network = new Network(payload);
    const { largest, absolute, tensor } = network.deviation();
    const limit = 1e-12 * amplification(network);
    assert.ok(largest <= limit || absolute <= limit / 100, `${tensor} is off by ${largest} in ${describe(payload)}`);
  }
});

test("the terms of every cell add up to it, and each factor is the tensor's number", { skip }, () => {
  let cells = 0;
  for (const payload of vectors.networks) {
    const network = new Network(payload);
    const [predictions, targets] = ["prediction", "target"].map((name) => network.losses.map((loss) => loss[name]));
    const tensors = [...network.shapes.keys()].filter((name) => name !== "loss" && !targets.includes(name));
    for (const tensor of tensors) {
      for (const of of ["value", "gradient"]) {
        if (
          of === "gradient"
            ? predictions.includes(tensor) || (network.owners.has(tensor) && !network.trainable.has(tensor))
            : tensor === "input" || network.owners.has(tensor)
        )
          continue;
        const numbers = network.shown(tensor, of);
        for (let k = 0; k < Math.min(3, numbers.length); k++) {
          const at = (k * 7919 + payload.nodes.length) % numbers.length;
          const terms = network.terms(tensor, of, at);
          const sum = terms.reduce((total, { product }) => total + product, 0);
          const size = terms.reduce((most, { product }) => Math.max(most, Math.abs(product)), 1e-3);
          assert.ok(
            Math.abs(sum - numbers[at]) <= 1e-11 * size * Math.max(1, terms.length),
            `${of} of ${tensor} at ${at}: ${sum}, not ${numbers[at]}, in ${describe(payload)}`,
          );
          for (const { factors, coefficient, product, rule } of terms) {
            for (const factor of factors) {
              const all = network.numbersOf(factor.tensor, factor.of);
              const size = network.owners.has(factor.tensor) ? 0 : network.size(factor.tensor);
              assert.equal(factor.value, all[factor.sample * size + factor.at]);
            }
            if (rule === undefined)
              assert.equal(
                product,
                factors.reduce((total, { value }) => total * value, coefficient),
              );
          }
          cells++;
        }
      }
    }
  }
  assert.ok(cells > 1000, `only ${cells} cells`);
});

test("an update is the optimizer's", { skip }, () => {
  for (const { type, fields, steps } of vectors.updates) {
    const states = steps.length ? Array.from(unpack(steps[0].weights), () => freshState({ type, fields })) : [];
    steps.forEach((step, k) => {
      const [weights, gradient, after] = [step.weights, step.gradient, step.after].map(unpack);
      const spec = { type, fields, step: k + 1, learning_rate: 0.1 / (k + 1), clip_norm: null };
      weights.forEach((weight, i) => {
        const result = update(spec, weight, gradient[i], 1, states[i]);
        states[i] = result.after;
        assert.ok(Math.abs(weight - result.decrease - after[i]) <= 1e-12, `${type} ${JSON.stringify(fields)}`);
      });
    });
  }
});
