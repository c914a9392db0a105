"""Curves and bars out of characters, for terminals and logs: where nothing can draw, numbers still have a shape."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from rich.text import Text

from cnnbp_cli.core.types import Array
from cnnbp_cli.report.terminal import console, plain
from cnnbp_cli.report.text import count, figure

BARS = "▁▂▃▄▅▆▇█"
BAD = "×"  # NaN or infinite
NOTHING = "."  # zero, which a logarithmic scale has no place for
AXIS = 10  # columns left of a chart
WIDE_RANGE = 30  # a logarithmic scale from this ratio on


def binned(values: Sequence[float], width: int) -> Array:
    """Return at most `width` values: means over equal parts of the sequence."""
    parts = np.array_split(np.asarray(values, np.float64), min(width, len(values)))
    return np.array([part.mean() for part in parts])


def logarithms(values: Array) -> Array:
    """Return the powers of ten of magnitudes, -inf for 0."""
    with np.errstate(divide="ignore"):
        return np.log10(np.abs(values))


def sparkline(heights: Array, low: float, high: float) -> str:
    """Return a bar for every height from `low` to `high`."""
    text = ""
    for height in heights.tolist():
        if height == -np.inf:
            text += NOTHING
        elif not np.isfinite(height):
            text += BAD
        else:
            level = (height - low) / (high - low) if high > low else 0.5
            text += BARS[min(max(int(level * len(BARS)), 0), len(BARS) - 1)]
    return text


def limits(heights: Array) -> tuple[float, float]:
    """Return the least and the largest of the heights that are finite; (0, 0) without any."""
    heights = heights[np.isfinite(heights)]
    return (float(heights.min()), float(heights.max())) if heights.size else (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Series:
    """One curve.

    Attributes
    ----------
    xs, ys : sequence of float
        The xs ascending.
    mark : str
        The character that draws it.
    style : str
    connected : bool
        Between its points there is something too.
    """

    xs: Sequence[float]
    ys: Sequence[float]
    mark: str
    style: str = ""
    connected: bool = True


def chart(series: Sequence[Series], width: int, height: int = 10, x_name: str = "step") -> Iterator[Text]:
    """Yield the lines of a chart with all curves, those that come later on top.

    A column shows the mean of the values that fall into it. The scale is logarithmic where the means are
    far apart.
    """
    columns = max(width - AXIS, 10)
    first, last = min(one.xs[0] for one in series), max(one.xs[-1] for one in series)
    curves = [_resampled(one, first, last, columns) for one in series]
    low, high = limits(np.concatenate(curves))
    logarithmic = low > 0 and high / low > WIDE_RANGE
    scaled = [np.log10(curve) if logarithmic else curve for curve in curves]
    bottom, top = limits(np.concatenate(scaled))
    span, middle = top - bottom, height // 2
    grid = [[(" ", "")] * columns for _ in range(height)]
    for one, curve in zip(series, scaled, strict=True):
        for column, value in enumerate(curve.tolist()):
            if np.isfinite(value):
                row = round((top - value) / span * (height - 1)) if span else middle
                grid[row][column] = (one.mark, one.style)
    for row, cells in enumerate(grid):
        level = top - span * row / (height - 1)
        is_labeled = row in (0, middle, height - 1) if span else row == middle
        label = figure(10**level if logarithmic else level) if is_labeled else ""
        line = Text(f"{label:>{AXIS - 2}} │")
        for mark, style in cells:
            line.append(mark, style)
        line.rstrip()
        yield line
    yield Text(" " * (AXIS - 1) + "└" + "─" * columns)
    left, right = count(round(first)), count(round(last))
    scale = f"{x_name}, logarithmic scale" if logarithmic else x_name
    if len(left + scale + right) + 4 > columns:
        scale = x_name
    yield Text(" " * AXIS + left + f"{scale:^{max(columns - len(left) - len(right), 0)}}" + right)


def draw(lines: Iterable[Text]) -> None:
    """Write the lines of a chart to standard output."""
    out = console()
    for text in lines:
        text.plain = plain(text.plain, sys.stdout)
        out.print(text)


def _resampled(one: Series, first: float, last: float, columns: int) -> Array:
    """Return the curve's value for each column: the mean of what falls into it, else one in between, or NaN."""
    xs, ys = np.asarray(one.xs, np.float64), np.asarray(one.ys, np.float64)
    xs, ys = xs[np.isfinite(ys)], ys[np.isfinite(ys)]
    if not xs.size:
        return np.full(columns, np.nan)
    places = np.minimum(((xs - first) / ((last - first) or 1.0) * columns).astype(int), columns - 1)
    counts = np.bincount(places, minlength=columns)
    means = np.bincount(places, ys, columns) / np.maximum(counts, 1)
    if not one.connected:
        return np.where(counts > 0, means, np.nan)
    known = np.flatnonzero(counts)
    return np.interp(np.arange(columns), known, means[known], np.nan, np.nan)
