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
            "cnnbp predict runs/lenet5-1 test.csv --format csv --id-column ImageId",
        )
    )(predict)


def predict(
    trained: Trained,
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE",
            help="Pictures (with the extra images) and folders of them, arrays as npy or npz, or tables as csv, with "
            "pixels from 0 to 1 or 0 to 255.",
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
    top: Annotated[
        int | None, typer.Option("--top", metavar="K", min=1, help="Show the K most likely classes alone.")
    ] = None,
    id_column: Annotated[
        str | None,
        typer.Option(
            "--id-column",
            metavar="NAME",
            help="Write a table of two columns, this one and Label: what Kaggle takes. It has the values of the column "
            "that a table calls so, the names of pictures without their endings, and counts from 1 otherwise. "
            "With --format csv.",
        ),
    ] = None,
    label_column: Annotated[
        str, typer.Option("--label-column", metavar="NAME", help="The name of the other column, with --id-column.")
    ] = "Label",
    weights: WeightFile = None,
    weight_map: WeightMap = None,
    partial_weights: PartialWeights = False,
    layers: CustomLayers = None,
    format: OutputFormat = Format.TABLE,
) -> None:
    """Predict the class of images, with its probability."""
    from cnnbp_cli.analysis.predict import predict_files
    from cnnbp_cli.analysis.trained import load_trained
    from cnnbp_cli.cli.boundary import fail
    from cnnbp_cli.report.live import working
    from cnnbp_cli.report.origin import name_origin
    from cnnbp_cli.report.predict import render

    if id_column is not None and format is Format.JSON:
        raise typer.BadParameter("makes a table for Kaggle, and goes with --format csv", param_hint="--id-column")
    if id_column is not None and top is not None:
        raise typer.BadParameter("goes with one class for each image, and not with --top", param_hint="--id-column")
    if id_column == label_column:
        raise typer.BadParameter(
            f"is {id_column}, as the other column; --label-column renames that", param_hint="--id-column"
        )
    model, origin = load_trained(trained, weights)
    if not model.classifies and (id_column is not None or top is not None):
        fail(f"{trained}: {'--top' if top else '--id-column'} is for models that classify")
    with working("predicting, file") as tick:
        predictions = predict_files(model, images, invert=invert, ids=id_column, progress=tick)
    name_origin(origin)
    columns = None if id_column is None else (id_column, label_column)
    render(
        predictions,
        format.value,
        asked_to_invert=bool(invert),
        origin=origin,
        top=top,
        columns=columns,
        knows_pixels=model.normalization is not None,
    )
