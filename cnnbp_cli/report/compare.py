"""`cnnbp compare`: differences, figures, loss curves and gradient flow, the runs beside each other."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from math import isfinite
from typing import Any

from cnnbp_cli.analysis.compare import FLOW, SAME, Comparison, LayerFlow
from cnnbp_cli.analysis.compare import magnitude as powers
from cnnbp_cli.analysis.summary import LayerSummary, Summary
from cnnbp_cli.config.differences import Difference
from cnnbp_cli.core.types import show_shape
from cnnbp_cli.report.chart import Series, chart, draw
from cnnbp_cli.report.markup import Sheet, sheet
from cnnbp_cli.report.records import write_csv, write_json
from cnnbp_cli.report.summary import type_of
from cnnbp_cli.report.table import Cell, Column
from cnnbp_cli.report.terminal import console
from cnnbp_cli.report.text import count, duration, figure, percent
from cnnbp_cli.train.events import RUN_FIGURES

MARKS = "123456789abcdefghijklmnopqrstuvwxyz"
STYLES = ("cyan", "yellow", "green", "magenta", "blue", "red")
WIDEST = 100  # columns of a chart
STEPS = 2  # the column that says how far a run came
ENDS = 3  # layers at each end of a network that is named on one line


def render(comparison: Comparison, format: str, *, layers: bool = False) -> None:
    """Write a comparison, with `layers` the networks beside each other, and what is equal in them too."""
    if format == "json":
        write_json(comparison.to_dict())
    elif format == "csv":
        write_csv(["part", "name", *(outcome.run for outcome in comparison.outcomes)], _records(comparison))
    else:
        _report(comparison, sheet(format), layers=layers)


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


def _report(comparison: Comparison, sheet: Sheet, *, layers: bool) -> None:
    names = [mark(number) for number in range(len(comparison.outcomes))]
    _outcomes(comparison, names, sheet)
    sheet.line()
    if not comparison.differences:
        sheet.line("the configs are the same")
    elif differences := [one for one in comparison.differences if comparison.same_layers or not _is_of_layer(one)]:
        columns = [Column("config", text=True), *(Column(name, leaves=k, text=True) for k, name in enumerate(names, 1))]
        sheet.show(columns, [[difference.key, *map(_value, difference.values)] for difference in differences])
    if layers or not comparison.same_layers:
        sheet.line()
        _networks(comparison, names, sheet, layers=layers)
    if sheet.draws:
        sheet.line()
        curves = [
            Series(list(losses), list(losses.values()), name, _style(k))
            for k, (name, losses) in enumerate(zip(names, comparison.losses, strict=True))
        ]
        draw(chart(curves, min(console().width, WIDEST), title="loss of the training batches"))
    if comparison.flows and (layers or comparison.same_layers):
        sheet.line()
        _flows(comparison, names, sheet, everything=layers)


def _is_of_layer(difference: Difference) -> bool:
    return difference.key.startswith("model.layers.")


def _networks(comparison: Comparison, names: list[str], sheet: Sheet, *, layers: bool) -> None:
    """Write each network on a line, or layer by layer beside each other."""
    if layers:
        rows = aligned([[_layer(layer) for layer in network.layers] for network in comparison.networks])
        columns = [Column(name, text=True) for name in names]
        sheet.line("layers", "bold")
        sizes = [_size(network) for network in comparison.networks]
        sheet.show(columns, [[_beside(words, row) for words in row] for row in rows], sizes)
        return
    sheet.line("the networks differ; --layers shows their layers beside each other", "bold")
    sheet.show(
        [Column(""), Column("layers"), Column("parameters"), Column("network", text=True)],
        [
            [(name, _style(k)), count(len(one.layers)), count(one.trainable_parameters), _outline(one)]
            for k, (name, one) in enumerate(zip(names, comparison.networks, strict=True))
        ],
    )


def _outline(network: Summary) -> str:
    """Return the types of a network's layers in order, shortened to a line: ``conv2d, relu, …, dense``."""
    types = [layer.type for layer in network.layers]
    if len(types) > 2 * ENDS + 1:
        types = [*types[:ENDS], "…", *types[-ENDS:]]
    return ", ".join(types)


def _layer(layer: LayerSummary) -> str:
    parameters = f", {count(sum(layer.tensors.values()))}" if layer.tensors else ""
    return f"{layer.name}: {type_of(layer)} → {show_shape(layer.output_shape)}{parameters}"


def _size(network: Summary) -> str:
    return f"{count(len(network.layers), 'layer')}, {count(network.trainable_parameters, 'parameter')}"


def _beside(words: str, row: Sequence[str]) -> Cell:
    return (words, "dim") if all(other == row[0] for other in row) else (words, "yellow")


def aligned(columns: Sequence[Sequence[str]]) -> list[list[str]]:
    """Return rows in which equal entries of several sequences stand beside each other, empty where one has none.

    Each sequence is aligned with the rows so far, as `difflib` finds the longest matches.
    """
    rows = [[entry] for entry in columns[0]]
    for number, column in enumerate(columns[1:], start=1):
        known = [next((entry for entry in row if entry), "") for row in rows]
        joined: list[list[str]] = []
        for _, a, b, c, d in SequenceMatcher(None, known, column, autojunk=False).get_opcodes():
            longest = max(b - a, d - c)
            left = [*rows[a:b], *([[""] * number] * (longest - (b - a)))]
            right = [*column[c:d], *([""] * (longest - (d - c)))]
            joined += [[*before, entry] for before, entry in zip(left, right, strict=True)]
        rows = joined
    return rows


def _style(k: int) -> str:
    return STYLES[k % len(STYLES)]


def _outcomes(comparison: Comparison, names: list[str], sheet: Sheet) -> None:
    columns = [
        Column(""),
        Column("run", text=True, least=24),
        Column("steps", leaves=len(RUN_FIGURES) + 2, folds=True, optional=True),
    ]
    titles = [name.replace("_", "\n") for name in RUN_FIGURES]
    columns += [Column(title, leaves=k, width=6) for k, title in enumerate(titles, 1)]
    columns.append(Column("time", leaves=len(titles) + 1, folds=True, optional=True))
    rows: list[list[Cell]] = []
    for k, (name, outcome) in enumerate(zip(names, comparison.outcomes, strict=True)):
        cells: list[Cell] = [(name, _style(k))]
        marks = {"not finished": not outcome.finished, "diverged": outcome.diverged, "changed": bool(outcome.changes)}
        marked = ", ".join(word for word, applies in marks.items() if applies)
        cells += [f"{outcome.run} ({marked})" if marked else outcome.run, count(outcome.steps)]
        cells += [(percent if key.endswith("accuracy") else figure)(outcome.figures[key]) for key in RUN_FIGURES]
        rows.append([*cells, duration(outcome.seconds)])
    same_steps = len({outcome.steps for outcome in comparison.outcomes}) == 1
    shown = [k for k in range(len(columns)) if any(row[k] != "-" for row in rows) and not (k == STEPS and same_steps)]
    if same_steps:
        sheet.line(f"all of {count(comparison.outcomes[0].steps, 'step')}")
    sheet.show([columns[k] for k in shown], [[row[k] for k in shown] for row in rows])
    for outcome in comparison.outcomes:
        for change in outcome.changes:
            sheet.line(f"{outcome.run}: {change}")


def _flows(comparison: Comparison, names: list[str], sheet: Sheet, *, everything: bool) -> None:
    """Write the gradient norms that differ; those that are the same only if asked for."""
    shown = [flow for flow in comparison.flows if everything or None in flow.norms or flow.change > SAME]
    if shown:
        sheet.line(f"gradient: {FLOW}", "bold")
        columns = [Column("layer", text=True)]
        columns += [Column(name, leaves=2 * k + 1, width=8) for k, name in enumerate(names)]
        columns += [Column(f"{name} / {names[0]}", leaves=2 * k, width=8) for k, name in enumerate(names) if k]
        rows: list[list[Cell]] = []
        for flow in shown:
            norms: list[Cell] = ["-" if norm is None else figure(norm) for norm in flow.norms]
            rows.append([flow.layer, *norms, *map(_factor, flow.factors[1:])])
        sheet.show(columns, rows)
        sheet.line()
    sheet.line(_verdict(comparison.most_changed, names))
    left_out = len(comparison.flows) - len(shown)
    if shown and left_out:
        sheet.line(f"{count(left_out, 'layer')} within 1% left out; --layers shows all")


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
