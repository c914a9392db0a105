"""`cnnbp compare`: differences, figures, loss curves and gradient flow, the runs beside each other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from math import isfinite
from typing import Any

from cnnbp_cli.analysis.compare import FLOW, Comparison, LayerFlow
from cnnbp_cli.analysis.compare import magnitude as powers
from cnnbp_cli.report.chart import Series, chart, draw
from cnnbp_cli.report.gradnorms import magnitude
from cnnbp_cli.report.records import write_csv, write_json
from cnnbp_cli.report.table import Cell, Column, line, show
from cnnbp_cli.report.terminal import console
from cnnbp_cli.report.text import count, duration, figure, percent
from cnnbp_cli.train.events import RUN_FIGURES

MARKS = "123456789abcdefghijklmnopqrstuvwxyz"
STYLES = ("cyan", "yellow", "green", "magenta", "blue", "red")
WIDEST = 100  # columns of a chart


def render(comparison: Comparison, format: str) -> None:
    """Write a comparison."""
    if format == "json":
        write_json(comparison.to_dict())
    elif format == "csv":
        write_csv(["part", "name", *(outcome.run for outcome in comparison.outcomes)], _records(comparison))
    else:
        _tables(comparison)


def _records(comparison: Comparison) -> Iterator[list[Any]]:
    """Yield a row for every thing that is compared, with a column for each run."""
    for difference in comparison.differences:
        yield ["config", difference.key, *map(_value, difference.values)]
    yield ["figure", "steps", *(outcome.steps for outcome in comparison.outcomes)]
    yield ["figure", "seconds", *(outcome.seconds for outcome in comparison.outcomes)]
    for name in RUN_FIGURES:
        yield ["figure", name, *(outcome.figures[name] for outcome in comparison.outcomes)]
    for flow in comparison.flows:
        yield ["gradient", flow.layer, *flow.norms]
    for step in sorted({step for losses in comparison.losses for step in losses}):
        yield ["loss", step, *(losses.get(step) for losses in comparison.losses)]


def _tables(comparison: Comparison) -> None:
    names = [mark(number) for number in range(len(comparison.outcomes))]
    _outcomes(comparison, names)
    line()
    if comparison.differences:
        columns = [Column("config", text=True), *(Column(name, leaves=k, text=True) for k, name in enumerate(names, 1))]
        show(columns, [[difference.key, *map(_value, difference.values)] for difference in comparison.differences])
    else:
        line("the configs are the same")
    line()
    line("loss of the training batches", "bold")
    draw(
        chart(
            [
                Series(list(losses), list(losses.values()), name, STYLES[k % len(STYLES)])
                for k, (name, losses) in enumerate(zip(names, comparison.losses, strict=True))
            ],
            min(console().width, WIDEST),
        )
    )
    if comparison.flows:
        line()
        _flows(comparison, names)


def _outcomes(comparison: Comparison, names: list[str]) -> None:
    columns = [Column(""), Column("run", text=True), Column("steps", leaves=len(RUN_FIGURES) + 2)]
    titles = [name.replace("_", "\n") for name in RUN_FIGURES]
    columns += [Column(title, leaves=k, width=8) for k, title in enumerate(titles, 1)]
    columns.append(Column("time", leaves=len(titles) + 1))
    rows: list[list[Cell]] = []
    for k, (name, outcome) in enumerate(zip(names, comparison.outcomes, strict=True)):
        cells: list[Cell] = [(name, STYLES[k % len(STYLES)])]
        marks = {"not finished": not outcome.finished, "diverged": outcome.diverged, "changed": bool(outcome.changes)}
        marked = ", ".join(word for word, applies in marks.items() if applies)
        cells += [f"{outcome.run} ({marked})" if marked else outcome.run, count(outcome.steps)]
        cells += [(percent if key.endswith("accuracy") else figure)(outcome.figures[key]) for key in RUN_FIGURES]
        rows.append([*cells, duration(outcome.seconds)])
    shown = [k for k in range(len(columns)) if any(row[k] != "-" for row in rows)]
    show([columns[k] for k in shown], [[row[k] for k in shown] for row in rows])
    for outcome in comparison.outcomes:
        for change in outcome.changes:
            line(f"{outcome.run}: {change}")


def _flows(comparison: Comparison, names: list[str]) -> None:
    line(f"gradient: {FLOW}", "bold")
    columns = [Column("layer", text=True)]
    columns += [Column(name, leaves=2 * k + 1, width=8) for k, name in enumerate(names)]
    columns += [Column(f"{name} / {names[0]}", leaves=2 * k, width=8) for k, name in enumerate(names) if k]
    rows: list[list[Cell]] = []
    for flow in comparison.flows:
        norms: list[Cell] = ["-" if norm is None else magnitude(norm) for norm in flow.norms]
        rows.append([flow.layer, *norms, *map(_factor, flow.factors[1:])])
    show(columns, rows)
    line()
    line(_verdict(comparison.most_changed, names))


def _verdict(flow: LayerFlow | None, names: list[str]) -> str:
    if flow is None:
        return "no layer's gradient norm differs by more than 1%"
    k = max(range(len(names)), key=lambda k: powers(flow.factors[k]))
    factor = flow.factors[k] or 0.0
    if factor and isfinite(factor):
        how = f"in run {names[k]} it is {factor:.3g} times that of run {names[0]}"
    else:
        how = f"in run {names[0] if factor else names[k]} it is 0"
    return f"the gradient flow changed most in {flow.layer}: {how}"


def mark(number: int) -> str:
    """Return what stands for the run with this number, counted from 0, in tables and curves."""
    return MARKS[number % len(MARKS)]


def _factor(factor: float | None) -> str:
    return "-" if factor is None else f"{factor:.3g}"


def _value(value: Any) -> str:
    return "-" if value is None else value if isinstance(value, str) else json.dumps(value)
