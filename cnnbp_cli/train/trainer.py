"""One worker's part in a run: steps, epochs and checkpoints, the same program on every worker.

Gradients, losses and counts are summed over the workers before anything is decided, so all of them take
the same decisions. Each updates its share of the parameters, which all of them read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import perf_counter

import numpy as np

from cnnbp_cli.config.write import to_yaml
from cnnbp_cli.core.graph import INPUT
from cnnbp_cli.core.optim import Step, Updater, chain, clip_by_global_norm
from cnnbp_cli.core.schedules import LinearWarmup, Progress, ReduceOnPlateau
from cnnbp_cli.core.types import Array, Context, Workspace
from cnnbp_cli.data.batches import make_batch, order
from cnnbp_cli.data.dataset import Dataset
from cnnbp_cli.data.split import Split
from cnnbp_cli.model import Model
from cnnbp_cli.parallel.local import LocalWorkers
from cnnbp_cli.parallel.solo import SoloWorker
from cnnbp_cli.train.checkpoint import Checkpoint
from cnnbp_cli.train.evaluate import Evaluation, evaluate, predicted_classes
from cnnbp_cli.train.events import (
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
from cnnbp_cli.train.statistics import Watcher

Look = Callable[..., None]
"""Called with a layer's name, what of it is shown, and the arrays."""

Mark = Callable[[str, str], None]
"""Called while a step goes by, with a part of the step and a layer's name or ``""``.

In this order: the step's ``begin``; ``batch`` is ready; ``forward`` of a layer is done; ``loss`` is done;
``backward`` of a layer begins; ``gradients`` are all there; ``sums`` over the workers are; the ``update`` is.
"""

FIGURES = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")
"""What is remembered of an epoch."""

quiet = np.errstate(over="ignore", invalid="ignore", divide="ignore")
"""Bad values are found and reported by `NonFinite`; NumPy's warnings would only come before it."""


@dataclass(slots=True)
class RunState:
    """Where a run stands between two steps: all that a checkpoint needs besides the arrays.

    Attributes
    ----------
    step : int
        Updates made.
    loss_sum, loss_count, right, seen, seconds : float
        Sums over the epoch that is under way.
    history : list of dict
        The figures of each finished epoch.
    best : float or None
        The best monitored figure so far, oriented so that less is better.
    best_step : int
        The step that it was reached at.
    stale : int
        Epochs since then.
    stopped : bool
        Early stopping has ended the run.
    """

    step: int = 0
    loss_sum: float = 0.0
    loss_count: float = 0.0
    right: float = 0.0
    seen: int = 0
    seconds: float = 0.0
    history: list[dict[str, float | None]] = field(default_factory=list)
    best: float | None = None
    best_step: int = 0
    stale: int = 0
    stopped: bool = False

    def __post_init__(self) -> None:
        """Raise `TypeError` unless all values are what they should be: they may come from a file."""
        counts = (self.step, self.best_step, self.seen, self.stale)
        figures = [self.loss_sum, self.loss_count, self.right, self.seconds, 0.0 if self.best is None else self.best]
        if not isinstance(self.history, list) or not all(isinstance(epoch, dict) for epoch in self.history):
            raise TypeError("history is no list of figures")
        for epoch in self.history:
            if set(epoch) != set(FIGURES):
                raise TypeError(f"an epoch has other figures than {', '.join(FIGURES)}")
            figures += [value for value in epoch.values() if value is not None]
        if not all(type(count) is int and 0 <= count < 1 << 63 for count in counts) or type(self.stopped) is not bool:
            raise TypeError("a count is no number")
        if not all((type(figure) in (int, float) and abs(figure) < 1e300) or figure != figure for figure in figures):
            raise TypeError("a figure is no number")


@dataclass(frozen=True, slots=True)
class Job:
    """What all workers of a run are given.

    Attributes
    ----------
    model : Model
    data : Dataset
    directory : RunDirectory or None
        Where the first worker writes.
    resume : bool
        Begin from the directory's last good checkpoint.
    watch_every : int
        Steps from one event with the layers' statistics to the next; 0 for none.
    """

    model: Model
    data: Dataset
    directory: RunDirectory | None
    resume: bool
    watch_every: int


class Trainer:
    """One worker's part in a run.

    Parameters
    ----------
    job : Job
    workers : SoloWorker or LocalWorkers
    stop : callable
        Asked by the first worker before every step.
    mark : Mark, optional
    """

    def __init__(
        self, job: Job, workers: SoloWorker | LocalWorkers, stop: Callable[[], bool], mark: Mark | None = None
    ) -> None:
        self.model = model = job.model
        self.data = job.data
        self.directory = job.directory
        self.workers = workers
        self.stop = stop
        self.mark = mark or (lambda part, layer: None)
        model.move_to(workers.vector)
        self.config = model.config.train
        self.seed = model.config.seed
        self.classifies = model.classifies and self.data.train.has_classes
        self.count_per_sample = model.loss_function.count(np.empty((*model.output_shape, 1)))
        self.state = RunState()
        self.steps_per_epoch = math.ceil(len(self.data.train) / self.config.batch_size)
        self.total_steps = min(self.steps_per_epoch * self.config.epochs, self.config.max_steps or 10**18)
        self.workspace = Workspace()
        for entry in model.layout.entries:
            self.workspace.place((entry.node, entry.key), workers.gradient[entry.start : entry.stop])
        self.share = workers.share(model.layout.size)
        transform = self.config.optimizer.transform()
        if self.config.clip_norm is not None:
            transform = chain(clip_by_global_norm(self.config.clip_norm), transform)
        self.watcher = Watcher(model, workers, job.watch_every)
        self.updater = Updater(transform, self.share.stop - self.share.start, model.dtype)
        self.last_checkpoint: Path | None = None
        self.best_parameters: dict[str, Array] | None = None
        if job.resume:
            self._resume()
        workers.barrier()

    # ------------------------------------------------------------------ the run

    def events(self) -> Iterator[Event]:
        """Train to the end, from wherever the state stands."""
        started = perf_counter()
        yield self._started()
        if self.state.step == 0:
            yield from self._save()
        while self.state.step < self.total_steps and not self.state.stopped:
            epoch, position = divmod(self.state.step, self.steps_per_epoch)
            visit = order(self.seed, epoch, len(self.data.train))
            for batch in range(position, self.steps_per_epoch):
                if self.state.step == self.total_steps:
                    break
                if self._stopping():
                    yield from self._save()
                    yield Interrupted(step=self.state.step, checkpoint=_text(self.last_checkpoint))
                    return
                size = self.config.batch_size
                events = self._step(epoch, visit[batch * size : (batch + 1) * size])
                yield from events
                if isinstance(events[-1], NonFinite):
                    return
                if self._checkpoint_is_due(batch):
                    yield from self._save()
            yield self._end_epoch(epoch)
            improved = self._improved()
            yield from self._save(best=improved)
            if self.state.stopped:
                stopping = self.config.early_stopping
                yield StoppedEarly(
                    epoch=epoch + 1,
                    step=self.state.step,
                    monitor=stopping.monitor,
                    best=self._oriented(stopping.monitor, self.state.best or 0.0),
                    patience=stopping.patience,
                )
        yield self._finish(started)

    def _checkpoint_is_due(self, batch: int) -> bool:
        """Tell whether to save after a batch; the epoch's last one is followed by a checkpoint anyway."""
        every, step = self.config.checkpoint_every, self.state.step
        last = batch + 1 == self.steps_per_epoch or step == self.total_steps
        return every is not None and step % every == 0 and not last

    def _stopping(self) -> bool:
        """Tell all workers whether the first one was asked to stop."""
        asked = self.workers.rank == 0 and self.stop()
        return bool(self.workers.all_reduce(np.array([asked], np.int64))[0])

    def _started(self) -> RunStarted:
        return RunStarted(
            name=self.model.config.name,
            step=self.state.step,
            total_steps=self.total_steps,
            epochs=self.config.epochs,
            steps_per_epoch=self.steps_per_epoch,
            batch_size=self.config.batch_size,
            samples=len(self.data.train),
            parameters=self.model.layout.size,
            workers=self.workers.size,
            run=_text(self.directory.path if self.directory else None),
        )

    # ------------------------------------------------------------------ one step

    @quiet
    def _step(self, epoch: int, batch: Array) -> Sequence[Event]:
        """Forward, loss, backward, update: on this worker's slice of the batch."""
        started = perf_counter()
        model, state, mark = self.model, self.state, self.mark
        mark("begin", "")
        n = len(batch)
        images = self.workers.share(n)
        x, labels = make_batch(
            self.data.train,
            batch[images],
            self.data.normalization,
            model.dtype,
            augment=self.model.config.data.augment,
            seed=self.seed,
            step=state.step,
            first_sample=images.start,
            out=self.workspace.empty(
                ("", "batch"), (*model.graph.shapes["input"], images.stop - images.start), model.dtype
            ),
        )
        mark("batch", "")
        watched = self.watcher.at(state.step + 1)
        ctx = Context(
            training=True,
            seed=self.seed,
            step=state.step,
            first_sample=images.start,
            workers=self.workers,
            arrays=self.workspace,
            wants_dx=False,
            fused=watched is None,
        )
        loss = model.loss_function

        def watch_outputs(name: str, y: Array) -> None:
            mark("forward", name)
            if watched:
                watched.output(name, y)
            else:
                self.watcher.track(name, y)

        def watch_gradients(name: str, dy: Array) -> None:
            mark("backward", name)
            if watched:
                watched.flow(name, dy)

        z, tape = model.graph.forward(model.params, x, ctx, watch_outputs)
        target = model.targets_in(labels, x)
        loss_sum, residuals = loss.forward(z, target)
        right = float((predicted_classes(z) == labels).sum()) if self.classifies else 0.0
        count = self.count_per_sample * n  # of all workers together
        dz = loss.backward(residuals) / count
        mark("loss", "")
        _, grads = model.graph.backward(model.params, tape, dz, ctx, watch_gradients)
        mark("gradients", "")
        model.layout.gather(grads, self.workers.gradient)
        gradient = self.workers.reduce_share()
        own_sums = np.array([loss_sum, right, square_norm(gradient)], np.float64)
        loss_sum, right, squares = self.workers.all_reduce(own_sums).tolist()
        mark("sums", "")
        mean_loss, grad_norm = loss_sum / count, math.sqrt(squares) if squares >= 0 else math.nan
        if not (math.isfinite(mean_loss) and math.isfinite(grad_norm)):
            return [
                self._non_finite(
                    mean_loss, lambda watch: self._repeat(x, dz, replace(ctx, fused=False), mean_loss, watch)
                )
            ]
        statistics = model.graph.next_state(model.params, tape)
        model.set_state(statistics)
        rate = self._learning_rate(epoch, state.step)
        mine = model.vector[self.share]
        if watched:
            watched.before(gradient, mine)
        self.updater.update(mine, gradient, Step(state.step + 1, rate, grad_norm))
        bad = not _all_finite(mine, *(value for own in statistics.values() for value in own.values()))
        if self.workers.all_reduce(np.array([bad], np.int64))[0]:
            return [self._non_finite(mean_loss, lambda watch: None)]
        mark("update", "")
        state.step += 1
        layers = watched.statistics(mine, n) if watched else None
        seconds = perf_counter() - started
        state.loss_sum += loss_sum
        state.loss_count += count
        state.right += right
        state.seen += n
        state.seconds += seconds
        done = StepDone(
            step=state.step,
            epoch=epoch + 1,
            loss=mean_loss,
            accuracy=right / n if self.classifies else None,
            learning_rate=rate,
            grad_norm=grad_norm,
            seconds=seconds,
            samples=n,
        )
        return [done, LayersWatched(step=state.step, layers=layers)] if layers else [done]

    def _learning_rate(self, epoch: int, step: int) -> float:
        schedule = self.config.schedule
        inner = schedule.then if isinstance(schedule, LinearWarmup) else schedule
        history: list[float] = []
        if isinstance(inner, ReduceOnPlateau):
            history = [figures[inner.monitor] or 0.0 for figures in self.state.history]
        progress = Progress(step, self.steps_per_epoch, self.total_steps, epoch, history)
        return schedule.learning_rate(self.config.optimizer.learning_rate, progress)

    def _non_finite(self, loss: float, repeat: Callable[[Look], None]) -> NonFinite:
        """Name the first array that went bad, on any of the workers; all of them look at the same arrays."""
        places: dict[tuple[str, str], bool] = {}  # in the order of computation

        def look(name: str, where: str, *arrays: Array) -> None:
            places[name, where] = places.get((name, where), False) or not _all_finite(*arrays)

        for node, params in self.model.params.items():
            look(node, "parameters", *params.values())
        repeat(look)
        bad = self.workers.all_reduce(np.array([*places.values(), True], np.int64))
        layer, where = [*places, ("all layers together", "gradient")][int(np.flatnonzero(bad)[0])]
        checkpoint = _text(self.last_checkpoint)
        return NonFinite(step=self.state.step + 1, layer=layer, where=where, loss=loss, checkpoint=checkpoint)

    def _repeat(self, x: Array, dz: Array, ctx: Context, loss: float, look: Look) -> None:
        """Go through a step once more and show every array of it."""
        model = self.model
        look(INPUT, "output", x)
        _, tape = model.graph.forward(model.params, x, ctx, lambda name, y: look(name, "output", y))
        look("loss", "loss", np.array(loss))
        _, grads = model.graph.backward(model.params, tape, dz, ctx, lambda name, dy: look(name, "gradient", dy))
        for name, own in grads.items():
            look(name, "gradient", *own.values())

    # ------------------------------------------------------------------ epochs and the end

    @quiet
    def _end_epoch(self, epoch: int) -> EpochDone:
        state = self.state
        validation = self._evaluate(self.data.validation)
        event = EpochDone(
            epoch=epoch + 1,
            step=state.step,
            train_loss=state.loss_sum / state.loss_count,
            train_accuracy=state.right / state.seen if self.classifies else None,
            validation_loss=validation.loss if validation else None,
            validation_accuracy=validation.accuracy if validation else None,
            learning_rate=self._learning_rate(epoch, state.step - 1),
            seconds=state.seconds,
            images_per_second=state.seen / max(state.seconds, 1e-9),
        )
        state.history.append({name: getattr(event, name) for name in FIGURES})
        state.loss_sum = state.loss_count = state.right = state.seconds = 0.0
        state.seen = 0
        return event

    def _evaluate(self, split: Split | None) -> Evaluation | None:
        if not split:
            return None
        return evaluate(self.model, split, self.data.normalization, workers=self.workers)

    @staticmethod
    def _oriented(monitor: str, value: float) -> float:
        return -value if monitor.endswith("accuracy") else value

    def _improved(self) -> bool:
        """Compare the epoch's monitored figure with the best one, and decide about early stopping."""
        stopping = self.config.early_stopping
        monitor = stopping.monitor if stopping else "validation_loss"
        value = self.state.history[-1][monitor]
        if value is None:
            return False
        value = self._oriented(monitor, value)
        best, margin = self.state.best, stopping.min_delta if stopping else 0.0
        if not math.isnan(value) and (best is None or value < best - margin):
            self.state.best, self.state.best_step, self.state.stale = value, self.state.step, 0
            self.best_parameters = self.model.parameters()
            return True
        self.state.stale += 1
        self.state.stopped = bool(stopping and self.state.stale >= stopping.patience)
        return False

    @quiet
    def _finish(self, started: float) -> RunFinished:
        state = self.state
        self.workers.barrier()  # the first one may still be saving the last parameters, which all of them share
        if self.best_parameters is not None:
            self.model.set_parameters(self.best_parameters)
        test = self._evaluate(self.data.test)
        last = state.history[-1] if state.history else {}
        return RunFinished(
            step=state.step,
            epochs=len(state.history),
            train_loss=last.get("train_loss"),
            train_accuracy=last.get("train_accuracy"),
            validation_loss=last.get("validation_loss"),
            validation_accuracy=last.get("validation_accuracy"),
            test_loss=test.loss if test else None,
            test_accuracy=test.accuracy if test else None,
            seconds=perf_counter() - started,
            run=_text(self.directory.path if self.directory else None),
        )

    # ------------------------------------------------------------------ checkpoints

    def _save(self, *, best: bool = False) -> Iterator[CheckpointSaved]:
        if self.directory is None:
            return
        optimizer = {name: self.workers.gather(vector) for name, vector in self.updater.state_dict().items()}
        if self.workers.rank > 0:
            return
        step, keep = self.state.step, self.config.keep_checkpoints
        self.last_checkpoint = self.directory.save(self._checkpoint(optimizer), step, best=best, keep=keep)
        yield CheckpointSaved(step=self.state.step, path=str(self.last_checkpoint), best=best)

    def _checkpoint(self, optimizer: dict[str, Array]) -> Checkpoint:
        return Checkpoint(
            config=to_yaml(self.model.config),
            progress=asdict(self.state),
            normalization=self.data.normalization.to_dict(),
            parameters=self.model.parameters(),
            optimizer=optimizer,
            best=self.best_parameters or {},
        )

    def best_checkpoint(self) -> Checkpoint | None:
        """Return the best parameters so far, if a figure says which they are."""
        return self._checkpoint({}).of_best() if self.best_parameters is not None else None

    def _resume(self) -> None:
        """Take up the run directory's last good checkpoint; start afresh where there is none.

        Raises
        ------
        RunError
            When the checkpoint belongs to another network or another optimizer.
        """
        assert self.directory is not None
        found = self.directory.last_good()
        if found is None:
            return
        path, checkpoint = found
        try:
            self.model.set_parameters(checkpoint.parameters, complete=True)
            self.updater.load_state_dict({name: whole[self.share] for name, whole in checkpoint.optimizer.items()})
            self.state = RunState(**checkpoint.progress)
            self.best_parameters = checkpoint.best or None
        except (IndexError, TypeError, ValueError) as error:
            raise RunError(
                f"{path}: does not fit the config ({error}); resume with the config it was made by"
            ) from None
        self.last_checkpoint = path


def square_norm(vector: Array) -> float:
    """Return the sum of squares, also where those of float32 overflow."""
    squares = float(np.dot(vector, vector))
    if math.isinf(squares):
        return float(np.square(vector, dtype=np.float64).sum())
    return squares


def _all_finite(*arrays: Array) -> bool:
    # A sum of squares takes one pass; it says no as well where it overflows, and then every value is looked at.
    return all(math.isfinite(np.vdot(array, array)) or bool(np.isfinite(array).all()) for array in arrays)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
