"""A folder of NumPy files, whose images stay on disk where they are too large for memory."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from cnnbp_cli.core.types import Shape
from cnnbp_cli.data.errors import DataError, unreadable
from cnnbp_cli.data.file_rows import FileRows, large_rows
from cnnbp_cli.data.npz import HEADER_LIMIT, Arrays, check_header, names_of, read_array, read_header, source_of

if TYPE_CHECKING:
    from cnnbp_cli.config.schema import Keys
    from cnnbp_cli.data.source import Source

PIXELS = ("uint8", "float32", "float64")
"""What images may be that stay on disk: others would have to be converted as a whole."""


def read_npy(folder: Path, input_shape: Shape, keys: Keys | None = None) -> Source:
    """Read training images and labels and, where present, those for validation and for a test.

    Files are called as the arrays of an archive may be, and hold what those may; see `read_npz`.

    Raises
    ------
    DataError
        When a file is missing, damaged or impossible, or the files do not fit together.
    """
    try:
        found = sorted(entry.stem for entry in folder.iterdir() if entry.suffix == ".npy")
    except NotADirectoryError:
        raise DataError(f"{folder}: is a file; `data.path` names the folder of the npy files") from None
    except OSError as error:
        raise unreadable(folder, error) from None
    names = names_of(folder, found, keys)
    arrays: Arrays = {}
    for each, name in names.items():
        file = folder / f"{name}.npy"
        rows = _large(file) if each[0] == "x" else None
        arrays[each] = read_array(file, texts=each[0] == "y") if rows is None else rows
    return source_of(f"npy {folder}", folder, names, arrays, input_shape)


def _large(path: Path) -> FileRows | None:
    """Return the rows of a file that is too large for memory; None for others, and for what is no such file."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = BytesIO(file.read(HEADER_LIMIT + 12))
    except OSError as error:
        raise unreadable(path, error) from None
    check_header(str(path), head, size, "save")
    start = head.tell()
    head.seek(0)
    shape, dtype, by_columns = read_header(str(path), head, "save")
    rows = large_rows(path, start, shape, dtype)
    if rows is None:
        return None
    if by_columns or not dtype.isnative or dtype.name not in PIXELS:
        said = "in Fortran order" if by_columns else f"{dtype.str}"
        raise DataError(
            f"{path}: is too large for memory and {said}; store {', '.join(PIXELS[:2])} or {PIXELS[2]} in C order, as "
            "with numpy.ascontiguousarray"
        )
    return rows
