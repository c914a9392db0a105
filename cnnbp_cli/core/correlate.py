"""Three sums over sliding windows, each as matrix products: all that convolution needs, forward and backward.

    correlate             y[f, p, q]           = Σ_{c, i, j} w[f, c, i, j] · x[c, p·s + i·d, q·s + j·d]
    correlate_weights     dw[f, c, i, j]       = Σ_{p, q, n} dy[f, p, q] · x[c, p·s + i·d, q·s + j·d]
    correlate_transposed  dx[c, p·s + i·d, …] += Σ_{f}       w[f, c, i, j] · dy[f, p, q]

where x is 0 outside the image. The textbook way unfolds every window into a column, which writes each pixel
kh·kw times. Here nothing is unfolded vertically: images lie in memory row by row (`types.Context.empty`), so
the rows below a row of windows *are* a matrix (kh·c, w·n). Horizontally, the kw shifts are made where
they are cheaper:

*   After the product, on its result, when the stride is 1: one product with all kw columns of the kernel,

        products = W @ rows[p : p + kh]        W (kw·f, kh·c), rows (kh·c, w·n)
        y[:, p] = Σ_j products[j] shifted by j

*   Before it, on the image, when there are few channels, as in a first layer, or when a stride would throw
    most of the product away: each row is written kw times, shifted, into a *strip*; the strips of
    neighbouring rows lie one after another and are the matrix (kh·kw·c, ow·n).

The transposed sum is the first way seen from the other side: rows of dy are multiplied, and kw shifted
results are added to a row of dx.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.lib.stride_tricks import as_strided

from cnnbp_cli.core.blocks import BLOCK_BYTES
from cnnbp_cli.core.types import Array, Context
from cnnbp_cli.core.windows import Windows

STRIP_BYTES = 512 * 1024
"""About how many bytes of strips to hold at a time: what a second-level cache can keep, within a factor."""


CHANNELS_FOR_PRODUCTS = 2
"""Products are shifted when there is one input channel to that many filters, or more."""


def correlate(
    x: Array,
    weight: Array,
    windows: Windows,
    groups: int,
    y: Array,
    ctx: Context,
    finish: Callable[[Array], None] | None = None,
) -> None:
    """Fill y (f, oh, ow, n) with the correlation of x (c, h, w, n) and weight (f, c/g, kh, kw).

    `finish` is called with some rows of y at a time, while they are in the cache.
    """
    fill_rows = _rows_of_products if _shifts_products(weight, windows, groups) else _rows_of_strips
    finished, step = 0, max(1, BLOCK_BYTES // max(1, y[:, 0].nbytes))
    for p in fill_rows(x, weight, windows, groups, y, ctx):
        if finish is not None and (p + 1 - finished == step or p + 1 == windows.out[0]):
            finish(y[:, finished : p + 1])
            finished = p + 1


def correlate_weights(x: Array, dy: Array, weight: Array, windows: Windows, groups: int, ctx: Context) -> Array:
    """Return dw, of the shape of weight (f, c/g, kh, kw), from x (c, h, w, n) and dy (f, oh, ow, n)."""
    sum_rows = _weights_from_rows if _shifts_products(weight, windows, groups) else _weights_from_strips
    dw = sum_rows(x, dy, windows, groups, ctx)  # (g, reach, kw, c/g, f/g)
    return dw[:, :: windows.dilation[0]].transpose(0, 4, 3, 1, 2).reshape(weight.shape)


def correlate_transposed(weight: Array, dy: Array, windows: Windows, groups: int, dx: Array, ctx: Context) -> None:
    """Fill dx (c, h, w, n) with the transpose of `correlate`, applied to dy (f, oh, ow, n)."""
    (oh, ow), kw, sh, n = windows.out, windows.kernel[1], windows.stride[0], dy.shape[3]
    f, c = len(dy) // groups, len(dx) // groups
    spread = _spread(weight, windows, groups)  # (g, f/g, reach, kw, c/g)
    # An image row lies under the kernel's rows phase, phase + s, …: of the last window that reaches it, of the one
    # before, and so on. In the order of the windows they are reversed.
    phases = [spread[:, :, phase::sh][:, :, ::-1].transpose(0, 3, 4, 2, 1) for phase in range(sh)]
    kernels = [w.reshape(groups, kw * c, w.shape[3] * f) for w in phases]
    slopes = _matrix_of_rows(dy, groups, ctx)  # (g, oh·f/g, ow·n)
    products = ctx.scratch("products", (groups, kw, c, ow, n), dx.dtype)
    rows = _by_group(dx, groups)  # (g, c/g, h, w, n)
    shifts = [(pixels, seeing) for seeing, pixels in windows.columns()]
    for r in range(windows.image[0]):
        last, phase = divmod(r + windows.before[0], sh)  # the last window that may reach this row
        first = last + 1 - phases[phase].shape[3]
        top, stop = max(first, 0), min(last + 1, oh)
        if top < stop:
            w = kernels[phase][:, :, (top - first) * f : (stop - first) * f]
            np.matmul(w, slopes[:, top * f : stop * f], out=products.reshape(groups, kw * c, ow * n))
        else:
            products.fill(0)
        _add_shifted(rows[:, :, r], products, shifts)


def _shifts_products(weight: Array, windows: Windows, groups: int) -> bool:
    """Return whether to shift the products, kw·f rows of them, rather than kw·c rows of the image."""
    f, c = len(weight) // groups, weight.shape[1]
    return windows.stride[1] == 1 and CHANNELS_FOR_PRODUCTS * c >= f


def _by_group(image: Array, groups: int) -> Array:
    """Return image (c, h, w, n) as (g, c/g, h, w, n)."""
    return image.reshape(groups, len(image) // groups, *image.shape[1:])


def _matrix_of_rows(image: Array, groups: int, ctx: Context) -> Array:
    """Return image (c, h, w, n) as (g, h·c/g, w·n), its rows one after another: a view where it lies so in memory."""
    rows = _by_group(image, groups).swapaxes(1, 2)  # (g, h, c/g, w, n)
    if not rows.flags.c_contiguous:
        copy = ctx.scratch("rows", rows.shape, image.dtype)
        np.copyto(copy, rows)
        rows = copy
    g, h, c, w, n = rows.shape
    return rows.reshape(g, h * c, w * n)


def _spread(weight: Array, windows: Windows, groups: int) -> Array:
    """Write weight (f, c/g, kh, kw) as (g, f/g, reach, kw, c/g), with zeros for the rows that a dilation skips."""
    f, c, kh, kw = weight.shape
    spread = np.zeros((groups, f // groups, windows.reach[0], kw, c), weight.dtype)
    spread[:, :, :: windows.dilation[0]] = weight.transpose(0, 2, 3, 1).reshape(groups, f // groups, kh, kw, c)
    return spread


def _rows_below(windows: Windows, p: int) -> tuple[int, int, int]:
    """Return the image rows under windows of row p as (first, top, stop), those on the image being top to stop."""
    first = p * windows.stride[0] - windows.before[0]
    return first, max(first, 0), min(first + windows.reach[0], windows.image[0])


def _add_shifted(row: Array, products: Array, shifts: Sequence[tuple[slice, slice]]) -> None:
    """Set row (g, c, w, n) to the sum of products (g, kw, c, w', n), where each goes from and to other columns."""
    middle = len(shifts) // 2  # the one that most often reaches every column, so that there is nothing to clear
    for j in (middle, *range(middle), *range(middle + 1, len(shifts))):
        to, source = shifts[j]
        if j != middle:
            row[:, :, to] += products[:, j, :, source]
        elif row[0, 0, to].shape == row[0, 0].shape:
            row[...] = products[:, j, :, source]
        else:
            row.fill(0)
            row[:, :, to] += products[:, j, :, source]


def _rows_of_products(
    x: Array, weight: Array, windows: Windows, groups: int, y: Array, ctx: Context
) -> Iterator[int]:
    """Fill the rows of y from products of whole rows of x; yield each one's number when it is done."""
    kw, w, n = windows.kernel[1], windows.image[1], x.shape[3]
    f, c = len(y) // groups, len(x) // groups
    kernel = _spread(weight, windows, groups).transpose(0, 3, 1, 2, 4).reshape(groups, kw * f, -1)  # (…, reach·c/g)
    pixels = _matrix_of_rows(x, groups, ctx)  # (g, h·c/g, w·n)
    products = ctx.scratch("products", (groups, kw, f, w, n), y.dtype)
    rows = _by_group(y, groups)  # (g, f/g, oh, ow, n)
    for p in range(windows.out[0]):
        first, top, stop = _rows_below(windows, p)
        if top < stop:
            seen = kernel[:, :, (top - first) * c : (stop - first) * c]
            np.matmul(seen, pixels[:, top * c : stop * c], out=products.reshape(groups, kw * f, w * n))
        else:
            products.fill(0)
        _add_shifted(rows[:, :, p], products, windows.columns())
        yield p


def _weights_from_rows(x: Array, dy: Array, windows: Windows, groups: int, ctx: Context) -> Array:
    """Return dw (g, reach, kw, c/g, f/g) from products of rows of x, shifted, with rows of dy."""
    reach, kw, n = windows.reach[0], windows.kernel[1], x.shape[3]
    f, c = len(dy) // groups, len(x) // groups
    pixels = _matrix_of_rows(x, groups, ctx)  # (g, h·c/g, w·n)
    rows = _by_group(dy, groups)  # (g, f/g, oh, ow, n)
    dw = np.zeros((groups, kw, reach * c, f), np.result_type(x, dy))
    for p in range(windows.out[0]):
        first, top, stop = _rows_below(windows, p)
        if top < stop:
            for j, (seeing, seen) in enumerate(windows.columns()):
                columns = pixels[:, top * c : stop * c, seen.start * n : seen.stop * n]
                slopes = rows[:, :, p, seeing].reshape(groups, f, -1).swapaxes(1, 2)
                dw[:, j, (top - first) * c : (stop - first) * c] += columns @ slopes
    return dw.reshape(groups, kw, reach, c, f).swapaxes(1, 2)


def _rows_of_strips(
    x: Array, weight: Array, windows: Windows, groups: int, y: Array, ctx: Context
) -> Iterator[int]:
    """Fill the rows of y from products of strips; yield each one's number when it is done."""
    w = _spread(weight, windows, groups).reshape(groups, len(y) // groups, -1)  # (g, f/g, reach·kw·c/g)
    rows = _by_group(y, groups)  # (g, f/g, oh, ow, n)
    for p, columns in _columns(x, windows, groups, ctx):
        np.matmul(w, columns, out=rows[:, :, p].reshape(*w.shape[:2], -1))
        yield p


def _weights_from_strips(x: Array, dy: Array, windows: Windows, groups: int, ctx: Context) -> Array:
    """Return dw (g, reach, kw, c/g, f/g) from products of strips with rows of dy."""
    f, c = len(dy) // groups, len(x) // groups
    rows = _by_group(dy, groups)  # (g, f/g, oh, ow, n)
    dw: Array | float = 0.0
    for p, columns in _columns(x, windows, groups, ctx):
        dw = dw + columns @ rows[:, :, p].reshape(groups, f, -1).swapaxes(1, 2)  # (g, reach·kw·c/g, f/g)
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
