"""`cnnbp gradcheck`: prove that the gradients are right."""

from __future__ import annotations

from typing import Annotated

import typer

from cnnbp_cli.cli.options import ConfigFile, Format, OutputFormat, Overrides, examples


def add_to(app: typer.Typer) -> None:
    app.command(
        epilog=examples(
            "cnnbp gradcheck toy.yaml --elements all", "cnnbp gradcheck lenet5.yaml --layer conv1 --directions 20"
        )
    )(gradcheck)


def how_many(text: str) -> int | str:
    """Read a number, or the word for all."""
    if text == "all" or (text.isascii() and text.isdigit()):
        return text if text == "all" else int(text)
    raise typer.BadParameter(f"expected a number or all, got {text!r}")


def gradcheck(
    config: ConfigFile,
    overrides: Overrides = None,
    batch: Annotated[int, typer.Option(min=1, help="Images: the first of the first training batch.")] = 4,
    directions: Annotated[int, typer.Option(min=0, help="Random directions in each parameter tensor.")] = 3,
    elements: Annotated[
        str, typer.Option(metavar="N|all", help="Single elements of each tensor, drawn at random.")
    ] = "5",
    tolerance: Annotated[float, typer.Option(min=0.0, help="The largest relative error that passes.")] = 1e-10,
    layer: Annotated[str | None, typer.Option(metavar="NAME", help="Check this layer only.")] = None,
    parameter: Annotated[
        str | None, typer.Option(metavar="NAME", help="Check this tensor only, as in conv1.weight, or the input.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Draws the directions and the elements.")] = 0,
    format: OutputFormat = Format.TABLE,
) -> None:
    """Compare every gradient with the complex-step derivative of the loss, exact to machine precision."""
    count = how_many(elements)
    if directions == count == 0:
        raise typer.BadParameter("nothing to check: give --directions or --elements")
    from cnnbp_cli.cli.boundary import VERDICT
    from cnnbp_cli.inspect.batch import first_batch
    from cnnbp_cli.inspect.gradcheck import gradcheck as check
    from cnnbp_cli.loading import load
    from cnnbp_cli.report.gradcheck import render

    model = load(config, overrides or ())
    images, labels = first_batch(model, batch)
    report = check(
        model,
        images,
        labels,
        directions=directions,
        elements=count,  # type: ignore[arg-type]
        tolerance=tolerance,
        seed=seed,
        layer=layer,
        parameter=parameter,
    )
    render(report, format.value)
    if not report.ok:
        raise typer.Exit(VERDICT)
