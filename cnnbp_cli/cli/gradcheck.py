"""`cnnbp gradcheck`: prove that the gradients are right."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from cnnbp_cli.cli import complete
from cnnbp_cli.cli.options import Format, OutputFormat, OverrideFiles, Overrides, OwnLayers, examples


class Method(StrEnum):
    """How derivatives are found numerically."""

    COMPLEX = "complex"
    CENTRAL = "central"


class Precision(StrEnum):
    """What central differences are computed in."""

    FLOAT64 = "float64"
    FLOAT32 = "float32"


def add_to(app: typer.Typer) -> None:
    app.command(
        epilog=examples(
            "cnnbp gradcheck toy.yaml --elements all",
            "cnnbp gradcheck lenet5.yaml --layer conv1 --directions 20",
            "cnnbp gradcheck runs/lenet5-1 --method central --step 1e-6",
            "cnnbp gradcheck mine.yaml --layers mine.py",
        )
    )(gradcheck)


def how_many(text: str) -> int | str:
    """Read a number, or the word for all."""
    if text == "all" or (text.isascii() and text.isdigit()):
        return text if text == "all" else int(text)
    raise typer.BadParameter(f"expected a number or all, got {text!r}")


def gradcheck(
    source: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG|RUN|CHECKPOINT",
            autocompletion=complete.sources,
            help="A YAML config, or - for standard input; a run or a checkpoint.",
        ),
    ],
    overrides: Overrides = None,
    override_files: OverrideFiles = None,
    method: Annotated[
        Method,
        typer.Option(help="Complex steps, exact to machine precision, or central differences, as in textbooks."),
    ] = Method.COMPLEX,
    batch: Annotated[int, typer.Option(min=1, help="Images: the first of the first training batch.")] = 4,
    directions: Annotated[int, typer.Option(min=0, help="Random directions in each parameter tensor.")] = 3,
    elements: Annotated[
        str, typer.Option(metavar="N|all", help="Single elements of each tensor, drawn at random.")
    ] = "5",
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            show_default="1e-10 for complex, 1e-5 for central, 1e-2 in float32",
            help="The largest relative error that passes.",
        ),
    ] = None,
    step: Annotated[
        float | None,
        typer.Option(show_default="1e-5, in float32 1e-2", help="With --method central: the length of the step."),
    ] = None,
    dtype: Annotated[
        Precision, typer.Option(help="With --method central: the precision. float32 shows why it is not enough.")
    ] = Precision.FLOAT64,
    layer: Annotated[
        str | None, typer.Option(metavar="NAME", autocompletion=complete.layers, help="Check this layer only.")
    ] = None,
    parameter: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=complete.parameters,
            help="Check this tensor only, as in conv1.weight, or the input.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Draws the directions and the elements.")] = 0,
    layers: OwnLayers = None,
    format: OutputFormat = Format.TABLE,
) -> None:
    """Compare every gradient with the derivative of the loss, and say what kind of wrong a wrong one is.

    Dropout draws once and for all; what behaves differently in evaluation mode is checked in that mode, too.
    """
    count = how_many(elements)
    if directions == count == 0:
        raise typer.BadParameter("nothing to check: give --directions or --elements")
    if method is Method.COMPLEX and step is not None:
        raise typer.BadParameter("goes with --method central", param_hint="--step")
    if method is Method.COMPLEX and dtype is Precision.FLOAT32:
        raise typer.BadParameter(
            "goes with --method central: complex steps are always in double precision", param_hint="--dtype"
        )
    from cnnbp_cli.analysis.batch import first_batch
    from cnnbp_cli.cli.boundary import VERDICT
    from cnnbp_cli.gradient_check.check import gradcheck as check
    from cnnbp_cli.loading import load
    from cnnbp_cli.report.gradcheck import render

    model = load(source, overrides or ())
    images, labels = first_batch(model, batch)
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
    )
    render(report, format.value)
    if not report.ok:
        raise typer.Exit(VERDICT)
