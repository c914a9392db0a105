"""The sums over windows as products of whole rows of the image, shifted afterwards.

Images lie in memory row by row (see `Context.empty`), so the kh rows below a row of windows *are* a matrix
(kh·c, w·n), and so are the rows of dy of all windows over a row of the image. Only the kw shifts along a row are left
to be made:

    correlate             products = W @ rows of x      W (f·kw, kh·c),  y[:, p] = Σ_j products[:, j], shifted by j
    correlate_transposed  products = Wᵀ @ rows of dy    Wᵀ (c·kw, kh·f), dx[:, r] = Σ_j products[:, j], shifted by -j
    correlate_weights     dw = rows of dy @ shiftedᵀ    dw (kh·f, c·kw), shifted: one row of x, kw times
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import DTypeLike

from cnnbp_cli.core.correlate.grouping import by_group, spread
from cnnbp_cli.core.types import Array, Context
from cnnbp_cli.core.windows import Windows


def correlate(x: Array, weight: Array, windows: Windows, groups: int, y: Array, ctx: Context) -> Iterator[int]:
    """Fill the rows of y; yield each one's number when it is done."""
    (kh, _), kw, (_, w), n = windows.effective_kernel, windows.kernel[1], windows.image, x.shape[3]
    fg, cg = len(y) // groups, len(x) // groups
    kernel = spread(weight, windows, groups).swapaxes(2, 3).reshape(groups, fg * kw, kh * cg)
    x_rows = _matrix_of_rows(x, groups, ctx)  # (g, h·cg, w·n)
    products, shifted = _Shifts.of_products(windows).place(groups, fg, n, y.dtype, ctx)
    products = products.reshape(groups, fg * kw, w * n)
    y_groups = by_group(y, groups)  # (g, fg, oh, ow, n)
    for p in range(windows.out[0]):
        first, top, stop = _rows_below(windows, p)
        if top < stop:
            seen = kernel[:, :, (top - first) * cg : (stop - first) * cg]
            np.matmul(seen, x_rows[:, top * cg : stop * cg], out=products)
            np.add.reduce(shifted, 2, out=y_groups[:, :, p])
        else:
            y_groups[:, :, p] = 0
        yield p


def correlate_transposed(
    weight: Array, dy: Array, windows: Windows, groups: int, dx: Array, ctx: Context
) -> Iterator[int]:
    """Fill the rows of dx; yield each one's number when it is done."""
    ow, kw, (sh, sw), n = windows.out[1], windows.kernel[1], windows.stride, dy.shape[3]
    fg, cg = len(dy) // groups, len(dx) // groups
    kernel = spread(weight, windows, groups)  # (g, fg, effective kh, kw, cg)
    phases = [kernel[:, :, phase::sh][:, :, ::-1, ::-1].transpose(0, 4, 3, 2, 1) for phase in range(sh)]
    kernels = [phase.reshape(groups, cg * kw, phase.shape[3] * fg) for phase in phases]
    dy_rows = _matrix_of_rows(dy, groups, ctx)  # (g, oh·fg, ow·n)
    room, shifted = _Shifts.of_transposed_products(windows).place(groups, cg, n, dx.dtype, ctx)
    if sw > 1:  # zeros between the columns of dy: a product cannot be written so, but be spread
        room.fill(0)
        products = ctx.scratch("narrow", (groups, cg * kw, ow * n), dx.dtype)
    else:
        products = room.reshape(groups, cg * kw, ow * n)
    dx_groups = by_group(dx, groups)  # (g, cg, h, w, n)
    for r in range(windows.image[0]):
        phase, first, top, stop = _windows_over(windows, r)
        if top < stop:
            seeing = kernels[phase][:, :, (top - first) * fg : (stop - first) * fg]
            np.matmul(seeing, dy_rows[:, top * fg : stop * fg], out=products)
            if sw > 1:
                room[:, :, ::sw] = products.reshape(groups, cg * kw, ow, n)
            np.add.reduce(shifted, 2, out=dx_groups[:, :, r])
        else:
            dx_groups[:, :, r] = 0
        yield r


def correlate_weights(x: Array, dy: Array, windows: Windows, groups: int, ctx: Context) -> Array:
    """Return dw (g, effective kh, kw, cg, fg)."""
    (kh, _), kw, sh = windows.effective_kernel, windows.kernel[1], windows.stride[0]
    fg, cg, ow, n = len(dy) // groups, len(x) // groups, windows.out[1], dy.shape[3]
    dy_rows = _matrix_of_rows(dy, groups, ctx)  # (g, oh·fg, ow·n)
    shifted = ctx.scratch("shifted", (groups, cg, kw, ow, n), x.dtype)
    shifted.fill(0)
    x_row = shifted.reshape(groups, cg * kw, ow * n)
    x_groups = by_group(x, groups)  # (g, cg, h, w, n)
    columns = windows.columns()
    dtype = np.result_type(x, dy)
    phases = [np.zeros((groups, len(range(phase, kh, sh)) * fg, cg * kw), dtype) for phase in range(sh)]
    for r in range(windows.image[0]):
        phase, first, top, stop = _windows_over(windows, r)
        if top < stop:
            for j, (seeing, seen) in enumerate(columns):
                shifted[:, :, j, seeing] = x_groups[:, :, r, seen]
            taps = phases[phase][:, (top - first) * fg : (stop - first) * fg]
            taps += dy_rows[:, top * fg : stop * fg] @ x_row.swapaxes(1, 2)
    dw = np.empty((groups, kh, fg, cg, kw), dtype)
    for phase, taps in enumerate(phases):
        dw[:, phase::sh] = taps.reshape(groups, -1, fg, cg, kw)[:, ::-1]
    return dw.transpose(0, 1, 4, 3, 2)


@dataclass(frozen=True, slots=True)
class _Shifts:
    """How the kw products of a row are shifted before they are added: the j-th by j·d columns."""

    kw: int
    d: int
    size: int  # columns of a product
    before: int  # columns of zeros in front of it
    start: int  # the first column to be added, counted with those zeros
    count: int  # columns to be added

    @classmethod
    def of_products(cls, windows: Windows) -> _Shifts:
        """Shift what kernels make of a row of x into place in a row of y."""
        return cls(
            *(windows.kernel[1], windows.dilation[1]),
            size=windows.image[1],
            before=windows.before[1],
            start=0,
            count=windows.out[1],
        )

    @classmethod
    def of_transposed_products(cls, windows: Windows) -> _Shifts:
        """Shift what kernels make of a row of dy into place in a row of dx."""
        return cls(
            *(windows.kernel[1], windows.dilation[1]),
            size=(windows.out[1] - 1) * windows.stride[1] + 1,
            before=windows.effective_kernel[1] - 1,
            start=windows.before[1],
            count=windows.image[1],
        )

    def place(self, groups: int, m: int, n: int, dtype: DTypeLike, ctx: Context) -> tuple[Array, Array]:
        """Return room for the products (g, m·kw, size, n), and a view of it with them shifted (g, m, kw, count, n).

        Column q of the j-th shifted product is column q + j·d + start - before of the product, or 0 outside it.
        """
        end = self.before + self.size
        width = max(end, self.start + self.count + (self.kw - 1) * self.d)
        padded = ctx.scratch("products", (groups, m, self.kw, width, n), dtype)
        padded[:, :, :, : self.before] = padded[:, :, :, end:] = 0
        group, row, j, column, sample = padded.strides
        shifted = as_strided(
            padded[:, :, :, self.start :],
            (groups, m, self.kw, self.count, n),
            (group, row, j + self.d * column, column, sample),
            writeable=False,
        )
        return padded.reshape(groups, m * self.kw, width, n)[:, :, self.before : end], shifted


def _rows_below(windows: Windows, p: int) -> tuple[int, int, int]:
    """Return the image rows under windows of row p as (first, top, stop), those on the image being top to stop."""
    first = p * windows.stride[0] - windows.before[0]
    return first, max(first, 0), min(first + windows.effective_kernel[0], windows.image[0])


def _windows_over(windows: Windows, r: int) -> tuple[int, int, int, int]:
    """Return the window rows over image row r as (phase, first, top, stop), those that exist being top to stop.

    The last of them sees the image row with its kernel's row `phase`, the one before it with row phase + s, and
    so on, for all rows of the effective kernel.
    """
    last, phase = divmod(r + windows.before[0], windows.stride[0])
    first = last + 1 - len(range(phase, windows.effective_kernel[0], windows.stride[0]))
    return phase, first, max(first, 0), min(last + 1, windows.out[0])


def _matrix_of_rows(image: Array, groups: int, ctx: Context) -> Array:
    """Return image (c, h, w, n) as (g, h·cg, w·n), its rows one after another: a view where it lies so in memory."""
    rows = by_group(image, groups).swapaxes(1, 2)  # (g, h, cg, w, n)
    if not rows.flags.c_contiguous:
        copy = ctx.scratch("rows", rows.shape, image.dtype)
        np.copyto(copy, rows)
        rows = copy
    g, h, cg, w, n = rows.shape
    return rows.reshape(g, h * cg, w * n)
