"""The next batch's rows of a file, read while the network computes: a disk's time, and the system's, cost no step."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from cnnbp_cli.core.types import Array
from cnnbp_cli.data.file_rows import FileRows, Images
from cnnbp_cli.data.split import Split


class ReadAhead:
    """A split whose batches are known one step before they are needed; of images in memory, nothing is read ahead.

    Parameters
    ----------
    split : Split
    """

    def __init__(self, split: Split) -> None:
        self._split = split
        self._reader: ThreadPoolExecutor | None = None  # made where it is used: threads do not survive a fork
        self._expected: tuple[Array, Future[Array]] | None = None

    def expect(self, indices: Array) -> None:
        """Begin to read the samples that will be taken next."""
        images: Images = self._split.images
        if isinstance(images, FileRows):
            self._reader = self._reader or ThreadPoolExecutor(1, "read-ahead")
            self._expected = indices, self._reader.submit(images.__getitem__, indices)

    def take(self, indices: Array) -> tuple[Split, Array | slice]:
        """Return a split, and which of its samples are those at `indices`.

        Raises
        ------
        DataError
            When the file is gone, or shorter than it was.
        """
        expected, self._expected = self._expected, None
        if expected is None or not np.array_equal(expected[0], indices):
            return self._split, indices
        return Split(expected[1].result(), self._split.labels[indices]), slice(None)
