"""`cnnbp summary`: a network layer by layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from cnnbp_cli.core.types import show_shape
from cnnbp_cli.report.records import write_csv, write_json
from cnnbp_cli.report.text import count
from cnnbp_cli.text import show_bytes

if TYPE_CHECKING:
    from cnnbp_cli.analysis.summary import Kernel, Summary

FIELDS = (
    *("name", "type", "inputs", "input_shape", "output_shape", "kernel", "stride", "dilation"),
    *("parameters", "trainable_parameters", "macs", "receptive_field", "activation_bytes", "gradient_bytes"),
)


def render(summary: Summary, format: str) -> None:
    """Write a summary to standard output."""
    if format == "json":
        write_json(summary.to_dict())
    elif format == "csv":
        write_csv(FIELDS, _records(summary))
    else:
        _table(summary)


def _records(summary: Summary) -> Iterator[list[object]]:
    for layer in summary.layers:
        windows = layer.kernel
        values: dict[str, object] = {name: getattr(layer, name, None) for name in FIELDS}
        values["inputs"] = " ".join(layer.inputs)
        if windows:
            values |= {"kernel": windows.size, "stride": windows.stride, "dilation": windows.dilation}
        yield list(values.values())


def _table(summary: Summary) -> None:
    from cnnbp_cli.report.table import Column, line, show

    columns = [
        Column("layer", text=True),
        Column("type", text=True, leaves=7),
        Column("output", text=True, leaves=1),
        Column("kernel", text=True, leaves=4),
        Column("parameters", leaves=1),
        Column("MACs", leaves=2),
        Column("receptive\nfield", leaves=3),
        Column("activation\nmemory", leaves=5),
        Column("gradient\nmemory", leaves=6),
    ]
    rows = [
        [
            layer.name,
            layer.type,
            show_shape(layer.output_shape),
            _windows(layer.kernel),
            count(layer.parameters),
            count(layer.macs),
            show_shape(layer.receptive_field),
            show_bytes(layer.activation_bytes),
            show_bytes(layer.gradient_bytes) if layer.gradient_bytes else "",
        ]
        for layer in summary.layers
    ]
    total = ["total", "", "", "", count(summary.total_parameters), count(summary.total_macs), ""]
    total += [show_bytes(summary.total_activation_bytes), show_bytes(summary.total_gradient_bytes)]
    line(f"{summary.name}: input {show_shape(summary.input_shape)}, {summary.dtype}", "bold")
    show(columns, rows, total)
    fixed = summary.total_parameters - summary.trainable_parameters
    batch = summary.batch_size
    line(count(summary.trainable_parameters, "trainable parameter") + (f", {count(fixed)} others" if fixed else ""))
    together = show_bytes(batch * summary.total_activation_bytes)
    line(f"memory: activations of one image ({together} for a batch of {batch}), gradients of the parameters")


def _windows(kernel: Kernel | None) -> str:
    """Write a kernel's size, and its stride and dilation where they are not 1: ``3×3 s2 d2``."""
    if kernel is None:
        return ""
    words = [show_shape(kernel.size)]
    for letter, pair in (("s", kernel.stride), ("d", kernel.dilation)):
        if pair != (1, 1):
            words.append(letter + (str(pair[0]) if pair[0] == pair[1] else show_shape(pair)))
    return " ".join(words)
