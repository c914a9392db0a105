"""`cnnbp train`: the results of a run on standard output, as its events arrive."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from cnnbp_cli.analysis.gradnorms import norm_row
from cnnbp_cli.report.gradnorms import Blocks, NormTable
from cnnbp_cli.report.progress import next_step, progress
from cnnbp_cli.report.records import write_csv_row, write_json_line
from cnnbp_cli.report.table import Column, Table, line
from cnnbp_cli.report.terminal import note
from cnnbp_cli.report.text import count, duration, figure, percent
from cnnbp_cli.train.event_log import METRICS, metrics_of
from cnnbp_cli.train.events import (
    EpochDone,
    Event,
    LayersWatched,
    NonFinite,
    RunFinished,
    RunStarted,
    StepDone,
    to_dict,
)


@contextmanager
def rendering(
    format: str,
    *,
    quiet: bool,
    norms: Blocks | None = None,
    chance: float | None = None,
    columns: tuple[str, ...] = METRICS,
) -> Iterator[Callable[[Event], None]]:
    """Render events until the block ends: results on standard output, progress on standard error.

    With `norms`, the blocks of the network's layers, the tables begin with one of gradient norms. At the end of a run
    standard error says what to do next; `chance` is the accuracy of always saying the most frequent class. CSV has the
    `columns` of the run's `metrics.csv`.
    """
    run: str | None = None
    watch = progress(quiet=quiet, results_are_table=format == "table")
    results: Results = Tables(norms) if format == "table" else EpochRows(columns) if format == "csv" else JsonLines()

    def render(event: Event) -> None:
        nonlocal run
        watch(event)
        if isinstance(event, RunStarted):
            run = event.run
        if results.wants(event):
            with watch.aside():
                results(event)
        if isinstance(event, RunFinished | NonFinite) and not quiet and (text := next_step(event, run, chance)):
            watch.close()
            note(text)

    try:
        yield render
    finally:
        watch.close()
        results.close()


class Results(Protocol):
    """What a run comes to, written event by event."""

    def wants(self, event: Event) -> bool: ...
    def __call__(self, event: Event) -> None: ...
    def close(self) -> None: ...


class JsonLines:
    """Every event, as one line of JSON."""

    def wants(self, event: Event) -> bool:
        return True

    def __call__(self, event: Event) -> None:
        write_json_line(to_dict(event))

    def close(self) -> None:
        """Nothing is kept back."""


class EpochRows:
    """A row of CSV for each epoch, with the columns of the run's `metrics.csv`."""

    def __init__(self, columns: tuple[str, ...]) -> None:
        self._columns = columns
        write_csv_row(columns)

    def wants(self, event: Event) -> bool:
        return isinstance(event, EpochDone)

    def __call__(self, event: Event) -> None:
        record = metrics_of(to_dict(event))
        write_csv_row([record[name] for name in self._columns])

    def close(self) -> None:
        """Nothing is kept back."""


class Tables:
    """A table of epochs and the test's figures; before it a table of norms, if they were asked for."""

    def __init__(self, norms: Blocks | None) -> None:
        self._norms = NormTable("gradient", norms) if norms is not None else None
        self._step: StepDone | None = None
        self._epochs: list[EpochDone] = []
        self._losses: dict[str, float] | None = None
        self._table: Table | None = None

    def wants(self, event: Event) -> bool:
        if isinstance(event, StepDone):
            self._step = event
        return isinstance(event, EpochDone | RunFinished) or (isinstance(event, LayersWatched) and bool(self._norms))

    def __call__(self, event: Event) -> None:
        if isinstance(event, LayersWatched):
            if self._norms and self._step:
                self._norms.add(norm_row(self._step, event, "gradient"))
        elif isinstance(event, EpochDone):
            self._epochs.append(event)
            self._losses = event.train_losses
            if self._norms is None:
                self._write_epochs()
        elif isinstance(event, RunFinished):
            self.close()
            _write_end(event, self._losses)

    def close(self) -> None:
        """Write what was kept until the table of norms was complete."""
        if self._norms:
            self._norms.close()
            line()
            self._norms = None
        self._write_epochs()

    def _write_epochs(self) -> None:
        for event in self._epochs:
            fitting = Table(_columns(event))
            if self._table is None or fitting.left_out != self._table.left_out:  # the terminal was resized
                if self._table is not None:
                    line()
                self._table = fitting
                self._table.note_left_out()
                self._table.header()
            self._table.row([words for _, words in _cells(event)])
        sys.stdout.flush()
        self._epochs = []


def _columns(event: EpochDone) -> list[Column]:
    return [column for column, _ in _cells(event)]


def _cells(event: EpochDone) -> list[tuple[Column, str]]:
    """Return the columns that a run has, and what one epoch says in them."""
    cells = [
        (Column("epoch"), str(event.epoch)),
        (Column("train\nloss", width=8), figure(event.train_loss)),
        (Column("train\naccuracy", leaves=1, width=8), _share(event.train_accuracy)),
        (Column("validation\nloss", leaves=3), _loss(event.validation_loss)),
        (Column("validation\naccuracy", leaves=2), _share(event.validation_accuracy)),
        (Column("learning\nrate", leaves=6, width=8), f"{event.learning_rate:.2e}"),
        (Column("images/s", leaves=5, width=8), count(round(event.images_per_second))),
        (Column("time", leaves=4, width=7), duration(event.seconds)),
    ]
    return [(column, words) for column, words in cells if words]


def _write_end(event: RunFinished, losses: Mapping[str, float] | None) -> None:
    figures = f"loss {_loss(event.test_loss)}"
    if event.test_accuracy is not None:
        figures += f", accuracy {percent(event.test_accuracy)}"
    line()
    if losses:
        line(f"train losses: {', '.join(f'{layer} {figure(loss)}' for layer, loss in losses.items())}")
    line(f"test: {figures}" if event.test_loss is not None else "no test split", "bold")
    if event.run:
        line(f"run: {event.run}")


def _loss(value: float | None) -> str:
    return "" if value is None else figure(value)


def _share(value: float | None) -> str:
    return "" if value is None else percent(value)
