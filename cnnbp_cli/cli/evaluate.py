"""`cnnbp evaluate`: how good a trained model is."""

from __future__ import annotations

from enum import StrEnum
from math import isfinite
from typing import Annotated

import typer

from cnnbp_cli.cli import complete
from cnnbp_cli.cli.help import choices
from cnnbp_cli.cli.options import (
    CustomLayers,
    PaperFormat,
    PaperOutput,
    PartialWeights,
    Trained,
    WeightFile,
    WeightMap,
    examples,
)


class Part(StrEnum):
    """The splits of a data set."""

    TEST = "test"
    VALIDATION = "validation"
    TRAIN = "train"


def add_to(app: typer.Typer) -> None:
    app.command(
        epilog=examples(
            "cnnbp evaluate runs/lenet5-1",
            "cnnbp evaluate runs/lenet5-1 --min-accuracy 0.97",
            "cnnbp evaluate runs/lenet5-1/checkpoints/best.npz --data other.yaml --format json",
        )
    )(evaluate)


def evaluate(
    trained: Trained,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="CONFIG|DATA",
            autocompletion=complete.configs,
            help="Evaluate on the data of this config, or template, instead of the run's; or on a folder of pictures "
            "by class, a csv or an npz.",
        ),
    ] = None,
    split: Annotated[Part, typer.Option(metavar=choices(Part), help="Split to evaluate.")] = Part.TEST,
    min_accuracy: Annotated[
        float | None,
        typer.Option(metavar="A", help="Exit with code 1 if the accuracy is below A (0 to 1)."),
    ] = None,
    weights: WeightFile = None,
    weight_map: WeightMap = None,
    partial_weights: PartialWeights = False,
    layers: CustomLayers = None,
    format: PaperOutput = PaperFormat.TABLE,
) -> None:
    """Measure the loss, the accuracy and the confusion of classes of a trained model."""
    from cnnbp_cli.analysis.trained import load_trained, measured_by, split_for
    from cnnbp_cli.cli.boundary import VERDICT, fail
    from cnnbp_cli.report.evaluate import render
    from cnnbp_cli.report.live import working
    from cnnbp_cli.report.origin import name_origin
    from cnnbp_cli.report.terminal import note
    from cnnbp_cli.report.text import percent
    from cnnbp_cli.train.evaluate import evaluate as measure

    if min_accuracy is not None and not 0 <= min_accuracy <= 1:
        meant = f", did you mean {min_accuracy / 100:g}?" if 1 < min_accuracy <= 100 else ""
        fail(f"--min-accuracy: {min_accuracy:g} is not between 0 and 1{meant}")
    model, origin = load_trained(trained, weights)
    if min_accuracy is not None and not model.classifies:
        fail(f"{trained}: --min-accuracy is for models that classify")
    images, remarks = split_for(model, split.value, data, measured_by(trained))
    for remark in remarks:
        note(remark)
    if min_accuracy is not None and not images.has_classes:
        fail(f"{trained}: --min-accuracy needs class numbers as labels, not targets")
    with working("evaluating, image") as tick:
        result = measure(model, images, progress=tick)
    name_origin(origin)
    render(result, format.value, origin)
    if not isfinite(result.loss):
        note("the loss is not finite: the model's outputs are infinite or NaN, and its accuracy means nothing")
        raise typer.Exit(VERDICT)
    if min_accuracy is not None and (result.accuracy or 0.0) < min_accuracy:
        note(f"accuracy {percent(result.accuracy)} is below {percent(min_accuracy)}")
        raise typer.Exit(VERDICT)
