"""Complaints about a config, rendered like a compiler's: the place, the reason, the line and a caret.

A config is wrong in several places as often as in one, so problems are collected and shown together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cnnbp_cli.errors import UserError

WIDTH = 96  # columns of an offending line that are shown
MOST_OPTIONS = 40  # words that are listed where none is close to the unknown one
SHOWN = 20  # problems that are rendered; a file with more is of another kind altogether
MOST_PROBLEMS = 200  # that are looked for; finding what was meant takes its time
MOST_USES = 4  # of blocks in each other, around a fault, that are shown
LONGEST = 1000  # characters of a message: what it quotes may be of any length

LONGEST_WORD, MOST_WORDS = 40, 500  # beyond, nobody means a word, and the search takes long

LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
"""Where the YAML parser counts a new line."""

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """A text that config values come from: the file, one override, or a file of overrides.

    Attributes
    ----------
    label : str
        What messages call it.
    text : str
        The whole text, for the lines that are shown.
    folder : Path
        What relative paths in it are relative to.
    order : int
        Problems are sorted by it: 0 for the file, then the overrides from left to right.
    option : str
        The option that brought it, where it stands on the command line itself: ``--set``, or a short one such as
        ``--lr``, after which the value stands alone.
    """

    label: str
    text: str
    folder: Path = field(default_factory=Path)
    order: int = 0
    option: str = ""

    @property
    def is_option(self) -> bool:
        return bool(self.option)

    @property
    def typed(self) -> tuple[str, int]:
        """The text as it was typed after the option, and how many characters of `text` that leaves out."""
        left_out = 0 if self.option in ("", "--set") else self.text.find("=") + 1
        return self.text[left_out:], left_out

    def line(self, number: int) -> str:
        """Return the 0-based line as the parser counts lines, or nothing past the end."""
        lines = LINE_BREAK.split(self.text)
        return lines[number] if number < len(lines) else ""


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of one line of a source, 0-based.

    Attributes
    ----------
    source : Source
    line, column : int
    end : int
        The column after its last character.
    via : Span or None
        For what stands in a block, where the block is used; for the value of a block's parameter, where the block uses
        it. It does not tell spans apart: what is wrong with a block is so at each of its uses.
    """

    source: Source
    line: int
    column: int
    end: int
    via: Span | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Problem:
    """One complaint.

    Attributes
    ----------
    message : str
        What is wrong and what was expected.
    path : tuple of str and int
        The place in the config, such as ``("model", "layers", 3, "filters")``.
    span : Span or None
        The place in the text; None when the config was not made from text.
    label : str
        The key that the message is about, where it does not name it itself.
    """

    message: str
    path: KeyPath = ()
    span: Span | None = None
    label: str = ""

    @property
    def file(self) -> str | None:
        return self.span.source.label if self.span else None

    @property
    def line(self) -> int | None:
        """The line, counted from 1."""
        return self.span.line + 1 if self.span else None

    @property
    def column(self) -> int | None:
        """The column, counted from 1."""
        return self.span.column + 1 if self.span else None

    @property
    def used_at(self) -> list[Span]:
        """Where the block is used, or the parameter, in which the place lies: the innermost use first."""
        places: list[Span] = []
        place = self.span.via if self.span else None
        while place is not None:
            places.append(place)
            place = place.via
        return places

    def __str__(self) -> str:
        if self.span is None:
            place = dotted(self.path)
            return _clip(f"{place}: {self.message}" if place else self.message, LONGEST)
        message = _clip(f"{self.label}: {self.message}" if self.label else self.message, LONGEST)
        texts = [_excerpt(self.span, message)]
        texts += [_excerpt(place, "used here") for place in self.used_at[:MOST_USES]]
        return "\n".join(texts)


class ConfigError(UserError):
    """A config that cannot be used.

    Attributes
    ----------
    problems : list of Problem
        Everything that is wrong with it, in the order of the text.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        # A value that aliases or blocks repeat is wrong at several places in the config, but at one in the text.
        unique: dict[object, Problem] = {}
        for problem in problems:
            unique.setdefault((problem.span or problem.path, problem.label, problem.message), problem)
        self.problems = sorted(unique.values(), key=_place)
        super().__init__(str(self))

    def __str__(self) -> str:
        count = len(self.problems)
        texts = [str(problem) for problem in self.problems[:SHOWN]]
        if count > SHOWN:
            more = "more than " if count > MOST_PROBLEMS else ""
            texts.append(f"{more}{min(count, MOST_PROBLEMS)} problems, the first {SHOWN} shown")
        elif count > 1:
            texts.append(f"{count} problems")
        return "\n".join(texts)


def _excerpt(span: Span, message: str) -> str:
    """Write a place, what there is to say about it, its line and a caret."""
    source, number = span.source, span.line + 1
    left_out = source.typed[1] if span.line == 0 else 0
    one_line_override = source.is_option and not source.line(1)
    place = f"{span.column + 1}" if one_line_override else f"{number}:{span.column + 1}"
    place = "" if left_out and one_line_override else f":{place}"
    columns = max(span.column - left_out, 0), max(span.end - left_out, 1)
    shown, column, end = _window(source.line(span.line)[left_out:], *columns)
    if source.is_option:
        start = f"  {source.option} "
        rows = [start + shown if span.line == 0 else " " * len(start) + shown, " " * len(start)]
    else:
        rows = [f"  {number} | {shown}", f"  {' ' * len(str(number))} | "]
    caret = " " * column + "^" * max(1, end - column)
    return f"{_clip(source.label)}{place}: {message}\n{rows[0]}".rstrip() + f"\n{rows[1]}{caret}"


def _place(problem: Problem) -> tuple[int, int, int]:
    span = problem.span
    return (span.source.order, span.line, span.column) if span else (-1, 0, 0)


def _window(line: str, column: int, end: int) -> tuple[str, int, int]:
    """Return the part of a long line around the span, and the span's columns in it."""
    line = "".join(c if c.isprintable() else " " for c in line)
    end = min(end, max(len(line), column + 1))
    if len(line) <= WIDTH:
        return line, column, end
    start = max(0, min(column - WIDTH // 3, len(line) - WIDTH))
    shown = line[start : start + WIDTH]
    if start > 0:
        shown = "…" + shown[1:]
    if start + WIDTH < len(line):
        shown = shown[:-1] + "…"
    return shown, column - start, min(end - start, WIDTH)


def _clip(text: str, width: int = WIDTH) -> str:
    text = "".join(c if c.isprintable() else " " for c in text[: width + 1])
    return text if len(text) <= width else text[: width - 1] + "…"


def dotted(path: KeyPath) -> str:
    """Write a path as people do: ``model.layers[3].filters``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


SYNONYMS = {
    **dict.fromkeys(("lr", "eta", "rate"), "learning_rate"),
    **dict.fromkeys(("max_lr", "lr_max"), "max_learning_rate"),
    **dict.fromkeys(("wd", "l2", "decay"), "weight_decay"),
    **dict.fromkeys(("bs", "batch"), "batch_size"),
    **dict.fromkeys(("out_channels", "channels", "out_planes"), "filters"),
    **dict.fromkeys(("out_features", "neurons", "size"), "units"),
    **dict.fromkeys(("kernel", "ksize", "filter_size"), "kernel_size"),
    **dict.fromkeys(("pool", "window"), "pool_size"),
    **dict.fromkeys(("linear", "fc", "fully_connected"), "dense"),
    **dict.fromkeys(("bn", "batchnorm", "batchnorm2d", "batch_normalization"), "batch_norm"),
    **dict.fromkeys(("swish",), "silu"),
    **dict.fromkeys(("eps",), "epsilon"),
    **dict.fromkeys(("beta", "beta1", "beta_1"), "betas"),
    **dict.fromkeys(("p", "prob", "probability"), "rate"),
    **dict.fromkeys(("negative_slope",), "slope"),
    **dict.fromkeys(("num_groups",), "groups"),
    **dict.fromkeys(("steps", "iterations", "max_iter"), "max_steps"),
    **dict.fromkeys(("input_shape", "input_size"), "input"),
    **dict.fromkeys(("xavier", "xavier_normal", "glorot"), "glorot_normal"),
    **dict.fromkeys(("kaiming", "kaiming_normal", "he"), "he_normal"),
    **dict.fromkeys(("crossentropy", "nll", "categorical_crossentropy"), "cross_entropy"),
    **dict.fromkeys(("bce", "binary_crossentropy"), "binary_cross_entropy"),
    **dict.fromkeys(("l2_loss", "mean_squared_error"), "mse"),
}
"""What other frameworks, and people in a hurry, call the words of this format."""


def closest(word: str, options: Sequence[str]) -> str | None:
    """Return the option that was probably meant, if one is close."""
    from difflib import get_close_matches  # only a config with faults needs it

    if len(word) > LONGEST_WORD or len(options) > MOST_WORDS:
        return None

    if (meant := SYNONYMS.get(word.lower())) in options:
        return meant
    close = get_close_matches(word, options, n=1) or get_close_matches(word.lower(), options, n=1)
    return close[0] if close else None


def suggestion(word: str, options: Sequence[str]) -> str:
    """Return the end of a message about an unknown word: the option that was meant, or all there are."""
    if close := closest(word, options):
        return f", did you mean '{close}'?"
    more = ", …" if len(options) > MOST_OPTIONS else ""
    return f", expected one of: {', '.join(options[:MOST_OPTIONS])}{more}" if options else ""
