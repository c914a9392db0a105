"""What the data say before any training: their scale, their classes, and whether neighbors agree about labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from cnnbp_cli.core.losses import one_hot
from cnnbp_cli.core.types import Array
from cnnbp_cli.data.dataset import Dataset
from cnnbp_cli.data.leave_out import blank, digests
from cnnbp_cli.data.split import Split
from cnnbp_cli.diagnosis.facts import DataFacts, Labels, SplitMatch
from cnnbp_cli.model import Model, quiet

SAMPLE = 1000
"""Images whose pixels and targets are looked at; the spread of a mean over as many is 3% of the deviation."""

LIBRARY, QUERIES, NEIGHBORS = 2000, 1000, 10
"""Images to find neighbors among, images to find them for, and how many vote."""

PIXELS = 1024
"""Images are averaged down to about so many pixels before they are compared: neighbors need no detail."""

MIN_IMAGES = 200
"""Images that are needed: among fewer, ten neighbors are too large a share of a class to be near."""

MIN_OF_CLASS = 10
"""Images of a class among the library below which nothing is asked about it: its own kind is nowhere near."""

MIN_VOTED = 25
"""Images voted into a class, for the share of them that bears its label."""

NEAR = 0.4
"""A near copy's distance divided by the median distance of nearest neighbors. Distinct pictures of one class are rarely
below 0.5; noise of 3% of the range, a change of brightness or recompression stay below 0.2."""

COPY_PIXELS = 196
"""Images are averaged down to about so many pixels to look for near copies, which also forgives small noise."""

COPIES: tuple[Callable[[Array], Array], ...] = (
    lambda images: images,
    lambda images: images[..., ::-1],
    *(partial(np.roll, shift=by, axis=axis) for axis in (2, 3) for by in (-1, 1)),
)
"""What may have been done to a copy (n, c, h, w) besides noise, brightness and contrast."""

COPY_LIBRARY, COPY_QUERIES = 20_000, 500
"""Images to look for near copies among, and images to look for them of."""

CLEAR_VOTES = 0.2
"""The share of the images whose neighbors agree most, among which wrong labels stand out."""


@quiet
def data_facts(model: Model, data: Dataset) -> DataFacts:
    """Measure the data of a model."""
    train, held = data.train, data.test or data.validation
    chosen = spread(len(train), SAMPLE)
    raw = train.images[chosen].astype(np.float64)
    x = data.normalization.apply(train.images[chosen], np.float64)
    target = model.targets_in(train.labels[chosen], _inside(x))
    losses = _losses(model, target)
    labeled = train.has_classes and model.target == "label"
    low, high = (None, None) if labeled else np.quantile(target, (0.01, 0.99)).tolist()
    leaked, leaking, repeated, identical = _repetitions(train, held)
    pictures, held_pictures = _pictures(train), _pictures(held) if held else None
    near_leaked, near_repeated = _near_copies(pictures, held_pictures)
    known = [split.labels for split in (train, held) if split and split.has_classes]
    classes = max(data.classes or 0, *(int(labels.max()) + 1 for labels in known)) if labeled else None
    neighbors = Neighbors.among(pictures, held_pictures, classes) if classes else Neighbors(None, None, None)
    held_labels = held.labels if held and held.has_classes else np.zeros(0, np.int64)
    return DataFacts(
        count=len(train),
        held_count=len(held) if held else 0,
        classes=classes,
        class_counts=tuple(np.bincount(train.labels, minlength=classes or 0).tolist()) if classes else (),
        held_counts=tuple(np.bincount(held_labels, minlength=classes or 0).tolist()) if classes else (),
        match=_match(pictures, held_pictures) if held_pictures else None,
        constant=float((raw.reshape(len(raw), -1).std(1) == 0).mean()),
        identical=identical,
        raw=(float(raw.mean()), float(raw.std()), float(raw.min()), float(raw.max())),
        whole_numbers=train.images.dtype == np.uint8,
        mean=float(x.mean()),
        deviation=float(x.std()),
        low=float(x.min()),
        high=float(x.max()),
        texture=_texture(raw),
        target_low=low,
        target_high=high,
        labels=neighbors.train,
        held_labels=neighbors.held,
        across=neighbors.across,
        leaked=leaked,
        leaking=leaking,
        repeated=repeated,
        near_leaked=near_leaked,
        near_repeated=near_repeated,
        uniform_loss=losses[0],
        constant_loss=losses[1],
        constant_output_loss=losses[2],
    )


def _pictures(split: Split) -> Split:
    """Return a split without its blank images, which are like nothing and unlike nothing."""
    shown = ~blank(split.images)
    return split if shown.all() or not shown.any() else split.take(np.flatnonzero(shown))


def _match(train: Split, held: Split) -> SplitMatch:
    """Compare the pixels of two splits, in the channel that differs most, and their mean pictures."""
    ours, theirs = (split.images[spread(len(split), SAMPLE)].astype(np.float64) for split in (train, held))
    means, held_means = (images.mean((0, 2, 3)) for images in (ours, theirs))
    channel = int(np.abs(means - held_means).argmax())
    return SplitMatch(
        mean=(float(means[channel]), float(held_means[channel])),
        deviation=(float(ours[:, channel].std()), float(theirs[:, channel].std())),
        likeness=_correlation(ours.mean(0), theirs.mean(0)),
        own_likeness=_correlation(ours[0::2].mean(0), ours[1::2].mean(0)) if len(ours) > 1 else 1.0,
    )


def _correlation(one: Array, other: Array) -> float:
    one, other = one - one.mean(), other - other.mean()
    squares = float((one * one).sum() * (other * other).sum())
    return float((one * other).sum()) / squares**0.5 if 0 < squares < np.inf else 1.0


def _texture(images: Array) -> float:
    """Return how much a pixel says about its right neighbor, in images (n, c, h, w)."""
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


def _losses(model: Model, target: Array) -> tuple[float, float, float]:
    """Return the losses of an answer that favours nothing, and of the best one that is always the same.

    Of the latter, both the one that training sees and that of the network's output alone.
    """
    loss, shape = model.loss_function, model.output_shape
    zeros = np.zeros((*shape, target.shape[-1]))
    if target.ndim == zeros.ndim:
        frequency = target.mean(-1)
    else:
        frequency = one_hot(target, shape[0], np.dtype(np.float64)).mean(-1)
    if loss.predict(zeros[..., :1]).ravel()[0] == 0:  # no head: the best constant is the mean
        answer = frequency
    elif model.config.model.head == "softmax":
        smoothing = model.config.train.label_smoothing
        answer = np.log(np.maximum((1 - smoothing) * frequency + smoothing / len(frequency), 1e-12))
    else:
        p = np.clip(frequency, 1e-6, 1 - 1e-6)
        answer = np.log(p / (1 - p))
    best = np.broadcast_to(answer[..., None], zeros.shape)
    uniform, constant = (model.total_loss_of(z, target) for z in (zeros, best))
    of_output = min(float(loss.forward(z, target)[0]) / loss.count(z) for z in (zeros, best))
    return uniform, min(uniform, constant), of_output


# ---------------------------------------------------------------------- images that occur twice


def _repetitions(train: Split, held: Split | None) -> tuple[float, float, float, float]:
    """Count the images that occur twice.

    Returns the shares of held-out images that are in training, of training images that are held out, of its
    repetitions, and of its most frequent image.
    """
    own, others = digests(train.images), digests(held.images) if held else []
    known, asked = Counter(own), set(others)
    repeated = 1 - len(known) / len(own)
    leaked = sum(digest in known for digest in others) / max(1, len(others))
    leaking = sum(digest in asked for digest in own) / len(own)
    return leaked, leaking, repeated, max(known.values()) / len(own)


def _near_copies(train: Split, held: Split | None) -> tuple[float, float]:
    """Return the share of held-out images, and of training images, with a near copy among (other) training images.

    Each image is brought to mean 0 and length 1 first, so that a copy may be brighter or have more contrast; and it is
    compared mirrored and moved by a pixel as well.
    """
    if held is None or len(train) < MIN_IMAGES or train.images[0].size < 2:
        return 0.0, 0.0
    library = _directions(_points(train, COPY_LIBRARY, COPY_PIXELS)[0])
    own = spread(len(library), COPY_QUERIES)
    asked = train.take(spread(len(train), COPY_LIBRARY)[own])
    within = _nearest_distance(library, asked, own)
    across = _nearest_distance(library, held.take(spread(len(held), COPY_QUERIES)), None)
    limit = NEAR * float(np.median(within))
    return float((across < limit).mean()), float((within < limit).mean())


def _directions(points: Array) -> Array:
    points = points / (float(np.abs(points).max()) or 1.0)
    points = points - points.mean(1, keepdims=True)
    return points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)


def _nearest_distance(library: Array, asked: Split, selves: Array | None) -> Array:
    """Return how far each image, as it is, mirrored or moved by a pixel, is from the library's nearest other one."""
    best = np.full(len(asked), -1.0)
    for change in COPIES:
        images = np.ascontiguousarray(change(asked.images[:]))
        points = _directions(_points(Split(images, asked.labels), len(asked), COPY_PIXELS)[0])
        likeness = points @ library.T
        if selves is not None:
            likeness[np.arange(len(points)), selves] = -1
        best = np.maximum(best, likeness.max(1))
    return np.sqrt(np.maximum(2 - 2 * best, 0))


# ---------------------------------------------------------------------- neighbors


class Neighbors(NamedTuple):
    """How nearest neighbors agree about labels: among training images, held-out images, and between the two."""

    train: Labels | None
    held: Labels | None
    across: Labels | None

    @classmethod
    def among(cls, train: Split, held: Split | None, classes: int) -> Neighbors:
        library, labels = _points(train, LIBRARY)
        scale = float(np.abs(library).max()) or 1.0  # squares of huge pixels would overflow
        library /= scale
        queries = np.arange(0, len(library), max(1, len(library) // QUERIES))
        own = _labels(library, labels, library[queries], labels[queries], classes, queries)
        if held is None or not held.has_classes:
            return cls(own, None, None)
        points, held_labels = _points(held, LIBRARY)
        points /= scale
        asked = np.arange(0, len(points), max(1, len(points) // QUERIES))
        return cls(
            own,
            _labels(points, held_labels, points[asked], held_labels[asked], classes, asked),
            _labels(library, labels, points[asked], held_labels[asked], classes, None),
        )


def _points(split: Split, most: int, pixels: int = PIXELS) -> tuple[Array, Array]:
    """Return images as vectors (n, pixels), averaged down where they are large, and their labels."""
    chosen = spread(len(split), most)
    images = split.images[chosen].astype(np.float32)
    n, c, h, w = images.shape
    factor = int(np.ceil(np.sqrt(c * h * w / pixels)))
    if factor > 1 and min(h, w) >= factor:
        h, w = h // factor, w // factor
        images = images[:, :, : h * factor, : w * factor].reshape(n, c, h, factor, w, factor).mean((3, 5))
    return images.reshape(n, -1), split.labels[chosen]


def _labels(
    library: Array, labels: Array, points: Array, own: Array, classes: int, selves: Array | None
) -> Labels | None:
    """Let the nearest images of the library vote on each point; `selves` are the points' own places in it.

    A vote counts by the rarity of its class, so that the few of a rare class are not outvoted by its crowded
    surroundings; classes with next to no images in the library are left out.
    """
    counts = np.bincount(labels, minlength=classes)
    common = counts >= MIN_OF_CLASS
    asked = common[own]
    if len(library) < MIN_IMAGES or common.sum() < 2 or not asked.any():
        return None
    points, own, selves = points[asked], own[asked], None if selves is None else selves[asked]
    center = library.mean(0)
    library, points = library - center, points - center
    distance = (library * library).sum(1) - 2 * (points @ library.T)
    if selves is not None:
        distance[np.arange(len(points)), selves] = np.inf
    distance[:, ~common[labels]] = np.inf
    nearest = np.argpartition(distance, NEIGHBORS, 1)[:, :NEIGHBORS]
    votes = np.zeros((len(points), classes))
    for k in range(NEIGHBORS):
        votes[np.arange(len(points)), labels[nearest[:, k]]] += 1
    votes /= np.maximum(counts, 1) / counts.mean()
    called = votes.argmax(1)
    ordered = np.sort(votes, 1)
    clearest = np.argsort(ordered[:, -2] - ordered[:, -1], kind="stable")[: max(1, int(CLEAR_VOTES * len(points)))]
    right = called == own
    recalls = [float(right[own == k].mean()) for k in range(classes) if (own == k).any()]
    chance = 1 / len(recalls)
    agreement = (float(np.mean(recalls)) - chance) / (1 - chance) if len(recalls) > 1 else 0.0
    by_class = tuple(
        float(right[voted].mean()) if (voted := called == k).sum() >= MIN_VOTED else None for k in range(classes)
    )
    return Labels(count=len(points), agreement=agreement, confident=float(right[clearest].mean()), by_class=by_class)
