"""Matrix products of any size, cut into pieces that OpenBLAS computes fastest.

For processors with AVX-512, OpenBLAS has kernels that multiply small matrices where they lie; larger ones are first
copied into another order. A convolution's products have too few rows or too short sums to be worth that copy, so they
are cut until each piece is small. Elsewhere they are left whole.

One core (AMD EPYC, AVX-512), float32, GFLOP/s whole and cut: 32×96 · 96×1024: 75, 112; 16×144 · 144×1024: 63, 110;
64×576 · 576×1024: 95, 113; 32×832 · (288×832)ᵀ: 59, 110; float64: 44, 51 for the first. With the kernels for
processors without AVX-512 the pieces would be slower by a tenth, transposed by a quarter.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cnnbp_cli.core.openblas import processor
from cnnbp_cli.core.types import Array

SMALL = 100**3
"""The largest rows · columns · terms of a small product, as OpenBLAS has it (`sgemm_small_kernel_permit`)."""

SMALL_TRANSPOSED = 1200
"""The largest rows · columns of a small product with a transposed matrix, as there."""

HAVE_SMALL_KERNELS = ("SkylakeX", "Cooperlake", "SapphireRapids")
"""OpenBLAS's names of the processors for which it has such kernels."""

ROWS, COLUMNS = 16, 64
"""Pieces have a multiple of so many rows and columns, which is what the kernels take at a time, or all of them."""


def multiply(a: Array, b: Array, out: Array) -> None:
    """Write the products of a (…, m, k) and b (…, k, n) to out (…, m, n)."""
    m, k, n = *a.shape[-2:], b.shape[-1]
    rows, columns = piece(m, k, n)
    if (rows, columns) == (m, n) or not have_small_kernels(a, b, out):
        np.matmul(a, b, out=out)
        return
    for some_rows, height in _cut(m, rows):
        for some_columns, width in _cut(n, columns):
            pieces = _in_pieces(out[..., some_rows, some_columns], height, width)
            left = _in_pieces(a[..., some_rows, :], height, k)
            right = _in_pieces(b[..., some_columns], k, width)
            np.matmul(left, right, out=pieces)


def piece(m: int, k: int, n: int) -> tuple[int, int]:
    """Return into how many rows and columns to cut a product (m, n) of sums of k terms."""
    if m * k * n <= SMALL or not have_small_kernels():
        return m, n
    rows = m if m * k * COLUMNS <= SMALL else ROWS
    columns = SMALL // (rows * k) // COLUMNS * COLUMNS
    return (min(rows, m), min(columns, n)) if columns else (m, n)  # where sums are very long, the copy pays


def multiply_transposed(a: Array, b: Array) -> Array:
    """Return the products of a (…, m, n) and the transposes of b (…, k, n), as (…, m, k)."""
    m, k, n = a.shape[-2], *b.shape[-2:]
    small = m * k <= SMALL_TRANSPOSED and m * k * n <= SMALL
    if small or n < 2 * ROWS or not have_small_kernels(a, b):
        return np.matmul(a, b.swapaxes(-1, -2))
    rows, columns, terms = transposed_piece(m, k, n)
    out = np.empty((*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), m, k), np.result_type(a, b))
    for some_rows, height in _cut(m, rows):
        for some_columns, width in _cut(k, columns):
            pieces = _in_pieces(out[..., some_rows, some_columns], height, width)
            for start in range(0, n, terms):
                left = _in_pieces(a[..., some_rows, start : start + terms], height, min(terms, n - start))
                right = _in_pieces(b[..., some_columns, start : start + terms], width, min(terms, n - start))
                right = right.swapaxes(-4, -3).swapaxes(-2, -1)
                if start == 0:
                    np.matmul(left, right, out=pieces)
                else:
                    pieces += left @ right
    return out


def transposed_piece(m: int, k: int, n: int) -> tuple[int, int, int]:
    """Return into how many rows, columns and terms to cut a product of matrices (m, n) and (k, n), transposed."""
    if not have_small_kernels():
        return m, k, n
    rows = min(m, ROWS)
    columns = min(k, SMALL_TRANSPOSED // rows // ROWS * ROWS)
    return rows, columns, max(1, min(n, SMALL // (rows * columns)))


def have_small_kernels(*arrays: Array) -> bool:
    """Return whether OpenBLAS has such kernels for this processor and these arrays."""
    return processor() in HAVE_SMALL_KERNELS and all(array.dtype.char in "fd" for array in arrays)


def _cut(count: int, size: int) -> Iterator[tuple[slice, int]]:
    """Yield slices with the size of the parts that each is to be cut into: all whole parts, and the rest."""
    whole = count // size * size
    if whole:
        yield slice(0, whole), size
    if whole < count:
        yield slice(whole, count), count - whole


def _in_pieces(matrix: Array, height: int, width: int) -> Array:
    """Return a matrix (…, m, n) in pieces of the same memory, as (…, m / height, n / width, height, width)."""
    *stack, m, n = matrix.shape
    pieces = matrix.reshape(*stack, m // height, height, n // width, width)
    return pieces.swapaxes(-3, -2)
