"""What the data say before any training: their scale, their classes, and whether neighbours agree about labels."""

from __future__ import annotations

from hashlib import blake2b
from typing import NamedTuple

import numpy as np

from cnnbp_cli.core.losses import one_hot
from cnnbp_cli.core.types import Array
from cnnbp_cli.data.dataset import Dataset
from cnnbp_cli.data.split import Split
from cnnbp_cli.diagnosis.facts import DataFacts, Labels
from cnnbp_cli.model import Model, quiet

SAMPLE = 1000
"""Images whose pixels and targets are looked at; the spread of a mean over as many is 3 % of the deviation."""

LIBRARY, QUERIES, NEIGHBOURS = 2000, 500, 10
"""Images to find neighbours among, images to find them for, and how many vote."""

PIXELS = 1024
"""Images are averaged down to about so many pixels before they are compared: neighbours need no detail."""

MIN_IMAGES = 200
"""Images that are needed: among fewer, ten neighbours are too large a share of a class to be near."""

CLEAR_VOTES = 0.2
"""The share of the images whose neighbours agree most, among which wrong labels stand out."""


@quiet
def data_facts(model: Model, data: Dataset) -> DataFacts:
    """Measure the data of a model."""
    train, held = data.train, data.test or data.validation
    chosen = spread(len(train), SAMPLE)
    raw = train.images[chosen].astype(np.float64)
    x = data.normalization.apply(train.images[chosen], np.float64)
    target = model.targets_in(train.labels[chosen] if model.target == "label" else None, _inside(x))
    losses = _losses(model, target)
    labelled = train.has_classes and model.target == "label"
    low, high = (None, None) if labelled else np.quantile(target, (0.01, 0.99)).tolist()
    leaked, repeated = _repetitions(train, held)
    classes = max(data.classes or 0, int(train.labels.max()) + 1) if labelled else None
    neighbours = Neighbours.among(train, held, classes) if classes else Neighbours(None, None, None)
    return DataFacts(
        count=len(train),
        held_count=len(held) if held else 0,
        classes=classes,
        class_counts=tuple(np.bincount(train.labels, minlength=classes or 0).tolist()) if classes else (),
        raw=(float(raw.mean()), float(raw.std()), float(raw.min()), float(raw.max())),
        whole_numbers=train.images.dtype == np.uint8,
        mean=float(x.mean()),
        deviation=float(x.std()),
        low=float(x.min()),
        high=float(x.max()),
        texture=_texture(raw),
        target_low=low,
        target_high=high,
        labels=neighbours.train,
        held_labels=neighbours.held,
        across=neighbours.across,
        leaked=leaked,
        repeated=repeated,
        uniform_loss=losses[0],
        constant_loss=losses[1],
    )


def _texture(images: Array) -> float:
    """Return how much a pixel says about its right neighbour, in images (n, c, h, w)."""
    own = images - images.mean(0)
    left, right = own[..., :-1], own[..., 1:]
    squares = float((left * left).sum() * (right * right).sum())
    return float((left * right).sum()) / squares**0.5 if 0 < squares < np.inf else 0.0


def spread(count: int, most: int) -> Array:
    """Return the numbers of at most `most` of `count` samples, evenly spaced: a file may be sorted by class."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


def _inside(images: Array) -> Array:
    return np.ascontiguousarray(images.transpose(1, 2, 3, 0))


# ---------------------------------------------------------------------- the losses of those who do not look


def _losses(model: Model, target: Array) -> tuple[float, float]:
    """Return the mean loss of an answer that favours nothing, and of the best one that is always the same."""
    loss, shape = model.loss_function, model.output_shape
    z = np.zeros((*shape, target.shape[-1]))
    uniform = _mean_loss(model, z, target)
    if target.ndim == z.ndim:
        frequency = target.mean(-1)
    else:
        frequency = one_hot(target, shape[0], np.dtype(np.float64)).mean(-1)
    if loss.predict(z[..., :1]).ravel()[0] == 0:  # no head: the best constant is the mean
        answer = frequency
    elif model.config.model.head == "softmax":
        smoothing = model.config.train.label_smoothing
        answer = np.log(np.maximum((1 - smoothing) * frequency + smoothing / len(frequency), 1e-12))
    else:
        p = np.clip(frequency, 1e-6, 1 - 1e-6)
        answer = np.log(p / (1 - p))
    constant = _mean_loss(model, np.broadcast_to(answer[..., None], z.shape), target)
    return uniform, min(uniform, constant)


def _mean_loss(model: Model, z: Array, target: Array) -> float:
    return float(model.loss_function.forward(z, target)[0]) / model.loss_function.count(z)


# ---------------------------------------------------------------------- images that occur twice


def _repetitions(train: Split, held: Split | None) -> tuple[float, float]:
    """Return the share of held-out images that occur in the training split, and of the latter's own repetitions."""
    digests = _digests(train)
    known = set(digests)
    repeated = 1 - len(known) / len(digests)
    leaked = sum(digest in known for digest in _digests(held)) / len(held) if held else 0.0
    return leaked, repeated


def _digests(split: Split) -> list[bytes]:
    images = np.ascontiguousarray(split.images)
    return [blake2b(image.tobytes(), digest_size=16).digest() for image in images]


# ---------------------------------------------------------------------- neighbours


class Neighbours(NamedTuple):
    """How nearest neighbours agree about labels: among training images, held-out images, and between the two."""

    train: Labels | None
    held: Labels | None
    across: Labels | None

    @classmethod
    def among(cls, train: Split, held: Split | None, classes: int) -> Neighbours:
        library, labels = _points(train, LIBRARY)
        queries = np.arange(0, len(library), max(1, len(library) // QUERIES))
        own = _labels(library, labels, library[queries], labels[queries], classes, queries)
        if held is None or not held.has_classes:
            return cls(own, None, None)
        points, held_labels = _points(held, LIBRARY)
        asked = np.arange(0, len(points), max(1, len(points) // QUERIES))
        return cls(
            own,
            _labels(points, held_labels, points[asked], held_labels[asked], classes, asked),
            _labels(library, labels, points[asked], held_labels[asked], classes, None),
        )


def _points(split: Split, most: int) -> tuple[Array, Array]:
    """Return images as vectors (n, pixels), averaged down where they are large, and their labels."""
    chosen = spread(len(split), most)
    images = split.images[chosen].astype(np.float32)
    n, c, h, w = images.shape
    factor = int(np.ceil(np.sqrt(c * h * w / PIXELS)))
    if factor > 1 and min(h, w) >= factor:
        h, w = h // factor, w // factor
        images = images[:, :, : h * factor, : w * factor].reshape(n, c, h, factor, w, factor).mean((3, 5))
    return images.reshape(n, -1), split.labels[chosen]


def _labels(
    library: Array, labels: Array, points: Array, own: Array, classes: int, selves: Array | None
) -> Labels | None:
    """Let the nearest images of the library vote on each point; `selves` are the points' own places in it."""
    if len(library) < MIN_IMAGES:
        return None
    centre = library.mean(0)
    library, points = library - centre, points - centre
    distance = (library * library).sum(1) - 2 * (points @ library.T)
    if selves is not None:
        distance[np.arange(len(points)), selves] = np.inf
    nearest = np.argpartition(distance, NEIGHBOURS, 1)[:, :NEIGHBOURS]
    votes = np.zeros((len(points), classes))
    for k in range(NEIGHBOURS):
        votes[np.arange(len(points)), labels[nearest[:, k]]] += 1
    called = votes.argmax(1)
    ordered = np.sort(votes, 1)
    clearest = np.argsort(ordered[:, -2] - ordered[:, -1], kind="stable")[: max(1, int(CLEAR_VOTES * len(points)))]
    right = called == own
    recalls = [float(right[own == k].mean()) for k in range(classes) if (own == k).any()]
    chance = 1 / len(recalls)
    agreement = (float(np.mean(recalls)) - chance) / (1 - chance) if len(recalls) > 1 else 0.0
    return Labels(count=len(points), agreement=agreement, confident=float(right[clearest].mean()))
