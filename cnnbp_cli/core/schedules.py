"""How the learning rate changes over a run: pure functions of the progress, so that resuming needs no state.

The rate for the 0-based step `t` is PyTorch's after `t` calls of `scheduler.step()` for the schedules
that change with every step, and after as many calls as there are finished epochs for the others.
A schedule's `depends_on_total` says whether its rates follow from the length of the whole run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, NamedTuple

from cnnbp_cli.core.types import at_least, require, show, within


class Plateau(NamedTuple):
    """What `ReduceOnPlateau` knows of the finished epochs.

    Attributes
    ----------
    best : float
        The best monitored value.
    bad_epochs : int
        Epochs in a row that were no better, since the last reduction.
    reductions : int
        How often the rate was reduced.
    """

    best: float = math.inf
    bad_epochs: int = 0
    reductions: int = 0


AT_START = Plateau()


@dataclass(frozen=True, slots=True)
class Progress:
    """Where in the run an update stands.

    Attributes
    ----------
    step : int
        Updates before this one: 0 for the first.
    steps_per_epoch, total_steps : int
        Updates in an epoch and in the whole run.
    epoch : int
        Finished epochs: 0 during the first.
    plateau : Plateau
        What the schedule made of the monitored values of the finished epochs, where it monitors one.
    """

    step: int
    steps_per_epoch: int
    total_steps: int
    epoch: int
    plateau: Plateau = AT_START


@dataclass(frozen=True, slots=True)
class Constant:
    """The optimizer's learning rate, throughout."""

    type: Literal["constant"] = "constant"
    depends_on_total: ClassVar[bool] = False

    def learning_rate(self, base: float, at: Progress) -> float:
        """Return `base`."""
        return base


@dataclass(frozen=True, slots=True)
class StepDecay:
    """The rate times `gamma` after every `step_size` epochs; PyTorch's `StepLR`."""

    step_size: int
    """Epochs, for example `10`."""
    gamma: float = 0.1
    """The factor, for example `0.5`."""
    type: Literal["step"] = "step"
    depends_on_total: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require(at_least(self, 1, "step_size"), within(self, 0, math.inf, "gamma", open_low=True))

    def learning_rate(self, base: float, at: Progress) -> float:
        """Return ``base · gamma^⌊epoch / step_size⌋``."""
        return base * self.gamma ** (at.epoch // self.step_size)


@dataclass(frozen=True, slots=True)
class MultiStep:
    """The rate times `gamma` after each number of epochs in `milestones`; PyTorch's `MultiStepLR`."""

    milestones: tuple[int, ...]
    """Numbers of epochs, ascending, for example `[5, 8]`."""
    gamma: float = 0.1
    """The factor, for example `0.5`."""
    type: Literal["multi_step"] = "multi_step"
    depends_on_total: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require(_check_milestones(self.milestones), within(self, 0, math.inf, "gamma", open_low=True))

    def learning_rate(self, base: float, at: Progress) -> float:
        """Return ``base · gamma^k`` after `k` milestones."""
        return base * self.gamma ** sum(milestone <= at.epoch for milestone in self.milestones)


def _check_milestones(milestones: tuple[int, ...]) -> Iterable[tuple[str, str]]:
    if not all(before < after for before, after in zip((0, *milestones), milestones, strict=False)):
        yield "milestones", f"expected increasing numbers of epochs, 1 or more, got {show(milestones)}"


@dataclass(frozen=True, slots=True)
class Exponential:
    """The rate times `gamma` after every epoch; PyTorch's `ExponentialLR`."""

    gamma: float
    """The factor of each epoch, for example `0.95`."""
    type: Literal["exponential"] = "exponential"
    depends_on_total: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require(within(self, 0, math.inf, "gamma", open_low=True))

    def learning_rate(self, base: float, at: Progress) -> float:
        """Return ``base · gamma^epoch``."""
        return base * self.gamma**at.epoch


@dataclass(frozen=True, slots=True)
class Cosine:
    """Half a cosine from the rate down to `minimum` over the run; PyTorch's `CosineAnnealingLR` per step.

    References
    ----------
    Loshchilov and Hutter (2017), "SGDR: stochastic gradient descent with warm restarts",
    arXiv:1608.03983, equation 5, without restarts.
    """

    minimum: float = 0.0
    """The lowest rate."""
    type: Literal["cosine"] = "cosine"
    depends_on_total: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require(at_least(self, 0, "minimum"))

    def learning_rate(self, base: float, at: Progress) -> float:
        """Return ``minimum + (base − minimum) · (1 + cos(π t / T)) / 2``."""
        return _half_cosine(base, self.minimum, at.step / at.total_steps)


def _half_cosine(start: float, end: float, fraction: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * fraction)) / 2


@dataclass(frozen=True, slots=True)
class OneCycle:
    """Up to `max_learning_rate` and down again, each on half a cosine; PyTorch's `OneCycleLR`.

    The optimizer's own learning rate is not used: the run starts at `max_learning_rate /
    initial_divisor`, peaks after the fraction `warmup` of its steps, and ends at the start's rate
    divided by `final_divisor`. The momentum is left alone.

    References
    ----------
    Smith and Topin (2017), "Super-convergence: very fast training of neural networks using large
    learning rates", arXiv:1708.07120.
    """

    max_learning_rate: float
    """The rate at the peak, for example `0.1`."""
    warmup: float = 0.3
    """The fraction of the run before the peak."""
    initial_divisor: float = 25.0
    """The peak divided by this is the first rate."""
    final_divisor: float = 1e4
    """The first rate divided by this is the last."""
    type: Literal["one_cycle"] = "one_cycle"
    depends_on_total: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require(
            within(self, 0, math.inf, "max_learning_rate", "initial_divisor", "final_divisor", open_low=True),
            within(self, 0, 1, "warmup"),
        )

    def learning_rate(self, base: float, at: Progress) -> float:
        """Return the rate of the rising half up to the peak, then that of the falling one."""
        first = self.max_learning_rate / self.initial_divisor
        peak, last = self.warmup * at.total_steps - 1, at.total_steps - 1
        if at.step <= peak:
            return _half_cosine(first, self.max_learning_rate, at.step / peak if peak else 1.0)
        return _half_cosine(self.max_learning_rate, first / self.final_divisor, (at.step - peak) / (last - peak))


@dataclass(frozen=True, slots=True)
class ReduceOnPlateau:
    """The rate times `factor` whenever `monitor` has not improved for `patience` epochs.

    PyTorch's `ReduceLROnPlateau` with its defaults: a value is better when it is below the best so far
    by the fraction `threshold`; after `patience` epochs in a row that are not, the next one that is
    not reduces the rate, and the count starts again.
    """

    factor: float = 0.1
    """What the rate is multiplied with."""
    patience: int = 10
    """Epochs without improvement that are tolerated."""
    threshold: float = 1e-4
    """The fraction by which a value has to be below the best."""
    minimum: float = 0.0
    """The lowest rate."""
    monitor: Literal["validation_loss", "train_loss"] = "validation_loss"
    """The value that should fall."""
    type: Literal["reduce_on_plateau"] = "reduce_on_plateau"
    depends_on_total: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require(
            within(self, 0, 1, "factor", open_low=True, open_high=True),
            at_least(self, 0, "patience", "threshold", "minimum"),
        )

    def learning_rate(self, base: float, at: Progress) -> float:
        """Return the rate after as many reductions as there were."""
        rate = base
        for _ in range(at.plateau.reductions):
            reduced = self._reduce(rate)
            if reduced == rate:
                break
            rate = reduced
        return rate

    def after_epoch(self, plateau: Plateau, value: float) -> Plateau:
        """Return what is known after one more epoch with this monitored value."""
        best, bad_epochs, reductions = plateau
        if value < best * (1 - self.threshold):
            return Plateau(value, 0, reductions)
        if bad_epochs < self.patience:
            return Plateau(best, bad_epochs + 1, reductions)
        return Plateau(best, 0, reductions + 1)

    def _reduce(self, rate: float) -> float:
        reduced = max(rate * self.factor, self.minimum)
        return reduced if rate - reduced > 1e-8 else rate  # PyTorch's eps: smaller changes are not made


AfterWarmup = Constant | StepDecay | MultiStep | Exponential | Cosine | OneCycle | ReduceOnPlateau


@dataclass(frozen=True, slots=True)
class LinearWarmup:
    """From `start_factor` times the rate up to the rate in `steps` updates; PyTorch's `LinearLR`.

    After that the schedule `then` takes over, if there is one. It sees a run without the warm-up's
    steps, as under PyTorch's `SequentialLR`; its epochs are still counted from the beginning.

    References
    ----------
    Goyal et al. (2017), "Accurate, large minibatch SGD: training ImageNet in 1 hour",
    arXiv:1706.02677, section 2.2.
    """

    steps: int = 100
    """Updates."""
    start_factor: float = 1 / 3
    """The fraction of the rate to start at."""
    then: AfterWarmup | None = None
    """The schedule after the warm-up; by default the rate stays."""
    type: Literal["linear_warmup"] = "linear_warmup"

    @property
    def depends_on_total(self) -> bool:
        return self.then is not None and self.then.depends_on_total

    def __post_init__(self) -> None:
        require(at_least(self, 1, "steps"), within(self, 0, 1, "start_factor", open_low=True))

    def learning_rate(self, base: float, at: Progress) -> float:
        """Return the rate of the rise, then that of `then`."""
        if at.step < self.steps:
            return base * (self.start_factor + (1 - self.start_factor) * at.step / self.steps)
        if self.then is None:
            return base
        rest = replace(at, step=at.step - self.steps, total_steps=at.total_steps - self.steps)
        return self.then.learning_rate(base, rest)


Schedule = AfterWarmup | LinearWarmup
"""A new schedule is one more member: the config finds it by its `type`."""
