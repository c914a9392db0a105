"""The three sums over windows as they are defined, every window written out: slow, and plain to read.

Tests hold the fast ones to these. Shapes are those of `core.correlate`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cnnbp_cli.core.correlate.grouping import by_group
from cnnbp_cli.core.types import Array
from cnnbp_cli.core.windows import Windows


def correlate(x: Array, weight: Array, windows: Windows, groups: int) -> Array:
    """Return y (f, oh, ow, n)."""
    y = np.einsum("gfcij,gcijpqn->gfpqn", by_group(weight, groups), by_group(_patches(x, windows), groups))
    return y.reshape(-1, *y.shape[2:])


def correlate_weights(x: Array, dy: Array, windows: Windows, groups: int) -> Array:
    """Return dw (f, cg, kh, kw)."""
    dw = np.einsum("gfpqn,gcijpqn->gfcij", by_group(dy, groups), by_group(_patches(x, windows), groups))
    return dw.reshape(-1, *dw.shape[2:])


def correlate_transposed(weight: Array, dy: Array, windows: Windows, groups: int) -> Array:
    """Return dx (c, h, w, n)."""
    dpatches = np.einsum("gfcij,gfpqn->gcijpqn", by_group(weight, groups), by_group(dy, groups))
    padded = np.zeros((groups * weight.shape[1], *windows.padded, dy.shape[3]), dpatches.dtype)
    np.add.at(padded, _seen(windows), dpatches.reshape(-1, *dpatches.shape[2:]))
    return windows.crop(padded)


def _patches(x: Array, windows: Windows) -> Array:
    """Return what each window sees of x (c, h, w, n), as (c, kh, kw, oh, ow, n)."""
    sides = zip(windows.before, windows.after, strict=True)
    return np.pad(x, ((0, 0), *sides, (0, 0)))[_seen(windows)]


def _seen(windows: Windows) -> Any:
    """Return the index of the pixels under each window of a padded image: row p·s + i·d, column q·s + j·d."""
    axes = zip(windows.kernel, windows.dilation, windows.out, windows.stride, strict=True)
    rows, columns = (np.add.outer(np.arange(k) * d, np.arange(out) * s) for k, d, out, s in axes)
    return slice(None), rows[:, None, :, None], columns[:, None, :]
