"""The sums over windows with fewer products, by Winograd's way along the columns of an image.

The sums y[p] = Σ_i w[i] · x[p + i] of m neighbors, of r terms each, belong to a product of polynomials, which its
values at r + m - 1 points determine. So rows of the image and of the kernel are *evaluated* at so many points,
multiplied point by point, and brought back:

    correlate             y  = A @ ((G @ w) · (B @ x))      m rows of windows, from VALUES rows of x
    correlate_weights     dw = A @ ((G @ dy) · (B @ x))     kh rows of the kernel, from m rows of dy and the same of x

With VALUES = 6 and a kernel of 3 rows these are 6 products for 4 rows of windows, in place of 12. A, G and B are small,
and multiply whole rows of images, at 0.2 ns for each value that they give; the products are those of `in_place`.
Rounding errors are three times those of the plain sums, and where a window sees nothing but zeros and its neighbor does
not, there may be 1e-8 in place of 0.

References
----------
Winograd 1980, *Arithmetic Complexity of Computations*; Lavin & Gray 2015, arXiv:1509.09308; for the choice of points
Barabasz et al. 2020, arXiv:1803.10986.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np

from cnnbp_cli.core.correlate import in_place
from cnnbp_cli.core.correlate.grouping import by_group, clipped, matrix_of_rows
from cnnbp_cli.core.correlate.in_place import Matrices, row_calls, run, weight_calls
from cnnbp_cli.core.correlate.products import multiply
from cnnbp_cli.core.types import Array, Context, lies_by_rows
from cnnbp_cli.core.windows import Windows

POINTS = (0.0, 1.0, -1.0, 0.5, -2.0)
"""Where polynomials are evaluated, beside infinity: the most exact five.

Root mean square error of float32 as a multiple of that of plain sums: 2.8; with 2 and -2 as the last two, 3.4.
"""

VALUES = len(POINTS) + 1


def correlate(x: Array, weight: Array, windows: Windows, groups: int, y: Array, ctx: Context) -> Iterator[int]:
    """Fill the rows of y; yield each one's number when it is done."""
    (oh, ow), (_, w), (kh, kw), n = windows.out, windows.image, windows.kernel, x.shape[3]
    m, fg, cg = VALUES + 1 - kh, len(y) // groups, len(x) // groups
    A, G, B = (matrix.astype(x.dtype) for matrix in evaluation(m, kh))
    kernel = ctx.scratch("kernel", (VALUES, groups, kw, fg, cg), x.dtype)
    taps = by_group(weight, groups).transpose(3, 0, 4, 1, 2)  # (kh, g, kw, fg, cg)
    np.matmul(G, taps.reshape(kh, -1), out=kernel.reshape(VALUES, -1))
    x_rows, y_rows = _rows(x, ctx), y.swapaxes(0, 1).reshape(oh, -1)  # (h, c·w·n), (oh, f·ow·n)
    values = ctx.scratch("values", (VALUES, groups, cg, w * n), x.dtype)
    products = ctx.scratch("products", (VALUES, groups, fg, ow * n), x.dtype)
    matrices = Matrices.of(windows, kernel, values, products)
    calls, fill = row_calls(matrices), matrices.fill
    for top in range(0, oh, m):
        rows = slice(top, min(top + m, oh))
        _evaluate(B, x_rows, top - windows.before[0], values)
        if not fill:
            products.fill(0)
        run(calls, x.dtype.char)
        multiply(A[: rows.stop - top], products.reshape(VALUES, -1), y_rows[rows])
        yield from range(rows.start, rows.stop)


def correlate_weights(x: Array, dy: Array, windows: Windows, groups: int, ctx: Context) -> Array:
    """Return dw (g, kh, kw, cg, fg)."""
    (oh, ow), (_, w), (kh, kw), n = windows.out, windows.image, windows.kernel, x.shape[3]
    m, fg, cg = VALUES + 1 - kh, len(dy) // groups, len(x) // groups
    A, G, B = (matrix.astype(x.dtype) for matrix in evaluation(kh, m))
    x_rows, dy_rows = _rows(x, ctx), _rows(dy, ctx, "dy rows")  # (h, c·w·n), (oh, f·ow·n)
    values = ctx.scratch("values", (VALUES, groups, cg, w * n), x.dtype)
    dy_values = ctx.scratch("products", (VALUES, groups, fg, ow * n), x.dtype)
    products = ctx.scratch("kernel", (VALUES, groups, kw, fg, cg), x.dtype)
    products.fill(0)
    calls = weight_calls(Matrices.of(windows, products, values, dy_values))
    for top in range(0, oh, m):
        _evaluate(B, x_rows, top - windows.before[0], values)
        _evaluate(G, dy_rows, top, dy_values)
        run(calls, x.dtype.char)
    dw = (A @ products.reshape(VALUES, -1)).reshape(kh, groups, kw, fg, cg)
    return dw.transpose(1, 0, 2, 4, 3)


@cache
def evaluation(m: int, r: int) -> tuple[Array, Array, Array]:
    """Return A (m, VALUES), G (VALUES, r) and B (VALUES, VALUES) for m sums of r terms, of which there are VALUES + 1.

    A and G evaluate at the points, the last of which is infinity, where the value is the highest coefficient. G also
    divides by Π (a - b) over the other points b, as Lagrange's interpolation does. B has the coefficients of the
    polynomials Π (t - b), and in its last row those of the one over all points.
    """
    points = np.array(POINTS)
    others = [np.delete(points, k) for k in range(len(points))]
    powers = np.vander(points, VALUES, increasing=True)
    scale = np.array([np.prod(point - rest) for point, rest in zip(points, others, strict=True)])
    at_infinity = np.eye(VALUES)
    A = np.vstack([powers[:, :m], at_infinity[m - 1, :m]]).T
    G = np.vstack([powers[:, :r] / scale[:, None], at_infinity[r - 1, :r]])
    B = np.vstack([*(np.append(np.poly(rest)[::-1], 0) for rest in others), np.poly(points)[::-1]])
    return A, G, B


def can(windows: Windows, weight: Array, *images: Array) -> bool:
    """Return whether these windows, weights and images can be computed so."""
    steps = windows.stride[0] == windows.dilation[0] == 1 and 2 <= windows.kernel[0] < VALUES
    return steps and in_place.can(windows, weight, *images) and all(lies_by_rows(image) for image in images)


def _rows(image: Array, ctx: Context, role: str = "rows") -> Array:
    """Return image (c, h, w, n) as (h, c·w·n)."""
    return matrix_of_rows(image, 1, ctx, copy=True, role=role).reshape(image.shape[1], -1)


def _evaluate(matrix: Array, rows: Array, first: int, out: Array) -> None:
    """Write matrix (VALUES, k) @ the k of rows (h, m) that begin with `first`, which are 0 outside, to out."""
    first, top, stop = clipped(first, first + matrix.shape[1], len(rows))
    multiply(matrix[:, top - first : stop - first], rows[top:stop], out.reshape(VALUES, -1))
