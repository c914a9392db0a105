"""`cnnbp trace`: one pass through a network, forward and backward, number by number."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cnnbp_cli.cli import complete
from cnnbp_cli.cli.evaluate import Part
from cnnbp_cli.cli.help import choices
from cnnbp_cli.cli.options import (
    CustomLayers,
    LearningRate,
    OverrideFiles,
    Overrides,
    PartialWeights,
    Seed,
    WeightFile,
    WeightMap,
    examples,
)

BATCH = 8
"""Images in a batch of training mode, unless `--batch` says otherwise."""


class Mode(StrEnum):
    """Which mode the pass runs in."""

    EVALUATION = "evaluation"
    TRAINING = "training"


class Of(StrEnum):
    """What of a cell is explained."""

    GRADIENT = "gradient"
    VALUE = "value"
    UPDATE = "update"


class TraceFormat(StrEnum):
    """How a trace is written."""

    TABLE = "table"
    JSON = "json"


def add_to(app: typer.Typer) -> None:
    app.command(
        epilog=examples(
            "cnnbp trace toy.yaml",
            "cnnbp trace toy.yaml --cell 'conv2d_1.weight[0,0,1,1]'",
            "cnnbp trace runs/lenet5-1 --image 7 --html seven.html --open",
            "cnnbp trace runs/lenet5-1 --file photo.png --cell 'input[0,9,9]' --top 5",
        )
    )(trace)


def parse_top(text: str) -> int | None:
    """Read a number or `all`."""
    if text == "all" or (text.isascii() and text.isdigit() and len(text) < 10):
        return None if text == "all" else int(text)
    raise typer.BadParameter(f"expected a number or all, got {text!r}", param_hint="--top")


def trace(
    source: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG|RUN|CHECKPOINT",
            autocompletion=complete.sources,
            help="A config or a template, with fresh weights, a run (its best checkpoint is used) or a checkpoint.",
        ),
    ],
    overrides: Overrides = None,
    override_files: OverrideFiles = None,
    learning_rate: LearningRate = None,
    seed: Seed = None,
    split: Annotated[Part, typer.Option(metavar=choices(Part), help="Split of the data.")] = Part.TEST,
    image: Annotated[int, typer.Option(min=0, metavar="K", help="Which image of the split.")] = 0,
    file: Annotated[
        Path | None,
        typer.Option(metavar="PICTURE", help="Trace this picture or array instead of an image of the data."),
    ] = None,
    label: Annotated[
        int | None, typer.Option(min=0, metavar="L", help="The class to compute the loss for, instead of the image's.")
    ] = None,
    mode: Annotated[
        Mode,
        typer.Option(
            metavar=choices(Mode),
            help="Evaluation (running statistics, no dropout), or training, over a batch with its first image shown.",
        ),
    ] = Mode.EVALUATION,
    batch: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help=f"Images in the batch of --mode training; {BATCH} by default."),
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", autocompletion=complete.layers, help="Show only this layer; repeatable."),
    ] = None,
    cell: Annotated[
        str | None,
        typer.Option(metavar="CELL", help="Explain this cell, such as conv1[2,5,7] or conv1.weight[0,0,1,1]."),
    ] = None,
    of: Annotated[Of, typer.Option(metavar=choices(Of), help="What of the cell to explain.")] = Of.GRADIENT,
    top: Annotated[str, typer.Option(metavar="K|all", help="Show the K largest terms of a cell.")] = "10",
    digits: Annotated[int, typer.Option(min=1, max=15, metavar="D", help="Significant digits.")] = 4,
    exact: Annotated[
        bool, typer.Option("--exact", help="Round weights and pixels to eighths first, for pencil and paper.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the interactive page to this file instead.")
    ] = None,
    light: Annotated[bool, typer.Option("--light", help="Leave the weights of dense layers out of the page.")] = False,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    weights: WeightFile = None,
    weight_map: WeightMap = None,
    partial_weights: PartialWeights = False,
    layers: CustomLayers = None,
    format: Annotated[TraceFormat, typer.Option("--format", metavar=choices(TraceFormat), help="Output format.")] = (
        TraceFormat.TABLE
    ),
) -> None:
    """Show the forward and the backward pass of one image, number by number, and explain any cell.

    A small network is shown whole. A larger one gets a line for each layer, and one cell of each under the microscope.
    Gradients are those of the mean loss over the images traced: loss per unit of the cell.
    """
    if html is None and (light or open_page):
        raise typer.BadParameter("requires --html FILE", param_hint="--light" if light else "--open")
    if html is not None and (cell or layer or format is TraceFormat.JSON):
        raise typer.BadParameter("writes the whole page; leave out --cell, --layer and --format", param_hint="--html")
    if cell is not None and layer:
        raise typer.BadParameter("limits the whole pass; leave it out with --cell", param_hint="--layer")
    if batch is not None and mode is not Mode.TRAINING:
        raise typer.BadParameter("applies only to --mode training; evaluation shows one image", param_hint="--batch")
    shown = parse_top(top)
    from cnnbp_cli.tracing.source import Request, trace_of

    request = Request(split.value, image, file, label, mode.value, batch or BATCH, exact)
    found = trace_of(source, request, overrides or (), weights)
    if html is not None:
        from cnnbp_cli.report.table import line
        from cnnbp_cli.report.terminal import note
        from cnnbp_cli.tracing.source import write_page

        for remark in write_page(found, html, source, light=light):
            note(remark)
        line(f"page: {html}")
        if open_page:
            typer.launch(html.absolute().as_uri())
        return
    from cnnbp_cli.report.trace import render

    render(found, format.value, layers=layer or (), cell=cell, of=of.value, top=shown, digits=digits, exact=exact)
