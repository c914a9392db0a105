"""Three sums over sliding windows, each as matrix products: all that convolution needs, forward and backward.

    correlate             y[f, p, q]           = Σ_{c, i, j} w[f, c, i, j] · x[c, p·s + i·d, q·s + j·d]
    correlate_weights     dw[f, c, i, j]       = Σ_{p, q, n} dy[f, p, q] · x[c, p·s + i·d, q·s + j·d]
    correlate_transposed  dx[c, p·s + i·d, …] += Σ_{f}       w[f, c, i, j] · dy[f, p, q]

where x is 0 outside the image. The textbook way unfolds every window into a column, which writes each pixel
kh·kw times. Here images lie in memory row by row (see `Context.empty`), so the kh rows below a row of windows
*are* a matrix (kh·c, w·n), and so are the rows of dy of all windows that reach a row of the image. Only the
kw shifts along a row are left to be made:

    correlate             products = W @ rows of x      W (f·kw, kh·c),  y[:, p] = Σ_j products[:, j], shifted by j
    correlate_transposed  products = Wᵀ @ rows of dy    Wᵀ (c·kw, kh·f), dx[:, r] = Σ_j products[:, j], shifted by -j
    correlate_weights     dw = rows of dy @ shiftedᵀ    dw (kh·f, c·kw), shifted: one row of x, kw times

Where an image has few channels, as in a first layer, products are larger than what they are made of, and a
horizontal stride throws most of them away. There the shifts are made on the image: each of its rows is written kw
times, shifted, into a *strip*, and the strips of kh rows are the matrix (kh·kw·c, ow·n) that W or dy multiplies.

One core, 32 images, float32, forward / weights / transposed in ms: 32 channels to 64, 24×24 outputs, by rows
4.7 / 5.0 / 4.5, by strips 5.4 / 5.4; 1 channel to 32, 26×26 outputs, by rows 0.53 / 0.33, by strips 0.19 / 0.21.
The bare products of the first take 4.1 / 4.6 / 3.9. Winograd's minimal filtering gained less than its sums cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import DTypeLike

from cnnbp_cli.core.rows import blocks
from cnnbp_cli.core.types import Array, Context
from cnnbp_cli.core.windows import Windows

CHANNELS_PER_FILTER = 0.5
"""From so many input channels per filter on, rows of the image are multiplied as they are."""

STRIP_BYTES = 512 * 1024
"""About how many bytes of strips to hold at a time."""


def correlate(
    x: Array,
    weight: Array,
    windows: Windows,
    groups: int,
    y: Array,
    ctx: Context,
    finish: Callable[[slice], None] | None = None,
) -> None:
    """Fill y (f, oh, ow, n) with the correlation of x (c, h, w, n) and weight (f, c/g, kh, kw).

    `finish` is called with the place of some rows of y at a time, while they are in the cache.
    """
    by_rows = _many_channels(weight, groups) and windows.stride[1] == 1
    fill_rows = _rows_of_products if by_rows else _rows_of_strips
    _run(fill_rows(x, weight, windows, groups, y, ctx), y, finish)


def correlate_weights(x: Array, dy: Array, weight: Array, windows: Windows, groups: int, ctx: Context) -> Array:
    """Return dw, of the shape of weight (f, c/g, kh, kw), from x (c, h, w, n) and dy (f, oh, ow, n)."""
    sum_rows = _weights_from_rows if _many_channels(weight, groups) else _weights_from_strips
    dw = sum_rows(x, dy, windows, groups, ctx)  # (g, reach, kw, c/g, f/g)
    return dw[:, :: windows.dilation[0]].transpose(0, 4, 3, 1, 2).reshape(weight.shape)


def correlate_transposed(
    weight: Array,
    dy: Array,
    windows: Windows,
    groups: int,
    dx: Array,
    ctx: Context,
    finish: Callable[[slice], None] | None = None,
) -> None:
    """Fill dx (c, h, w, n) with the transpose of `correlate`, applied to dy (f, oh, ow, n).

    `finish` is called with the place of some rows of dx at a time, while they are in the cache.
    """
    _run(_rows_transposed(weight, dy, windows, groups, dx, ctx), dx, finish)


def _many_channels(weight: Array, groups: int) -> bool:
    """Return whether the image has so many channels that it is better multiplied as it is."""
    return weight.shape[1] * groups >= CHANNELS_PER_FILTER * len(weight)


def _run(fill_rows: Iterator[int], image: Array, finish: Callable[[slice], None] | None) -> None:
    """Let the rows of image (c, h, w, n) be filled, and call `finish` whenever a block of them is."""
    ends = {some.stop - 1: some for some in blocks(image.shape[1], image.nbytes)}
    for row in fill_rows:
        if finish is not None and row in ends:
            finish(ends[row])


def _rows_of_products(x: Array, weight: Array, windows: Windows, groups: int, y: Array, ctx: Context) -> Iterator[int]:
    """Fill the rows of y from products of whole rows of x; yield each one's number when it is done."""
    w, n, ow = windows.image[1], x.shape[3], windows.out[1]
    f, c = len(y) // groups, len(x) // groups
    kernel = _spread(weight, windows, groups).swapaxes(2, 3)  # (g, f/g, kw, reach, c/g)
    kernel = kernel.reshape(groups, f * windows.kernel[1], windows.reach[0] * c)
    pixels = _matrix_of_rows(x, groups, ctx)  # (g, h·c/g, w·n)
    shifts = _Shifts(ctx, y.dtype, groups, f, n, windows, before=windows.before[1], size=w, start=0, count=ow)
    products = shifts.room.reshape(groups, f * windows.kernel[1], w * n)
    rows = _by_group(y, groups)  # (g, f/g, oh, ow, n)
    for p in range(windows.out[0]):
        first, top, stop = _rows_below(windows, p)
        if top < stop:
            seen = kernel[:, :, (top - first) * c : (stop - first) * c]
            np.matmul(seen, pixels[:, top * c : stop * c], out=products)
            np.add.reduce(shifts.shifted, 2, out=rows[:, :, p])
        else:
            rows[:, :, p] = 0
        yield p


def _rows_transposed(weight: Array, dy: Array, windows: Windows, groups: int, dx: Array, ctx: Context) -> Iterator[int]:
    """Fill the rows of dx from products of whole rows of dy; yield each one's number when it is done."""
    ow, kw, (sh, sw), n = windows.out[1], windows.kernel[1], windows.stride, dy.shape[3]
    f, c = len(dy) // groups, len(dx) // groups
    spread = _spread(weight, windows, groups)  # (g, f/g, reach, kw, c/g)
    phases = [spread[:, :, phase::sh][:, :, ::-1, ::-1].transpose(0, 4, 3, 2, 1) for phase in range(sh)]
    kernels = [w.reshape(groups, c * kw, w.shape[3] * f) for w in phases]
    slopes = _matrix_of_rows(dy, groups, ctx)  # (g, oh·f/g, ow·n)
    shifts = _Shifts(
        *(ctx, dx.dtype, groups, c, n, windows),
        before=windows.reach[1] - 1,
        size=(ow - 1) * sw + 1,
        start=windows.before[1],
        count=windows.image[1],
    )
    if sw > 1:  # zeros between the columns of dy: a product cannot be written so, but be spread
        shifts.room.fill(0)
        products = ctx.scratch("narrow", (groups, c * kw, ow * n), dx.dtype)
    else:
        products = shifts.room.reshape(groups, c * kw, ow * n)
    rows = _by_group(dx, groups)  # (g, c/g, h, w, n)
    for r in range(windows.image[0]):
        phase, first, top, stop = _windows_over(windows, r)
        if top < stop:
            w = kernels[phase][:, :, (top - first) * f : (stop - first) * f]
            np.matmul(w, slopes[:, top * f : stop * f], out=products)
            if sw > 1:
                shifts.room[:, :, ::sw] = products.reshape(groups, c * kw, ow, n)
            np.add.reduce(shifts.shifted, 2, out=rows[:, :, r])
        else:
            rows[:, :, r] = 0
        yield r


def _weights_from_rows(x: Array, dy: Array, windows: Windows, groups: int, ctx: Context) -> Array:
    """Return dw (g, reach, kw, c/g, f/g) from products of rows of dy with rows of x, shifted."""
    (reach, _), kw, sh, ow, n = windows.reach, windows.kernel[1], windows.stride[0], windows.out[1], dy.shape[3]
    f, c = len(dy) // groups, len(x) // groups
    slopes = _matrix_of_rows(dy, groups, ctx)  # (g, oh·f/g, ow·n)
    shifted = ctx.scratch("shifted", (groups, c, kw, ow, n), x.dtype)
    shifted.fill(0)
    pixels = shifted.reshape(groups, c * kw, ow * n)
    rows = _by_group(x, groups)  # (g, c/g, h, w, n)
    columns = windows.columns()
    dtype = np.result_type(x, dy)
    phases = [np.zeros((groups, len(range(phase, reach, sh)) * f, c * kw), dtype) for phase in range(sh)]
    for r in range(windows.image[0]):
        phase, first, top, stop = _windows_over(windows, r)
        if top < stop:
            for j, (seeing, seen) in enumerate(columns):
                shifted[:, :, j, seeing] = rows[:, :, r, seen]
            taps = phases[phase][:, (top - first) * f : (stop - first) * f]
            taps += slopes[:, top * f : stop * f] @ pixels.swapaxes(1, 2)
    dw = np.empty((groups, reach, f, c, kw), dtype)
    for phase, taps in enumerate(phases):
        dw[:, phase::sh] = taps.reshape(groups, -1, f, c, kw)[:, ::-1]
    return dw.transpose(0, 1, 4, 3, 2)


class _Shifts:
    """Room for products (g, m·kw, size·n), and the same shifted, the j-th of every kw by j·d columns.

    The room has columns of zeros on both sides, which are what a shift reaches beyond the product.

    Attributes
    ----------
    room : (g, m·kw, size, n)
    shifted : (g, m, kw, count, n), where column q of the j-th is column q + j·d + start - before of the product
    """

    def __init__(
        self,
        ctx: Context,
        dtype: DTypeLike,
        groups: int,
        m: int,
        n: int,
        windows: Windows,
        *,
        before: int,
        size: int,
        start: int,
        count: int,
    ) -> None:
        kw, d = windows.kernel[1], windows.dilation[1]
        width = max(before + size, start + count + (kw - 1) * d)
        padded = ctx.scratch("products", (groups, m, kw, width, n), dtype)
        padded[:, :, :, :before] = padded[:, :, :, before + size :] = 0
        self.room = padded.reshape(groups, m * kw, width, n)[:, :, before : before + size]
        group, row, j, column, sample = padded.strides
        self.shifted = as_strided(
            padded[:, :, :, start:],
            (groups, m, kw, count, n),
            (group, row, j + d * column, column, sample),
            writeable=False,
        )


def _rows_below(windows: Windows, p: int) -> tuple[int, int, int]:
    """Return the image rows under windows of row p as (first, top, stop), those on the image being top to stop."""
    first = p * windows.stride[0] - windows.before[0]
    return first, max(first, 0), min(first + windows.reach[0], windows.image[0])


def _windows_over(windows: Windows, r: int) -> tuple[int, int, int, int]:
    """Return the window rows over image row r as (phase, first, top, stop), those that exist being top to stop.

    The last of them sees the image row with its kernel's row `phase`, the one before it with row phase + s, and
    so on: as many of them as the kernel's reach has.
    """
    last, phase = divmod(r + windows.before[0], windows.stride[0])
    first = last + 1 - len(range(phase, windows.reach[0], windows.stride[0]))
    return phase, first, max(first, 0), min(last + 1, windows.out[0])


def _matrix_of_rows(image: Array, groups: int, ctx: Context) -> Array:
    """Return image (c, h, w, n) as (g, h·c/g, w·n), its rows one after another: a view where it lies so in memory."""
    rows = _by_group(image, groups).swapaxes(1, 2)  # (g, h, c/g, w, n)
    if not rows.flags.c_contiguous:
        copy = ctx.scratch("rows", rows.shape, image.dtype)
        np.copyto(copy, rows)
        rows = copy
    g, h, c, w, n = rows.shape
    return rows.reshape(g, h * c, w * n)


def _rows_of_strips(x: Array, weight: Array, windows: Windows, groups: int, y: Array, ctx: Context) -> Iterator[int]:
    """Fill the rows of y from products of strips; yield each one's number when it is done."""
    w = _spread(weight, windows, groups).reshape(groups, len(y) // groups, -1)  # (g, f/g, reach·kw·c/g)
    rows = _by_group(y, groups)  # (g, f/g, oh, ow, n)
    for p, columns in _columns(x, windows, groups, ctx):
        np.matmul(w, columns, out=rows[:, :, p].reshape(*w.shape[:2], columns.shape[2]))
        yield p


def _weights_from_strips(x: Array, dy: Array, windows: Windows, groups: int, ctx: Context) -> Array:
    """Return dw (g, reach, kw, c/g, f/g) from products of strips with rows of dy."""
    f, c = len(dy) // groups, len(x) // groups
    rows = _by_group(dy, groups)  # (g, f/g, oh, ow, n)
    dw: Array | float = 0.0
    for p, columns in _columns(x, windows, groups, ctx):
        dw = dw + columns @ rows[:, :, p].reshape(groups, f, columns.shape[2]).swapaxes(1, 2)  # (g, reach·kw·c/g, f/g)
    return np.reshape(dw, (groups, windows.reach[0], windows.kernel[1], c, f))


def _columns(x: Array, windows: Windows, groups: int, ctx: Context) -> Iterator[tuple[int, Array]]:
    """Yield, for each row p of windows, p and the matrix (g, reach·kw·c/g, ow·n) of what they see."""
    image = windows.pad(x, ctx)
    reach, kw = windows.reach[0], windows.kernel[1]
    c, n, (oh, ow), (sh, sw) = len(image) // groups, image.shape[3], windows.out, windows.stride
    channel, row, column, sample = image.strides
    # Neighbouring blocks share strips, so a block has several times as many rows as a window.
    block = max(STRIP_BYTES // max(1, kw * ow * image[:, 0, 0].nbytes), 3 * reach) // sh + 1
    for start in range(0, oh, block):
        stop = min(start + block, oh)
        height = (stop - start - 1) * sh + reach
        shifted = as_strided(
            image[:, start * sh :],
            (groups, height, kw, c, ow, n),
            (channel * c, row, column * windows.dilation[1], channel, column * sw, sample),
            writeable=False,
        )
        strips = ctx.scratch("strips", shifted.shape, image.dtype)
        np.copyto(strips, shifted)
        flat = strips.reshape(groups, height * kw * c, ow * n)
        for p in range(start, stop):
            top = (p - start) * sh * kw * c
            yield p, flat[:, top : top + reach * kw * c]


def _by_group(image: Array, groups: int) -> Array:
    """Return image (c, h, w, n) as (g, c/g, h, w, n)."""
    return image.reshape(groups, len(image) // groups, *image.shape[1:])


def _spread(weight: Array, windows: Windows, groups: int) -> Array:
    """Write weight (f, c/g, kh, kw) as (g, f/g, reach, kw, c/g), with zeros for the rows that a dilation skips."""
    f, c, kh, kw = weight.shape
    spread = np.zeros((groups, f // groups, windows.reach[0], kw, c), weight.dtype)
    spread[:, :, :: windows.dilation[0]] = weight.transpose(0, 2, 3, 1).reshape(groups, f // groups, kh, kw, c)
    return spread
