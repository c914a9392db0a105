"""Local response norms by what they compute: PyTorch's exporters write one as ten operators.

x / (k + alpha · mean of x² over `size` channels)^beta, the mean by padding and a pool over three axes
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from cnnbp_cli.core.layers import LAYERS
from cnnbp_cli.core.types import Array, Context, FieldErrors
from cnnbp_cli.imports.errors import ImportProblem
from cnnbp_cli.imports.graph import OnnxGraph, Op, evaluate

SEEN = {"Pow", "Add", "Mul", "Squeeze", "Unsqueeze", "Reshape", "Identity", "AveragePool", "Pad"}
"""What stands between the values and the division by a power of their squares."""

MOST = 1 << 22
"""The most values that are computed to see whether it is one."""


def recognize_response_norms(graph: OnnxGraph) -> None:
    """Replace the operators of each local response norm by the one that ONNX has for it."""
    for end in [op for op in graph.ops if op.kind == "Div"]:
        source, chain = end.inputs[0], [*_behind(graph, end)]
        found = _computed(graph, source, [*chain, end]) if chain else None
        if found is None:
            continue
        attributes = {"size": found.size, "alpha": found.alpha, "beta": found.beta, "bias": found.k}
        one = Op("LRN", end.name, [source], [end.output], attributes, end.scopes)
        graph.ops[graph.ops.index(end)] = one
        graph.ops = [op for op in graph.ops if op not in chain]
        graph.index()


def _behind(graph: OnnxGraph, end: Op) -> Iterator[Op]:
    """Yield what computes the divisor, in order, where that is a chain from the dividend which nothing else reads."""
    chain: list[Op] = []
    name, reader = end.inputs[1], end
    while (op := graph.producer_of.get(name)) is not None and op.kind in SEEN and graph.readers[name] == [reader]:
        chain.append(op)
        if op.inputs == [end.inputs[0]] * 2:
            yield from reversed(chain)
            return
        given = [one for one in op.inputs if one and graph.constant(one) is None]
        if len(given) != 1:
            return
        name, reader = given[0], op


def _computed(graph: OnnxGraph, source: str, chain: list[Op]) -> Any:
    """Return the layer that computes what the operators compute, or None."""
    pool = next((op for op in chain if op.kind == "AveragePool"), None)
    power = next((op for op in chain if op.kind == "Pow"), None)
    shape = graph.shapes.get(source, ())
    if pool is None or power is None or len(shape) != 4 or np.prod(shape) > MOST:
        return None
    after = chain[chain.index(pool) :]
    alpha, k, beta = (_number(graph, after, kind) for kind in ("Mul", "Add", "Pow"))
    try:
        kind: Any = LAYERS["local_response_norm"]
        layer = kind(pool.get("kernel_shape")[0], alpha, beta, k)
        constants = {
            name: value for op in chain for name in op.inputs if (value := graph.constants.get(name)) is not None
        }
        x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        (values,) = evaluate(chain, {source: x} | constants, [chain[-1].output], graph.opset)
        expected: Any = layer.forward({}, np.moveaxis(x, 0, -1).astype(np.float64), Context())[0]
    except (ImportProblem, FieldErrors, TypeError, ValueError, IndexError):
        return None
    return layer if np.allclose(np.moveaxis(values, 0, -1), expected, rtol=1e-4, atol=1e-5) else None


def _number(graph: OnnxGraph, chain: list[Op], kind: str) -> float:
    """Return the constant of the only operator of a kind, as the shortest decimal that is this float32."""
    constants: list[Array] = [
        value for op in chain if op.kind == kind for name in op.inputs if (value := graph.constant(name)) is not None
    ]
    (value,) = constants or [np.ones(())] if kind != "Pow" else constants
    return float(str(np.float32(value.item())))
