"""From rows of bytes in memory to the floats of one batch, in the layout of the first layer."""

from __future__ import annotations

from math import prod
from typing import Literal

import numpy as np
from numpy.typing import DTypeLike

from cnnbp_cli.core.rng import generator
from cnnbp_cli.core.types import Array
from cnnbp_cli.data.augment import Moves, Strength, size_factor, warp
from cnnbp_cli.data.file_rows import FileRows
from cnnbp_cli.data.normalization import Normalization
from cnnbp_cli.data.split import Split

Shuffle = Literal["full", "blocks"]

BLOCK_SAMPLES, BLOCKS_MIXED = 1024, 16
"""Samples that lie together in a file, and how many such blocks are mixed with each other."""


def order(seed: int, epoch: int, count: int, shuffle: Shuffle = "full") -> Array:
    """Return the order in which an epoch visits `count` samples.

    ``full`` is a permutation of all of them. ``blocks`` is for files that no memory holds, where a sample here and a
    sample there each cost a wait for the disk: blocks of samples are drawn without replacement, so many at a time, and
    their samples are permuted. Each epoch visits each sample once in both.
    """
    rng = generator(seed, "shuffle", epoch)
    if shuffle == "full":
        return rng.permutation(count)
    starts = rng.permutation(np.arange(0, count, BLOCK_SAMPLES))
    parts: list[Array] = []
    for first in range(0, len(starts), BLOCKS_MIXED):
        mixed = [np.arange(s, min(s + BLOCK_SAMPLES, count)) for s in starts[first : first + BLOCKS_MIXED]]
        parts.append(rng.permutation(np.concatenate(mixed)))
    return np.concatenate(parts)


def make_batch(
    split: Split,
    indices: Array | slice,
    normalization: Normalization,
    dtype: DTypeLike,
    *,
    augment: Strength | None = None,
    seed: int = 0,
    step: int = 0,
    first_sample: int = 0,
    out: Array | None = None,
    target_normalization: Normalization | None = None,
) -> tuple[Array, Array]:
    """Gather samples into a batch.

    Parameters
    ----------
    split : Split
    indices : Array of int, shape (n,)
        Or a slice: samples in the split's order are gathered without a copy.
    normalization : Normalization
    dtype : float32 or float64
    augment : Strength, optional
        The config's `augment`, in training.
    seed, step, first_sample : int
        Name the random numbers of the augmentation: sample `i` of this batch is number `first_sample + i`
        of the step, whichever worker makes it.
    out : Array, shape (c, h, w, n), optional
        A contiguous buffer of `dtype` to fill and return.
    target_normalization : Normalization, optional
        That of target images, by which their background is known.

    Returns
    -------
    x : Array of `dtype`, shape (c, h, w, n)
    labels : Array, shape (n,), or (n, K) for regression
        Masks (n, H, W) or images (n, C, H, W) have moved with their images.

    Raises
    ------
    DataError
        When targets are of a size that cannot move with the images.
    """
    whole = _read_of(split, augment)
    rows, labels, moves = whole.images[indices], whole.labels[indices], Moves()
    size = split.images.shape[2:]
    count, channels = rows.shape[:2]
    if augment is not None:
        room = [have - want for have, want in zip(rows.shape[2:], size, strict=True)]
        moves = Moves.draw(augment, room, seed, step, first_sample, count)
        if split.has_images:
            part = split.labels.shape[-2:]
            factor = size_factor(augment, size, part, "targets")
            outside = 0.0 if target_normalization is None else target_normalization.background
            labels = moves.of_targets(labels, part, factor, outside)
    rows, shape = moves.cut(rows, size), (channels, *size)
    x = np.empty((*shape, count), dtype) if out is None else out
    if moves.maps is not None:
        x[...] = warp(rows, moves.maps, dtype)
    else:
        # Transposing bytes and then widening them is faster than the other way round.
        pixels = prod(shape)
        x.reshape(pixels, count)[...] = np.ascontiguousarray(rows.reshape(count, pixels).T)
    normalization.apply_to(x)
    return x, labels


def expect(split: Split, indices: Array, augment: Strength | None = None) -> None:
    """Say which samples the next batch will be made of: images on a slow disk are fetched meanwhile."""
    images = _read_of(split, augment).images
    if isinstance(images, FileRows):
        images.expect(indices)


def _read_of(split: Split, augment: Strength | None) -> Split:
    """Return the split whose images are read: as the source has them, where each is to be cut at another place."""
    return split if augment is None or augment.crop is None else split.whole
