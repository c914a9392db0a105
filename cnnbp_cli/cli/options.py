"""Arguments and options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from cnnbp_cli.cli import complete


class Format(StrEnum):
    """How a report is written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


ConfigFile = Annotated[
    str,
    typer.Argument(metavar="CONFIG", autocompletion=complete.configs, help="A YAML config, or - for standard input."),
]

Trained = Annotated[
    Path,
    typer.Argument(
        metavar="RUN|CHECKPOINT",
        autocompletion=complete.trained,
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

OverrideFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--set-file",
        metavar="FILE",
        is_eager=True,
        autocompletion=complete.configs,
        help="Override what this YAML file says, key by key; may be repeated, and --set overrides it again.",
    ),
]


def after_files(ctx: typer.Context, overrides: list[Any] | None) -> list[Any]:
    """Put the files of `--set-file`, which are read first, before what `--set` says."""
    return [*(ctx.params.get("override_files") or ()), *(overrides or ())]


Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        callback=after_files,
        autocompletion=complete.overrides,
        help="Override a value of the config, as in train.batch_size=32; may be repeated.",
    ),
]


def run_layer_files(ctx: typer.Context, files: list[Path] | None) -> list[Path]:
    """Register the layers of the user's files, as soon as the option is read."""
    if files and not ctx.resilient_parsing:
        from cnnbp_cli.config.custom_layers import load_layers

        for file in files:
            load_layers(file)
    return files or []


CustomLayers = Annotated[
    list[Path] | None,
    typer.Option(
        "--layers",
        metavar="FILE.py",
        callback=run_layer_files,
        autocompletion=complete.layer_files,
        help="Run this Python file, which registers custom layers; may be repeated.",
    ),
]

OutputFormat = Annotated[Format, typer.Option("--format", help="How to write the result.")]


def examples(*lines: str) -> str:
    """Return an epilog that shows one example on each line."""
    return "[bold]Examples[/]\n\n" + "\n\n".join(lines)
