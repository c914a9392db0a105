"""Arguments and options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from cnnbp_cli.cli import complete
from cnnbp_cli.cli.help import choices
from cnnbp_cli.cli.mistakes import WORDS
from cnnbp_cli.config.shortcut import Shortcut


class Format(StrEnum):
    """How a report is written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


class PaperFormat(StrEnum):
    """How a report is written that people paste into texts of their own."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    MARKDOWN = "markdown"
    LATEX = "latex"


ConfigFile = Annotated[
    str,
    typer.Argument(
        metavar="CONFIG",
        autocompletion=complete.configs,
        help="A YAML config, - for standard input, the name of a template, or a run.",
    ),
]

Trained = Annotated[
    Path,
    typer.Argument(
        metavar="RUN|CHECKPOINT",
        autocompletion=complete.trained,
        help="A run (its best checkpoint is used), last for the newest in runs/, or a checkpoint file; with "
        "--weights, also a config.",
    ),
]


def weights_from(ctx: typer.Context, path: Path | None) -> Any:
    """Return what `--weights`, `--map` and `--partial` say together."""
    names, partial = ctx.params.get("weight_map"), bool(ctx.params.get("partial_weights"))
    if ctx.resilient_parsing:
        return path
    if path is None:
        if names is not None or partial:
            option = "--partial" if names is None else "--map"
            raise typer.BadParameter("says how to read a weight file: add --weights FILE", param_hint=option)
        return None
    from cnnbp_cli.report.weights import show_matching
    from cnnbp_cli.weights import WeightsFrom

    return WeightsFrom(path, "auto" if names == "auto" else names and Path(names), partial, show_matching)


WeightFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        callback=weights_from,
        help="Load parameters from this npz, safetensors or PyTorch file, as `cnnbp export` or `torch.save` of a state "
        "dict wrote it.",
    ),
]

WeightMap = Annotated[
    str | None,
    typer.Option(
        "--map",
        metavar="auto|FILE",
        is_eager=True,
        help="Match the weight file's layers by name, kind, shape and order; a YAML file of pairs, as in conv1: "
        "layer1.0.conv1, goes first.",
    ),
]

PartialWeights = Annotated[
    bool,
    typer.Option("--partial", is_eager=True, help="Layers that the weight file does not fit keep their values."),
]

OverrideFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--set-file",
        metavar="FILE",
        is_eager=True,
        autocompletion=complete.config_files,
        help="Override config values with those of this YAML file; repeatable. --set takes precedence.",
    ),
]


def gathered(ctx: typer.Context, overrides: list[Any] | None) -> list[Any]:
    """Return all overrides in the order in which they apply: `--set-file`, `--set`, then short options."""
    short = [value for value in ctx.params.values() if isinstance(value, Shortcut)]
    return [*(ctx.params.get("override_files") or ()), *(overrides or ()), *short]


def as_typed(overrides: list[Any] | None) -> str:
    """Return the options that overrides were given by."""
    return ", ".join(dict.fromkeys(getattr(override, "option", "--set") for override in overrides or ()))


def short_for(key: str, metavar: str, *names: str, help: str) -> Any:
    """Return an option that stands for `--set KEY=VALUE`; `gathered` puts it among the overrides."""

    def override(ctx: typer.Context, param: typer.CallbackParam, value: str | None) -> Shortcut | None:
        if value is None:
            return None
        typed = [word.partition("=")[0] for word in ctx.meta.get(WORDS, ())]
        return Shortcut(f"{key}={value}", next((name for name in names if name in typed), names[0]))

    text = f"{help}: the same as --set {key}={metavar}."
    return typer.Option(*names, metavar=metavar, is_eager=True, callback=override, help=text)


Epochs = Annotated[str | None, short_for("train.epochs", "N", "--epochs", help="Number of epochs")]
MaxSteps = Annotated[
    str | None, short_for("train.max_steps", "N", "--max-steps", help="Stop after N steps at the latest")
]
LearningRate = Annotated[
    str | None,
    short_for("train.optimizer.learning_rate", "RATE", "--lr", "--learning-rate", help="The optimizer's learning rate"),
]
BatchSize = Annotated[str | None, short_for("train.batch_size", "N", "--batch-size", help="Images in a batch")]
Seed = Annotated[str | None, short_for("seed", "N", "--seed", help="Seed of everything random")]
Workers = Annotated[
    str | None, short_for("train.workers", "N", "--workers", help="Number of processes that share each batch")
]


Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        callback=gathered,
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

PaperOutput = Annotated[
    PaperFormat,
    typer.Option(
        "--format", metavar=choices(PaperFormat), help="Output format; markdown and latex are for pasting into a text."
    ),
]


def examples(*lines: str) -> str:
    """Return an epilog: one example on each line."""
    return "\n".join(lines)
