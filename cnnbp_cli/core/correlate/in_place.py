"""Products for a row of windows, one for each column of the kernel, added where they belong.

A row of an image, all channels together, is a matrix (k, w·n) as it lies in memory, and so it is from any column on. So
if windows move by single columns, nothing has to be copied or shifted; W_j (f, k) are the columns of the kernel:

    row_calls        y    = Σ_j W_j @ x from column j on
    weight_calls     dW_j += dy @ (x from column j on)ᵀ

BLAS adds a product to what lies there already, which NumPy has no name for; so it is called with addresses. Its small
kernels (see `products`) do so at the same speed: 16×48 · 48×1024: 97 GFLOP/s added, 99 not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ctypes import c_double, c_float, c_int, c_int64, c_void_p
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple

from cnnbp_cli.core.correlate.products import piece, transposed_piece
from cnnbp_cli.core.openblas import AS_IT_IS, ROW_MAJOR, TRANSPOSED, gemm
from cnnbp_cli.core.types import Array
from cnnbp_cli.core.windows import Windows

Call = tuple[Any, ...]
"""The arguments of `gemm`."""

KEPT, LONG = 200, 150
"""For how many rows of windows calls are kept for the next step, whose arrays lie where they lay, and of how many calls
at the most. A call takes 0.9 µs more than its product, and 1.8 with arguments that are to be converted, but these take
2 kB: 60 MB at the worst, 5 MB for ResNet-20, with 57 rows of 18 to 72 calls. Longer rows have larger products."""


class Matrices(NamedTuple):
    """Matrices of a row of windows, of which there are several: W (kw, f, k), x (k, w·n) and y (f, ow·n) of each.

    Attributes
    ----------
    windows : Windows
    n, stack, filters, terms : int
        Images, how many matrices of each kind there are, f and k.
    dtype : str
        The character of their type.
    kernel, x, y : int
        The addresses where all of W, of x and of y lie, one after another.
    """

    windows: Windows
    n: int
    stack: int
    filters: int
    terms: int
    dtype: str
    kernel: int
    x: int
    y: int

    @classmethod
    def of(cls, windows: Windows, kernel: Array, x: Array, y: Array) -> Matrices:
        """Return those of kernel (…, kw, f, k), x (…, k, w·n) and y (…, f, ow·n)."""
        kw, f, k = kernel.shape[-3:]
        n = x.shape[-1] // windows.image[1]
        places = (array.ctypes.data for array in (kernel, x, y))
        return cls(windows, n, kernel.size // (kw * f * k), f, k, x.dtype.char, *places)

    @property
    def seen(self) -> list[tuple[int, int, int, int]]:
        """(first, stop, shift, j) for each column j of the kernel: which of the ow·n numbers of a row see w·n.

        The first one sees whole rows, if any does.
        """
        (_, w), (_, ow) = self.windows.image, self.windows.out
        shifts = [j * self.windows.dilation[1] - self.windows.before[1] for j in range(self.windows.kernel[1])]
        ends = [(min(max(0, -shift), ow), max(0, min(ow, w - shift))) for shift in shifts]
        n = self.n
        seen = [
            (n * a, n * max(a, b), n * shift, j) for j, ((a, b), shift) in enumerate(zip(ends, shifts, strict=True))
        ]
        return sorted(seen, key=lambda column: column[0] - column[1])

    @property
    def fill(self) -> bool:
        """Whether some column of the kernel sees whole rows, so that its product need not be added to anything."""
        return self.seen[0][:2] == (0, self.windows.out[1] * self.n)


def row_calls(matrices: Matrices) -> Sequence[Call]:
    """Return the calls that write the sums of products to all y, or add them to zeros if they do not `fill` it."""
    return _kept(_row_calls, matrices) or _row_calls(matrices)


def weight_calls(matrices: Matrices) -> Sequence[Call]:
    """Return the calls that add the gradients to W, from x and the gradients at y."""
    return _kept(_weight_calls, matrices) or _weight_calls(matrices)


def run(calls: Sequence[Call], dtype: str) -> None:
    """Make the calls, whose arrays are of a type with this character."""
    multiply = gemm(dtype)
    assert multiply is not None, "see `can`"
    for call in calls:
        multiply(*call)


def can(windows: Windows, *arrays: Array) -> bool:
    """Return whether rows of such windows and arrays can be computed so."""
    return windows.stride[1] == 1 and len({a.dtype for a in arrays}) == 1 and gemm(arrays[0].dtype.char) is not None


@lru_cache(KEPT)
def _kept(make: Callable[[Matrices], list[Call]], matrices: Matrices) -> list[Call] | None:
    """Return calls with their arguments converted, or None if they are many."""
    calls = make(matrices)
    scalar = c_float if matrices.dtype == "f" else c_double
    types = (*[c_int] * 3, *[c_int64] * 3, scalar, *[c_void_p, c_int64] * 2, scalar, c_void_p, c_int64)
    converted = ([convert(value) for convert, value in zip(types, call, strict=True)] for call in calls)
    return [tuple(call) for call in converted] if len(calls) <= LONG else None


def _row_calls(m: Matrices) -> list[Call]:
    calls: list[Call] = []
    seen, fill = m.seen, m.fill
    row, line = m.windows.out[1] * m.n, m.windows.image[1] * m.n
    height, width = piece(m.filters, m.terms, row)
    cuts = range(m.stack), range(0, row, max(1, width)), range(0, m.filters, height)
    for number, left, f in product(*cuts):
        for order, (first, stop, shift, j) in enumerate(seen):
            a, b = max(left, first), min(left + width, stop)
            if a < b:
                w = ((number * m.windows.kernel[1] + j) * m.filters + f) * m.terms
                x, y = number * m.terms * line + a + shift, (number * m.filters + f) * row + a
                keeps = 0.0 if fill and order == 0 else 1.0  # what to multiply y by before the product is added
                size = min(height, m.filters - f), b - a, m.terms
                calls.append(_call(m, AS_IT_IS, size, (m.kernel, w, m.terms), (m.x, x, line), keeps, (m.y, y, row)))
    return calls


def _weight_calls(m: Matrices) -> list[Call]:
    calls: list[Call] = []
    row, line = m.windows.out[1] * m.n, m.windows.image[1] * m.n
    height, width, length = transposed_piece(m.filters, m.terms, row)
    cuts = range(m.stack), m.seen, range(0, m.filters, height), range(0, m.terms, width)
    for number, (first, stop, shift, j), f, k in product(*cuts):
        for start in range(first, stop, length):
            w = ((number * m.windows.kernel[1] + j) * m.filters + f) * m.terms + k
            x, dy = (number * m.terms + k) * line + start + shift, (number * m.filters + f) * row + start
            size = min(height, m.filters - f), min(width, m.terms - k), min(length, stop - start)
            calls.append(_call(m, TRANSPOSED, size, (m.y, dy, row), (m.x, x, line), 1.0, (m.kernel, w, m.terms)))
    return calls


Place = tuple[int, int, int]
"""Where a matrix is: an address, the numbers from there to its first, and those from one row to the next."""


def _call(m: Matrices, turned: int, size: tuple[int, int, int], a: Place, b: Place, keeps: float, out: Place) -> Call:
    item = 4 if m.dtype == "f" else 8
    left, right, result = ((address + item * first, line) for address, first, line in (a, b, out))
    return (ROW_MAJOR, AS_IT_IS, turned, *size, 1.0, *left, *right, keeps, *result)
