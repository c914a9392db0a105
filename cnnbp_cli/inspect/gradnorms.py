"""One number per layer and step: how the gradient, or what follows from it, flows through the network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cnnbp_cli.data.dataset import Dataset
from cnnbp_cli.model import Model
from cnnbp_cli.train.events import NonFinite, StepDone
from cnnbp_cli.train.loop import fit
from cnnbp_cli.train.run import RunError, read_events
from cnnbp_cli.train.statistics import Statistic


@dataclass(frozen=True, slots=True)
class NormRow:
    """The statistic of every layer at one step.

    Attributes
    ----------
    step : int
        Counted from 1.
    loss : float
    total : float
        The L2 norm of the whole gradient.
    norms : dict of str to float
        By layer, in network order.
    """

    step: int
    loss: float
    total: float
    norms: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        return {"step": self.step, "loss": self.loss, "total": self.total, "norms": self.norms}


def watch_norms(
    model: Model, data: Dataset, *, steps: int = 10, every: int = 1, of: Statistic = "gradient"
) -> Iterator[NormRow]:
    """Train `model` for some steps and yield a row for every `every`-th; it stops where values go bad."""
    config = model.config
    model.config = replace(config, train=replace(config.train, max_steps=steps, epochs=max(config.train.epochs, steps)))
    try:
        for event in fit(model, data, norms_of=of, norms_every=every):
            if isinstance(event, NonFinite):
                return
            if isinstance(event, StepDone) and event.norms is not None:
                yield NormRow(event.step, event.loss, event.grad_norm, event.norms)
    finally:
        model.config = config


def recorded_norms(run: Path, *, every: int = 1) -> Iterator[NormRow]:
    """Yield the rows that a run recorded of every `every`-th step.

    Raises
    ------
    RunError
        When it recorded none.
    """
    rows = [event for event in read_events(run) if event["event"] == "step" and event.get("norms")]
    if not rows:
        raise RunError(f"{run}: recorded no gradient norms; train with --grad-norms")
    for event in rows:
        if event["step"] % every == 0:
            yield NormRow(event["step"], event["loss"], event["grad_norm"], event["norms"])
