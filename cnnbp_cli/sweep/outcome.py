"""What became of the runs of a sweep, read from their folders, and which of them is best."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cnnbp_cli.train.run_directory import RunDirectory

FIGURES = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "test_loss", "test_accuracy")

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
        By the names in `FIGURES`: those of the parameters that the run keeps, which are the best epoch's
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
    return sorted(outcomes, key=lambda one: (one.score(by), one.score(loss), one.status == "failed", one.run))


def read_outcome(path: Path, values: dict[str, Any], failure: str | None = None) -> Outcome:
    """Return what became of the run in a folder; `failure` is why its process ended early, if it did."""
    kept: dict[str, Any] = {}
    latest: dict[str, Any] = {}
    status, reason, seconds, step = "interrupted", None, 0.0, 0
    test: dict[str, Any] = {}
    for event in _milestones(RunDirectory(path).events):
        kind = event["event"]
        if kind == "epoch":
            latest = event
            seconds += event["seconds"]
        elif kind == "checkpoint" and event["best"]:
            kept = latest
        elif kind == "non_finite":
            status, reason = "failed", _non_finite(event)
        elif kind == "finished":
            status, test = "finished", event
        step = event.get("step", step)
    if failure is not None and status != "finished":
        status, reason = "failed", failure
    found = kept or latest
    figures = {name: (test if name.startswith("test") else found).get(name) for name in FIGURES}
    return Outcome(path.name, values, status, reason, figures, found.get("epoch", 0), step, seconds)  # type: ignore[arg-type]


def _milestones(path: Path) -> list[dict[str, Any]]:
    """Return the events of a run but for its many steps; none where there is no run yet."""
    if not path.exists():
        return []
    found: list[dict[str, Any]] = []
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith(('{"event": "step"', '{"event": "watched"')):
                continue
            try:
                found.append(json.loads(line))
            except ValueError:  # cut short by a crash
                continue
    return found


def _non_finite(event: dict[str, Any]) -> str:
    step, layer, where = event["step"], event["layer"], event["where"]
    what = {"loss": "the loss", "parameters": f"a parameter of {layer}"}.get(where, f"the {where} of {layer}")
    return f"step {step}: {what} is not finite"
