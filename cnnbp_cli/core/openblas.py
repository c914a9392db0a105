"""The OpenBLAS that comes inside NumPy's wheels, asked directly: what it is, and how many threads it uses."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import numpy as np


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
