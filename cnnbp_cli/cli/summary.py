"""`cnnbp summary`: what a network consists of and what it costs."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from cnnbp_cli.cli.help import choices
from cnnbp_cli.cli.options import (
    ConfigFile,
    CustomLayers,
    OverrideFiles,
    Overrides,
    PaperFormat,
    PaperOutput,
    examples,
)


class Drawing(StrEnum):
    """The languages in which the network can be drawn."""

    DOT = "dot"
    MERMAID = "mermaid"
    SVG = "svg"


def add_to(app: typer.Typer) -> None:
    app.command(
        epilog=examples(
            "cnnbp summary lenet5.yaml",
            "cnnbp summary lenet5.yaml --set model.layers.conv1.filters=12 --memory",
            "cnnbp summary lenet5.yaml --format latex",
            "cnnbp summary resnet-mini.yaml --graph svg > resnet-mini.svg",
        )
    )(summary)


def summary(
    config: ConfigFile,
    overrides: Overrides = None,
    override_files: OverrideFiles = None,
    memory: Annotated[
        bool, typer.Option("--memory", help="Show receptive fields and memory instead of parameters and operations.")
    ] = False,
    graph: Annotated[
        Drawing | None,
        typer.Option(
            metavar=choices(Drawing), help="Draw the network instead: for Graphviz, for Mermaid, or as a picture."
        ),
    ] = None,
    layers: CustomLayers = None,
    format: PaperOutput = PaperFormat.TABLE,
) -> None:
    """Show each layer's type, inputs, output shape and parameters, and the totals."""
    if graph and (memory or format is not PaperFormat.TABLE):
        other = "--memory" if memory else f"--format {format.value}"
        raise typer.BadParameter(f"draws the network, and {other} does not apply to that", param_hint="--graph")
    from cnnbp_cli.analysis.summary import summary as summarize
    from cnnbp_cli.config.load import load_config
    from cnnbp_cli.report.graph import draw
    from cnnbp_cli.report.summary import render

    network = summarize(load_config(config, overrides or ()))
    if graph:
        draw(network, graph.value)
    else:
        render(network, format.value, memory=memory)
