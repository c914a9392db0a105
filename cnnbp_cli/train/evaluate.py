"""How good a model is on a split: loss, accuracy, and which classes it confuses."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from multiprocessing import current_process
from typing import Any, NamedTuple

import numpy as np

from cnnbp_cli.core.types import Array, Communicator, Context, Solo, Workspace
from cnnbp_cli.data.batches import make_batch
from cnnbp_cli.data.normalization import Normalization
from cnnbp_cli.data.split import Split
from cnnbp_cli.memory import affordable, require_batch
from cnnbp_cli.model import Model, quiet
from cnnbp_cli.parallel.local import LocalWorkers, WorkerDiedError, available_cores, local_workers, start_context

MOST_CLASSES = 1000
"""With more, nobody reads who is taken for whom, and the table outgrows everything else."""


@dataclass(frozen=True, slots=True)
class PerClass:
    """How one class fares; a ratio without any case is None.

    Attributes
    ----------
    label : int
    precision : float or None
        Of the images called this class, the share that are.
    recall : float or None
        Of the images of this class, the share that were called so.
    count : int
        Images of this class.
    """

    label: int
    precision: float | None
    recall: float | None
    count: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The figures of a split; all but `loss` and `count` are None where model or split have no classes.

    `per_class` and `confusion` are also None where there are more than `MOST_CLASSES`.

    Attributes
    ----------
    loss : float
        The mean over all images.
    accuracy : float or None
    count : int
        Images in the split.
    per_class : list of PerClass or None
    confusion : list of list of int or None
        Row: the true class; column: the predicted class.
    """

    loss: float
    accuracy: float | None
    count: int
    per_class: list[PerClass] | None
    confusion: list[list[int]] | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


WORTHWHILE = 4_000_000_000
"""Multiply-accumulates: about 0.05 s of work on one core, several times what it takes to start a worker."""


def evaluate(
    model: Model,
    split: Split,
    normalization: Normalization | None = None,
    *,
    workers: Communicator | None = None,
    batch_size: int = 64,
) -> Evaluation:
    """Measure a model, in evaluation mode.

    Parameters
    ----------
    model : Model
    split : Split
    normalization : Normalization, optional
        By default the model's own.
    workers : Communicator, optional
        Shares the split among workers; all of them get the result. By default as many are started as pay.
    batch_size : int
        Images per forward pass.
    """
    normalization = normalization or model.normalization
    if normalization is None:
        raise ValueError("the model does not know its normalisation: pass one")
    if workers is None:
        job = _Job(model, split, normalization, batch_size)
        count = _planned_workers(model, len(split))
        if count == 1:
            return _evaluate(Solo(), job)
        try:
            with local_workers(count, 1, model.dtype, _work, lambda context: job) as team:
                return _evaluate(team, job)
        except WorkerDiedError:  # killed, perhaps for lack of memory: one alone needs less
            return _evaluate(Solo(), job)
    return _evaluate(workers, _Job(model, split, normalization, batch_size))


def _planned_workers(model: Model, images: int) -> int:
    """Return how many workers to use: all cores where workers start fast and there is work for them, else one."""
    macs = images * sum(layer.macs(model.graph.in_shape(node)) for node, layer in model.graph.layers())
    fast = start_context().get_start_method() == "fork" and not current_process().daemon
    return available_cores() if fast and macs >= WORTHWHILE else 1


class _Job(NamedTuple):
    model: Model
    split: Split
    normalization: Normalization
    batch_size: int


def _work(workers: LocalWorkers, job: _Job) -> None:
    """Run the program of a worker other than the first."""
    _evaluate(workers, job)


@quiet
def _evaluate(workers: Communicator, job: _Job) -> Evaluation:
    """Measure this worker's part of the images, and return what all of them found."""
    model, split, normalization, batch_size = job
    item_bytes = model.dtype.itemsize
    batch_size = affordable(model.graph, batch_size, item_bytes)
    require_batch(model.config, model.graph, batch_size, item_bytes, "make the layer smaller", keep=False)
    first, last = (len(split) * k // workers.size for k in (workers.rank, workers.rank + 1))
    ctx = Context(arrays=Workspace(), fused=True)
    loss = model.loss_function
    classifies = model.classifies and split.has_classes
    confusion = np.zeros((model.classes,) * 2, np.int64) if classifies and model.classes <= MOST_CLASSES else None
    total = np.zeros(3)  # the summed loss, what to divide it by, and the images classified rightly
    for start in range(first, last, batch_size):
        chosen = slice(start, min(start + batch_size, last))
        x, labels = make_batch(split, chosen, normalization, model.dtype)
        z = model.logits(x, ctx)
        total[:2] += float(loss.forward(z, model.targets_in(labels, x))[0]), loss.count(z)
        if classifies:
            called = predicted_classes(z)
            total[2] += np.count_nonzero(called == labels)
            if confusion is not None:
                np.add.at(confusion, (labels, called), 1)
    total = workers.all_reduce(total)
    mean_loss = float(total[0] / total[1])
    accuracy = _ratio(int(total[2]), len(split)) if classifies else None
    if confusion is None:
        return Evaluation(mean_loss, accuracy, len(split), None, None)
    confusion = workers.all_reduce(confusion)
    hits, true, guessed = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    per_class = [
        PerClass(k, _ratio(hits[k], guessed[k]), _ratio(hits[k], true[k]), int(true[k])) for k in range(len(hits))
    ]
    return Evaluation(mean_loss, accuracy, len(split), per_class, confusion.tolist())


def predicted_classes(z: Array) -> Array:
    """Return the class of each sample from logits (units, n); one unit says yes or no."""
    return z.argmax(0) if z.shape[0] > 1 else (z[0] > 0).astype(np.int64)


def _ratio(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None
