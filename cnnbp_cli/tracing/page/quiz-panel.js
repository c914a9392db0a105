/** The quiz beside the network: predict, then see. */

import { button, make } from "./maps.js";
import { nameOf, termTable } from "./microscope.js";
import { counted, inPowers, plain, sumWriter } from "./numbers.js";
import { isRight, questions } from "./quiz.js";

/**
 * @typedef {import("./app.js").App} App
 * @typedef {import("./quiz.js").Question} Question
 * @typedef {import("./network.js").Network} Network
 */

export class Quiz {
  /** @param {App} app @param {number} seed */
  constructor(app, seed) {
    this.app = app;
    this.seed = seed;
    this.questions = questions(app.network, seed);
    this.at = 0;
    this.score = 0;
    this.answered = /** @type {number | null} */ (null);
  }

  get question() {
    return this.questions[this.at];
  }

  /** @param {number} given */
  answer(given) {
    if (this.answered !== null || Number.isNaN(given)) return;
    this.answered = given;
    if (isRight(this.question, given, this.writer.decimals)) this.score++;
    this.app.show();
  }

  get writer() {
    return writerFor(this.question);
  }

  next() {
    this.at++;
    this.answered = null;
    this.app.show();
  }

  panel() {
    const panel = make(
      "div",
      { className: "microscope quiz" },
      make("h2", { className: "cell-name" }, "Predict, then see"),
    );
    if (this.at >= this.questions.length) {
      panel.append(make("p", { className: "number" }, `${this.score} of ${this.questions.length}`));
      panel.append(button("Other questions", () => this.app.startQuiz(this.seed + 1)));
      return panel;
    }
    const { question, app } = this;
    panel.append(
      make(
        "p",
        { className: "quiet" },
        `Question ${this.at + 1} of ${this.questions.length} · ${this.score} right so far · seed ${this.seed}`,
      ),
    );
    panel.append(make("p", { className: "asked" }, asked(app.network, question)));
    const done = this.answered !== null;
    const { write, exponent, decimals } = this.writer;
    if (question.kind !== "winner" && question.kind !== "gate") panel.append(sumWithBlank(app, question, done));
    panel.append(question.options.length ? this.choices(done) : this.field(done));
    if (done) {
      const right = isRight(question, /** @type {number} */ (this.answered), decimals);
      const said = question.options.length
        ? optionText(app.network, question, question.answer)
        : `${write(question.answer)} ${inPowers(exponent)}`;
      panel.append(
        make(
          "p",
          { className: "verdict" },
          make("strong", {}, right ? "Right. " : `No: ${said}. `),
          because(app.network, question),
        ),
      );
      panel.append(make("p", {}, app.link("See the whole cell", question.cell)));
      panel.append(button(this.at + 1 < this.questions.length ? "Next" : "Score", () => this.next()));
    }
    return panel;
  }

  /** @param {boolean} done */
  choices(done) {
    const group = make("div", { className: "options", role: "group", "aria-label": "answers" });
    for (const option of this.question.options) {
      const choice = button(optionText(this.app.network, this.question, option), () => this.answer(option));
      choice.disabled = done;
      if (done && option === this.question.answer) choice.setAttribute("data-answer", "");
      group.append(choice);
    }
    return group;
  }

  /** @param {boolean} done */
  field(done) {
    const input = make("input", { type: "number", step: "any", id: "answer", disabled: done });
    if (this.answered !== null) input.value = String(this.answered);
    const form = make(
      "form",
      { className: "options" },
      make("label", { htmlFor: "answer" }, "Your number "),
      input,
      make("button", { type: "submit", disabled: done }, "Check"),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.answer(input.value === "" ? NaN : Number(input.value));
    });
    return form;
  }
}

/** How the numbers of a question are written. @param {Question} question */
export function writerFor({ terms }) {
  const products = terms.map(({ product }) => product);
  return sumWriter(
    products,
    products.reduce((sum, product) => sum + product, 0),
  );
}

/** @param {Network} network @param {Question} question */
export function asked(network, { kind, cell, terms }) {
  const name = nameOf(network, cell.tensor, cell.at);
  if (kind === "winner") return `Which cell takes the gradient of ${name}?`;
  if (kind === "gate")
    return `The ReLU's input ${name} was ${plain(terms[0].factors[0].value, 4)}. Does it let a gradient pass?`;
  if (kind === "sign") return `What sign has the gradient of ${name}?`;
  if (kind === "blank") return `The gradient of ${name}: which number is missing?`;
  return `What is the gradient of ${name}?`;
}

/** @param {Network} network @param {Question} question @param {number} option */
export function optionText(network, { kind, terms }, option) {
  if (kind === "winner") {
    const term = terms.find(({ factors: [factor] }) => factor.at === option);
    return term ? `${nameOf(network, term.factors[0].tensor, option)}: ${plain(term.factors[0].value, 4)}` : "";
  }
  if (kind === "gate") return option ? "it passes" : "it is stopped";
  return option > 0 ? "positive" : "negative";
}

/** @param {Network} network @param {Question} question */
function because(network, { kind, cell, terms, answer }) {
  if (kind === "winner") return "The first largest of the window takes the whole gradient.";
  if (kind === "gate")
    return answer
      ? "The input was above 0, so the gate is open, whatever the gradient's sign."
      : "The input was not above 0, so the gate is closed.";
  if (kind === "sign")
    return `Its ${counted(terms.length, "term")} add up to ${plain(network.shown(cell.tensor, cell.of)[cell.at])}.`;
  return "Each term is a gradient times the number that it met.";
}

/** A sum with its blank. @param {App} app @param {Question} question @param {boolean} done */
function sumWithBlank(app, question, done) {
  const { kind, terms, blank, cell } = question;
  const { write, exponent } = writerFor(question);
  const total = app.network.shown(cell.tensor, cell.of)[cell.at];
  if (done) return termTable(app, terms, total);
  const table = make("table", { className: "terms" });
  const body = make("tbody");
  terms.forEach((term, k) => {
    const made = make("td");
    if (term.coefficient !== 1) made.append(plain(term.coefficient, 4), " · ");
    term.factors.forEach((factor, l) =>
      made.append(l ? " · " : "", make("span", { className: `of-${factor.of} factor` }, plain(factor.value, 5))),
    );
    body.append(
      make(
        "tr",
        {},
        made,
        make(
          "td",
          { className: "product" },
          kind === "blank" && k !== blank ? write(term.product) : kind === "blank" ? "?" : "",
        ),
      ),
    );
  });
  table.append(
    body,
    make(
      "tfoot",
      {},
      make(
        "tr",
        {},
        make("th", { scope: "row" }, `sum ${inPowers(exponent)}`),
        make("td", { className: "product" }, kind === "blank" ? write(total) : "?"),
      ),
    ),
  );
  return table;
}
