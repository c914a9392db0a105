"""One step of one worker: forward, loss, backward and update on its slice of the batch.

Gradients, losses and counts are summed over the workers before anything is decided, so all of them take the same
decisions. Each updates its share of the parameters, which all of them read.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from cnnbp_cli.config.schema import Config
from cnnbp_cli.core.backprop import Observer, Part, backpropagate, ignore
from cnnbp_cli.core.graph import INPUT
from cnnbp_cli.core.losses import total_loss
from cnnbp_cli.core.optim import Step, Updater, chain, clip_by_global_norm
from cnnbp_cli.core.types import Array, Context, Params, Workspace
from cnnbp_cli.data.batches import expect, make_batch
from cnnbp_cli.data.dataset import Dataset
from cnnbp_cli.model import Model, quiet
from cnnbp_cli.parallel.worker import Worker
from cnnbp_cli.train.class_weights import class_weights
from cnnbp_cli.train.evaluate import predicted_classes
from cnnbp_cli.train.non_finite import Culprit, all_finite, find_culprit
from cnnbp_cli.train.statistics import LayerStatistics, Watcher


class NonFiniteError(Exception):
    """A value became infinite or NaN; the parameters may be spoiled.

    Attributes
    ----------
    culprit : Culprit
    loss : float
    """

    def __init__(self, culprit: Culprit, loss: float) -> None:
        super().__init__(f"the {culprit.where} of {culprit.layer} is not finite")
        self.culprit, self.loss = culprit, loss


class StepResult(NamedTuple):
    """What all workers together did in a step.

    Attributes
    ----------
    loss : float
        The mean loss: the weighted sum, where there are several.
    loss_sums, loss_counts : list of float
        Each loss summed over the batch, and what to divide it by.
    correct : float
        Images classified correctly; 0 without classes.
    samples : int
        Images in the batch.
    grad_norm : float
        The L2 norm of the gradient of all parameters together, before clipping.
    seconds : float
        Wall time, the batch included.
    layers : dict of str to LayerStatistics, or None
        None where the step was not watched.
    """

    loss: float
    loss_sums: list[float]
    loss_counts: list[float]
    correct: float
    samples: int
    grad_norm: float
    seconds: float
    layers: dict[str, LayerStatistics] | None


class TrainingStep:
    """Makes steps, one after the other.

    Parameters
    ----------
    model : Model
        Its parameters move to where all workers can read them.
    data : Dataset
    config : Config
        How to train.
    workers : Worker
    watch_every : int
        Steps from one that is watched to the next; 0 for none.
    observer : Observer, optional

    Attributes
    ----------
    updater : Updater
    share : slice
        Which of the parameters this worker updates.
    classifies : bool
        Whether accuracy has a meaning.
    """

    def __init__(
        self,
        model: Model,
        data: Dataset,
        config: Config,
        workers: Worker,
        watch_every: int,
        observer: Observer = ignore,
    ) -> None:
        self._model, self._data, self._config, self._workers = model, data, config, workers
        self._observer = observer
        model.move_to(workers.vector)
        self.classifies = model.classifies and data.train.has_classes
        self._counts_per_sample = [one.loss.count(np.empty((*model.output_shape, 1))) for one in model.losses]
        self._losses, self._weights = model.losses, class_weights(config.train, data, model)
        if self._weights is not None:
            weights: Any = {"class_weights": tuple(self._weights.tolist())}
            self._losses = tuple(replace(one, loss=replace(one.loss, **weights)) for one in self._losses)  # type: ignore[type-var]
        self._workspace = Workspace()
        for entry in model.layout.entries:
            self._workspace.place((entry.node, entry.key), workers.gradient[entry.start : entry.stop])
        self.share = workers.share(model.layout.size)
        transform = config.train.optimizer.transform()
        if config.train.clip_norm is not None:
            transform = chain(clip_by_global_norm(config.train.clip_norm), transform)
        self.updater = Updater(transform, self.share.stop - self.share.start, model.dtype)
        self._watcher = Watcher(model, workers, watch_every)

    @quiet
    def __call__(self, batch: Array, step: int, rate: float, following: Array | None = None) -> StepResult:
        """Learn from a batch.

        Parameters
        ----------
        batch : Array of int, shape (n,)
            Which training images: of all workers together.
        step : int
            Updates before this one.
        rate : float
            The learning rate.
        following : Array of int, optional
            The batch after this one: what of it lies on a slow disk is fetched meanwhile.

        Raises
        ------
        NonFiniteError
            On all workers.
        """
        started = perf_counter()
        model, workers, n = self._model, self._workers, len(batch)
        watched = self._watcher.at(step + 1)
        observe = _both(self._observer, watched or self._watcher)
        observe("begin", "")
        images = workers.share(n)
        x, labels = self._gather(batch[images], step, images.start)
        if following is not None:
            expect(self._data.train, following[workers.share(len(following))], self._config.data.augment)
        observe("batch", "", x)
        ctx = Context(
            training=True,
            seed=self._config.seed,
            step=step,
            first_sample=images.start,
            workers=workers,
            arrays=self._workspace,
            wants_dx=False,
            fused=watched is None,
        )
        counts = self._counts(batch)  # of all workers together
        target = model.targets_in(labels, x)
        run = partial(backpropagate, model.graph, self._losses, model.params, x, target, counts=counts)
        found = run(ctx, observe=observe, done=self._send)
        correct = float((predicted_classes(found.zs[0]) == labels).sum()) if self.classifies else 0.0
        gradient = workers.reduce_share()
        own_sums = np.array([*found.loss_sums, correct, square_norm(gradient)], np.float64)
        *loss_sums, correct, squares = workers.all_reduce(own_sums).tolist()
        mean_loss = total_loss(self._losses, loss_sums, counts)
        grad_norm = math.sqrt(squares) if squares >= 0 else math.nan
        if not (math.isfinite(mean_loss) and math.isfinite(grad_norm)):
            again = partial(run, replace(ctx, fused=False))
            raise NonFiniteError(find_culprit(model, workers, mean_loss, x, again), mean_loss)
        mine = model.vector[self.share]
        observe("sums", "", gradient, mine)
        statistics = model.graph.next_state(model.params, found.tape)
        model.set_state(statistics)
        self.updater.update(mine, gradient, Step(step + 1, rate, grad_norm))
        workers.publish()
        bad = not all_finite(mine, *(value for own in statistics.values() for value in own.values()))
        if workers.all_reduce(np.array([bad], np.int64))[0]:
            raise NonFiniteError(find_culprit(model, workers, mean_loss), mean_loss)
        observe("update", "", mine)
        layers = watched.statistics(mine, n) if watched else None
        seconds = perf_counter() - started
        return StepResult(mean_loss, loss_sums, counts, correct, n, grad_norm, seconds, layers)

    def _send(self, layer: str, grads: Params) -> None:
        """Let the workers begin to sum what gradients are there, while those of the layers before are computed."""
        start = self._model.layout.place(layer, grads, self._workers.gradient)
        if start is not None:
            self._workers.reduce_from(start)

    def _counts(self, batch: Array) -> list[float]:
        """Return what each loss summed over a whole batch is divided by: the labels' weights, if there are any."""
        if self._weights is None:
            return [count * len(batch) for count in self._counts_per_sample]
        return [float(self._weights[self._data.train.labels[batch]].sum())] * len(self._losses)

    def _gather(self, indices: Array, step: int, first_sample: int) -> tuple[Array, Array]:
        """Return this worker's slice of a batch: the input (c, h, w, n) and the labels."""
        model, shape = self._model, (*self._model.graph.shapes[INPUT], len(indices))
        return make_batch(
            self._data.train,
            indices,
            self._data.normalization,
            model.dtype,
            augment=self._config.data.augment,
            seed=self._config.seed,
            step=step,
            first_sample=first_sample,
            out=self._workspace.empty(("", "batch"), shape, model.dtype),
            target_normalization=self._data.target_normalization,
        )


def _both(first: Observer, second: Observer) -> Observer:
    if first is ignore:
        return second

    def observe(part: Part, layer: str, *arrays: Array) -> None:
        first(part, layer, *arrays)
        second(part, layer, *arrays)

    return observe


def square_norm(vector: Array) -> float:
    """Return the sum of squares, also where those of float32 overflow."""
    squares = float(np.dot(vector, vector))
    if math.isinf(squares):
        return float(np.square(vector, dtype=np.float64).sum())
    return squares
