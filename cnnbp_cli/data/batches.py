"""From rows of bytes in memory to the floats of one batch, in the layout of the first layer."""

from __future__ import annotations

from math import prod

import numpy as np
from numpy.typing import DTypeLike

from cnnbp_cli.core.rng import generator
from cnnbp_cli.core.types import Array
from cnnbp_cli.data.augment import Strength, draw_flips, draw_maps, flipped, warp
from cnnbp_cli.data.normalization import Normalization
from cnnbp_cli.data.split import Split


def order(seed: int, epoch: int, count: int) -> Array:
    """Return the order in which an epoch visits `count` samples."""
    return generator(seed, "shuffle", epoch).permutation(count)


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

    Returns
    -------
    x : Array of `dtype`, shape (c, h, w, n)
    labels : Array, shape (n,), or (n, K) for regression
    """
    rows = split.images[indices]
    count, *shape = rows.shape
    x = np.empty((*shape, count), dtype) if out is None else out
    if augment is not None and augment.flip:
        rows = flipped(rows, draw_flips(seed, step, first_sample, count))
    if augment is not None and (augment.shift or augment.rotate or augment.scale):
        x[...] = warp(rows, draw_maps(augment, seed, step, first_sample, count), dtype)
    else:
        # Transposing bytes and then widening them is faster than the other way round.
        size = prod(shape)
        x.reshape(size, count)[...] = np.ascontiguousarray(rows.reshape(count, size).T)
    normalization.apply_to(x)
    return x, split.labels[indices]
