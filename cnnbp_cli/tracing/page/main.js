/** The start of the page, and its hooks for tests. */

import { App } from "./app.js";
import { commit } from "./mistakes.js";
import { bare, counted } from "./numbers.js";
import { questions } from "./quiz.js";
import { unflatten } from "./tensor.js";

/**
 * @typedef {import("./network.js").Payload} Payload
 * @typedef {import("./terms.js").Of} Of
 */

/** The hooks for tests. @param {App} app */
function hooks(app) {
  /** @param {string} text */
  const locate = (text) => app.network.locate(text);
  return {
    /** @param {string} text */
    value(text) {
      const { tensor, at } = locate(text);
      return app.network.shown(tensor, "value")[at];
    },
    /** @param {string} text */
    gradient(text) {
      const { tensor, at } = locate(text);
      return app.network.shown(tensor, "gradient")[at];
    },
    /** @param {string} text @param {Of} [of] */
    terms(text, of = "gradient") {
      const { tensor, at } = locate(text);
      return app.network.terms(tensor, of, at).map(({ coefficient, factors, product, rule }) => ({
        coefficient,
        product,
        rule,
        factors: factors.map((factor) => ({
          ...factor,
          index: unflatten(app.network.shape(factor.tensor), factor.at),
        })),
      }));
    },
    /** @param {string} text @param {number} value */
    edit: (text, value) => app.edit(locate(text), value),
    loss: () => app.network.pass.loss,
    deviation: () => app.network.deviation().largest,
    reset: () => app.reset(),
    /** The quiz's questions. @param {number} seed */
    quiz: (seed) => questions(app.network, seed),
    /** What a mistake of the lab spoils: tensor by tensor, the right and the wrong gradient. @param {string} key */
    mistake: (key) =>
      commit(app.network, key).damages.map(({ tensor, right, wrong, cells, kind }) => ({
        tensor,
        right: [...right],
        wrong: [...wrong],
        cells,
        kind,
      })),
  };
}

function start() {
  const data = /** @type {HTMLElement} */ (document.getElementById("payload"));
  /** @type {Payload} */
  const payload = JSON.parse(data.textContent ?? "");
  const app = new App(payload);
  Object.assign(window, { trace: hooks(app) });
  document.documentElement.dataset.ready = "true";
  setTimeout(() => {
    const { largest, cells } = app.network.deviation();
    app.footer.textContent = `This page computes both passes itself. Its largest deviation from the ${counted(cells, "number")} that Python wrote is ${largest === 0 ? "0" : bare(largest, 3)}, relative to the largest.`;
  });
}

start();
