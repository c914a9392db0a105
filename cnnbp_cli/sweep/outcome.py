"""What became of the runs of a sweep, read from their folders, and which of them is best."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cnnbp_cli.train.event_log import run_events
from cnnbp_cli.train.events import (
    RUN_FIGURES,
    CheckpointSaved,
    EpochDone,
    Event,
    LayersWatched,
    NonFinite,
    RunFinished,
    StepDone,
)
from cnnbp_cli.train.run_directory import RunError

BY = ("validation_accuracy", "validation_loss", "test_accuracy", "test_loss", "train_loss")
"""The figures that runs can be ranked by."""

Status = Literal["finished", "failed", "interrupted"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one run.

    Attributes
    ----------
    run : str
        The name of its folder within the sweep's.
    values : dict
        What it had of each key that the sweep varies.
    status : {"finished", "failed", "interrupted"}
        Interrupted runs, and those that have not begun, go on with ``--resume``.
    reason : str or None
        Why it failed.
    figures : dict of str to float or None
        By the names in `RUN_FIGURES`: those of the parameters that the run keeps, which are the best epoch's
        where it has a best one, else the last one's. The test is that of a finished run.
    epoch, step : int
        That of these figures, and the run's last.
    seconds : float
        Spent in the steps of its epochs.
    """

    run: str
    values: dict[str, Any]
    status: Status
    reason: str | None
    figures: dict[str, float | None]
    epoch: int = 0
    step: int = 0
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        return (
            {"run": self.run, "status": self.status, "reason": self.reason, "set": self.values}
            | self.figures
            | {"epoch": self.epoch, "steps": self.step, "seconds": self.seconds}
        )

    def score(self, by: str) -> float:
        """Return the figure to rank by, so that less is better; infinity where there is none."""
        value = self.figures.get(by) if self.status == "finished" else None
        if value is None or math.isnan(value):
            return math.inf
        return -value if by.endswith("accuracy") else value


def ranked(outcomes: Sequence[Outcome], by: str) -> list[Outcome]:
    """Return the outcomes, the best first; equal accuracies are ranked by the loss."""
    loss = by.replace("accuracy", "loss")
    return sorted(
        outcomes, key=lambda outcome: (outcome.score(by), outcome.score(loss), outcome.status == "failed", outcome.run)
    )


def read_outcome(path: Path, values: dict[str, Any], failure: str | None = None) -> Outcome:
    """Return what became of the run in a folder; `failure` is why its process ended early, if it did."""
    kept: EpochDone | None = None
    latest: EpochDone | None = None
    finished: RunFinished | None = None
    status: Status = "interrupted"
    reason, seconds, step = None, 0.0, 0
    for event in _milestones(path):
        if isinstance(event, EpochDone):
            latest = event
            seconds += event.seconds
        elif isinstance(event, CheckpointSaved) and event.best:
            kept = latest
        elif isinstance(event, NonFinite):
            status, reason = "failed", f"{event.what} became infinite or NaN at step {event.step}"
        elif isinstance(event, RunFinished):
            status, finished = "finished", event
        step = event.step
    if failure is not None and finished is None:
        status, reason = "failed", failure
    found = kept or latest
    figures = {name: getattr(finished if name.startswith("test") else found, name, None) for name in RUN_FIGURES}
    figures = {name: None if value is None or math.isnan(value) else value for name, value in figures.items()}
    return Outcome(path.name, values, status, reason, figures, found.epoch if found else 0, step, seconds)


def _milestones(run: Path) -> Iterator[Event]:
    """Yield the events of a run but for its many steps; none where there is no run yet, or from a damaged one on."""
    with suppress(RunError):
        yield from run_events(run, without=(StepDone, LayersWatched))
