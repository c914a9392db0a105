"""`cnnbp gradnorms`: steps down, layers across; where there are too many, blocks of layers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import chain, pairwise
from math import hypot, isfinite

from cnnbp_cli.analysis.gradnorms import NormRow
from cnnbp_cli.report.chart import binned, limits, logarithms, sparkline
from cnnbp_cli.report.markup import sheet
from cnnbp_cli.report.records import write_csv, write_json_line
from cnnbp_cli.report.scale import Scale
from cnnbp_cli.report.table import GAP, Cell, Column, Table, folded, line
from cnnbp_cli.report.terminal import console, plain
from cnnbp_cli.report.text import decimal, figure, percent
from cnnbp_cli.train.statistics import DEFINITIONS, SHARES, Statistic

WIDTH = 8  # columns of a figure
WIDEST_TITLE = 10
NORMS = ("gradient", "update", "weight")
"""What adds up in squares, so that a block of layers has it as one layer has."""

Blocks = Sequence[Sequence[str]]
"""Names of layers that belong together, in network order."""


def render(rows: Iterable[NormRow], format: str, of: Statistic, blocks: Blocks = ()) -> None:
    """Write rows as they come; a list of them, which is complete, is colored by the range of them all."""
    if format == "json":
        for row in rows:
            write_json_line(row.to_dict())
    elif format == "csv":
        rows = iter(rows)
        for first in rows:  # the header needs the names of the layers
            write_csv(["step", "loss", "total", *first.norms], map(_values, chain([first], rows)))
            break
    elif format == "table":
        table = NormTable(of, blocks)
        if isinstance(rows, list):
            table.see(rows)
        for row in rows:
            table.add(row)
        table.close()
    else:
        _markup([*rows], format, of)


def _values(row: NormRow) -> list[float]:
    return [row.step, row.loss, row.total, *row.norms.values()]


def _markup(rows: Sequence[NormRow], format: str, of: Statistic) -> None:
    out, scale = sheet(format), Scale()
    out.line(f"{of}: {DEFINITIONS[of]}", "bold")
    names = list(rows[0].norms) if rows else []
    out.show(
        [*map(Column, ("step", "loss", "whole gradient", *names))],
        [
            [
                str(row.step),
                figure(row.loss),
                decimal(row.total),
                *(_cell(row.norms[name], of, scale) for name in names),
            ]
            for row in rows
        ],
    )


def _cell(value: float, of: Statistic, scale: Scale) -> Cell:
    if of in SHARES:
        return percent(value), "yellow" if value >= 0.5 else ""
    return decimal(value), scale.style(value)


class NormTable:
    """A table that grows by a row for each step.

    Parameters
    ----------
    of : Statistic
        What the numbers are, for the title.
    blocks : sequence of sequences of str, optional
        How layers are put together where they do not fit side by side: a block has the L2 norm of all its parameters,
        or of what does not add up the largest magnitude of its layers.
    """

    def __init__(self, of: Statistic, blocks: Blocks = ()) -> None:
        self._of = of
        self._blocks = blocks
        self._columns: dict[str, list[str]] = {}
        self._table: Table | None = None
        self._scale = Scale()
        self._rows: list[NormRow] = []
        self._series: list[list[float]] = []

    def see(self, rows: Iterable[NormRow]) -> None:
        """Take the range of rows that come later into account."""
        for row in rows:
            self._start(row)
            self._scale.see([row.total, *self._figures(row)])

    def add(self, row: NormRow) -> None:
        """Write a row."""
        self._start(row)
        if self._table is None:
            self._table = self._begin()
        figures = self._figures(row)
        self._scale.see([row.total, *figures])
        self._rows.append(row)
        self._series.append(figures)
        cells: list[Cell] = [str(row.step), figure(row.loss), (decimal(row.total), self._scale.style(row.total))]
        self._table.row([*cells, *(_cell(value, self._of, self._scale) for value in figures)])

    def close(self) -> None:
        """Write below each column how it went, and what the colors mean."""
        if self._table is None:
            return
        if len(self._rows) > 1:
            self._table.rule()
            self._table.row(self._trend())
        out = console()
        if self._of not in SHARES and out.color_system and out.is_terminal:
            text = self._scale.legend()
            text.plain = plain(text.plain, out.file)  # type: ignore[arg-type]
            out.print(text)

    def _figures(self, row: NormRow) -> list[float]:
        return [_together([row.norms[name] for name in names], self._of) for names in self._columns.values()]

    def _start(self, row: NormRow) -> None:
        """Choose the columns, when the first row shows which layers there are."""
        if not self._columns:
            self._columns = self._fitting(list(row.norms))

    def _fitting(self, layers: list[str]) -> dict[str, list[str]]:
        """Return the layers of each column by its title: one each if that fits, else blocks of them."""
        width = console().width
        each = self._width + GAP
        if 5 + each * len(layers) <= width:
            return {name: [name] for name in layers}
        known = [[name for name in block if name in layers] for block in self._blocks]
        titles = {id(names): _title(block) for names, block in zip(known, self._blocks, strict=True)}
        blocks = [names for names in known if names]
        if sum(map(len, blocks)) != len(layers):
            blocks, titles = [[name] for name in layers], {}
        most = max((width - 5 - 2 * (WIDTH + GAP)) // (max(self._width, WIDEST_TITLE) + GAP), 1)
        joined = evenly(blocks, most)
        return {
            titles.get(id(own[0]), own[0][0]) if len(own) == 1 else f"{own[0][0]}–{own[-1][-1]}": [
                name for names in own for name in names
            ]
            for own in joined
        }

    @property
    def _width(self) -> int:
        return WIDTH + (self._of == "mean")  # a sign

    def _begin(self) -> Table:
        line(f"{self._of}: {DEFINITIONS[self._of]}", "bold")
        if any(len(names) > 1 for names in self._columns.values()):
            how = "the norm of all of it" if self._of in NORMS else "the largest of its layers"
            line(f"Each column is a block of layers, and {how}; --format csv has every layer.")
            for title, names in self._columns.items():
                if names != [title]:
                    line(f"  {title}: {', '.join(names)}")
        columns = [Column("step", width=5), Column("loss", leaves=3, width=WIDTH)]
        columns.append(Column("whole\ngradient", leaves=2, width=WIDTH))
        for k, title in enumerate(self._columns):
            columns.append(Column("\n".join(folded(title, WIDEST_TITLE)), leaves=int(k == 0), width=self._width))
        table = Table(columns)
        table.note_left_out()
        table.header()
        return table

    def _trend(self) -> list[Cell]:
        """Return a sparkline for each column: shares from 0 to 1, others from their least to their largest value."""
        cells: list[Cell] = ["trend"]
        for values in ([row.loss for row in self._rows], [row.total for row in self._rows]):
            heights = logarithms(binned(values, WIDTH))
            cells.append(sparkline(heights, *limits(heights)))
        for values in map(list, zip(*self._series, strict=True)):
            heights = binned(values, WIDTH)
            if self._of not in SHARES and self._of != "mean":
                heights = logarithms(heights)
            cells.append(sparkline(heights, *((0, 1) if self._of in SHARES else limits(heights))))
        return cells


def _title(block: Sequence[str]) -> str:
    """Return the last name in a block that somebody chose: others end in a number of their own."""
    return next((name for name in reversed(block) if not re.search(r"_\d+$", name)), block[-1])


def _together(values: Sequence[float], of: Statistic) -> float:
    """Return a statistic of several layers as one: norms add up in squares, of others the largest magnitude counts."""
    if len(values) == 1:
        return values[0]
    if of in NORMS:
        return hypot(*values)
    return next((value for value in values if not isfinite(value)), max(values, key=abs))


def evenly(blocks: Sequence[list[str]], most: int) -> list[list[list[str]]]:
    """Return the blocks in at most so many groups of neighbors, of about the same number each."""
    number = min(most, len(blocks))
    ends = [round(k * len(blocks) / number) for k in range(number + 1)]
    return [list(blocks[start:end]) for start, end in pairwise(ends)]
