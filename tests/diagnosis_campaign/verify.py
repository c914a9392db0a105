"""Is every fault a fault, and every sound config sound? Train them to the end, and the fixed twins as well."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite

from diagnosis_campaign.corpus import Case, Pair

import cnnbp_cli as cnnbp
from cnnbp_cli.train.events import NonFinite, RunFinished

LOST_ACCURACY = 0.1
"""A fault costs at least this much of the accuracy that the fixed twin reaches…"""

LOSS_FACTOR = 1.5
"""…or makes the test loss at least this many times as large."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The figures on the test split; a run that met NaN has an infinite loss."""

    loss: float
    accuracy: float | None

    def __str__(self) -> str:
        accuracy = "" if self.accuracy is None else f", accuracy {self.accuracy:.3f}"
        return f"loss {self.loss:.3f}{accuracy}"


def train(pair: Pair) -> Outcome:
    """Train to the end and test."""
    model, data = pair
    finished = None
    for event in cnnbp.fit(model, data, watch_every=0):
        if isinstance(event, NonFinite):
            return Outcome(inf, 0.0 if model.classifies else None)
        if isinstance(event, RunFinished):
            finished = event
    assert finished is not None
    loss = inf if finished.test_loss is None or not isfinite(finished.test_loss) else finished.test_loss
    return Outcome(loss, finished.test_accuracy)


def damages(broken: Outcome, fixed: Outcome) -> bool:
    """Tell whether a run is far worse than its fixed twin."""
    known = broken.accuracy is not None and fixed.accuracy is not None
    if known and broken.accuracy <= fixed.accuracy - LOST_ACCURACY:
        return True
    return broken.loss >= LOSS_FACTOR * fixed.loss


def complaint(case: Case) -> tuple[str, str]:
    """Return the figures of a case, and what is wrong with it: nothing where it is what it claims to be."""
    broken = train(case.broken())
    if case.expects is None:
        if case.reaches is None:
            return str(broken), ""
        wanted, what = case.reaches
        good = broken.loss <= wanted if what == "loss" else (broken.accuracy or 0) >= wanted
        return str(broken), "" if good else f"does not reach {wanted} test {what}"
    if case.hazard:
        return str(broken), ""
    fixed = train(case.fixed())
    figures = f"broken: {broken}; fixed: {fixed}"
    return figures, "" if damages(broken, fixed) else "the fault does not break training"
