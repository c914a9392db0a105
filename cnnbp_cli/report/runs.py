"""`cnnbp runs`: the runs of a folder as a table, as JSON or as CSV."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cnnbp_cli.analysis.runs import FIGURES, RunRow
from cnnbp_cli.report.records import write_csv, write_json
from cnnbp_cli.report.table import Cell, Column, line, show
from cnnbp_cli.report.terminal import note
from cnnbp_cli.report.text import count, figure, percent

STYLES = {
    **dict.fromkeys(("running",), "cyan"),
    **dict.fromkeys(("finished", "stopped-early"), "green"),
    **dict.fromkeys(("interrupted", "killed"), "yellow"),
    **dict.fromkeys(("diverged", "non-finite", "damaged"), "red"),
}
NAME = 24  # columns that a name has before it folds
MOST_SHOWN = 6  # differences in a row of the table


def render(folder: Path, rows: Sequence[RunRow], of: int, format: str) -> None:
    """Write the runs; `of` is how many there are without the filters."""
    if format == "json":
        write_json({"folder": str(folder), "runs": [row.to_dict() for row in rows]})
    elif format == "csv":
        keys = [key for key in RunRow("", "", "damaged").to_dict() if key != "differences"]
        records = [row.to_dict() for row in rows]
        header = [*keys, "differences"]
        write_csv(header, [[*(record[key] for key in keys), json.dumps(record["differences"])] for record in records])
    else:
        _table(folder, rows, of)


def _table(folder: Path, rows: Sequence[RunRow], of: int) -> None:
    if not rows:
        note(f"none of {count(of, 'run')} in {folder} meets the filters" if of else f"there is no run in {folder} yet")
        return
    with_test = any(row.figures["test_loss"] is not None for row in rows)
    with_validation = any(row.figures["validation_loss"] is not None for row in rows)
    kind = "validation" if with_validation else "test" if with_test else "train"
    with_accuracy = any(row.figures[f"{kind}_accuracy"] is not None for row in rows)
    columns = [Column("run", text=True, least=NAME), Column("state", text=True, least=NAME), Column("epochs", leaves=5)]
    names = [name for name in FIGURES if name.startswith(kind) and (with_accuracy or name.endswith("loss"))]
    columns += [Column(name.replace("_", "\n"), leaves=k) for k, name in enumerate(reversed(names), 1)]
    columns += [
        Column("best\nepoch", leaves=7, folds=True, optional=True),
        Column("age", leaves=3),
        Column("what\ndiffers", text=True, leaves=6, folds=True, least=12),
    ]
    show(columns, [[*_cells(row, folder), *_figures(row, names), *_rest(row)] for row in rows])
    if of > len(rows):
        line()
        line(f"{len(rows)} of {count(of, 'run')}", "dim")


def _cells(row: RunRow, folder: Path) -> list[Cell]:
    path = Path(row.run)
    name = str(path.relative_to(folder)) if path != folder and path.is_relative_to(folder) else row.run
    return [name, (row.state, STYLES[row.state]), f"{row.epoch}/{row.epochs}" if row.epochs else ""]


def _figures(row: RunRow, names: Sequence[str]) -> list[Cell]:
    texts = [percent(row.figures[name]) if name.endswith("accuracy") else figure(row.figures[name]) for name in names]
    return [*reversed(texts)]


def _rest(row: RunRow) -> list[Cell]:
    best = "" if row.best_epoch is None else str(row.best_epoch)
    return [best, age(row.age), row.problem or differences(row.differences)]


def differences(own: dict[str, Any]) -> str:
    """Write what sets a config apart as after `--set`, the keys short where that is clear."""
    last = [key.rpartition(".")[2] for key in own]
    texts: list[str] = []
    for key, name in zip(own, last, strict=True):
        value = own[key]
        short = name if last.count(name) == 1 and not key.startswith("model.layers.") else key
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        texts.append(f"{short.removeprefix('model.layers.')}={text}")
    more = len(texts) - MOST_SHOWN
    return ", ".join([*texts[:MOST_SHOWN], *([f"{more} more"] if more > 0 else [])])


def age(seconds: float) -> str:
    """Write how long ago something was, in its largest unit."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} s"
