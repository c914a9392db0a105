"""Where a run stands between two steps: all that a checkpoint needs besides the arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import isnan
from typing import Any

from cnnbp_cli.config.schema import EarlyStopping
from cnnbp_cli.train.events import EPOCH_FIGURES

_OLD_NAMES = {"right": "correct", "stale": "epochs_since_best"}
"""What fields were called in checkpoints of version 0.1."""


@dataclass(slots=True)
class RunState:
    """Where a run stands.

    Attributes
    ----------
    step : int
        Updates made.
    loss_sum, loss_count, correct, seen, seconds : float
        Sums over the epoch that is under way.
    history : list of dict
        The figures of each finished epoch.
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
    loss_sum: float = 0.0
    loss_count: float = 0.0
    correct: float = 0.0
    seen: int = 0
    seconds: float = 0.0
    history: list[dict[str, float | None]] = field(default_factory=list)
    best: float | None = None
    best_step: int = 0
    epochs_since_best: int = 0
    stopped: bool = False

    def __post_init__(self) -> None:
        """Raise `TypeError` unless all values are what they should be: they may come from a file."""
        counts = (self.step, self.best_step, self.seen, self.epochs_since_best)
        figures = [self.loss_sum, self.loss_count, self.correct, self.seconds, self.best or 0.0]
        if not isinstance(self.history, list) or not all(isinstance(epoch, dict) for epoch in self.history):
            raise TypeError("history is no list of figures")
        for epoch in self.history:
            if set(epoch) != set(EPOCH_FIGURES):
                raise TypeError(f"an epoch has other figures than {', '.join(EPOCH_FIGURES)}")
            figures += [value for value in epoch.values() if value is not None]
        if not all(type(count) is int and 0 <= count < 1 << 63 for count in counts) or type(self.stopped) is not bool:
            raise TypeError("a count is no number")
        if not all((type(figure) in (int, float) and abs(figure) < 1e300) or figure != figure for figure in figures):
            raise TypeError("a figure is no number")

    @classmethod
    def from_dict(cls, progress: Mapping[str, Any]) -> RunState:
        """Return the state that a checkpoint holds.

        Raises
        ------
        TypeError
            When it is no such state.
        """
        return cls(**{_OLD_NAMES.get(name, name): value for name, value in progress.items()})

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def add_step(self, *, loss_sum: float, loss_count: float, correct: float, samples: int, seconds: float) -> None:
        """Take in a step that was made."""
        self.step += 1
        self.loss_sum += loss_sum
        self.loss_count += loss_count
        self.correct += correct
        self.seen += samples
        self.seconds += seconds

    def end_epoch(self, figures: dict[str, float | None]) -> None:
        """Take in the figures of the epoch that is over, and begin the next."""
        self.history.append(figures)
        self.loss_sum = self.loss_count = self.correct = self.seconds = 0.0
        self.seen = 0

    def judge_epoch(self, stopping: EarlyStopping | None) -> bool:
        """Return whether the last epoch is the best by the monitored figure, and decide about early stopping."""
        monitor = stopping.monitor if stopping else "validation_loss"
        value = self.history[-1][monitor]
        if value is None:
            return False
        value, margin = negated(monitor, value), stopping.min_delta if stopping else 0.0
        if not isnan(value) and (self.best is None or value < self.best - margin):
            self.best, self.best_step, self.epochs_since_best = value, self.step, 0
            return True
        self.epochs_since_best += 1
        self.stopped = stopping is not None and self.epochs_since_best >= stopping.patience
        return False


def negated(monitor: str, value: float) -> float:
    """Return a figure so that less is better, or the figure again from what this returned."""
    return -value if monitor.endswith("accuracy") else value
