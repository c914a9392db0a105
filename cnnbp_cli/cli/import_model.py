"""`cnnbp import`: a network from another tool, as a config and its weights."""

from __future__ import annotations

import math
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cnnbp_cli.cli.options import examples


class FileHead(StrEnum):
    """What can be put on logits."""

    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"
    NONE = "none"


def add_to(app: typer.Typer) -> None:
    app.command(
        name="import",
        epilog=examples(
            "cnnbp import resnet18.onnx resnet18.yaml",
            "cnnbp import unet.onnx unet.yaml --input 3,128,128",
            "cnnbp import resnet18.onnx resnet18.yaml --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225",
            "cnnbp predict resnet18.yaml cat.png --weights resnet18.safetensors",
        ),
    )(import_model)


def import_model(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="ONNX file, of PyTorch, Keras or others.")],
    config: Annotated[Path, typer.Argument(metavar="FILE.yaml", help="Config to write.")],
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Where the weights go, as .safetensors or .npz; by default beside the config, as safetensors where "
            "that package is installed.",
        ),
    ] = None,
    input: Annotated[
        str | None,
        typer.Option(metavar="C,H,W", help="Channels, height and width of an image, where the file leaves them open."),
    ] = None,
    head: Annotated[
        FileHead | None,
        typer.Option(metavar="HEAD", help="softmax or sigmoid, on a file that ends in logits; by default its own."),
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option(
            metavar="R,G,B",
            help="Mean of each channel that pixels from 0 to 1 (or 255) are normalized with before the file gets them, "
            "for example 0.485,0.456,0.406.",
        ),
    ] = None,
    std: Annotated[
        str | None,
        typer.Option(metavar="R,G,B", help="Their standard deviations, for example 0.229,0.224,0.225."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
) -> None:
    """Turn an ONNX file into a config and its weights."""
    size = None if input is None else _size(input)
    if (mean is None) != (std is None):
        given, other = ("--mean", "--std") if std is None else ("--std", "--mean")
        raise typer.BadParameter(f"goes with {other}, which says the rest", param_hint=given)
    means, stds = _numbers("--mean", mean or ""), _numbers("--std", std or "")
    from cnnbp_cli.config.schema import MeanStd
    from cnnbp_cli.core.types import FieldErrors
    from cnnbp_cli.imports.onnx import import_onnx
    from cnnbp_cli.report.imported import render

    try:
        normalize = MeanStd(means, stds) if mean is not None else None
    except FieldErrors as error:
        raise typer.BadParameter(error.problems[0][1], param_hint="--std") from None
    report = import_onnx(
        model,
        config,
        weights=weights,
        size=size,
        head=head.value if head else None,
        normalize=normalize,
        force=force,
    )
    render(report)


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in text.split(",") if text)
    except ValueError:
        found = (math.nan,)
    if not all(map(math.isfinite, found)):
        raise typer.BadParameter(f"expected numbers such as 0.5,0.5,0.5, got {text!r}", param_hint=option)
    return found


def _size(text: str) -> tuple[int, int, int]:
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise typer.BadParameter(f"expected three sizes such as 3,224,224, got {text!r}", param_hint="--input")
    channels, height, width = (int(part) for part in parts)
    return channels, height, width
