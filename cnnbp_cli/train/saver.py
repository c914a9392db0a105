"""When a run saves a checkpoint, what is in it, and how a run begins from one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from time import monotonic

from cnnbp_cli.config.write import to_yaml
from cnnbp_cli.core.types import Array
from cnnbp_cli.parallel.worker import Worker
from cnnbp_cli.train.checkpoint import Checkpoint
from cnnbp_cli.train.events import CheckpointSaved
from cnnbp_cli.train.job import Job
from cnnbp_cli.train.run_directory import RunError
from cnnbp_cli.train.state import RunState
from cnnbp_cli.train.step import TrainingStep


class Saver:
    """Saves the checkpoints of a run; all workers do it together, and the first one writes.

    Parameters
    ----------
    job : Job
    workers : Worker
    step : TrainingStep
        Whose optimizer is saved.

    Attributes
    ----------
    last : Path or None
        The last checkpoint.
    best_parameters : dict of str to Array, or None
        Those of the best epoch, where a figure says which it is.
    """

    def __init__(self, job: Job, workers: Worker, step: TrainingStep) -> None:
        self._job, self._workers, self._step, self._train = job, workers, step, job.config.train
        self._saved_at = monotonic()
        self.last: Path | None = None
        self.best_parameters: dict[str, Array] | None = None

    def restore(self) -> RunState:
        """Take up the job's checkpoint; without one the run is at its start.

        Raises
        ------
        RunError
            When the checkpoint belongs to another network or another optimizer.
        """
        if self._job.start is None:
            return RunState()
        path, checkpoint = self._job.start
        try:
            self._job.model.set_parameters(checkpoint.parameters, complete=True)
            share = self._step.share
            self._step.updater.load_state_dict({name: whole[share] for name, whole in checkpoint.optimizer.items()})
            state = RunState.from_dict(checkpoint.progress, self._train.main_schedule[1])
        except (LookupError, TypeError, ValueError) as error:
            raise RunError(
                f"{path}: does not fit the config ({error}); resume with the config it was made by"
            ) from None
        self.best_parameters = checkpoint.best or None
        self.last = path
        return state

    def is_due_by_time(self) -> bool:
        """Whether the last checkpoint is older than the config allows; workers may differ about it."""
        minutes = self._train.checkpoint_minutes
        return self._job.directory is not None and minutes is not None and monotonic() - self._saved_at >= 60 * minutes

    def is_due(self, state: RunState, total_steps: int, steps_per_epoch: int) -> bool:
        """Whether to save after a step; the epoch's last one is followed by a checkpoint anyway."""
        every, step = self._train.checkpoint_every, state.step
        return every is not None and step % every == 0 and step % steps_per_epoch != 0 and step != total_steps

    def save(self, state: RunState, *, best: bool = False) -> Iterator[CheckpointSaved]:
        """Save a checkpoint, if the run has a directory, and say so."""
        if self._job.directory is None:
            return
        self._saved_at = monotonic()
        optimizer = {name: self._workers.gather(vector) for name, vector in self._step.updater.state_dict().items()}
        if self._workers.rank > 0:
            return
        checkpoint = self._checkpoint(state, optimizer)
        self.last = self._job.directory.save(checkpoint, state.step, best=best, keep=self._train.keep_checkpoints)
        yield CheckpointSaved(step=state.step, path=str(self.last), best=best)

    def keep_best(self) -> None:
        """Keep the parameters as the best so far."""
        self.best_parameters = self._job.model.parameters()

    def best_checkpoint(self, state: RunState) -> Checkpoint | None:
        """Return the best parameters so far, if a figure says which they are."""
        return self._checkpoint(state, {}).of_best() if self.best_parameters is not None else None

    def _checkpoint(self, state: RunState, optimizer: dict[str, Array]) -> Checkpoint:
        return Checkpoint(
            config=to_yaml(self._job.config),
            progress=state.to_dict(),
            normalization=self._job.data.normalization.to_dict(),
            parameters=self._job.model.parameters(),
            optimizer=optimizer,
            best=self.best_parameters or {},
            data=dict(self._job.fingerprint),
            target_normalization=targets.to_dict() if (targets := self._job.data.target_normalization) else {},
            class_names=list(self._job.data.class_names or ()),
        )
