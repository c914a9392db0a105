"""What the place that a report is written to can show: how many columns, which characters, which colors."""

from __future__ import annotations

import codecs
import os
import sys
from typing import TYPE_CHECKING, Literal, TextIO

if TYPE_CHECKING:
    from rich.console import Console

ASCII = str.maketrans(
    {
        "×": "x",
        "→": "->",
        "←": "<-",
        "…": "...",
        "─": "-",
        "·": "*",
        "−": "-",
        "–": "-",
        "≥": ">=",
        "σ": "std",
        "Σ": "sum",
        "√": "sqrt",
        "²": "^2",
        "³": "^3",
        "π": "pi",
        "\N{COMBINING CIRCUMFLEX ACCENT}": "hat",
        "η": "rate",
        "\N{NO-BREAK SPACE}": " ",
    }
    | dict(zip("▁▂▃▄▅▆▇█•│└┬┤", "_.:-=+*#*|+++", strict=True))
)
"""Stand-ins where the encoding is not Unicode."""

READABLE = {
    **{"magenta": "color(134)", "blue": "color(33)", "cyan": "color(30)"},
    **{"green": "color(28)", "yellow": "color(136)", "red": "color(196)"},
}
"""Colors that can be read on white and on black, where a terminal has 256; its own are often too light or too dark."""

LONGEST = 2000  # characters of a line of a message
WIDEST = 200  # in a file, which has no width of its own
HEIGHT = 25  # which nothing depends on; without one, rich takes TERM=dumb to be 80 columns wide


def width() -> int:
    """Return the columns to write in: `COLUMNS`, else the terminal's, else many."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdigit() and int(columns) > 0:
        return int(columns)
    for stream in (sys.__stdout__, sys.__stderr__, sys.__stdin__):
        try:
            return os.get_terminal_size(stream.fileno()).columns or WIDEST  # type: ignore[union-attr]
        except (AttributeError, OSError, ValueError):
            continue
    return WIDEST


def is_unicode(stream: TextIO) -> bool:
    """Return whether the stream's encoding has every character."""
    return (getattr(stream, "encoding", None) or "ascii").lower().replace("-", "").startswith("utf")


def plain(text: str, stream: TextIO) -> str:
    """Return the text for people: without endless lines, and without characters that the stream may not have.

    Names of files may hold what a terminal obeys; such characters are written as escapes.
    """
    if len(text) <= LONGEST and text.isprintable():
        return text if is_unicode(stream) else text.translate(ASCII)
    lines = (line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…" for line in text.split("\n"))
    text = "\n".join("".join(c if c.isprintable() or c == "\xa0" else ascii(c)[1:-1] for c in line) for line in lines)
    return text if is_unicode(stream) else text.translate(ASCII)


def never_fail_to_encode(*streams: TextIO) -> None:
    """Let streams write stand-ins, or escapes, for what they cannot encode: a layer's name may be in any script."""
    codecs.register_error("stand-in", _stand_in)
    for stream in streams:
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="stand-in")


def _stand_in(error: UnicodeError) -> tuple[str | bytes, int]:
    if isinstance(error, UnicodeEncodeError):
        character = error.object[error.start]
        return ASCII.get(ord(character), character.encode("ascii", "backslashreplace").decode()), error.start + 1
    raise error


def complaint(error: Exception | str) -> str:
    """Return an error as one message; problems that have a place in a file start with it, as a compiler's do."""
    placed = any(problem.span is not None for problem in getattr(error, "problems", ()))
    return folded(plain(str(error) if placed else f"error: {error}", sys.stderr), sys.stderr)


def note(text: str) -> None:
    """Write a remark that is no result to standard error."""
    print(folded(plain(text, sys.stderr), sys.stderr), file=sys.stderr, flush=True)


def folded(text: str, stream: TextIO) -> str:
    """Return sentences folded between words where the stream is a terminal, which would cut them anywhere.

    A command between backquotes stays on one line if it has one, to be copied; so do lines that are indented, which
    quote a file.
    """
    columns = width()
    if len(text) <= columns or not stream.isatty():
        return text
    import re
    import textwrap

    glue = "\N{NO-BREAK SPACE}"
    lines: list[str] = []
    for line in text.split("\n"):
        whole = re.sub(r"`[^`]+`", lambda command: command[0].replace(" ", glue), line)
        fits = len(line) <= columns or line.startswith(" ")
        folds = [line] if fits else textwrap.wrap(whole, columns, break_long_words=False, break_on_hyphens=False)
        lines += [part.replace(glue, " ") for part in folds]
    return "\n".join(lines)


def console(stream: TextIO | None = None) -> Console:
    """Return a rich console for a stream, by default standard output: colors only where a person reads them."""
    from rich.console import Console

    class Terminal(Console):
        def on_broken_pipe(self) -> None:
            raise  # rich would leave with code 1, which is a verdict here

    stream = stream or sys.stdout
    colors: Literal["auto"] | None = None if os.environ.get("NO_COLOR") else "auto"
    out = Terminal(
        file=stream,
        width=width(),
        height=HEIGHT,
        color_system=colors,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=True,
    )
    if out.color_system in ("256", "truecolor"):
        from rich.theme import Theme

        out.push_theme(Theme(READABLE, inherit=False))
    return out
