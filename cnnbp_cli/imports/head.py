"""What a file does to each channel of its input, before its first layer, by what it computes.

Inception as torchvision has it takes its input apart into channels, moves each by a factor and an offset, and puts them
together again; others subtract and divide. Whatever it is written with, it is a normalization, (x − mean) / std.
"""

from __future__ import annotations

import numpy as np

from cnnbp_cli.core.types import Array
from cnnbp_cli.imports.errors import ImportProblem
from cnnbp_cli.imports.graph import OnnxGraph, Op, evaluate

CHEAP = {
    *("Add", "Sub", "Mul", "Div", "Neg", "Cast", "Identity"),
    *("Gather", "Slice", "Split", "Concat", "Unsqueeze", "Squeeze", "Reshape", "Transpose"),
}
"""Operators that such a beginning is written with."""

MOST = 1 << 22
"""The most values of an image that are computed to see what becomes of them."""


def recognize_normalization(graph: OnnxGraph) -> None:
    """Replace all that happens to the input alone by a subtraction and a division, where they come to the same."""
    if len(graph.shapes[graph.input]) != 4 or np.prod(graph.shapes[graph.input]) > MOST:
        return
    begun, depends = list[Op](), {graph.input}
    for op in graph.ops:
        given = [name for name in op.inputs if name and graph.constant(name) is None]
        if op.kind in CHEAP and given and set(given) <= depends:
            begun.append(op)
            depends.update(op.outputs)
    for end in reversed(begun):
        inside = _behind(graph, end, begun)
        if len(inside) > 2 and _is_closed(graph, end, inside) and (found := _affine(graph, end, inside)) is not None:
            _replace(graph, end, inside, *found)
            return


def _behind(graph: OnnxGraph, end: Op, begun: list[Op]) -> list[Op]:
    """Return the operators that one depends on, itself among them, in order."""
    needed = {id(end)}
    for op in reversed(begun):
        if id(op) in needed:
            needed.update(id(graph.producer_of[name]) for name in op.inputs if name in graph.producer_of)
    return [op for op in begun if id(op) in needed]


def _is_closed(graph: OnnxGraph, end: Op, inside: list[Op]) -> bool:
    """Return whether the input, and all in between, is read inside alone."""
    between = [graph.input, *(name for op in inside if op is not end for name in op.outputs)]
    return all(op in inside for name in between for op in graph.readers.get(name, ())) and graph.output not in between


def _affine(graph: OnnxGraph, end: Op, inside: list[Op]) -> tuple[Array, Array] | None:
    """Return the factor and the offset of each channel, if each value of the output is that of its own pixel."""
    shape = graph.shapes[graph.input]
    if graph.shapes.get(end.output) != shape:
        return None
    constants = {name: graph.constants[name] for op in inside for name in op.inputs if name in graph.constants}
    x = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float64 if graph.double else np.float32)
    try:
        zero, one, mixed = (
            evaluate(inside, {graph.input: image} | constants, [end.output], graph.opset)[0]
            for image in (np.zeros_like(x), np.ones_like(x), x)
        )
    except ImportProblem:
        return None
    offset, factor = zero[:1, :, :1, :1].astype(np.float64), (one - zero)[:1, :, :1, :1].astype(np.float64)
    pairs: list[tuple[Array, Array]] = [(zero, np.zeros_like(x)), (one, np.ones_like(x)), (mixed, x)]
    is_affine = all(np.allclose(y, factor * image + offset, rtol=1e-5, atol=1e-6) for y, image in pairs)
    return (factor, offset) if is_affine and (factor > 0).all() else None


def _replace(graph: OnnxGraph, end: Op, inside: list[Op], factor: Array, offset: Array) -> None:
    kind = np.float64 if graph.double else np.float32
    names = (f"{end.output}.mean", f"{end.output}.std")
    graph.constants |= dict(zip(names, ((-offset / factor).astype(kind), (1 / factor).astype(kind)), strict=True))
    middle = f"{end.output}.centered"
    graph.shapes |= {middle: graph.shapes[graph.input], **{name: graph.constants[name].shape for name in names}}
    place = graph.ops.index(end)
    graph.ops[place : place + 1] = [
        Op("Sub", end.name, [graph.input, names[0]], [middle], {}, end.scopes),
        Op("Div", end.name, [middle, names[1]], [end.output], {}, end.scopes),
    ]
    graph.ops = [op for op in graph.ops if op not in inside]
    graph.index()
