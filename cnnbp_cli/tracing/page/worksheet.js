/** On paper: exercises with blanks, and on a page of its own the key, from the same numbers. */

import { make } from "./maps.js";
import { nameOf } from "./microscope.js";
import { INPUT } from "./network.js";
import { decimalsFor, exponentFor, inPowers, plain, signed } from "./numbers.js";
import { asked, optionText, writerFor } from "./quiz-panel.js";
import { random, sheet } from "./quiz.js";
import { largest, range, sizeOf } from "./tensor.js";

/**
 * @typedef {import("./network.js").Network} Network
 * @typedef {import("./quiz.js").Question} Question
 * @typedef {import("./terms.js").Of} Of
 */

const SMALL = 400;
const QUESTIONS = 10;

/** @param {Network} network @param {number} seed */
export function worksheet(network, seed) {
  return make("div", { className: "worksheet" }, part(network, seed, false), part(network, seed, true));
}

/** @param {Network} network @param {number} seed @param {boolean} solved */
function part(network, seed, solved) {
  const { payload } = network;
  const { split, index } = payload.image;
  const section = make("section", { className: solved ? "key" : "sheet" });
  section.append(make("h1", {}, `${payload.name}: ${solved ? "the key" : "the backward pass by hand"}`));
  const about = [
    payload.origin,
    index === null ? split : `${split} image ${index}`,
    network.labels ? `label ${payload.classes[network.labels[network.sample]] ?? network.labels[network.sample]}` : "",
    `sheet ${seed}`,
  ];
  section.append(make("p", { className: "quiet" }, about.filter(Boolean).join(" · ")));
  if (!solved)
    section.append(
      make(
        "p",
        {},
        "Name: ______________________________      Fill in what is missing. Gradients are those of the loss.",
      ),
    );
  const small = [...network.shapes].every(([, shape]) => sizeOf(shape) <= SMALL);
  if (small) section.append(...tables(network, seed, solved));
  const list = make("ol", { className: "exercises" });
  for (const question of sheet(network, seed, small ? 6 : QUESTIONS))
    list.append(make("li", {}, ...exercise(network, question, solved)));
  section.append(make("h2", {}, "Questions"), list);
  return section;
}

/** All numbers of the pass, some left blank. @param {Network} network @param {number} seed @param {boolean} solved */
function tables(network, seed, solved) {
  const draw = random(seed);
  const forward = make("div", { className: "sheet-tables" });
  const backward = make("div", { className: "sheet-tables" });
  const parameters = [...network.owners.keys()];
  forward.append(table(network, INPUT, "value", () => false, solved));
  for (const tensor of parameters) forward.append(table(network, tensor, "value", () => false, solved));
  for (const { name } of network.nodes) forward.append(table(network, name, "value", () => draw() < 0.5, solved));
  for (const tensor of network.beyond.filter((name) => name !== "loss")) {
    forward.append(table(network, tensor, "value", () => false, solved));
  }
  for (const { name, parameters: own } of [...network.nodes].reverse()) {
    backward.append(table(network, name, "gradient", () => draw() < 0.5, solved));
    for (const key of Object.keys(own)) {
      if (network.trainable.has(`${name}.${key}`))
        backward.append(table(network, `${name}.${key}`, "gradient", () => draw() < 0.5, solved));
    }
  }
  backward.append(table(network, INPUT, "gradient", () => draw() < 0.25, solved));
  return [make("h2", {}, "Forward: values"), forward, make("h2", {}, "Backward: gradients"), backward];
}

/** @param {Network} network @param {string} tensor @param {Of} of @param {() => boolean} blank @param {boolean} solved */
function table(network, tensor, of, blank, solved) {
  const shape = network.shape(tensor);
  const numbers = network.shown(tensor, of);
  const columns = shape[shape.length - 1] ?? 1;
  const most = largest(numbers);
  const exponent = exponentFor(most);
  const decimals = decimalsFor(most / 10 ** exponent);
  const made = make(
    "table",
    {},
    make("caption", {}, `${of === "gradient" ? "gradient of " : ""}${tensor} ${inPowers(exponent)}`),
  );
  for (const start of range(0, numbers.length / columns)) {
    const row = make("tr");
    for (const at of range(start * columns, columns)) {
      const empty = blank();
      const text = signed(numbers[at] / 10 ** exponent, decimals);
      row.append(
        make("td", { className: empty ? "blank" : "" }, !empty ? text : solved ? make("strong", {}, text) : "\u00a0"),
      );
    }
    made.append(row);
  }
  return made;
}

/** @param {Network} network @param {Question} question @param {boolean} solved */
function exercise(network, question, solved) {
  const { kind, terms, blank, cell, options, answer } = question;
  const total = network.shown(cell.tensor, cell.of)[cell.at];
  const { write, exponent } = writerFor(question);
  /** @type {HTMLElement[]} */
  const parts = [make("p", {}, asked(network, question))];
  if (options.length) {
    const line = make("p", { className: "choices" });
    options.forEach((option, k) =>
      line.append(
        k ? "    " : "",
        solved && option === answer
          ? make("strong", {}, `☒ ${optionText(network, question, option)}`)
          : `☐ ${optionText(network, question, option)}`,
      ),
    );
    parts.push(line);
  }
  if (kind === "winner" || kind === "gate") return parts;
  const sum = make("table", { className: "sum" });
  terms.forEach((term, k) => {
    const factors = [...(term.coefficient === 1 ? [] : [term.coefficient]), ...term.factors.map(({ value }) => value)];
    const names = term.factors.map(({ tensor, at }) => nameOf(network, tensor, at)).join(" · ");
    const hidden = kind === "blank" ? k === blank : true;
    const shown = write(term.product);
    sum.append(
      make(
        "tr",
        {},
        make("td", {}, factors.map((value) => plain(value, 4)).join(" · ")),
        make("td", { className: "quiet" }, names),
        make(
          "td",
          { className: hidden ? "blank" : "" },
          !hidden ? shown : solved ? make("strong", {}, shown) : "\u00a0",
        ),
      ),
    );
  });
  const open = kind === "whole" || kind === "sign";
  sum.append(
    make(
      "tr",
      {},
      make("td", {}, `sum ${inPowers(exponent)}`),
      make("td"),
      make(
        "td",
        { className: open ? "blank" : "" },
        !open ? write(total) : solved ? make("strong", {}, write(total)) : "\u00a0",
      ),
    ),
  );
  parts.push(sum);
  return parts;
}
