"""How good a model is on a split: loss, accuracy, and which classes it confuses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from cnnbp_cli.core.types import Array, Communicator, Context, Tick, Workspace
from cnnbp_cli.data.batches import make_batch
from cnnbp_cli.data.normalization import Normalization
from cnnbp_cli.data.split import Split
from cnnbp_cli.model import Model, quiet
from cnnbp_cli.parallel.team import on_all_cores

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
    name : str
        What people call it: its number where it has no name.
    """

    label: int
    precision: float | None
    recall: float | None
    count: int
    name: str


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


def evaluate(
    model: Model,
    split: Split,
    normalization: Normalization | None = None,
    *,
    workers: Communicator | None = None,
    batch_size: int = 64,
    progress: Tick | None = None,
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
    progress : callable, optional
        Called by the first worker with how many of its images are done, and how many it has.
    """
    normalization = normalization or model.normalization
    if normalization is None:
        raise ValueError("the model does not know its normalization: pass one")
    if workers is None:
        program = partial(_evaluate, model, split, normalization, batch_size)
        first, others = partial(program, progress), partial(program, None)
        return on_all_cores(first, len(split) * model.macs, others=others, portable=model.is_portable)
    return _evaluate(model, split, normalization, batch_size, progress, workers)


@quiet
def _evaluate(
    model: Model,
    split: Split,
    normalization: Normalization,
    batch_size: int,
    progress: Tick | None,
    workers: Communicator,
) -> Evaluation:
    """Measure this worker's part of the images, and return what all of them found."""
    batch_size = model.affordable_batch(batch_size)
    mine = workers.share(len(split))
    ctx = Context(arrays=Workspace(), fused=True)
    classifies = model.classifies and split.has_classes
    confusion = np.zeros((model.classes,) * 2, np.int64) if classifies and model.classes <= MOST_CLASSES else None
    called: list[Array] = []

    def batches() -> Iterator[tuple[Array, Array]]:
        for start in range(mine.start, mine.stop, batch_size):
            if progress is not None and workers.rank == 0:
                progress(start - mine.start, mine.stop - mine.start)
            chosen = slice(start, min(start + batch_size, mine.stop))
            x, labels = make_batch(split, chosen, normalization, model.dtype)
            yield x, model.targets_in(labels, x)

    def see(z: Array) -> None:
        if classifies:
            called.append(predicted_classes(z))

    loss_sum, count = model.summed_loss(batches(), ctx, see)
    labels, predicted = split.labels[mine], np.concatenate([*called, np.empty(0, np.int64)])
    correct = np.count_nonzero(predicted == labels) if classifies else 0
    loss_sum, count, correct = workers.all_reduce(np.array([loss_sum, count, correct], np.float64)).tolist()
    mean_loss = loss_sum / count
    accuracy = _ratio(int(correct), len(split)) if classifies else None
    if confusion is None:
        return Evaluation(mean_loss, accuracy, len(split), None, None)
    np.add.at(confusion, (labels, predicted), 1)
    confusion = workers.all_reduce(confusion)
    hits, true, guessed = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    per_class = [
        PerClass(k, _ratio(hits[k], guessed[k]), _ratio(hits[k], true[k]), int(true[k]), model.class_name(k))
        for k in range(len(hits))
    ]
    return Evaluation(mean_loss, accuracy, len(split), per_class, confusion.tolist())


def predicted_classes(z: Array) -> Array:
    """Return the class of each sample from logits (units, n); one unit says yes or no."""
    return z.argmax(0) if z.shape[0] > 1 else (z[0] > 0).astype(np.int64)


def _ratio(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None
