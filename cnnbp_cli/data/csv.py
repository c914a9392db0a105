"""Comma-separated samples, label first: the form in which spreadsheets and Kaggle hand MNIST around."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from math import prod
from pathlib import Path
from typing import TextIO

import numpy as np

from cnnbp_cli.core.types import Shape, show
from cnnbp_cli.data.errors import DataError, require_file, unreadable
from cnnbp_cli.data.split import Split

LABEL_NAMES = {"label", "labels", "class", "target", "y", "digit", "category", "species", "diagnosis", "outcome"}
"""What headers call the column of the label."""

_NUMBER = re.compile(r"[ \t]*[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?[ \t]*([;\t ].*)?", re.DOTALL)
_WHOLE_NUMBER = re.compile(r"[ \t]*[+-]?[0-9]+[ \t]*")


def read_csv(path: Path, input_shape: Shape, key: str) -> Split:
    """Read one split: a line per sample, the label, then the pixels from 0 to 255, channel by channel.

    A first line whose first field is not a number is a header; it may not name another column the label. Empty lines
    are skipped.

    Parameters
    ----------
    path : Path
    input_shape : tuple of int
        (channels, height, width): says how many pixels a line has.
    key : str
        The config's key that names the file, for messages.

    Raises
    ------
    DataError
        Names the first line that is wrong.
    """
    require_file(path, key)
    pixels = prod(input_shape)
    row = np.dtype([("label", np.int64), ("pixels", np.uint8, (pixels,))])
    try:
        with path.open(encoding="utf-8-sig") as file:
            header, names, ascii_only = _header_lines(_checked_lines(path, file, pixels))
            if header is None:
                raise DataError(f"{path}: has no samples; expected lines of a label and {pixels:,} pixels")
            if (other := _other_label(names)) is not None:
                raise DataError(
                    f"{path}: the header calls field {other + 1} {names[other]!r}, but the label has to be the first "
                    f"field, which is {names[0]!r}; move that column to the front"
                )
            file.seek(0)
            try:
                if not ascii_only:  # NumPy looks characters up in a table of 256, whatever they are
                    raise ValueError
                rows = np.loadtxt(file, row, delimiter=",", comments=None, skiprows=header, ndmin=1)
                faulty = bool((rows["label"] < 0).any())
            except ValueError as error:
                if isinstance(error, UnicodeDecodeError):
                    raise
                faulty, rows = True, np.empty(0, row)
            if faulty:
                file.seek(0)
                raise DataError(f"{path}: {_first_fault(file, header, input_shape)}")
    except UnicodeDecodeError:
        raise DataError(f"{path}: is not a text file; expected comma-separated numbers, not packed") from None
    except OSError as error:
        raise unreadable(path, error) from None
    return Split(np.ascontiguousarray(rows["pixels"]).reshape(-1, *input_shape), rows["label"].copy())


def _header_lines(lines: Iterable[str]) -> tuple[int | None, list[str], bool]:
    """Return how many lines come before the first sample, the header's fields, and whether the rest is ASCII.

    The first is None when there is no sample.
    """
    names, first, ascii_only = list[str](), None, True
    for number, line in enumerate(lines):
        if first is None and line != "\n":
            if names or _NUMBER.fullmatch(line.split(",", 1)[0]):
                first = number
            else:
                names = [name.strip(" \t\n\"'") for name in line.split(",")]
        ascii_only &= first is None or line.isascii()
    return first, names, ascii_only


def _other_label(names: Sequence[str]) -> int | None:
    """Return the first field of a header that calls itself the label, unless the first one of all does."""
    found = [index for index, name in enumerate(names) if name.lower() in LABEL_NAMES]
    return found[0] if found and found[0] else None


def _checked_lines(path: Path, file: TextIO, pixels: int) -> Iterator[str]:
    """Yield the lines, none of which may be much longer than its numbers: it would be read as a whole."""
    longest = max(1 << 20, 64 * (pixels + 1))
    number = 0
    while line := file.readline(longest + 1):
        number += 1
        if len(line) > longest:
            raise DataError(
                f"{path}: line {number} has more than {longest:,} characters, expected a label and {pixels:,} pixels"
            )
        yield line


def _first_fault(lines: Iterable[str], header: int, input_shape: Shape) -> str:
    """Look for the first line that is wrong, one by one: slow, but only a broken file comes here."""
    columns = 1 + prod(input_shape)
    for number, line in enumerate(lines, 1):
        fields = line.rstrip("\n").split(",")
        if number <= header or fields == [""]:
            continue
        if len(fields) == 1 and columns > 1 and (separator := next((s for s in ";\t|" if s in line), None)):
            return f"line {number} is separated by {separator!r}; write commas"
        if len(fields) != columns:
            remedy = "is the label missing?" if len(fields) == columns - 1 else "fix the line or model.input"
            return (
                f"line {number} has {len(fields):,} fields, expected {columns:,}: a label and the pixels of "
                f"`model.input: {show(input_shape)}`; {remedy}"
            )
        for column, field in enumerate(fields, 1):
            what = "label" if column == 1 else "pixel"
            if not _WHOLE_NUMBER.fullmatch(field):
                expected = f"expected a whole number{_advice(field)}"
                return f"line {number}, field {column}: the {what} is {field[:20]!r}, {expected}"
            if column == 1 and not 0 <= float(field) < 1 << 63:
                return f"line {number}: the label is {field[:20]}, expected a class number; classes start at 0"
            if column > 1 and not 0 <= float(field) <= 255:
                return f"line {number}, field {column}: the pixel is {field[:20]}, expected 0 to 255"
    return "is not a table of whole numbers; expected lines of a label and pixels, separated by commas"


def _advice(field: str) -> str:
    """Return how to write a number that is not whole, if it is one."""
    try:
        value = float(field.encode("ascii"))
    except ValueError:  # UnicodeEncodeError is one
        return ""
    if value.is_integer():
        return f"; write {value:.0f}"
    return "; pixels are 0 to 255: multiply them by 255 and round" if 0 < value < 1 else ""
