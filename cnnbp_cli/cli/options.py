"""Arguments and options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from cnnbp_cli.cli import complete
from cnnbp_cli.cli.help import choices


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
        help="A run directory (its best checkpoint is used) or a checkpoint file; with --weights, also a config.",
    ),
]

WeightFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Load parameters from this npz or safetensors file, as `cnnbp export` or PyTorch wrote it.",
    ),
]

OverrideFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--set-file",
        metavar="FILE",
        is_eager=True,
        autocompletion=complete.configs,
        help="Override config values with those of this YAML file; repeatable. --set takes precedence.",
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
        help="Override a config value, as in train.batch_size=32; repeatable.",
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

OutputFormat = Annotated[Format, typer.Option("--format", metavar=choices(Format), help="Output format.")]


def examples(*lines: str) -> str:
    """Return an epilog: one example on each line."""
    return "\n".join(lines)
