/** The lab beside the network: break the backward pass, and see it caught. */

import { SVG } from "./column.js";
import { button, make } from "./maps.js";
import { agree, nameOf } from "./microscope.js";
import { commit, MISTAKES, trainWith } from "./mistakes.js";
import { INPUT } from "./network.js";
import { bare, counted, plain } from "./numbers.js";

/**
 * @typedef {import("./app.js").App} App
 * @typedef {import("./network.js").Network} Network
 */

const TRAINING_STEPS = 30;
const WORST = 4;

export class Lab {
  /** @param {App} app */
  constructor(app) {
    this.app = app;
    /** @type {string | null} */
    this.key = null;
    /** @type {import("./mistakes.js").Damage[]} */
    this.damages = [];
    /** @type {{right: number[], wrong: number[]} | null} */
    this.training = null;
    this.busy = false;
    /** Images to train on. */
    this.images = 0;
  }

  /** @param {string | null} key */
  choose(key) {
    this.key = key;
    this.training = null;
    this.refresh();
    this.app.column.paint();
    this.app.show();
  }

  /** Commit the mistake on the numbers as they are. */
  refresh() {
    const { column, network } = this.app;
    const result = this.key ? commit(network, this.key) : null;
    this.damages = result?.damages ?? [];
    column.spoilt = result
      ? (tensor) =>
          network.shapes.has(tensor) && result.pass.gradients.has(tensor)
            ? network.shown(tensor, "gradient", result.pass)
            : undefined
      : null;
    column.wrong = result ? new Map(this.damages.map(({ tensor, cells }) => [tensor, new Set(cells)])) : null;
  }

  panel() {
    const { app } = this;
    const panel = make(
      "div",
      { className: "microscope lab" },
      make("h2", { className: "cell-name" }, "Break the backward pass"),
    );
    const list = make("div", { className: "mistakes", role: "group", "aria-label": "mistakes" });
    for (const { key, name, occurs } of MISTAKES) {
      const choice = button(name, () => this.choose(this.key === key ? null : key));
      choice.setAttribute("aria-pressed", String(this.key === key));
      choice.disabled = !occurs(app.network) || this.blocked();
      if (choice.disabled) choice.title = "This network has no place for it.";
      list.append(choice);
    }
    panel.append(list);
    const mistake = MISTAKES.find(({ key }) => key === this.key);
    if (!mistake) {
      panel.append(
        make(
          "p",
          { className: "quiet" },
          this.blocked()
            ? "A layer of this network cannot be computed in the page, so its backward pass cannot be run with a mistake."
            : "Choose a mistake. The whole pass runs with it, and what comes out wrong is marked.",
        ),
      );
      return panel;
    }
    panel.append(
      make(
        "dl",
        { className: "code" },
        make("dt", {}, "wrong"),
        make("dd", {}, make("code", {}, mistake.wrong)),
        make("dt", {}, "right"),
        make("dd", {}, make("code", {}, mistake.right)),
      ),
    );
    panel.append(make("p", {}, mistake.says));
    if (this.damages.length) panel.append(...this.caught());
    else panel.append(this.unseen(mistake));
    return panel;
  }

  blocked() {
    return this.app.network.blockedBy(INPUT) !== null;
  }

  /** What is wrong, and how it is noticed. */
  caught() {
    const { app, damages } = this;
    const table = make("table", { className: "terms damages" }, make("caption", {}, "What comes out wrong"));
    for (const { tensor, cells, right, kind } of damages) {
      const worst = worstOf(damages, tensor);
      table.append(
        make(
          "tr",
          {},
          make("td", {}, app.link(tensor, { tensor, of: "gradient", at: worst })),
          make("td", {}, `${cells.length} of ${right.length}`),
          make("td", {}, kind),
        ),
      );
    }
    const { network } = app;
    const check = make(
      "table",
      { className: "terms" },
      make("caption", {}, "Caught by measuring: (L(v + h) − L(v − h)) / 2h"),
    );
    check.append(
      make(
        "tr",
        {},
        make("th", { scope: "col" }, "cell"),
        make("th", { scope: "col", className: "product" }, "measured"),
        make("th", { scope: "col", className: "product" }, "this pass says"),
      ),
    );
    let caught = 0;
    for (const { tensor, wrong } of checkable(network, damages)) {
      const at = worstOf(damages, tensor);
      const measured = network.measured(tensor, at);
      const same = agree(measured, wrong[at]);
      if (!same) caught++;
      check.append(
        make(
          "tr",
          {},
          make("td", {}, app.link(nameOf(network, tensor, at), { tensor, of: "gradient", at })),
          make("td", { className: "product" }, plain(measured, 5)),
          make("td", { className: `product ${same ? "" : "differs"}` }, plain(wrong[at], 5)),
        ),
      );
    }
    const verdict = make(
      "p",
      { className: "verdict" },
      make("strong", {}, caught ? "Caught. " : "Not caught here. "),
      caught
        ? "The measured derivative disagrees; cnnbp gradcheck finds it in the same way."
        : "The loss has a kink at these cells, where measuring says nothing.",
    );
    return [table, check, verdict, this.trained()];
  }

  trained() {
    if (!this.app.payload.batch || this.app.miniature) return make("p");
    if (this.busy) return make("p", { className: "quiet" }, "Training …");
    if (!this.training) return button(`Train ${TRAINING_STEPS} steps with it and without`, () => this.train());
    return curves(this.training, this.app.rate, this.images);
  }

  async train() {
    const { app, key } = this;
    const batch = app.trainingBatch();
    if (!batch || !key) return;
    this.busy = true;
    this.images = batch.count;
    app.show();
    const training = await trainWith(app.network, key, batch, app.rate, TRAINING_STEPS);
    this.busy = false;
    if (this.key === key) this.training = training;
    if (app.lab === this) app.show();
  }

  /** @param {import("./mistakes.js").Mistake} mistake */
  unseen(mistake) {
    const { app } = this;
    const wrap = make(
      "div",
      {},
      make(
        "p",
        { className: "verdict" },
        make("strong", {}, "Nothing is wrong here. "),
        `With these numbers the mistake does no harm: ${mistake.hidden}. A test on this image alone would pass.`,
      ),
    );
    const exposing = exposes(app.network, mistake.key);
    if (exposing !== null) {
      wrap.append(
        button("Try it on a flat image", () => {
          app.network.input.fill(exposing);
          app.network.current = null;
          app.note = `Every pixel is ${bare(exposing)} now. Reset brings the image back.`;
          app.refresh();
        }),
      );
    }
    return wrap;
  }
}

/** The brightness of a flat image that brings a mistake to light, or null. @param {Network} network @param {string} key */
export function exposes(network, key) {
  const { input } = network;
  const kept = input.slice();
  try {
    for (const value of [1, -1, 0]) {
      input.fill(value);
      network.current = null;
      if (commit(network, key).damages.length) return value;
    }
    return null;
  } finally {
    input.set(kept);
    network.current = null;
  }
}

/** The cell of a tensor that is most wrong. @param {import("./mistakes.js").Damage[]} damages @param {string} tensor */
function worstOf(damages, tensor) {
  const { cells, right, wrong } = /** @type {import("./mistakes.js").Damage} */ (
    damages.find((damage) => damage.tensor === tensor)
  );
  return cells.reduce(
    (worst, k) => (Math.abs(wrong[k] - right[k]) > Math.abs(wrong[worst] - right[worst]) ? k : worst),
    cells[0],
  );
}

/** Where measuring is worth while: parameters first, as all ties move together with them. @param {Network} network @param {import("./mistakes.js").Damage[]} damages */
function checkable(network, damages) {
  const parameters = damages.filter(({ tensor }) => network.owners.has(tensor));
  return [...parameters, ...damages.filter(({ tensor }) => !network.owners.has(tensor))].slice(0, WORST);
}

/** Two curves of the loss. @param {{right: number[], wrong: number[]}} losses @param {number} rate @param {number} images */
function curves({ right, wrong }, rate, images) {
  const [width, height] = [380, 120];
  const finite = [...right, ...wrong].filter(Number.isFinite);
  const top = Math.max(...finite);
  const bottom = Math.min(0, ...finite);
  /** @param {number[]} losses */
  const path = (losses) =>
    losses
      .filter(Number.isFinite)
      .map(
        (loss, k) =>
          `${k ? "L" : "M"}${((k / (right.length - 1)) * width).toFixed(1)} ${(height - ((loss - bottom) / (top - bottom || 1)) * (height - 4) - 2).toFixed(1)}`,
      )
      .join("");
  const figure = make("figure", { className: "curves" });
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("role", "img");
  svg.setAttribute(
    "aria-label",
    `The loss over ${right.length - 1} steps: with the right gradients ${bare(right[right.length - 1], 3)} at the end, with the mistake ${bare(wrong[wrong.length - 1], 3)}`,
  );
  for (const [name, losses] of /** @type {const} */ ([
    ["right", right],
    ["wrong", wrong],
  ])) {
    const line = document.createElementNS(SVG, "path");
    line.setAttribute("class", name);
    line.setAttribute("d", path(losses));
    svg.append(line);
  }
  const last = right.length - 1;
  const same = Math.abs(right[last] - wrong[last]) <= 1e-9 * Math.abs(right[last]);
  figure.append(
    svg,
    make(
      "figcaption",
      {},
      `Loss over ${last} steps of SGD on ${counted(images, "training image")}, η ${bare(rate)}. `,
      make("span", { className: "key-right" }, `right: ${bare(right[0], 3)} → ${bare(right[last], 3)}`),
      "; ",
      make("span", { className: "key-wrong" }, `with the mistake: → ${bare(wrong[last], 3)}`),
      same ? ". The two are one: no parameter follows the gradients that are wrong." : ".",
    ),
  );
  return figure;
}
