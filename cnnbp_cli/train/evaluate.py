"""How good a model is on a split: loss, accuracy, and which classes it confuses."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cnnbp_cli.core.types import Array, Communicator, Context, Solo, Workspace
from cnnbp_cli.data.batches import make_batch
from cnnbp_cli.data.normalization import Normalization
from cnnbp_cli.data.split import Split
from cnnbp_cli.model import Model


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
    batch_size: int = 256,
) -> Evaluation:
    """Measure a model, in evaluation mode.

    Parameters
    ----------
    model : Model
    split : Split
    normalization : Normalization, optional
        By default the model's own.
    workers : Communicator, optional
        Shares the split among workers; all of them get the result.
    batch_size : int
        Images per forward pass.
    """
    workers = workers or Solo()
    normalization = normalization or model.normalization
    if normalization is None:
        raise ValueError("the model does not know its normalisation: pass one")
    first, last = (len(split) * k // workers.size for k in (workers.rank, workers.rank + 1))
    ctx = Context(arrays=Workspace(), fused=True)
    loss = model.loss_function
    confusion = np.zeros((model.classes, model.classes), np.int64) if model.classifies and split.has_classes else None
    total = np.zeros(2)  # the summed loss, and what to divide it by
    for start in range(first, last, batch_size):
        chosen = slice(start, min(start + batch_size, last))
        x, labels = make_batch(split, chosen, normalization, model.dtype)
        z = model.logits(x, ctx)
        total += float(loss.forward(z, model.targets_in(labels, x))[0]), loss.count(z)
        if confusion is not None:
            np.add.at(confusion, (labels, predicted_classes(z)), 1)
    total = workers.all_reduce(total)
    mean_loss = float(total[0] / total[1])
    if confusion is None:
        return Evaluation(mean_loss, None, len(split), None, None)
    confusion = workers.all_reduce(confusion)
    right, true, called = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    per_class = [
        PerClass(k, _ratio(right[k], called[k]), _ratio(right[k], true[k]), int(true[k])) for k in range(len(right))
    ]
    return Evaluation(mean_loss, _ratio(right.sum(), len(split)), len(split), per_class, confusion.tolist())


def predicted_classes(z: Array) -> Array:
    """Return the class of each sample from logits (units, n); one unit says yes or no."""
    return z.argmax(0) if z.shape[0] > 1 else (z[0] > 0).astype(np.int64)


def _ratio(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None
