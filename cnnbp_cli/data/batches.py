"""From rows of bytes in memory to the floats of one batch, in the layout of the first layer."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from cnnbp_cli.core.rng import generator
from cnnbp_cli.core.types import Array
from cnnbp_cli.data.normalization import Normalization
from cnnbp_cli.data.split import Split


def order(seed: int, epoch: int, count: int) -> Array:
    """Return the order in which an epoch visits `count` samples."""
    return generator(seed, "shuffle", epoch).permutation(count)


def make_batch(
    split: Split,
    indices: Array,
    normalization: Normalization,
    dtype: DTypeLike,
    *,
    out: Array | None = None,
) -> tuple[Array, Array]:
    """Return normalised images, shape (c, h, w, n), and their labels."""
    rows = split.images[indices]
    count, *shape = rows.shape
    x = np.empty((*shape, count), dtype) if out is None else out
    x.reshape(-1, count)[...] = np.ascontiguousarray(rows.reshape(count, -1).T)
    normalization.apply_to(x)
    return x, split.labels[indices]
