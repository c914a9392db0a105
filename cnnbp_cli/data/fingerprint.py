"""Which data a run was made with: a digest of every value, so that a changed file is noticed whatever it is called."""

from __future__ import annotations

import hashlib

import numpy as np

from cnnbp_cli.data.dataset import Dataset
from cnnbp_cli.data.file_rows import FileRows, Images
from cnnbp_cli.data.kept import Kept
from cnnbp_cli.data.split import Split

ROWS_AT_A_TIME = 4096  # images that are copied at most, where they do not lie in memory as they are counted


def fingerprint(data: Dataset, kept: Kept | None = None) -> dict[str, str]:
    """Return the size of each split and the SHA-256 of its images and labels, their types and shapes included.

    It takes about 0.03 s of one core for the 60,000 images of MNIST (47 MB). `kept` knows that of images in a file, or
    is told it.
    """
    splits = {"training": data.train, "validation": data.validation, "test": data.test}
    return {f"{name} data": _digest(split, kept or Kept()) for name, split in splits.items() if split is not None}


def _digest(split: Split, kept: Kept) -> str:
    split = split.whole
    images = split.images
    total = hashlib.sha256()
    if isinstance(images, FileRows):
        total.update(_digest_of_file(images, kept).encode())
    else:
        _add(total, images)
    _add(total, split.labels)
    return f"{len(split)} images, sha256 {total.hexdigest()[:32]}"


def _digest_of_file(images: FileRows, kept: Kept) -> str:
    found: str | None = kept.get(images, "sha256")
    if found is None:
        total = hashlib.sha256()
        _add(total, images)
        found = total.hexdigest()
        kept.put(images, "sha256", found)
    return found


def _add(total: hashlib._Hash, array: Images) -> None:
    total.update(f"{array.dtype.str} {array.shape}".encode())
    for start in range(0, len(array), ROWS_AT_A_TIME):
        total.update(np.ascontiguousarray(array[start : start + ROWS_AT_A_TIME]).data)
