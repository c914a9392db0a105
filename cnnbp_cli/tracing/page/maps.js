/** Tensors on the page: tables of numbers where these fit, canvases where they do not. */

import { REASONS } from "./explain.js";
import { decimalsFor, exponentFor, inPowers, signed } from "./numbers.js";
import { css, shade } from "./palette.js";
import { cellText, largest, unflatten } from "./tensor.js";

/**
 * @typedef {import("./terms.js").Of} Of
 *
 * A rectangle of a tensor's cells.
 * @typedef {object} Tile
 * @property {string} title
 * @property {number} columns
 * @property {number[]} cells places in the tensor, row by row
 *
 * @typedef {object} Picture what is to be painted
 * @property {Float64Array} numbers
 * @property {number} limit where the palette ends
 * @property {(at: number) => string} reason why a cell is 0
 * @property {Set<number>} [wrong] cells that a mistake of the lab spoils
 * @property {boolean} [covered] a question asks about these numbers
 *
 * @typedef {"chosen" | "source" | "idle" | "user"} Mark
 *
 * @typedef {object} View
 * @property {HTMLElement} element
 * @property {string} tensor
 * @property {Of} of
 * @property {Tile} tile
 * @property {(picture: Picture) => void} paint
 * @property {(mark: Mark, cells: Set<number>) => void} mark
 * @property {(event: PointerEvent | MouseEvent) => number} cellAt the cell under the pointer, or -1
 * @property {(at: number) => void} focus
 */

/** How a zero's reason is drawn. @type {Record<string, string>} */
export const HATCHES = {
  "gate closed": "gate",
  "not the winner": "loser",
  "nothing arrived": "nothing",
  "not read": "nothing",
  detached: "nothing",
  dropped: "gate",
  saturated: "gate",
  "multiplied by 0": "canceled",
  canceled: "canceled",
};

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, any>} [properties]
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key in element && !key.startsWith("aria")) Object.assign(element, { [key]: value });
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

/** @param {string} text @param {() => void} act */
export function button(text, act) {
  const made = make("button", { type: "button" }, text);
  made.addEventListener("click", act);
  return made;
}

/**
 * A table of numbers.
 *
 * @param {string} tensor
 * @param {Of} of
 * @param {readonly number[]} shape
 * @param {Tile} tile
 * @returns {View}
 */
export function numberGrid(tensor, of, shape, tile) {
  const table = make("table", { className: `grid of-${of}`, role: "grid", "aria-label": label(tensor, of, tile) });
  const body = make("tbody");
  table.append(body);
  /** @type {Map<number, HTMLTableCellElement>} */
  const found = new Map();
  for (let start = 0; start < tile.cells.length; start += tile.columns) {
    const row = make("tr");
    for (const at of tile.cells.slice(start, start + tile.columns)) {
      const cell = make("td", { tabIndex: -1 });
      cell.dataset.at = String(at);
      found.set(at, cell);
      row.append(cell);
    }
    body.append(row);
  }
  const first = found.get(tile.cells[0]);
  if (first) first.tabIndex = 0;
  return {
    element: table,
    tensor,
    of,
    tile,
    paint({ numbers, limit, reason, wrong, covered }) {
      const most = largest(numbers);
      const exponent = exponentFor(most);
      const unit = 10 ** exponent;
      const decimals = decimalsFor(most / unit);
      for (const [at, cell] of found) {
        const value = covered ? NaN : numbers[at];
        const text = covered ? "?" : signed(value / unit, decimals);
        if (cell.textContent !== text) cell.textContent = text;
        cell.style.backgroundColor = covered ? "" : css(shade(value, limit, of, true));
        const why = value === 0 ? reason(at) : "";
        cell.dataset.zero = HATCHES[why] ?? "";
        cell.title = why ? `0: ${REASONS[why]}` : "";
        cell.toggleAttribute("data-clipped", Math.abs(value) > limit * (1 + 1e-9));
        cell.toggleAttribute("data-wrong", wrong?.has(at) ?? false);
        const name = cellText(tensor, unflatten(shape, at));
        cell.setAttribute(
          "aria-label",
          `${name}, ${of}: ${text}${inPowers(exponent)}${why ? `, ${why}` : ""}${wrong?.has(at) ? ", wrong" : ""}`,
        );
      }
    },
    mark(mark, cells) {
      for (const [at, cell] of found) {
        const on = cells.has(at);
        if (cell.hasAttribute(`data-${mark}`) !== on) cell.toggleAttribute(`data-${mark}`, on);
        if (mark === "chosen" && cell.hasAttribute("aria-selected") !== on) {
          if (on) cell.setAttribute("aria-selected", "true");
          else cell.removeAttribute("aria-selected");
        }
      }
    },
    cellAt(event) {
      const cell = /** @type {Element} */ (event.target).closest("td");
      return cell ? Number(cell.dataset.at) : -1;
    },
    focus(at) {
      for (const cell of found.values()) cell.tabIndex = -1;
      const cell = found.get(at);
      if (!cell) return;
      cell.tabIndex = 0;
      cell.focus({ preventScroll: true });
    },
  };
}

/** Pixels from which a cell has a frame of its own; smaller ones are framed together. */
const SINGLE = 6;

/**
 * A map of many cells, drawn.
 *
 * @param {string} tensor
 * @param {Of} of
 * @param {Tile} tile
 * @param {number} scale pixels of a cell
 * @returns {View}
 */
export function canvasMap(tensor, of, tile, scale) {
  const rows = Math.ceil(tile.cells.length / tile.columns);
  const ratio = Math.max(1, Math.round(devicePixelRatio));
  const canvas = make("canvas", {
    className: `map of-${of}`,
    width: tile.columns * scale * ratio,
    height: rows * scale * ratio,
    tabIndex: 0,
    role: "application",
    "aria-roledescription": "map of numbers",
    "aria-label": `${label(tensor, of, tile)}; arrow keys choose a cell`,
  });
  canvas.style.width = `${tile.columns * scale}px`;
  canvas.style.height = `${rows * scale}px`;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const base = document.createElement("canvas");
  base.width = canvas.width;
  base.height = canvas.height;
  const pen = /** @type {CanvasRenderingContext2D} */ (base.getContext("2d"));
  const small = /** @type {CanvasRenderingContext2D} */ (
    make("canvas", { width: tile.columns, height: rows }).getContext("2d")
  );
  /** @type {Map<number, number>} */
  const order = new Map(tile.cells.map((at, k) => [at, k]));
  /** @type {Record<Mark, Set<number>>} */
  const marks = { chosen: new Set(), source: new Set(), idle: new Set(), user: new Set() };
  let waiting = false;
  const compose = () => {
    waiting = false;
    context.drawImage(base, 0, 0);
    const ink = getComputedStyle(document.documentElement);
    for (const mark of /** @type {Mark[]} */ (["idle", "source", "user", "chosen"])) {
      context.strokeStyle = ink.getPropertyValue(`--mark-${mark}`);
      context.lineWidth = Math.max(1, ratio);
      context.setLineDash(mark === "user" ? [2 * ratio, ratio] : []);
      const places = [...marks[mark]].map((at) => /** @type {number} */ (order.get(at)));
      if (scale >= SINGLE) for (const k of places) outline([k]);
      else if (mark !== "idle" && places.length) outline(places);
    }
  };
  /** Draw a frame around cells. @param {number[]} places */
  const outline = (places) => {
    const side = scale * ratio;
    const columns = places.map((k) => k % tile.columns);
    const rows = places.map((k) => Math.floor(k / tile.columns));
    const [left, top] = [Math.min(...columns), Math.min(...rows)];
    const width = (Math.max(...columns) - left + 1) * side;
    const height = (Math.max(...rows) - top + 1) * side;
    context.strokeRect(left * side + 0.5, top * side + 0.5, width - 1, height - 1);
  };
  const redraw = () => {
    if (!waiting) requestAnimationFrame(compose);
    waiting = true;
  };
  return {
    element: canvas,
    tensor,
    of,
    tile,
    paint({ numbers: all, limit, reason, wrong, covered }) {
      const numbers = covered ? new Float64Array(all.length).fill(NaN) : all;
      const side = scale * ratio;
      const image = pen.createImageData(tile.columns, rows);
      tile.cells.forEach((at, k) => image.data.set([...shade(numbers[at], limit, of, false), 255], 4 * k));
      small.putImageData(image, 0, 0);
      pen.imageSmoothingEnabled = false;
      pen.drawImage(small.canvas, 0, 0, base.width, base.height);
      const mistaken = getComputedStyle(document.documentElement).getPropertyValue("--wrong");
      tile.cells.forEach((at, k) => {
        const left = (k % tile.columns) * side;
        const top = Math.floor(k / tile.columns) * side;
        pen.fillStyle = "rgb(128 128 128 / 0.55)";
        if (scale >= 4 && numbers[at] === 0 && of === "gradient") {
          hatch(pen, HATCHES[reason(at)] ?? "nothing", left, top, side);
        }
        if (scale >= 4 && Math.abs(numbers[at]) > limit * (1 + 1e-9)) {
          pen.fillRect(left + side - 2 * ratio, top, 2 * ratio, 2 * ratio);
        }
        if (!wrong?.has(at)) return;
        pen.fillStyle = mistaken;
        pen.fillRect(left, top + side - 2 * ratio, scale < 4 ? ratio : 2 * ratio, 2 * ratio);
      });
      redraw();
    },
    mark(mark, cells) {
      const here = new Set([...cells].filter((at) => order.has(at)));
      if (!here.size && !marks[mark].size) return;
      marks[mark] = here;
      redraw();
    },
    cellAt(event) {
      const box = canvas.getBoundingClientRect();
      const column = Math.floor(((event.clientX - box.left) / box.width) * tile.columns);
      const row = Math.floor(((event.clientY - box.top) / box.height) * rows);
      const k = row * tile.columns + column;
      return column >= 0 && column < tile.columns && k >= 0 && k < tile.cells.length ? tile.cells[k] : -1;
    },
    focus: () => canvas.focus({ preventScroll: true }),
  };
}

/**
 * @param {CanvasRenderingContext2D} pen
 * @param {string} kind
 * @param {number} left
 * @param {number} top
 * @param {number} side
 */
function hatch(pen, kind, left, top, side) {
  if (kind === "loser") {
    pen.fillRect(left + side / 2 - 1, top + side / 2 - 1, 2, 2);
    return;
  }
  pen.strokeStyle = pen.fillStyle;
  pen.lineWidth = 1;
  pen.beginPath();
  if (kind === "gate") {
    pen.moveTo(left, top + side);
    pen.lineTo(left + side, top);
  } else if (kind === "nothing") {
    pen.moveTo(left + side / 4, top + side / 2);
    pen.lineTo(left + (3 * side) / 4, top + side / 2);
  } else {
    pen.moveTo(left + side / 4, top + side / 4);
    pen.lineTo(left + (3 * side) / 4, top + (3 * side) / 4);
    pen.moveTo(left + (3 * side) / 4, top + side / 4);
    pen.lineTo(left + side / 4, top + (3 * side) / 4);
  }
  pen.stroke();
}

/** @param {string} tensor @param {Of} of @param {Tile} tile */
function label(tensor, of, tile) {
  return `${of} of ${tensor}${tile.title ? `, ${tile.title}` : ""}`;
}
