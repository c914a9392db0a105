"""Rows of a file that is larger than memory, read when they are asked for: to the rest of the program, an array.

Rows are read with `pread`, not through a memory map: what a map has touched counts as resident memory, a limit on
address space (`ulimit -v`) forbids it, and a file that somebody cuts short meanwhile kills the process. A batch of 64
images of 3 KB from the page cache takes 0.10 ms, through a map 0.03.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from math import prod
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike

from cnnbp_cli.core.types import Array, Shape
from cnnbp_cli.data.errors import DataError, unreadable

IN_MEMORY = 1 << 28
"""Bytes up to which images are read into memory as a whole; larger ones stay in their file."""

BLOCK = 1 << 24
"""Bytes that are read at a time where all rows are looked at."""

DISK_SECONDS, HINTED_BATCHES = 20e-6, 50
"""Time of a read that has waited for a disk (from the page cache it takes 2 µs, and 8 while the disk still works), and
for how many batches the system is told then what comes next."""


Layout = Literal["channels first", "channels last", "no channels"]
"""Where the channels of images are: (N, C, H, W), (N, H, W, C) or (N, H, W)."""


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
    channels_last : bool
        Whether rows are (H, W, C) in the file; they are (C, H, W) when they are read.
    window : two slices, optional
        The rows and columns of each image to give; by default all of them.
    """

    def __init__(
        self,
        path: Path,
        start: int,
        shape: Shape,
        dtype: DTypeLike,
        order: Array | None = None,
        *,
        channels_last: bool = False,
        window: tuple[slice, slice] | None = None,
    ) -> None:
        self.path, self._start, self._whole = path, start, shape
        self.dtype = np.dtype(dtype)
        self._order = order
        self._channels_last, self._window = channels_last, window
        self._row = prod(shape[1:]) * self.dtype.itemsize
        self._file: int | None = None
        self._hints = 0  # batches for which the system is told what comes next

    @property
    def shape(self) -> Shape:
        *sides, last = self._whole[1:]
        shape = (last, *sides) if self._channels_last else self._whole[1:]
        if self._window is not None:
            shape = (shape[0], *(part.stop - part.start for part in self._window))
        return (len(self), *shape)

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
        return self._with(self._whole, order[indices])

    def as_images(self, layout: Layout) -> FileRows:
        """Return the rows as images (C, H, W)."""
        n, *sides = self._whole
        whole = (n, 1, *sides) if layout == "no channels" else self._whole
        return self._with(whole, self._order, channels_last=layout == "channels last")

    def windowed(self, rows: slice, columns: slice) -> FileRows:
        """Return a part of each image."""
        return self._with(self._whole, self._order, window=(rows, columns))

    def identity(self) -> dict[str, Any]:
        """Return what tells these rows from others without reading them.

        Raises
        ------
        DataError
            When the file is gone.
        """
        try:
            status = self.path.stat()
        except OSError as error:
            raise unreadable(self.path, error) from None
        chosen = "all" if self._order is None else sha256(self._order.tobytes()).hexdigest()
        known = {"file": str(self.path), "bytes": status.st_size, "changed": status.st_mtime_ns, "rows": chosen}
        if self._window is not None:
            known["window"] = [[part.start, part.stop] for part in self._window]
        return known

    def _with(
        self,
        whole: Shape,
        order: Array | None,
        *,
        channels_last: bool | None = None,
        window: tuple[slice, slice] | None = None,
    ) -> FileRows:
        last, part = self._channels_last if channels_last is None else channels_last, window or self._window
        return FileRows(self.path, self._start, whole, self.dtype, order, channels_last=last, window=part)

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

    def expect(self, rows: Array) -> None:
        """Tell the system which rows will be asked for next, so that the disk works meanwhile.

        Where rows have come from the system's page cache lately, that would cost more than it saves, and is left out.
        """
        if self._hints and hasattr(os, "posix_fadvise"):
            self._hints -= 1
            with suppress(OSError):  # a hint is not worth the run; who reads the rows will say what is wrong
                file = self._opened()
                for at, size in self._runs(rows if self._order is None else self._order[rows]):
                    os.posix_fadvise(file, at, size, os.POSIX_FADV_WILLNEED)

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
        self._fill(_bytes(out), self._start + first * self._row)
        return self._arranged(out)

    def _read_rows(self, rows: Array) -> Array:
        out = np.empty((len(rows), *self._whole[1:]), self.dtype)
        view, began, done = _bytes(out), perf_counter(), 0
        runs = self._runs(rows)
        try:
            file, read = self._opened(), os.preadv
            for at, size in runs:
                part = view[done : (done := done + size)]
                if read(file, (part,), at) != size:
                    self._fill(part, at)
        except OSError as error:
            raise unreadable(self.path, error) from None
        if perf_counter() - began > DISK_SECONDS * len(runs):
            self._hints = HINTED_BATCHES
        return self._arranged(out)

    def _runs(self, rows: Array) -> list[tuple[int, int]]:
        """Return where rows of the whole array begin that lie together in the file, and how many bytes they have."""
        begins = np.flatnonzero(np.diff(rows, prepend=-2) != 1)
        counts = np.diff(begins, append=len(rows))
        places = self._start + rows[begins].astype(np.int64) * self._row
        return list(zip(places.tolist(), (counts * self._row).tolist(), strict=True))

    def _arranged(self, rows: Array) -> Array:
        images = np.moveaxis(rows, -1, 1) if self._channels_last else rows
        return np.ascontiguousarray(images if self._window is None else images[:, :, *self._window])

    def _fill(self, view: memoryview, at: int) -> None:
        try:
            file = self._opened()
            while view:
                found = os.preadv(file, (view,), at)
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


def _bytes(array: Array) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


Images = Array | FileRows
"""Images of a data set, in memory or in a file."""


def blocks_of(images: Images) -> Iterator[Array]:
    """Yield all images, some at a time where they are in a file."""
    if isinstance(images, FileRows):
        yield from images.blocks()
    else:
        yield images


def large_rows(path: Path, start: int, shape: Shape, dtype: DTypeLike) -> FileRows | None:
    """Return an array of a file if it is to stay there: it is large, and the system can read a file at any place."""
    rows = FileRows(path, start, shape, dtype)
    return rows if rows.nbytes > IN_MEMORY and hasattr(os, "preadv") else None
