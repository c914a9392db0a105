"""`cnnbp sweep`: how far the runs are, on standard error, and the ranked table in the end."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import isfinite
from time import perf_counter
from typing import TYPE_CHECKING, Any

from cnnbp_cli.report.records import write_csv, write_json
from cnnbp_cli.report.table import Cell, Column, Table, line
from cnnbp_cli.report.terminal import console, note, plain
from cnnbp_cli.report.text import count, duration, figure, percent
from cnnbp_cli.sweep.engine import PointDone, PointProgress, PointStarted, SweepEvent, SweepFinished, SweepStarted
from cnnbp_cli.sweep.outcome import Outcome
from cnnbp_cli.sweep.points import Space
from cnnbp_cli.train.events import RUN_FIGURES, EpochDone, RunStarted, StepDone

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

DRAW_EVERY = 0.15  # seconds
FEWEST_SHOWN = 8  # running runs that get a line on the terminal


@contextmanager
def rendering(format: str, space: Space, *, quiet: bool) -> Iterator[Callable[[SweepEvent], None]]:
    """Render events until the block ends: the table on standard output, progress on standard error."""
    names = short([axis.key for axis in space.axes])
    is_terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    watch = Silence() if quiet else Live(names) if is_terminal else Log(names)

    def draw(event: SweepEvent) -> None:
        watch(event)
        if isinstance(event, SweepFinished):
            watch.close()
            render(event, names, format)

    try:
        yield draw
    finally:
        watch.close()


def short(keys: Sequence[str]) -> dict[str, str]:
    """Return the shortest end of each key that no other key has: ``train.batch_size`` is ``batch_size``."""
    names: dict[str, str] = {}
    for key in keys:
        parts = key.split(".")
        ends = [".".join(parts[k:]) for k in range(len(parts) - 1, -1, -1)]
        others = [other for other in keys if other != key]
        names[key] = next((end for end in ends if not any(f".{other}".endswith(f".{end}") for other in others)), key)
    return names


# ---------------------------------------------------------------------- the result


def render(finished: SweepFinished, names: dict[str, str], format: str) -> None:
    """Write the runs, the best first."""
    if format == "json":
        write_json(
            {
                "sweep": str(finished.folder),
                "by": finished.by,
                "count": finished.count,
                "best": finished.best.run if finished.best else None,
                "runs": [{"rank": rank} | outcome.to_dict() for rank, outcome in _with_ranks(finished)],
            }
        )
    elif format == "csv":
        header = ["rank", "run", "status", *names, *RUN_FIGURES, "epoch", "steps", "seconds", "reason"]
        write_csv(header, (_record(rank, outcome, [*names]) for rank, outcome in _with_ranks(finished)))
    else:
        _table(finished, names)
    if finished.interrupted:
        done = sum(outcome.status != "interrupted" for outcome in finished.outcomes)
        note(f"interrupted: {done} of {finished.count} runs are over; resume with --out {finished.folder} --resume")


def _with_ranks(finished: SweepFinished) -> list[tuple[int | None, Outcome]]:
    """Return the outcomes with their ranks; those without the figure have none."""
    return [
        (rank if isfinite(outcome.score(finished.by)) else None, outcome)
        for rank, outcome in enumerate(finished.outcomes, 1)
    ]


def _record(rank: int | None, outcome: Outcome, keys: Sequence[str]) -> list[Any]:
    values = [value if isinstance(value, str) else json.dumps(value) for value in map(outcome.values.get, keys)]
    figures = [outcome.figures[name] for name in RUN_FIGURES]
    return [
        rank,
        outcome.run,
        outcome.status,
        *values,
        *figures,
        outcome.epoch,
        outcome.step,
        outcome.seconds,
        outcome.reason,
    ]


def _table(finished: SweepFinished, names: dict[str, str]) -> None:
    if not finished.outcomes:
        return
    by = finished.by
    others = [
        name
        for name in RUN_FIGURES
        if name != by and any(outcome.figures[name] is not None for outcome in finished.outcomes)
    ]
    others.sort(key=lambda name: not name.startswith("validation"))  # what is left out last
    columns = [Column("rank"), Column("run")]
    for key, name in names.items():
        is_number = all(isinstance(outcome.values[key], int | float) for outcome in finished.outcomes)
        columns.append(Column(name.replace("_", "\n"), text=not is_number))
    columns.append(Column(by.replace("_", "\n"), leaves=1, width=8))  # the last one stays, whatever the width
    columns += [Column(name.replace("_", "\n"), leaves=k, width=8) for k, name in enumerate(others, 2)]
    columns += [Column("epoch", leaves=len(others) + 2), Column("time", leaves=len(others) + 3, width=6)]
    rows: list[list[Cell]] = []
    for rank, outcome in _with_ranks(finished):
        style = "bold" if outcome is finished.best else "" if outcome.status == "finished" else "dim"
        cells = [str(rank or "-"), outcome.run, *(_value(outcome.values[key]) for key in names)]
        cells.append(_figure(by, outcome.figures[by]) if outcome.status == "finished" else outcome.status)
        cells += [_figure(name, outcome.figures[name]) for name in others]
        cells += [str(outcome.epoch or "-"), duration(outcome.seconds) if outcome.seconds else "-"]
        rows.append([(cell, style) for cell in cells])
    table = Table(columns, rows)
    table.note_left_out()
    table.header()
    for row in rows:
        table.row(row)
    line()
    for reason, runs in _reasons(finished.outcomes):
        line(f"{', '.join(runs)} failed: {reason}")
    if best := finished.best:
        line(f"best {by.replace('_', ' ')}: {_figure(by, best.figures[by])}, {_settings(best.values, names)}", "bold")
        line(f"run: {finished.folder / best.run}")
    else:
        line("no run finished")
        line(f"sweep: {finished.folder}")


def _reasons(outcomes: Sequence[Outcome]) -> list[tuple[str, list[str]]]:
    """Return why runs failed, each reason with all the runs that have it."""
    runs: dict[str, list[str]] = {}
    for outcome in outcomes:
        if outcome.reason:
            runs.setdefault(outcome.reason, []).append(outcome.run)
    return [*runs.items()]


def _figure(name: str, value: float | None) -> str:
    return percent(value) if name.endswith("accuracy") else figure(value)


def _value(value: Any) -> str:
    """Write a value as YAML would: ``64``, ``same``, ``{type: adam}``."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_value(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return value if isinstance(value, str) else json.dumps(value)


def _settings(values: dict[str, Any], names: dict[str, str]) -> str:
    return " ".join(f"{name}={_value(values[key])}" for key, name in names.items())


# ---------------------------------------------------------------------- progress


class Silence:
    """The progress of `--quiet`."""

    def __call__(self, event: SweepEvent) -> None:
        """Say nothing."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class Log(Silence):
    """A line at the start, and one for each run that is over."""

    def __init__(self, names: dict[str, str]) -> None:
        self._names = names
        self._count = self._done = 0
        self._by = ""

    def __call__(self, event: SweepEvent) -> None:
        if isinstance(event, SweepStarted):
            self._count, self._done, self._by = event.count, event.done, event.by
            note(started(event))
        elif isinstance(event, PointDone):
            self._done += event.outcome.status != "interrupted"
            note(f"{self._done}/{self._count}  {over(event.outcome, self._by, self._names)}")


class Live(Silence):
    """A bar for the sweep, and one for each run that is going on."""

    def __init__(self, names: dict[str, str]) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        self._names = names
        self._console = console(sys.stderr)
        self._console.soft_wrap = False
        self._bar: Progress = Progress(
            BarColumn(bar_width=12),
            TextColumn("{task.description}", markup=False),
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._total: TaskID = self._bar.add_task("", total=None)
        self._runs: dict[str, TaskID] = {}
        self._steps: dict[str, RunStarted] = {}
        self._started, self._first, self._next = perf_counter(), 0, 0.0
        self._count = self._done = 0
        self._by, self._best = "", ""
        self._score = float("inf")

    def __call__(self, event: SweepEvent) -> None:
        if isinstance(event, SweepStarted):
            self._count, self._by = event.count, event.by
            self._done = self._first = event.done
            note(started(event))
            self._bar.start()
        elif isinstance(event, PointStarted):
            text = f"{event.run}  {_settings(event.values, self._names)}"
            visible = len(self._runs) < FEWEST_SHOWN
            self._runs[event.run] = self._bar.add_task(self._fit(text), total=None, visible=visible)
        elif isinstance(event, PointProgress):
            self._progress(event)
        elif isinstance(event, PointDone):
            self._over(event.outcome)
        self._draw()

    def _progress(self, event: PointProgress) -> None:
        if isinstance(event.event, RunStarted):
            self._steps[event.run] = event.event
        elif isinstance(event.event, StepDone | EpochDone):
            done, run = event.event, self._steps[event.run]
            loss = done.loss if isinstance(done, StepDone) else done.train_loss
            text = f"{event.run}  epoch {done.epoch}/{run.epochs}  loss {figure(loss)}"
            self._bar.update(
                self._runs[event.run], completed=done.step, total=run.total_steps, description=self._fit(text)
            )

    def _over(self, outcome: Outcome) -> None:
        if (task := self._runs.pop(outcome.run, None)) is not None:
            self._bar.remove_task(task)
        self._done += outcome.status != "interrupted"
        if (score := outcome.score(self._by)) < self._score:
            self._score = score
            self._best = f"  best {_figure(self._by, outcome.figures[self._by])} ({outcome.run})"
        if outcome.status == "failed":
            self._bar.console.print(plain(over(outcome, self._by, self._names), sys.stderr))

    def _draw(self) -> None:
        if perf_counter() < self._next:
            return
        text = f"{self._done}/{self._count} runs{self._best}"
        if self._done > self._first:
            seconds = (perf_counter() - self._started) / (self._done - self._first) * (self._count - self._done)
            text += f"  {duration(seconds)} left"
        self._bar.update(self._total, completed=self._done, total=self._count, description=self._fit(text))
        self._bar.refresh()
        self._next = perf_counter() + DRAW_EVERY

    def _fit(self, text: str) -> str:
        width = max(self._console.width - 14, 8)
        return text if len(text) <= width else text[: width - 1] + "…"

    def close(self) -> None:
        self._bar.stop()


def started(event: SweepStarted) -> str:
    """Say what begins."""
    done = f", {event.done} of them done already" if event.done else ""
    by = f"ranked by {event.by.replace('_', ' ')}"
    if event.by == "train_loss":
        by += " (no images are held out: set data.validation to rank by how well they generalize)"
    return f"{count(event.count, 'run')}{done}, {event.jobs} at a time, in {event.folder}; {by}"


def over(outcome: Outcome, by: str, names: dict[str, str]) -> str:
    """Say what became of a run."""
    if outcome.status == "finished":
        told = f"{by.replace('_', ' ')} {_figure(by, outcome.figures[by])}, {duration(outcome.seconds)}"
    else:
        told = f"failed: {outcome.reason}" if outcome.status == "failed" else f"interrupted after step {outcome.step}"
    return f"{outcome.run}  {_settings(outcome.values, names)}  {told}"
