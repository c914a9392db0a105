"""What every source delivers, and the one kind of complaint that they make."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from cnnbp_cli.core.types import Array, Shape
from cnnbp_cli.errors import UserError

LARGEST = 1 << 34
"""The most bytes that one array of a data set may declare: all of it has to fit into memory."""


class DataError(UserError):
    """A data set that cannot be used: names the file, what is wrong with it, and the remedy."""


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Samples and their labels, as the source has them: not normalised.

    Attributes
    ----------
    images : Array of uint8 (or of the source's floats), shape (N, C, H, W)
    labels : Array of int64, shape (N,); regression targets are float64, shape (N,) or (N, K)
    """

    images: Array
    labels: Array

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def has_classes(self) -> bool:
        """Whether the labels are class numbers rather than regression targets."""
        return self.labels.dtype.kind == "i"

    def take(self, indices: Array) -> Split:
        """Return the samples at `indices`, copied."""
        return Split(self.images[indices], self.labels[indices])


def show_list(shape: Shape) -> str:
    """Write a shape as the config does: `[1, 28, 28]`."""
    return "[" + ", ".join(str(size) for size in shape) + "]"


def require_shape(where: str, shape: Shape, input_shape: Shape) -> None:
    """Complain unless the images' shape is the one that the model takes."""
    if tuple(shape) != tuple(input_shape):
        raise DataError(
            f"{where}: images are {show_list(shape)}, but the model takes {show_list(input_shape)}; "
            f"write `model.input: {show_list(shape)}`"
        )


def unreadable(path: str | os.PathLike[str], error: OSError) -> DataError:
    """Return the complaint about a file that the system will not open or read."""
    if isinstance(error, FileNotFoundError):
        return DataError(f"{path}: no such file; check the path (a relative one starts at the config's folder)")
    if isinstance(error, PermissionError):
        return DataError(f"{path}: no permission to read it; change its mode or owner")
    if isinstance(error, IsADirectoryError):
        return DataError(f"{path}: is a folder, expected a file")
    return DataError(f"{path}: cannot be read ({error.strerror or error})")


def class_labels(labels: Array) -> Array:
    """Return integer labels of any width as int64."""
    return labels.astype(np.int64)
