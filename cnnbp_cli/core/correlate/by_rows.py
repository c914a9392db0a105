"""The sums over windows as products of whole rows of the image, shifted afterwards.

Images lie in memory row by row (see `Context.empty`), so the kh rows below a row of windows *are* a matrix
(kh·c, w·n), and so are the rows of dy of all windows over a row of the image. Only the kw shifts along a row are left
to be made:

    correlate             products = W @ rows of x      W (f·kw, kh·c),  y[:, p] = Σ_j products[:, j], shifted by j
    correlate_transposed  products = Wᵀ @ rows of dy    Wᵀ (c·kw, kh·f), dx[:, r] = Σ_j products[:, j], shifted by -j
    correlate_weights     dw[:, j] = rows of dy @ (rows of x, shifted by j)ᵀ

Where groups are small, as in a depthwise convolution, such products are too small to be fast. So a *band* of rows is
computed at a time: W then has a block of rows for each row of the band, with zeros where it sees no row of x.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.lib.stride_tricks import as_strided

from cnnbp_cli.core.correlate.grouping import by_group, clipped, matrix_of_rows, rows_below, spread
from cnnbp_cli.core.correlate.products import multiply, multiply_transposed
from cnnbp_cli.core.types import Array, Context
from cnnbp_cli.core.windows import Windows

BAND, BAND_OF_WEIGHTS = 2, 4
"""Rows of a band where a group has one channel and one filter.

One core, depthwise 3×3, 32 images, float32, ms by rows of the band (1, 2, 3, 4): 32 channels of 32×32, forward 1.14,
1.01, 1.03, 1.10, weights 1.99, 0.83, 0.88, 0.76; 64 channels, stride 2, weights 1.92, 1.03, 1.25, 1.03, transposed
5.98, 3.72, 4.02, 3.89.
"""

PRODUCTS_BYTES = 1024 * 1024
"""About how many bytes of products to hold at a time: so many groups are computed together. 256 KB: a fifth slower."""


def correlate(x: Array, weight: Array, windows: Windows, groups: int, y: Array, ctx: Context) -> Iterator[int]:
    """Fill the rows of y; yield each one's number when it is done."""
    (oh, _), (_, w), sh = windows.out, windows.image, windows.stride[0]
    kh, kw, fg, cg = windows.effective_kernel[0], windows.kernel[1], len(y) // groups, len(x) // groups
    band = _band(BAND, fg, cg)
    taps = spread(weight, windows, groups).swapaxes(2, 3)  # (g, fg, kw, effective kh, cg)
    kernel = np.zeros((groups, fg, band, kw, (band - 1) * sh + kh, cg), weight.dtype)
    for k in range(band):
        kernel[:, :, k, :, k * sh : k * sh + kh] = taps
    x_rows = matrix_of_rows(x, groups, ctx)  # (g, h·cg, w·n)
    products = _Products([_Sum.of_windows(windows)], kw, w, by_group(y, groups), ctx)
    for p in range(0, oh, band):
        rows = slice(p, min(p + band, oh))
        first, top, stop = rows_below(windows, rows)
        seen = kernel[:, :, : rows.stop - p, :, top - first : stop - first]
        products.fill(rows, seen, x_rows[:, top * cg : stop * cg])
        yield from range(p, rows.stop)


def correlate_transposed(
    weight: Array, dy: Array, windows: Windows, groups: int, dx: Array, ctx: Context
) -> Iterator[int]:
    """Fill the rows of dx; yield each one's number when it is done."""
    (h, _), (oh, ow), sh = windows.image, windows.out, windows.stride[0]
    kh, kw, fg, cg = windows.effective_kernel[0], windows.kernel[1], len(dy) // groups, len(dx) // groups
    band = _band(BAND, fg, cg)
    band *= sh if band > 1 else 1
    taps = spread(weight, windows, groups).transpose(0, 4, 3, 2, 1)  # (g, cg, kw, effective kh, fg)
    kernels: dict[int, Array] = {}
    dy_rows = matrix_of_rows(dy, groups, ctx)  # (g, oh·fg, ow·n)
    products = _Products(_Sum.of_transposed(windows), kw, ow, by_group(dx, groups), ctx)
    for r in range(0, h, band):
        rows = slice(r, min(r + band, h))
        above, phase = divmod(r + windows.before[0], sh)  # the last window over r begins `phase` rows above it
        lowest, highest = -((kh - 1 - phase) // sh), (band - 1 + phase) // sh  # windows over the band, counted from it
        if phase not in kernels:
            kernel = kernels[phase] = np.zeros((groups, cg, band, kw, highest + 1 - lowest, fg), weight.dtype)
            for k in range(band):
                for window in range(lowest, highest + 1):
                    if 0 <= (i := k + phase - window * sh) < kh:
                        kernel[:, :, k, :, window - lowest] = taps[:, :, :, i]
        first, top, stop = clipped(above + lowest, above + highest + 1, oh)
        seen = kernels[phase][:, :, : rows.stop - r, :, top - first : stop - first]
        products.fill(rows, seen, dy_rows[:, top * fg : stop * fg])
        yield from range(r, rows.stop)


def correlate_weights(x: Array, dy: Array, windows: Windows, groups: int, ctx: Context) -> Array:
    """Return dw (g, effective kh, kw, cg, fg)."""
    (oh, _), kh, kw, (sh, sw), n = (
        windows.out,
        windows.effective_kernel[0],
        windows.kernel[1],
        windows.stride,
        x.shape[3],
    )
    fg, cg, w = len(dy) // groups, len(x) // groups, windows.image[1]
    band = _band(BAND_OF_WEIGHTS, fg, cg)
    x_rows = matrix_of_rows(x, groups, ctx)  # (g, h·cg, w·n)
    dy_groups = by_group(dy, groups)  # (g, fg, oh, ow, n)
    if sw > 1:  # zeros between the columns of dy, so that a shift is one piece of memory here, too
        spread_dy = ctx.scratch("spread", (groups, fg, oh, (windows.out[1] - 1) * sw + 1, n), dy.dtype)
        spread_dy.fill(0)
        spread_dy[:, :, :, ::sw] = dy_groups
        dy_groups = spread_dy
    width, dtype = dy_groups.shape[3], np.result_type(x, dy)
    dw = np.zeros((groups, fg, band, kw, (band - 1) * sh + kh, cg), dtype)
    for p in range(0, oh, band):
        rows = slice(p, min(p + band, oh))
        count = rows.stop - p
        first, top, stop = rows_below(windows, rows)
        dy_band = dy_groups[:, :, rows].reshape(groups, fg * count, width * n)
        for j in range(kw):
            shift = j * windows.dilation[1] - windows.before[1]
            start, end = max(0, -shift), max(0, -shift, min(width, w - shift))
            seen = x_rows[:, top * cg : stop * cg, (start + shift) * n : (end + shift) * n]
            products = multiply_transposed(dy_band[:, :, start * n : end * n], seen)
            products = products.reshape(groups, fg, count, -1, cg)
            dw[:, :, :count, j, top - first : stop - first] += products
    taps = sum(dw[:, :, k, :, k * sh : k * sh + kh] for k in range(band))  # (g, fg, kw, effective kh, cg)
    return np.asarray(taps).transpose(0, 3, 2, 4, 1)


def _band(rows: int, fg: int, cg: int) -> int:
    """Return how many rows to compute at a time: so many, or fewer where a group has more channels or filters."""
    return max(1, rows // (fg * cg))


@dataclass(frozen=True, slots=True)
class _Sum:
    """Some columns of a result as sums of products of a kernel's columns, each shifted.

    Column q is Σ_k products[j + k·every, start + q·step + k·shift], or 0 where there is no such column.
    """

    columns: slice
    count: int
    j: int
    every: int
    terms: int
    start: int
    shift: int
    step: int

    @classmethod
    def of_windows(cls, windows: Windows) -> _Sum:
        """Return the columns of y from what kernels make of rows of x: y[q] = Σ_j products[j, q·s + j·d - before]."""
        d, before = windows.dilation[1], windows.before[1]
        return cls(slice(0, None, 1), windows.out[1], 0, 1, windows.kernel[1], -before, d, windows.stride[1])

    @classmethod
    def of_transposed(cls, windows: Windows) -> list[_Sum]:
        """Return the columns of dx from what kernels make of rows of dy: dx[q·s + j·d - before] += products[j, q]."""
        w, kw, s, d, before = (
            *(windows.image[1], windows.kernel[1]),
            *(windows.stride[1], windows.dilation[1], windows.before[1]),
        )
        sums: list[_Sum] = []
        for phase in range(s):  # of the columns of dx: taps see only those of their own
            column = (phase - before) % s
            taps = [j for j in range(kw) if j * d % s == phase]
            every = taps[1] - taps[0] if len(taps) > 1 else 1
            start = (column + before - taps[0] * d) // s if taps else 0
            count = len(range(column, w, s))
            sums.append(
                cls(slice(column, None, s), count, (taps or [0])[0], every, len(taps), start, -every * d // s, 1)
            )
        return [part for part in sums if part.count]

    def add(self, terms: Array, out: Array, ctx: Context) -> None:
        """Write the sum of terms (g, m, rows, terms, columns, n) to out (g, m, rows, columns, n).

        Columns that do not lie together are summed together first: NumPy copies runs as short as the batch in a third
        of the time that it adds them.
        """
        if self.columns.step == 1 and self.terms > 1:
            np.add.reduce(terms, 3, out=out)
        elif self.terms <= 1:
            np.copyto(out, terms[:, :, :, 0] if self.terms else 0)
        else:
            np.copyto(out, np.add.reduce(terms, 3, out=ctx.scratch("sums", out.shape, out.dtype)))

    def reach(self) -> tuple[int, int]:
        """Return the first and the last column of products that is read."""
        q, k = (self.count - 1) * self.step, max(0, self.terms - 1) * self.shift
        return self.start + min(0, k), self.start + q + max(0, k)


class _Products:
    """Room for the products of some rows, and their sums.

    Parameters
    ----------
    sums : list of _Sum
        The columns of the result.
    kw, size : int
        How many products there are for a row of the result, and their columns.
    out : Array
        What is to be filled, (g, m, rows, columns, n).
    """

    def __init__(self, sums: list[_Sum], kw: int, size: int, out: Array, ctx: Context) -> None:
        self._sums, self._kw, self._size, self._out, self._ctx = sums, kw, size, out, ctx
        self._before = max(0, *(-part.reach()[0] for part in sums), 0)  # columns of zeros in front
        self._width = self._before + max(size, *(part.reach()[1] + 1 for part in sums), 0)
        self._outs = [out[:, :, :, part.columns] for part in sums]
        self._room: tuple[int, Array, list[Array]] | None = None

    def fill(self, rows: slice, kernel: Array, seen: Array) -> None:
        """Fill rows of the result from a kernel (g, m, rows, kw, k) and what it sees, (g, k, size·n)."""
        (groups, m), count = self._out.shape[:2], rows.stop - rows.start
        if seen.shape[1] == 0:
            self._out[:, :, rows] = 0
            return
        if self._room is None or self._room[0] != count:
            self._room = (count, *self._make_room(m, count))
        _, products, shifted = self._room
        kernel = kernel.reshape(groups, products.shape[1], seen.shape[1])
        if groups == len(products):  # slices would take as long as the products of a small layer
            multiply(kernel, seen, out=products)
            for part, terms, out in zip(self._sums, shifted, self._outs, strict=True):
                part.add(terms, out[:, :, rows], self._ctx)
            return
        at_a_time = len(products)
        for start in range(0, groups, at_a_time):
            some, these = slice(start, start + at_a_time), slice(0, min(at_a_time, groups - start))
            multiply(kernel[some], seen[some], out=products[these])
            for part, terms, out in zip(self._sums, shifted, self._outs, strict=True):
                part.add(terms[these], out[some, :, rows], self._ctx)

    def _make_room(self, m: int, count: int) -> tuple[Array, list[Array]]:
        """Return where the products of some groups go (g, m·rows·kw, size·n), and them shifted, for each of the sums.

        Those are views (g, m, rows, terms, columns, n).
        """
        n = self._out.shape[-1]
        shape = (m * count, self._kw, self._width, n)
        groups = max(1, min(len(self._out), PRODUCTS_BYTES // max(1, prod(shape) * self._out.itemsize)))
        padded = self._ctx.scratch("products", (groups, *shape), self._out.dtype)
        inside = slice(self._before, self._before + self._size)
        padded[:, :, :, : inside.start] = padded[:, :, :, inside.stop :] = 0
        products = padded.reshape(groups, m * count * self._kw, self._width, n)[:, :, inside]
        group, row, j, column, sample = padded.strides
        shifted = [
            as_strided(
                padded[:, :, part.j, self._before + part.start :] if part.terms else padded,
                (groups, m, count, part.terms, part.count, n),
                (group, row * count, row, j * part.every + column * part.shift, column * part.step, sample),
                writeable=False,
            )
            for part in self._sums
        ]
        return products.reshape(groups, m * count * self._kw, self._size * n), shifted
