"""Tables with a line for each sample: the form in which spreadsheets, Kaggle and UCI hand images around."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import prod
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

from cnnbp_cli.core.types import Array, Shape, show
from cnnbp_cli.data.errors import DataError, require_file, unreadable
from cnnbp_cli.data.labels import NUMBER, listed
from cnnbp_cli.data.source import Source
from cnnbp_cli.data.split import Split

LABEL_NAMES = {"label", "labels", "class", "target", "y", "digit", "category", "species", "diagnosis", "outcome"}
"""What headers call the column of the label."""

SEPARATORS = ",;\t| "

LONGEST_LABEL = 200  # characters: all labels take as much memory as the longest

_ORDINALS = 8  # columns from which on a line of 0, 1, 2, … is a header: what pandas writes where nobody named them


class Layout(NamedTuple):
    """How the lines of a table are to be read.

    Attributes
    ----------
    start : int
        Lines before the first sample.
    names : list of str
        The header's fields; none without a header.
    delimiter : str
    columns : int
        Fields of a line.
    label : int or None
        The column of the label, from 0; None where there is none.
    ascii_only : bool
        Whether the samples are.
    """

    start: int
    names: list[str]
    delimiter: str
    columns: int
    label: int | None
    ascii_only: bool

    def fields(self, line: str) -> list[str]:
        """Split a line."""
        text = line.rstrip("\n")
        if self.delimiter == " ":
            return text.split()
        if '"' not in text:
            return text.split(self.delimiter)
        import csv

        return next(csv.reader([text], delimiter=self.delimiter), [""])


class Table(NamedTuple):
    """What a table holds.

    Attributes
    ----------
    images : Array, shape (N, C, H, W)
        Bytes, or floats where the pixels are none.
    labels : Array of str, shape (N,), or None
    remarks : list of str
    ids : Array of str, shape (N,), or None
        What the samples are called, where that was asked for and is there, in the place of labels.
    """

    images: Array
    labels: Array | None
    remarks: list[str]
    ids: Array | None = None


def read_tables(path: Path, test_path: Path | None, input_shape: Shape, label: int | str, delimiter: str) -> Source:
    """Read a table of training images and, where there is one, a table of test images; see `read_table`."""
    remarks = list[str]()

    def split(path: Path, key: str) -> Split:
        table = read_table(path, input_shape, key, label, delimiter)
        if table.labels is None:
            raise DataError(f"{path}: `data.label: none` leaves nothing to learn or to test; name the label's column")
        remarks.extend(table.remarks)
        return Split(table.images, table.labels)

    train = split(path, "data.path")
    test = split(test_path, "data.test_path") if test_path else None
    if test and test.images.dtype != train.images.dtype:  # as in the other, which happens to have no fraction
        train, test = (Split(np.asarray(part.images, np.float32), part.labels) for part in (train, test))
    labels_at = {"train": str(path), "test": str(test_path)}
    return Source(f"csv {path}", train, test=test, labels_at=labels_at, remarks=tuple(dict.fromkeys(remarks)))


def read_table(
    path: Path,
    input_shape: Shape,
    key: str,
    label: int | str = "auto",
    delimiter: str = "auto",
    *,
    may_lack_labels: bool = False,
    ids: str | None = None,
) -> Table:
    """Read one table: a line per sample, the label and the pixels, channel by channel.

    A first line without numbers is a header, and so is one that counts its fields. Empty lines are skipped. Pixels
    from 0 to 255 that are whole become bytes, all others float32.

    Parameters
    ----------
    path : Path
    input_shape : tuple of int
        (channels, height, width): says how many pixels a line has.
    key : str
        The config's key that names the file, for messages.
    label, delimiter
        See `config.schema.Csv`.
    may_lack_labels : bool
        Whether lines may consist of pixels alone, in spite of `label`.
    ids : str, optional
        What the header may call a column that names the samples.

    Raises
    ------
    DataError
        Names the first line that is wrong.
    """
    require_file(path, key)
    pixels = prod(input_shape)
    try:
        with path.open(encoding="utf-8-sig") as file:
            layout = _layout(path, file, pixels, label, delimiter, may_lack_labels=may_lack_labels, ids=ids)
            labels = dict[str, int]()
            for dtype in (np.uint8, np.float32):
                labels.clear()
                file.seek(0)
                rows = _rows(file, layout, pixels, dtype, labels)
                if rows is not None:
                    break
            odd = "" in labels or any(len(text) > LONGEST_LABEL for text in labels)
            if rows is None or odd or not np.isfinite(rows["pixels"]).all():
                file.seek(0)
                raise DataError(f"{path}: {_first_fault(file, layout, input_shape)}")
    except UnicodeDecodeError:
        raise DataError(f"{path}: is not a text file; expected comma-separated numbers, not packed") from None
    except OSError as error:
        raise unreadable(path, error) from None
    images = np.ascontiguousarray(rows["pixels"]).reshape(-1, *input_shape)
    texts = None if layout.label is None else np.array(list(labels))[rows["label"]]
    if layout.label is not None and ids is not None and layout.names[layout.label : layout.label + 1] == [ids]:
        return Table(images, None, [], texts)
    remarks = [f"csv {path}: {remark}" for remark in _remarks(layout, label)]
    return Table(images, texts, remarks)


def _rows(file: TextIO, layout: Layout, pixels: int, dtype: type, labels: dict[str, int]) -> Array | None:
    """Return label numbers and pixels, and fill in which text has which number; None where a line is wrong."""
    at = layout.label
    fields: list[tuple[str, type, tuple[int, ...]]] = [("pixels", dtype, (pixels,))]
    converters: dict[int | str, Callable[[str], int]] | None = None
    if at is not None:
        parts = [("before", dtype, (at,)), ("label", np.int64, ()), ("after", dtype, (pixels - at,))]
        fields = [part for part in parts if part[2] != (0,)]
        converters = {at: lambda text: labels.setdefault(text.strip(" \t\"'"), len(labels))}
    if not layout.ascii_only and not _ascii_pixels(file, layout):
        return None  # NumPy looks characters up in a table of 256, whatever they are
    try:
        rows = np.loadtxt(
            file,
            dtype=np.dtype(fields),
            delimiter=None if layout.delimiter == " " else layout.delimiter,
            comments=None,
            quotechar='"',
            skiprows=layout.start,
            converters=converters,
            encoding="utf-8",
            ndmin=1,
        )
    except ValueError as error:
        if isinstance(error, UnicodeDecodeError):
            raise
        return None
    if at is None:
        return rows
    whole = np.empty(len(rows), [("label", np.int64), ("pixels", dtype, (pixels,))])
    whole["label"] = rows["label"]
    for name, place in (("before", np.s_[:, :at]), ("after", np.s_[:, at:])):
        if name in (rows.dtype.names or ()):
            whole["pixels"][place] = rows[name]
    return whole


def _ascii_pixels(file: TextIO, layout: Layout) -> bool:
    """Return whether at most the labels have characters beyond ASCII, and go back to the start."""
    fine = True
    for number, line in enumerate(file):
        if number >= layout.start and not line.isascii():
            others = [field for column, field in enumerate(layout.fields(line)) if column != layout.label]
            fine &= all(field.isascii() for field in others)
    file.seek(0)
    return fine


# ---------------------------------------------------------------------- header, separator, label


def _layout(
    path: Path,
    file: TextIO,
    pixels: int,
    label: int | str,
    delimiter: str,
    *,
    may_lack_labels: bool,
    ids: str | None,
) -> Layout:
    """Look at the lines as far as their form goes."""
    header, start, first, ascii_only = "", None, "", True
    for number, line in enumerate(_checked_lines(path, file, pixels)):
        if start is None and line.strip() and (header or not _is_header(line, delimiter)):
            start, first = number, line
        elif start is None and line.strip():
            header = line
        ascii_only &= start is None or line.isascii()
    if start is None:
        raise DataError(f"{path}: has no samples; expected lines of a label and {pixels:,} pixels")
    if delimiter == "auto":
        delimiter = _separator(first, pixels)
    layout = Layout(start, [], delimiter, 0, None, ascii_only)
    names = [name.strip(" \t\n\"'") for name in layout.fields(header)] if header else []
    columns = len(layout.fields(first))
    lacks_labels = label == "none" or (may_lack_labels and columns == pixels)
    at = None if lacks_labels else _label_column(path, names, ids if ids in names else label, pixels)
    return layout._replace(names=names, columns=pixels + (at is not None), label=at)


def _is_header(line: str, delimiter: str) -> bool:
    """Return whether a line has no numbers but perhaps one, or those that count its fields."""
    separators = SEPARATORS if delimiter == "auto" else delimiter
    fields = re.split(f"[{re.escape(separators)}]", line.strip())
    numbers = [field for part in fields if (field := part.strip(" \t\"'")) and NUMBER.fullmatch(field)]
    if len(fields) >= _ORDINALS and numbers == [str(k) for k in range(len(fields))]:
        return True
    return not numbers or (len(fields) > 2 and len(numbers) == 1 and not NUMBER.fullmatch(fields[-1].strip()))


def _separator(line: str, pixels: int) -> str:
    """Return what separates the fields of a sample: what gives the right number of them, else what is there most."""
    counts = {mark: len(line.split()) if mark == " " else line.count(mark) + 1 for mark in SEPARATORS}
    right = [mark for mark, count in counts.items() if count in (pixels + 1, pixels)]
    return right[0] if right else max(counts, key=lambda mark: (counts[mark], mark == ","))


def _label_column(path: Path, names: Sequence[str], label: int | str, pixels: int) -> int:
    """Return the column of the label, from 0."""
    last = pixels  # the fields are counted later, where the line can be named
    if label == "first":
        return 0
    if label == "last":
        return last
    if isinstance(label, int):
        at = label + pixels + 1 if label < 0 else label
        if not 0 <= at <= last:
            raise DataError(f"{path}: has no column {label}; `data.label` counts from 0 to {last}, or from -1 back")
        return at
    if label == "auto":
        called = _called_label(names)
        if len(called) > 1:
            words = " and ".join(f"{names[k]!r} (field {k + 1})" for k in called[:3])
            raise DataError(
                f"{path}: the header has {words}, which may all be the label; write `data.label: {names[called[0]]}`"
            )
        return called[0] if called else 0
    if not names:
        raise DataError(
            f"{path}: has no header, so that no column is called {label!r}; `data.label` may be first, last or an index"
        )
    if label not in names:
        raise DataError(f"{path}: the header has no column {label!r}, which `data.label` names; it has {listed(names)}")
    return names.index(label)


def _called_label(names: Sequence[str]) -> list[int]:
    return [index for index, name in enumerate(names) if name.lower() in LABEL_NAMES]


def _remarks(layout: Layout, label: int | str) -> Iterator[str]:
    """Yield what to know about the choice of the label's column."""
    names, at = layout.names, layout.label
    if at is None or at >= len(names):
        return
    others = [k for k in _called_label(names) if k != at]
    if label == "auto" and at:
        yield f"the label is {names[at]!r}, field {at + 1}, as the header says"
    elif label != names[at] and others and names[at].lower() not in LABEL_NAMES:
        yield (
            f"the label is read from field {at + 1}, {names[at]!r}, but the header calls field {others[0] + 1} "
            f"{names[others[0]]!r}; `data.label: {names[others[0]]}` reads that one"
        )


# ---------------------------------------------------------------------- faults


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


def _first_fault(lines: Iterable[str], layout: Layout, input_shape: Shape) -> str:
    """Look for the first line that is wrong, one by one: slow, but only a broken file comes here."""
    pixels = prod(input_shape)
    what = "a label and the pixels" if layout.label is not None else "the pixels"
    for number, line in enumerate(lines, 1):
        if number <= layout.start or not line.strip():
            continue
        fields = layout.fields(line)
        if len(fields) == 1 < layout.columns and (mark := next((s for s in ";\t|," if s in line), None)):
            return (
                f"line {number} is separated by {mark!r}, not by {layout.delimiter!r}; write `data.delimiter: {mark!r}`"
            )
        if len(fields) != layout.columns:
            remedy = "fix the line or model.input"
            if len(fields) == pixels and layout.label is not None:
                remedy = "is the label missing? tables without labels are for `cnnbp predict`"
            elif len(fields) == pixels + 1:
                remedy = "is one of them a label? `data.label` says which"
            return (
                f"line {number} has {len(fields):,} fields, expected {layout.columns:,}: {what} of "
                f"`model.input: {show(input_shape)}`; {remedy}"
            )
        for column, field in enumerate(fields):
            text = field.strip(" \t\"'")
            if column == layout.label and not 0 < len(text) <= LONGEST_LABEL:
                wrong = f"has more than {LONGEST_LABEL} characters" if text else "is missing"
                return f"line {number}, field {column + 1}: the label {wrong}"
            if column != layout.label and not (NUMBER.fullmatch(text) and abs(float(text)) < 1e38):
                comma = "; write decimals with a point" if re.fullmatch(r"-?\d+,\d+", text) else ""
                return f"line {number}, field {column + 1}: the pixel is {field[:20]!r}, expected a number{comma}"
    return "is not a table of numbers; expected lines of a label and pixels, separated by commas"
