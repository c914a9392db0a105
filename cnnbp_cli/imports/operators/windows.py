"""Convolutions and pools: operators on windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cnnbp_cli.core.types import Array
from cnnbp_cli.imports.errors import NoLayer
from cnnbp_cli.imports.graph import Op
from cnnbp_cli.imports.operators.fields import border, size_of, two
from cnnbp_cli.imports.translation import Translation, Value


def pads_of(op: Op, windows: int = 2) -> Any:
    pads = op.get("pads", [0] * 2 * windows)
    if len(pads) != 4:
        raise NoLayer(f"works on {len(pads) // 2} axes, expected images")
    return [pads[0], pads[2], pads[1], pads[3]]  # top, bottom, left, right


def windowed(t: Translation, op: Op, kernel: Sequence[int], *, transposed: bool = False) -> dict[str, Any]:
    """Return stride and padding of an operator on windows, those that are not the defaults."""
    auto, stride, dilation = op.get("auto_pad", "NOTSET"), two(op, "strides"), two(op, "dilations")
    fields: dict[str, Any] = {}
    if auto in ("NOTSET", "VALID"):
        amounts = pads_of(op) if auto == "NOTSET" else [0] * 4
        if any(amounts):
            fields["padding"] = border(amounts)
    elif auto == "SAME_UPPER":
        fields["padding"] = "same"
    elif transposed:
        raise NoLayer(f"pads by {auto}")
    else:  # SAME_LOWER: the odd pixel is before the image
        amounts = []
        for size, k, s, d in zip(t.image(op).shape[1:], kernel, stride, dilation, strict=True):
            total = max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0)
            amounts += [total - total // 2, total // 2]
        fields["padding"] = border(amounts)
    if stride != [1, 1]:
        fields["stride"] = size_of(stride)
    return fields


def conv(t: Translation, op: Op) -> None:
    x, weight = t.image(op), t.constant(op, 1, "kernel")
    if weight.ndim != 4:
        raise NoLayer(f"works on {weight.ndim - 2} axes, expected images")
    fields = {"filters": len(weight), "kernel_size": size_of(weight.shape[2:])}
    fields |= windowed(t, op, weight.shape[2:])
    if (dilation := two(op, "dilations")) != [1, 1]:
        fields["dilation"] = size_of(dilation)
    if (groups := op.get("group", 1)) != 1:
        fields["groups"] = groups
    _with_bias(t, op, "conv2d", x, fields, weight, len(weight))


def conv_transpose(t: Translation, op: Op) -> None:
    x, weight = t.image(op), t.constant(op, 1, "kernel")
    if weight.ndim != 4:
        raise NoLayer(f"works on {weight.ndim - 2} axes, expected images")
    if "output_shape" in op.attributes:
        raise NoLayer("is told its output_shape, expected pads")
    groups = op.get("group", 1)
    filters = groups * weight.shape[1]
    fields = {"filters": filters, "kernel_size": size_of(weight.shape[2:])}
    fields |= windowed(t, op, weight.shape[2:], transposed=True)
    if (dilation := two(op, "dilations")) != [1, 1]:
        fields["dilation"] = size_of(dilation)
    if groups != 1:
        fields["groups"] = groups
    if any(extra := op.get("output_padding", [0, 0])):
        fields["output_padding"] = size_of(extra)
    _with_bias(t, op, "conv_transpose2d", x, fields, weight, filters)


def _with_bias(t: Translation, op: Op, kind: str, x: Value, fields: dict[str, Any], weight: Array, count: int) -> None:
    """Emit a layer with a kernel, and with its bias, which may be added by the next operator."""
    output, names = op.output, op.inputs[1:3]
    bias = t.constant(op, 2, "bias") if len(op.inputs) > 2 and op.inputs[2] else None
    if bias is None and (found := t.follow(op, ("Add",))) is not None:
        added = t.per_channel(found[1], replace(x, shape=(count,)))
        if added is not None and found[1].size == count:
            bias, output, names = added, found[0].output, [op.inputs[1], found[2]]
            t.take(found[0])
    parameters = {"weight": weight} | ({"bias": bias} if bias is not None else {})
    y = t.emit(kind, [x], op, fields | ({} if bias is not None else {"bias": False}), parameters, names)
    t.write(op, y, output)


def pool(t: Translation, op: Op) -> None:
    x, kernel = t.image(op), op.get("kernel_shape")
    if len(kernel) != 2 or two(op, "dilations") != [1, 1]:
        raise NoLayer("has a dilation or works on other axes than those of images")
    fields = {"pool_size": size_of(kernel)} | windowed(t, op, kernel)
    if two(op, "strides") == list(kernel):
        fields.pop("stride", None)
    else:
        fields.setdefault("stride", 1)
    if op.get("ceil_mode", 0):
        fields["ceil_mode"] = True
    if op.kind == "MaxPool":
        if len([name for name in op.outputs if name]) > 1:
            raise NoLayer("also gives the places of its maxima")
        t.write(op, t.emit("max_pool2d", [x], op, fields))
        return
    if op.get("count_include_pad", 0) and "padding" in fields:
        fields["count_include_pad"] = True
    t.write(op, t.emit("avg_pool2d", [x], op, fields))


def global_pool(t: Translation, op: Op) -> None:
    """Translate a mean or a maximum of each channel, as a vector where nothing needs an image of one pixel."""
    if op.kind.startswith("Reduce"):
        axes, keep = t.optional(op, 1, "axes"), op.get("keepdims", 1)
        x = t.value(op)
        wanted = {"image": [2, 3], "last": [1, 2]}.get(x.layout)
        if axes is None or wanted is None or sorted(int(axis) % 4 for axis in axes) != wanted:
            raise NoLayer("reduces other axes than height and width")
    else:
        x, keep = t.image(op), 1
    maximum = op.kind in ("GlobalMaxPool", "ReduceMax")
    kind = "global_max_pool2d" if maximum else "global_avg_pool2d"
    flat = _flattened(t, op) if keep else op
    if flat is not None:
        if flat is not op:
            t.take(flat)
        named = flat if t.graph.producer == "cnnbp" else op
        t.write(op, replace(t.emit(kind, [x], named), layout="vector"), flat.output)
    elif maximum:
        t.write(op, t.emit("max_pool2d", [x], op, {"pool_size": size_of(x.shape[1:])}))
    else:
        t.write(op, t.emit("adaptive_avg_pool2d", [x], op, {"output_size": 1}))


def _flattened(t: Translation, op: Op) -> Op | None:
    """Return the operator that makes (N, C, 1, 1) a vector, where that is all that happens to it."""
    reader = t.graph.only_reader(op.output)
    if reader is None or reader.kind not in ("Flatten", "Reshape", "Squeeze"):
        return None
    shape = t.graph.shapes[reader.output]
    return reader if len(shape) == 2 and shape[0] == t.graph.shapes[op.output][0] else None
