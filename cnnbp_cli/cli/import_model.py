"""`cnnbp import`: a network from another tool, as a config and its weights."""

from __future__ import annotations

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
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
) -> None:
    """Turn an ONNX file into a config and its weights."""
    size = None if input is None else _size(input)
    from cnnbp_cli.imports.onnx import import_onnx
    from cnnbp_cli.report.imported import render

    render(import_onnx(model, config, weights=weights, size=size, head=head.value if head else None, force=force))


def _size(text: str) -> tuple[int, int, int]:
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise typer.BadParameter(f"expected three sizes such as 3,224,224, got {text!r}", param_hint="--input")
    channels, height, width = (int(part) for part in parts)
    return channels, height, width
