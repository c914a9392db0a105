"""The training loop: steps, epochs and checkpoints, the same program on every worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from cnnbp_cli.config.schema import Config
from cnnbp_cli.config.write import to_yaml
from cnnbp_cli.core.backprop import Observer, ignore
from cnnbp_cli.core.schedules import Progress, ReduceOnPlateau
from cnnbp_cli.core.types import Array
from cnnbp_cli.data.batches import order
from cnnbp_cli.data.dataset import Dataset
from cnnbp_cli.data.split import Split
from cnnbp_cli.model import Model, quiet
from cnnbp_cli.parallel.local import Worker
from cnnbp_cli.train.checkpoint import Checkpoint
from cnnbp_cli.train.evaluate import Evaluation, evaluate
from cnnbp_cli.train.events import (
    EPOCH_FIGURES,
    CheckpointSaved,
    EpochDone,
    Event,
    Interrupted,
    LayersWatched,
    NonFinite,
    RunFinished,
    RunStarted,
    StepDone,
    StoppedEarly,
)
from cnnbp_cli.train.run_directory import RunDirectory, RunError
from cnnbp_cli.train.state import RunState, negated
from cnnbp_cli.train.step import NonFiniteError, StepResult, TrainingStep


@dataclass(frozen=True, slots=True)
class Job:
    """What all workers of a run are given.

    Attributes
    ----------
    model : Model
    data : Dataset
    config : Config
        How to train.
    directory : RunDirectory or None
        Where the first worker writes.
    resume : bool
        Begin from the directory's last good checkpoint.
    watch_every : int
        Steps from one event with the layers' statistics to the next; 0 for none.
    """

    model: Model
    data: Dataset
    config: Config
    directory: RunDirectory | None
    resume: bool
    watch_every: int


class Trainer:
    """One worker's part in a run.

    Parameters
    ----------
    job : Job
    workers : Worker
    stop : callable
        Asked by the first worker before every step.
    observer : Observer, optional
        Follows this worker's steps.

    Attributes
    ----------
    state : RunState
    """

    def __init__(self, job: Job, workers: Worker, stop: Callable[[], bool], observer: Observer = ignore) -> None:
        self._model, self._data, self._directory = job.model, job.data, job.directory
        self._workers, self._stop = workers, stop
        self._config, self._train = job.config, job.config.train
        samples = len(job.data.train)
        self._steps_per_epoch, self._total_steps = (
            self._train.steps_per_epoch(samples),
            self._train.total_steps(samples),
        )
        self._step = TrainingStep(job.model, job.data, job.config, workers, job.watch_every, observer)
        self.state = RunState()
        self._last_checkpoint: Path | None = None
        self._best_parameters: dict[str, Array] | None = None
        if job.resume:
            self._resume()
        workers.barrier()

    # ------------------------------------------------------------------ the loop

    def events(self) -> Iterator[Event]:
        """Train to the end, from wherever the state stands."""
        started = perf_counter()
        yield self._started()
        if self.state.step == 0:
            yield from self._save()
        while not self._is_over():
            for batch in self._rest_of_epoch():
                if self._asked_to_stop():
                    yield from self._save()
                    yield Interrupted(step=self.state.step, checkpoint=_text(self._last_checkpoint))
                    return
                try:
                    result = self._step(batch, self.state.step, rate := self._learning_rate(self.state.step))
                except NonFiniteError as error:
                    yield self._non_finite(error)
                    return
                yield from self._step_done(result, rate)
                if self._checkpoint_is_due():
                    yield from self._save()
            yield self._end_epoch()
            yield from self._save(best=self._judge_epoch())
            if self.state.stopped:
                yield self._stopped_early()
        yield self._finish(started)

    def _is_over(self) -> bool:
        return self.state.stopped or self.state.step >= self._total_steps

    def _rest_of_epoch(self) -> Iterator[Array]:
        """Yield the batches of the epoch that is under way, as numbers of training images."""
        epoch, begin = divmod(self.state.step, self._steps_per_epoch)
        end = min(self._steps_per_epoch, begin + self._total_steps - self.state.step)
        visit, size = order(self._config.seed, epoch, len(self._data.train)), self._train.batch_size
        for batch in range(begin, end):
            yield visit[batch * size : (batch + 1) * size]

    def _asked_to_stop(self) -> bool:
        """Tell all workers whether the first one was asked to stop."""
        asked = self._workers.rank == 0 and self._stop()
        return bool(self._workers.all_reduce(np.array([asked], np.int64))[0])

    def _learning_rate(self, step: int) -> float:
        """Return the rate of the update after so many."""
        _, schedule = self._train.main_schedule
        history: list[float] = []
        if isinstance(schedule, ReduceOnPlateau):
            history = [figures[schedule.monitor] or 0.0 for figures in self.state.history]
        progress = Progress(step, self._steps_per_epoch, self._total_steps, step // self._steps_per_epoch, history)
        return self._train.schedule.learning_rate(self._train.optimizer.learning_rate, progress)

    def _checkpoint_is_due(self) -> bool:
        """Tell whether to save after a step; the epoch's last one is followed by a checkpoint anyway."""
        every, step = self._train.checkpoint_every, self.state.step
        last = step % self._steps_per_epoch == 0 or step == self._total_steps
        return every is not None and step % every == 0 and not last

    @property
    def _epoch(self) -> int:
        """The epoch of the last step, counted from 1."""
        return (self.state.step - 1) // self._steps_per_epoch + 1

    # ------------------------------------------------------------------ what happened

    def _started(self) -> RunStarted:
        return RunStarted(
            name=self._config.name,
            step=self.state.step,
            total_steps=self._total_steps,
            epochs=self._train.epochs,
            steps_per_epoch=self._steps_per_epoch,
            batch_size=self._train.batch_size,
            samples=len(self._data.train),
            parameters=self._model.layout.size,
            workers=self._workers.size,
            run=_text(self._directory.path if self._directory else None),
        )

    def _step_done(self, result: StepResult, rate: float) -> Iterator[StepDone | LayersWatched]:
        self.state.add_step(
            loss_sum=result.loss_sum,
            loss_count=result.loss_count,
            correct=result.correct,
            samples=result.samples,
            seconds=result.seconds,
        )
        yield StepDone(
            step=self.state.step,
            epoch=self._epoch,
            loss=result.loss,
            accuracy=result.correct / result.samples if self._step.classifies else None,
            learning_rate=rate,
            grad_norm=result.grad_norm,
            seconds=result.seconds,
            samples=result.samples,
        )
        if result.layers:
            yield LayersWatched(step=self.state.step, layers=result.layers)

    def _non_finite(self, error: NonFiniteError) -> NonFinite:
        return NonFinite(
            step=self.state.step + 1,
            layer=error.culprit.layer,
            where=error.culprit.where,
            loss=error.loss,
            checkpoint=_text(self._last_checkpoint),
        )

    @quiet
    def _end_epoch(self) -> EpochDone:
        state = self.state
        validation = self._evaluate(self._data.validation)
        event = EpochDone(
            epoch=self._epoch,
            step=state.step,
            train_loss=state.loss_sum / state.loss_count,
            train_accuracy=state.correct / state.seen if self._step.classifies else None,
            validation_loss=validation.loss if validation else None,
            validation_accuracy=validation.accuracy if validation else None,
            learning_rate=self._learning_rate(state.step - 1),
            seconds=state.seconds,
            images_per_second=state.seen / max(state.seconds, 1e-9),
        )
        state.end_epoch({name: getattr(event, name) for name in EPOCH_FIGURES})
        return event

    def _judge_epoch(self) -> bool:
        """Return whether the epoch that is over is the best so far, and keep its parameters if so."""
        improved = self.state.judge_epoch(self._train.early_stopping)
        if improved:
            self._best_parameters = self._model.parameters()
        return improved

    def _stopped_early(self) -> StoppedEarly:
        stopping = self._train.early_stopping
        assert stopping is not None
        return StoppedEarly(
            epoch=self._epoch,
            step=self.state.step,
            monitor=stopping.monitor,
            best=negated(stopping.monitor, self.state.best or 0.0),
            patience=stopping.patience,
        )

    @quiet
    def _finish(self, started: float) -> RunFinished:
        self._workers.barrier()  # the first one may still be saving the last parameters, which all of them share
        if self._best_parameters is not None:
            self._model.set_parameters(self._best_parameters)
        test = self._evaluate(self._data.test)
        last = self.state.history[-1] if self.state.history else {}
        return RunFinished(
            step=self.state.step,
            epochs=len(self.state.history),
            **{name: last.get(name) for name in EPOCH_FIGURES},
            test_loss=test.loss if test else None,
            test_accuracy=test.accuracy if test else None,
            seconds=perf_counter() - started,
            run=_text(self._directory.path if self._directory else None),
        )

    def _evaluate(self, split: Split | None) -> Evaluation | None:
        if not split:
            return None
        return evaluate(self._model, split, self._data.normalization, workers=self._workers)

    # ------------------------------------------------------------------ checkpoints

    def _save(self, *, best: bool = False) -> Iterator[CheckpointSaved]:
        if self._directory is None:
            return
        optimizer = {name: self._workers.gather(vector) for name, vector in self._step.updater.state_dict().items()}
        if self._workers.rank > 0:
            return
        step, keep = self.state.step, self._train.keep_checkpoints
        self._last_checkpoint = self._directory.save(self._checkpoint(optimizer), step, best=best, keep=keep)
        yield CheckpointSaved(step=step, path=str(self._last_checkpoint), best=best)

    def _checkpoint(self, optimizer: dict[str, Array]) -> Checkpoint:
        return Checkpoint(
            config=to_yaml(self._config),
            progress=self.state.to_dict(),
            normalization=self._data.normalization.to_dict(),
            parameters=self._model.parameters(),
            optimizer=optimizer,
            best=self._best_parameters or {},
        )

    def best_checkpoint(self) -> Checkpoint | None:
        """Return the best parameters so far, if a figure says which they are."""
        return self._checkpoint({}).of_best() if self._best_parameters is not None else None

    def _resume(self) -> None:
        """Take up the run directory's last good checkpoint; start afresh where there is none.

        Raises
        ------
        RunError
            When the checkpoint belongs to another network or another optimizer.
        """
        assert self._directory is not None
        found = self._directory.last_good()
        if found is None:
            return
        path, checkpoint = found
        try:
            self._model.set_parameters(checkpoint.parameters, complete=True)
            share = self._step.share
            self._step.updater.load_state_dict({name: whole[share] for name, whole in checkpoint.optimizer.items()})
            self.state = RunState.from_dict(checkpoint.progress)
            self._best_parameters = checkpoint.best or None
        except (IndexError, TypeError, ValueError) as error:
            raise RunError(
                f"{path}: does not fit the config ({error}); resume with the config it was made by"
            ) from None
        self._last_checkpoint = path


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
