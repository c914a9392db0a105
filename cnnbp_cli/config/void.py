"""Keys that other keys make void, so that nobody wonders why a setting changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, replace
from math import inf
from typing import Any

from cnnbp_cli.config.schema import Augment, Config, TrainConfig
from cnnbp_cli.core.schedules import LinearWarmup, MultiStep, OneCycle, ReduceOnPlateau, StepDecay


@dataclass(frozen=True, slots=True)
class VoidKey:
    """A key whose value changes nothing.

    Attributes
    ----------
    key : str
        Such as ``train.optimizer.learning_rate``.
    by : str
        The key that makes it void.
    why : str
    usual : bool
        Whether configs often have such keys, so that it is worth a word only where an option sets it.
    option : str
        How a short option that sets it was typed, such as ``--lr 0.1``; empty for anything else.
    """

    key: str
    by: str
    why: str
    usual: bool = False
    option: str = ""

    def __str__(self) -> str:
        name = f"{self.option} ({self.key})" if self.option else self.key
        return f"{name} has no effect: {self.why}"


@dataclass(frozen=True, slots=True)
class Counts:
    """The images of the data, as far as they are known.

    Attributes
    ----------
    train, validation, test : int or None
    """

    train: int | None = None
    validation: int = 0
    test: int | None = None


UNKNOWN = Counts()


def void_keys(config: Config, counts: Counts = UNKNOWN) -> list[VoidKey]:
    """Return the keys that the config or an override sets to something else than the default, to no effect."""
    every = [*_of_schedule(config.train), *_of_length(config.train, counts.train), *_of_data(config, counts)]
    unused = [
        VoidKey(f"model.blocks.{name}", "model.layers", "no layer uses this block")
        for name in config.positions.expansion.unused
    ]
    asked_for = [replace(void, option=_short_option(config, void)) for void in every if _is_asked_for(config, void)]
    return [*asked_for, *unused]


def _of_schedule(train: TrainConfig) -> Iterator[VoidKey]:
    rate, whole = "train.optimizer.learning_rate", "train.schedule"
    if isinstance(train.schedule, OneCycle):
        yield VoidKey(rate, whole, "the schedule one_cycle follows train.schedule.max_learning_rate alone")
    if isinstance(train.schedule, LinearWarmup) and train.schedule.start_factor == 1 and train.schedule.then is None:
        yield VoidKey(f"{whole}.steps", f"{whole}.start_factor", "with a start_factor of 1 there is no warm-up")
    key, schedule = train.main_schedule
    late = f"the run ends after {train.epochs} epochs, before the first reduction"
    if isinstance(schedule, StepDecay | MultiStep):
        name = "step_size" if isinstance(schedule, StepDecay) else "milestones"
        first = schedule.step_size if isinstance(schedule, StepDecay) else min(schedule.milestones, default=inf)
        if schedule.gamma == 1:
            yield VoidKey(f"{key}.{name}", f"{key}.gamma", "with a gamma of 1 the rate stays")
        elif first >= train.epochs:
            yield VoidKey(f"{key}.{name}", "train.epochs", late)
    if isinstance(schedule, ReduceOnPlateau) and schedule.patience + 1 >= train.epochs:
        yield VoidKey(f"{key}.patience", "train.epochs", late)


def _of_length(train: TrainConfig, samples: int | None) -> Iterator[VoidKey]:
    stopping = train.early_stopping
    if stopping and stopping.patience >= train.epochs:
        why = f"a run of {train.epochs} epochs cannot have {stopping.patience} without improvement after its best"
        yield VoidKey("train.early_stopping.patience", "train.epochs", why)
    if train.workers != "auto" and train.workers > train.batch_size:
        why = f"each process needs an image of the batch, so {train.batch_size} are used"
        yield VoidKey("train.workers", "train.batch_size", why)
    if samples is None:
        return
    per_epoch, total = train.steps_per_epoch(samples), train.total_steps(samples)
    if train.max_steps is not None and train.max_steps >= per_epoch * train.epochs:
        why = f"{train.epochs} epochs have {per_epoch * train.epochs} steps"
        yield VoidKey("train.max_steps", "train.epochs", why)
    elif train.max_steps is not None and train.max_steps <= per_epoch * (train.epochs - 1):
        yield VoidKey("train.epochs", "train.max_steps", f"the run ends after {train.max_steps} steps", usual=True)
    if train.batch_size > samples:
        yield VoidKey("train.batch_size", "data", f"there are only {samples} training images, which are one batch")
    every = train.checkpoint_every
    if every is not None and (every % per_epoch == 0 or every >= total):
        why = f"each epoch of {per_epoch} steps ends with a checkpoint anyway"
        yield VoidKey("train.checkpoint_every", "train.batch_size", why)
    if isinstance(train.schedule, LinearWarmup) and train.schedule.steps >= total:
        why = f"the warm-up takes all {total} steps of the run"
        yield VoidKey("train.schedule.then", "train.schedule.steps", why)


def _of_data(config: Config, counts: Counts) -> Iterator[VoidKey]:
    data, augment = config.data, config.data.augment
    if augment is not None and augment == Augment():
        yield VoidKey("data.augment", "data.augment", "all its strengths are 0")
    if augment and augment.crop and not augment.crop.padding and data.image_size is None:
        yield VoidKey("data.augment.crop", "data.augment.crop", "without padding or data.image_size there is one place")
    limit = data.limit
    if limit and limit.train and counts.train is not None and limit.train > counts.train + counts.validation:
        why = f"there are only {counts.train + counts.validation} training images"
        yield VoidKey("data.limit.train", "data", why)
    if limit and limit.test and not data.has_test:
        yield VoidKey("data.limit.test", "data.test_path", "there is no file with test images")
    elif limit and limit.test and counts.train is not None and limit.test > (counts.test or 0):
        yield VoidKey("data.limit.test", "data", f"there are only {counts.test or 0} test images")
    layers = [spec.layer for spec in config.model.layers]
    if not any(getattr(layer, "init", None) == config.model.init for layer in layers):
        yield VoidKey("model.init", "model.layers", "no layer takes its initial weights from it")


def _short_option(config: Config, void: VoidKey) -> str:
    """Return how a short option that sets the key was typed, if one does."""
    span = config.positions.span(tuple(void.key.split(".")))
    return span.source.label if span and span.source.typed[1] else ""


def _is_asked_for(config: Config, void: VoidKey) -> bool:
    """Whether a short option sets the key; or the config or an override, and to something else than its default."""
    *above, name = void.key.split(".")
    owner: Any = config
    for part in above:
        owner = getattr(owner, part)
    value = getattr(owner, name)
    default = next(
        f.default_factory() if f.default_factory is not MISSING else f.default for f in fields(owner) if f.name == name
    )
    asked = value != default or bool(_short_option(config, void))
    return asked and config.positions.sets(tuple(void.key.split(".")), by_option=void.usual)
