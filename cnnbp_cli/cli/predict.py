"""`cnnbp predict`: what a trained model makes of images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cnnbp_cli.cli.options import Format, OutputFormat, OwnLayers, Trained, WeightFile, examples


def add_to(app: typer.Typer) -> None:
    app.command(
        epilog=examples(
            "cnnbp predict runs/lenet5-1 digit.png --invert",
            "cnnbp predict runs/lenet5-1/checkpoints/best.npz images.npy --format json",
        )
    )(predict)


def predict(
    trained: Trained,
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE",
            help="Pictures (with the extra images), or arrays as npy or npz; whole numbers are raw pixels, "
            "floats are taken as normalised already.",
        ),
    ],
    invert: Annotated[
        bool, typer.Option("--invert", help="Swap dark and light: MNIST is white on black, paper is not.")
    ] = False,
    weights: WeightFile = None,
    layers: OwnLayers = None,
    format: OutputFormat = Format.TABLE,
) -> None:
    """Show the class and the probabilities of images."""
    from cnnbp_cli.data.pictures import read_pictures
    from cnnbp_cli.inspect.predict import predict as predictions
    from cnnbp_cli.inspect.trained import load_trained
    from cnnbp_cli.report.predict import render

    model = load_trained(trained, weights)
    found = [read_pictures(path, model.config.model.input, invert=invert) for path in images]
    render([one for pixels, names in found for one in predictions(model, pixels, names)], format.value)
