"""Where a model's parameters come from, so that nobody takes untrained weights for a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from cnnbp_cli.core.schedules import Constant
from cnnbp_cli.train.checkpoint import Checkpoint, CheckpointError
from cnnbp_cli.train.event_log import run_events
from cnnbp_cli.train.events import LayersWatched, RunFinished, RunStarted, StepDone
from cnnbp_cli.train.run_directory import RunDirectory, RunError
from cnnbp_cli.train.state import RunState


@dataclass(frozen=True, slots=True)
class Origin:
    """A checkpoint, and what became of its run.

    Attributes
    ----------
    path : str
    kind : {"best", "last", "other"}
        The best one by the monitored figure, the last one of its run, or one between.
    step, epoch : int
        Updates made, and epochs finished.
    finished : bool or None
        Whether the run came to its end; None where the run's record is not there.
    total_steps : int or None
        How many the run was to make.
    diverged : bool
        See `RunFinished`.
    """

    path: str
    kind: Literal["best", "last", "other"]
    step: int
    epoch: int
    finished: bool | None
    total_steps: int | None
    diverged: bool

    def __str__(self) -> str:
        which = {"best": "the best", "last": "the last", "other": "not the last"}[self.kind]
        return f"{self.path} ({which}; step {self.step}, epoch {self.epoch})"

    def warnings(self) -> Iterator[str]:
        """Yield what speaks against using these parameters."""
        if self.step == 0:
            yield "these parameters are untrained: the checkpoint was saved before the first step"
        if self.finished is False:
            of = f" of {self.total_steps}" if self.total_steps else ""
            yield f"the run did not finish; this checkpoint has made {self.step}{of} steps"
        if self.diverged:
            yield "the training of this run diverged"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def origin_of(path: Path, checkpoint: Checkpoint) -> Origin:
    """Return what is known of a checkpoint, its run's record included where it lies in a run directory.

    Raises
    ------
    CheckpointError
        When the checkpoint does not say where in its run it was saved.
    """
    try:
        state = RunState.from_dict(checkpoint.progress, Constant())
    except (LookupError, TypeError):
        raise CheckpointError(f"{path}: is not a checkpoint of cnnbp") from None
    run = RunDirectory(path.resolve().parent.parent)
    started: RunStarted | None = None
    finished: RunFinished | None = None
    with suppress(RunError):
        for event in run_events(run.path, without=(StepDone, LayersWatched)):
            if isinstance(event, RunStarted):
                started = event
            elif isinstance(event, RunFinished):
                finished = event
    latest = [other.name for other in run.checkpoints()[:1]]
    epochs = state.epochs
    if checkpoint.progress.keys() == {"step"} and started:  # the best one of version 0.1
        epochs = state.step // started.steps_per_epoch
    return Origin(
        str(path),
        "best" if path.name == run.best.name else "last" if path.name in latest else "other",
        state.step,
        epochs,
        None if started is None else finished is not None,
        None if started is None else started.total_steps,
        finished is not None and finished.diverged,
    )
