"""`cnnbp config`: what a config comes to, with its defaults and overrides."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated

import typer

from cnnbp_cli.cli.help import choices
from cnnbp_cli.cli.options import (
    BatchSize,
    ConfigFile,
    CustomLayers,
    Epochs,
    LearningRate,
    MaxSteps,
    OverrideFiles,
    Overrides,
    Seed,
    Workers,
    examples,
)


class Notation(StrEnum):
    """How a config is written."""

    YAML = "yaml"
    JSON = "json"


def add_to(app: typer.Typer) -> None:
    app.command(
        epilog=examples(
            "cnnbp config lenet5.yaml --set train.optimizer=sgd",
            "cnnbp config lenet5.yaml --set-file fast.yaml > mine.yaml",
            "cnnbp config resnet50.yaml --expand",
            "cnnbp config lenet5.yaml --format json | jq .train.optimizer",
        )
    )(config)


def config(
    config: ConfigFile,
    overrides: Overrides = None,
    override_files: OverrideFiles = None,
    epochs: Epochs = None,
    max_steps: MaxSteps = None,
    learning_rate: LearningRate = None,
    batch_size: BatchSize = None,
    seed: Seed = None,
    workers: Workers = None,
    layers: CustomLayers = None,
    expand: Annotated[
        bool, typer.Option("--expand", help="Write the layers that blocks stand for in the place of blocks.")
    ] = False,
    format: Annotated[
        Notation, typer.Option("--format", metavar=choices(Notation), help="Output format.")
    ] = Notation.YAML,
) -> None:
    """Print the complete config, with all defaults and overrides."""
    from cnnbp_cli.config.load import load_config
    from cnnbp_cli.config.write import as_yaml, folded, to_dict, to_dict_with_blocks
    from cnnbp_cli.report.records import write_json
    from cnnbp_cli.report.terminal import note, width
    from cnnbp_cli.report.void import warn_of_void_keys

    loaded = load_config(config, overrides or ())
    warn_of_void_keys(loaded)
    if not expand and loaded.positions.expansion.changed:
        note("written without blocks, as overrides change single layers of them")
    values = to_dict(loaded) if expand else to_dict_with_blocks(loaded)
    if format is Notation.JSON:
        write_json(values)
    else:
        text = as_yaml(values)
        print(folded(text, width()) if sys.stdout.isatty() else text, end="")
