"""Images and kernels by groups of channels, images as their rows, and the rows that windows see."""

from __future__ import annotations

import numpy as np

from cnnbp_cli.core.types import Array, Context
from cnnbp_cli.core.windows import Windows


def by_group(array: Array, groups: int) -> Array:
    """Return an array with channels or filters first, such as an image (c, h, w, n), as (g, cg, …)."""
    return array.reshape(groups, len(array) // groups, *array.shape[1:])


def spread(weight: Array, windows: Windows, groups: int) -> Array:
    """Write weight (f, cg, kh, kw) as (g, fg, effective kh, kw, cg), with zeros for the rows that a dilation skips."""
    f, cg, kh, kw = weight.shape
    kernel = np.zeros((groups, f // groups, windows.effective_kernel[0], kw, cg), weight.dtype)
    kernel[:, :, :: windows.dilation[0]] = weight.transpose(0, 2, 3, 1).reshape(groups, f // groups, kh, kw, cg)
    return kernel


def matrix_of_rows(image: Array, groups: int, ctx: Context, *, copy: bool = False, role: str = "rows") -> Array:
    """Return image (c, h, w, n) as (g, h·cg, w·n), its rows one after another: a view where it lies so in memory.

    The rows of a single channel may lie apart, unless `copy` says that they are to be copied then.
    """
    rows = by_group(image, groups).swapaxes(1, 2)  # (g, h, cg, w, n)
    g, h, cg, w, n = rows.shape
    if (cg > 1 or copy) and not rows.flags.c_contiguous:
        own = ctx.scratch(role, rows.shape, image.dtype)
        np.copyto(own, rows)
        rows = own
    return rows.reshape(g, h * cg, w * n)


def rows_below(windows: Windows, rows: slice) -> tuple[int, int, int]:
    """Return the image rows under rows of windows as (first, top, stop), those on the image being top to stop."""
    sh, height = windows.stride[0], windows.effective_kernel[0]
    first = rows.start * sh - windows.before[0]
    return clipped(first, first + (rows.stop - rows.start - 1) * sh + height, windows.image[0])


def clipped(first: int, end: int, count: int) -> tuple[int, int, int]:
    """Return rows first to end as (first, top, stop), those that exist being top to stop; (0, 0, 0) for none."""
    top, stop = max(first, 0), min(end, count)
    return (first, top, stop) if top < stop else (0, 0, 0)
