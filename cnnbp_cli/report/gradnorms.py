"""`cnnbp gradnorms`: steps down, layers across."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from math import isfinite, log10

from rich.text import Text

from cnnbp_cli.inspect.gradnorms import NormRow
from cnnbp_cli.report.records import write_csv, write_json_line
from cnnbp_cli.report.table import Cell, Column, Table, folded, line, show
from cnnbp_cli.report.terminal import console, plain
from cnnbp_cli.report.text import figure
from cnnbp_cli.train.statistics import DEFINITIONS, Statistic

PAGE = 20  # rows that are shown together where the layers do not stand beside each other
WIDEST_TITLE = 10

SCALE = ((-6.0, "magenta"), (-4.0, "blue"), (-2.0, "cyan"), (0.0, "green"), (2.0, "yellow"), (float("inf"), "red"))
"""The style of a magnitude below each power of ten."""


def render(rows: Iterable[NormRow], format: str, of: Statistic) -> None:
    """Write rows as they come."""
    if format == "json":
        for row in rows:
            write_json_line(row.to_dict())
    elif format == "csv":
        for first in rows:  # the header needs the names of the layers
            write_csv(["step", "loss", "total", *first.norms], map(_values, chain([first], rows)))
            break
    else:
        table = NormTable(of)
        for row in rows:
            table.add(row)
        table.flush()


def _values(row: NormRow) -> list[float]:
    return [row.step, row.loss, row.total, *row.norms.values()]


class NormTable:
    """A table that grows; where the layers do not fit side by side, it is written page by page.

    Parameters
    ----------
    of : Statistic
        What the numbers are, for the title.
    """

    def __init__(self, of: Statistic) -> None:
        self._of = of
        self._table: Table | None = None
        self._columns: list[Column] = []
        self._page: list[list[Cell]] = []
        self._written = False

    def add(self, row: NormRow) -> None:
        """Write a row, or keep it until its page is full."""
        if self._table is None:
            self._start(list(row.norms))
        assert self._table is not None
        cells: list[Cell] = [str(row.step), figure(row.loss), magnitude(row.total)]
        cells += [magnitude(norm) for norm in row.norms.values()]
        if not self._table.left_out:
            self._table.row(cells)
            return
        self._page.append(cells)
        if len(self._page) == PAGE:
            self.flush()

    def flush(self) -> None:
        """Write the rows that were kept."""
        if self._page:
            if self._written:
                line()
            show(self._columns, self._page)
            self._page, self._written = [], True

    def _start(self, layers: list[str]) -> None:
        line(f"{self._of}: {DEFINITIONS[self._of]}", "bold")
        _legend()
        self._columns = [Column("step", width=5), Column("loss", leaves=1, width=8)]
        self._columns.append(Column("whole\ngradient", leaves=2, width=8))
        for number, layer in enumerate(layers, start=3):
            self._columns.append(Column("\n".join(folded(layer, WIDEST_TITLE)), leaves=number, width=8))
        self._table = Table(self._columns)
        if not self._table.left_out:
            self._table.header()


def magnitude(value: float) -> tuple[str, str]:
    """Return a norm in powers of ten, and its colour on a logarithmic scale."""
    if not isfinite(value):
        return str(value), "bold red"
    if value == 0:
        return "0", "magenta"
    return f"{value:.2e}", next(style for limit, style in SCALE if log10(value) < limit)


def _legend() -> None:
    out = console()
    if out.color_system and out.is_terminal:
        text = Text("colours: ")
        for limit, style in SCALE:
            text.append(f"<1e{limit:+03.0f}  " if isfinite(limit) else "larger", style)
        text.plain = plain(text.plain, out.file)  # type: ignore[arg-type]
        out.print(text)
