/** The microscope: everything about the chosen cell. */

import { cancels, PARTS, REASONS, SWAPPED, stories, whyZero } from "./explain.js";
import { formula } from "./formulas.js";
import { make } from "./maps.js";
import { INPUT } from "./network.js";
import { bare, counted, decimalsFor, exponentFor, inPowers, plain, signed, sumWriter } from "./numbers.js";
import { freshState, update } from "./optimizers.js";
import { cellText, unflatten, unpack } from "./tensor.js";

/**
 * @typedef {import("./network.js").Network} Network
 * @typedef {import("./column.js").Cell} Cell
 * @typedef {import("./terms.js").Term} Term
 * @typedef {import("./terms.js").Factor} Factor
 * @typedef {import("./app.js").App} App
 * @typedef {(value: number) => string} Write
 */

const SHOWN_TERMS = 16;
/** Seconds of a forward pass that nobody notices. */
const QUICK = 0.02;

/** @param {Network} network @param {string} tensor @param {number} at */
export function nameOf(network, tensor, at) {
  return cellText(tensor, unflatten(network.shape(tensor), at));
}

/**
 * @param {App} app
 * @param {Cell} cell
 * @returns {HTMLElement}
 */
export function microscope(app, cell) {
  const { network } = app;
  const { tensor, of, at } = cell;
  const panel = make("div", { className: "microscope" });
  const name = nameOf(network, tensor, at);
  panel.append(make("h2", { className: "cell-name", title: name }, name), shownSides(app, cell));
  if (of === "update") {
    panel.append(...updateStory(app, cell));
    return panel;
  }
  const value = network.shown(tensor, of)[at];
  const number = make("p", { className: `number of-${of}` });
  panel.append(number);
  const terms = network.terms(tensor, of, at);
  panel.append(
    make("p", { className: "meaning" }, meaning(network, cell, terms.length && cancels(value, terms) ? 0 : value)),
  );
  const why = of === "gradient" ? whyZero(network, tensor, at, terms) : "";
  number.textContent = why ? "0" : plain(value, 7);
  if (why && value !== 0) number.append(make("small", { className: "quiet" }, ` rounding leaves ${plain(value, 2)}`));
  if (why)
    panel.append(make("p", { className: "why", "data-zero": why }, make("strong", {}, `0: ${why}. `), REASONS[why]));
  const told = stories(network, tensor, of);
  const branching = told.length > 1;
  const meeting = network.owners.has(tensor)
    ? `${counted(told.length, "layer")} share this parameter: its gradient is the sum of what each of them finds.`
    : `Gradients meet here: ${counted(told.length, "layer")} read this output, and what they send back adds up.`;
  if (branching) panel.append(make("p", {}, meeting));
  for (const { by, story } of told) {
    const block = make("div", { className: "story" });
    if (branching || of === "gradient") block.append(make("p", { className: "by" }, by));
    if (story.formula) block.append(formula(story.formula, true));
    block.append(make("p", {}, story.says));
    panel.append(block);
  }
  const reader = network.readers.get(tensor)?.[0]?.node ?? "";
  const convolves = network.byName.get(reader)?.type === "conv2d" && of === "gradient" && !branching;
  if (branching && terms.length) panel.append(...byReader(app, terms, value));
  else if (terms.length) panel.append(convolves ? bothWays(app, terms, value, reader) : termTable(app, terms, value));
  const weight = network.owners.get(tensor)?.key === "weight" && of === "gradient";
  if (weight || convolves) panel.append(make("p", { className: "aside" }, SWAPPED));
  panel.append(...lens(app, cell), ...onward(app, cell), ...checks(app, cell, value), ...throughTraining(app, cell));
  return panel;
}

/** Value, gradient and update of the same cell. @param {App} app @param {Cell} cell */
function shownSides(app, { tensor, of, at }) {
  const { network } = app;
  const line = make("p", { className: "sides" });
  const trainable = network.trainable.has(tensor);
  /** @type {import("./terms.js").Of[]} */
  const possible = ["value"];
  if (trainable || network.byName.has(tensor) || tensor === INPUT) possible.push("gradient");
  if (trainable) possible.push("update");
  for (const side of possible) line.append(app.link(side, { tensor, of: side, at }, side === of), " ");
  return line;
}

/** @param {Network} network @param {Cell} cell @param {number} value */
function meaning(network, { tensor, of }, value) {
  if (of === "gradient") {
    const what = tensor === INPUT ? "pixel" : network.owners.has(tensor) ? "parameter" : "cell";
    if (value === 0) return `A small change of this ${what} does not change the loss.`;
    return `If this ${what} grows by a little, the loss ${value > 0 ? "grows" : "falls"} by ${bare(Math.abs(value), 4)} times that.`;
  }
  if (tensor === INPUT) return "A pixel, as the network sees it: normalized.";
  if (tensor === "target") return "What the network should give.";
  if (tensor === "loss") return network.count > 1 ? `The mean over ${network.count} images.` : "";
  if (network.owners.has(tensor))
    return network.trainable.has(tensor)
      ? "A parameter: training changes it."
      : "A running statistic: it has no gradient.";
  return "";
}

/**
 * A gradient where branches or uses meet: what each layer sends back, and what that adds up to.
 *
 * @param {App} app
 * @param {Term[]} terms
 * @param {number} total
 */
function byReader(app, terms, total) {
  /** @type {Map<string, Term[]>} */
  const readers = new Map();
  for (const term of terms) {
    const via = term.via ?? "the loss";
    readers.set(via, [...(readers.get(via) ?? []), term]);
  }
  const parts = [...readers].map(([via, own]) => ({ via, own, sum: productsOf(own) }));
  const { write, exponent } = sumWriter(
    parts.map(({ sum }) => sum),
    total,
  );
  const rows = parts.map(({ via, sum }) =>
    make("tr", {}, make("td", {}, `from ${via}`), make("td", { className: "product" }, write(sum))),
  );
  const end = ["sum", inPowers(exponent)].filter(Boolean).join(" ");
  const foot = make("tr", {}, make("th", { scope: "row" }, end), make("td", { className: "product" }, write(total)));
  return [
    make("table", { className: "terms" }, make("tbody", {}, ...rows), make("tfoot", {}, foot)),
    ...parts.map(({ via, own, sum }) => termTable(app, own, sum, `From ${via}`)),
  ];
}

/**
 * A sum, term by term, with as few digits as let it be added up again.
 *
 * @param {App} app
 * @param {Term[]} terms
 * @param {number} total
 * @param {string} [caption]
 */
export function termTable(app, terms, total, caption = "") {
  const few = terms.length <= 4;
  const live = terms.filter(({ product }) => few || product !== 0);
  const idle = terms.filter(({ product }) => !few && product === 0);
  const { single, whole } = byPart(live);
  const ordered =
    single.length > SHOWN_TERMS ? [...single].sort((a, b) => Math.abs(b.product) - Math.abs(a.product)) : single;
  const shown = ordered.slice(0, SHOWN_TERMS);
  const others = ordered.slice(SHOWN_TERMS);
  const rest = productsOf(others);
  const parts = [...shown.map(({ product }) => product), ...whole.map(productsOf), ...(others.length ? [rest] : [])];
  const { exponent, write } = sumWriter(parts, total);
  const table = make("table", { className: "terms" });
  if (caption) table.append(make("caption", {}, caption));
  const body = make("tbody");
  for (const term of shown) body.append(termRow(app, term, write));
  for (const some of whole) body.append(partRow(app, some, write));
  if (others.length) {
    body.append(
      make(
        "tr",
        { className: "others" },
        make("td", {}, `${counted(others.length, "other")}`),
        make("td", { className: "product" }, write(rest)),
      ),
    );
  }
  table.append(
    body,
    make(
      "tfoot",
      {},
      make(
        "tr",
        {},
        make("th", { scope: "row" }, ["sum", inPowers(exponent)].filter(Boolean).join(" ")),
        make("td", { className: "product" }, write(total)),
      ),
    ),
  );
  const wrap = make("div", { className: "sum" }, table);
  if (idle.length) wrap.append(idleTerms(app, idle));
  return wrap;
}

/** @param {Term[]} terms */
function productsOf(terms) {
  return terms.reduce((sum, { product }) => sum + product, 0);
}

/** Terms to write one by one, and parts of the sum with so many that they are written as one. @param {Term[]} terms */
function byPart(terms) {
  /** @type {Map<string | undefined, Term[]>} */
  const parts = new Map();
  for (const term of terms) {
    const some = parts.get(term.part);
    if (some) some.push(term);
    else parts.set(term.part, [term]);
  }
  const whole = [...parts].filter(([part, some]) => part !== undefined && some.length > 2).map(([, some]) => some);
  return { single: terms.filter((term) => !whole.some(([first]) => first.part === term.part)), whole };
}

/** A part of the sum as one row. @param {App} app @param {Term[]} terms @param {Write} write */
function partRow(app, terms, write) {
  const text = `${PARTS[String(terms[0].part)]}, ${counted(terms.length, "term")}`;
  const row = make("tr", {}, make("td", {}, text), make("td", { className: "product" }, write(productsOf(terms))));
  app.lights(
    row,
    terms.flatMap(({ factors }) => factors),
  );
  return row;
}

/** @param {App} app @param {Term} term @param {Write} write */
function termRow(app, { coefficient, factors, product, rule, part }, write) {
  const made = make("td");
  if (rule) {
    made.append(`${rule}(`);
    factors.slice(0, 6).forEach((factor, k) => made.append(k ? ", " : "", app.factor(factor)));
    made.append(factors.length > 6 ? ", …)" : ")");
  } else {
    if (coefficient !== 1 || !factors.length)
      made.append(make("span", { className: "coefficient" }, plain(coefficient, 4)), factors.length ? " · " : "");
    factors.forEach((factor, k) => made.append(k ? " · " : "", app.factor(factor)));
  }
  if (part && part !== "bias") made.append(make("span", { className: "by part" }, PARTS[part]));
  const row = make("tr", {}, made, make("td", { className: "product" }, write(product)));
  app.lights(row, factors);
  return row;
}

/** Terms that add nothing, and why. @param {App} app @param {Term[]} idle */
function idleTerms(app, idle) {
  /** @type {Map<string, Factor[]>} */
  const reasons = new Map();
  for (const { coefficient, factors } of idle) {
    const nothing = factors.find(({ value }) => value === 0);
    const why =
      coefficient === 0
        ? app.network.byName.get(factors[0].tensor)?.type.includes("max_pool") || factors[0].of === "value"
          ? "not the winner"
          : "gate closed"
        : nothing?.of === "gradient"
          ? `no gradient at ${nothing.tensor}`
          : nothing
            ? `${nothing.tensor} is 0 there`
            : "0";
    reasons.set(why, [...(reasons.get(why) ?? []), ...factors]);
  }
  const line = make("p", { className: "idle quiet" });
  const counts = new Map();
  for (const term of idle) counts.set(term, 1);
  line.append(
    `${counted(idle.length, "term")} more ${idle.length === 1 ? "is" : "are"} 0: ${[...reasons.keys()].join("; ")}.`,
  );
  app.lights(
    line,
    idle.flatMap(({ factors }) => factors),
  );
  return line;
}

/**
 * The gradient before a convolution, told both ways: what the cell gathers, and what falls on it.
 *
 * @param {App} app
 * @param {Term[]} terms
 * @param {number} total
 * @param {string} reader
 */
function bothWays(app, terms, total, reader) {
  const { network } = app;
  const wrap = make("div", { className: "both-ways" });
  const gathered = termTable(app, terms, total, "Gather: the cell collects from all outputs that looked at it");
  wrap.append(gathered);
  /** @type {Map<number, {terms: Term[], gradient: Factor}>} */
  const stamps = new Map();
  for (const term of terms) {
    const [gradient] = term.factors;
    const stamp = stamps.get(gradient.at) ?? { terms: [], gradient };
    stamp.terms.push(term);
    stamps.set(gradient.at, stamp);
  }
  const live = [...stamps.values()].filter(({ gradient }) => gradient.value !== 0);
  const { exponent, write } = sumWriter(
    live.map(({ terms: [term] }) => term.product),
    total,
  );
  const table = make("table", { className: "terms" });
  table.append(
    make("caption", {}, "Scatter: each output stamps its kernel, scaled by its gradient; this is what falls here"),
  );
  const body = make("tbody");
  let running = 0;
  table.append(headings("stamp of", "place in it", "adds", "so far"));
  for (const {
    terms: [term],
    gradient,
  } of live.slice(0, SHOWN_TERMS)) {
    running += term.product;
    const weight = term.factors[1];
    const [, , i, j] = unflatten(network.shape(weight.tensor), weight.at);
    const row = make(
      "tr",
      {},
      make("td", {}, app.factor(gradient)),
      make("td", {}, `${i}, ${j}`),
      make("td", { className: "product" }, write(term.product)),
      make("td", { className: "product quiet" }, write(running)),
    );
    app.lights(row, term.factors);
    body.append(row);
  }
  if (!live.length)
    body.append(make("tr", {}, make("td", { colSpan: 4 }, "No output with a gradient covers this cell.")));
  table.append(body);
  if (live.length <= SHOWN_TERMS && live.length) {
    table.append(
      make(
        "tfoot",
        {},
        make(
          "tr",
          {},
          make(
            "th",
            { scope: "row", colSpan: 3 },
            ["what lies here at the end", inPowers(exponent)].filter(Boolean).join(" "),
          ),
          make("td", { className: "product" }, write(total)),
        ),
      ),
    );
  }
  wrap.append(make("div", { className: "sum" }, table));
  wrap.append(
    make(
      "p",
      { className: "aside" },
      `The same products either way: correlating the gradient of ${reader} with the flipped kernel, or letting every gradient stamp the kernel as it is and adding up the overlaps. Neither is a trick; the second is how the first looks from the other side.`,
    ),
  );
  return wrap;
}

/** @param {...string} texts The last two are above numbers. */
function headings(...texts) {
  const cells = texts.map((text, k) =>
    make("th", { scope: "col", className: k < texts.length - 2 ? "quiet" : "product quiet" }, text),
  );
  return make("thead", {}, make("tr", {}, ...cells));
}

/** The surroundings of a cell in a map that is too large for numbers. @param {App} app @param {Cell} cell */
function lens(app, { tensor, of, at }) {
  const { network } = app;
  const shape = network.shape(tensor);
  if (shape.length !== 3 || shape[1] * shape[2] <= 49 || of === "update") return [];
  const [channel, row, column] = unflatten(shape, at);
  const numbers = network.shown(tensor, of);
  const rows = around(row, shape[1]);
  const columns = around(column, shape[2]);
  const table = make("table", { className: `terms lens of-${of}` });
  const most = Math.max(
    ...rows.flatMap((r) => columns.map((c) => Math.abs(numbers[(channel * shape[1] + r) * shape[2] + c]))),
  );
  const exponent = exponentFor(most);
  table.append(make("caption", {}, `Around it, in channel ${channel} ${inPowers(exponent)}`));
  table.append(make("tr", {}, make("td"), ...columns.map((c) => make("th", { scope: "col" }, String(c)))));
  for (const r of rows) {
    const line = make("tr", {}, make("th", { scope: "row" }, String(r)));
    for (const c of columns) {
      const place = (channel * shape[1] + r) * shape[2] + c;
      const td = make(
        "td",
        { className: "product" },
        signed(numbers[place] / 10 ** exponent, Math.min(decimalsFor(most / 10 ** exponent), 4)),
      );
      if (place === at) td.setAttribute("data-chosen", "");
      line.append(td);
    }
    table.append(line);
  }
  return [table];
}

/** @param {number} middle @param {number} size */
function around(middle, size) {
  const count = Math.min(5, size);
  const first = Math.max(0, Math.min(size - count, middle - 2));
  return Array.from({ length: count }, (_, k) => first + k);
}

/** Who uses the cell next. @param {App} app @param {Cell} cell */
function onward(app, { tensor, of, at }) {
  const { network } = app;
  const users = network
    .usedBy(tensor, of, at)
    .filter(({ sample, tensor: other }) => sample === network.sample || network.owners.has(other));
  const line = make("p", { className: "onward" });
  if (of === "gradient" && network.trainable.has(tensor))
    line.append("Goes into ", app.link("the update of this parameter", { tensor, of: "update", at }), ".");
  else if (tensor === INPUT && of === "gradient")
    line.append(
      "The end of the pass: the gradients of all pixels together are a saliency map. They say where a change of the image would change the loss.",
    );
  else if (!users.length) return [];
  else {
    line.append(of === "value" ? "Goes into " : "Is passed on to ");
    users
      .slice(0, 6)
      .forEach((user, k) => line.append(k ? ", " : "", app.link(nameOf(network, user.tensor, user.at), user)));
    if (users.length > 6) line.append(` and ${counted(users.length - 6, "other")}`);
    line.append(".");
    app.lights(
      line,
      users.map((user) => ({ ...user, value: 0 })),
    );
  }
  return [line];
}

/**
 * The derivative by differences: at once where that is quick, else when it is asked for.
 *
 * @param {Network} network
 * @param {string} tensor
 * @param {number} at
 * @param {number} value
 */
function measurement(network, tensor, at, value) {
  const line = make("p", { className: "measured" });
  const measure = () => {
    const measured = network.measured(tensor, at);
    const verdict = agree(measured, value)
      ? ", the same."
      : ". The two differ where the loss has a kink, such as a tie or a ReLU at 0.";
    line.replaceChildren("Measured: ", formula("frac{L(v + h) − L(v − h)}{2h}"), ` = ${plain(measured, 7)}${verdict}`);
  };
  if (network.seconds < QUICK) measure();
  else {
    const button = make("button", { type: "button" }, "Measure it");
    button.addEventListener("click", measure);
    line.append(button);
  }
  return line;
}

/** Measuring the gradient, and changing the number. @param {App} app @param {Cell} cell @param {number} value */
function checks(app, { tensor, of, at }, value) {
  const { network } = app;
  /** @type {HTMLElement[]} */
  const parts = [];
  if (of === "gradient" && !network.blockedBy(tensor)) parts.push(measurement(network, tensor, at, value));
  const editable = tensor === INPUT || network.trainable.has(tensor);
  if (editable && of === "value") {
    const blocked = network.blockedBy(tensor);
    if (blocked)
      parts.push(
        make(
          "p",
          { className: "quiet" },
          `${blocked.name} ${blocked.opaque}, so what comes before it cannot be edited here.`,
        ),
      );
    else {
      const input = make("input", {
        type: "number",
        step: "any",
        value: String(Number(value.toPrecision(8))),
        id: "edit",
      });
      input.addEventListener("change", () => input.value !== "" && app.edit({ tensor, at }, Number(input.value)));
      parts.push(make("p", { className: "edit" }, make("label", { htmlFor: "edit" }, "Change it to "), input));
    }
  }
  return parts;
}

/** @param {number} measured @param {number} value */
export function agree(measured, value) {
  return Math.abs(measured - value) <= 1e-4 * Math.max(Math.abs(measured), Math.abs(value)) + 1e-8;
}

/** The cell at the run's checkpoints: at once where that is quick, else when it is asked for. @param {App} app @param {Cell} cell */
function throughTraining(app, { tensor, of, at }) {
  if (app.miniature || app.payload.checkpoints.length < 2) return [];
  const details = make("details", {}, make("summary", {}, "Through training"));
  details.addEventListener("toggle", () => {
    if (!details.open || details.childElementCount > 1) return;
    const rows = app.checkpoints.map(({ label, network }, k) => {
      const value = network.shown(tensor, of)[at];
      const row = make(
        "tr",
        {},
        make("th", { scope: "row" }, label),
        make("td", { className: "product" }, plain(value)),
      );
      if (k === app.checkpoint) row.setAttribute("data-current", "");
      return row;
    });
    details.append(make("table", { className: "terms history" }, ...rows));
  });
  details.open = app.network.seconds < QUICK;
  return [details];
}

/** What the optimizer does to a weight in this step. @param {App} app @param {Cell} cell */
function updateStory(app, { tensor, at }) {
  const { network } = app;
  const spec = network.payload.optimizer;
  const weight = network.shown(tensor, "value")[at];
  const gradient = network.shown(tensor, "gradient")[at];
  const state = freshState(spec);
  for (const [slot, vectors] of Object.entries(spec.state))
    if (vectors[tensor]) state[slot] = unpack(vectors[tensor])[at];
  const { links, decrease } = update(spec, weight, gradient, network.gradientNorm(), state);
  const sgd = weight - app.rate * gradient;
  const parts = [
    make("p", { className: "number of-value" }, `${plain(weight, 6)} → ${plain(weight - decrease, 6)}`),
    make("p", { className: "by" }, "plain SGD"),
    formula("w ← w − η · g", true),
    make(
      "p",
      { className: "filled" },
      `${plain(weight, 6)} − ${bare(app.rate)} · (${plain(gradient, 6)}) = ${plain(sgd, 6)}`,
    ),
    make("p", { className: "by" }, `${spec.type}, as this config trains, step ${spec.step.toLocaleString("en-US")}`),
  ];
  const table = make("table", { className: "terms" });
  const body = make(
    "tbody",
    {},
    make(
      "tr",
      {},
      make("th", { scope: "row" }, "gradient"),
      make("td", {}, "g"),
      make("td", { className: "product" }, plain(gradient, 6)),
    ),
  );
  for (const { name, symbol, rule, value } of links) {
    body.append(
      make(
        "tr",
        {},
        make("th", { scope: "row" }, name),
        make("td", {}, formula(`${symbol} = ${rule}`.replace("√v̂", "sqrt{v̂}").replace("√s", "sqrt{s}"))),
        make("td", { className: "product" }, plain(value, 6)),
      ),
    );
  }
  table.append(
    body,
    make(
      "tfoot",
      {},
      make(
        "tr",
        {},
        make("th", { scope: "row" }, "new"),
        make("td", {}, formula("w − η·g")),
        make("td", { className: "product" }, plain(weight - decrease, 6)),
      ),
    ),
  );
  parts.push(table);
  const constants = Object.entries(spec.fields).filter(([key, value]) => key !== "learning_rate" && value);
  parts.push(
    make(
      "p",
      { className: "quiet" },
      `η = ${bare(spec.learning_rate)}${constants.map(([key, value]) => `, ${key.replaceAll("_", " ")} ${Array.isArray(value) ? value.join(" and ") : value}`).join("")}.`,
    ),
  );
  if (spec.step > 1 && !Object.keys(spec.state).length)
    parts.push(
      make(
        "p",
        { className: "quiet" },
        "The optimizer's running averages are not in this file: they count as those of a first step.",
      ),
    );
  return parts;
}
