"""`cnnbp gradcheck`: prove that the gradients are correct."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from cnnbp_cli.cli import complete
from cnnbp_cli.cli.help import choices
from cnnbp_cli.cli.options import CustomLayers, Format, OutputFormat, OverrideFiles, Overrides, examples


class Method(StrEnum):
    """How numerical derivatives are found."""

    COMPLEX = "complex"
    CENTRAL = "central"


class Precision(StrEnum):
    """The precision of central differences."""

    FLOAT64 = "float64"
    FLOAT32 = "float32"


def add_to(app: typer.Typer) -> None:
    app.command(
        epilog=examples(
            "cnnbp gradcheck toy.yaml --elements all",
            "cnnbp gradcheck lenet5.yaml --layer conv1 --directions 20",
            "cnnbp gradcheck runs/lenet5-1 --method central --step 1e-6",
            "cnnbp gradcheck resnet18.yaml --set model.input=[3,64,64] --time 60",
            "cnnbp gradcheck mine.yaml --layers mine.py",
        )
    )(gradcheck)


def parse_count(text: str) -> int | str:
    """Read a number or `all`."""
    if text == "all" or (text.isascii() and text.isdigit()):
        return text if text == "all" else int(text)
    raise typer.BadParameter(f"expected a number or all, got {text!r}")


def gradcheck(
    source: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG|RUN|CHECKPOINT",
            autocompletion=complete.sources,
            help="A YAML config, - for standard input, or the name of a template; a run or a checkpoint.",
        ),
    ],
    overrides: Overrides = None,
    override_files: OverrideFiles = None,
    method: Annotated[
        Method,
        typer.Option(
            metavar=choices(Method),
            help="Complex steps (exact to machine precision) or central differences (as in textbooks).",
        ),
    ] = Method.COMPLEX,
    batch: Annotated[
        int, typer.Option(min=1, metavar="N", help="Number of images, from the first training batch.")
    ] = 4,
    directions: Annotated[
        int, typer.Option(min=0, metavar="N", help="Random directions in each parameter tensor.")
    ] = 3,
    elements: Annotated[
        str, typer.Option(metavar="N|all", help="Single elements of each tensor, chosen at random.")
    ] = "5",
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            metavar="T",
            show_default="1e-10 for complex, 1e-5 for central, 1e-2 in float32",
            help="The largest relative error that passes.",
        ),
    ] = None,
    step: Annotated[
        float | None,
        typer.Option(metavar="H", show_default="1e-5, or 1e-2 in float32", help="Step length for --method central."),
    ] = None,
    dtype: Annotated[
        Precision,
        typer.Option(
            metavar=choices(Precision), help="Precision for --method central. float32 shows why it is not enough."
        ),
    ] = Precision.FLOAT64,
    layer: Annotated[
        str | None, typer.Option(metavar="NAME", autocompletion=complete.layers, help="Check only this layer.")
    ] = None,
    parameter: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=complete.parameters,
            help="Check only this tensor, such as conv1.weight or input.",
        ),
    ] = None,
    time: Annotated[
        float | None,
        typer.Option(
            min=0.001, metavar="SECONDS", help="Stop comparing after this time; each tensor gets the same share of it."
        ),
    ] = None,
    comparisons: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Make the first N comparisons only, as a check with --time did."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed for the directions and elements.")] = 0,
    layers: CustomLayers = None,
    format: OutputFormat = Format.TABLE,
) -> None:
    """Compare every gradient with a numerical derivative of the loss, and explain each mismatch.

    Dropout keeps one mask. A network that behaves differently in evaluation mode is checked in both modes.
    """
    count = parse_count(elements)
    if directions == count == 0:
        raise typer.BadParameter("nothing to check: give --directions or --elements")
    if method is Method.COMPLEX and step is not None:
        raise typer.BadParameter("only applies to --method central", param_hint="--step")
    if method is Method.COMPLEX and dtype is Precision.FLOAT32:
        raise typer.BadParameter(
            "only applies to --method central: complex steps always use double precision", param_hint="--dtype"
        )
    from cnnbp_cli.analysis.batch import first_batch
    from cnnbp_cli.cli.boundary import VERDICT
    from cnnbp_cli.gradient_check.check import gradcheck as check
    from cnnbp_cli.loading import load
    from cnnbp_cli.report.gradcheck import announce, render
    from cnnbp_cli.report.live import working

    model = load(source, overrides or ())
    images, labels = first_batch(model, batch)
    with working("checking gradients, comparison") as tick:
        report = check(
            model,
            images,
            labels,
            method=method.value,
            directions=directions,
            elements=count,  # type: ignore[arg-type]
            tolerance=tolerance,
            step=step,
            dtype=dtype.value,
            seed=seed,
            layer=layer,
            parameter=parameter,
            time=time,
            comparisons=comparisons,
            announce=lambda planned, seconds: announce(planned, seconds, time),
            progress=tick,
        )
    render(report, format.value)
    if not report.ok:
        raise typer.Exit(VERDICT)
