"""The OpenBLAS that comes inside NumPy's wheels, asked directly: what it is, and how many threads it uses."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

ROW_MAJOR, AS_IT_IS, TRANSPOSED = 101, 111, 112
"""What `cblas.h` calls `CblasRowMajor`, `CblasNoTrans` and `CblasTrans`."""


@cache
def openblas() -> ctypes.CDLL | None:
    """Return the OpenBLAS inside NumPy's wheel, if that is what this NumPy uses."""
    package = Path(np.__file__).parent
    for folder in (package.parent / "numpy.libs", package / ".dylibs"):
        for library in sorted(folder.glob("*openblas*")):
            try:
                loaded = ctypes.CDLL(str(library))
                loaded.scipy_openblas_set_num_threads64_.argtypes = [ctypes.c_int]
                loaded.scipy_openblas_get_num_threads64_.restype = ctypes.c_int
                loaded.scipy_openblas_get_corename64_.restype = ctypes.c_char_p
                return loaded
            except (OSError, AttributeError):
                continue
    return None


@cache
def processor() -> str:
    """Return for which processor OpenBLAS chose its kernels, such as ``SkylakeX``; ``""`` without OpenBLAS."""
    library = openblas()
    return library.scipy_openblas_get_corename64_().decode() if library is not None else ""


@cache
def gemm(character: str) -> Callable[..., None] | None:
    """Return `cblas_sgemm` for ``"f"`` or `cblas_dgemm` for ``"d"``, or None where there is none.

    It takes ROW_MAJOR, two times AS_IT_IS or TRANSPOSED, m, n, k, 1, and of a (m, k) and b (k, n) their addresses and
    the numbers from one row to the next; then what to multiply out (m, n) by before their product is added to it, and
    out's address and row. A call takes about a microsecond more than the product.
    """
    library = openblas()
    if library is None or character not in "fd":
        return None
    try:
        function = library.scipy_cblas_sgemm64_ if character == "f" else library.scipy_cblas_dgemm64_
    except AttributeError:
        return None
    scalar = ctypes.c_float if character == "f" else ctypes.c_double
    size, matrix = ctypes.c_int64, (ctypes.c_void_p, ctypes.c_int64)
    function.argtypes = [*[ctypes.c_int] * 3, *[size] * 3, scalar, *matrix, *matrix, scalar, *matrix]
    function.restype = None
    return function
