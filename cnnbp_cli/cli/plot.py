"""`cnnbp plot`: a run as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cnnbp_cli.cli import complete
from cnnbp_cli.cli.options import examples


def add_to(app: typer.Typer) -> None:
    app.command(
        epilog=examples(
            "cnnbp plot runs/lenet5-1",
            "cnnbp plot runs/lenet5-1 --out lenet5.png",
            "cnnbp plot runs/lenet5-1 --out lenet5.pdf",
        )
    )(plot)


def plot(
    run: Annotated[Path, typer.Argument(metavar="RUN", autocompletion=complete.runs, help="A run directory.")],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Draw with matplotlib into this .png, .svg or .pdf file instead of the terminal."
        ),
    ] = None,
) -> None:
    """Draw loss, accuracy, learning rate and every layer's gradient norm over a run's steps."""
    from cnnbp_cli.analysis.history import read_history
    from cnnbp_cli.report.figure import check_suffix, save_figure
    from cnnbp_cli.report.plot import render
    from cnnbp_cli.report.table import line

    if out is None:
        render(read_history(run))
        return
    check_suffix(out)
    save_figure(read_history(run), out)
    line(f"plot: {out}")
