"""What a sweep runs: overrides that offer several values are axes, and a point has one value of each.

`KEY=A,B,C` lists values, as YAML, cut at the commas that are in no brackets and no quotes. `KEY=uniform(LOW..HIGH)`,
`KEY=log(LOW..HIGH)` and `KEY=int(LOW..HIGH)` are ranges to draw from. Anything else is an ordinary override.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import yaml

from cnnbp_cli.config.errors import ConfigError, Problem, Source, Span
from cnnbp_cli.config.nodes import resolve, to_python
from cnnbp_cli.config.overrides import Setting, read_setting, source_of
from cnnbp_cli.core.rng import generator

MOST_RUNS = 10_000

_RANGE = re.compile(r"\s*(log|uniform|int)\s*\(")
_WHOLE_RANGE = re.compile(r"\s*\w+\s*\((.+?)\.\.(.+)\)\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Choices:
    """An axis with listed values.

    Attributes
    ----------
    key : str
        Such as ``train.batch_size``.
    settings : tuple of Setting
        Where each of them stands.
    values : tuple
        What each of them is.
    """

    key: str
    settings: tuple[Setting, ...]
    values: tuple[Any, ...]

    @property
    def text(self) -> str:
        return self.settings[0].text

    @property
    def size(self) -> int | None:
        """How many values there are."""
        return len(self.values)

    def draw(self, uniform: float) -> Any:
        """Return the value at a place in [0, 1)."""
        return self.values[int(uniform * len(self.values))]

    def setting(self, value: Any) -> Setting:
        return self.settings[[*map(repr, self.values)].index(repr(value))]  # 1, 1.0 and true are equal


@dataclass(frozen=True, slots=True)
class Range:
    """An axis with all numbers between two ends, both included.

    Attributes
    ----------
    key : str
    whole : Setting
        Where the range stands.
    kind : {"uniform", "log", "int"}
        ``log``: the logarithm is uniform.
    low, high : float or int
    """

    key: str
    whole: Setting
    kind: str
    low: float
    high: float

    @property
    def text(self) -> str:
        return self.whole.text

    @property
    def size(self) -> int | None:
        """How many values there are; None for so many that no two draws are equal."""
        return int(self.high) - int(self.low) + 1 if self.kind == "int" else None

    @property
    def values(self) -> Sequence[int]:
        """All of them, of a range of integers."""
        return range(int(self.low), int(self.high) + 1)

    def draw(self, uniform: float) -> float:
        """Return the value at a place in [0, 1), floats with four digits: what a table shows is what was used."""
        if self.kind == "int":
            return int(self.low) + int(uniform * len(self.values))
        if self.kind == "log":
            value = math.exp(math.log(self.low) + uniform * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + uniform * (self.high - self.low)
        return self.rounded(value)

    def rounded(self, value: float) -> float:
        """Return a value with four digits of it, or of the range's width where that is smaller."""
        finest = min(abs(value) or math.inf, self.high - self.low)
        return min(max(round(value, 3 - math.floor(math.log10(finest))), self.low), self.high)

    def setting(self, value: Any) -> Setting:
        return replace(self.whole, drawn=value)


Axis = Choices | Range
Values = tuple[Any, ...]
"""One value for each axis."""


@dataclass(frozen=True, slots=True)
class Space:
    """All overrides of a sweep, in their order.

    Attributes
    ----------
    parts : tuple of str, Choices or Range
        Ordinary overrides, and axes.
    """

    parts: tuple[str | Axis, ...]

    @property
    def axes(self) -> list[Axis]:
        return [part for part in self.parts if not isinstance(part, str)]

    @property
    def size(self) -> int | None:
        """How many points there are; None with a range of floats."""
        sizes = [axis.size for axis in self.axes]
        return None if None in sizes else math.prod(size for size in sizes if size is not None)

    def grid(self) -> list[Values]:
        """Return all points, the last axis varying fastest."""
        return [*itertools.product(*(axis.values for axis in self.axes))]

    def sample(self, count: int, seed: int) -> list[Values]:
        """Return `count` points, no two the same; all there are where that is not more."""
        if self.size is not None and self.size <= count:
            return self.grid()
        rng = generator(seed, "sweep")
        drawn: dict[str, Values] = {}
        while len(drawn) < count:
            values = tuple(axis.draw(float(rng.random())) for axis in self.axes)
            drawn[repr(values) if self.size is not None else str(len(drawn))] = values
        return [*drawn.values()]

    def settings(self, values: Values) -> list[str | Setting]:
        """Return the overrides of one point."""
        value = iter(values)
        return [part if isinstance(part, str) else part.setting(next(value)) for part in self.parts]

    def named(self, values: Values) -> dict[str, Any]:
        """Return a point by its keys."""
        return {axis.key: value for axis, value in zip(self.axes, values, strict=True)}


def read_space(overrides: Sequence[str], *, sampling: bool) -> Space:
    """Read the overrides of a sweep.

    Parameters
    ----------
    overrides : sequence of str
    sampling : bool
        Whether points are drawn; if not, ranges are refused.

    Raises
    ------
    ConfigError
        With everything that is wrong, each at its place.
    """
    parts: list[str | Axis] = []
    problems: list[Problem] = []
    for order, text in enumerate(overrides, 1):
        reader = _Reader(source_of(text, order=order))
        try:
            parts.append(reader.part(sampling))
            reader.refuse_repetition(parts)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    space = Space(tuple(parts))
    if not sampling and (space.size or 0) > MOST_RUNS:
        last = source_of(overrides[-1], order=len(overrides))
        message = f"makes it {space.size:,} runs, more than {MOST_RUNS:,}: draw some of them with --samples"
        raise ConfigError([Problem(message, span=Span(last, 0, 0, len(overrides[-1])))])
    return space


class _Reader:
    """Reads one override."""

    def __init__(self, source: Source) -> None:
        self._source, self._text = source, source.text

    def part(self, sampling: bool) -> str | Axis:
        text = self._text
        key, equals, _ = text.partition("=")
        start = len(key) + 1
        if not equals:
            return text
        if match := _RANGE.match(text, start):
            axis = self._range(key, start, match[1])
            if not sampling:
                self._stop("a range needs --samples N, the number of points to draw", start, len(text))
            return axis
        cuts = commas(text[start:])
        if not cuts:
            return text
        edges = [start - 1, *(start + cut for cut in cuts), len(text)]
        settings = [Setting(text, left + 1, right) for left, right in itertools.pairwise(edges)]
        return Choices(key, tuple(settings), tuple(self._values(settings)))

    def _values(self, settings: Sequence[Setting]) -> Iterator[Any]:
        seen: set[str] = set()
        for setting in settings:
            words = self._text[setting.start : setting.end]
            if not words.strip():
                self._stop("expected a value between the commas; nothing is written null", setting.start, setting.end)
            problems: list[Problem] = []
            value = to_python(read_setting(setting, self._source, problems))
            if problems:
                raise ConfigError(problems)
            if repr(value) in seen:
                self._stop(f"the value {words.strip()} is there twice", setting.start, setting.end)
            seen.add(repr(value))
            yield value

    def _range(self, key: str, start: int, kind: str) -> Range:
        text = self._text
        match = _WHOLE_RANGE.fullmatch(text, start)
        if not match:
            self._stop(f"expected a range, {kind}(LOW..HIGH)", start, len(text))
        ends = [resolve(match[k].strip()) for k in (1, 2)]
        for k, end in enumerate(ends, 1):
            is_number = isinstance(end, int) if kind == "int" else isinstance(end, int | float) and math.isfinite(end)
            if not is_number or isinstance(end, bool):
                wanted = "an integer" if kind == "int" else "a number"
                self._stop(f"expected {wanted}, got {match[k].strip()!r}", match.start(k), match.end(k))
        low, high = (end if isinstance(end, int | float) else 0 for end in ends)
        if kind == "log" and low <= 0:
            self._stop("a logarithmic range begins above 0", match.start(1), match.end(1))
        if low >= high:
            self._stop("the high end is not above the low one", match.start(2), match.end(2))
        return Range(key, Setting(text, start, len(text)), kind, low, high)

    def refuse_repetition(self, parts: Sequence[str | Axis]) -> None:
        """Complain when the last part and one before it set the same key, and one of the two is an axis."""

        def key(part: str | Axis) -> str:
            return part.partition("=")[0] if isinstance(part, str) else part.key

        *before, last = parts
        for part in before:
            if key(part) == key(last) and not (isinstance(part, str) and isinstance(last, str)):
                also = source_of(part if isinstance(part, str) else part.text).label
                self._stop(f"{key(last)} is set twice; {also} sets it, too", 0, len(key(last)))

    def _stop(self, message: str, start: int, end: int) -> NoReturn:
        raise ConfigError([Problem(message, span=Span(self._source, 0, start, max(end, start + 1)))])


def commas(text: str) -> list[int]:
    """Return where the commas are that stand in no brackets, no quotes and no comment, as YAML reads a list."""
    depth, places = 0, list[int]()
    try:
        for token in yaml.scan(f"[{text}]", Loader=yaml.SafeLoader):
            if isinstance(token, yaml.FlowSequenceStartToken | yaml.FlowMappingStartToken):
                depth += 1
            elif isinstance(token, yaml.FlowSequenceEndToken | yaml.FlowMappingEndToken):
                depth -= 1
            elif isinstance(token, yaml.FlowEntryToken) and depth == 1:
                places.append(token.start_mark.index - 1)
    except yaml.YAMLError:
        return []  # one value, which is complained about where it is read
    return places
