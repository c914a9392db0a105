"""Merges: where branches of the network meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Literal

import numpy as np

from cnnbp_cli.core.layers.registry import register
from cnnbp_cli.core.terms import OUTPUT, Index, LayerPass, Ref, Term, Terms, listed
from cnnbp_cli.core.traits import OnnxOperator
from cnnbp_cli.core.types import Array, Context, Merge, Shape, ShapeError, show_shape


def same_shape(in_shapes: Sequence[Shape]) -> Shape:
    """Return the one shape that all inputs have."""
    if len(set(in_shapes)) > 1:
        raise ShapeError("needs inputs of one shape, got " + " and ".join(show_shape(shape) for shape in in_shapes))
    return in_shapes[0]


def onnx_inputs(xs: Sequence[object]) -> tuple[str, ...]:
    """Return what ONNX operators call the inputs of a merge."""
    return tuple(f"x{k}" for k in range(len(xs)))


def names(at: LayerPass) -> list[str]:
    """Return what formulas call the inputs: x1, x2 and so on."""
    return [f"x{k + 1}" for k in range(len(at.xs))]


@register
@dataclass(frozen=True, slots=True)
class Add(Merge[int]):
    """Add the inputs, y = Σ x_k; each receives dx_k = dy.

    References
    ----------
    He et al. 2016, *Deep Residual Learning*, arXiv:1512.03385.
    """

    type: Literal["add"] = "add"
    is_linear = True

    def out_shape(self, in_shapes: Sequence[Shape]) -> Shape:
        return same_shape(in_shapes)

    def forward(self, xs: Sequence[Array], ctx: Context) -> tuple[Array, int]:
        return reduce(np.add, xs), len(xs)

    def backward(self, residuals: int, dy: Array, ctx: Context) -> tuple[Array, ...]:
        return (dy,) * residuals

    def onnx(self, in_shapes: Sequence[Shape]) -> list[OnnxOperator]:
        return [OnnxOperator("Sum", onnx_inputs(in_shapes))]

    def y_terms(self, at: LayerPass, index: Index) -> Terms:
        return Terms("y = " + " + ".join(names(at)), tuple(Term(1, (Ref(k, index),)) for k in range(len(at.xs))))

    def dx_terms(self, at: LayerPass, k: int, index: Index) -> Terms:
        return Terms(f"dx{k + 1} = dy", (Term(1, (Ref(OUTPUT, index, "gradient"),)),))


@register
@dataclass(frozen=True, slots=True)
class Multiply(Merge[tuple[Array, ...]]):
    """Multiply the inputs elementwise, y = Π x_k; each receives dx_k = dy · Π_{l ≠ k} x_l."""

    type: Literal["multiply"] = "multiply"

    def out_shape(self, in_shapes: Sequence[Shape]) -> Shape:
        return same_shape(in_shapes)

    def forward(self, xs: Sequence[Array], ctx: Context) -> tuple[Array, tuple[Array, ...]]:
        return reduce(np.multiply, xs), tuple(xs)

    def backward(self, residuals: tuple[Array, ...], dy: Array, ctx: Context) -> tuple[Array, ...]:
        return tuple(
            reduce(np.multiply, residuals[:k] + residuals[k + 1 :], dy)  # not y / x_k: an input may be zero
            for k in range(len(residuals))
        )

    def onnx(self, in_shapes: Sequence[Shape]) -> list[OnnxOperator]:
        product, *others = onnx_inputs(in_shapes)  # the operator takes two
        operators: list[OnnxOperator] = []
        for k, x in enumerate(others):
            operators.append(OnnxOperator("Mul", (product, x), output=f"product{k}"))
            product = f"product{k}"
        return operators

    def y_terms(self, at: LayerPass, index: Index) -> Terms:
        return Terms("y = " + " · ".join(names(at)), (Term(1, tuple(Ref(k, index) for k in range(len(at.xs)))),))

    def dx_terms(self, at: LayerPass, k: int, index: Index) -> Terms:
        others = tuple(Ref(other, index) for other in range(len(at.xs)) if other != k)
        formula = " · ".join([f"dx{k + 1} = dy", *(name for j, name in enumerate(names(at)) if j != k)])
        return Terms(formula, (Term(1, (Ref(OUTPUT, index, "gradient"), *others)),))


@register
@dataclass(frozen=True, slots=True)
class Concat(Merge[list[int]]):
    """Stack the inputs' channels (or features) in the order given; the gradient is cut at the same places.

    References
    ----------
    Huang et al. 2017, *Densely Connected Convolutional Networks*, arXiv:1608.06993.
    """

    type: Literal["concat"] = "concat"
    is_linear = True

    def out_shape(self, in_shapes: Sequence[Shape]) -> Shape:
        if len({shape[1:] for shape in in_shapes}) > 1:
            raise ShapeError(
                "needs inputs that differ in channels only, got "
                + " and ".join(show_shape(shape) for shape in in_shapes)
            )
        return (sum(shape[0] for shape in in_shapes), *in_shapes[0][1:])

    def forward(self, xs: Sequence[Array], ctx: Context) -> tuple[Array, list[int]]:
        ends = np.cumsum([x.shape[0] for x in xs]).tolist()
        return np.concatenate(xs), ends[:-1]

    def backward(self, residuals: list[int], dy: Array, ctx: Context) -> tuple[Array, ...]:
        return tuple(np.split(dy, residuals))

    def onnx(self, in_shapes: Sequence[Shape]) -> list[OnnxOperator]:
        return [OnnxOperator("Concat", onnx_inputs(in_shapes), {"axis": 1})]

    def y_terms(self, at: LayerPass, index: Index) -> Terms:
        k, first = 0, 0
        while index[0] >= first + len(at.xs[k]):
            first += len(at.xs[k])
            k += 1
        place = (index[0] - first, *index[1:])
        return Terms(f"y[{listed(index)}] = x{k + 1}[{listed(place)}]", (Term(1, (Ref(k, place),)),))

    def dx_terms(self, at: LayerPass, k: int, index: Index) -> Terms:
        place = (index[0] + sum(len(x) for x in at.xs[:k]), *index[1:])
        formula = f"dx{k + 1}[{listed(index)}] = dy[{listed(place)}]"
        return Terms(formula, (Term(1, (Ref(OUTPUT, place, "gradient"),)),))
