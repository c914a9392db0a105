"""Products with matrices."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from cnnbp_cli.core.layers.resample import AdaptiveAvgPool2d
from cnnbp_cli.imports.errors import NoLayer
from cnnbp_cli.imports.graph import Op
from cnnbp_cli.imports.operators.fields import size_of
from cnnbp_cli.imports.translation import Translation


def dense(t: Translation, op: Op) -> None:
    """Translate `Gemm`, or `MatMul` and the `Add` behind it."""
    if t.graph.constant(op.inputs[0]) is not None and _averages(t, op):
        return
    x = t.value(op)
    weight = t.constant(op, 1, "matrix")
    if weight.ndim != 2:
        raise NoLayer(f"multiplies with {list(weight.shape)}, expected a matrix")
    bias, output, names = None, op.output, op.inputs[1:3]
    if op.kind == "Gemm":
        if op.get("transA", 0) or op.get("alpha", 1.0) != 1 or (op.get("beta", 1.0) != 1 and len(op.inputs) > 2):
            raise NoLayer("has alpha, beta or transA, which dense has not")
        weight = weight if op.get("transB", 0) else weight.T
        bias = t.constant(op, 2, "bias") if len(op.inputs) > 2 and op.inputs[2] else None
    else:
        weight = weight.T
    if bias is None and (found := t.follow(op, ("Add",))) is not None and found[1].size == len(weight):
        bias, output, names = found[1], found[0].output, [op.inputs[1], found[2]]
        t.take(found[0])
    bias = None if bias is None else np.broadcast_to(bias.reshape(-1), (len(weight),)).copy()
    fields: dict[str, Any] = {} if bias is not None else {"bias": False}
    if x.layout == "last":  # the same matrix for each pixel
        kernel = {"weight": weight[:, :, None, None]} | ({"bias": bias} if bias is not None else {})
        t.write(
            op, t.emit("conv2d", [x], op, {"filters": len(weight), "kernel_size": 1} | fields, kernel, names), output
        )
        return
    if x.layout == "last vector":
        c, h, w = x.image
        weight = weight.reshape(-1, h, w, c).transpose(0, 3, 1, 2).reshape(len(weight), -1)
    elif x.layout != "vector":
        raise NoLayer(f"multiplies a tensor of {list(t.graph.shapes[op.inputs[0]])}, expected vectors")
    parameters = {"weight": np.ascontiguousarray(weight)} | ({"bias": bias} if bias is not None else {})
    y = t.emit("dense", [x], op, {"units": len(weight)} | fields, parameters, names)
    t.write(op, replace(y, layout="vector"), output)


def _averages(t: Translation, op: Op) -> bool:
    """Translate rows · x · columns, where the two matrices take means of windows of all kinds of sizes."""
    found = t.follow(op, ("MatMul",))
    x = t.values.get(op.inputs[1])
    if found is None or x is None or x.layout != "image" or found[0].inputs[0] != op.output:
        return False
    rows, columns = t.constant(op, 0, "rows"), found[1].T
    layer = AdaptiveAvgPool2d((len(rows), len(columns)))
    wanted = layer.weights(x.shape, np.float64)
    if rows.shape != wanted.rows.shape or columns.shape != wanted.columns.shape:
        return False
    if not (np.allclose(rows, wanted.rows) and np.allclose(columns, wanted.columns)):
        return False
    t.take(found[0])
    t.write(
        op,
        t.emit("adaptive_avg_pool2d", [x], found[0], {"output_size": size_of((len(rows), len(columns)))}),
        found[0].output,
    )
    return True
