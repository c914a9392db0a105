"""How many threads NumPy's matrix products may use, changed while the program runs.

Workers that share the cores must not each start a thread per core: the threads would wait for each
other in turns. The environment variable is only read when NumPy is loaded, so the library is asked
directly; where it is not the OpenBLAS that comes with NumPy, nothing is changed.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np


@cache
def _openblas() -> ctypes.CDLL | None:
    """Return the OpenBLAS inside NumPy's wheel, if that is what this NumPy uses."""
    package = Path(np.__file__).parent
    for folder in (package.parent / "numpy.libs", package / ".dylibs"):
        for library in sorted(folder.glob("*openblas*")):
            try:
                loaded = ctypes.CDLL(str(library))
                loaded.scipy_openblas_set_num_threads64_.argtypes = [ctypes.c_int]
                loaded.scipy_openblas_get_num_threads64_.restype = ctypes.c_int
                return loaded
            except (OSError, AttributeError):
                continue
    return None


def set_blas_threads(count: int) -> None:
    """Let matrix products of this process use `count` threads, where that can be set."""
    library = _openblas()
    if library is not None:
        library.scipy_openblas_set_num_threads64_(count)


@contextmanager
def blas_threads(count: int) -> Iterator[None]:
    """Let matrix products use `count` threads for a while."""
    library = _openblas()
    before = library.scipy_openblas_get_num_threads64_() if library is not None else count
    set_blas_threads(count)
    try:
        yield
    finally:
        set_blas_threads(before)
