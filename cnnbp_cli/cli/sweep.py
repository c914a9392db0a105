"""`cnnbp sweep`: many runs of one config, on all cores, ranked."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cnnbp_cli.cli.help import choices
from cnnbp_cli.cli.options import (
    BatchSize,
    ConfigFile,
    CustomLayers,
    Epochs,
    Format,
    LearningRate,
    OutputFormat,
    examples,
    gathered,
    short_for,
)


class By(StrEnum):
    """The figures that runs can be ranked by."""

    VALIDATION_ACCURACY = "validation_accuracy"
    VALIDATION_LOSS = "validation_loss"
    TEST_ACCURACY = "test_accuracy"
    TEST_LOSS = "test_loss"
    TRAIN_LOSS = "train_loss"


class Search(StrEnum):
    """What chooses points."""

    RANDOM = "random"
    OPTUNA = "optuna"


def add_to(app: typer.Typer) -> None:
    app.command(
        epilog=examples(
            "cnnbp sweep toy.yaml --set train.optimizer.learning_rate=0.01,0.03,0.1 --seeds 0,1,2",
            "cnnbp sweep lenet5.yaml --set 'train.schedule.max_learning_rate=log(1e-4..1e-1)' --samples 20",
            "cnnbp sweep lenet5.yaml --set train.batch_size=32,64 --out sweeps/batch --resume",
        )
    )(sweep)


def sweep(
    config: ConfigFile,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUES",
            callback=gathered,
            help="Values of a key, separated by commas, or a range: log(LOW..HIGH), uniform(LOW..HIGH) or "
            "int(LOW..HIGH); a single value is an ordinary override. Repeatable.",
        ),
    ] = None,
    seeds: Annotated[
        str | None, short_for("seed", "N,N,…", "--seeds", "--seed", help="Repeat with these seeds")
    ] = None,
    epochs: Epochs = None,
    learning_rate: LearningRate = None,
    batch_size: BatchSize = None,
    samples: Annotated[
        int | None, typer.Option(min=1, max=10_000, metavar="N", help="Draw N points instead of running all.")
    ] = None,
    search: Annotated[
        Search,
        typer.Option(
            metavar=choices(Search), help="How --samples are chosen: at random, or by Optuna from the results so far."
        ),
    ] = Search.RANDOM,
    search_seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed for the choice of --samples.")] = 0,
    by: Annotated[
        By | None,
        typer.Option(
            metavar="FIGURE",
            help="Rank by " + ", ".join(By) + "; by default the validation accuracy, or the loss without one.",
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            "-j",
            min=1,
            metavar="N",
            help="Number of runs at the same time; by default one per core, or per thread of the Dask workers.",
        ),
    ] = None,
    dask: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Run on the workers of this Dask scheduler, as in tcp://host:8786; --out has to be a folder that all "
            "machines share.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The sweep's folder; by default the next free sweeps/NAME-K.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume the sweep in --out if it exists.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show results only, no progress.")] = False,
    layers: CustomLayers = None,
    format: OutputFormat = Format.TABLE,
) -> None:
    """Train a config with each of many values, and rank the runs."""
    if resume and out is None:
        raise typer.BadParameter("names no sweep: add --out DIR", param_hint="--resume")
    if search is Search.OPTUNA and samples is None:
        raise typer.BadParameter("optuna needs --samples N", param_hint="--search")
    from contextlib import ExitStack, closing

    from cnnbp_cli.cli.boundary import VERDICT
    from cnnbp_cli.cli.interrupts import INTERRUPTED, Interrupts
    from cnnbp_cli.config.load import read_config
    from cnnbp_cli.report.sweep import rendering
    from cnnbp_cli.report.void import warn_of_void_keys
    from cnnbp_cli.sweep.choice import chosen_team, everyone
    from cnnbp_cli.sweep.engine import SweepEvent, SweepFinished
    from cnnbp_cli.sweep.engine import sweep as run_sweep
    from cnnbp_cli.sweep.plan import make_plan
    from cnnbp_cli.sweep.points import read_space
    from cnnbp_cli.sweep.search import optuna_search
    from cnnbp_cli.train.run_directory import RunDirectory

    last: SweepEvent | None = None
    with ExitStack() as stack:
        processes = stack.enter_context(everyone())
        if processes.served:
            return
        space = read_space(overrides or (), sampling=samples is not None)
        if not space.axes:
            raise typer.BadParameter("nothing to sweep: give a key several values, as in --set train.batch_size=32,64")
        figure = by.value if by else None
        plan = make_plan(
            read_config(config),
            space,
            search="grid" if samples is None else search.value,
            samples=samples or 0,
            seed=search_seed,
            by=figure,
        )
        warn_of_void_keys(*(point.config for point in plan.points))
        suggest = optuna_search(plan) if plan.search == "optuna" else None
        folder = out or RunDirectory.next_under(Path("sweeps"), plan.points[0].config.name)
        team, most = stack.enter_context(chosen_team(processes, folder, layers or (), dask=dask))
        stop = stack.enter_context(Interrupts())
        render = stack.enter_context(rendering(format.value, plan.space, quiet=quiet))
        events = run_sweep(plan, folder, jobs=jobs or most, resume=resume, stop=stop, suggest=suggest, team=team)
        with closing(events):  # type: ignore[type-var]
            for last in events:
                render(last)
    if not isinstance(last, SweepFinished) or last.interrupted:
        raise typer.Exit(INTERRUPTED)
    if last.best is None:
        raise typer.Exit(VERDICT)
