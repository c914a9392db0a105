"""`cnnbp validate`: is a config right, before anything is computed?"""

from __future__ import annotations

from typing import Annotated

import typer

from cnnbp_cli.cli import complete
from cnnbp_cli.cli.options import CustomLayers, Format, OutputFormat, OverrideFiles, Overrides, examples


def add_to(app: typer.Typer) -> None:
    app.command(epilog=examples("cnnbp validate lenet5.yaml", "cnnbp validate configs/*.yaml --format json"))(validate)


def validate(
    configs: Annotated[
        list[str],
        typer.Argument(
            metavar="CONFIG",
            autocompletion=complete.configs,
            help="YAML configs, - for standard input, templates or runs.",
        ),
    ],
    data: Annotated[
        bool, typer.Option("--data", help="Read the data too, and check that the network can learn it.")
    ] = False,
    overrides: Overrides = None,
    override_files: OverrideFiles = None,
    layers: CustomLayers = None,
    format: OutputFormat = Format.TABLE,
) -> None:
    """Check configs, including the shapes of all layers, and show where each problem is."""
    from cnnbp_cli.analysis.validate import validate_config
    from cnnbp_cli.cli.boundary import BAD_INPUT
    from cnnbp_cli.report.validate import render

    verdicts = [validate_config(config, overrides or (), with_data=data) for config in configs]
    render(verdicts, format.value)
    if not all(verdict.ok for verdict in verdicts):
        raise typer.Exit(BAD_INPUT)
