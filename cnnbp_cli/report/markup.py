"""Reports as people paste them: tables of GitHub's Markdown, and LaTeX with booktabs.

`sheet` gives the place that a report is written to. On a terminal it is `report.table`, which fits columns to the
width; markup needs no width, so there a table is always whole.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from typing import Protocol

from cnnbp_cli.report import table
from cnnbp_cli.report.table import Cell, Column, words


class Sheet(Protocol):
    """Where a report is written, line by line and table by table."""

    draws: bool
    """Whether curves of characters have a place here."""

    def line(self, text: str = "", style: str = "") -> None: ...
    def show(
        self, columns: Sequence[Column], rows: Sequence[Sequence[Cell]], total: Sequence[Cell] | None = None
    ) -> None: ...


def sheet(format: str) -> Sheet:
    """Return the place that suits a format: `markdown`, `latex`, or anything else for a terminal."""
    return Markdown() if format == "markdown" else Latex() if format == "latex" else Screen()


class Screen:
    """A terminal, or what is read like one."""

    draws = True

    def line(self, text: str = "", style: str = "") -> None:
        table.line(text, style)

    def show(
        self, columns: Sequence[Column], rows: Sequence[Sequence[Cell]], total: Sequence[Cell] | None = None
    ) -> None:
        table.show(columns, rows, total)


class Markdown:
    """Paragraphs and tables, with an empty line between them; numbers stand at the right."""

    draws = False

    def __init__(self) -> None:
        self._begun = False

    def line(self, text: str = "", style: str = "") -> None:
        if text:
            escaped = markdown(text)
            self._block([f"**{escaped}**" if "bold" in style else escaped])

    def show(
        self, columns: Sequence[Column], rows: Sequence[Sequence[Cell]], total: Sequence[Cell] | None = None
    ) -> None:
        texts = [[markdown(_title(column)) for column in columns]]
        texts += [[markdown(words(cell)) for cell in row] for row in rows]
        if total:
            texts.append([f"**{markdown(words(cell))}**" if words(cell) else "" for cell in total])
        widths = [max(3, *(len(row[k]) for row in texts)) for k in range(len(columns))]
        rules = ["-" * width if columns[k].text else "-" * (width - 1) + ":" for k, width in enumerate(widths)]
        self._block(
            "| " + " | ".join(_padded(text, widths[k], columns[k]) for k, text in enumerate(row)) + " |"
            for row in [texts[0], rules, *texts[1:]]
        )

    def _block(self, lines: Iterable[str]) -> None:
        _write([*([""] if self._begun else []), *lines])
        self._begun = True


class Latex:
    r"""Paragraphs and `tabular`s that go into a document with ``\usepackage{booktabs}``."""

    draws = False

    def __init__(self) -> None:
        _write([r"% needs \usepackage{booktabs}"])

    def line(self, text: str = "", style: str = "") -> None:
        if text:
            escaped = latex(text)
            _write(["", rf"\textbf{{{escaped}}}" if "bold" in style else escaped])

    def show(
        self, columns: Sequence[Column], rows: Sequence[Sequence[Cell]], total: Sequence[Cell] | None = None
    ) -> None:
        def cells(row: Sequence[Cell]) -> list[str]:
            return [_entry(words(cell), column) for cell, column in zip(row, columns, strict=True)]

        body = [cells(row) for row in rows]
        last = [rf"\textbf{{{text}}}" if text else "" for text in cells(total)] if total else None
        head = [latex(_title(column)) for column in columns]
        widths = [max(len(row[k]) for row in [head, *body, *([last] if last else [])]) for k in range(len(columns))]

        def written(row: Sequence[str]) -> str:
            padded = (_padded(text, widths[k], columns[k]) for k, text in enumerate(row))
            return "  " + " & ".join(padded).rstrip() + r" \\"

        _write(
            [
                "",
                rf"\begin{{tabular}}{{{''.join('l' if column.text else 'r' for column in columns)}}}",
                r"  \toprule",
                written(head),
                r"  \midrule",
                *map(written, body),
                *([r"  \midrule", written(last)] if last else []),
                r"  \bottomrule",
                r"\end{tabular}",
            ]
        )


def markdown(text: str) -> str:
    """Escape what Markdown takes for markup: `conv_1` stays, as GitHub leaves a line inside a word alone."""
    text = re.sub(r"([\\`*\[\]<>|~])", r"\\\1", _single(text))
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\_", text)


LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "×": r"$\times$",
    "→": r"$\to$",
    "←": r"$\gets$",
    "…": r"\dots{}",
    "−": "$-$",
    "–": "--",
    "─": "--",
    "·": r"$\cdot$",
    "≥": r"$\geq$",
    "σ": r"$\sigma$",
    "Σ": r"$\Sigma$",
    "√": r"$\surd$",
    "²": r"$^2$",
    "³": r"$^3$",
    "π": r"$\pi$",
    "\N{NO-BREAK SPACE}": "~",
}


def latex(text: str) -> str:
    """Escape what LaTeX takes for a command, and write the signs that its fonts lack as mathematics."""
    escaped = "".join(LATEX.get(character, character) for character in _single(text))
    return escaped.replace(r"\textquotedbl{}", "''")  # which every encoding of fonts has


def _entry(text: str, column: Column) -> str:
    """Return a cell for LaTeX: numbers as mathematics where they have a sign or a power of ten."""
    if not column.text and re.fullmatch(r"-?[\d,.]+(e[+-]\d+)?", text) and ("-" in text or "e" in text):
        mantissa, _, power = text.partition("e")
        return f"${mantissa.replace(',', '{,}')}" + (rf" \times 10^{{{int(power)}}}$" if power else "$")
    return latex(text)


def _title(column: Column) -> str:
    return column.title.replace("\n", "" if column.title.split("\n")[0].endswith("_") else " ")


def _single(text: str) -> str:
    """Return a text on one line, without what is not printable."""
    return "".join(c if c.isprintable() or c == "\xa0" else " " for c in text)


def _padded(text: str, width: int, column: Column) -> str:
    return text.ljust(width) if column.text else text.rjust(width)


def _write(lines: Iterable[str]) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
