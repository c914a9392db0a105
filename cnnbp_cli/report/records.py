"""Reports for programs: JSON, JSON Lines and CSV on standard output."""

from __future__ import annotations

import csv
import json
import math
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def finite(value: Any) -> Any:
    """Return plain values with null in place of what JSON has no word for: NaN and infinity."""
    if isinstance(value, Mapping):
        return {str(key): finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(document: Any) -> None:
    """Write one document: a key on each line, and an item on each line of lists that hold more than scalars."""
    print(_pretty(finite(document)))


def _pretty(value: Any) -> str:
    if isinstance(value, dict) and value:
        items = [f"{json.dumps(key)}: {_pretty(part)}" for key, part in value.items()]
        opening, closing = "{", "}"
    elif isinstance(value, list) and any(isinstance(part, dict | list) for part in value):
        items = [json.dumps(part, allow_nan=False) for part in value]
        opening, closing = "[", "]"
    else:
        return json.dumps(value, allow_nan=False)
    return "\n".join([opening, textwrap.indent(",\n".join(items), "  "), closing])


def write_json_line(record: Any) -> None:
    """Write one line of a stream, at once."""
    print(json.dumps(finite(record), allow_nan=False), flush=True)


def write_csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a header and rows."""
    write_csv_row(header)
    for row in rows:
        write_csv_row(row)


def write_csv_row(cells: Sequence[Any]) -> None:
    """Write one row at once; None is an empty field, and lists are written like ``6x28x28``."""
    texts = ["x".join(map(str, cell)) if isinstance(cell, list | tuple) else cell for cell in cells]
    csv.writer(sys.stdout, lineterminator="\n").writerow(texts)
    sys.stdout.flush()
