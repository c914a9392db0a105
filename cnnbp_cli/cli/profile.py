"""`cnnbp profile`: where the time of a training step goes."""

from __future__ import annotations

from typing import Annotated

import typer

from cnnbp_cli.cli.options import (
    ConfigFile,
    CustomLayers,
    Format,
    OutputFormat,
    OverrideFiles,
    Overrides,
    examples,
    short_for,
)


def add_to(app: typer.Typer) -> None:
    app.command(epilog=examples("cnnbp profile lenet5.yaml", "cnnbp profile lenet5.yaml --batch-size 128 --workers 1"))(
        profile
    )


def profile(
    config: ConfigFile,
    overrides: Overrides = None,
    override_files: OverrideFiles = None,
    steps: Annotated[int, typer.Option(min=2, metavar="N", help="Steps to measure; the faster half counts.")] = 40,
    batch_size: Annotated[
        str | None, short_for("train.batch_size", "N", "--batch-size", "--batch", help="Images in a batch")
    ] = None,
    workers: Annotated[
        str | None,
        short_for(
            "train.workers", "N", "--workers", help="Number of processes that share each batch, the first is measured"
        ),
    ] = None,
    layers: CustomLayers = None,
    format: OutputFormat = Format.TABLE,
) -> None:
    """Measure each layer's time forward and backward, beside the machine's peak."""
    from cnnbp_cli.analysis.profile import profile as measure
    from cnnbp_cli.loading import load, load_data
    from cnnbp_cli.report.live import working
    from cnnbp_cli.report.profile import render

    model = load(config, overrides or ())
    with working("profiling, step") as tick:
        measured = measure(model, load_data(model), steps=steps, progress=tick)
    render(measured, format.value)
