/** The page: what is chosen, what is edited, and how the parts follow. */

import { Column } from "./column.js";
import { lessonPanel, Lab, Quiz, button } from "./panels.js";
import { commit } from "./mistakes.js";
import { oneHot } from "./losses.js";
import { questions } from "./quiz.js";
import { worksheet } from "./worksheet.js";
import { make } from "./maps.js";
import { microscope, nameOf } from "./microscope.js";
import { INPUT, Network } from "./network.js";
import { bare, counted, percent, plain } from "./numbers.js";
import { css, shade, theme } from "./palette.js";
import { unflatten, unpack } from "./tensor.js";

/**
 * @typedef {import("./network.js").Payload} Payload
 * @typedef {import("./column.js").Cell} Cell
 * @typedef {import("./terms.js").Of} Of
 * @typedef {import("./terms.js").Factor} Factor
 * @typedef {{tensor: string, of: Of, says: string}} Step
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
    this.bar = make("header", { className: "bar" });
    this.panel = make("aside", { className: "panel", "aria-label": "microscope" });
    this.main = make("main", {});
    this.live = make("p", { className: "unseen", role: "status", "aria-live": "polite" });
    this.footer = make("footer", {});
    document.body.append(this.bar, this.main, this.footer, this.live);
    this.network = new Network(payload);
    this.column = new Column(this.network);
    this.lab = new Lab(this);
    /** @type {Step[]} */
    this.steps = [];
    this.step = 0;
    /** @type {Cell} */
    this.cell = { tensor: INPUT, of: "value", at: 0 };
    this.show = this.show.bind(this);
    this.present(this.network);
    this.listen();
    this.follow(location.hash);
  }

  /** Put a network on the page. @param {Network} network */
  present(network) {
    this.network = network;
    this.column.stop();
    this.column = new Column(network);
    this.steps = stepsOf(network);
    this.step = 0;
    this.cell = this.largest(this.steps[0]);
    this.lab = new Lab(this);
    this.quiz = null;
    this.note = "";
    this.main.replaceChildren(this.column.element, this.panel);
    this.column.paint();
    this.buildBar();
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

  // What is chosen -----------------------------------------------------------------------------------------------

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
    this.drawState();
  }

  /** Give the focus to what stands where the focused element stood. @param {Element} gone */
  focusAgain(gone) {
    const all = [...this.panel.querySelectorAll("button, a, input")].filter((one) => !one.hasAttribute("disabled"));
    const same = all.find((one) => one.id === gone.id && one.textContent === gone.textContent);
    const next = same ?? this.panel.querySelector(".quiz > button, .quiz .options :not([disabled])");
    if (next instanceof HTMLElement) next.focus({ preventScroll: true });
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

  // Links and lights in the microscope ---------------------------------------------------------------------------

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

  // Edits --------------------------------------------------------------------------------------------------------

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
    const before = this.network.pass.judged.loss;
    act();
    const real = this.network.pass.judged.loss - before;
    this.note = `${what}. The gradient predicts a change of the loss by ${plain(predicted)}; really it changes by ${plain(real)}.`;
    this.refresh();
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
    this.buildBar();
  }

  // The bar ------------------------------------------------------------------------------------------------------

  buildBar() {
    const { payload } = this.network;
    const { split, index } = payload.image;
    const title = make(
      "div",
      { className: "title" },
      make("h1", { title: payload.name }, payload.name),
      make(
        "span",
        { className: "quiet" },
        [
          payload.origin,
          index === null ? split : `${split} image ${index}`,
          payload.image.assumed ? "label as predicted" : "",
          `${payload.mode} mode`,
        ]
          .filter(Boolean)
          .join(" · "),
      ),
    );
    this.state = make("span", { className: "state" });
    const controls = make("div", { className: "controls" });
    if (this.miniature) controls.append(button(`Back to ${short(this.payload.name)}`, () => this.open(null)));
    if (this.checkpoints.length > 1) controls.append(...this.slider());
    if (this.network.labels && payload.classes.length > 1) {
      const select = make("select", { id: "label" });
      payload.classes.forEach((name, k) =>
        select.append(
          make("option", { value: String(k), selected: k === this.network.labels?.[this.network.sample] }, short(name)),
        ),
      );
      select.addEventListener("change", () => {
        this.network.setLabel(Number(select.value));
        this.note = "Another label is another loss: every gradient changes.";
        this.refresh();
      });
      controls.append(make("label", { htmlFor: "label" }, "label "), select);
    }
    const rate = make("input", { id: "rate", type: "number", step: "any", min: "0", value: String(this.rate) });
    rate.addEventListener("change", () => {
      if (Number(rate.value) >= 0) this.rate = Number(rate.value);
      this.show();
    });
    const step = make(
      "button",
      { type: "button", title: "Subtract η times its gradient from every parameter" },
      "One step",
    );
    step.addEventListener("click", () => this.takeStep());
    const blocked = this.network.blockedBy(INPUT);
    if (blocked) Object.assign(step, { disabled: true, title: `${blocked.name} ${blocked.opaque}` });
    const reset = make("button", { type: "button" }, "Reset");
    reset.addEventListener("click", () => this.reset());
    const light = make("button", { type: "button", className: "plain", title: "light or dark" }, "◐");
    light.setAttribute("aria-label", "light or dark");
    light.addEventListener("click", () => {
      document.documentElement.dataset.theme = theme() === "dark" ? "light" : "dark";
      this.drawLegend();
      this.column.paint();
    });
    controls.append(make("label", { htmlFor: "rate" }, "η "), rate, step, reset, light);
    this.legend = make("div", { className: "legend" });
    this.bar.replaceChildren(title, this.state, controls, this.legend);
    this.drawLegend();
    this.drawState();
  }

  /** A slider over the run's checkpoints. */
  slider() {
    const slider = make("input", {
      type: "range",
      id: "checkpoint",
      min: "0",
      max: String(this.checkpoints.length - 1),
    });
    slider.value = String(this.checkpoint);
    const label = make("label", { htmlFor: "checkpoint" }, this.checkpoints[this.checkpoint].label);
    slider.addEventListener("input", () => {
      this.goTo(Number(slider.value));
      label.textContent = this.checkpoints[this.checkpoint].label;
    });
    return [label, slider];
  }

  drawState() {
    if (!this.state) return;
    const { judged } = this.network.pass;
    this.state.textContent = [this.predicted(), `loss ${bare(judged.loss)}`].filter(Boolean).join(" · ");
    this.live.textContent = `${this.panel.querySelector(".cell-name")?.textContent ?? ""}, ${this.cell.of}: ${this.panel.querySelector(".number")?.textContent ?? ""}. ${this.panel.querySelector(".why")?.textContent ?? ""} ${this.note}`;
  }

  /** What the network predicts, where it classifies. */
  predicted() {
    const { labels, payload, sample, output } = this.network;
    if (!labels || payload.classes.length < 2) return "";
    const p = this.network.pass.judged.prediction.subarray(
      sample * this.network.size(output),
      (sample + 1) * this.network.size(output),
    );
    const best = p.length === 1 ? Number(p[0] > 0.5) : p.indexOf(Math.max(...p));
    const share = p.length > 1 ? p[best] : Math.max(p[0], 1 - p[0]);
    return best < 0 ? "" : `predicts ${short(payload.classes[best])} (${percent(share)})`;
  }

  drawLegend() {
    if (!this.legend) return;
    this.legend.replaceChildren();
    for (const of of /** @type {Of[]} */ (["value", "gradient"])) {
      const ramp = make("span", { className: "ramp", "aria-hidden": "true" });
      for (let k = -3; k <= 3; k++) {
        const part = make("span");
        part.style.backgroundColor = css(shade(k, 3, of, false));
        ramp.append(part);
      }
      this.legend.append(make("span", {}, `${of}s −`, ramp, "+"));
    }
    for (const [hatch, text] of [
      ["gate", "gate closed"],
      ["loser", "not the winner"],
      ["nothing", "nothing arrived"],
      ["canceled", "canceled"],
    ]) {
      this.legend.append(
        make("span", {}, make("span", { className: "swatch", "data-zero": hatch, "aria-hidden": "true" }), text),
      );
    }
    this.legend.append(
      make("span", {}, make("span", { className: "swatch source", "aria-hidden": "true" }), "comes from"),
      make("span", {}, make("span", { className: "swatch user", "aria-hidden": "true" }), "goes into"),
    );
  }

  // Pointer and keyboard -----------------------------------------------------------------------------------------

  listen() {
    const area = this.column.element;
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
    document.addEventListener("keydown", (event) => this.key(event));
    window.addEventListener("hashchange", () => this.follow(location.hash));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.drawLegend();
      this.column.paint();
    });
  }

  /** @param {Cell | null} cell */
  hover(cell) {
    const key = cell ? `${cell.tensor} ${cell.of} ${cell.at}` : "";
    if (key === this.hovered) return;
    this.hovered = key;
    this.light(cell ?? this.cell);
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const target = /** @type {HTMLElement} */ (event.target);
    if (event.key === "Escape" && this.panel.contains(target)) {
      const views = this.column.views.get(`${this.cell.tensor} ${this.cell.of}`) ?? [];
      views.find(({ tile }) => tile.cells.includes(this.cell.at))?.focus(this.cell.at);
      return;
    }
    if (/^(INPUT|SELECT|TEXTAREA)$/.test(target.tagName)) return;
    const view = this.column.viewOf(target);
    if (view && event.key === "Enter") {
      if (target.dataset.at) this.choose({ tensor: view.tensor, of: view.of, at: Number(target.dataset.at) });
      const first = this.panel.querySelector("#edit") ?? this.panel.querySelector(".microscope a");
      if (first instanceof HTMLElement) first.focus();
      event.preventDefault();
      return;
    }
    const arrow = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: 0, ArrowDown: 0 }[event.key];
    if (view && arrow !== undefined) {
      const { cells, columns } = view.tile;
      const chosen = this.cell.tensor === view.tensor && this.cell.of === view.of ? this.cell.at : cells[0];
      const now = Math.max(0, cells.indexOf(Number(target.dataset.at ?? chosen)));
      const next = now + (arrow || (event.key === "ArrowUp" ? -columns : columns));
      const sameRow = Math.floor(next / columns) === Math.floor(now / columns);
      if (next >= 0 && next < cells.length && (sameRow || !arrow)) {
        view.focus(cells[next]);
        this.choose({ tensor: view.tensor, of: view.of, at: cells[next] });
      }
      event.preventDefault();
      return;
    }
    if (event.key === " " && /^(BUTTON|A|SUMMARY)$/.test(target.tagName)) return;
    const to = {
      ArrowLeft: this.step - 1,
      ArrowRight: this.step + 1,
      " ": this.step + 1,
      Home: 0,
      End: this.steps.length - 1,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.go(to);
  }
}

/** @param {string} name */
function short(name) {
  return name.length > 40 ? `${name.slice(0, 39)}…` : name;
}

/** The pass, step by step. @param {Network} network @returns {Step[]} */
function stepsOf(network) {
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
    loss: () => app.network.pass.judged.loss,
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
