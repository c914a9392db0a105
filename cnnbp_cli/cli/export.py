"""`cnnbp export`: what is trained here, for other tools."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cnnbp_cli.cli import complete
from cnnbp_cli.cli.options import CustomLayers, Overrides, PartialWeights, WeightFile, WeightMap, examples


class Form(StrEnum):
    """What other tools read."""

    ONNX = "onnx"
    SAFETENSORS = "safetensors"
    NPZ = "npz"
    TENSORBOARD = "tensorboard"


def add_to(app: typer.Typer) -> None:
    app.command(
        epilog=examples(
            "cnnbp export runs/lenet5-1 lenet5.onnx",
            "cnnbp export runs/lenet5-1 lenet5.safetensors",
            "cnnbp export runs/lenet5-1 --to tensorboard boards/lenet5-1",
        )
    )(export)


def export(
    source: Annotated[
        str,
        typer.Argument(
            metavar="RUN|CHECKPOINT|CONFIG",
            autocompletion=complete.sources,
            help="What to export; a config is exported with its initial weights.",
        ),
    ],
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="Output file, replaced if it exists; for tensorboard, a folder."),
    ],
    to: Annotated[
        Form | None,
        typer.Option(
            metavar="FORMAT",
            help="onnx (the network), safetensors or npz (its weights by name), or tensorboard (a run's curves); by "
            "default the ending of FILE.",
        ),
    ] = None,
    overrides: Overrides = None,
    weights: WeightFile = None,
    weight_map: WeightMap = None,
    partial_weights: PartialWeights = False,
    layers: CustomLayers = None,
) -> None:
    """Write a network, its weights or its curves for other tools."""
    if to is Form.TENSORBOARD and (overrides or weights):
        raise typer.BadParameter("go with a network, not with the curves of a run", param_hint="--set, --weights")
    from cnnbp_cli.report.live import waiting
    from cnnbp_cli.report.table import line

    if to is Form.TENSORBOARD:
        from cnnbp_cli.exports.tensorboard import export_tensorboard

        with waiting(f"writing {file}"):
            export_tensorboard(Path(source), file)
    else:
        from cnnbp_cli.exports.export import export as write
        from cnnbp_cli.loading import load_with_origin
        from cnnbp_cli.report.origin import name_origin

        model, origin = load_with_origin(source, overrides or (), weights=weights)
        with waiting(f"writing {file}"):
            write(model, file, to and to.value)
        name_origin(origin)
    line(f"export: {file}")
