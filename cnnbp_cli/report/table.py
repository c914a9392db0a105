"""Tables that keep every digit at any width: texts fold, numbers stay whole, columns move as a whole.

`Table` is written line by line, so that rows can be shown as they arrive; columns that find no place leave.
`show` writes a table that is complete, and continues below with the columns that found no place above.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from cnnbp_cli.report.terminal import console, note, plain

GAP = 2
NARROWEST = 8  # columns that a folded text keeps at least

Cell = str | tuple[str, str]
"""What a cell says, alone or with a style of rich."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes
    ----------
    title : str
        May have several lines.
    leaves : int
        Where the width does not suffice, the columns with the largest number leave first, all but one; 0 stays,
        and stands in every part of a table that continues below.
    text : bool
        Words, which stand at the left and may fold, instead of numbers.
    width : int
        At least so many characters.
    folds : bool
        Texts fold before this column leaves.
    optional : bool
        Where it leaves, the table does not continue below for its sake.
    least : int
        Columns that a text keeps when it folds, as long as there is another way to fit.
    """

    title: str
    leaves: int = 0
    text: bool = False
    width: int = 0
    folds: bool = False
    optional: bool = False
    least: int = NARROWEST


class Table:
    """Columns that fit, at their widths.

    Parameters
    ----------
    columns : sequence of Column
    rows : sequence of sequence of Cell
        What decides the widths; rows that come later must not be wider.
    out : Console, optional
    """

    def __init__(
        self, columns: Sequence[Column], rows: Sequence[Sequence[Cell]] = (), out: Console | None = None
    ) -> None:
        self._out = out or console()
        self._columns = [
            replace(column, width=max([column.width, _wide(column.title), *(_wide(words(row[k])) for row in rows)]))
            for k, column in enumerate(columns)
        ]
        self._shown = list(range(len(columns)))
        while sum(self._columns[k].leaves > 0 for k in self._shown) > 1:
            next_one = max(self._shown, key=lambda k: self._columns[k].leaves)
            if self._total(folded=self._columns[next_one].folds) <= self._out.width:
                break
            self._shown.remove(next_one)
        self._fold(self._total() - self._out.width)

    @property
    def left_out(self) -> list[int]:
        """The columns that found no place."""
        return [k for k in range(len(self._columns)) if k not in self._shown]

    def note_left_out(self, *, optional: bool = False) -> None:
        """Say on standard error which columns found no place; only of the optional ones, if so asked."""
        missing = [self._columns[k] for k in self.left_out if self._columns[k].optional or not optional]
        if titles := [" ".join(column.title.split()) for column in missing]:
            note(f"no room for {', '.join(titles)}: widen the terminal, or use --format csv")

    def header(self) -> None:
        """Write the titles, the last lines level, above a rule."""
        titles = [self._columns[k].title.split("\n") for k in self._shown]
        tallest = max(map(len, titles))
        for line in range(tallest):
            texts = [title[line - tallest + len(title)] if line >= tallest - len(title) else "" for title in titles]
            self._line([(text, "bold") for text in texts])
        self.rule()

    def rule(self) -> None:
        self._print(Text("─" * self._total(), "dim"))

    def row(self, cells: Sequence[Cell], style: str = "") -> None:
        """Write a row, on several lines where a text folds."""
        lines = [
            [(part, _style(cells[k]) or style) for part in folded(words(cells[k]), self._columns[k].width)]
            if self._columns[k].text
            else [(words(cells[k]), _style(cells[k]) or style)]
            for k in self._shown
        ]
        for line in range(max(map(len, lines))):
            self._line([parts[line] if line < len(parts) else ("", "") for parts in lines])

    def _line(self, cells: Sequence[tuple[str, str]]) -> None:
        if self._out.color_system is None:  # rich takes its time, and a long network has many rows
            self._write(cells)
            return
        line = Text()
        for place, (k, (text, style)) in enumerate(zip(self._shown, cells, strict=True)):
            column = self._columns[k]
            space = " " * (column.width - cell_len(text))
            line.append(" " * GAP if place else "")
            if column.text:
                line.append(text, style).append(space)
            else:
                line.append(space).append(text, style)
        line.rstrip()
        self._print(line)

    def _write(self, cells: Sequence[tuple[str, str]]) -> None:
        texts: list[str] = []
        for k, (text, _) in zip(self._shown, cells, strict=True):
            space = " " * (self._columns[k].width - cell_len(text))
            texts.append(text + space if self._columns[k].text else space + text)
        self._out.file.write(plain((" " * GAP).join(texts).rstrip(), sys.stdout) + "\n")

    def _print(self, line: Text) -> None:
        line.plain = plain(line.plain, sys.stdout)
        self._out.print(line)

    def _total(self, *, folded: bool = False) -> int:
        """Return the columns of the whole line, texts at their least width or at their own."""
        widths = [self._least(self._columns[k]) if folded else self._columns[k].width for k in self._shown]
        return sum(widths) + GAP * (len(self._shown) - 1)

    @staticmethod
    def _least(column: Column) -> int:
        return min(column.width, max(column.least, _wide(column.title))) if column.text else column.width

    def _fold(self, excess: int) -> None:
        """Take the columns that are too many from the widest texts, first from those above their least."""
        texts = [k for k in self._shown if self._columns[k].text]
        for _ in range(max(excess, 0)):
            wide = [k for k in texts if self._columns[k].width > self._least(self._columns[k])]
            wide = wide or [k for k in texts if self._columns[k].width > max(NARROWEST, _wide(self._columns[k].title))]
            if not wide:
                return
            widest = max(wide, key=lambda k: self._columns[k].width)
            self._columns[widest] = replace(self._columns[widest], width=self._columns[widest].width - 1)


def show(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], total: Sequence[Cell] | None = None) -> None:
    """Write a whole table; what is too wide continues below, beside the columns that stay."""
    everything = [*rows, total] if total else rows
    chosen = list(range(len(columns)))
    while chosen:
        table = Table([columns[k] for k in chosen], [[row[k] for k in chosen] for row in everything])
        table.header()
        for row in rows:
            table.row([row[k] for k in chosen])
        if total:
            table.rule()
            table.row([total[k] for k in chosen], "bold")
        table.note_left_out(optional=True)
        remaining = [chosen[k] for k in table.left_out if not columns[chosen[k]].optional]
        chosen = [k for k in range(len(columns)) if k in remaining or not columns[k].leaves] if remaining else []
        if chosen:
            line()


def line(text: str = "", style: str = "") -> None:
    """Write a line of a report, as several where it is too long."""
    out = console()
    for part in textwrap.wrap(plain(text, sys.stdout), max(out.width, 20), break_long_words=False) or [""]:
        out.print(Text(part, style))


def words(cell: Cell) -> str:
    """Return what a cell says."""
    return cell if isinstance(cell, str) else cell[0]


def _style(cell: Cell) -> str:
    return "" if isinstance(cell, str) else cell[1]


def _wide(text: str) -> int:
    return max(cell_len(line) for line in text.split("\n"))


def folded(text: str, width: int) -> Iterator[str]:
    """Yield a text in parts of at most `width`, cut between words, or after `_`, `.`, `,` or `/` in a long one."""
    while cell_len(text) > width:
        cut = width
        while cell_len(text[:cut]) > width:
            cut -= 1
        between = text.rfind(" ", 0, cut + 1) + 1
        within = max(text.rfind(mark, 0, cut) for mark in "_.,/") + 1
        at = next((at for at in (between, within) if at > cut // 3), max(1, cut))
        yield text[:at].rstrip()
        text = text[at:].lstrip()
    yield text
