"""`cnnbp compare`: what sets runs apart."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cnnbp_cli.cli import complete
from cnnbp_cli.cli.options import PaperFormat, PaperOutput, examples


def add_to(app: typer.Typer) -> None:
    app.command(
        epilog=examples(
            "cnnbp compare runs/lenet5-1 runs/lenet5-2",
            "cnnbp compare runs/lenet5-1 runs/resnet-mini-1 --layers",
            "cnnbp compare runs/lenet5-1 runs/lenet5-2 runs/slow --format json",
        )
    )(compare)


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN",
            autocompletion=complete.runs,
            help="Run directories; the others are measured against the first.",
        ),
    ],
    layers: Annotated[
        bool, typer.Option("--layers", help="Show the layers of the networks side by side, and equal figures too.")
    ] = False,
    format: PaperOutput = PaperFormat.TABLE,
) -> None:
    """Show what differs in the configs of runs, their figures, their loss curves and their gradient flow."""
    if len(runs) < 2:
        raise typer.BadParameter("expected two runs or more", param_hint="RUN")
    from cnnbp_cli.analysis.compare import compare as compare_runs
    from cnnbp_cli.report.compare import render

    render(compare_runs(runs), format.value, layers=layers)
