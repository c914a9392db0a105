"""Activations that no chain of operators is needed for, and dropout."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cnnbp_cli.imports.errors import NoLayer
from cnnbp_cli.imports.graph import Op
from cnnbp_cli.imports.operators.fields import short
from cnnbp_cli.imports.translation import Translation


def softmax(t: Translation, op: Op) -> None:
    x, rank = t.value(op), len(t.graph.shapes[op.output])
    axis = op.get("axis", -1 if t.graph.opset >= 13 else 1) % rank
    if axis != {"image": 1, "vector": 1, "last": 3}.get(x.layout):
        raise NoLayer(f"works along axis {axis}, expected that of the channels")
    if op.output == t.graph.output:
        t.head = "softmax"
        if op.kind == "LogSoftmax":
            t.notes.append("the file gives logarithms of probabilities; here, the head gives probabilities")
        return t.same(op, x)
    if op.kind == "LogSoftmax":
        raise NoLayer("is within the network, expected it at the end")
    return t.write(op, t.emit("softmax", [x], op))


def activation(kind: str, **attributes: tuple[str, float]) -> Callable[[Translation, Op], None]:
    """Return a handler of an activation whose attributes have these names and defaults in ONNX."""

    def handler(t: Translation, op: Op) -> None:
        fields = {name: short(op.get(attribute, default)) for name, (attribute, default) in attributes.items()}
        t.write(op, t.emit(kind, [t.value(op)], op, fields))

    return handler


def prelu(t: Translation, op: Op) -> None:
    x, slope = t.value(op), t.constant(op, 1, "slope")
    weight = slope.reshape(1) if slope.size == 1 else t.per_channel(slope, x)
    if weight is None:
        raise NoLayer("has another slope for each pixel")
    fields = {"shared": True} if slope.size == 1 and x.shape[0] > 1 else {}
    t.write(op, t.emit("prelu", [x], op, fields, {"weight": weight}, op.inputs[1:2]))


def dropout(t: Translation, op: Op) -> None:
    rate = short(float(np.asarray(t.optional(op, 1, "ratio", 0.5)).item()))
    t.write(op, t.emit("dropout", [t.value(op)], op, {"rate": rate}))
