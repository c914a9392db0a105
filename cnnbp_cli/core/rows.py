"""Images as rows, which is how they lie in memory, and a few of them at a time.

What makes several passes over an array makes them over some rows before it goes on to the next, so that the second
pass finds them in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cnnbp_cli.core.types import Array, Context

Block = tuple[slice, slice]
"""Some rows of an image (h, c, w·n) and some of its channels."""

BLOCK_BYTES = 1024 * 1024
"""About how much to take at a time: smaller blocks cost more calls than the nearer cache saves.

Batch norm with ReLU of 64 channels of 32×32, 64 images, float32, one core, forward + backward: 11 ms with blocks of
1 MB, 14 ms with 512 kB, 21 ms with 128 kB, 13 ms with 4 MB. Backward of 2×2 max pooling of 32 channels of 28×28, 32
images: 1.0 ms with 1 MB, 1.2 ms with 256 kB. With blocks of 256 kB for all but batch norm, a step of the MobileNet
takes 1.05 of its time, one of keras-mnist 1.03.
"""


def by_row(x: Array) -> Array:
    """Return images (c, h, w, n) as (h, c, w·n), vectors (c, n) as (1, c, n)."""
    if x.ndim == 2:
        return x[None]
    c, h, w, n = x.shape
    return x.swapaxes(0, 1).reshape(h, c, w * n)


def broadcast_to_row(name: str, values: Array | float, rows: Array, ctx: Context) -> Array:
    """Return values (c, 1), or one for all, written out for a row (c, w·n) of `rows` (h, c, w·n).

    NumPy adds two arrays in less than half the time that it adds a number of its own to each row of one:
    32 channels, two rows of 26×32 values: 4.3 against 10.2 µs.
    """
    row = ctx.scratch(name, rows.shape[1:], np.result_type(rows, values))
    row[...] = values
    return row


def sum_rows(rows: Array) -> Array:
    """Return Σ_m of rows (h, c, m) as (h, c); for long rows a product with ones is faster than `sum`."""
    return rows @ np.ones(rows.shape[2], rows.dtype)


def row_slices(count: int, nbytes: int) -> Iterator[slice]:
    """Cut `count` rows, which take `nbytes` together, into slices of about `BLOCK_BYTES`."""
    step = max(1, BLOCK_BYTES * count // max(1, nbytes))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def blocks(rows: Array) -> Iterator[Block]:
    """Cut rows (h, c, m) into pieces of memory of about `BLOCK_BYTES`: some rows, or some channels of one.

    What is broadcast to a row has to stay in the cache, too, so a channel's rows follow one another.
    """
    h, c, _ = rows.shape
    channels = max(1, min(c, BLOCK_BYTES * c * h // max(1, rows.nbytes)))
    height = max(1, BLOCK_BYTES * h // max(1, rows.nbytes))
    for first in range(0, c, channels):
        for top in range(0, h, height):
            yield slice(top, min(top + height, h)), slice(first, min(first + channels, c))
