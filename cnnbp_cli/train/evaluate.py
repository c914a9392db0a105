"""How good a model is on a split: loss, accuracy, and which classes it confuses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
class PerMaskClass:
    """How the pixels of one class fare; a ratio without any case is None.

    Attributes
    ----------
    label : int
    iou : float or None
        Intersection over union: TP / (TP + FP + FN), over the pixels of all masks together.
    dice : float or None
        2 TP / (2 TP + FP + FN).
    pixels : int
        Pixels of this class.
    name : str
    """

    label: int
    iou: float | None
    dice: float | None
    pixels: int
    name: str


@dataclass(frozen=True, slots=True)
class MaskScores:
    """How well masks are met.

    Attributes
    ----------
    pixel_accuracy : float
    mean_iou, mean_dice : float
        The mean over the classes that have any pixel, in the masks or in the predictions.
    per_class : list of PerMaskClass
    """

    pixel_accuracy: float
    mean_iou: float
    mean_dice: float
    per_class: list[PerMaskClass]

    @classmethod
    def of(cls, confusion: Array, names: Sequence[str]) -> MaskScores:
        """Return the scores of a confusion matrix of pixels: the true class down, the predicted one across."""
        hits, true, guessed = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
        per_class = [
            PerMaskClass(
                k,
                _ratio(hits[k], true[k] + guessed[k] - hits[k]),
                _ratio(2 * hits[k], true[k] + guessed[k]),
                int(true[k]),
                name,
            )
            for k, name in enumerate(names)
        ]
        ious = [one.iou for one in per_class if one.iou is not None]
        dices = [one.dice for one in per_class if one.dice is not None]
        return cls(float(hits.sum() / true.sum()), float(np.mean(ious)), float(np.mean(dices)), per_class)


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
    masks : MaskScores or None
        Where the targets are masks.
    """

    loss: float
    accuracy: float | None
    count: int
    per_class: list[PerClass] | None
    confusion: list[list[int]] | None
    masks: MaskScores | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON; the scores of masks are among them where there are some."""
        values = asdict(self)
        return values if self.masks else {name: value for name, value in values.items() if name != "masks"}


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
    masked = model.target == "mask" and model.classes <= MOST_CLASSES
    pixels = np.zeros((model.classes,) * 2 if masked else (0, 0), np.int64)
    masks: list[Array] = []  # of the batch under way
    called: list[Array] = []

    def batches() -> Iterator[tuple[Array, Array]]:
        for start in range(mine.start, mine.stop, batch_size):
            if progress is not None and workers.rank == 0:
                progress(start - mine.start, mine.stop - mine.start)
            chosen = slice(start, min(start + batch_size, mine.stop))
            x, labels = make_batch(split, chosen, normalization, model.dtype)
            target = model.targets_in(labels, x)
            if masked:
                masks[:] = [target]
            yield x, target

    def see(z: Array) -> None:
        if classifies:
            called.append(predicted_classes(z))
        if masked:
            pairs = masks[0].astype(np.int64) * model.classes + predicted_classes(z)
            pixels.ravel()[:] += np.bincount(pairs.ravel(), minlength=pixels.size)

    loss_sum, count = model.summed_loss(batches(), ctx, see)
    labels, predicted = split.labels[mine], np.concatenate([*called, np.empty(0, np.int64)])
    correct = np.count_nonzero(predicted == labels) if classifies else 0
    loss_sum, count, correct = workers.all_reduce(np.array([loss_sum, count, correct], np.float64)).tolist()
    mean_loss = loss_sum / count
    accuracy = _ratio(int(correct), len(split)) if classifies else None
    if masked:
        names = [model.class_name(k) for k in range(model.classes)]
        scores = MaskScores.of(workers.all_reduce(pixels), names)
        return Evaluation(mean_loss, None, len(split), None, None, scores)
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
    """Return the class of each sample, or pixel, from logits (units, …, n); one unit says yes or no."""
    return z.argmax(0) if z.shape[0] > 1 else (z[0] > 0).astype(np.int64)


def _ratio(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None
