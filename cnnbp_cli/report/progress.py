"""How far a run is, on standard error: a live bar on a terminal, plain lines in a log."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from cnnbp_cli.report.live import BAR, PATIENCE, Line, is_live
from cnnbp_cli.report.terminal import note, width
from cnnbp_cli.report.text import count, duration, figure, percent
from cnnbp_cli.train.events import (
    ConfigChanged,
    EpochDone,
    Event,
    Interrupted,
    NonFinite,
    RunFinished,
    RunStarted,
    StepDone,
    StoppedEarly,
)
from cnnbp_cli.train.resume import SAFE

QUICKEST, SLOWEST = 0.15, 0.5  # seconds between two updates of the line
SHARE = 0.01  # of the time goes into drawing it, if a draw does not take longer than 5 ms
NEAR_CHANCE = 0.1
"""Part of the way from guessing to a perfect accuracy that a network has to go to have learned something."""
WIDE_GAP = 0.15
"""Accuracy on training images minus that on others from which on a run is worth a diagnosis."""
LINE_EVERY = 10.0  # seconds between two lines of a log within an epoch


class Silence:
    """The progress of `--quiet`: nothing but what a run's figures do not say, such as why it ended early."""

    def __call__(self, event: Event) -> None:
        ends = isinstance(event, NonFinite | Interrupted | RunFinished)
        if (ends or (isinstance(event, ConfigChanged) and not event.safe)) and (text := message(event)):
            note(text)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Leave the terminal to somebody else for a moment."""
        yield

    def close(self) -> None:
        """Leave the terminal as it was."""


class Log(Silence):
    """A line at the start, one for each epoch, and one every ten seconds between them.

    Where the results go to the same place, as with ``&> log``, they are the lines of the epochs.
    """

    def __init__(self) -> None:
        self._so_far = SoFar()
        self._tells_epochs = not _same_place()
        self._next_line = perf_counter() + LINE_EVERY

    def __call__(self, event: Event) -> None:
        self._so_far(event)
        if isinstance(event, StepDone):
            if perf_counter() >= self._next_line:
                self._line(self._so_far.fields())
        elif isinstance(event, EpochDone):
            if self._tells_epochs:
                self._line(self._epoch(event))
            self._next_line = perf_counter() + LINE_EVERY
        elif text := message(event):
            note(text)

    def _line(self, fields: list[str]) -> None:
        note("  ".join(fields))
        self._next_line = perf_counter() + LINE_EVERY

    def _epoch(self, event: EpochDone) -> list[str]:
        fields = [self._so_far.epoch(), *_figures("", event.train_loss, event.train_accuracy)]
        fields += _figures("validation ", event.validation_loss, event.validation_accuracy)
        return [*fields, f"{event.images_per_second:,.0f} images/s", duration(event.seconds)]


class Live(Silence):
    """A line with a bar and the figures of the epoch under way."""

    def __init__(self) -> None:
        self._line = Line()
        self._so_far = SoFar()
        self._next_update = perf_counter() + PATIENCE

    def __call__(self, event: Event) -> None:
        self._so_far(event)
        if isinstance(event, StepDone):
            if perf_counter() >= self._next_update:
                self._draw()
        elif text := message(event):
            self.close()
            note(text)

    def _draw(self) -> None:
        started = perf_counter()
        so_far = self._so_far
        words = so_far.fitting(width() - 1 - BAR - 2)
        self._line.draw(words, so_far.step / max(so_far.total_steps, 1))
        now = perf_counter()
        self._next_update = now + min(max((now - started) / SHARE, QUICKEST), SLOWEST)

    @contextmanager
    def aside(self) -> Iterator[None]:
        self.close()  # what follows in a pipe may end on the same terminal
        yield

    def close(self) -> None:
        self._line.erase()


class SoFar:
    """The figures of the epoch under way, as means over its steps."""

    def __init__(self) -> None:
        self.step = self.total_steps = 0
        self._epochs = self._epoch = self._first_step = 0
        self._started = perf_counter()
        self._forget()

    def _forget(self) -> None:
        self._loss = self._right = self._seconds = 0.0
        self._samples, self._classifies = 0, False

    def __call__(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            self.step = self._first_step = event.step
            self.total_steps, self._epochs = event.total_steps, event.epochs
            self._started = perf_counter()
        elif isinstance(event, StepDone):
            if event.epoch != self._epoch:
                self._forget()
            self._epoch, self.step = event.epoch, event.step
            self._loss += event.loss * event.samples
            self._right += (event.accuracy or 0.0) * event.samples
            self._classifies = event.accuracy is not None
            self._seconds += event.seconds
            self._samples += event.samples

    def epoch(self) -> str:
        return f"epoch {self._epoch}/{self._epochs}"

    def fields(self) -> list[str]:
        """Return epoch, step, loss, accuracy, speed and the time left, as words."""
        samples = max(self._samples, 1)
        accuracy = self._right / samples if self._classifies else None
        per_step = (perf_counter() - self._started) / max(self.step - self._first_step, 1)
        return [
            self.epoch(),
            f"step {self.step}/{self.total_steps}",
            *_figures("", self._loss / samples, accuracy),
            f"{self._samples / max(self._seconds, 1e-9):,.0f} images/s",
            f"{duration((self.total_steps - self.step) * per_step)} left",
        ]

    def fitting(self, width: int) -> str:
        """Return the fields on one line, without those in the middle that do not fit."""
        fields = self.fields()
        for least in ("step", "images/s", "accuracy", "epoch"):
            if len("  ".join(fields)) > width:
                fields = [field for field in fields if least not in field]
        return "  ".join(fields)


def _same_place() -> bool:
    """Return whether both streams lead to the same file, pipe or terminal."""
    try:
        return os.path.samestat(os.fstat(sys.stdout.fileno()), os.fstat(sys.stderr.fileno()))
    except (OSError, ValueError):  # a stream that is no file
        return False


def progress(*, quiet: bool, results_are_table: bool) -> Silence:
    """Return the progress that suits standard error; a bar only where nothing else streams to the terminal."""
    if quiet:
        return Silence()
    return Live() if is_live() and (results_are_table or not sys.stdout.isatty()) else Log()


def next_step(event: RunFinished | NonFinite, run: str | None, chance: float | None) -> str | None:
    """Return which command looks further into a run that is over, as a line; None where there is nothing to say.

    Parameters
    ----------
    event : RunFinished or NonFinite
    run : str or None
        The run directory.
    chance : float or None
        The accuracy of always saying the most frequent class; None where classes are not what is learned.
    """
    if run is None or (isinstance(event, RunFinished) and event.diverged):  # which has been said
        return None
    diagnose = f"`cnnbp diagnose {shlex.quote(run)}` looks for the cause"
    if isinstance(event, NonFinite):
        return f"next: {diagnose}"
    held_out = event.test_accuracy if event.test_accuracy is not None else event.validation_accuracy
    reached = held_out if held_out is not None else event.train_accuracy
    if reached is not None and chance is not None and reached < chance + NEAR_CHANCE * (1 - chance):
        return f"next: {percent(reached)} is hardly better than always saying the most frequent class; {diagnose}"
    if held_out is not None and event.train_accuracy is not None and event.train_accuracy - held_out > WIDE_GAP:
        return (
            f"next: {percent(held_out)} on images not trained on, {percent(event.train_accuracy)} on the others; "
            f"{diagnose}"
        )
    if event.test_accuracy is None:
        return f"next: `cnnbp trace {shlex.quote(run)}` shows one image's pass, forward and backward"
    return (
        f"next: `cnnbp evaluate {shlex.quote(run)}` shows each class, `cnnbp trace {shlex.quote(run)}` one image's pass"
    )


def message(event: Event) -> str | None:
    """Return what is worth a line of its own."""
    if isinstance(event, RunStarted):
        batches = f"{count(event.epochs, 'epoch')} of {count(event.steps_per_epoch, 'step')}"
        size = f"{count(event.parameters, 'parameter')}, {count(event.samples, 'image')}"
        start = f", going on from step {event.step}" if event.step else ""
        shared = f", {event.workers} processes" if event.workers > 1 else ""
        return f"{event.name}: {size}, {batches}, batch {event.batch_size}{shared}{start}"
    if isinstance(event, StoppedEarly):
        return (
            f"stopped after epoch {event.epoch}: {event.monitor} has not improved on {figure(event.best)} "
            f"for {count(event.patience, 'epoch')}"
        )
    if isinstance(event, ConfigChanged):
        only_length = not event.safe and all(change.key in SAFE for change in event.changes)
        rates = "; the schedule follows the length of the run, so from now on its rates are others"
        return f"note: {event}{rates if only_length else ''}"
    if isinstance(event, RunFinished) and event.diverged:
        return (
            f"warning: the training diverged: its loss is {figure(event.train_loss)}, worse than at the start\n"
            f"`cnnbp diagnose {shlex.quote(event.run) if event.run else 'CONFIG'}` looks for the cause."
        )
    if isinstance(event, Interrupted):
        kept = f"; go on from {event.checkpoint} with --resume" if event.checkpoint else ""
        return f"interrupted after step {event.step}{kept}"
    return _non_finite(event) if isinstance(event, NonFinite) else None


def _non_finite(event: NonFinite) -> str:
    kept = f"; the last good checkpoint is {event.checkpoint}" if event.checkpoint else ""
    return (
        f"error: {event.what} became infinite or NaN at step {event.step} (loss {figure(event.loss)}){kept}\n"
        "Try a smaller train.optimizer.learning_rate, or train.clip_norm."
    )


def _figures(of: str, loss: float | None, accuracy: float | None) -> list[str]:
    fields = [] if loss is None else [f"{of}loss {figure(loss)}"]
    return fields if accuracy is None else [*fields, f"{of}accuracy {percent(accuracy)}"]
