"""`cnnbp plot` on a terminal: a run's curves, and a heat map of its gradient norms."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite

import numpy as np
from rich.cells import cell_len
from rich.text import Text

from cnnbp_cli.analysis.history import History
from cnnbp_cli.report.chart import BARS, Series, binned, chart, draw, limits, logarithms, sparkline
from cnnbp_cli.report.scale import Scale
from cnnbp_cli.report.table import line
from cnnbp_cli.report.terminal import console
from cnnbp_cli.report.text import count, decimal
from cnnbp_cli.train.statistics import DEFINITIONS

WIDEST = 100
WIDEST_NAME = 20
TRAINING = ("•", "cyan")
VALIDATION = ("o", "yellow")


def render(history: History) -> None:
    """Write the curves and the heat map of a run."""
    width = min(console().width, WIDEST)
    for change in history.changes:
        line(f"note: {change}")
    for title, series, height, from_zero in panels(history):
        draw(chart(series, width, height, title=title, from_zero=from_zero))
        line()
    if rows := gradients(history):
        line(f"gradient: {DEFINITIONS['gradient']}", "bold")
        draw(_heat_map(rows, [watched.step for watched in history.watched], width))
    else:
        line("no step was watched; train with --watch-every 1 or more")


def panels(history: History) -> Iterator[tuple[str, list[Series], int, bool]]:
    """Yield title, curves, height and whether it begins at 0, for every chart that the run has the figures for."""
    steps = [step.step for step in history.steps]
    for name in ("loss", "accuracy"):
        values = [getattr(step, name) for step in history.steps]
        held_out = {epoch.step: getattr(epoch, f"validation_{name}") for epoch in history.epochs}
        held_out = {step: value for step, value in held_out.items() if value is not None}
        if None in values:
            continue
        series = [Series(steps, values, *TRAINING)]
        title = f"{name} of the training batches ({TRAINING[0]})"
        if held_out:
            series.append(Series([*held_out], [*held_out.values()], *VALIDATION, connected=False))
            title += f", and of the validation split ({VALIDATION[0]})"
        yield title, series, 11, False
    rates = [step.learning_rate for step in history.steps]
    yield "learning rate", [Series(steps, rates, *TRAINING)], 5, True


def gradients(history: History) -> dict[str, list[float]]:
    """Return each layer's gradient norm at the watched steps, in network order."""
    rows: dict[str, list[float]] = {}
    for watched in history.watched:
        for name, statistics in watched.layers.items():
            if statistics.gradient is not None:
                rows.setdefault(name, []).append(statistics.gradient)
    return rows


def _heat_map(rows: dict[str, list[float]], steps: list[int], width: int) -> Iterator[Text]:
    """Yield a line for each layer: one scale for all, in height and in color."""
    room = min(max(map(cell_len, rows)), WIDEST_NAME)
    columns = max(width - room - 1, 8)
    heights = {name: logarithms(binned(norms, columns)) for name, norms in rows.items()}
    low, high = limits(np.concatenate([*heights.values()]))
    scale = Scale()
    scale.see(10**height for one in heights.values() for height in one.tolist() if isfinite(height))
    repeat = max(columns // max(len(one) for one in heights.values()), 1)
    for name, one in heights.items():
        short = name if cell_len(name) <= room else name[: room - 1] + "…"
        text = Text(short + " " * (room - cell_len(short) + 1))
        for height, bar in zip(one.tolist(), sparkline(one, low, high), strict=True):
            text.append(bar * repeat, scale.style(10**height) if isfinite(height) else "")
        yield text
    wide = repeat * max(len(one) for one in heights.values())
    left, right = f"step {count(steps[0])}", count(steps[-1])
    yield Text(" " * (room + 1) + left + right.rjust(max(wide - len(left), len(right) + 1)))
    yield Text(f"{BARS[0]} {decimal(10**low)}   {BARS[-1]} {decimal(10**high)}, logarithmic scale")
