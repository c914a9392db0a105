"""`cnnbp runs`: what has been trained, and what became of it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cnnbp_cli.cli import complete
from cnnbp_cli.cli.options import Format, OutputFormat, examples


class By(StrEnum):
    """What runs can be sorted by; `analysis.runs.ORDERS` has the same names."""

    AGE = "age"
    RUN = "run"
    NAME = "name"
    STATE = "state"
    EPOCH = "epoch"
    ACCURACY = "accuracy"
    LOSS = "loss"
    VALIDATION_ACCURACY = "validation_accuracy"
    VALIDATION_LOSS = "validation_loss"
    TEST_ACCURACY = "test_accuracy"
    TEST_LOSS = "test_loss"
    TRAIN_ACCURACY = "train_accuracy"
    TRAIN_LOSS = "train_loss"


def add_to(app: typer.Typer) -> None:
    app.command(
        epilog=examples(
            "cnnbp runs",
            "cnnbp runs --sort accuracy --filter state=finished --filter 'accuracy>0.98'",
            "cnnbp runs sweeps/lenet5-1 --filter train.batch_size=32 --format csv",
        )
    )(runs)


def runs(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", autocompletion=complete.folders, help="A folder of runs or of sweeps."),
    ] = Path("runs"),
    sort: Annotated[
        By, typer.Option(metavar="KEY", help="The newest or the best first, by " + ", ".join(By) + ".")
    ] = By.AGE,
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            metavar="CONDITION",
            help="Only runs with state=finished, 'accuracy>0.98', 'age<1d', name=lenet*, train.batch_size=32 or the "
            "like: = != < > <= >=; repeatable.",
        ),
    ] = None,
    format: OutputFormat = Format.TABLE,
) -> None:
    """List the runs in a folder: what became of them, their best figures, and what sets their configs apart."""
    from cnnbp_cli.analysis.runs import filtered, runs_of, sorted_runs
    from cnnbp_cli.report.runs import render

    found = runs_of(folder)
    render(folder, sorted_runs(filtered(found, filters or ()), sort.value), len(found), format.value)
