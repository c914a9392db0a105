"""How many threads NumPy's matrix products may use, changed while the program runs.

Workers that share the cores must not each start a thread per core: the threads would wait for each
other in turns. The environment variable is only read when NumPy is loaded, so the library is asked
directly; where it is not the OpenBLAS that comes with NumPy, nothing is changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cnnbp_cli.core.openblas import openblas


def set_blas_threads(count: int) -> None:
    """Let matrix products of this process use `count` threads, where that can be set."""
    library = openblas()
    if library is not None:
        library.scipy_openblas_set_num_threads64_(count)


@contextmanager
def blas_threads(count: int) -> Iterator[None]:
    """Let matrix products use `count` threads for a while."""
    library = openblas()
    before = library.scipy_openblas_get_num_threads64_() if library is not None else count
    set_blas_threads(count)
    try:
        yield
    finally:
        set_blas_threads(before)
