"""What happens during training, as frozen records that renderers consume.

Each event is one line of `events.jsonl` and of `cnnbp train --format json`: its fields, with the
class's `event` name in front.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, ClassVar, get_args

from cnnbp_cli.train.statistics import LayerStatistics


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


@dataclass(frozen=True, slots=True)
class Change:
    """A setting that a run was resumed with, where it had another before.

    Attributes
    ----------
    key : str
        Of the config, as after `--set`; or which data.
    old, new
        As YAML has them.
    """

    key: str
    old: Any
    new: Any

    def __str__(self) -> str:
        old, new = (value if isinstance(value, str) else json.dumps(value) for value in (self.old, self.new))
        return f"{self.key}: {old} → {new}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigChanged:
    """A run goes on with other settings than those that its steps so far were made with.

    Attributes
    ----------
    step : int
        The last one under the old settings.
    changes : list of Change
    safe : bool
        Whether the run is still what one with the new settings from the start would be: a longer one, for example.
        Otherwise the config tells only how it went on.
    """

    event: ClassVar[str] = "config_changed"
    step: int
    changes: list[Change]
    safe: bool

    def __str__(self) -> str:
        return f"the config changed after step {self.step}: {', '.join(map(str, self.changes))}"


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
        The share of this batch that was classified correctly; None for regression.
    learning_rate : float
    grad_norm : float
        The L2 norm of the gradient of all parameters together, before clipping.
    seconds : float
        Wall time of the step, its batch included.
    samples : int
        Images in the batch.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class LayersWatched:
    """What every layer did in a step, after the event of that step.

    Attributes
    ----------
    step : int
        Counted from 1.
    layers : dict of str to LayerStatistics
        By name, in network order.
    """

    event: ClassVar[str] = "watched"
    step: int
    layers: dict[str, LayerStatistics]


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochDone:
    """A pass over the training split is complete; the validation figures are None without such a split.

    The training figures are means over the epoch's batches as they were met.

    Attributes
    ----------
    train_loss : float
        The weighted sum, where there are several losses.
    validation_loss : float or None
        That of the network's output alone.
    train_losses : dict of str to float, or None
        Where the config has `train.losses`, each of them by its layer, before it is weighted.
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
    train_losses: dict[str, float] | None = None


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
        The first layer, in the order of computation, with such a value; or ``"input"``, or ``"loss"``.
    where : str
        ``"parameters"``, ``"output"``, ``"loss"`` or ``"gradient"``: what of it has the value.
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

    @property
    def what(self) -> str:
        """What became infinite or NaN, in words."""
        of = {"loss": "the loss", "parameters": f"a parameter of {self.layer}"}
        return of.get(self.where, f"the {self.where} of {self.layer}")


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
    diverged : bool
        Whether the mean training loss of the last epoch is more than `DIVERGED` times both the loss of the first batch
        and the loss of outputs that are all 0: the network is worse than at the start, and than one that learned
        nothing.
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
    diverged: bool = False


DIVERGED = 2.0
"""How many times the loss of a network that learned nothing makes a run diverged."""

EPOCH_FIGURES = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")
"""The figures of an epoch that tell how good it was."""

RUN_FIGURES = (*EPOCH_FIGURES, "test_loss", "test_accuracy")
"""The figures of a run: those of an epoch, and those of the test."""

Event = (
    RunStarted
    | ConfigChanged
    | StepDone
    | LayersWatched
    | EpochDone
    | CheckpointSaved
    | StoppedEarly
    | NonFinite
    | Interrupted
    | RunFinished
)


def to_dict(event: Event) -> dict[str, Any]:
    """Return the event as what JSON can hold: its name, then its fields, non-finite numbers as null."""
    return {"event": event.event} | {f.name: _jsonable(getattr(event, f.name)) for f in fields(event)}


def _jsonable(value: Any) -> Any:
    if isinstance(value, LayerStatistics):
        value = value.to_dict()
    if isinstance(value, list):
        return [asdict(part) for part in value]
    if isinstance(value, dict):
        return {key: _jsonable(part) for key, part in value.items()}  # pyright: ignore[reportUnknownVariableType]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def from_dict(record: Mapping[str, Any]) -> Event:
    """Return the event that `to_dict` made this record of; null becomes NaN where a number has to be.

    Raises
    ------
    ValueError
        When it is no such record.
    """
    kinds: dict[str, type[Event]] = {kind.event: kind for kind in get_args(Event)}
    kind = kinds.get(str(record.get("event")))
    if kind is None:
        raise ValueError("unknown event")
    known = [f for f in fields(kind) if f.name in record or f.default is MISSING]  # others came with a later version
    return kind(**{f.name: _read(record.get(f.name), str(f.type)) for f in known})


def _read(value: Any, hint: str) -> Any:
    """Return a value of an event's field, whose type `hint` names."""
    if hint == "dict[str, LayerStatistics]":
        if not isinstance(value, dict):
            raise ValueError("expected layers")
        return {name: _layer(statistics) for name, statistics in value.items()}
    if hint == "dict[str, float] | None":
        if value is None:
            return None
        if not isinstance(value, dict):
            raise ValueError("expected losses")
        return {name: _read(number, "float") for name, number in value.items()}
    if hint == "list[Change]":
        if not isinstance(value, list) or not all(isinstance(part, dict) and set(part) == _CHANGE for part in value):
            raise ValueError("expected changes")
        return [Change(**part) for part in value]
    first, _, rest = hint.partition(" | ")
    if value is None and (rest or first == "float"):
        return None if rest else math.nan
    accepted: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "bool": (bool,), "str": (str,)}
    if not isinstance(value, accepted[first]) or (isinstance(value, bool) and first != "bool"):
        raise ValueError(f"expected {hint}")
    if type(value) is int and not 0 <= value < 1 << 53:  # what counts, and what a float can hold
        raise ValueError(f"expected {hint}")
    return value


_CHANGE = {f.name for f in fields(Change)}


def _layer(record: Any) -> LayerStatistics:
    if not isinstance(record, dict):
        raise ValueError("expected statistics")
    values: dict[str, Any] = dict.fromkeys(f.name for f in fields(LayerStatistics))
    return LayerStatistics(**values | {name: _read(record[name], "float") for name in values if name in record})
