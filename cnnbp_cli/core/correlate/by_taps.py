"""The sums over windows as products that are added where they belong: nothing is copied, nothing shifted afterwards.

As in `by_rows`, the kh rows below a row of windows are a matrix (kh·c, w·n) as they lie in memory, and so they are from
any column on. So for each column j of the kernel there is one product of matrices in place, if windows move by single
columns:

    correlate             y[:, p] += W_j @ rows of x from column j on      W_j (f, kh·c)
    correlate_weights     dw_j    += rows of dy @ (rows of x from column j on)ᵀ

BLAS adds a product to what lies there already, which NumPy has no name for; so it is called with addresses. Its small
kernels (see `products`) do so at the same speed: 16×48 · 48×1024: 97 GFLOP/s added, 99 not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import numpy as np

from cnnbp_cli.core.correlate.grouping import by_group, matrix_of_rows, rows_below, spread
from cnnbp_cli.core.correlate.products import piece, transposed_piece
from cnnbp_cli.core.openblas import AS_IT_IS, ROW_MAJOR, TRANSPOSED, gemm
from cnnbp_cli.core.types import Array, Context
from cnnbp_cli.core.windows import Windows


def correlate(x: Array, weight: Array, windows: Windows, groups: int, y: Array, ctx: Context) -> Iterator[int]:
    """Fill the rows of y; yield each one's number when it is done."""
    add, (oh, ow), n, size = _gemm(x, weight, y), windows.out, x.shape[3], y.itemsize
    kernel = np.ascontiguousarray(spread(weight, windows, groups).transpose(3, 0, 1, 2, 4))  # (kw, g, fg, kh, cg)
    *_, fg, kh, cg = kernel.shape
    x_rows = matrix_of_rows(x, groups, ctx, copy=True)  # (g, h·cg, w·n)
    y_rows = by_group(y, groups).reshape(groups, fg, oh, ow * n)
    x_line, y_line, terms = x_rows.shape[2], max(ow * n, y_rows.strides[1] // size), kh * cg
    rows, columns = piece(fg, terms, ow * n)
    taps = sorted(_seen(windows, n), key=lambda tap: tap[1] - tap[2])  # first one that sees whole rows, if any does
    filled = taps[0][2] - taps[0][1] == ow * n
    pieces: list[tuple[int, int, int, int, float, int]] = []  # height, width, and where in kernel, x and y
    for left, f in product(range(0, ow * n, max(1, columns)), range(0, fg, rows)):
        for order, (j, first, stop, shift) in enumerate(taps):
            a, b = max(left, first), min(left + columns, stop)
            keeps = 0.0 if filled and order == 0 else 1.0  # what to multiply y by before the product is added
            places = [(j * groups * fg + f) * terms, a + shift, f * y_line + a]
            kernel_part, x_part, y_part = (size * place for place in places)
            if a < b:
                pieces.append((min(rows, fg - f), b - a, kernel_part, x_part, keeps, y_part))
    kernel_at, x_at, y_at = kernel.ctypes.data, x_rows.ctypes.data, y_rows.ctypes.data
    for p in range(oh):
        first_row, top, stop_row = rows_below(windows, slice(p, p + 1))
        if top == stop_row or not filled:
            y_rows[:, :, p] = 0
        for g in range(groups if top < stop_row else 0):
            kernel_here = kernel_at + size * (g * fg * terms + (top - first_row) * cg)
            x_here = x_at + size * (g * x_rows[0].size + top * cg * x_line)
            y_here = y_at + g * y_rows.strides[0] + p * y_rows.strides[2]
            k = (stop_row - top) * cg
            for height, width, kernel_part, x_part, keeps, y_part in pieces:
                a, b, c = kernel_here + kernel_part, x_here + x_part, y_here + y_part
                add(ROW_MAJOR, AS_IT_IS, AS_IT_IS, height, width, k, 1.0, a, terms, b, x_line, keeps, c, y_line)
        yield p


def correlate_weights(x: Array, dy: Array, windows: Windows, groups: int, ctx: Context) -> Array:
    """Return dw (g, effective kh, kw, cg, fg)."""
    add, oh, n = _gemm(x, dy), windows.out[0], x.shape[3]
    fg, cg, kh, kw = len(dy) // groups, len(x) // groups, windows.effective_kernel[0], windows.kernel[1]
    x_rows = matrix_of_rows(x, groups, ctx, copy=True)  # (g, h·cg, w·n)
    dy_rows = matrix_of_rows(dy, groups, ctx, copy=True, role="dy rows")  # (g, oh·fg, ow·n)
    x_line, dy_line, terms, size = x_rows.shape[2], dy_rows.shape[2], kh * cg, x.itemsize
    dw = np.zeros((kw, groups, fg, kh, cg), x.dtype)
    x_at, dy_at, dw_at = x_rows.ctypes.data, dy_rows.ctypes.data, dw.ctypes.data
    seen = _seen(windows, n)
    for p in range(oh):
        first_row, top, stop_row = rows_below(windows, slice(p, p + 1))
        width = (stop_row - top) * cg
        for g in range(groups if width else 0):
            x_here = x_at + size * (g * x_rows[0].size + top * cg * x_line)
            dy_here = dy_at + size * (g * dy_rows[0].size + p * fg * dy_line)
            for j, first, stop, shift in seen:
                if first == stop:
                    continue
                dw_here = dw_at + size * ((j * groups + g) * fg * terms + (top - first_row) * cg)
                rows, columns, length = transposed_piece(fg, width, stop - first)
                for f in range(0, fg, rows):
                    for c in range(0, width, columns):
                        for start in range(first, stop, length):
                            a = dy_here + size * (f * dy_line + start)
                            b = x_here + size * (c * x_line + start + shift)
                            out = dw_here + size * (f * terms + c)
                            m, k, q = min(rows, fg - f), min(columns, width - c), min(length, stop - start)
                            add(ROW_MAJOR, AS_IT_IS, TRANSPOSED, m, k, q, 1.0, a, dy_line, b, x_line, 1.0, out, terms)
    return dw.transpose(1, 3, 0, 4, 2)


def can(windows: Windows, *arrays: Array) -> bool:
    """Return whether these windows and arrays can be computed so."""
    return windows.stride[1] == 1 and len({a.dtype for a in arrays}) == 1 and gemm(arrays[0].dtype.char) is not None


def _gemm(*arrays: Array) -> Callable[..., None]:
    function = gemm(np.result_type(*arrays).char)
    assert function is not None, "see `can`"
    return function


def _seen(windows: Windows, n: int) -> list[tuple[int, int, int, int]]:
    """Return (j, first, stop, shift) for each column j of the kernel: which of the ow·n numbers of a row see w·n."""
    (_, w), (_, ow) = windows.image, windows.out
    shifts = [j * windows.dilation[1] - windows.before[1] for j in range(windows.kernel[1])]
    ends = [(min(max(0, -shift), ow), max(0, min(ow, w - shift))) for shift in shifts]
    return [(j, n * a, n * max(a, b), n * shift) for j, ((a, b), shift) in enumerate(zip(ends, shifts, strict=True))]
