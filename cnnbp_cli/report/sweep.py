"""`cnnbp sweep`: how far the runs are, on standard error, and the ranked table in the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import isfinite
from time import perf_counter
from typing import Any

from cnnbp_cli.report.live import BAR, EVERY, PATIENCE, Line, is_live
from cnnbp_cli.report.records import write_csv, write_json
from cnnbp_cli.report.table import Cell, Column, Table, line
from cnnbp_cli.report.terminal import note, width
from cnnbp_cli.report.text import count, duration, figure, percent
from cnnbp_cli.sweep.engine import PointDone, PointProgress, PointStarted, SweepEvent, SweepFinished, SweepStarted
from cnnbp_cli.sweep.outcome import Outcome
from cnnbp_cli.sweep.points import Space
from cnnbp_cli.train.events import RUN_FIGURES, EpochDone, RunStarted, StepDone


@contextmanager
def rendering(format: str, space: Space, *, quiet: bool) -> Iterator[Callable[[SweepEvent], None]]:
    """Render events until the block ends: the table on standard output, progress on standard error."""
    names = short([axis.key for axis in space.axes])
    watch = Silence() if quiet else Live(names) if is_live() else Log(names)

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
    """A line with a bar: runs that are done, those that are going on, the best so far, the time left."""

    def __init__(self, names: dict[str, str]) -> None:
        self._names = names
        self._line = Line()
        self._running: dict[str, float] = {}
        self._steps: dict[str, int] = {}
        self._count = self._done = self._first = 0
        self._by, self._best = "", ""
        self._score = float("inf")
        self._started = perf_counter()
        self._due = self._started + PATIENCE

    def __call__(self, event: SweepEvent) -> None:
        if isinstance(event, SweepStarted):
            self._count, self._by = event.count, event.by
            self._done = self._first = event.done
            note(started(event))
        elif isinstance(event, PointStarted):
            self._running[event.run] = 0.0
        elif isinstance(event, PointProgress):
            self._progress(event)
        elif isinstance(event, PointDone):
            self._over(event.outcome)
        if (now := perf_counter()) >= self._due:
            self._due = now + EVERY
            self._line.draw(self.fitting(width() - 1 - BAR - 2), self._share())

    def _progress(self, event: PointProgress) -> None:
        if isinstance(event.event, RunStarted):
            self._steps[event.run] = max(event.event.total_steps, 1)
        elif isinstance(event.event, StepDone | EpochDone):
            self._running[event.run] = event.event.step / self._steps[event.run]

    def _over(self, outcome: Outcome) -> None:
        self._running.pop(outcome.run, None)
        self._done += outcome.status != "interrupted"
        if (score := outcome.score(self._by)) < self._score:
            self._score = score
            self._best = f"best {_figure(self._by, outcome.figures[self._by])} ({outcome.run})"
        if outcome.status == "failed":
            self._line.erase()
            note(over(outcome, self._by, self._names))

    def _share(self) -> float:
        return (self._done + sum(self._running.values())) / max(self._count, 1)

    def fields(self) -> list[str]:
        """Return how many runs are done and going on, the best so far, and the time left, as words."""
        done = self._share() * self._count - self._first
        left = (perf_counter() - self._started) / done * (self._count - self._first - done) if done > 0 else None
        return [
            f"{self._done}/{self._count} runs",
            *([f"{len(self._running)} running"] if self._running else []),
            *([self._best] if self._best else []),
            *([] if left is None else [f"{duration(left)} left"]),
        ]

    def fitting(self, columns: int) -> str:
        """Return the fields on one line, without those in the middle that do not fit."""
        fields = self.fields()
        for least in ("running", "best"):
            if len("  ".join(fields)) > columns:
                fields = [field for field in fields if least not in field]
        return "  ".join(fields)

    def close(self) -> None:
        self._line.erase()


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
