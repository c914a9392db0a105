/** The network as a column of rows, one per layer: values on the left, gradients on the right. */

import { whyZero } from "./explain.js";
import { canvasMap, make, numberGrid } from "./maps.js";
import { INPUT } from "./network.js";
import { bare, percent } from "./numbers.js";
import { limitOf } from "./palette.js";
import { sizeOf } from "./tensor.js";

/**
 * @typedef {import("./network.js").Network} Network
 * @typedef {import("./network.js").PackedNode} PackedNode
 * @typedef {import("./maps.js").View} View
 * @typedef {import("./maps.js").Tile} Tile
 * @typedef {import("./maps.js").Mark} Mark
 * @typedef {import("./terms.js").Of} Of
 * @typedef {{tensor: string, of: Of, at: number}} Cell
 */

const MOST_CHANNELS = 12;
const MOST_KERNELS = 24;
const MOST_FEATURES = 160;
const NUMBERS = { cells: 144, columns: 7 };

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
    this.build();
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
    this.paint();
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
      make("span", { className: "quiet" }, [about, this.network.shape(name).join("×")].filter(Boolean).join(" · ")),
    );
    row.append(title);
    for (const of of /** @type {Of[]} */ (["value", "gradient"])) {
      const half = make("div", { className: `half ${of}` });
      for (const group of groups) {
        const line = make("div", { className: "line" });
        for (const tensor of group) {
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
    const { head, loss, label_smoothing: smoothing } = this.network.payload.loss;
    const about = [
      head === "none" ? "" : head,
      loss.replaceAll("_", " "),
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
    for (const tensor of ["prediction", "target", "loss"]) line.append(this.addBlock(tensor, "value"));
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
    const { tiles, cut } = this.tiles(tensor);
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
      const fits = size <= NUMBERS.cells && tile.columns <= NUMBERS.columns;
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

  /** Which cells of a tensor to show, and what is said about the others. @param {string} tensor @returns {{tiles: Tile[], cut: string}} */
  tiles(tensor) {
    const shape = this.network.shape(tensor);
    const size = sizeOf(shape);
    const weights =
      this.network.numbersOf(tensor, "gradient").length === size
        ? this.network.numbersOf(tensor, "gradient")
        : this.network.shown(tensor, "gradient");
    /** @param {number} count @param {(k: number) => number[]} cellsOf @param {number} most @param {string} what */
    const heaviest = (count, cellsOf, most, what) => {
      const all = Array.from({ length: count }, (_, k) => k);
      if (count <= most) return { kept: all, cut: "" };
      const loads = all.map((k) => cellsOf(k).reduce((sum, at) => sum + Math.abs(weights[at] || 0), 0));
      const total = loads.reduce((sum, load) => sum + load, 0);
      const kept = [...all]
        .sort((a, b) => loads[b] - loads[a])
        .slice(0, most)
        .sort((a, b) => a - b);
      const rest = total ? 1 - kept.reduce((sum, k) => sum + loads[k], 0) / total : 0;
      return {
        kept,
        cut: `${most} of ${count.toLocaleString("en-US")} ${what} by Σ|gradient|; the rest holds ${percent(Math.max(0, rest))}`,
      };
    };
    /** @param {number} start @param {number} count */
    const run = (start, count) => Array.from({ length: count }, (_, k) => start + k);
    if (shape.length === 3 || shape.length === 4) {
      const columns = shape[shape.length - 1];
      const area = columns * shape[shape.length - 2];
      const what = shape.length === 3 ? "channels" : "kernels";
      const { kept, cut } = heaviest(
        size / area,
        (k) => run(k * area, area),
        shape.length === 3 ? MOST_CHANNELS : MOST_KERNELS,
        what,
      );
      const name = (/** @type {number} */ k) =>
        shape.length === 3 ? `channel ${k}` : `filter ${Math.floor(k / shape[1])}, channel ${k % shape[1]}`;
      return { tiles: kept.map((k) => ({ title: name(k), columns, cells: run(k * area, area) })), cut };
    }
    if (shape.length === 2) {
      const [units, features] = shape;
      const rows = heaviest(units, (k) => run(k * features, features), 16, "units");
      const columns = heaviest(
        features,
        (k) => Array.from({ length: units }, (_, u) => u * features + k),
        96,
        "inputs",
      );
      const cells = rows.kept.flatMap((u) => columns.kept.map((k) => u * features + k));
      return {
        tiles: [{ title: "", columns: columns.kept.length, cells }],
        cut: [rows.cut, columns.cut].filter(Boolean).join("; "),
      };
    }
    const { kept, cut } = heaviest(size, (k) => [k], MOST_FEATURES, "cells");
    const columns = size <= 12 ? Math.min(size, 5) : 32;
    return { tiles: [{ title: "", columns: Math.min(columns, kept.length), cells: kept }], cut };
  }

  /** Draw all numbers as they are now. */
  paint() {
    for (const [key, views] of this.views) {
      const { tensor, of } = views[0];
      const right = this.network.shown(tensor, of);
      const numbers = (of === "gradient" && this.spoilt?.(tensor)) || right;
      const limit = limitOf(right);
      const reason = (/** @type {number} */ at) => (of === "gradient" ? this.reason(tensor, at) : "");
      for (const view of views)
        view.paint({ numbers, limit, reason, wrong: of === "gradient" ? this.wrong?.get(tensor) : undefined });
      const caption = /** @type {HTMLElement} */ (this.blocks.get(key)?.querySelector("figcaption"));
      let range = caption.querySelector(".range");
      if (!range) caption.append((range = make("span", { className: "range quiet" })));
      range.textContent = limit ? `±${bare(limit, 3)}` : "";
    }
  }

  /** Why a gradient is 0; on large maps only where one look tells. @param {string} tensor @param {number} at */
  reason(tensor, at) {
    const [reader] = this.network.readers.get(tensor) ?? [];
    const type = reader ? (this.network.byName.get(reader.node)?.type ?? "") : "";
    const cheap = /^(relu|dropout|.*pool2d)$/.test(type) || this.network.size(tensor) <= 400;
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
  const room = count === 1 ? 336 : count <= 4 ? 150 : count <= 12 ? 84 : 40;
  return Math.max(2, Math.min(14, Math.floor(room / Math.max(tile.columns, rows / 2))));
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
  const before = network.nodes[network.nodes.indexOf(node) - 1]?.name ?? INPUT;
  if (node.inputs.length > 1 || node.inputs[0] !== before) found.push(`reads ${node.inputs.join(", ")}`);
  return found.join(" · ");
}
