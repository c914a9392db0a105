"""Lines of a trace: folded with a hanging indent, and arrays as matrices."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator, Sequence

import numpy as np
from rich.text import Text

from cnnbp_cli.core.types import Array
from cnnbp_cli.report.terminal import console, plain
from cnnbp_cli.report.trace.numerals import Numerals

VALUES, GRADIENTS = "blue", "magenta"
GLUE = "\N{NO-BREAK SPACE}"
"""A space at which no line is folded."""
INDENT = 2
NARROWEST, WIDEST = 20, 120


def write(text: str = "", style: str = "", level: int = 0) -> None:
    """Write a line; what is too long goes on below, further to the right."""
    out, indent = console(), " " * INDENT * level
    parts = textwrap.wrap(
        GLUE.join(plain(part, sys.stdout) for part in text.split(GLUE)),
        max(min(out.width, WIDEST), NARROWEST),
        initial_indent=indent,
        subsequent_indent=indent + " " * 2 * INDENT,
        break_on_hyphens=False,
    )
    for part in parts or [""]:
        out.print(Text(part.replace(GLUE, " "), style))


def matrices(title: str, array: Array, numerals: Numerals, style: str, level: int = 1) -> None:
    """Write an array as matrices, as many side by side as there is room for; a vector goes on below."""
    room = max(console().width - INDENT * level, NARROWEST)
    texts, unit, gap = _fitting(array, numerals, room)
    if title or unit:
        write(", ".join(filter(None, [title, unit and f"times {unit}"])), "dim", level)
    for line, is_title in _vector(texts, gap, room) if array.ndim == 1 else _side_by_side(array, texts, gap, room):
        write_as_is(" " * INDENT * level + line, "dim" if is_title else style)


def write_as_is(line: str, style: str = "") -> None:
    console().print(Text(plain(line.rstrip(), sys.stdout), style))


def _fitting(array: Array, numerals: Numerals, room: int) -> tuple[list[str], str, int]:
    """Return the numbers, their unit and the gap between columns: with fewer digits where that saves a fold."""
    digits = numerals.digits
    fewer = [] if numerals.exact else range(digits - 1, 2, -1)
    for few, gap in [(digits, 2), *((few, 2) for few in fewer), (min(digits, 3) if fewer else digits, 1)]:
        texts, unit = Numerals(few, numerals.exact).column(array)
        if array.ndim == 1 or array.shape[-1] * (_widest(texts) + gap) - gap <= room:
            return texts, unit, gap
    return *numerals.column(array), 2


def _vector(texts: Sequence[str], gap: int, room: int) -> Iterator[tuple[str, bool]]:
    wide = _widest(texts)
    across = max(1, (room + gap) // (wide + gap))
    for start in range(0, len(texts), across):
        yield _row(texts[start : start + across], wide, gap), False


def _side_by_side(array: Array, texts: Sequence[str], gap: int, room: int) -> Iterator[tuple[str, bool]]:
    """Yield the lines of matrices, each under its index; columns that are too many for one line go on below."""
    *leading, h, w = array.shape
    wide = _widest(texts)
    across = min(w, max(1, (room + gap) // (wide + gap)))
    pieces: list[tuple[str, list[str]]] = []
    for k, index in enumerate(np.ndindex(*leading)):
        rows = [texts[(k * h + r) * w : (k * h + r + 1) * w] for r in range(h)]
        for start in range(0, w, across):
            stop = min(start + across, w)
            name = f"[{','.join(map(str, index))}]" if np.prod(leading) > 1 else ""
            name += f"{' ' * bool(name)}columns {start} to {stop - 1}" if across < w else ""
            pieces.append((name, [_row(row[start:stop], wide, gap) for row in rows]))
    widest = max(len(text) for name, rows in pieces for text in (name, *rows))
    beside = max(1, (room + 4) // (widest + 4))
    for start in range(0, len(pieces), beside):
        some = pieces[start : start + beside]
        if any(name for name, _ in some):
            yield "    ".join(name.ljust(widest) for name, _ in some), True
        for r in range(h):
            yield "    ".join(rows[r].ljust(widest) for _, rows in some), False


def _row(texts: Sequence[str], wide: int, gap: int) -> str:
    return (" " * gap).join(text.rjust(wide) for text in texts)


def _widest(texts: Sequence[str]) -> int:
    return max(map(len, texts))
