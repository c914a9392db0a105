/** Formulas, written as text and shown as MathML. */

const MATHML = "http://www.w3.org/1998/Math/MathML";
const TOKEN = /\s+|(Σ|frac|sqrt|text|hat)(?=\{)|[A-Za-zα-ωη∂Δ]+[₀-₉\u0302]*|\d+(?:\.\d+)?|./gu;

/**
 * `Σ{p,q} dy[f,p,q] · x[c,p+i,q+j]`: words are names, braces hold the arguments of Σ, frac, sqrt, text and ^.
 *
 * @param {string} text
 * @param {boolean} [block]
 */
export function formula(text, block = false) {
  const math = document.createElementNS(MATHML, "math");
  if (block) math.setAttribute("display", "block");
  math.append(parse(text));
  return math;
}

/** @param {string} tag @param {...(Node | string)} children */
function element(tag, ...children) {
  const made = document.createElementNS(MATHML, tag);
  made.append(...children);
  return made;
}

/** @param {string} text @returns {Element} */
function parse(text) {
  const row = element("mrow");
  let at = 0;
  const argument = () => {
    let depth = 0;
    const start = at + 1;
    for (; at < text.length; at++) {
      if (text[at] === "{") depth++;
      if (text[at] === "}" && --depth === 0) break;
    }
    return text.slice(start, at++);
  };
  while (at < text.length) {
    TOKEN.lastIndex = at;
    const match = /** @type {RegExpExecArray} */ (TOKEN.exec(text));
    const [token, command] = match;
    at += token.length;
    if (/^\s+$/.test(token)) continue;
    if (command === "Σ") row.append(element("munder", element("mo", "∑"), parse(argument())));
    else if (command === "frac") row.append(element("mfrac", parse(argument()), parse(argument())));
    else if (command === "sqrt") row.append(element("msqrt", parse(argument())));
    else if (command === "hat") row.append(element("mover", parse(argument()), element("mo", "^")));
    else if (command === "text") row.append(element("mtext", argument()));
    else if ((token === "^" || token === "_") && row.lastChild) {
      const base = row.lastChild;
      row.append(element(token === "^" ? "msup" : "msub", base, parse(argument())));
    } else if (/^\d/.test(token)) row.append(element("mn", token));
    else if (/^[A-Za-zα-ωη∂Δ]/u.test(token)) row.append(element("mi", token));
    else row.append(element("mo", token));
  }
  return row;
}
