"""The sums over windows as products of strips: rows of the image, written kw times, each time shifted.

Where an image has few channels, as in a first layer, products are larger than what they are made of, and a
horizontal stride throws most of them away. So the shifts are made on the image: each of its rows becomes a *strip*,
and the strips of kh rows are the matrix (kh·kw·c, ow·n) that W or dy multiplies.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import as_strided

from cnnbp_cli.core.correlate.grouping import by_group, spread
from cnnbp_cli.core.types import Array, Context
from cnnbp_cli.core.windows import Windows

STRIP_BYTES = 512 * 1024
"""About how many bytes of strips to hold at a time."""


def correlate(x: Array, weight: Array, windows: Windows, groups: int, y: Array, ctx: Context) -> Iterator[int]:
    """Fill the rows of y; yield each one's number when it is done."""
    kernel = spread(weight, windows, groups).reshape(groups, len(y) // groups, -1)  # (g, fg, effective kh·kw·cg)
    y_groups = by_group(y, groups)  # (g, fg, oh, ow, n)
    for p, strips in _strips(x, windows, groups, ctx):
        np.matmul(kernel, strips, out=y_groups[:, :, p].reshape(*kernel.shape[:2], strips.shape[2]))
        yield p


def correlate_weights(x: Array, dy: Array, windows: Windows, groups: int, ctx: Context) -> Array:
    """Return dw (g, effective kh, kw, cg, fg)."""
    fg, cg = len(dy) // groups, len(x) // groups
    dy_groups = by_group(dy, groups)  # (g, fg, oh, ow, n)
    dw: Array | float = 0.0
    for p, strips in _strips(x, windows, groups, ctx):
        dy_row = dy_groups[:, :, p].reshape(groups, fg, strips.shape[2])
        dw = dw + strips @ dy_row.swapaxes(1, 2)  # (g, effective kh·kw·cg, fg)
    return np.reshape(dw, (groups, windows.effective_kernel[0], windows.kernel[1], cg, fg))


def _strips(x: Array, windows: Windows, groups: int, ctx: Context) -> Iterator[tuple[int, Array]]:
    """Yield, for each row p of windows, p and the matrix (g, effective kh·kw·cg, ow·n) of what they see."""
    image = windows.pad(x, ctx)
    kh, kw = windows.effective_kernel[0], windows.kernel[1]
    cg, n, (oh, ow), (sh, sw) = len(image) // groups, image.shape[3], windows.out, windows.stride
    channel, row, column, sample = image.strides
    # Neighboring rows of windows share strips, so several times as many as a window is high are held at a time.
    at_a_time = max(STRIP_BYTES // max(1, kw * ow * image[:, 0, 0].nbytes), 3 * kh) // sh + 1
    for start in range(0, oh, at_a_time):
        stop = min(start + at_a_time, oh)
        height = (stop - start - 1) * sh + kh
        shifted = as_strided(
            image[:, start * sh :],
            (groups, height, kw, cg, ow, n),
            (channel * cg, row, column * windows.dilation[1], channel, column * sw, sample),
            writeable=False,
        )
        strips = ctx.scratch("strips", shifted.shape, image.dtype)
        np.copyto(strips, shifted)
        flat = strips.reshape(groups, height * kw * cg, ow * n)
        for p in range(start, stop):
            top = (p - start) * sh * kw * cg
            yield p, flat[:, top : top + kh * kw * cg]
