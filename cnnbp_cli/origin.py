"""Where a model's parameters come from, so that nobody takes untrained weights for a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from cnnbp_cli.train.checkpoint import Checkpoint
from cnnbp_cli.train.event_log import run_events
from cnnbp_cli.train.events import LayersWatched, RunFinished, RunStarted, StepDone
from cnnbp_cli.train.run_directory import RunDirectory, RunError


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
    """Return what is known of a checkpoint, its run's record included where it lies in a run directory."""
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
    step = checkpoint.progress.get("step", 0)
    epochs = checkpoint.progress.get("epochs", len(checkpoint.progress.get("history", ())))
    if "epochs" not in checkpoint.progress and started and path.name == run.best.name:  # of version 0.1
        epochs = step // started.steps_per_epoch
    return Origin(
        str(path),
        "best" if path.name == run.best.name else "last" if path.name in latest else "other",
        step,
        epochs,
        None if started is None else finished is not None,
        None if started is None else started.total_steps,
        finished is not None and finished.diverged,
    )
