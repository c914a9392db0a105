"""`cnnbp gradnorms`: how the gradient flows through the layers."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cnnbp_cli.cli import complete
from cnnbp_cli.cli.options import (
    BatchSize,
    CustomLayers,
    Epochs,
    LearningRate,
    OverrideFiles,
    Overrides,
    PaperFormat,
    PaperOutput,
    Seed,
    Workers,
    as_typed,
    examples,
)


class Quantity(StrEnum):
    """What is measured in every layer; `train.statistics` defines each."""

    GRADIENT = "gradient"
    UPDATE = "update"
    ACTIVATION = "activation"
    WEIGHT = "weight"
    RATIO = "ratio"
    MEAN = "mean"
    DEVIATION = "deviation"
    ZEROS = "zeros"
    DEAD = "dead"
    SATURATED = "saturated"
    SIGNAL = "signal"


def add_to(app: typer.Typer) -> None:
    app.command(
        epilog=examples(
            "cnnbp gradnorms lenet5.yaml --steps 100 --every 10",
            "cnnbp gradnorms lenet5.yaml --of ratio",
            "cnnbp gradnorms runs/lenet5-1 --of dead --format csv",
        )
    )(gradnorms)


def gradnorms(
    source: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG|RUN",
            autocompletion=complete.sources,
            help="A config or a template to train for some steps, or a run, which recorded some.",
        ),
    ],
    overrides: Overrides = None,
    override_files: OverrideFiles = None,
    epochs: Epochs = None,
    learning_rate: LearningRate = None,
    batch_size: BatchSize = None,
    seed: Seed = None,
    workers: Workers = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Steps to train, 10 by default; or rows of a run, all by default."),
    ] = None,
    every: Annotated[int, typer.Option(min=1, metavar="K", help="Show every K-th step.")] = 1,
    of: Annotated[
        Quantity, typer.Option(metavar="NAME", help="Statistic to show: " + ", ".join(Quantity) + ".")
    ] = Quantity.GRADIENT,
    layers: CustomLayers = None,
    format: PaperOutput = PaperFormat.TABLE,
) -> None:
    """Show the gradient's norm in every layer, or another statistic, step by step."""
    is_run = Path(source).is_dir()
    if is_run and overrides:
        raise typer.BadParameter(
            "a run is over: name its config to train it differently", param_hint=as_typed(overrides)
        )
    from itertools import islice

    from cnnbp_cli.analysis.gradnorms import blocks_of, blocks_of_run, recorded_norms, watch_norms
    from cnnbp_cli.loading import load, load_data
    from cnnbp_cli.report.gradnorms import render

    if is_run:
        recorded = list(islice(recorded_norms(Path(source), every=every, of=of.value), steps))
        render(recorded, format.value, of.value, blocks_of_run(Path(source)))
    else:
        model = load(source, overrides or ())
        rows = watch_norms(model, load_data(model), steps=steps or 10, every=every, of=of.value)
        render(rows, format.value, of.value, blocks_of(model.graph))
