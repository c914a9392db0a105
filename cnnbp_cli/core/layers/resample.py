"""Resampling: images of another size, each output row a weighted sum of input rows, and columns likewise.

    y[c, p, q] = Σ_{r, s} A[p, r] · B[q, s] · x[c, r, s]        dx[c, r, s] = Σ_{p, q} A[p, r] · B[q, s] · dy[c, p, q]

A layer here is its two matrices. They are applied one after the other, as matrix products.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from cnnbp_cli.core.layers.registry import register
from cnnbp_cli.core.terms import OUTPUT, Index, LayerPass, Ref, Term, Terms, listed
from cnnbp_cli.core.traits import OnnxOperator
from cnnbp_cli.core.types import (
    Array,
    Context,
    Layer,
    Params,
    Shape,
    ShapeError,
    Size,
    at_least,
    pair,
    require,
    show_shape,
)

Mode = Literal["nearest", "bilinear"]


class Weights(NamedTuple):
    """How much each row of the input counts in each row of the output, and columns likewise."""

    rows: Array  # (oh, h)
    columns: Array  # (ow, w)


def resample(x: Array, weights: Weights) -> Array:
    """Return Σ rows[p, r] · columns[q, s] · x[c, r, s] as (c, oh, ow, n)."""
    c, h, w, n = x.shape
    rows = weights.rows @ x.swapaxes(0, 1).reshape(h, c * w * n)  # an image lies row by row, see `Context.empty`
    return (weights.columns @ rows.reshape(len(rows), c, w, n)).swapaxes(0, 1)


class Resampling(Layer[Weights]):
    """A layer that is two matrices, which `weights` returns for images of one size."""

    __slots__ = ()

    @abstractmethod
    def out_size(self, in_size: tuple[int, int]) -> tuple[int, int]:
        """Return (oh, ow) of images (h, w)."""

    @abstractmethod
    def matrix(self, size: int, out: int) -> Array:
        """Return the weights (out, size) along one axis."""

    def out_shape(self, in_shape: Shape) -> Shape:
        if len(in_shape) != 3:
            raise ShapeError(f"needs an image (channels, height, width), got {show_shape(in_shape)}")
        c, h, w = in_shape
        return (c, *self.out_size((h, w)))

    def weights(self, in_shape: Shape, dtype: Any) -> Weights:
        _, *sizes = in_shape
        _, *outs = self.out_shape(in_shape)
        rows, columns = (self.matrix(size, out).astype(dtype) for size, out in zip(sizes, outs, strict=True))
        return Weights(rows, columns)

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Weights]:
        weights = self.weights(x.shape[:-1], x.real.dtype)
        return resample(x, weights), weights

    def backward(self, params: Params, residuals: Weights, dy: Array, ctx: Context) -> tuple[Array, Params]:
        return resample(dy, Weights(residuals.rows.T, residuals.columns.T)), {}

    def y_terms(self, at: LayerPass, index: Index) -> Terms:
        c, p, q, n = index
        weights: Weights = at.residuals
        terms = (
            Term(float(weights.rows[p, r] * weights.columns[q, s]), (Ref(0, (c, r, s, n)),))
            for r, s in _where(weights.rows[p], weights.columns[q])
        )
        return _told(f"y[{listed(index)}]", "x", tuple(terms))

    def dx_terms(self, at: LayerPass, k: int, index: Index) -> Terms:
        c, r, s, n = index
        weights: Weights = at.residuals
        terms = (
            Term(float(weights.rows[p, r] * weights.columns[q, s]), (Ref(OUTPUT, (c, p, q, n), "gradient"),))
            for p, q in _where(weights.rows[:, r], weights.columns[:, s])
        )
        return _told(f"dx[{listed(index)}]", "dy", tuple(terms))


def _where(rows: Array, columns: Array) -> Iterable[tuple[int, int]]:
    """Yield the places at which two vectors of weights are both not 0."""
    return ((int(r), int(s)) for r in np.flatnonzero(rows) for s in np.flatnonzero(columns))


def _told(cell: str, source: str, terms: tuple[Term, ...]) -> Terms:
    if not terms:
        return Terms(f"{cell} = 0, as no output reads this pixel", reason="not read")
    if len(terms) == 1 and terms[0].coefficient == 1:
        return Terms(f"{cell} = {source}[{listed(terms[0].factors[0].where)}]", terms)
    return Terms(f"{cell} = Σ a · {source} over {len(terms)} pixels, each with its share a", terms)


@register
@dataclass(frozen=True, slots=True)
class Upsample(Resampling):
    """Enlarge (or shrink) the image: by the nearest pixel, or by a weighted mean of the four nearest.

    With `nearest`, y[c, p, q] = x[c, ⌊p·h/oh⌋, ⌊q·w/ow⌋]. With `bilinear`, the row p lies at (p + ½)·h/oh − ½ in the
    image, or, with `align_corners`, at p·(h − 1)/(oh − 1), and takes the rows above and below it by their distance.

    References
    ----------
    PyTorch's `nn.Upsample`; ONNX's `Resize`.
    """

    scale: Size | None = None
    """How many times as large, by default 2: one number, or [vertical, horizontal], for example `2`."""
    size: Size | None = None
    """Height and width of the output, in place of a scale: one number, or [vertical, horizontal]."""
    mode: Mode = "nearest"
    """`nearest`, or `bilinear`."""
    align_corners: bool = False
    """Let the corner pixels of input and output lie on each other, for `bilinear`."""
    type: Literal["upsample"] = "upsample"
    is_linear = True

    def __post_init__(self) -> None:
        both = self.scale is not None and self.size is not None
        require(
            at_least(self, 1, "scale", "size"),
            [("scale", "expected either scale or size, not both")] if both else (),
            [("align_corners", "expected false with mode nearest")]
            if self.align_corners and self.mode == "nearest"
            else (),
        )

    def out_size(self, in_size: tuple[int, int]) -> tuple[int, int]:
        if self.size is not None:
            return pair(self.size)
        (h, w), (down, across) = in_size, pair(self.scale or 2)
        return h * down, w * across

    def matrix(self, size: int, out: int) -> Array:
        row = np.arange(out)
        matrix = np.zeros((out, size))
        if self.mode == "nearest":
            matrix[row, row * size // out] = 1
            return matrix
        if self.align_corners:
            place = row * ((size - 1) / (out - 1)) if out > 1 else np.zeros(1)
        else:
            place = np.maximum((row + 0.5) * (size / out) - 0.5, 0)
        above = np.minimum(place.astype(int), size - 1)
        below = np.minimum(above + 1, size - 1)
        np.add.at(matrix, (row, above), 1 - (place - above))
        np.add.at(matrix, (row, below), place - above)
        return matrix

    def onnx(self, in_shape: Shape) -> list[OnnxOperator]:
        place = "align_corners" if self.align_corners else "half_pixel"
        attributes = (
            {"mode": "linear", "coordinate_transformation_mode": place}
            if self.mode == "bilinear"
            else {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        )
        sizes = np.array(self.out_size((in_shape[1], in_shape[2])))
        return [OnnxOperator("Resize", ("x", "", "", sizes), attributes | {"axes": (2, 3)})]


@register
@dataclass(frozen=True, slots=True)
class AdaptiveAvgPool2d(Resampling):
    """Take the mean of each of oh × ow windows that cover the image, whatever its size.

    The window of row p reaches from ⌊p·h/oh⌋ to ⌈(p + 1)·h/oh⌉, and columns likewise: windows may overlap, and differ
    by a pixel. With `output_size: 1` it is the mean of each channel as an image of one pixel.

    References
    ----------
    PyTorch's `nn.AdaptiveAvgPool2d`.
    """

    output_size: Size
    """Height and width of the output: one number, or [vertical, horizontal], for example `7`."""
    type: Literal["adaptive_avg_pool2d"] = "adaptive_avg_pool2d"
    is_linear = True

    def __post_init__(self) -> None:
        require(at_least(self, 1, "output_size"))

    def out_size(self, in_size: tuple[int, int]) -> tuple[int, int]:
        return pair(self.output_size)

    def matrix(self, size: int, out: int) -> Array:
        window, pixel = np.arange(out)[:, None], np.arange(size)
        covered = (pixel >= window * size // out) & (pixel < -(-(window + 1) * size // out))
        return covered / covered.sum(1, keepdims=True)

    def onnx(self, in_shape: Shape) -> list[OnnxOperator]:
        _, h, w = in_shape
        oh, ow = pair(self.output_size)
        if (oh, ow) == (1, 1):
            return [OnnxOperator("GlobalAveragePool")]
        if h % oh == w % ow == 0:
            tiles = (h // oh, w // ow)
            return [OnnxOperator("AveragePool", attributes={"kernel_shape": tiles, "strides": tiles})]
        rows, columns = self.weights(in_shape, np.float64)
        return [OnnxOperator("MatMul", (rows, "x"), output="rows"), OnnxOperator("MatMul", ("rows", columns.T))]
