"""`cnnbp gradnorms`: how the gradient flows through the layers."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cnnbp_cli.cli.options import Format, OutputFormat, Overrides, examples


class Quantity(StrEnum):
    """What is measured in every layer; `train.statistics` defines each."""

    GRADIENT = "gradient"
    UPDATE = "update"
    ACTIVATION = "activation"
    WEIGHT = "weight"
    RATIO = "ratio"


def add_to(app: typer.Typer) -> None:
    app.command(
        epilog=examples(
            "cnnbp gradnorms lenet5.yaml --steps 100 --every 10",
            "cnnbp gradnorms lenet5.yaml --of ratio",
            "cnnbp gradnorms runs/lenet5-1 --format csv",
        )
    )(gradnorms)


def gradnorms(
    source: Annotated[
        str, typer.Argument(metavar="CONFIG|RUN", help="A config to train for some steps, or a run that recorded them.")
    ],
    overrides: Overrides = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Steps to train, 10 by default; or rows of a run, all by default."),
    ] = None,
    every: Annotated[int, typer.Option(min=1, metavar="K", help="Show every K-th step.")] = 1,
    of: Annotated[Quantity, typer.Option(help="What to measure.")] = Quantity.GRADIENT,
    format: OutputFormat = Format.TABLE,
) -> None:
    """Show the gradient's norm in every layer, step by step."""
    is_run = Path(source).is_dir()
    if is_run and (of is not Quantity.GRADIENT or overrides):
        raise typer.BadParameter("a run has the gradient norms it recorded: name its config instead")
    from itertools import islice

    from cnnbp_cli.inspect.gradnorms import recorded_norms, watch_norms
    from cnnbp_cli.loading import load, load_data
    from cnnbp_cli.report.gradnorms import render

    if is_run:
        recorded = recorded_norms(Path(source), every=every)
        render(islice(recorded, steps), format.value, "gradient")
    else:
        model = load(source, overrides or ())
        rows = watch_norms(model, load_data(model), steps=steps or 10, every=every, of=of.value)
        render(rows, format.value, of.value)
