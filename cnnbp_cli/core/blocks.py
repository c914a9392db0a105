"""Work on a few rows at a time, so that the second pass over them finds them in the cache."""

from __future__ import annotations

from collections.abc import Iterator

from cnnbp_cli.core.types import Array

BLOCK_BYTES = 256 * 1024
"""About how much to take at a time: a second-level cache of 1–2 MB then holds a few such arrays.

Batch norm of 32 channels of 28×28, 32 images, float32, one core: forward 1.4 ms against 2.4 ms in whole
passes, backward 2.4 ms against 4.0 ms. Backward of 2×2 max pooling from 64 channels of 24×24: 2.0 ms
against 2.9 ms.
"""


def rows_first(x: Array) -> Array:
    """Return images (c, h, w, n) as (h, c, w, n), which is how they lie in memory; vectors (features, n) as they are."""
    return x.swapaxes(0, 1) if x.ndim == 4 else x


def blocks(count: int, nbytes: int) -> Iterator[slice]:
    """Cut `count` rows, which take `nbytes` together, into slices of about `BLOCK_BYTES`."""
    step = max(1, BLOCK_BYTES * count // max(1, nbytes))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))
