"""The update that comes next: which step of training it is, at what rate, and what the optimizer remembers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cnnbp_cli.core.optim import Transform, chain, clip_by_global_norm
from cnnbp_cli.core.parameters import ParameterSlice
from cnnbp_cli.core.schedules import Progress
from cnnbp_cli.core.types import Array
from cnnbp_cli.model import Model
from cnnbp_cli.train.state import RunState

if TYPE_CHECKING:
    from cnnbp_cli.train.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True)
class Update:
    """What the configured optimizer brings to one update.

    Attributes
    ----------
    transform : Transform
        Clipping and the optimizer.
    number : int
        The count of updates, this one included.
    learning_rate : float
        As the schedule has it at this step.
    state : mapping of str to Array
        The optimizer's vectors over all parameters; one that is missing is as it starts.
    step : int
        The updates that training has made; an optimizer that starts anew counts its own, `number`, from 1.
    """

    transform: Transform
    number: int
    learning_rate: float
    state: Mapping[str, Array] = field(default_factory=dict[str, Array])
    step: int = 0

    def element(self, name: str, entry: ParameterSlice, index: tuple[int, ...]) -> float:
        """Return a parameter's element of a state vector."""
        vector = self.state.get(name)
        if vector is None:
            return float(self.transform.slots[name])
        return float(vector[entry.start : entry.stop].reshape(entry.shape)[index])


def next_update(model: Model, checkpoint: Checkpoint | None = None, samples: int | None = None) -> Update:
    """Return the first update of a fresh model, or the one that would follow a checkpoint.

    Parameters
    ----------
    checkpoint : Checkpoint, optional
        With the optimizer's state and the progress. The checkpoint of the best epoch has no state: its update
        is one of an optimizer that starts anew.
    samples : int, optional
        Training images, which make the length of an epoch; without, it goes by the checkpoint's epochs.
    """
    train = model.config.train
    transform = train.optimizer.transform()
    if train.clip_norm is not None:
        transform = chain(clip_by_global_norm(train.clip_norm), transform)
    state = RunState.from_dict(checkpoint.progress if checkpoint else {}, train.main_schedule[1])
    per_epoch = train.steps_per_epoch(samples) if samples else max(1, state.step // max(1, state.epochs))
    total = min(per_epoch * train.epochs, train.max_steps or per_epoch * train.epochs)
    at = Progress(state.step, per_epoch, total, state.epochs, state.plateau)
    rate = train.schedule.learning_rate(train.optimizer.learning_rate, at)
    number = state.step + 1 if checkpoint and checkpoint.optimizer else 1
    return Update(transform, number, rate, checkpoint.optimizer if checkpoint else {}, state.step)
