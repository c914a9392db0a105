"""`cnnbp summary`: a network layer by layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from cnnbp_cli.core.types import show_shape
from cnnbp_cli.report.markup import Sheet, sheet
from cnnbp_cli.report.records import write_csv, write_json
from cnnbp_cli.report.table import Cell, Column
from cnnbp_cli.report.text import count
from cnnbp_cli.text import show_bytes

if TYPE_CHECKING:
    from cnnbp_cli.analysis.summary import Kernel, LayerSummary, Summary

Contents = tuple[list[Column], list[list[Cell]], list[Cell]]
"""The columns of a table, its rows, and its last row."""

FIELDS = (
    *("name", "type", "inputs", "input_shape", "output_shape", "kernel", "stride", "dilation"),
    *("parameters", "trainable_parameters", "macs", "receptive_field", "activation_bytes", "gradient_bytes"),
    "shares",
)


def render(summary: Summary, format: str, *, memory: bool = False) -> None:
    """Write a summary to standard output, with `memory` what it takes and sees instead of what it consists of."""
    if format == "json":
        write_json(summary.to_dict())
    elif format == "csv":
        write_csv(FIELDS, _records(summary))
    else:
        _report(summary, sheet(format), memory=memory)


def _records(summary: Summary) -> Iterator[list[object]]:
    for layer in summary.layers:
        windows = layer.kernel
        values: dict[str, object] = {name: getattr(layer, name, None) for name in FIELDS}
        values["inputs"] = " ".join(layer.inputs)
        if windows:
            values |= {"kernel": windows.size, "stride": windows.stride, "dilation": windows.dilation}
        yield list(values.values())


def _report(summary: Summary, sheet: Sheet, *, memory: bool) -> None:
    columns, rows, total = _memory(summary) if memory else _layers(summary)
    sheet.line(f"{summary.name}: input {show_shape(summary.input_shape)}, {summary.dtype}", "bold")
    sheet.show(columns, rows, total)
    fixed = summary.total_parameters - summary.trainable_parameters
    sheet.line(f"trainable parameters: {count(summary.trainable_parameters)}", "bold")
    if fixed:
        frozen = sum(map(_values, summary.layers)) - summary.trainable_parameters
        kinds = {"frozen": frozen, "running statistics": fixed - frozen}
        said = ", ".join(f"{count(number)} {kind}" for kind, number in kinds.items() if number)
        sheet.line(f"non-trainable: {count(fixed)} ({said}), total: {count(summary.total_parameters)}")
    if memory:
        batch = summary.batch_size
        together = show_bytes(batch * summary.total_activation_bytes)
        sheet.line(f"memory: activations of one image ({together} for a batch of {batch}), gradients of the parameters")
    else:
        sheet.line(f"one image takes {count(summary.total_macs)} multiply-accumulate operations (MACs) forward")
    if len(summary.losses) > 1 or any(one.weight != 1 for one in summary.losses):
        if not memory and summary.inference_macs < summary.total_macs:
            sheet.line(f"{count(summary.inference_macs)} of them lead to {summary.losses[0].layer}, the output")
        sheet.line(f"loss: {' + '.join(f'{one.weight:g} · {one.loss} at {one.layer}' for one in summary.losses)}")


def _layers(summary: Summary) -> Contents:
    """What the network consists of; `inputs` only where it branches, and there only where it is not the layer above."""
    before = ["input", *(layer.name for layer in summary.layers)]
    inputs = [
        "" if layer.inputs == [above] else ", ".join(layer.inputs)
        for layer, above in zip(summary.layers, before, strict=False)
    ]
    columns = [
        Column("layer", text=True),
        Column("type", text=True),
        Column("inputs", text=True, leaves=2, folds=True),
        Column("output", text=True),
        Column("parameters", leaves=1),
        Column("MACs", leaves=3, optional=True),
    ]
    rows: list[list[Cell]] = [
        [layer.name, type_of(layer), read, show_shape(layer.output_shape), _parameters(layer), count(layer.macs)]
        for layer, read in zip(summary.layers, inputs, strict=True)
    ]
    total: list[Cell] = ["total", "", "", "", count(sum(map(_values, summary.layers))), count(summary.total_macs)]
    chosen = [k for k in range(len(columns)) if columns[k].title != "inputs" or any(inputs)]
    return [columns[k] for k in chosen], [[row[k] for k in chosen] for row in rows], [total[k] for k in chosen]


def _memory(summary: Summary) -> Contents:
    """What the network takes in memory, and how much of the image each layer sees."""
    columns = [
        Column("layer", text=True),
        Column("type", text=True, leaves=2, optional=True),
        Column("output", text=True, leaves=1),
        Column("receptive\nfield"),
        Column("activation\nmemory"),
        Column("gradient\nmemory"),
    ]
    rows: list[list[Cell]] = [
        [
            layer.name,
            type_of(layer),
            show_shape(layer.output_shape),
            show_shape(layer.receptive_field),
            show_bytes(layer.activation_bytes),
            show_bytes(layer.gradient_bytes) if layer.gradient_bytes else "",
        ]
        for layer in summary.layers
    ]
    activations, gradients = show_bytes(summary.total_activation_bytes), show_bytes(summary.total_gradient_bytes)
    return columns, rows, ["total", "", "", "", activations, gradients]


def _parameters(layer: LayerSummary) -> str:
    """Write the sizes of the parameters, weights before biases: ``150 + 6``; whether they are frozen, or whose."""
    if layer.shares:
        return f"shared with {layer.shares}"
    sizes = " + ".join(map(count, layer.tensors.values()))
    return f"{sizes} frozen" if sizes and not layer.trainable_parameters else sizes


def _values(layer: LayerSummary) -> int:
    return sum(layer.tensors.values())


def type_of(layer: LayerSummary) -> str:
    """Write a layer's type and its windows: ``conv2d 3×3 s2``."""
    return f"{layer.type} {_windows(layer.kernel)}".rstrip()


def _windows(kernel: Kernel | None) -> str:
    """Write a kernel's size, and its stride and dilation where they are not 1: ``3×3 s2 d2``."""
    if kernel is None:
        return ""
    words = [show_shape(kernel.size)]
    for letter, pair in (("s", kernel.stride), ("d", kernel.dilation)):
        if pair != (1, 1):
            words.append(letter + (str(pair[0]) if pair[0] == pair[1] else show_shape(pair)))
    return " ".join(words)
