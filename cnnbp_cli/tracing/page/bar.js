/** The bar on top: what is traced, the loss, what can be set, and the legend. */

import { make, button } from "./maps.js";
import { alike } from "./losses.js";
import { INPUT } from "./network.js";
import { bare, percent } from "./numbers.js";
import { css, shade, theme } from "./palette.js";

/**
 * @typedef {import("./app.js").App} App
 * @typedef {import("./terms.js").Of} Of
 */

export class Bar {
  /** @param {App} app */
  constructor(app) {
    this.app = app;
    this.element = make("header", { className: "bar" });
    this.state = make("span", { className: "state" });
    this.legend = make("div", { className: "legend" });
  }

  build() {
    const { payload } = this.app.network;
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
    const controls = make("div", { className: "controls" });
    if (this.app.miniature)
      controls.append(button(`Back to ${short(this.app.payload.name)}`, () => this.app.open(null)));
    if (!this.app.miniature && this.app.payload.checkpoints.length > 1) controls.append(...this.slider());
    if (this.app.network.labels && payload.classes.length > 1) {
      const select = make("select", { id: "label" });
      payload.classes.forEach((name, k) =>
        select.append(
          make(
            "option",
            { value: String(k), selected: k === this.app.network.labels?.[this.app.network.sample] },
            short(name),
          ),
        ),
      );
      select.addEventListener("change", () => {
        this.app.network.setLabel(Number(select.value));
        this.app.note = "Another label is another loss: every gradient changes.";
        this.app.refresh();
      });
      controls.append(make("label", { htmlFor: "label" }, "label "), select);
    }
    const rate = make("input", { id: "rate", type: "number", step: "any", min: "0", value: String(this.app.rate) });
    rate.addEventListener("change", () => {
      if (Number(rate.value) >= 0) this.app.rate = Number(rate.value);
      this.app.show();
    });
    const step = make(
      "button",
      { type: "button", title: "Subtract η times its gradient from every parameter" },
      "One step",
    );
    step.addEventListener("click", () => this.app.takeStep());
    const blocked = this.app.network.blockedBy(INPUT);
    if (blocked) Object.assign(step, { disabled: true, title: `${blocked.name} ${blocked.opaque}` });
    const reset = make("button", { type: "button" }, "Reset");
    reset.addEventListener("click", () => this.app.reset());
    const light = make("button", { type: "button", className: "plain", title: "light or dark" }, "◐");
    light.setAttribute("aria-label", "light or dark");
    light.addEventListener("click", () => {
      document.documentElement.dataset.theme = theme() === "dark" ? "light" : "dark";
      this.app.repaint();
    });
    controls.append(make("label", { htmlFor: "rate" }, "η "), rate, step, reset, light);
    this.element.replaceChildren(title, this.state, controls, this.legend);
    this.drawLegend();
    this.drawState();
  }

  /** A slider over the run's checkpoints. */
  slider() {
    const { app } = this;
    const { checkpoints } = app.payload;
    const slider = make("input", { type: "range", id: "checkpoint", min: "0", max: String(checkpoints.length - 1) });
    slider.value = String(app.checkpoint);
    const label = make("label", { htmlFor: "checkpoint" }, checkpoints[app.checkpoint].label);
    slider.addEventListener("input", () => {
      app.goTo(Number(slider.value));
      label.textContent = checkpoints[app.checkpoint].label;
    });
    return [label, slider];
  }

  drawState() {
    const { loss } = this.app.network.pass;
    this.state.textContent = [this.predicted(), `loss ${bare(loss)}`].filter(Boolean).join(" · ");
  }

  /** What the network predicts, where it classifies. */
  predicted() {
    const { labels, payload, sample, output } = this.app.network;
    const [loss] = this.app.network.losses;
    if (loss.per_image > 1 && loss.loss !== "mse") return this.right();
    if (!labels || payload.classes.length < 2) return "";
    const p = this.app.network.pass.judged[0].prediction.subarray(
      sample * this.app.network.size(output),
      (sample + 1) * this.app.network.size(output),
    );
    const best = p.length === 1 ? Number(p[0] > 0.5) : p.indexOf(Math.max(...p));
    const share = p.length > 1 ? p[best] : Math.max(p[0], 1 - p[0]);
    return best < 0 ? "" : `predicts ${short(payload.classes[best])} (${percent(share)})`;
  }

  /** How many pixels of a mask are right. */
  right() {
    const { network } = this.app;
    const [p, y] = ["prediction", "target"].map((tensor) => network.shown(tensor, "value"));
    const places = p.length / network.channels;
    /** @param {Float64Array} values @param {number} place */
    const called = (values, place) => {
      const own = alike(p.length, network.channels, place).map((k) => values[k]);
      return own.length > 1 ? own.indexOf(Math.max(...own)) : Number(own[0] > 0.5);
    };
    const right = Array.from({ length: places }, (_, k) => Number(called(p, k) === called(y, k)));
    return `${percent(right.reduce((sum, one) => sum + one, 0) / places)} of the mask's pixels are right`;
  }

  drawLegend() {
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
}

/** @param {string} name */
function short(name) {
  return name.length > 40 ? `${name.slice(0, 39)}…` : name;
}
