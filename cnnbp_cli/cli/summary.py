"""`cnnbp summary`: what a network consists of and what it costs."""

from __future__ import annotations

import typer

from cnnbp_cli.cli.options import ConfigFile, CustomLayers, Format, OutputFormat, OverrideFiles, Overrides, examples


def add_to(app: typer.Typer) -> None:
    app.command(
        epilog=examples("cnnbp summary lenet5.yaml", "cnnbp summary lenet5.yaml --set model.layers.conv1.filters=12")
    )(summary)


def summary(
    config: ConfigFile,
    overrides: Overrides = None,
    override_files: OverrideFiles = None,
    layers: CustomLayers = None,
    format: OutputFormat = Format.TABLE,
) -> None:
    """Show each layer's shape, kernel, parameters, operations, receptive field and memory."""
    from cnnbp_cli.analysis.summary import summary as summarize
    from cnnbp_cli.config.load import load_config
    from cnnbp_cli.report.summary import render

    render(summarize(load_config(config, overrides or ())), format.value)
