"""`cnnbp train`: train what a config describes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cnnbp_cli.cli import complete
from cnnbp_cli.cli.options import (
    BatchSize,
    CustomLayers,
    Epochs,
    Format,
    LearningRate,
    MaxSteps,
    OutputFormat,
    OverrideFiles,
    Overrides,
    PartialWeights,
    Seed,
    WeightFile,
    WeightMap,
    Workers,
    examples,
)


def add_to(app: typer.Typer) -> None:
    app.command(
        epilog=examples(
            "cnnbp train lenet5.yaml --epochs 2",
            "cnnbp train lenet5.yaml --batch-size 32 --set model.init=glorot_normal --out runs/small",
            "cnnbp train runs/small --resume --epochs 20",
            "cnnbp train lenet5.yaml --weights pretrained.safetensors",
        )
    )(train)


def train(
    context: typer.Context,
    config: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG|RUN",
            autocompletion=complete.sources,
            help="A YAML config, - for standard input, or a template's name. The config of a run is trained anew; "
            "with --resume, the run goes on.",
        ),
    ],
    overrides: Overrides = None,
    override_files: OverrideFiles = None,
    epochs: Epochs = None,
    max_steps: MaxSteps = None,
    learning_rate: LearningRate = None,
    batch_size: BatchSize = None,
    seed: Seed = None,
    workers: Workers = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The run directory; by default the next free runs/NAME-K.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume the run RUN, or the run in --out if it exists.")
    ] = False,
    allow_changes: Annotated[
        bool,
        typer.Option(
            "--allow-changes", help="Resume with other settings or data than the run so far, and record the change."
        ),
    ] = False,
    grad_norms: Annotated[
        bool, typer.Option("--grad-norms", help="Show every layer's gradient norm at each recorded step.")
    ] = False,
    watch_every: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="K",
            help="Record statistics of every layer at the first and every K-th step: 25 by default, 1 with "
            "--grad-norms, 0 for never.",
        ),
    ] = None,
    weights: WeightFile = None,
    weight_map: WeightMap = None,
    partial_weights: PartialWeights = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show results only, no progress.")] = False,
    layers: CustomLayers = None,
    format: OutputFormat = Format.TABLE,
) -> None:
    """Train a network, save it as a run, and test it."""
    if resume and Path(config).is_dir():
        config, out = _run(Path(config), out)
    if resume and out is None:
        raise typer.BadParameter("names no run: give RUN instead of CONFIG, or add --out DIR", param_hint="--resume")
    if allow_changes and not resume:
        raise typer.BadParameter("requires --resume", param_hint="--allow-changes")
    from contextlib import closing

    from cnnbp_cli.analysis.gradnorms import blocks_of
    from cnnbp_cli.build import build
    from cnnbp_cli.cli.boundary import VERDICT
    from cnnbp_cli.cli.interrupts import INTERRUPTED, Interrupts
    from cnnbp_cli.config.load import load_config
    from cnnbp_cli.loading import load_data
    from cnnbp_cli.report.terminal import note
    from cnnbp_cli.report.train import rendering
    from cnnbp_cli.report.void import warn_of_void_keys
    from cnnbp_cli.train.event_log import metrics
    from cnnbp_cli.train.events import Event, Interrupted, NonFinite
    from cnnbp_cli.train.fit import fit
    from cnnbp_cli.train.run_directory import RunDirectory
    from cnnbp_cli.train.statistics import WATCH_EVERY
    from cnnbp_cli.weights import use_weights

    loaded = load_config(config, overrides or ())
    model, data = build(loaded), load_data(loaded, out and RunDirectory(out).measured)
    for remark in data.remarks:
        note(remark)
    warn_of_void_keys(loaded, data=data)
    if Path(config).is_dir() and not quiet:
        note(f"a new run with the config of {config}; add --resume to continue that run instead")
    run = out or RunDirectory.next_under(Path("runs"), loaded.name)
    if weights is not None:
        if resume and RunDirectory(run).checkpoints():
            raise typer.BadParameter(f"has no effect: {run} has weights of its own already", param_hint="--weights")
        use_weights(model, weights)
    last: Event | None = None
    norms = blocks_of(model.graph) if grad_norms else None
    chance = data.train.chance if model.classifies else None
    with (
        Interrupts() as stop,
        rendering(format.value, quiet=quiet, norms=norms, chance=chance, columns=metrics(loaded)) as render,
    ):
        events = fit(
            model,
            data,
            run=run,
            resume=resume,
            allow_changes=allow_changes,
            watch_every=watch_every if watch_every is not None else 1 if grad_norms else WATCH_EVERY,
            stop=stop,
            team=context.obj,
        )
        with closing(events):  # type: ignore[type-var]
            for last in events:
                render(last)
    if isinstance(last, NonFinite | Interrupted):
        raise typer.Exit(VERDICT if isinstance(last, NonFinite) else INTERRUPTED)


def _run(run: Path, out: Path | None) -> tuple[str, Path]:
    """Return the config of a run that was given instead of one, and where it goes on."""
    if out is not None and out.resolve() != run.resolve():
        raise typer.BadParameter(f"names another folder than {run}, which is the one resumed", param_hint="--out")
    from cnnbp_cli.train.run_directory import RunDirectory

    RunDirectory(run).require_files()
    if not (run / "config.yaml").exists():
        raise typer.BadParameter(f"{run} contains no run to resume", param_hint="CONFIG|RUN")
    return str(run / "config.yaml"), run
