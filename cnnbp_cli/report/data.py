"""`cnnbp data`: the splits of a data set, how a download goes, and how a config names what it brought."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Self

from cnnbp_cli.core.types import show_shape
from cnnbp_cli.report.live import EVERY, PATIENCE, Line, is_live
from cnnbp_cli.report.records import write_csv, write_json
from cnnbp_cli.report.terminal import note, plain, width
from cnnbp_cli.report.text import count, duration
from cnnbp_cli.text import show_bytes

if TYPE_CHECKING:
    from cnnbp_cli.data.download import Event, Ready, Receiving
    from cnnbp_cli.data.fetch import PublishedSet
    from cnnbp_cli.data.info import DataInfo
    from cnnbp_cli.data.repacked import RepackedSet


def render(info: DataInfo, format: str) -> None:
    """Write what a data set holds to standard output."""
    if format == "json":
        write_json(info.to_dict())
    elif format == "csv":
        _csv(info)
    else:
        _tables(info)


def _csv(info: DataInfo) -> None:
    """Write a row for each split; numbers of several channels stand in one field, with spaces between them."""
    labels = _labels(info)
    header = ("split", "count", "dtype", "minimum", "maximum", "mean", "std", "bytes")
    rows: list[list[object]] = []
    for split in info.splits:
        row: list[object] = [split.name, split.count, split.dtype, split.minimum, split.maximum]
        row += [" ".join(map(str, split.mean)), " ".join(map(str, split.std)), split.bytes]
        rows.append([*row, *((split.per_class or {}).get(label, 0) for label in labels)])
    write_csv([*header, *(f"class_{info.class_name(label)}" for label in labels)], rows)


def _tables(info: DataInfo) -> None:
    from cnnbp_cli.report.table import Column, line, show

    classes = f", {count(info.classes)} classes" if info.classes else ""
    line(f"{info.name}: images {show_shape(info.shape)}{classes}", "bold")
    columns = [
        Column("split", text=True),
        Column("images", leaves=1),
        Column("dtype", text=True, leaves=4),
        Column("smallest", leaves=5),
        Column("largest", leaves=6),
        Column("mean", leaves=2),
        Column("std", leaves=3),
        Column("memory", leaves=7),
    ]
    rows = [
        [
            split.name,
            count(split.count),
            split.dtype,
            f"{split.minimum:g}",
            f"{split.maximum:g}",
            _numbers(split.mean),
            _numbers(split.std),
            show_bytes(split.bytes),
        ]
        for split in info.splits
    ]
    show(columns, rows)
    labels = _labels(info)
    if labels:
        line()
        columns = [
            Column("class", text=info.class_names is not None),
            *(Column(split.name, leaves=k) for k, split in enumerate(info.splits, start=1)),
        ]
        show(
            columns,
            [
                [info.class_name(label), *(count((split.per_class or {}).get(label, 0)) for split in info.splits)]
                for label in labels
            ],
        )
    line()
    norm = info.normalization
    line(
        f"normalize {norm.kind}: (x - {_numbers(norm.mean)}) / {_numbers(norm.std)}; {show_bytes(info.bytes)} in memory"
    )


def _labels(info: DataInfo) -> list[int]:
    return sorted({label for split in info.splits for label in split.per_class or {}})


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


class FetchProgress:
    """How a download goes, on standard error: a bar on a terminal, and a line for each file."""

    def __init__(self) -> None:
        self._line: Line | None = Line() if is_live() else None
        self._name = ""
        self._started = self._due = 0.0
        self._first = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._line:
            self._line.erase()

    def __call__(self, event: Event) -> Ready | None:
        """Show an event; return the file that is ready, if it says so."""
        from cnnbp_cli.data.download import Ready, Receiving, Retrying

        if isinstance(event, Ready):
            came = "fetched" if event.fetched else "already there"
            self._note(f"{event.path}: {came}, {show_bytes(event.bytes)}, verified by {event.verified}")
            return event
        if isinstance(event, Retrying):
            self._note(f"{event.problem}; trying again")
        elif isinstance(event, Receiving):
            self._receiving(event)
        return None

    def _receiving(self, event: Receiving) -> None:
        now = perf_counter()
        if event.name != self._name:
            self._name, self._first = event.name, event.received
            self._started, self._due = now, now + PATIENCE
            if self._line is None:
                here = f", {show_bytes(event.received)} of it are here" if event.received else ""
                note(f"{event.name}: {show_bytes(event.total) if event.total is not None else 'of unknown size'}{here}")
        if self._line and now >= self._due:
            self._due = now + EVERY
            self._line.draw(*received(event, event.received - self._first, now - self._started))

    def _note(self, text: str) -> None:
        if self._line:
            self._line.erase()
        note(text)


def received(event: Receiving, now: int, seconds: float) -> tuple[str, float | None]:
    """Return what the line says of a file of which `now` bytes came in so many seconds, and the share that is here."""
    if event.total is None:
        return f"{event.name}  {show_bytes(event.received)}  {duration(seconds)}", None
    left = f"  {duration(seconds * (event.total - event.received) / now)} left" if now else ""
    share = event.received / event.total if event.total else 1.0
    return f"{event.name}  {show_bytes(event.received)} of {show_bytes(event.total)}{left}", share


def render_converted(counts: dict[str, int], section: dict[str, Any], format: str) -> None:
    """Write what was converted to standard output: for people, the lines of a config that use it."""
    if format == "table":
        _config_lines(", ".join(f"{count(number)} {name}" for name, number in counts.items()), section)
    elif format == "csv":
        write_csv(["path", *counts], [[section["path"], *counts.values()]])
    else:
        write_json({"data": section, "counts": counts})


def render_fetched(source: PublishedSet | RepackedSet, folder: Path, files: Sequence[Ready], format: str) -> None:
    """Write what was fetched to standard output: for people, the lines of a config that use it."""
    data = source.section(folder)
    if format == "table":
        _config_lines(f"{show_shape(source.input)} images of {source.classes} classes", data)
        return
    records = [
        {"path": str(file.path), "bytes": file.bytes, "fetched": file.fetched, "verified": file.verified}
        for file in files
    ]
    if format == "csv":
        write_csv(list(records[0]), [list(record.values()) for record in records])
    else:
        document = {"name": source.name, "input": list(source.input), "classes": source.classes, "data": data}
        write_json({**document, "files": records})


def _config_lines(images: str, section: dict[str, Any]) -> None:
    """Write a `data` section, below comments that say what it has."""
    import textwrap

    import yaml

    remark = plain(f"{images}; the path is relative to the config's folder", sys.stdout)
    for part in textwrap.wrap(remark, max(width(), 20) - 2):
        print(f"# {part}")
    print(yaml.safe_dump({"data": section}, sort_keys=False, allow_unicode=True, width=110), end="")
