/** Colors: one pair of hues for values and another for gradients, both around 0. */

import { largest } from "./tensor.js";

/** @typedef {import("./terms.js").Of} Of */

/** @type {Record<"light" | "dark", {paper: number[], hues: Record<"value" | "gradient", [number[], number[]]>}>} */
const THEMES = {
  light: {
    paper: [255, 255, 255],
    hues: {
      value: [
        [31, 95, 168],
        [196, 108, 16],
      ],
      gradient: [
        [133, 50, 140],
        [12, 122, 116],
      ],
    },
  },
  dark: {
    paper: [22, 24, 28],
    hues: {
      value: [
        [102, 170, 255],
        [240, 160, 70],
      ],
      gradient: [
        [216, 130, 224],
        [64, 196, 184],
      ],
    },
  },
};

/** How far a number's cell goes towards the full hue, so that ink stays readable on it. */
const UNDER_INK = 0.42;

/** @returns {"light" | "dark"} */
export function theme() {
  const chosen = document.documentElement.dataset.theme;
  if (chosen === "light" || chosen === "dark") return chosen;
  return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}

/**
 * @param {number} value
 * @param {number} limit
 * @param {Of} of
 * @param {boolean} underInk
 * @returns {[number, number, number]}
 */
export function shade(value, limit, of, underInk) {
  const { paper, hues } = THEMES[theme()];
  if (!Number.isFinite(value)) return /** @type {[number, number, number]} */ (mix(paper, [128, 128, 128], 0.4));
  const hue = hues[of === "value" ? "value" : "gradient"][value < 0 ? 1 : 0];
  const share = limit > 0 ? Math.min(1, Math.abs(value) / limit) : 0;
  return /** @type {[number, number, number]} */ (mix(paper, hue, share * (underInk ? UNDER_INK : 1)));
}

/** @param {number[]} from @param {number[]} to @param {number} share */
function mix(from, to, share) {
  return from.map((part, k) => Math.round(part + (to[k] - part) * share));
}

/** @param {[number, number, number]} color */
export function css([r, g, b]) {
  return `rgb(${r} ${g} ${b})`;
}

/**
 * The number at which the palette ends: the largest, or for maps of many cells that which 99.5% do not exceed.
 *
 * @param {Float64Array} values
 */
export function limitOf(values) {
  const most = largest(values);
  if (values.length <= 400) return most;
  const stride = Math.ceil(values.length / 4000);
  const sample = new Float64Array(Math.floor(values.length / stride));
  for (let k = 0; k < sample.length; k++) sample[k] = Math.abs(values[k * stride]);
  sample.sort(); // NaN comes last
  return sample[Math.floor(0.995 * (sample.length - 1))] || most;
}
