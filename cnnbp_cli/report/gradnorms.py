"""`cnnbp gradnorms`: steps down, layers across."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from math import isfinite, log10, nan

from rich.text import Text

from cnnbp_cli.analysis.gradnorms import NormRow
from cnnbp_cli.report.chart import binned, limits, logarithms, sparkline
from cnnbp_cli.report.records import write_csv, write_json_line
from cnnbp_cli.report.table import Cell, Column, Table, folded, line, show
from cnnbp_cli.report.terminal import console, plain
from cnnbp_cli.report.text import figure, percent
from cnnbp_cli.train.statistics import DEFINITIONS, SHARES, Statistic

PAGE = 20  # rows that are shown together where the layers do not stand beside each other
WIDTH = 8  # columns of a figure
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
        table.close()


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
        self._rows: list[NormRow] = []
        self._written = False

    def add(self, row: NormRow) -> None:
        """Write a row, or keep it until its page is full."""
        if self._table is None:
            self._start(list(row.norms))
        assert self._table is not None
        self._rows.append(row)
        cells: list[Cell] = [str(row.step), figure(row.loss), magnitude(row.total)]
        cells += [self._figure(norm) for norm in row.norms.values()]
        if not self._table.left_out:
            self._table.row(cells)
            return
        self._page.append(cells)
        if len(self._page) == PAGE:
            self.flush()

    def flush(self) -> None:
        """Write the rows that were kept."""
        if self._page:
            self._show()

    def close(self) -> None:
        """Write the rows that were kept, and below each column how it went."""
        trend = self._trend() if len(self._rows) > 1 else None
        if self._table and trend and not self._table.left_out:
            self._table.rule()
            self._table.row(trend)
        elif self._page or (trend and self._table):
            self._show(trend)

    def _show(self, total: list[Cell] | None = None) -> None:
        if self._written:
            line()
        show(self._columns, self._page, total)
        self._page, self._written = [], True

    def _figure(self, value: float) -> Cell:
        return _share(value) if self._of in SHARES else magnitude(value)

    def _trend(self) -> list[Cell]:
        """Return a sparkline for each column: shares from 0 to 1, others from their least to their largest value."""
        cells: list[Cell] = ["trend"]
        for values in ([row.loss for row in self._rows], [row.total for row in self._rows]):
            heights = logarithms(binned(values, WIDTH))
            cells.append(sparkline(heights, *limits(heights)))
        for layer in self._rows[0].norms:
            heights = binned([row.norms.get(layer, nan) for row in self._rows], WIDTH)
            if self._of not in SHARES and self._of != "mean":
                heights = logarithms(heights)
            cells.append(sparkline(heights, *((0, 1) if self._of in SHARES else limits(heights))))
        return cells

    def _start(self, layers: list[str]) -> None:
        line(f"{self._of}: {DEFINITIONS[self._of]}", "bold")
        if self._of not in SHARES:
            _legend()
        self._columns = [Column("step", width=5), Column("loss", leaves=1, width=WIDTH)]
        self._columns.append(Column("whole\ngradient", leaves=2, width=WIDTH))
        width = WIDTH if self._of != "mean" else WIDTH + 1
        for number, layer in enumerate(layers, start=3):
            self._columns.append(Column("\n".join(folded(layer, WIDEST_TITLE)), leaves=number, width=width))
        self._table = Table(self._columns)
        if not self._table.left_out:
            self._table.header()


def magnitude(value: float) -> tuple[str, str]:
    """Return a number in powers of ten, and the color of its magnitude on a logarithmic scale."""
    if not isfinite(value):
        return str(value), "bold red"
    if value == 0:
        return "0", "magenta"
    return f"{value:.2e}", next(style for limit, style in SCALE if log10(abs(value)) < limit)


def _share(value: float) -> tuple[str, str]:
    """Return a share as a percentage, conspicuous from a half on."""
    return percent(value), "yellow" if value >= 0.5 else ""


def _legend() -> None:
    out = console()
    if out.color_system and out.is_terminal:
        text = Text("colors: ")
        for limit, style in SCALE:
            text.append(f"<1e{limit:+03.0f}  " if isfinite(limit) else "larger", style)
        text.plain = plain(text.plain, out.file)  # type: ignore[arg-type]
        out.print(text)
