"""Rows of a file that is larger than memory, read when they are asked for: to the rest of the program, an array.

Rows are read with `pread`, not through a memory map: what a map has touched counts as resident memory, a limit on
address space (`ulimit -v`) forbids it, and a file that somebody cuts short meanwhile kills the process. A batch of 64
images of 3 KB from the page cache takes 0.10 ms, through a map 0.03.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from cnnbp_cli.core.types import Array, Shape
from cnnbp_cli.data.errors import DataError, unreadable

IN_MEMORY = 1 << 28
"""Bytes up to which images are read into memory as a whole; larger ones stay in their file."""

BLOCK = 1 << 24
"""Bytes that are read at a time where all rows are looked at."""


class FileRows:
    """Some rows of an array in a file, in some order.

    It has what the program needs of an array: `shape`, `dtype`, `len`, indexing along the first axis, extremes.

    Parameters
    ----------
    path : Path
    start : int
        Where the array begins in the file, in bytes.
    shape : Shape
        Of the whole array, in C order.
    dtype
    order : Array of int64, optional
        The rows that there are, in their order; by default all of them.
    """

    def __init__(self, path: Path, start: int, shape: Shape, dtype: DTypeLike, order: Array | None = None) -> None:
        self.path, self._start, self._whole = path, start, shape
        self.dtype = np.dtype(dtype)
        self._order = order
        self._row = prod(shape[1:]) * self.dtype.itemsize
        self._file: int | None = None

    @property
    def shape(self) -> Shape:
        return (len(self), *self._whole[1:])

    @property
    def ndim(self) -> int:
        return len(self._whole)

    @property
    def nbytes(self) -> int:
        return len(self) * self._row

    def __len__(self) -> int:
        return self._whole[0] if self._order is None else len(self._order)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None}  # another process opens the file itself

    def take(self, indices: Array | slice) -> FileRows:
        """Return some of the rows, still in the file."""
        order = np.arange(len(self)) if self._order is None else self._order
        return FileRows(self.path, self._start, self._whole, self.dtype, order[indices])

    def __getitem__(self, key: int | slice | Array) -> Array:
        """Return rows, read into memory; one row, without the first axis, for a number.

        Raises
        ------
        DataError
            When the file is gone, or shorter than it was.
        """
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            if self._order is None and step == 1:
                return self._read_run(start, max(0, stop - start))
            key = np.arange(start, stop, step)
        rows = np.arange(len(self))[key] if np.asarray(key).dtype == bool else np.asarray(key)
        if rows.ndim == 0:
            return self[rows[None]][0]
        if rows.size and not -len(self) <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"rows from {rows.min()} to {rows.max()}, of {len(self)}")
        rows = np.where(rows < 0, rows + len(self), rows)
        return self._read_rows(rows if self._order is None else self._order[rows])

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Array:
        return np.asarray(self[:], dtype)

    def blocks(self) -> Iterator[Array]:
        """Yield all rows, some at a time."""
        step = max(1, BLOCK // max(1, self._row))
        for start in range(0, len(self), step):
            yield self[start : start + step]

    def min(self) -> Any:
        return min(block.min() for block in self.blocks())

    def max(self) -> Any:
        return max(block.max() for block in self.blocks())

    def _read_run(self, first: int, count: int) -> Array:
        out = np.empty((count, *self._whole[1:]), self.dtype)
        self._fill(out.reshape(-1).view(np.uint8).data, self._start + first * self._row)
        return out

    def _read_rows(self, rows: Array) -> Array:
        out = np.empty((len(rows), *self._whole[1:]), self.dtype)
        view, size = out.reshape(-1).view(np.uint8).data, self._row
        for place, row in enumerate(rows.tolist()):
            self._fill(view[place * size : (place + 1) * size], self._start + row * size)
        return out

    def _fill(self, view: memoryview, at: int) -> None:
        try:
            file = self._opened()
            while view:
                found = os.preadv(file, [view], at)
                if not found:
                    raise DataError(f"{self.path}: has become shorter since the start; restore the file")
                view, at = view[found:], at + found
        except OSError as error:
            raise unreadable(self.path, error) from None

    def _opened(self) -> int:
        if self._file is None:
            self._file = os.open(self.path, os.O_RDONLY)
            weakref.finalize(self, os.close, self._file)
        return self._file


Images = Array | FileRows
"""Images of a data set, in memory or in a file."""


def rows_of(path: Path, start: int, shape: Shape, dtype: DTypeLike) -> Images:
    """Return an array of a file: in memory where it is small, or where the system cannot read a file at a place."""
    rows = FileRows(path, start, shape, dtype)
    if rows.nbytes > IN_MEMORY and hasattr(os, "preadv"):
        return rows
    return np.fromfile(path, dtype, prod(shape), offset=start).reshape(shape)
