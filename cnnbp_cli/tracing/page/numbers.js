/** Numbers as the page writes them: always with a sign, and with as many digits as let a sum be added up again. */

/** @typedef {import("./terms.js").Term} Term */

const MINUS = "−";

/**
 * @param {number} value
 * @param {number} decimals
 */
export function signed(value, decimals) {
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "+∞" : `${MINUS}∞`;
  if (value === 0) return "0";
  return (value > 0 ? "+" : MINUS) + Math.abs(value).toFixed(decimals);
}

/** Decimals that show the largest of some numbers with two digits or more. @param {number} most */
export function decimalsFor(most) {
  if (!(most > 0) || most === Infinity) return 3;
  if (most >= 100) return 1;
  return Math.min(12, Math.max(3, Math.ceil(-Math.log10(most) - 0.2) + 2));
}

/**
 * The power of ten that numbers are written in: 0, unless the largest would need many zeros.
 *
 * @param {number} most
 */
export function exponentFor(most) {
  if (!(most > 0) || most === Infinity || (most >= 1e-4 && most < 1e5)) return 0;
  return Math.floor(Math.log10(most));
}

/** @param {number} exponent */
export function inPowers(exponent) {
  return exponent ? `×10${superscript(exponent)}` : "";
}

/**
 * A number by itself, with so many significant digits.
 *
 * @param {number} value
 * @param {number} [digits]
 */
export function plain(value, digits = 5) {
  if (!Number.isFinite(value) || value === 0) return signed(value, 0);
  const size = Math.abs(value);
  const sign = value > 0 ? "+" : MINUS;
  if (size >= 1e-4 && size < 1e6) return sign + Number(size.toPrecision(digits)).toString();
  const [mantissa, exponent] = size.toExponential(digits - 2).split("e");
  return `${sign}${mantissa}·10${superscript(Number(exponent))}`;
}

/** A number that is no sum's part, without its plus. @param {number} value @param {number} [digits] */
export function bare(value, digits = 5) {
  return plain(value, digits).replace(/^\+/, "");
}

/** @param {number} exponent */
export function superscript(exponent) {
  return [...String(exponent)].map((sign) => (sign === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[Number(sign)])).join("");
}

/**
 * The fewest decimals for which the rounded parts of a sum add up to the rounded sum.
 *
 * @param {readonly number[]} parts
 * @param {number} total
 */
export function decimalsThatAdd(parts, total) {
  const fewest = decimalsFor(Math.max(Math.abs(total), ...parts.map(Math.abs)));
  for (let decimals = fewest; decimals <= Math.min(fewest + 6, 15); decimals++) {
    const unit = 10 ** decimals;
    const sum = parts.reduce((units, part) => units + Math.round(part * unit), 0);
    if (sum === Math.round(total * unit)) return decimals;
  }
  return fewest;
}

/**
 * How the parts of a sum and the sum itself are written, so that what is written adds up.
 *
 * @param {readonly number[]} parts
 * @param {number} total
 */
export function sumWriter(parts, total) {
  const exponent = exponentFor(Math.max(Math.abs(total), ...parts.map(Math.abs)));
  const unit = 10 ** exponent;
  const decimals = decimalsThatAdd(
    parts.map((part) => part / unit),
    total / unit,
  );
  return {
    exponent,
    decimals: decimals - exponent,
    write: (/** @type {number} */ value) => signed(value / unit, decimals),
  };
}

/** @param {number} count @param {string} one @param {string} [many] */
export function counted(count, one, many = `${one}s`) {
  return `${count.toLocaleString("en-US")} ${count === 1 ? one : many}`;
}

/** @param {number} share */
export function percent(share) {
  return `${(100 * share).toFixed(share >= 0.1 || share === 0 ? 0 : 1)}%`;
}
