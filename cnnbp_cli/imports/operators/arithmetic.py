"""Sums, products and concatenations of layers, and arithmetic with constants."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cnnbp_cli.core.types import Array
from cnnbp_cli.imports.errors import NoLayer
from cnnbp_cli.imports.graph import Op
from cnnbp_cli.imports.translation import Translation, Value


def merge(t: Translation, op: Op) -> None:
    """Translate a sum or a product, of layers or of a layer and constants."""
    constants = [name for name in op.inputs if t.graph.constant(name) is not None]
    if constants:
        return arithmetic(t, op)
    kind = {"Add": "add", "Sum": "add", "Mul": "multiply"}[op.kind]
    values = _aligned([t.value(op, k) for k in range(len(op.inputs))])
    if len(values) == 1:
        return t.same(op, values[0])
    y = t.emit(kind, values, op)
    return t.write(op, replace(y, layout=max(values, key=lambda value: len(value.shape)).layout))


def _aligned(values: list[Value]) -> list[Value]:
    """Return tensors that lie alike; an image of one pixel that is a vector here goes with images."""
    layouts = {value.layout for value in values}
    if len(layouts - {"pixel"}) > 1:
        raise NoLayer("its inputs have their axes in different orders")
    return values


def concat(t: Translation, op: Op) -> None:
    values = _aligned([t.value(op, k) for k in range(len(op.inputs))])
    axis = op.get("axis") % len(t.graph.shapes[op.output])
    if axis != {"image": 1, "vector": 1, "pixel": 1, "last": 3}.get(values[0].layout):
        raise NoLayer(f"joins along axis {axis}, expected that of the channels")
    t.write(op, values[0] if len(values) == 1 else t.emit("concat", values, op))


def arithmetic(t: Translation, op: Op) -> None:
    """Translate arithmetic with constants: a normalization of the input, or a depthwise convolution of one pixel."""
    at = [k for k, name in enumerate(op.inputs) if t.graph.constant(name) is None]
    if op.kind == "Sub" and len(at) == 2:
        return _difference(t, op)
    if len(at) != 1 or len(op.inputs) != 2:
        raise NoLayer("works on constants and more")
    x, constant = t.value(op, at[0]), t.constant(op, 1 - at[0], "number")
    amount = t.per_channel(constant, x)
    if amount is None:
        raise NoLayer("has another number for each pixel")
    if op.kind in ("Div", "Sub") and at[0] == 1:
        raise NoLayer("divides, or subtracts from, a constant")
    if op.kind == "Div":
        scale, shift = 1 / amount, np.zeros_like(amount)
    elif op.kind == "Mul":
        scale, shift = amount, np.zeros_like(amount)
    else:
        scale, shift = np.ones_like(amount), amount if op.kind == "Add" else -amount
    if (scale == 1).all() and not shift.any():
        return t.same(op, x)
    if x.source == "input" and len(t.graph.readers[op.inputs[at[0]]]) == 1 and _normalizes(t, op, amount):
        return t.same(op, x)
    if x.layout not in ("image", "last"):
        raise NoLayer("there is no layer that does arithmetic with constants on vectors")
    bias = {"bias": shift} if shift.any() else {}
    fields = {"filters": len(scale), "kernel_size": 1, "groups": len(scale)} | ({} if bias else {"bias": False})
    parameters = {"weight": scale.reshape(-1, 1, 1, 1)} | bias
    name = op.inputs[1 - at[0]]
    return t.write(op, t.emit("conv2d", [x], op, fields, parameters, [name]))


def _difference(t: Translation, op: Op) -> None:
    """Translate a difference of layers: the second times −1, for each channel, and a sum."""
    x, y = _aligned([t.value(op), t.value(op, 1)])
    if y.layout not in ("image", "last"):
        raise NoLayer("there is no layer that subtracts vectors")
    count = y.shape[0]
    fields = {"filters": count, "kernel_size": 1, "groups": count, "bias": False}
    negative = t.emit("conv2d", [y], op, fields, {"weight": np.full((count, 1, 1, 1), -1, np.float32)})
    t.write(op, t.emit("add", [x, negative], op))


def _normalizes(t: Translation, op: Op, amount: Array) -> bool:
    """Take an operator on the input for its normalization, (x − mean) / std, where it goes on that way."""
    mean, std = t.normalization or (np.zeros_like(amount), np.ones_like(amount))
    if op.kind in ("Sub", "Add"):
        mean = mean + std * (amount if op.kind == "Sub" else -amount)
    else:
        std = std * (amount if op.kind == "Div" else 1 / amount)
    if not (np.isfinite(std).all() and (std > 0).all()):
        return False
    t.normalization = mean, std
    return True
