"""`cnnbp predict`: what a trained model makes of images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cnnbp_cli.cli.options import (
    CustomLayers,
    Format,
    OutputFormat,
    PartialWeights,
    Trained,
    WeightFile,
    WeightMap,
    examples,
)


def add_to(app: typer.Typer) -> None:
    app.command(
        epilog=examples(
            "cnnbp predict runs/lenet5-1 seven.png photo.jpg",
            "cnnbp predict runs/lenet5-1/checkpoints/best.npz images.npy --format json",
        )
    )(predict)


def predict(
    trained: Trained,
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE",
            help="Pictures (with the extra images), or arrays as npy or npz, with pixels from 0 to 1 or 0 to 255.",
        ),
    ],
    invert: Annotated[
        bool | None,
        typer.Option(
            "--invert/--no-invert",
            help="Invert dark and light, or keep them. By default, images are inverted that have light edges where "
            "the training images have dark ones, or vice versa: MNIST is white on black, paper is black on white.",
        ),
    ] = None,
    weights: WeightFile = None,
    weight_map: WeightMap = None,
    partial_weights: PartialWeights = False,
    layers: CustomLayers = None,
    format: OutputFormat = Format.TABLE,
) -> None:
    """Predict the class of images, with its probability."""
    from cnnbp_cli.analysis.predict import predict_files
    from cnnbp_cli.analysis.trained import load_trained
    from cnnbp_cli.report.live import working
    from cnnbp_cli.report.origin import name_origin
    from cnnbp_cli.report.predict import render

    model, origin = load_trained(trained, weights)
    with working("predicting, file") as tick:
        predictions = predict_files(model, images, invert=invert, progress=tick)
    name_origin(origin)
    render(predictions, format.value, asked_to_invert=bool(invert), origin=origin)
