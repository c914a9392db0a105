"""What happens during training, as frozen records that renderers consume.

Each event is one line of `events.jsonl` and of `cnnbp train --format json`: its fields, with the
class's `event` name in front.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """Training begins, or goes on from a checkpoint.

    Attributes
    ----------
    name : str
        The config's name.
    step, total_steps : int
        Updates done so far, and in all.
    epochs, steps_per_epoch, batch_size : int
    samples : int
        Images in the training split after the validation images were taken out.
    parameters : int
        Trainable values.
    workers : int
        Processes that share each batch.
    run : str or None
        The run directory.
    """

    event: ClassVar[str] = "started"
    name: str
    step: int
    total_steps: int
    epochs: int
    steps_per_epoch: int
    batch_size: int
    samples: int
    parameters: int
    workers: int
    run: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDone:
    """One update was made.

    Attributes
    ----------
    step, epoch : int
        Counted from 1.
    loss : float
        The mean loss over this batch, before the update.
    accuracy : float or None
        The share of this batch that was classified rightly; None for regression.
    learning_rate : float
    grad_norm : float
        The L2 norm of the whole gradient, before clipping.
    seconds : float
        Wall time of the step, its batch included.
    samples : int
        Images in the batch.
    norms : dict or None
        The L2 norm of each layer's gradient, when asked for.
    """

    event: ClassVar[str] = "step"
    step: int
    epoch: int
    loss: float
    accuracy: float | None
    learning_rate: float
    grad_norm: float
    seconds: float
    samples: int
    norms: dict[str, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochDone:
    """A pass over the training split is complete; the validation figures are None without such a split.

    The training figures are means over the epoch's batches as they were met.
    """

    event: ClassVar[str] = "epoch"
    epoch: int
    step: int
    train_loss: float
    train_accuracy: float | None
    validation_loss: float | None
    validation_accuracy: float | None
    learning_rate: float
    seconds: float
    images_per_second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointSaved:
    """A checkpoint is on disk; `best` when it is the best by validation so far."""

    event: ClassVar[str] = "checkpoint"
    step: int
    path: str
    best: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StoppedEarly:
    """The monitored figure did not improve for `patience` epochs."""

    event: ClassVar[str] = "stopped_early"
    epoch: int
    step: int
    monitor: str
    best: float
    patience: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NonFinite:
    """A value became NaN or infinite, so the run stopped; what was saved before is good.

    Attributes
    ----------
    step : int
        Counted from 1.
    layer : str
        The first layer, in the order of computation, whose values went bad; or ``"input"``, or ``"loss"``.
    where : str
        ``"parameters"``, ``"output"``, ``"loss"`` or ``"gradient"``: what of it went bad.
    loss : float
    checkpoint : str or None
        The last good one.
    """

    event: ClassVar[str] = "non_finite"
    step: int
    layer: str
    where: str
    loss: float
    checkpoint: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Interrupted:
    """Somebody asked the run to stop; it did so between two steps."""

    event: ClassVar[str] = "interrupted"
    step: int
    checkpoint: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished:
    """Training is over; the test figures are None without a test split.

    Attributes
    ----------
    seconds : float
        Wall time from the first step to the end of the test.
    run : str or None
        The run directory.
    """

    event: ClassVar[str] = "finished"
    step: int
    epochs: int
    train_loss: float | None
    train_accuracy: float | None
    validation_loss: float | None
    validation_accuracy: float | None
    test_loss: float | None
    test_accuracy: float | None
    seconds: float
    run: str | None


Event = RunStarted | StepDone | EpochDone | CheckpointSaved | StoppedEarly | NonFinite | Interrupted | RunFinished


def to_dict(event: Event) -> dict[str, Any]:
    """Return the event as what JSON can hold: its name, then its fields, non-finite numbers as null."""
    return {"event": event.event} | {f.name: _jsonable(getattr(event, f.name)) for f in fields(event)}


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _jsonable(part) for key, part in value.items()}  # pyright: ignore[reportUnknownVariableType]
    return None if isinstance(value, float) and not math.isfinite(value) else value
