"""Merges: where branches of the network meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import product
from typing import Literal

import numpy as np

from cnnbp_cli.core.layers.registry import register
from cnnbp_cli.core.terms import OUTPUT, Index, LayerPass, Ref, Term, Terms, listed
from cnnbp_cli.core.traits import OnnxOperator
from cnnbp_cli.core.types import Array, Context, Merge, Shape, ShapeError, show_shape


def broadcast_shape(in_shapes: Sequence[Shape]) -> Shape:
    """Return the shape that all inputs have after sizes of 1 are repeated; a vector (c,) beside images is (c, 1, 1).

    Raises
    ------
    ShapeError
        When some axis has two sizes other than 1.
    """
    rank = max(map(len, in_shapes))
    sizes = zip(*(shape + (1,) * (rank - len(shape)) for shape in in_shapes), strict=True)
    found = [{size for size in axis if size != 1} for axis in sizes]
    if any(len(axis) > 1 for axis in found):
        raise ShapeError(
            "needs inputs of one shape, or with sizes of 1 in their place, got "
            + " and ".join(show_shape(shape) for shape in in_shapes)
        )
    return tuple(axis.pop() if axis else 1 for axis in found)


def spread(x: Array, rank: int) -> Array:
    """Return x (c, n) as (c, 1, 1, n) where the result has `rank` axes, of which the last is the batch."""
    return x.reshape(len(x), *(1,) * (rank - x.ndim), *x.shape[1:])


def gather(dy: Array, shape: Shape) -> Array:
    """Return the gradient to an input of `shape` that was repeated to dy's: Σ over all places that read a cell."""
    if dy.shape == shape:
        return dy
    wide = shape[:1] + (1,) * (dy.ndim - len(shape)) + shape[1:]
    axes = tuple(k for k, (size, of) in enumerate(zip(wide, dy.shape, strict=True)) if size != of)
    return dy.sum(axes, keepdims=True).reshape(shape)


def place_in(shape: Shape, index: Index) -> Index:
    """Return which cell of an input of `shape` (with the batch) the output's cell `index` reads."""
    *cell, n = index
    return (*(k if size > 1 else 0 for k, size in zip(cell, shape[:-1], strict=False)), n)


def readers_of(shape: Shape, index: Index, out_shape: Shape) -> list[Index]:
    """Return the output's cells that read the cell `index` of an input of `shape`; both shapes have the batch."""
    *cell, n = index
    missing = len(out_shape) - len(shape)
    wide = zip((*cell, *(0,) * missing), (*shape[:-1], *(1,) * missing), out_shape[:-1], strict=True)
    return [(*place, n) for place in product(*(range(of) if size == 1 else (k,) for k, size, of in wide))]


def onnx_spread(in_shapes: Sequence[Shape]) -> tuple[list[OnnxOperator], list[str]]:
    """Return operators that make vectors beside images (N, C, 1, 1), and what all inputs are called then."""
    rank = max(map(len, in_shapes))
    names = list(onnx_inputs(in_shapes))
    operators: list[OnnxOperator] = []
    for k, shape in enumerate(in_shapes):
        if len(shape) < rank:
            operators.append(OnnxOperator("Unsqueeze", (names[k], np.array([2, 3])), output=f"spread{k}"))
            names[k] = f"spread{k}"
    return operators, names


def onnx_inputs(xs: Sequence[object]) -> tuple[str, ...]:
    """Return what ONNX operators call the inputs of a merge."""
    return tuple(f"x{k}" for k in range(len(xs)))


def names(at: LayerPass) -> list[str]:
    """Return what formulas call the inputs: x1, x2 and so on."""
    return [f"x{k + 1}" for k in range(len(at.xs))]


@register
@dataclass(frozen=True, slots=True)
class Add(Merge[list[Shape]]):
    """Add the inputs, y = Σ x_k; each receives dx_k = dy.

    Where an input has size 1 along an axis, or is a vector (c,) beside images, it is repeated, and receives Σ dy
    over all places that read it.

    References
    ----------
    He et al. 2016, *Deep Residual Learning*, arXiv:1512.03385.
    """

    type: Literal["add"] = "add"
    is_linear = True
    is_sum = True
    applies_relu = True

    def out_shape(self, in_shapes: Sequence[Shape]) -> Shape:
        return broadcast_shape(in_shapes)

    def forward(self, xs: Sequence[Array], ctx: Context) -> tuple[Array, list[Shape]]:
        rank = max(x.ndim for x in xs)
        first, *others = np.broadcast_arrays(*(spread(x, rank) for x in xs))
        y = ctx.empty("y", first.shape, np.result_type(*xs))
        np.add(first, others[0] if others else 0, out=y)
        for other in others[1:]:
            y += other
        if ctx.then_relu:
            np.maximum(y, 0, out=y)
        return y, [x.shape for x in xs]

    def backward(self, residuals: list[Shape], dy: Array, ctx: Context) -> tuple[Array, ...]:
        return tuple(gather(dy, shape) for shape in residuals)

    def onnx(self, in_shapes: Sequence[Shape]) -> list[OnnxOperator]:
        operators, inputs = onnx_spread(in_shapes)
        return [*operators, OnnxOperator("Sum", tuple(inputs))]

    def y_terms(self, at: LayerPass, index: Index) -> Terms:
        summands = (Term(1, (Ref(k, place_in(x.shape, index)),)) for k, x in enumerate(at.xs))
        return Terms("y = " + " + ".join(names(at)), tuple(summands))

    def dx_terms(self, at: LayerPass, k: int, index: Index) -> Terms:
        readers = readers_of(at.xs[k].shape, index, at.y.shape)
        formula = f"dx{k + 1} = {'Σ ' if len(readers) > 1 else ''}dy"
        return Terms(formula, tuple(Term(1, (Ref(OUTPUT, place, "gradient"),)) for place in readers))


@register
@dataclass(frozen=True, slots=True)
class Multiply(Merge[tuple[Array, ...]]):
    """Multiply the inputs elementwise, y = Π x_k; each receives dx_k = dy · Π_{l ≠ k} x_l.

    Where an input has size 1 along an axis, or is a vector (c,) beside images, it is repeated, and receives the sum
    over all places that read it.

    References
    ----------
    Hu et al. 2018, *Squeeze-and-Excitation Networks*, arXiv:1709.01507: a number for each channel times its pixels.
    """

    type: Literal["multiply"] = "multiply"

    def out_shape(self, in_shapes: Sequence[Shape]) -> Shape:
        return broadcast_shape(in_shapes)

    def forward(self, xs: Sequence[Array], ctx: Context) -> tuple[Array, tuple[Array, ...]]:
        rank = max(x.ndim for x in xs)
        return reduce(np.multiply, (spread(x, rank) for x in xs)), tuple(xs)

    def backward(self, residuals: tuple[Array, ...], dy: Array, ctx: Context) -> tuple[Array, ...]:
        wide = [spread(x, dy.ndim) for x in residuals]
        return tuple(
            gather(reduce(np.multiply, wide[:k] + wide[k + 1 :], dy), x.shape)  # not y / x_k: an input may be zero
            for k, x in enumerate(residuals)
        )

    def onnx(self, in_shapes: Sequence[Shape]) -> list[OnnxOperator]:
        operators, (so_far, *others) = onnx_spread(in_shapes)  # the operator takes two
        for k, x in enumerate(others):
            operators.append(OnnxOperator("Mul", (so_far, x), output=f"product{k}"))
            so_far = f"product{k}"
        return operators

    def y_terms(self, at: LayerPass, index: Index) -> Terms:
        factors = tuple(Ref(k, place_in(x.shape, index)) for k, x in enumerate(at.xs))
        return Terms("y = " + " · ".join(names(at)), (Term(1, factors),))

    def dx_terms(self, at: LayerPass, k: int, index: Index) -> Terms:
        readers = readers_of(at.xs[k].shape, index, at.y.shape)
        others = [other for other in range(len(at.xs)) if other != k]
        products = (
            Term(1, (Ref(OUTPUT, place, "gradient"), *(Ref(j, place_in(at.xs[j].shape, place)) for j in others)))
            for place in readers
        )
        dy = "Σ dy" if len(readers) > 1 else "dy"
        return Terms(" · ".join([f"dx{k + 1} = {dy}", *(names(at)[j] for j in others)]), tuple(products))


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
