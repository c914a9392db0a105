"""`cnnbp data info`: the splits of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cnnbp_cli.report.records import write_csv, write_json
from cnnbp_cli.report.text import count, memory, shape

if TYPE_CHECKING:
    from cnnbp_cli.data.info import DataInfo


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
    write_csv([*header, *(f"class_{label}" for label in labels)], rows)


def _tables(info: DataInfo) -> None:
    from cnnbp_cli.report.table import Column, line, show

    classes = f", {count(info.classes)} classes" if info.classes else ""
    line(f"{info.name}: images {shape(info.shape)}{classes}", "bold")
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
            memory(split.bytes),
        ]
        for split in info.splits
    ]
    show(columns, rows)
    labels = _labels(info)
    if labels:
        line()
        columns = [Column("class"), *(Column(split.name, leaves=k) for k, split in enumerate(info.splits, start=1))]
        show(
            columns,
            [
                [str(label), *(count((split.per_class or {}).get(label, 0)) for split in info.splits)]
                for label in labels
            ],
        )
    line()
    norm = info.normalization
    line(f"normalize {norm.kind}: (x - {_numbers(norm.mean)}) / {_numbers(norm.std)}; {memory(info.bytes)} in memory")


def _labels(info: DataInfo) -> list[int]:
    return sorted({label for split in info.splits for label in split.per_class or {}})


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
