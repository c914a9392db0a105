"""One cell under the microscope: its rule, its largest terms with their cells, the rest, and who uses it."""

from __future__ import annotations

from rich.cells import cell_len

from cnnbp_cli.report.terminal import console
from cnnbp_cli.report.text import count
from cnnbp_cli.report.trace.lines import GLUE, GRADIENTS, VALUES, write, write_as_is
from cnnbp_cli.report.trace.numerals import Numerals
from cnnbp_cli.report.trace.sums import (
    WHY,
    WrittenSum,
    filled_in,
    name_of,
    named,
    product_of,
    right_side,
    rule,
    through,
    written_sum,
)
from cnnbp_cli.report.trace.whole import SWAPPED, is_kernel
from cnnbp_cli.tracing.cells import Cell
from cnnbp_cli.tracing.explanation import Explanation, Summand
from cnnbp_cli.tracing.trace import Trace

FEW_READERS = 6
"""Cells that are named."""
FEW_TERMS = 3
"""A rule with its numbers filled in says enough about so many."""


def show_cell(trace: Trace, cell: Cell, of: str, top: int | None, numerals: Numerals, *, alone: bool = True) -> None:
    """Write one cell; one that stands alone also says where it goes, and what to beware of."""
    found = trace.terms(cell, of)
    write(
        f"{name_of(cell, of)} = {numerals.more(1).short(found.value)}", f"bold {VALUES if of == 'value' else GRADIENTS}"
    )
    write(f"={GLUE}{rule(found)}" if " = " in found.formula else found.formula, "", 1)
    for line in through(found, numerals):
        write(line, "", 1)
    if steps := filled_in(found, numerals.more(1)):
        write(" ".join(f"={GLUE}{step}" for step in steps), "", 1)
    if found.reason:
        write(f"It is 0: {WHY[found.reason]}." if found.value == 0 else f"All but 0: {WHY[found.reason]}.", "", 1)
        _winners(trace, found)
    if found.stated and any(term.factors for term in found.terms):
        written, batch = written_sum(found, numerals, top), trace.images > 1
        if len(found.terms) == 1:
            _single(written, batch=batch, has_steps=bool(steps))
        elif steps and len(found.terms) <= FEW_TERMS:
            write(f"from {', '.join(_cells(term, batch=batch) for term in found.terms)}", "", 1)
        else:
            _table(written, batch=batch)
        if found.retold and len(found.terms) > 1:
            write(f"The same sum, scattered: {right_side(found.retold)}.", "", 1)
    if alone and of == "gradient" and is_kernel(trace, cell.tensor):
        write(SWAPPED, "dim", 1)
    users = trace.used_by(cell, of) if alone else ()
    if users:
        more = f" and {count(len(users) - FEW_READERS)} more" if len(users) > FEW_READERS else ""
        write(f"goes into {', '.join(name_of(user, of) for user in users[:FEW_READERS])}{more}")


def _winners(trace: Trace, found: Explanation) -> None:
    """Write who won where this cell did not."""
    if found.reason == "not the winner":
        for factor in found.reads:
            if factor.of == "gradient" and factor.image == trace.shown:
                (winner,) = trace.terms(factor.cell, "value").terms[0].factors
                write(f"{factor.cell} took {winner.cell}, so d{GLUE}{factor.cell} goes there.", "", 1)


def _single(written: WrittenSum, *, batch: bool, has_steps: bool) -> None:
    """Write a cell that is one product; where the rule has its numbers already, only which cells they are."""
    (term,), (factors,) = written.terms, written.factors
    if has_steps or len(factors) == 1:
        write(f"from {_cells(term, batch=batch)}", "", 1)
    else:
        write(f"={GLUE}{product_of(factors)}{GLUE * 3}{_cells(term, batch=batch)}", "", 1)


def _cells(term: Summand, *, batch: bool) -> str:
    return " · ".join(named(factor, batch=batch) for factor in term.factors)


def _table(written: WrittenSum, *, batch: bool) -> None:
    """Write a line for each term: its product, its factors, and the cells that they are; then the total."""
    rows = [product_of(factors) for factors in written.factors]
    wide = max(map(len, (*written.products, written.total)))
    across = max(map(len, rows), default=0)
    room = console().width
    for term, product, row in zip(written.terms, written.products, rows, strict=False):
        cells = _cells(term, batch=batch)
        start = f"  {product.rjust(wide)} = {row.ljust(across)}"
        if cell_len(start) + 3 + cell_len(cells) <= room:
            write_as_is(f"{start}   {cells.replace(GLUE, ' ')}")
        else:
            write(start.rstrip()[2:], "", 1)
            write(cells, "", 3)
    if written.others:
        write_as_is(f"  {written.products[-1].rjust(wide)}   {count(written.others, 'other')}")
    if written.zeros:
        write_as_is(
            f"  {'0'.rjust(wide)}   {count(written.zeros, 'more term')} that {'is' if written.zeros == 1 else 'are'} 0"
        )
    write_as_is(f"  {'─' * wide}")
    write_as_is(f"  {written.total.rjust(wide)}", "bold")
