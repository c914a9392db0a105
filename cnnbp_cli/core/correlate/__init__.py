"""Three sums over sliding windows, each as matrix products: all that convolution needs, forward and backward.

    correlate             y[f, p, q]           = Σ_{c, i, j} w[f, c, i, j] · x[c, p·s + i·d, q·s + j·d]
    correlate_weights     dw[f, c, i, j]       = Σ_{p, q, n} dy[f, p, q] · x[c, p·s + i·d, q·s + j·d]
    correlate_transposed  dx[c, p·s + i·d, …] += Σ_{f}       w[f, c, i, j] · dy[f, p, q]

where x is 0 outside the image; `reference` has them as they are written here. The textbook way unfolds every window
into a column, which writes each pixel kh·kw times. Here they are computed `by_rows`, where the products are shifted,
`by_strips`, where the image is, or `by_points`, which takes half the products, where NumPy brings OpenBLAS. Shapes,
types and the machine alone decide which, so that a run can be repeated to the bit.

One core (AMD EPYC, AVX-512), float32, forward / weights / transposed, by rows and by strips. ms for 32 images:
1 channel to 32, 28×28 outputs, 0.58 / 0.35 / 0.44, 0.20 / 0.21 / 0.69; 32 to 32, 28×28, 5.2 / 6.1 / 5.1,
4.8 / 5.5 / 5.4; 64 to 64, 14×14, 4.5 / 4.9 / 4.6, 5.0 / 5.5 / 5.2; depthwise, 32 channels, 32×32, 0.9 / 0.7 / 1.0,
1.4 / 1.6 / -. µs for each of 1024 images: 16 to 16, 28×28, 55 / 57 / 58, 51 / 56 / 48.

The better of these over by points, forward and weights: 16 to 16, 32×32, 1.2 / 1.3; 32 to 32, 28×28, 1.5 / 1.9;
64 to 64, 14×14, 1.4 / 1.6; 64 to 64, 7×7, 8 images, 1.8 / 1.8; 16 to 32, 5×5, 14×14, 1.4 / 1.8; 8 to 8, 16×16, 0.9 /
1.1; 3 to 32, 32×32, 0.6 / 0.9.

Besides the letters of `core.types`: fg and cg are the filters and the channels of one of g groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType

from cnnbp_cli.core.correlate import by_points, by_rows, by_strips
from cnnbp_cli.core.rows import row_slices
from cnnbp_cli.core.types import Array, Context
from cnnbp_cli.core.windows import Windows

TERMS = 400
"""From so long sums on (kh·kw·cg), rows of the image are multiplied as they are."""

POINT_TYPES = "f"
"""Types of numbers that are computed by points. float64, in which gradients are checked, keeps to the plain sums, where
windows of zeros are 0 and equal windows equal."""

POINT_TERMS, POINT_PRODUCT = 8, 64_000
"""From so many channels of a group and so large a product, for one row and one tap of the kernel, points pay."""

FEW = 16
"""Up to so many channels times filters of a group, bands of rows make the most of what little there is to multiply."""

Epilogue = Callable[[slice], None]
"""Called with the place of some rows of a result as soon as they are there, while they are in the cache."""


def correlate(
    x: Array, weight: Array, windows: Windows, groups: int, y: Array, ctx: Context, epilogue: Epilogue | None = None
) -> None:
    """Fill y (f, oh, ow, n) with the correlation of x (c, h, w, n) and weight (f, cg, kh, kw)."""
    way = _way(weight, windows, groups, x, y)
    _run(way.correlate(x, weight, windows, groups, y, ctx), y, epilogue)


def correlate_weights(x: Array, dy: Array, weight: Array, windows: Windows, groups: int, ctx: Context) -> Array:
    """Return dw, of the shape of weight (f, cg, kh, kw), from x (c, h, w, n) and dy (f, oh, ow, n)."""
    way = _way(weight, windows, groups, x, dy)
    dw = way.correlate_weights(x, dy, windows, groups, ctx)  # (g, effective kh, kw, cg, fg)
    return dw[:, :: windows.dilation[0]].transpose(0, 4, 3, 1, 2).reshape(weight.shape)


def correlate_transposed(
    weight: Array, dy: Array, windows: Windows, groups: int, dx: Array, ctx: Context, epilogue: Epilogue | None = None
) -> None:
    """Fill dx (c, h, w, n) with the transpose of `correlate`, applied to dy (f, oh, ow, n)."""
    kernel = _flipped(weight, groups)
    shifts_nothing = windows.kernel == (1, 1)
    strips_are_few = len(dy) <= len(dx) and not _rows_pay(kernel, windows, groups)
    if windows.stride == (1, 1) and _way(kernel, windows.transposed(), groups, dy, dx) is by_points:
        filled = by_points.correlate(dy, kernel, windows.transposed(), groups, dx, ctx)
    elif windows.stride == (1, 1) and windows.out == windows.image and (shifts_nothing or strips_are_few):
        filled = by_strips.correlate(dy, kernel, windows.transposed(), groups, dx, ctx)
    else:
        filled = by_rows.correlate_transposed(weight, dy, windows, groups, dx, ctx)
    _run(filled, dx, epilogue)


def _way(weight: Array, windows: Windows, groups: int, x: Array, y: Array) -> ModuleType:
    """Return how best to correlate x (c, h, w, n) with weight to y (f, oh, ow, n)."""
    f, cg, *_ = weight.shape
    enough = cg >= POINT_TERMS and f // groups * cg * windows.out[1] * x.shape[3] >= POINT_PRODUCT
    if enough and x.dtype.char in POINT_TYPES and by_points.can(windows, weight, x, y):
        return by_points
    return by_rows if _rows_pay(weight, windows, groups) else by_strips


def _rows_pay(weight: Array, windows: Windows, groups: int) -> bool:
    """Return whether rows of the image are better multiplied as they are."""
    f, cg, kh, kw = weight.shape
    few = groups > 1 and cg * (f // groups) <= FEW
    return few or (cg * kh * kw >= TERMS and windows.stride[1] == 1)


def _flipped(weight: Array, groups: int) -> Array:
    """Return the kernel (c, fg, kh, kw) with which dy is to be correlated, of weight (f, cg, kh, kw)."""
    f, cg, kh, kw = weight.shape
    kernel = weight[:, :, ::-1, ::-1].reshape(groups, f // groups, cg, kh, kw)
    return kernel.swapaxes(1, 2).reshape(groups * cg, f // groups, kh, kw)


def _run(filled: Iterator[int], image: Array, epilogue: Epilogue | None) -> None:
    """Let the rows of image (c, h, w, n) be filled, and call `epilogue` whenever a slice of them is."""
    ends = {rows.stop - 1: rows for rows in row_slices(image.shape[1], image.nbytes)}
    for row in filled:
        if epilogue is not None and row in ends:
            epilogue(ends[row])
