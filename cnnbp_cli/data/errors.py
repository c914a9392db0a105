"""The one kind of complaint that data make, and the checks that several sources share."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from cnnbp_cli.core.types import Shape, show
from cnnbp_cli.errors import UserError
from cnnbp_cli.text import show_bytes

MAX_BYTES = 1 << 34
"""The most bytes that one array of a data set may take: all of it has to fit into memory."""

DEFLATE_LIMIT = 1032
"""No deflate stream inflates by more than this factor: 258 bytes for two bits."""


class DataError(UserError):
    """A data set that cannot be used: names the file, what is wrong with it, and the remedy."""


class ShapeError(DataError):
    """Images of another shape than the config says, which `model.input` or `data.image_size` brings together."""

    def __init__(self, where: object, shape: Shape, expected: Shape) -> None:
        (c, *size), (channels, *wanted) = shape, expected
        larger = c == channels and all(have > want for have, want in zip(size, wanted, strict=True))
        super().__init__(
            f"{where}: images are {show(shape)}, but the config says {show(expected)}; "
            f"write `model.input: {show(shape)}`"
            + f", or `data.image_size: {show(size)}` to see a part of each"
            * larger
        )
        self.where, self.shape = where, shape

    def of_parts(self, image_size: Sequence[int], input_shape: Shape) -> DataError:
        """Return the complaint of a config that says the size of the images, of which the network sees a part."""
        c, *size = self.shape
        fitting = [c, *(min(part, whole) for part, whole in zip(input_shape[1:], size, strict=True))]
        keys = {"model.input": (list(input_shape), fitting), "data.image_size": (list(image_size), size)}
        remedy = " and ".join(f"`{key}: {show(new)}`" for key, (old, new) in keys.items() if old != new)
        return DataError(
            f"{self.where}: images are {show(self.shape)}, but the config says {show([input_shape[0], *image_size])}; "
            f"write {remedy}"
        )


def require_shape(where: object, shape: Shape, input_shape: Shape) -> None:
    """Complain unless the images' shape is the one that the model takes."""
    if tuple(shape) != tuple(input_shape):
        raise ShapeError(where, shape, input_shape)


def require_file(path: Path, key: str) -> int:
    """Return the size of a regular file in bytes; devices and pipes, which may never end, are refused.

    Parameters
    ----------
    path : Path
    key : str
        The config's key that names the file.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise unreadable(path, error) from None
    if stat.S_ISDIR(status.st_mode):
        raise DataError(f"{path}: is a folder; `{key}` names a file")
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path}: is not a regular file; copy the data into one")
    if status.st_size > MAX_BYTES:
        raise DataError(f"{path}: is larger than {show_bytes(MAX_BYTES)}; the data has to fit into memory, use a part")
    return status.st_size


def unreadable(path: str | os.PathLike[str], error: OSError) -> DataError:
    """Return the complaint about a file that the system will not open or read."""
    if isinstance(error, FileNotFoundError):
        return DataError(f"{path}: does not exist; check the path (a relative one starts at the config's folder)")
    if isinstance(error, PermissionError):
        return DataError(f"{path}: permission denied; change its permissions")
    return DataError(f"{path}: cannot be read ({error.strerror or error}); check the path and the disk")
