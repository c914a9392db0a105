"""A large network's trace: a row for each layer, small pictures, and one cell of each under the microscope."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.text import Text

from cnnbp_cli.core.graph import INPUT
from cnnbp_cli.core.types import Array, show_shape
from cnnbp_cli.report.preview import preview
from cnnbp_cli.report.table import Cell as Entry
from cnnbp_cli.report.table import Column, show
from cnnbp_cli.report.terminal import console
from cnnbp_cli.report.trace.lines import GRADIENTS, VALUES, write
from cnnbp_cli.report.trace.numerals import Numerals
from cnnbp_cli.report.trace.one_cell import show_cell
from cnnbp_cli.report.trace.whole import SWAPPED, is_kernel, largest
from cnnbp_cli.tracing.cells import Cell
from cnnbp_cli.tracing.trace import Trace

FEW_TERMS = 3
"""Of each cell under the microscope."""
PICTURE = 14
"""Columns of a small picture."""


def show_rows(trace: Trace, names: Sequence[str], top: int | None, numerals: Numerals) -> None:
    """Write a row for each of the named outputs, then the cell of each with the largest gradient, and of its weight."""
    write()
    columns = [
        Column("layer", text=True),
        Column("output", text=True, leaves=4),
        Column("L2 norm of\nthe values", leaves=1),
        Column("L2 norm of\nthe gradient", leaves=1),
        Column("units\nopen", leaves=3),
        Column("cell with the\nlargest gradient", leaves=2, text=True),
    ]
    rows: list[list[Entry]] = []
    for name in names:
        flow, output = trace.array(name, "gradient"), trace.array(name)
        place = ",".join(map(str, largest(flow)))
        rows.append(
            [
                name,
                show_shape(trace.shapes[name]),
                (_norm(output, numerals), VALUES),
                (_norm(flow, numerals), GRADIENTS),
                _share_open(trace, name),
                f"[{place}]" if flow.any() else "",
            ]
        )
    show(columns, rows)
    if console().color_system is not None:
        _pictures(trace, names)
    write()
    write("Under the microscope, from the loss to the image: the largest gradients", "bold")
    few = FEW_TERMS if top is None else min(top, FEW_TERMS)
    tensors = [tensor for name in reversed(names) for tensor in (name, f"{name}.weight")]
    tensors = [tensor for tensor in tensors if tensor in names or trace.is_learned(tensor)]
    kernel = next((tensor for tensor in tensors if is_kernel(trace, tensor)), None)
    for tensor in tensors:
        write()
        cell = Cell(tensor, largest(trace.array(tensor, "gradient")))
        show_cell(trace, cell, "gradient", few, numerals, alone=False)
        if tensor == kernel:
            write(SWAPPED, "dim", 1)


def _norm(array: Array, numerals: Numerals) -> str:
    return f"{float(np.linalg.norm(array.astype(float))):#.{numerals.digits}g}"


def _share_open(trace: Trace, name: str) -> str:
    gates = None if name == INPUT else trace.decisions(name)[1]
    return "" if gates is None else f"{float(np.mean(gates)):.1%}"


def _pictures(trace: Trace, names: Sequence[str]) -> None:
    """Draw the channel with the largest gradient of each image, its values beside the gradient's magnitudes."""
    out, drawn = console(), list[tuple[str, list[Text]]]()
    for name in names:
        if len(trace.shapes[name]) == 3 and min(trace.shapes[name][1:]) > 1:
            flow = trace.array(name, "gradient")
            channel = int(np.abs(np.nan_to_num(flow)).sum((1, 2)).argmax())
            left = preview(trace.array(name)[channel : channel + 1], PICTURE)
            right = preview(np.abs(flow[channel : channel + 1]), PICTURE)
            drawn.append((f"{name}[{channel}]", [a + Text("  ") + b for a, b in zip(left, right, strict=True)]))
    if not drawn:
        return
    write()
    write("values and magnitudes of the gradient, in the channel with the most gradient", "dim")
    wide = max(max(len(title), *map(len, lines)) for title, lines in drawn)
    beside = max(1, (out.width + 4) // (wide + 4))
    for start in range(0, len(drawn), beside):
        some = drawn[start : start + beside]
        if start:
            write()
        out.print(Text("    ".join(title.ljust(wide) for title, _ in some).rstrip(), "dim"))
        for k in range(max(len(lines) for _, lines in some)):
            row = Text()
            for place, (_, lines) in enumerate(some):
                part = lines[k] if k < len(lines) else Text()
                row.append(" " * 4 * bool(place)).append_text(part).append(" " * (wide - len(part)))
            row.rstrip()
            out.print(row)
