"""`cnnbp config`: what a config comes to, with its defaults and overrides."""

from __future__ import annotations

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
    format: Annotated[
        Notation, typer.Option("--format", metavar=choices(Notation), help="Output format.")
    ] = Notation.YAML,
) -> None:
    """Print the complete config, with all defaults and overrides."""
    from cnnbp_cli.config.load import load_config
    from cnnbp_cli.config.write import to_dict, to_yaml
    from cnnbp_cli.report.records import write_json
    from cnnbp_cli.report.void import warn_of_void_keys

    loaded = load_config(config, overrides or ())
    warn_of_void_keys(loaded)
    if format is Notation.JSON:
        write_json(to_dict(loaded))
    else:
        print(to_yaml(loaded), end="")
