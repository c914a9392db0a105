/** The page: what is chosen, what is edited, and how the parts follow. */

import { Bar } from "./bar.js";
import { Column } from "./column.js";
import { onKey } from "./keyboard.js";
import { stepsOf } from "./steps.js";
import { Lab } from "./lab.js";
import { lessonPanel } from "./lessons.js";
import { oneHot } from "./losses.js";
import { Quiz } from "./quiz-panel.js";
import { worksheet } from "./worksheet.js";
import { make } from "./maps.js";
import { microscope, nameOf } from "./microscope.js";
import { INPUT, Network } from "./network.js";
import { bare, plain } from "./numbers.js";
import { unpack } from "./tensor.js";

/**
 * @typedef {import("./network.js").Payload} Payload
 * @typedef {import("./column.js").Cell} Cell
 * @typedef {import("./terms.js").Of} Of
 * @typedef {import("./terms.js").Factor} Factor
 * @typedef {import("./steps.js").Step} Step
 */

/** @typedef {"cell" | "lesson" | "quiz" | "lab"} Tab */

/** @type {[Tab, string][]} */
const TABS = [
  ["cell", "Cell"],
  ["lesson", "What to see"],
  ["quiz", "Predict"],
  ["lab", "Mistakes"],
];

export class App {
  /** @param {Payload} payload */
  constructor(payload) {
    this.payload = payload;
    this.rate = 0.1;
    /** Which network in miniature is on show, if any. @type {string | null} */
    this.miniature = null;
    this.checkpoint = payload.checkpoints.findIndex(({ shown }) => shown);
    this.note = "";
    this.hovered = "";
    /** @type {Tab} */
    this.tab = "cell";
    /** @type {Quiz | null} */
    this.quiz = null;
    /** @type {{label: string, network: Network}[] | null} */
    this.trained = null;
    this.bar = new Bar(this);
    this.panel = make("aside", { className: "panel", "aria-label": "microscope" });
    this.main = make("main", {});
    this.live = make("p", { className: "unseen", role: "status", "aria-live": "polite" });
    this.footer = make("footer", {});
    document.body.append(this.bar.element, this.main, this.footer, this.live);
    this.network = new Network(payload);
    this.column = new Column(this.network);
    this.lab = new Lab(this);
    /** @type {Step[]} */
    this.steps = [];
    this.step = 0;
    /** @type {Cell} */
    this.cell = { tensor: INPUT, of: "value", at: 0 };
    this.show = this.show.bind(this);
    this.present(this.network, this.column);
    this.listen();
    this.follow(location.hash);
  }

  /** Put a network on the page. @param {Network} network @param {Column} [column] */
  present(network, column = new Column(network)) {
    this.network = network;
    this.column.stop();
    this.column = column;
    this.steps = stepsOf(network);
    this.step = 0;
    this.cell = this.largest(this.steps[0]);
    this.lab = new Lab(this);
    this.quiz = null;
    this.note = "";
    this.main.replaceChildren(this.column.element, this.panel);
    this.column.paint();
    this.bar.build();
  }

  /**
   * Show a network in miniature, or the user's own again.
   *
   * @param {string | null} miniature
   * @param {(network: Network) => import("./lessons.js").Place | null} [find] where to look first
   */
  open(miniature, find) {
    this.turnOver(miniature);
    const place = find?.(this.network);
    this.tab = "cell";
    this.choose(place ? this.largest(place) : this.cell);
  }

  /** Put the user's own network or one in miniature on the page. @param {string | null} miniature */
  turnOver(miniature) {
    const payload = miniature ? this.payload.miniatures?.[miniature] : this.payload;
    if (!payload) return;
    this.miniature = miniature;
    this.present(new Network(payload));
  }

  /** The run's checkpoints, each with a network of its own. */
  get checkpoints() {
    if (this.miniature) return [];
    this.trained ??= this.payload.checkpoints.map(({ label, parameters }) => {
      const network = new Network(this.payload);
      network.reset(new Map(Object.entries(parameters).map(([name, packed]) => [name, unpack(packed)])));
      return { label, network };
    });
    return this.trained;
  }

  /** @param {number} checkpoint */
  goTo(checkpoint) {
    this.checkpoint = checkpoint;
    this.note = "";
    this.network.reset(this.checkpoints[checkpoint].network.parameters);
    this.refresh();
  }

  /** Images for some steps of training, as many as can be computed in a moment. */
  trainingBatch() {
    const { batch } = this.payload;
    if (!batch) return null;
    const start = performance.now();
    this.network.backward(this.network.forward());
    const seconds = (performance.now() - start) / 1000 / this.network.count;
    const count = Math.max(1, Math.min(batch.count, Math.floor(0.015 / seconds)));
    const size = this.network.size(INPUT);
    const images = unpack(batch.images).subarray(0, count * size);
    const outputs = this.network.size(this.network.output);
    const numbers = batch.labels
      ? oneHot(batch.labels.slice(0, count), outputs)
      : batch.target
        ? unpack(batch.target).subarray(0, count * outputs)
        : images;
    return { images, numbers, count };
  }

  /** @param {Tab} tab */
  turnTo(tab) {
    if (this.tab === "lab" && tab !== "lab") this.lab.choose(null);
    this.tab = tab;
    if (tab === "quiz" && !this.quiz) this.startQuiz(1);
    else this.show();
  }

  /** @param {number} seed */
  startQuiz(seed) {
    this.quiz = new Quiz(this, seed);
    this.show();
  }

  /** The most telling cell of a tensor. @param {{tensor: string, of: Of}} step @returns {Cell} */
  largest({ tensor, of }) {
    const numbers = this.network.shown(tensor, of === "update" ? "gradient" : of);
    let best = 0;
    numbers.forEach((value, k) => {
      if (Math.abs(value) > Math.abs(numbers[best])) best = k;
    });
    return { tensor, of, at: best };
  }

  /** @param {Cell} cell @param {boolean} [silent] leave the address as it is */
  choose(cell, silent = false) {
    this.cell = cell;
    if (this.tab === "lesson" || (this.tab === "quiz" && !silent)) this.tab = "cell";
    const found = this.steps.findIndex(({ tensor, of }) => tensor === cell.tensor && of === cell.of);
    if (found >= 0) this.step = found;
    const addressed = location.protocol !== "about:"; // as it is in a notebook's frame
    if (!silent && addressed) history.replaceState(null, "", `#${this.address(cell)}`);
    this.show();
  }

  /** The part of the address that leads to a cell. @param {Cell} cell */
  address({ tensor, of, at }) {
    const cell = `${encodeURIComponent(nameOf(this.network, tensor, at))}:${of}`;
    return this.miniature ? `${this.miniature}/${cell}` : cell;
  }

  /** @param {number} step */
  go(step) {
    this.tab = "cell";
    this.step = Math.max(0, Math.min(this.steps.length - 1, step));
    const next = this.steps[this.step];
    const kept = this.cell.tensor === next.tensor ? { ...this.cell, of: next.of } : this.largest(next);
    this.choose(kept);
    this.column.blocks
      .get(`${next.tensor} ${next.of === "update" ? "value" : next.of}`)
      ?.scrollIntoView({ block: "nearest" });
  }

  /** @param {string} hash */
  follow(hash) {
    const match = /^#(?:([a-z-]+)\/)?([^/]+):(value|gradient|update)$/.exec(hash);
    if (match) {
      const miniature = match[1] ?? null;
      if (miniature !== this.miniature) this.turnOver(miniature);
      try {
        const text = decodeURIComponent(match[2]);
        const of = /** @type {Of} */ (match[3]);
        const whole = this.network.shapes.has(text);
        this.choose(whole ? this.largest({ tensor: text, of }) : { ...this.network.locate(text), of }, true);
        return;
      } catch {
        // A link to a cell of another network: begin at the beginning.
      }
    }
    this.choose(this.cell, true);
  }

  /** Draw what depends on the chosen cell. */
  show() {
    const { tensor, of, at } = this.cell;
    const side = of === "update" ? "value" : of;
    this.column.mark("chosen", [{ tensor, of: side, at }]);
    this.column.point(tensor, side);
    this.light(this.cell);
    const question = this.tab === "quiz" && this.quiz?.answered === null ? this.quiz.question : undefined;
    this.column.cover(question ? `${question.hidden.tensor} ${question.hidden.of}` : "");
    const note = this.note ? [make("p", { className: "note" }, this.note)] : [];
    const focused = this.panel.contains(document.activeElement) ? document.activeElement : null;
    this.panel.replaceChildren(this.tabs(), ...note, ...this.content());
    if (focused) this.focusAgain(focused);
    this.tellState();
  }

  /** Give the focus to what stands where the focused element stood. @param {Element} gone */
  focusAgain(gone) {
    const all = [...this.panel.querySelectorAll("button, a, input")].filter((one) => !one.hasAttribute("disabled"));
    const same = all.find((one) => one.id === gone.id && one.textContent === gone.textContent);
    const next = same ?? this.panel.querySelector(".quiz > button, .quiz .options :not([disabled])");
    if (next instanceof HTMLElement) next.focus({ preventScroll: true });
  }

  /** Show the loss, and let screen readers say what the microscope shows. */
  tellState() {
    this.bar.drawState();
    const text = (/** @type {string} */ selector) => this.panel.querySelector(selector)?.textContent ?? "";
    this.live.textContent = `${text(".cell-name")}, ${this.cell.of}: ${text(".number")}. ${text(".why")} ${this.note}`;
  }

  content() {
    if (this.tab === "lesson") return [lessonPanel(this)];
    if (this.tab === "quiz" && this.quiz) return [this.quiz.panel()];
    if (this.tab === "lab") return [this.lab.panel()];
    return [this.stepper(), microscope(this, this.cell)];
  }

  tabs() {
    const line = make("nav", { className: "tabs", "aria-label": "panels" });
    for (const [tab, text] of TABS) {
      const made = make("button", { type: "button", className: "plain" }, text);
      if (tab === this.tab) made.setAttribute("aria-current", "page");
      made.addEventListener("click", () => this.turnTo(tab));
      line.append(made);
    }
    const print = make(
      "button",
      { type: "button", className: "plain", title: "Print an exercise sheet, and its key" },
      "Worksheet",
    );
    print.addEventListener("click", () => window.print());
    line.append(print);
    return line;
  }

  /** Light up where a cell comes from, and where it goes. @param {Cell} cell */
  light({ tensor, of, at }) {
    if (of === "update") {
      this.column.mark("source", [{ tensor, of: "gradient", at }]);
      this.column.mark("idle", []);
      this.column.mark("user", []);
      return;
    }
    const here = (/** @type {{sample: number, tensor: string}} */ { sample, tensor: name }) =>
      sample === this.network.sample || this.network.owners.has(name);
    const terms = this.network.terms(tensor, of, at);
    const factors = (/** @type {boolean} */ counting) =>
      terms
        .filter(({ product }) => (product !== 0) === counting)
        .flatMap((term) => term.factors)
        .filter(here);
    this.column.mark("source", factors(true));
    this.column.mark("idle", factors(false));
    this.column.mark("user", this.network.usedBy(tensor, of, at).filter(here));
  }

  stepper() {
    const { says } = this.steps[this.step];
    const button = (/** @type {string} */ text, /** @type {string} */ title, /** @type {number} */ to) => {
      const made = make(
        "button",
        { type: "button", title, "aria-label": title, disabled: to < 0 || to >= this.steps.length },
        text,
      );
      made.addEventListener("click", () => this.go(to));
      return made;
    };
    return make(
      "nav",
      { className: "stepper", "aria-label": "steps" },
      button("←", "the step before", this.step - 1),
      make("span", { className: "quiet" }, `${this.step + 1}/${this.steps.length}`),
      button("→", "the next step", this.step + 1),
      make("span", { className: "step-name" }, says),
    );
  }

  /** @param {string} text @param {Cell} cell @param {boolean} [current] */
  link(text, cell, current = false) {
    const { tensor, of, at } = cell;
    const link = make("a", { href: `#${this.address(cell)}` }, text);
    if (current) link.setAttribute("aria-current", "true");
    link.addEventListener("click", (event) => {
      event.preventDefault();
      this.choose({ tensor, of, at });
    });
    return link;
  }

  /** A factor of a term: its number, which leads to its cell. @param {Factor} factor */
  factor(factor) {
    const here = factor.sample === this.network.sample || this.network.owners.has(factor.tensor);
    const name = nameOf(this.network, factor.tensor, factor.at);
    const number = plain(factor.value, 5);
    if (!here) {
      const foreign = make("span", { className: `factor of-${factor.of}` }, number);
      foreign.append(make("span", { className: "factor-name" }, `${name}, image ${factor.sample}`));
      return foreign;
    }
    const link = this.link(number, factor);
    link.className = `factor of-${factor.of}`;
    link.title = `${factor.of} of ${name}`;
    link.append(make("span", { className: "factor-name" }, name));
    return link;
  }

  /** Light up cells of the column while an element is pointed at. @param {HTMLElement} element @param {Factor[]} factors */
  lights(element, factors) {
    element.addEventListener("pointerenter", () => {
      this.column.mark(
        "source",
        factors.filter(({ sample, tensor }) => sample === this.network.sample || this.network.owners.has(tensor)),
      );
      this.column.mark("idle", []);
      this.column.mark("user", []);
    });
    element.addEventListener("pointerleave", () => this.light(this.cell));
  }

  /** @param {{tensor: string, at: number}} cell @param {number} value */
  edit({ tensor, at }, value) {
    const { network } = this;
    const before = network.shown(tensor, "value")[at];
    const predicted = network.shown(tensor, "gradient")[at] * (value - before);
    this.change(`${nameOf(network, tensor, at)}: ${plain(before)} → ${plain(value)}`, predicted, () =>
      network.edit(tensor, at, value),
    );
  }

  takeStep() {
    const { network } = this;
    const predicted = -this.rate * network.gradientNorm() ** 2;
    this.change(`One step, w ← w − ${bare(this.rate)} · g`, predicted, () => network.step(this.rate));
  }

  /** @param {string} what @param {number} predicted @param {() => void} act */
  change(what, predicted, act) {
    const before = this.network.pass.loss;
    act();
    const real = this.network.pass.loss - before;
    this.note = `${what}. The gradient predicts a change of the loss by ${plain(predicted)}; really it changes by ${plain(real)}.`;
    this.refresh();
  }

  /** Draw everything in the colors of the theme. */
  repaint() {
    this.bar.drawLegend();
    this.column.paint();
  }

  refresh() {
    this.lab.refresh();
    this.quiz = null;
    if (this.tab === "quiz") this.quiz = new Quiz(this, 1);
    this.column.paint();
    this.show();
  }

  reset() {
    this.network.reset(this.checkpoints[this.checkpoint]?.network.parameters);
    this.note = "";
    this.refresh();
    this.bar.build();
  }

  listen() {
    const area = this.main;
    area.addEventListener("pointermove", (event) => {
      const view = this.column.viewOf(event.target);
      const at = view ? view.cellAt(event) : -1;
      if (view && at >= 0) this.hover({ tensor: view.tensor, of: view.of, at });
      else this.hover(null);
    });
    area.addEventListener("pointerleave", () => this.hover(null));
    area.addEventListener("click", (event) => {
      const view = this.column.viewOf(event.target);
      const at = view ? view.cellAt(event) : -1;
      if (view && at >= 0) this.choose({ tensor: view.tensor, of: view.of, at });
    });
    let sheet = document.createElement("div");
    window.addEventListener("beforeprint", () => document.body.append((sheet = worksheet(this.network, 1))));
    window.addEventListener("afterprint", () => sheet.remove());
    document.addEventListener("keydown", (event) => onKey(this, event));
    window.addEventListener("hashchange", () => this.follow(location.hash));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.repaint();
    });
  }

  /** @param {Cell | null} cell */
  hover(cell) {
    const key = cell ? `${cell.tensor} ${cell.of} ${cell.at}` : "";
    if (key === this.hovered) return;
    this.hovered = key;
    this.light(cell ?? this.cell);
  }
}
