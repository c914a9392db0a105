"""The training loop: steps, epochs and checkpoints, the same program on every worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter

import numpy as np

from cnnbp_cli.core.backprop import Observer, ignore
from cnnbp_cli.core.losses import total_loss
from cnnbp_cli.core.schedules import Progress
from cnnbp_cli.core.types import Array
from cnnbp_cli.data.batches import make_batch, order
from cnnbp_cli.data.split import Split
from cnnbp_cli.model import quiet
from cnnbp_cli.parallel.worker import Worker
from cnnbp_cli.train.checkpoint import Checkpoint
from cnnbp_cli.train.evaluate import Evaluation, evaluate
from cnnbp_cli.train.events import (
    DIVERGED,
    EPOCH_FIGURES,
    ConfigChanged,
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
from cnnbp_cli.train.job import Job
from cnnbp_cli.train.saver import Saver
from cnnbp_cli.train.state import negated
from cnnbp_cli.train.step import NonFiniteError, StepResult, TrainingStep


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
        self._job, self._workers, self._stop = job, workers, stop
        self._model, self._data, self._config, self._train = job.model, job.data, job.config, job.config.train
        samples = len(job.data.train)
        self._steps_per_epoch = self._train.steps_per_epoch(samples)
        self._total_steps = self._train.total_steps(samples)
        self._step = TrainingStep(job.model, job.data, job.config, workers, job.watch_every, observer)
        self._saver = Saver(job, workers, self._step)
        self.state = self._saver.restore()
        workers.barrier()

    # ------------------------------------------------------------------ the loop

    def events(self) -> Iterator[Event]:
        """Train to the end, from wherever the state stands."""
        started = perf_counter()
        yield self._started()
        if changes := self._job.changes:
            yield ConfigChanged(step=self.state.step, changes=changes.changes, safe=changes.safe)
        if self.state.step == 0 or changes:
            yield from self._saver.save(self.state)
        while not self._is_over():
            for batch, following in self._rest_of_epoch():
                stop, save = self._asked()
                if stop or save:
                    yield from self._saver.save(self.state)
                if stop:
                    yield Interrupted(step=self.state.step, checkpoint=_text(self._saver.last))
                    return
                try:
                    rate = self._learning_rate(self.state.step)
                    result = self._step(batch, self.state.step, rate, following)
                except NonFiniteError as error:
                    yield self._non_finite(error)
                    return
                yield from self._step_done(result, rate)
                if self._saver.is_due(self.state, self._total_steps, self._steps_per_epoch):
                    yield from self._saver.save(self.state)
            yield self._end_epoch()
            yield from self._saver.save(self.state, best=self._judge_epoch())
            if self.state.stopped:
                yield self._stopped_early()
        yield self._finish(started)

    def _is_over(self) -> bool:
        return self.state.stopped or self.state.step >= self._total_steps

    def _rest_of_epoch(self) -> Iterator[tuple[Array, Array | None]]:
        """Yield the batches of the epoch that is under way, as numbers of training images, each with the one after."""
        epoch, begin = divmod(self.state.step, self._steps_per_epoch)
        end = min(self._steps_per_epoch, begin + self._total_steps - self.state.step)
        visit, size = self._order(epoch), self._train.batch_size
        batches = [visit[batch * size : (batch + 1) * size] for batch in range(begin, end)]
        yield from zip(batches, [*batches[1:], None], strict=True)

    def _order(self, epoch: int) -> Array:
        return order(self._config.seed, epoch, len(self._data.train), self._config.data.shuffle)

    def _asked(self) -> tuple[bool, bool]:
        """Tell all workers whether the first one was asked to stop, and whether it is time for a checkpoint."""
        asked = np.zeros(2, np.int64)
        if self._workers.rank == 0:
            asked[:] = self._stop(), self._saver.is_due_by_time()
        stop, save = self._workers.all_reduce(asked).tolist()
        return bool(stop), bool(save)

    def _learning_rate(self, step: int) -> float:
        """Return the rate of the update after so many."""
        epoch, plateau = step // self._steps_per_epoch, self.state.plateau
        progress = Progress(step, self._steps_per_epoch, self._total_steps, epoch, plateau)
        return self._train.schedule.learning_rate(self._train.optimizer.learning_rate, progress)

    @property
    def _epoch(self) -> int:
        """The epoch of the last step, counted from 1."""
        return (self.state.step - 1) // self._steps_per_epoch + 1

    @property
    def _run(self) -> str | None:
        return _text(self._job.directory.path if self._job.directory else None)

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
            run=self._run,
        )

    def _step_done(self, result: StepResult, rate: float) -> Iterator[StepDone | LayersWatched]:
        self.state.add_step(result)
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
            checkpoint=_text(self._saver.last),
        )

    @quiet
    def _end_epoch(self) -> EpochDone:
        state = self.state
        validation = self._evaluate(self._data.validation)
        losses = self._model.losses
        means = {
            one.layer: own / count for one, own, count in zip(losses, state.loss_sums, state.loss_counts, strict=True)
        }
        event = EpochDone(
            epoch=self._epoch,
            step=state.step,
            train_loss=total_loss(losses, state.loss_sums, state.loss_counts),
            train_accuracy=state.correct / state.seen if self._step.classifies else None,
            validation_loss=validation.loss if validation else None,
            validation_accuracy=validation.accuracy if validation else None,
            learning_rate=self._learning_rate(state.step - 1),
            seconds=state.seconds,
            images_per_second=state.seen / max(state.seconds, 1e-9),
            train_losses=means if self._train.losses else None,
        )
        state.end_epoch({name: getattr(event, name) for name in EPOCH_FIGURES}, self._train.main_schedule[1])
        return event

    def _judge_epoch(self) -> bool:
        """Return whether the epoch that is over is the best so far, and keep its parameters if so."""
        improved = self.state.judge_epoch(self._train.early_stopping)
        if improved:
            self._saver.keep_best()
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
        diverged = self._diverged()
        if self._saver.best_parameters is not None:
            self._model.set_parameters(self._saver.best_parameters)
        test = self._evaluate(self._data.test)
        return RunFinished(
            step=self.state.step,
            epochs=self.state.epochs,
            **{name: self.state.figures.get(name) for name in EPOCH_FIGURES},
            test_loss=test.loss if test else None,
            test_accuracy=test.accuracy if test else None,
            seconds=perf_counter() - started,
            run=self._run,
            diverged=diverged,
        )

    def _diverged(self) -> bool:
        """Whether the last epoch was worse than the start, and than a network that learned nothing."""
        last, first = self.state.figures.get("train_loss"), self.state.first_loss or 0.0
        if last is None or last <= DIVERGED * first:
            return False
        batch = self._order(0)[: self._train.batch_size]
        x, labels = make_batch(self._data.train, batch, self._data.normalization, self._model.dtype)
        z = np.zeros((*self._model.output_shape, len(batch)), self._model.dtype)
        return last > DIVERGED * self._model.total_loss_of(z, self._model.targets_in(labels, x))

    def best_checkpoint(self) -> Checkpoint | None:
        """Return the best parameters so far, if a figure says which they are."""
        return self._saver.best_checkpoint(self.state)

    def _evaluate(self, split: Split | None) -> Evaluation | None:
        if not split:
            return None
        return evaluate(self._model, split, self._data.normalization, workers=self._workers)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
