/** The network as a column of rows, one per layer: values on the left, gradients on the right. */

import { cancels, whyZero } from "./explain.js";
import { canvasMap, make, numberGrid } from "./maps.js";
import { INPUT } from "./network.js";
import { bare, exponentFor, inPowers, percent } from "./numbers.js";
import { limitOf } from "./palette.js";
import { largest, range, sizeOf } from "./tensor.js";

/**
 * @typedef {import("./network.js").Network} Network
 * @typedef {import("./network.js").PackedNode} PackedNode
 * @typedef {import("./maps.js").View} View
 * @typedef {import("./maps.js").Tile} Tile
 * @typedef {import("./maps.js").Mark} Mark
 * @typedef {import("./terms.js").Of} Of
 * @typedef {{tensor: string, of: Of, at: number}} Cell
 * @typedef {{tiles: Tile[], cut: string}} Choice
 */

export const SVG = "http://www.w3.org/2000/svg";
/** Tensors of so many cells or fewer are looked at cell by cell. */
const LOOKED_AT = 400;
const MOST_CHANNELS = 12;
const MOST_KERNELS = 24;
const MOST_UNITS = 16;
const MOST_INPUTS = 96;
const MOST_FEATURES = 160;
/** How many numbers are written out: of one map, and of several. */
const NUMBERS = { alone: 144, several: 72, columns: 7 };

export class Column {
  /** @param {Network} network */
  constructor(network) {
    this.network = network;
    this.element = make("div", { className: "column" });
    /** @type {Map<string, View[]>} */
    this.views = new Map();
    /** @type {Map<string, HTMLElement>} */
    this.blocks = new Map();
    /** @type {Map<Element, View>} */
    this.byElement = new Map();
    /** @type {Map<string, HTMLElement>} */
    this.rows = new Map();
    /** @type {Map<string, Set<number>> | null} */
    this.wrong = null;
    /** @type {((tensor: string) => Float64Array | undefined) | null} gradients to show in the place of the right ones */
    this.spoilt = null;
    /** @type {Map<string, Choice>} */
    this.choices = new Map();
    /** @type {string[]} blocks that are yet to be painted */
    this.waiting = [];
    this.timer = 0;
    /** A tensor and what of it that is not to be seen, while a question asks about it. */
    this.covered = "";
    this.build();
  }

  /** Paint nothing more. */
  stop() {
    clearTimeout(this.timer);
    this.waiting = [];
  }

  /** Hide the numbers of a tensor, and show those that were hidden. @param {string} key */
  cover(key) {
    if (key === this.covered) return;
    const changed = [this.covered, key].filter((one) => this.views.has(one));
    this.covered = key;
    for (const one of changed) this.paintBlock(one);
  }

  build() {
    const head = make("div", { className: "row heads" });
    head.append(
      make("h2", { className: "half" }, "Forward", make("span", { className: "quiet" }, " values, downward")),
      make(
        "h2",
        { className: "half" },
        "Backward",
        make("span", { className: "quiet" }, " gradients of the loss, upward"),
      ),
    );
    this.element.append(head);
    this.addRow(INPUT, "the image", "", [[INPUT]]);
    for (const node of this.network.nodes) {
      const parameters = [...this.network.owners].filter(([, owner]) => owner.node === node.name).map(([name]) => name);
      this.addRow(node.name, node.type, facts(this.network, node), [parameters, [node.name]]);
    }
    this.addLoss();
    this.arcs();
  }

  /** Draw an arc from every output to those of its readers that do not come next. */
  arcs() {
    const order = [INPUT, ...this.network.nodes.map(({ name }) => name)];
    const skips = this.network.nodes.flatMap(({ name, inputs }, k) =>
      inputs.filter((source) => order.indexOf(source) < k).map((source) => ({ from: source, to: name })),
    );
    if (!skips.length) return;
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("class", "arcs");
    svg.setAttribute("aria-hidden", "true");
    this.element.prepend(svg);
    this.element.classList.add("branching");
    const draw = () => {
      svg.replaceChildren();
      svg.setAttribute("height", String(this.element.offsetHeight));
      /** @type {number[]} where each lane is free again */
      const lanes = [];
      for (const { from, to } of skips) {
        const [start, end] = [from, to].map((name) => (this.rows.get(name)?.offsetTop ?? 0) + 20);
        let lane = lanes.findIndex((free) => free < start);
        if (lane < 0) lane = lanes.length;
        lanes[lane] = end;
        const left = 16 - 5 * lane;
        const path = document.createElementNS(SVG, "path");
        path.setAttribute("d", `M22 ${start}H${left + 4}q-4 0 -4 4V${end - 4}q0 4 4 4H22m-4 -3l4 3l-4 3`);
        svg.append(path);
      }
    };
    new ResizeObserver(draw).observe(this.element);
  }

  /**
   * @param {string} name
   * @param {string} type
   * @param {string} about
   * @param {string[][]} groups tensors, those of a group beside each other
   */
  addRow(name, type, about, groups) {
    const row = make("section", { className: "row", "aria-label": name });
    const title = make("header", {}, make("h3", { title: name }, name));
    if (!name.startsWith(type)) title.append(make("span", { className: "quiet" }, type));
    title.append(
      make("span", { className: "quiet" }, [about, this.network.shape(name).join("×")].filter(Boolean).join(" → ")),
    );
    row.append(title);
    for (const of of /** @type {Of[]} */ (["value", "gradient"])) {
      const half = make("div", { className: `half ${of}` });
      for (const group of groups) {
        const line = make("div", { className: "line" });
        for (const tensor of group) {
          if (this.network.owners.has(tensor) && !this.network.given.has(tensor)) {
            const shape = this.network.shape(tensor).join("×");
            line.append(make("p", { className: "quiet" }, `${tensor}, ${shape}: left out of this file`));
            continue;
          }
          if (of === "value" || !this.network.owners.has(tensor) || this.network.trainable.has(tensor)) {
            line.append(this.addBlock(tensor, of));
          }
        }
        if (line.childElementCount) half.append(line);
      }
      row.append(half);
    }
    this.rows.set(name, row);
    this.element.append(row);
  }

  addLoss() {
    const row = make("section", { className: "row", "aria-label": "loss" });
    const { losses } = this.network;
    const { head, label_smoothing: smoothing } = losses[0];
    const about = [
      head === "none" ? "" : head,
      losses
        .map(({ layer, weight, loss }) =>
          losses.length > 1 ? `${weight} times ${loss.replaceAll("_", " ")} at ${layer}` : loss.replaceAll("_", " "),
        )
        .join(" + "),
      smoothing ? `label smoothing ${smoothing}` : "",
    ];
    row.append(
      make(
        "header",
        {},
        make("h3", {}, "loss"),
        make("span", { className: "quiet" }, about.filter(Boolean).join(" · ")),
      ),
    );
    const line = make("div", { className: "line" });
    for (const tensor of this.network.beyond) line.append(this.addBlock(tensor, "value"));
    row.append(make("div", { className: "half value" }, line));
    row.append(
      make(
        "p",
        { className: "half gradient turn quiet" },
        "Here the pass turns round: the gradient starts as prediction less target and goes up.",
      ),
    );
    this.rows.set("loss", row);
    this.element.append(row);
  }

  /** @param {string} tensor @param {Of} of */
  addBlock(tensor, of) {
    const block = make("figure", { className: "block" });
    const { tiles, cut } = this.choice(tensor);
    const shape = this.network.shape(tensor);
    const caption = make(
      "figcaption",
      { title: tensor },
      make("span", {}, this.network.owners.get(tensor)?.key ?? captionOf(this.network, tensor, of)),
    );
    block.append(caption, make("div", { className: "tiles" }));
    const area = /** @type {HTMLElement} */ (block.lastElementChild);
    const size = sizeOf(shape);
    for (const tile of tiles) {
      const most = tiles.length > 1 ? NUMBERS.several : NUMBERS.alone;
      const fits = size <= most && tile.columns <= NUMBERS.columns;
      const view = fits
        ? numberGrid(tensor, of, shape, tile)
        : canvasMap(tensor, of, tile, scaleOf(tile, tiles.length));
      view.element.dataset.view = "";
      area.append(view.element);
      this.byElement.set(view.element, view);
      const key = `${tensor} ${of}`;
      this.views.set(key, [...(this.views.get(key) ?? []), view]);
    }
    if (cut) block.append(make("p", { className: "cut quiet" }, cut));
    this.blocks.set(`${tensor} ${of}`, block);
    return block;
  }

  /** Which cells of a tensor to show, and what is said about the others. @param {string} tensor @returns {Choice} */
  choice(tensor) {
    const found = this.choices.get(tensor) ?? this.choose(tensor);
    this.choices.set(tensor, found);
    return found;
  }

  /** @param {string} tensor @returns {Choice} */
  choose(tensor) {
    const shape = this.network.shape(tensor);
    const size = sizeOf(shape);
    const gradients = this.network.byName.has(tensor) || this.network.owners.has(tensor) || tensor === INPUT;
    const weights = gradients ? this.network.shown(tensor, "gradient") : new Float64Array(size);
    /** The slices with the largest sums, of so many. @param {number} count @param {number} most @param {string} what @param {(at: number) => number} sliceOf */
    const heaviest = (count, most, what, sliceOf) => {
      const all = range(0, count);
      if (count <= most) return { kept: all, cut: "" };
      const loads = new Float64Array(count);
      for (let at = 0; at < size; at++) loads[sliceOf(at)] += Math.abs(weights[at]) || 0;
      const total = loads.reduce((sum, load) => sum + load, 0);
      const kept = all
        .sort((a, b) => loads[b] - loads[a])
        .slice(0, most)
        .sort((a, b) => a - b);
      const rest = total ? 1 - kept.reduce((sum, k) => sum + loads[k], 0) / total : 0;
      const of = `${most} of ${count.toLocaleString("en-US")} ${what} by Σ|gradient|`;
      return { kept, cut: `${of}; the rest holds ${percent(Math.max(0, rest))}` };
    };
    if (shape.length === 3 || shape.length === 4) {
      const columns = shape[shape.length - 1];
      const area = columns * shape[shape.length - 2];
      const [most, what] = shape.length === 3 ? [MOST_CHANNELS, "channels"] : [MOST_KERNELS, "kernels"];
      const { kept, cut } = heaviest(size / area, /** @type {number} */ (most), String(what), (at) =>
        Math.floor(at / area),
      );
      /** @param {number} k */
      const title = (k) =>
        shape.length === 3 ? `channel ${k}` : `kernel ${Math.floor(k / shape[1])}, ${k % shape[1]}`;
      return { tiles: kept.map((k) => ({ title: title(k), columns, cells: range(k * area, area) })), cut };
    }
    if (shape.length === 2) {
      const [units, features] = shape;
      const rows = heaviest(units, MOST_UNITS, "units", (at) => Math.floor(at / features));
      const columns = heaviest(features, MOST_INPUTS, "inputs", (at) => at % features);
      const cells = rows.kept.flatMap((u) => columns.kept.map((k) => u * features + k));
      const cut = [rows.cut, columns.cut].filter(Boolean).join("; ");
      return { tiles: [{ title: "", columns: columns.kept.length, cells }], cut };
    }
    const { kept, cut } = heaviest(size, MOST_FEATURES, "cells", (at) => at);
    return { tiles: [{ title: "", columns: Math.min(size <= 12 ? 5 : 32, kept.length), cells: kept }], cut };
  }

  /** Draw all numbers as they are now: what is in sight at once, and the rest as time allows. */
  paint() {
    const height = innerHeight;
    this.waiting = [...this.views.keys()];
    /** @param {string} key */
    const inSight = (key) => {
      const box = this.blocks.get(key)?.getBoundingClientRect();
      return box !== undefined && box.bottom > 0 && box.top < height;
    };
    const boxes = this.waiting.map((key) => /** @type {const} */ ([key, inSight(key)]));
    this.waiting = [...boxes.filter(([, seen]) => seen), ...boxes.filter(([, seen]) => !seen)].map(([key]) => key);
    this.paintSome(boxes.filter(([, seen]) => seen).length);
  }

  /** @param {number} least paint so many blocks, however long it takes */
  paintSome(least) {
    const end = performance.now() + 24;
    for (let k = 0; this.waiting.length && (k < least || performance.now() < end); k++) {
      this.paintBlock(/** @type {string} */ (this.waiting.shift()));
    }
    clearTimeout(this.timer);
    if (this.waiting.length) this.timer = window.setTimeout(() => this.paintSome(1));
  }

  /** @param {string} key */
  paintBlock(key) {
    const views = /** @type {View[]} */ (this.views.get(key));
    const [first] = views;
    const { tensor, of } = first;
    const right = this.cleaned(tensor, of);
    const numbers = (of === "gradient" && this.spoilt?.(tensor)) || right;
    const limit = limitOf(right);
    const reason = (/** @type {number} */ at) => (of === "gradient" ? this.reason(tensor, at) : "");
    const wrong = of === "gradient" ? this.wrong?.get(tensor) : undefined;
    const covered = key === this.covered;
    for (const view of views) view.paint({ numbers, limit, reason, wrong, covered });
    const caption = /** @type {HTMLElement} */ (this.blocks.get(key)?.querySelector("figcaption"));
    let ends = caption.querySelector(".range");
    if (!ends) caption.append((ends = make("span", { className: "range quiet" })));
    const written = first.element instanceof HTMLTableElement ? inPowers(exponentFor(largest(numbers))) : "";
    ends.textContent = limit && !covered ? [written, `±${bare(limit, 3)}`].filter(Boolean).join(" ") : "";
  }

  /** The numbers of a tensor, with 0 where only rounding is left of terms that cancel. @param {string} tensor @param {Of} of */
  cleaned(tensor, of) {
    const numbers = this.network.shown(tensor, of);
    if (numbers.length > LOOKED_AT) return numbers;
    const most = largest(numbers);
    return numbers.map((value, at) => {
      if (value === 0 || Math.abs(value) > 1e-12) return value;
      if (of === "value" && Math.abs(value) < 1e-13 * most) return 0;
      return cancels(value, this.network.terms(tensor, of, at)) ? 0 : value;
    });
  }

  /** Why a gradient is 0; on large maps only where one look tells. @param {string} tensor @param {number} at */
  reason(tensor, at) {
    const [reader] = this.network.readers.get(tensor) ?? [];
    const type = reader ? (this.network.byName.get(reader.node)?.type ?? "") : "";
    const cheap = /^(relu|dropout|.*pool2d)$/.test(type) || this.network.size(tensor) <= LOOKED_AT;
    return cheap ? whyZero(this.network, tensor, at) : "nothing arrived";
  }

  /** @param {Mark} mark @param {Cell[]} cells */
  mark(mark, cells) {
    /** @type {Map<string, Set<number>>} */
    const byView = new Map();
    for (const { tensor, of, at } of cells) {
      const key = `${tensor} ${of}`;
      if (!byView.has(key)) byView.set(key, new Set());
      byView.get(key)?.add(at);
    }
    const none = /** @type {Set<number>} */ (new Set());
    for (const [key, views] of this.views) for (const view of views) view.mark(mark, byView.get(key) ?? none);
  }

  /** @param {EventTarget | null} target */
  viewOf(target) {
    const element = target instanceof Element ? target.closest("[data-view]") : null;
    return element ? this.byElement.get(element) : undefined;
  }

  /** Show which tensor the present step is about. @param {string} tensor @param {Of} of */
  point(tensor, of) {
    for (const block of this.blocks.values()) block.removeAttribute("data-current");
    const block = this.blocks.get(`${tensor} ${of}`);
    block?.setAttribute("data-current", "");
    return block;
  }
}

/** @param {Tile} tile @param {number} count */
function scaleOf(tile, count) {
  const rows = Math.ceil(tile.cells.length / tile.columns);
  const room =
    count === 1 ? (rows === 1 || tile.columns > 28 ? 320 : 200) : count <= 6 ? 110 : tile.columns <= 5 ? 26 : 58;
  return Math.max(2, Math.min(count === 1 ? 10 : 14, Math.floor(room / tile.columns)));
}

/** @param {Network} network @param {string} tensor @param {Of} of */
function captionOf(network, tensor, of) {
  if (tensor === INPUT) return of === "value" ? "pixels" : "gradient of every pixel";
  if (!network.byName.has(tensor)) return tensor;
  return of === "value" ? "output" : "gradient at the output";
}

/** The layer's fields that differ from what one expects. @param {Network} network @param {PackedNode} node */
function facts(network, node) {
  const { kernel_size: kernel, pool_size: pool, stride, padding, dilation, groups, rate } = node.fields;
  const both = (/** @type {any} */ size) => (Array.isArray(size) ? size.join("×") : `${size}×${size}`);
  const found = [];
  if (kernel !== undefined) found.push(both(kernel));
  if (pool !== undefined) found.push(both(pool));
  if (stride !== undefined && stride !== null && String(stride) !== "1") found.push(`stride ${stride}`);
  if (padding !== undefined && padding !== "valid" && String(padding) !== "0") found.push(`padding ${padding}`);
  if (dilation !== undefined && String(dilation) !== "1") found.push(`dilation ${dilation}`);
  if (groups > 1) found.push(`groups ${groups}`);
  if (rate !== undefined) found.push(`rate ${rate}`);
  if (node.shares) found.push(`parameters of ${node.shares}`);
  const before = network.nodes[network.nodes.indexOf(node) - 1]?.name ?? INPUT;
  if (node.inputs.length > 1 || node.inputs[0] !== before) found.push(`reads ${node.inputs.join(", ")}`);
  return found.join(" · ");
}
