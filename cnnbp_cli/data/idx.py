"""The IDX format of MNIST and its successors, read without trusting a single declared size.

References
----------
Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits", section "File formats".
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

import numpy as np

from cnnbp_cli.core.types import Array, Shape
from cnnbp_cli.data.errors import DEFLATE_LIMIT, MAX_BYTES, DataError, require_shape, unreadable
from cnnbp_cli.data.file_rows import FileRows, large_rows
from cnnbp_cli.data.split import Split

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    IdxPath = Path | Traversable

HEADER = 4
"""Bytes before the sizes."""

FILE_NAME = re.compile(r"(.*?)(train|t10k|test)-(images|labels)[-.]idx[13]-ubyte(\.gz)?")
"""A set's prefix, the split, what it holds, and how it is packed."""

_ROLES = ("train images", "train labels", "test images", "test labels")


@dataclass(frozen=True, slots=True)
class IdxFile:
    """An open IDX file, with a header that has been read and found possible.

    Attributes
    ----------
    name : str
        The file, for messages.
    shape : tuple of int
        What the header declares; the content has not been looked at.
    stream : binary stream
        Stands at the first byte of the content, decompressed.
    rows : FileRows or None
        The content, where the file is plain and too large to be read as a whole.
    """

    name: str
    shape: Shape
    stream: IO[bytes]
    rows: FileRows | None = None

    def read(self) -> Array:
        """Read the content, as uint8 of the declared shape.

        Raises
        ------
        DataError
            When there is less or more of it than declared, or the compressed data are damaged.
        """
        declared = prod(self.shape)
        content = np.empty(declared, np.uint8)
        with _damage_reported(self.name):
            found = cast(gzip.GzipFile, self.stream).readinto(content.data)
            if found < declared:
                raise DataError(
                    f"{self.name}: contains {found:,} of the {declared:,} bytes that its header declares; "
                    "fetch the file again"
                )
            if self.stream.read(1):
                raise DataError(
                    f"{self.name}: is longer than the {declared:,} bytes that its header declares; fetch the file again"
                )
        return content.reshape(self.shape)


@contextmanager
def open_idx(source: IdxPath, axes: int) -> Iterator[IdxFile]:
    """Open an IDX file of unsigned bytes, plain or gzip (recognized by its content).

    Parameters
    ----------
    source : Path or Traversable
    axes : int
        3 for images (count, height, width), 1 for labels (count).

    Raises
    ------
    DataError
        When it cannot be read, is no such file, is empty, or declares more than its size can hold.
    """
    name = str(source)
    with _damage_reported(name), source.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        capacity = file.seek(0, 2) * (DEFLATE_LIMIT if packed else 1)
        file.seek(0)
        stream = cast("IO[bytes]", gzip.GzipFile(fileobj=file)) if packed else file
        shape = _read_header(name, stream, axes, capacity, most=MAX_BYTES if packed else capacity)
        rows = None if packed else _rows(source, shape, capacity - stream.tell())
        yield IdxFile(name, shape, stream, rows)


def _rows(source: IdxPath, shape: Shape, content: int) -> FileRows | None:
    """Return the content of a plain file that is too large for memory, and complete."""
    if not isinstance(source, Path) or content != prod(shape):
        return None
    return large_rows(source, HEADER + 4 * len(shape), shape, np.uint8)


def _read_header(name: str, stream: IO[bytes], axes: int, capacity: int, *, most: int) -> Shape:
    magic = bytes([0, 0, 8, axes])
    header = stream.read(HEADER + 4 * axes)
    if header[:4] != magic:
        kind = "images" if axes == 3 else "labels"
        raise DataError(
            f"{name}: starts with {header[:4].hex(' ') or 'nothing'}, but IDX {kind} start with {magic.hex(' ')}; "
            "check that it is the right file"
        )
    if len(header) < HEADER + 4 * axes:
        raise DataError(f"{name}: ends within its header; fetch the file again")
    shape = tuple(int(size) for size in np.frombuffer(header, ">u4", axes, HEADER))
    if 0 in shape:
        raise DataError(f"{name}: is empty (its header declares {' × '.join(map(str, shape))}); fetch the file again")
    if prod(shape) > min(capacity, most):
        raise DataError(
            f"{name}: declares {' × '.join(map(str, shape))} bytes, more than a file of its size can hold; "
            "fetch the file again"
        )
    return shape


@contextmanager
def _damage_reported(name: str) -> Iterator[None]:
    """Turn what the system and a damaged gzip stream raise into one complaint."""
    try:
        yield
    except EOFError:
        raise DataError(f"{name}: the compressed data end too early; fetch the file again") from None
    except (gzip.BadGzipFile, zlib.error):
        raise DataError(f"{name}: the compressed data are damaged; fetch the file again") from None
    except OSError as error:
        raise unreadable(name, error) from None


def read_split(images: IdxPath, labels: IdxPath, input_shape: Shape, *, transpose: bool = False) -> Split:
    """Read one pair of images and labels.

    Everything that the headers say is compared with the model and with each other before any content is read.
    """
    with open_idx(images, 3) as image_file, open_idx(labels, 1) as label_file:
        if image_file.shape[0] != label_file.shape[0]:
            raise DataError(
                f"{images}: has {image_file.shape[0]:,} images, but {label_file.name} has "
                f"{label_file.shape[0]:,} labels; take both files from the same set"
            )
        _, height, width = image_file.shape
        require_shape(str(images), (1, width, height) if transpose else (1, height, width), input_shape)
        if image_file.rows is not None and not transpose:
            return Split(image_file.rows.as_images("no channels"), label_file.read().astype(np.int64))
        pixels = image_file.read()
        if transpose:
            pixels = np.ascontiguousarray(pixels.transpose(0, 2, 1))
        return Split(pixels[:, None], label_file.read().astype(np.int64))


def read_folder(folder: Path, input_shape: Shape) -> tuple[Split, Split]:
    """Read the training and the test split from a folder with the four files of one set.

    MNIST, Fashion-MNIST and KMNIST are read as published. EMNIST's names carry a prefix
    (``emnist-letters-train-images-idx3-ubyte.gz``); its images are published transposed, and are turned
    upright here, so that they match MNIST's and what `predict` is given. Labels stay as they are: those of
    EMNIST letters run from 1 to 26, which takes 27 classes.

    Raises
    ------
    DataError
        When a file is missing, the folder contains several sets, or a file is damaged.
    """
    prefix, files = _find_files(folder)
    transpose = prefix.startswith("emnist-")
    train, test = (
        read_split(files[f"{split} images"], files[f"{split} labels"], input_shape, transpose=transpose)
        for split in ("train", "test")
    )
    return train, test


def _find_files(folder: Path) -> tuple[str, dict[str, Path]]:
    """Return the set's prefix and its four files by role; a plain file is preferred to its compressed twin."""
    try:
        names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    except NotADirectoryError:
        raise DataError(f"{folder}: is a file; `data.path` names the folder with the four IDX files") from None
    except OSError as error:
        raise unreadable(folder, error) from None
    sets: dict[str, dict[str, Path]] = {}
    for name in sorted(names, key=lambda name: not name.endswith(".gz")):  # plain files overwrite packed ones
        if match := FILE_NAME.fullmatch(name):
            prefix, split, what, _ = match.groups()
            sets.setdefault(prefix, {})[f"{'train' if split == 'train' else 'test'} {what}"] = folder / name
    if len(sets) > 1:
        found = ", ".join(f"{prefix}train-images…" for prefix in sorted(sets))
        raise DataError(f"{folder}: contains several sets ({found}); give each set its own folder")
    prefix, files = next(iter(sets.items()), ("", {}))
    missing = [role for role in _ROLES if role not in files]
    if missing:
        raise DataError(
            f"{folder}: has no {' and no '.join(missing)}; expected files named like "
            "train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz, "
            "t10k-labels-idx1-ubyte.gz"
        )
    return prefix, files
