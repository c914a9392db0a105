"""Comma-separated samples, label first: the form in which spreadsheets and Kaggle hand MNIST around."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from math import prod
from pathlib import Path
from typing import TextIO

import numpy as np

from cnnbp_cli.core.types import Shape, show
from cnnbp_cli.data.errors import DataError, require_file, unreadable
from cnnbp_cli.data.split import Split

_WHOLE_NUMBER = re.compile(r"[ \t]*[+-]?[0-9]+[ \t]*")


def read_csv(path: Path, input_shape: Shape, key: str) -> Split:
    """Read one split: a line per sample, the label, then the pixels from 0 to 255, channel by channel.

    A first line whose first field is not a number is a header. Empty lines are skipped.

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
            header, ascii_only = _header_lines(_checked_lines(path, file, pixels))
            if header is None:
                raise DataError(f"{path}: has no samples; expected lines of a label and {pixels:,} pixels")
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


def _header_lines(lines: Iterable[str]) -> tuple[int | None, bool]:
    """Return how many lines come before the first sample, None when there is none, and whether the rest is ASCII."""
    header_seen, first, ascii_only = False, None, True
    for number, line in enumerate(lines):
        if first is None and line != "\n":
            if header_seen or _WHOLE_NUMBER.fullmatch(line.split(",", 1)[0]):
                first = number
            header_seen = True
        ascii_only &= first is None or line.isascii()
    return first, ascii_only


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
        if len(fields) != columns:
            return (
                f"line {number} has {len(fields):,} fields, expected {columns:,}: a label and the pixels of "
                f"`model.input: {show(input_shape)}`; fix the line or model.input"
            )
        for column, field in enumerate(fields, 1):
            what = "label" if column == 1 else "pixel"
            if not _WHOLE_NUMBER.fullmatch(field):
                return f"line {number}, field {column}: the {what} is {field[:20]!r}, expected a whole number"
            if column == 1 and not 0 <= float(field) < 1 << 63:
                return f"line {number}: the label is {field[:20]}, expected a class number; classes start at 0"
            if column > 1 and not 0 <= float(field) <= 255:
                return f"line {number}, field {column}: the pixel is {field[:20]}, expected 0 to 255"
    return "is not a table of whole numbers; expected lines of a label and pixels, separated by commas"
