"""Curves and bars out of characters, for terminals and logs: where nothing can draw, numbers still have a shape."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

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


def chart(
    series: Sequence[Series],
    width: int,
    height: int = 11,
    *,
    title: str = "",
    x_name: str = "step",
    from_zero: bool = False,
) -> Iterator[Text]:
    """Yield the lines of a chart with all curves, those that come later on top.

    A column shows the mean of the values that fall into it. The axis of the values is logarithmic where the means are
    far apart, which the title then says; with `from_zero` it is linear and begins at 0. The values beside the axis are
    round.
    """
    columns = max(width - AXIS, 10)
    first, last = min(one.xs[0] for one in series), max(one.xs[-1] for one in series)
    curves = [_resampled(one, first, last, columns) for one in series]
    low, high = limits(np.concatenate(curves))
    logarithmic = not from_zero and low > 0 and high / low > WIDE_RANGE
    ticks = log_ticks(low, high) if logarithmic else round_ticks(0.0 if from_zero else low, high, height // 2)
    scaled = [np.log10(curve) if logarithmic else curve for curve in curves]
    marks = np.log10(ticks).tolist() if logarithmic else ticks
    bottom, top = (marks[0], marks[-1]) if len(marks) > 1 else (low, high)
    span, middle = top - bottom, height // 2

    def row_of(value: float) -> int:
        return round((top - value) / span * (height - 1)) if span else middle

    grid = [[(" ", "")] * columns for _ in range(height)]
    for one, curve in zip(series, scaled, strict=True):
        for column, value in enumerate(curve.tolist()):
            if np.isfinite(value):
                grid[row_of(value)][column] = (one.mark, one.style)
    labels = {row_of(mark): words for mark, words in zip(marks, tick_labels(ticks), strict=True)}
    if title:
        whole = f"{title}, logarithmic scale" if logarithmic else title
        for part in textwrap.wrap(whole, max(width, 20)):
            yield Text(part, "bold")
    for row, cells in enumerate(grid):
        line = Text(f"{labels.get(row, ''):>{AXIS - 2}} {'┤' if row in labels else '│'}")
        for mark, style in cells:
            line.append(mark, style)
        line.rstrip()
        yield line
    yield from _x_axis(first, last, columns, x_name)


def _x_axis(first: float, last: float, columns: int, name: str) -> Iterator[Text]:
    """Yield the axis with round numbers of steps below it, and what is counted at the right end of them."""
    span = (last - first) or 1.0
    axis, labels = ["─"] * columns, [" "] * columns
    room, free = columns - len(name) - 2, 0
    wanted = max(min(columns // 12, 8), 2)
    for tick in round_ticks(first, last, wanted, whole=True):
        if not first <= tick <= last:
            continue
        at, words = min(int((tick - first) / span * columns), columns - 1), count(round(tick))
        begin = max(at - len(words) // 2, 0)
        if begin >= free and begin + len(words) <= room:
            axis[at] = "┬"
            labels[begin : begin + len(words)] = words
            free = begin + len(words) + 1
    labels[columns - len(name) :] = name
    yield Text(" " * (AXIS - 1) + "└" + "".join(axis))
    yield Text(" " * AXIS + "".join(labels))


def round_ticks(low: float, high: float, wanted: int, *, whole: bool = False) -> list[float]:
    """Return about `wanted` multiples of 1, 2 or 5 times a power of ten, from `low` or below to `high` or above.

    One number alone where both are the same, to nine digits.
    """
    if not high - low > 1e-9 * max(abs(high), abs(low)):
        return [low]
    rough = (high - low) / wanted
    power = 10.0 ** floor(log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    step = max(step, 1.0) if whole else step
    return [float(f"{k * step:.12g}") for k in range(floor(low / step + 1e-9), ceil(high / step - 1e-9) + 1)]


def log_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return 1, 2 or 5 times powers of ten, or powers of ten alone, from `low` or below to `high` or above."""
    for factors in ((1, 2, 5), (1, 3), (1,)):
        every = [float(f"{factor}e{k}") for k in range(floor(log10(low)), ceil(log10(high)) + 1) for factor in factors]
        begin = max(k for k, tick in enumerate(every) if tick <= low * 1.001 or k == 0)
        end = min(k for k, tick in enumerate(every) if tick >= high * 0.999 or k == len(every) - 1)
        ticks = every[begin : end + 1]
        if len(ticks) <= most:
            return ticks
    stride = -(-(len(ticks) - 1) // (most - 1))
    missing = -(len(ticks) - 1) % stride
    return [float(f"{tick:.1e}") for tick in (ticks[0] * 10.0**k for k in range(0, len(ticks) + missing, stride))]


def tick_labels(ticks: Sequence[float]) -> list[str]:
    """Write ticks, all with as many decimals as one of them needs; powers of ten where they are far from 1."""
    largest, least = max(map(abs, ticks)), min((abs(tick) for tick in ticks if tick), default=0.0)
    if largest and (largest >= 100_000 or least < 0.0001):
        return [f"{tick:.0e}" if float(f"{tick:.0e}") == tick else f"{tick:.2e}" if tick else "0" for tick in ticks]
    if len(ticks) == 1:
        return [figure(ticks[0])]
    if largest > 30 * least and all(float(f"{tick:.0e}") == tick for tick in ticks) and 0.0 not in ticks:
        return [f"{tick:,.10g}" for tick in ticks]  # a logarithmic scale
    decimals = max(len(f"{tick:.10f}".rstrip("0").partition(".")[2]) for tick in ticks)
    return [f"{tick:,.{decimals}f}" for tick in ticks]


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
