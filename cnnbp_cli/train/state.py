"""Where a run stands between two steps: all that a checkpoint needs besides the arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import inf, isnan
from typing import TYPE_CHECKING, Any

from cnnbp_cli.config.schema import EarlyStopping
from cnnbp_cli.core.schedules import AT_START, Plateau, ReduceOnPlateau, Schedule
from cnnbp_cli.train.events import EPOCH_FIGURES

if TYPE_CHECKING:
    from cnnbp_cli.train.step import StepResult

Figures = dict[str, float | None]
"""The figures of an epoch, by the names in `EPOCH_FIGURES`."""


@dataclass(slots=True)
class RunState:
    """Where a run stands. Its size does not depend on how long the run is.

    Attributes
    ----------
    step : int
        Updates made.
    loss_sums, loss_counts : list of float
        Each loss summed over the epoch that is under way, and what to divide it by; empty before its first step.
    correct, seen, seconds : float
        Sums over that epoch.
    epochs : int
        Epochs finished.
    figures : dict of str to float or None
        Those of the last finished epoch; empty before the first.
    plateau : Plateau
        What a `ReduceOnPlateau` schedule knows of the finished epochs.
    first_loss : float or None
        The loss of the first batch, before any update.
    best : float or None
        The best monitored figure so far, negated if more is better.
    best_step : int
        The step that it was reached at.
    epochs_since_best : int
        Epochs since then.
    stopped : bool
        Early stopping has ended the run.
    """

    step: int = 0
    loss_sums: list[float] = field(default_factory=list[float])
    loss_counts: list[float] = field(default_factory=list[float])
    correct: float = 0.0
    seen: int = 0
    seconds: float = 0.0
    epochs: int = 0
    figures: Figures = field(default_factory=dict[str, float | None])
    plateau: Plateau = AT_START
    first_loss: float | None = None
    best: float | None = None
    best_step: int = 0
    epochs_since_best: int = 0
    stopped: bool = False

    def __post_init__(self) -> None:
        """Raise `TypeError` unless all values are what they should be: they may come from a file."""
        if not isinstance(self.figures, dict) or set(self.figures) not in (set(), set(EPOCH_FIGURES)):
            raise TypeError(f"an epoch has other figures than {', '.join(EPOCH_FIGURES)}")
        if not all(isinstance(sums, list) for sums in (self.loss_sums, self.loss_counts)):
            raise TypeError("the losses are not lists of numbers")
        if len(self.loss_sums) != len(self.loss_counts):
            raise TypeError("there are not as many losses as counts of them")
        self.plateau = Plateau(*self.plateau)
        counts = [self.step, self.best_step, self.seen, self.epochs, self.epochs_since_best, *self.plateau[1:]]
        sums = (*self.loss_sums, *self.loss_counts, self.correct, self.seconds)
        known = (value for value in (self.best, self.first_loss, *self.figures.values()) if value is not None)
        if not all(type(count) is int and 0 <= count < 1 << 63 for count in counts) or type(self.stopped) is not bool:
            raise TypeError("a count is not a number")
        if not all(_is_figure(value) for value in (*sums, *known)):
            raise TypeError("a figure is not a number")
        if self.plateau.best != inf and not _is_figure(self.plateau.best):
            raise TypeError("a figure is not a number")

    @classmethod
    def from_dict(cls, progress: Mapping[str, Any], schedule: Schedule) -> RunState:
        """Return the state that a checkpoint holds, also one that knows of a single loss, or of version 0.1,
        which listed all epochs' figures.

        Raises
        ------
        TypeError
            When it is no such state.
        """
        values = {_OLD_NAMES.get(name, name): value for name, value in progress.items()}
        values |= {f"{name}s": [values.pop(name)] for name in ("loss_sum", "loss_count") if name in values}
        history: list[Figures] = values.pop("history", [])
        state = cls(**values)
        if not isinstance(history, list):
            raise TypeError("history is not a list of figures")
        for figures in history:
            state.figures = figures
            state.__post_init__()
            state._take_in(figures, schedule)
        return state

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def add_step(self, result: StepResult) -> None:
        """Take in a step that was made."""
        if self.step == 0:
            self.first_loss = result.loss
        if len(self.loss_sums) != len(result.loss_sums):  # the first of the epoch, or since the config changed
            self.loss_sums, self.loss_counts = ([0.0] * len(result.loss_sums) for _ in range(2))
        self.step += 1
        self.loss_sums = [old + new for old, new in zip(self.loss_sums, result.loss_sums, strict=True)]
        self.loss_counts = [old + new for old, new in zip(self.loss_counts, result.loss_counts, strict=True)]
        self.correct += result.correct
        self.seen += result.samples
        self.seconds += result.seconds

    def end_epoch(self, figures: Figures, schedule: Schedule) -> None:
        """Take in the figures of the epoch that is over, and begin the next."""
        self._take_in(figures, schedule)
        self.loss_sums, self.loss_counts = [], []
        self.correct = self.seconds = 0.0
        self.seen = 0

    def _take_in(self, figures: Figures, schedule: Schedule) -> None:
        self.epochs += 1
        self.figures = figures
        if isinstance(schedule, ReduceOnPlateau):
            self.plateau = schedule.after_epoch(self.plateau, figures[schedule.monitor] or 0.0)

    def judge_epoch(self, stopping: EarlyStopping | None) -> bool:
        """Return whether the last epoch is the best by the monitored figure, and decide about early stopping."""
        monitor = stopping.monitor if stopping else "validation_loss"
        value = self.figures[monitor]
        if value is None:
            return False
        value, margin = negated(monitor, value), stopping.min_delta if stopping else 0.0
        if not isnan(value) and (self.best is None or value < self.best - margin):
            self.best, self.best_step, self.epochs_since_best = value, self.step, 0
            return True
        self.epochs_since_best += 1
        self.stopped = stopping is not None and self.epochs_since_best >= stopping.patience
        return False


_OLD_NAMES = {"right": "correct", "stale": "epochs_since_best"}
"""What fields were called in checkpoints of version 0.1."""


def negated(monitor: str, value: float) -> float:
    """Return a figure so that less is better, or the figure again from what this returned."""
    return -value if monitor.endswith("accuracy") else value


def _is_figure(value: object) -> bool:
    return type(value) in (int, float) and (abs(value) < 1e300 or value != value)  # type: ignore[arg-type]
