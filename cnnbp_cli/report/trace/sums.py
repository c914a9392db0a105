"""How one cell comes about, in numbers that a reader can add up: its rule, the rule filled in, and a sum.

Everything comes from the explanation that the trace gives; what is rounded here is only shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from math import fsum, isfinite

from cnnbp_cli.core.terms import Reason
from cnnbp_cli.report.text import count
from cnnbp_cli.report.trace.lines import GLUE
from cnnbp_cli.report.trace.numerals import MINUS, Numerals, minus, parenthesized
from cnnbp_cli.tracing.cells import Cell
from cnnbp_cli.tracing.digits import addition
from cnnbp_cli.tracing.explanation import Explanation, Factor, Summand

MORE_DIGITS = 2
"""Factors get so many more digits than their products, at most, until they multiply to what is shown."""

WHY: dict[Reason, str] = {
    "gate closed": "the gate is closed, as the input was not above 0",
    "saturated": "the activation is flat here, its slope is 0",
    "not the winner": "not the winner of its window",
    "dropped": "dropout left it out of this step",
    "padding": "this tap of the kernel meets nothing but padding",
    "not read": "no window covers it",
    "nothing arrived": "nothing arrived, every gradient that would come here is 0",
    "multiplied by 0": "what arrives is multiplied by 0",
    "canceled": "the terms cancel: they are not 0, but add up to 0",
    "detached": "nothing that leads to the loss reads it",
}


@dataclass(frozen=True, slots=True)
class WrittenSum:
    """A sum that adds up: terms that are not 0, their products, and what the others come to.

    Attributes
    ----------
    terms : tuple of Summand
    products : list of str
        One for each term, and one more for the others where there are any.
    factors : list of list of str
        The numbers in each term, with so many digits that they multiply to its product.
    total : str
    others, zeros : int
        How many terms are not shown, and how many of all are 0.
    """

    terms: tuple[Summand, ...]
    products: list[str]
    factors: list[list[str]]
    total: str
    others: int
    zeros: int


def written_sum(found: Explanation, numerals: Numerals, top: int | None = None) -> WrittenSum:
    """Write the `top` largest terms of a cell that are not 0, or all terms."""
    products = [product for told in found.told for product in told.products]
    zeros = sum(product == 0 for product in products)
    zeros = 0 if top is None or zeros == len(products) else zeros
    terms, others, rest = found.largest(None if top is not None and len(products) - zeros <= top else top)
    terms = tuple(term for term in terms if term.product or not zeros)
    others = others and len(products) - zeros - len(terms)
    numbers = [*(term.product for term in terms), *([rest] if others else [])]
    written = addition(numbers, found.value, numerals.digits)
    power = f"e{written.exponent}" if written.exponent else ""
    texts = [text + power for text in written.terms]
    shown = max((len(Decimal(text).as_tuple().digits) for text in texts if isfinite(float(text))), default=0)
    for digits in range(numerals.digits, max(numerals.digits, shown) + MORE_DIGITS + 1):
        factors = [[replace(numerals, digits=digits).plain(number) for number in _numbers(term)] for term in terms]
        if all(map(_multiply, factors, texts)):
            break
    return WrittenSum(
        terms,
        [*map(minus, texts)],
        [[*map(minus, row)] for row in factors],
        minus(written.total + power),
        others,
        zeros,
    )


def _numbers(term: Summand) -> list[float]:
    numbers = [factor.value for factor in term.factors]
    if len(numbers) == 1 and abs(term.coefficient) == 1:
        return [term.product]
    return numbers if numbers and term.coefficient == 1 else [term.coefficient, *numbers]


def _multiply(factors: Sequence[str], product: str) -> bool:
    """Return whether the factors, as they are written, make the product that is written."""
    found = Decimal(1)
    for factor in factors:
        found *= Decimal(factor)
    shown = Decimal(product)
    return not found.is_finite() or not shown.is_finite() or found.quantize(shown) == shown


def worked(found: Explanation, numerals: Numerals, top: int) -> Iterator[tuple[int, str]]:
    """Yield how a cell comes about, as lines with their level: the rule, its numbers, their sum."""
    yield 0, f"{name_of(found.cell, found.of)} = {rule(found)}"
    yield from ((1, line) for line in through(found, numerals))
    value = numerals.more(1).short(found.value)
    if found.reason or not found.stated:
        yield 1, f"= {value}{f': {WHY[found.reason]}' if found.reason else ''}"
        return
    steps = filled_in(found, numerals.more(1))
    if steps and not _is_plain_sum(found):
        if steps[-1] != value and not steps[-1].startswith(f"{value} where"):
            steps.append(value)
        yield 1, " ".join(f"={GLUE}{step}" for step in steps)
        return
    written = written_sum(found, numerals.more(int(_is_plain_sum(found))), top)
    steps = []
    if any(len(factors) > 1 for factors in written.factors):
        others = f" + {count(written.others, 'other')}" if written.others else ""
        steps.append(chained([product_of(factors) for factors in written.factors]) + others)
    if len(written.products) > 1:
        steps.append(f"{chained(written.products)} ={GLUE}{written.total}")
    else:
        steps = [f" ={GLUE}".join([*steps, written.total])]
    for step in steps:
        yield 1, f"={GLUE}{step}"
    if written.zeros:
        yield 1, f"({count(written.zeros, 'more term')} {'is' if written.zeros == 1 else 'are'} 0)"
    yield from _scattered(found, written)


def through(found: Explanation, numerals: Numerals) -> Iterator[str]:
    """Yield what comes through each of several layers: its rule, and its part of the cell, to which they add up."""
    if len(found.told) < 2:
        return
    parts = addition([fsum(told.products) for told in found.told], found.value, numerals.digits)
    power = f"e{parts.exponent}" if parts.exponent else ""
    for told, part in zip(found.told, parts.terms, strict=True):
        line = f"through {told.via}: {right_side(told.terms.symbols())}"
        yield f"{line} = {minus(part + power)}" if told.terms.stated and len(told.products) > 1 else line


def _scattered(found: Explanation, written: WrittenSum) -> Iterator[tuple[int, str]]:
    """Yield the same terms told the other way, where a layer can tell it: what each stamp of the kernel leaves."""
    for told in found.told:
        mine = [k for k, term in enumerate(written.terms) if term.via == told.via and len(term.factors) > 1]
        if told.terms.retold and len(mine) > 1:
            yield 1, f"or scattered: {right_side(told.terms.retold)}"
            for k in mine:
                source = named(written.terms[k].factors[-1])
                yield 2, f"{source} leaves {product_of(written.factors[k][::-1])} ={GLUE}{written.products[k]}"


def _is_plain_sum(found: Explanation) -> bool:
    """Return whether it is a sum or difference of cells that are not 0, which is written so that it adds up."""
    return len(found.terms) > 1 and all(
        term.product and abs(term.coefficient) == 1 == len(term.factors) for term in found.terms
    )


def rule(found: Explanation) -> str:
    """Return the rule without its left side, which the cell's name stands for."""
    if len(found.told) > 1:
        return f"what comes through {' and '.join(told.via for told in found.told)}, added"
    return right_side(found.formula)


def filled_in(found: Explanation, numerals: Numerals) -> list[str]:
    """Return the parts of the rule that have numbers, between its equal signs; none where it has no numbers."""
    if len(found.told) > 1 or not found.told[0].terms.numbers:
        return []
    filled, symbols = found.filled_with(numerals.plain), found.formula
    pairs = zip(*(text.partition(", where ")[0].split(" = ")[1:] for text in (filled, symbols)), strict=True)
    return [number for number, symbol in pairs if number != symbol]


def right_side(formula: str) -> str:
    """Return a formula without what stands before the equal sign, its indices written as those of cells are."""
    return re.sub(r", (?=[^\[\]]*\])", ",", formula.partition(" = ")[2] or formula)


def name_of(cell: Cell, of: str) -> str:
    """Write a cell's name, and `d` before it for its gradient."""
    return {"value": f"{cell}", "gradient": f"d{GLUE}{cell}", "update": f"change of {cell}"}.get(of, f"{of} of {cell}")


def named(factor: Factor, *, batch: bool = False) -> str:
    """Write the name of a cell in a sum; in a `batch`, with its image."""
    image = f" (image {factor.image})" if batch and factor.image is not None else ""
    return name_of(factor.cell, factor.of) + image.replace(" ", GLUE)


def product_of(factors: Sequence[str]) -> str:
    first, *others = factors
    return "·".join([first, *map(parenthesized, others)])


def chained(terms: Sequence[str]) -> str:
    """Write a sum: ``a − b + c``."""
    first, *others = terms
    signed = (f"{MINUS}{GLUE}{term[1:]}" if term.startswith(MINUS) else f"+{GLUE}{term}" for term in others)
    return " ".join([first, *signed])
