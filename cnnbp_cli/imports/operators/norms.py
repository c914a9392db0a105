"""Normalizations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cnnbp_cli.core.types import Array, Shape
from cnnbp_cli.imports.errors import NoLayer
from cnnbp_cli.imports.graph import Op
from cnnbp_cli.imports.operators.fields import numbers, short
from cnnbp_cli.imports.translation import Translation, Value


def batch_norm(t: Translation, op: Op) -> None:
    x = t.value(op)
    if x.layout not in ("image", "vector"):
        raise NoLayer("expected images or vectors")
    if op.get("training_mode", 0):
        raise NoLayer("is in training mode; export the model in evaluation mode")
    weight, bias, mean, var = (t.constant(op, k, "parameters") for k in range(1, 5))
    fields = numbers(op, epsilon=1e-5, momentum=0.9)
    parameters = {"weight": weight, "bias": bias, "running_mean": mean, "running_var": var}
    t.write(op, t.emit("batch_norm", [x], op, fields, parameters, op.inputs[1:5]))


def instance_norm(t: Translation, op: Op) -> None:
    """Translate a normalization of each channel; of groups, as `Reshape`, this, `Reshape` and an affine."""
    x = t.value(op)
    weight, bias = t.constant(op, 1, "scale"), t.constant(op, 2, "bias")
    if x.layout == "image":
        parameters = {"weight": weight, "bias": bias}
        fields = {"groups": x.shape[0], **numbers(op, epsilon=1e-5)}
        return t.write(op, t.emit("group_norm", [x], op, fields, parameters, op.inputs[1:3]))
    back = t.graph.only_reader(op.output)
    whole = x.layout == "groups" and back is not None and back.kind == "Reshape" and (weight == 1).all()
    if not whole or back is None or bias.any() or t.graph.shapes[back.output][1:] != x.shape:
        raise NoLayer("normalizes neither channels nor groups of them")
    t.take(back)
    fields = {"groups": len(weight), **numbers(op, epsilon=1e-5)}
    _with_affine(t, back, "group_norm", replace(x, layout="image"), fields, x.shape[:1])


def _with_affine(
    t: Translation, op: Op, kind: str, x: Value, fields: dict[str, Any], shape: Shape, given: Sequence[str] = ()
) -> None:
    """Emit a normalization with the factor and the offset that the next operators apply."""

    def fitting(constant: Array) -> Array | None:
        if shape == x.shape and len(shape) == 3:
            return constant.reshape(shape) if constant.shape in (shape, (1, *shape)) else None
        return t.per_channel(constant, x)

    output, weight, bias = op.output, None, None
    names = list(given)
    if (found := t.follow(op, ("Mul",))) is not None and (weight := fitting(found[1])) is not None:
        output = found[0].output
        names.append(found[2])
        t.take(found[0])
    if (found := t.follow(op, ("Add",), output)) is not None and (bias := fitting(found[1])) is not None:
        output = found[0].output
        names.append(found[2])
        t.take(found[0])
    if weight is None and bias is None:
        return t.write(op, t.emit(kind, [x], op, fields | {"affine": False}), output)
    parameters = {
        "weight": np.ones(shape, np.float32) if weight is None else weight,
        "bias": np.zeros(shape, np.float32) if bias is None else bias,
    }
    return t.write(op, t.emit(kind, [x], op, fields, parameters, names), output)


def group_norm(t: Translation, op: Op) -> None:
    x, groups = t.value(op), op.get("num_groups")
    weight, bias = (t.constant(op, k, "parameters") for k in (1, 2))
    if len(weight) != x.shape[0]:  # before opset 21, one for each group
        weight, bias = (np.repeat(value, x.shape[0] // groups) for value in (weight, bias))
    fields = {"groups": groups, **numbers(op, epsilon=1e-5)}
    t.write(op, t.emit("group_norm", [x], op, fields, {"weight": weight, "bias": bias}, op.inputs[1:3]))


def layer_norm(t: Translation, op: Op) -> None:
    x, rank = t.value(op), len(t.graph.shapes[op.inputs[0]])
    axis = op.get("axis", -1) % rank
    weight = t.constant(op, 1, "scale")
    bias = t.constant(op, 2, "bias") if len(op.inputs) > 2 and op.inputs[2] else np.zeros_like(weight)
    fields: dict[str, Any] = numbers(op, epsilon=1e-5)
    if x.layout == "last" and axis == rank - 1:
        fields["over"] = "channels"
    elif not (axis == 1 and x.layout in ("image", "vector")):
        raise NoLayer("normalizes neither samples nor the channels of each pixel")
    if (weight == 1).all() and not bias.any() and weight.size == 1:
        return _with_affine(t, op, "layer_norm", x, fields, x.shape)
    return t.write(op, t.emit("layer_norm", [x], op, fields, {"weight": weight, "bias": bias}, op.inputs[1:3]))


def local_response_norm(t: Translation, op: Op) -> None:
    fields = {"size": op.get("size"), **numbers(op, alpha=1e-4, beta=0.75)}
    if (k := short(op.get("bias", 1.0))) != 1:
        fields["k"] = k
    x = t.value(op)
    t.write(op, t.emit("local_response_norm", [x if x.layout == "pixel" else t.image(op)], op, fields))
