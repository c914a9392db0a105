"""Activations by what they compute: exporters write GELU or hard swish as five operators, each in its own way.

A chain of pointwise operators from one tensor to another is an activation of ours if it takes the same values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import MISSING, fields
from typing import Any

import numpy as np

from cnnbp_cli.core.layers import LAYERS
from cnnbp_cli.core.layers.activation import Gelu
from cnnbp_cli.core.layers.reshape import Identity
from cnnbp_cli.core.types import Array, Context, Layer
from cnnbp_cli.imports.errors import ImportProblem
from cnnbp_cli.imports.graph import OnnxGraph, Op, evaluate


def known() -> list[Layer[Any]]:
    """Return what a chain may be: nothing, or an activation without parameters and as its defaults have it."""
    found: list[Layer[Any]] = []
    for kind in LAYERS.values():
        needs = [field for field in fields(kind) if field.default is MISSING]  # type: ignore[arg-type] # all are dataclasses
        if kind.is_activation and not kind.is_distribution and not needs:
            layer = kind()
            if isinstance(layer, Layer) and not layer.param_shapes((1,)):
                found.append(layer)
    return [Identity(), *found, Gelu(approximate="none")]


POINTWISE = {
    *("Add", "Sub", "Mul", "Div", "Pow", "Neg", "Abs", "Exp", "Log", "Sqrt", "Reciprocal", "Min", "Max", "Clip"),
    *("Erf", "Tanh", "Sigmoid", "Relu", "Softplus", "HardSigmoid", "HardSwish", "Gelu", "Swish"),
    *("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Where"),
}

LONGEST = 12
"""The most operators that an activation is written with."""

POINTS = np.concatenate([np.linspace(-9, 9, 145), np.linspace(-0.3, 0.3, 13)]).astype(np.float32)
CLOSE = 2e-5
"""How far values may be apart: the two forms of GELU differ by 5e-4."""

OURS = "cnnbp."
"""How the kind of an operator begins that stands for a layer."""


def recognize(graph: OnnxGraph) -> None:
    """Replace each chain of operators that computes an activation by one operator that stands for the layer."""
    done: set[str] = set()
    for end in reversed(list(graph.ops)):
        if end.kind not in POINTWISE or end.output in done or end.output not in graph.producer_of:
            continue
        for source, chain in _chains(graph, end):
            layer = _computed(graph, source, chain)
            if layer is not None:
                done.update(op.output for op in chain)
                _replace(graph, source, chain, layer)
                break


def _chains(graph: OnnxGraph, end: Op) -> Iterator[tuple[str, list[Op]]]:
    """Yield chains that end with an operator, each with the tensor it starts from, the longest first."""
    ancestors = list[Op]([end])
    for op in ancestors:
        for name in op.inputs:
            before = graph.producer_of.get(name)
            if before is not None and before.kind in POINTWISE and before not in ancestors and len(ancestors) < LONGEST:
                ancestors.append(before)
    sources = dict.fromkeys(name for op in ancestors for name in op.inputs if name and graph.constant(name) is None)
    found = [(name, chain) for name in sources if (chain := _between(graph, name, end)) is not None]
    yield from sorted(found, key=lambda one: -len(one[1]))


def _between(graph: OnnxGraph, source: str, end: Op) -> list[Op] | None:
    """Return the operators from a tensor to the end, where nothing else goes in, and nothing leaves in between."""
    chain: list[Op] = []

    def follow(op: Op) -> bool:
        if op in chain:
            return True
        if op.kind not in POINTWISE or len(chain) >= LONGEST:
            return False
        chain.append(op)
        for name in op.inputs:
            value = graph.constant(name)
            if name in ("", source) or (value is not None and value.size == 1):
                continue
            before = graph.producer_of.get(name)
            if value is not None or before is None or not follow(before):
                return False
        return True

    if not follow(end):
        return None
    inside = {op.output for op in chain if op is not end}
    leaves = any(name == graph.output or any(op not in chain for op in graph.readers.get(name, ())) for name in inside)
    if leaves or not any(source in op.inputs for op in chain):
        return None
    return [op for op in graph.ops if op in chain]


def _computed(graph: OnnxGraph, source: str, chain: Sequence[Op]) -> Layer[Any] | None:
    """Return the activation that a chain computes."""
    constants: dict[str, Array] = {
        name: value.reshape(()) if value.size == 1 else value
        for op in chain
        for name in op.inputs
        if (value := graph.constants.get(name)) is not None
    }
    try:
        with np.errstate(all="ignore"):
            (values,) = evaluate(chain, {source: POINTS} | constants, [chain[-1].output], graph.opset)
    except ImportProblem:
        return None
    x = POINTS.astype(np.float64)[None]
    for layer in known():
        expected, _ = layer.forward({}, x, Context())
        if values.shape == POINTS.shape and np.allclose(values, expected[0], rtol=CLOSE, atol=CLOSE):
            return layer
    return None


def _replace(graph: OnnxGraph, source: str, chain: Sequence[Op], layer: Layer[Any]) -> None:
    end = chain[-1]
    place = graph.ops.index(end)
    one = Op(OURS + layer.type, end.name, [source], [end.output], {"layer": layer}, end.scopes)
    graph.ops[place] = one
    graph.ops = [op for op in graph.ops if op not in chain]
    graph.index()
