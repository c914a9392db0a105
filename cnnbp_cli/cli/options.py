"""Arguments and options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Format(StrEnum):
    """How a report is written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


ConfigFile = Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML config, or - for standard input.")]

Trained = Annotated[
    Path,
    typer.Argument(
        metavar="RUN|CHECKPOINT",
        help="A run directory (its best checkpoint counts) or a checkpoint file; with --weights, a config will do.",
    ),
]

WeightFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Take the parameters of this file, npz or safetensors, as `cnnbp export` or PyTorch wrote it.",
    ),
]

Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a value of the config, as in train.batch_size=32; may be repeated.",
    ),
]


def run_layer_files(ctx: typer.Context, files: list[Path] | None) -> list[Path] | None:
    """Register the layers of the user's files, as soon as the option is read."""
    if files and not ctx.resilient_parsing:
        from cnnbp_cli.config.own_layers import load_layers

        for file in files:
            load_layers(file)
    return files


OwnLayers = Annotated[
    list[Path] | None,
    typer.Option(
        "--layers",
        metavar="FILE.py",
        callback=run_layer_files,
        help="Run this Python file, which registers layers of your own; may be repeated.",
    ),
]

OutputFormat = Annotated[Format, typer.Option("--format", help="How to write the result.")]


def examples(*lines: str) -> str:
    """Return an epilog that shows one example on each line."""
    return "[bold]Examples[/]\n\n" + "\n\n".join(lines)
