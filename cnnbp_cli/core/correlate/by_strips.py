"""The sums over windows as products of strips: rows of the image, written kw times, each time shifted.

Each row of the image becomes kw *strips*, one for each column of the kernel, and the strips of kh rows are the matrix
(kh·kw·c, ow·n) that W or dy multiplies. Neighboring rows of windows share strips: their matrices overlap in memory, so
that some rows of windows are one product of stacks.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import as_strided

from cnnbp_cli.core.correlate.grouping import by_group, spread
from cnnbp_cli.core.correlate.products import multiply, multiply_transposed
from cnnbp_cli.core.rows import row_slices
from cnnbp_cli.core.types import Array, Context
from cnnbp_cli.core.windows import Windows

STRIP_BYTES = 512 * 1024
"""About how many bytes of strips to hold at a time."""

LARGE_STRIP_BYTES = 4 * 1024 * 1024
"""From how many bytes on, as of large batches, some columns of windows are taken at a time."""


def correlate(x: Array, weight: Array, windows: Windows, groups: int, y: Array, ctx: Context) -> Iterator[int]:
    """Fill the rows of y; yield each one's number when it is done."""
    kernel = spread(weight, windows, groups).reshape(groups, len(y) // groups, -1)  # (g, fg, effective kh·kw·cg)
    y_rows = _rows(y, groups)  # (oh, g, fg, ow·n)
    for rows, columns, strips in _strips(x, windows, groups, ctx):
        multiply(kernel, strips, out=y_rows[rows, :, :, columns])
        if columns.stop == y_rows.shape[3]:
            yield from range(rows.start, rows.stop)


def correlate_weights(x: Array, dy: Array, windows: Windows, groups: int, ctx: Context) -> Array:
    """Return dw (g, effective kh, kw, cg, fg)."""
    fg, cg = len(dy) // groups, len(x) // groups
    dy_rows = _rows(dy, groups)  # (oh, g, fg, ow·n)
    dw: Array | float = 0.0
    for rows, columns, strips in _strips(x, windows, groups, ctx):
        dw = dw + multiply_transposed(dy_rows[rows, :, :, columns], strips).sum(0)  # (g, fg, effective kh·kw·cg)
    dw = np.reshape(dw, (groups, fg, windows.effective_kernel[0], windows.kernel[1], cg))
    return dw.transpose(0, 2, 3, 4, 1)


def _rows(image: Array, groups: int) -> Array:
    """Return an image (f, oh, ow, n) as (oh, g, fg, ow·n)."""
    g, fg, oh, ow, n = by_group(image, groups).shape
    return by_group(image, groups).transpose(2, 0, 1, 3, 4).reshape(oh, g, fg, ow * n)


def _strips(x: Array, windows: Windows, groups: int, ctx: Context) -> Iterator[tuple[slice, slice, Array]]:
    """Yield some windows and the matrices (rows, g, effective kh·kw·cg, columns·n) of what they see.

    The windows are given as rows, and as columns of the matrix (f, ow·n) that a row of them is.
    """
    (oh, ow), n = windows.out, x.shape[3]
    if windows.kernel == windows.stride == (1, 1) and windows.padded == windows.image:
        for rows in row_slices(oh, x.nbytes):
            yield rows, slice(0, ow * n), _rows(x, groups)[rows]  # each row is its only strip
        return
    (kh, kw), cg, (sh, sw) = (windows.effective_kernel[0], windows.kernel[1]), len(x) // groups, windows.stride
    image, taps = by_group(x, groups).swapaxes(1, 2), windows.columns()  # (g, h, cg, w, n)
    # Several times as many rows as a window is high are held at a time, as neighboring rows of windows share them.
    at_a_time = max(STRIP_BYTES // max(1, kw * ow * x[:, 0, 0].nbytes), 3 * kh) // sh + 1
    for start in range(0, oh, at_a_time):
        rows = slice(start, min(start + at_a_time, oh))
        top, height = start * sh - windows.before[0], (rows.stop - start - 1) * sh + kh
        first = min(max(top, 0), windows.image[0])
        stop = max(first, min(top + height, windows.image[0]))
        wide = max(1, LARGE_STRIP_BYTES // max(1, height * kw * x[:, 0, 0].nbytes))
        for left in range(0, ow, wide):
            right = min(left + wide, ow)
            strips = ctx.scratch("strips", (groups, height, kw, cg, right - left, n), x.dtype)
            strips[:, : first - top] = strips[:, stop - top :] = 0
            for j, (seeing, seen) in enumerate(taps):
                begin = min(max(seeing.start, left), right)
                end = max(begin, min(seeing.stop, right))
                pixel = seen.start + (begin - seeing.start) * sw
                strip = strips[:, first - top : stop - top, j]
                strip[:, :, :, : begin - left] = strip[:, :, :, end - left :] = 0
                pixels = image[:, first:stop, :, pixel : pixel + max(0, (end - begin - 1) * sw + 1) : sw]
                np.copyto(strip[:, :, :, begin - left : end - left], pixels)
            group, row, _, channel, _, sample = strips.strides
            shape = (rows.stop - start, groups, kh * kw * cg, (right - left) * n)
            step = row * min(sh, height)  # a stride beyond the strip, which has one row then, may be beyond 64 bits
            matrices = as_strided(strips, shape, (step, group, channel, sample), writeable=False)
            yield rows, slice(left * n, right * n), matrices
