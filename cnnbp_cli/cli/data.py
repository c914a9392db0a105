"""`cnnbp data`: what there is to train on."""

from __future__ import annotations

import typer

from cnnbp_cli.cli.boundary import Group
from cnnbp_cli.cli.options import ConfigFile, Format, OutputFormat, OverrideFiles, Overrides, OwnLayers, examples


def add_to(app: typer.Typer) -> None:
    data = typer.Typer(cls=Group, no_args_is_help=True)
    data.command(epilog=examples("cnnbp data info lenet5.yaml", "cnnbp data info lenet5.yaml --format json"))(info)
    app.add_typer(data, name="data")
    data.callback()(group)


def group() -> None:
    """Look at data sets."""


def info(
    config: ConfigFile,
    overrides: Overrides = None,
    override_files: OverrideFiles = None,
    layers: OwnLayers = None,
    format: OutputFormat = Format.TABLE,
) -> None:
    """Show the splits of a config's data: images, classes, pixel statistics and memory."""
    from cnnbp_cli.config.load import load_config
    from cnnbp_cli.data.info import data_info
    from cnnbp_cli.loading import load_data
    from cnnbp_cli.report.data import render

    render(data_info(load_data(load_config(config, overrides or ()))), format.value)
