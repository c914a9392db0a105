"""Layers that only rearrange: an image into a vector, channels into pixels, and the layer that does nothing."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np

from cnnbp_cli.core.layers.registry import register
from cnnbp_cli.core.terms import OUTPUT, Index, LayerPass, Ref, Term, Terms, listed
from cnnbp_cli.core.traits import OnnxOperator
from cnnbp_cli.core.types import Array, Context, Layer, Params, Shape, ShapeError, at_least, require, show_shape


@register
@dataclass(frozen=True, slots=True)
class Flatten(Layer[Shape]):
    """Write an image (c, h, w) as one vector of c·h·w features, channel by channel and row by row."""

    type: Literal["flatten"] = "flatten"
    is_linear = True

    def out_shape(self, in_shape: Shape) -> Shape:
        return (prod(in_shape),)

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Shape]:
        y = ctx.empty("y", (prod(x.shape[:-1]), x.shape[-1]), x.dtype)
        np.copyto(y.reshape(x.shape), x)
        return y, x.shape

    def backward(self, params: Params, residuals: Shape, dy: Array, ctx: Context) -> tuple[Array, Params]:
        return dy.reshape(residuals), {}

    def onnx(self, in_shape: Shape) -> list[OnnxOperator]:
        return [OnnxOperator("Flatten")]

    def y_terms(self, at: LayerPass, index: Index) -> Terms:
        pixel = (*map(int, np.unravel_index(index[0], at.x.shape[:-1])), index[-1])
        return Terms(f"y[{index[0]}] = x[{listed(pixel)}]", (Term(1, (Ref(0, pixel),)),))

    def dx_terms(self, at: LayerPass, k: int, index: Index) -> Terms:
        feature = int(np.ravel_multi_index(index[:-1], at.x.shape[:-1]))
        return Terms(
            f"dx[{listed(index)}] = dy[{feature}]", (Term(1, (Ref(OUTPUT, (feature, index[-1]), "gradient"),)),)
        )


@register
@dataclass(frozen=True, slots=True)
class PixelShuffle(Layer[Shape]):
    """Make larger images of fewer channels: y[c, r·p + i, r·q + j] = x[c·r² + r·i + j, p, q], with r the `factor`.

    References
    ----------
    Shi et al. 2016, *Sub-Pixel Convolutional Neural Network*, arXiv:1609.05158; PyTorch's `nn.PixelShuffle`.
    """

    factor: int
    """How many times as high and as wide the image becomes, for example `2`."""
    type: Literal["pixel_shuffle"] = "pixel_shuffle"
    is_linear = True
    selects = True

    def __post_init__(self) -> None:
        require(at_least(self, 1, "factor"))

    def out_shape(self, in_shape: Shape) -> Shape:
        r = self.factor
        if len(in_shape) != 3:
            raise ShapeError(f"needs an image (channels, height, width), got {show_shape(in_shape)}")
        if in_shape[0] % (r * r):
            raise ShapeError(f"needs a number of channels that {r}² = {r * r} divides, got {in_shape[0]}")
        return (in_shape[0] // (r * r), r * in_shape[1], r * in_shape[2])

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Shape]:
        r, (c, h, w, n) = self.factor, x.shape
        blocks = x.reshape(c // (r * r), r, r, h, w, n).transpose(0, 3, 1, 4, 2, 5)  # (c/r², h, r, w, r, n)
        return blocks.reshape(*self.out_shape((c, h, w)), n), x.shape

    def backward(self, params: Params, residuals: Shape, dy: Array, ctx: Context) -> tuple[Array, Params]:
        r, (c, h, w, n) = self.factor, residuals
        blocks = dy.reshape(c // (r * r), h, r, w, r, n).transpose(0, 2, 4, 1, 3, 5)  # (c/r², r, r, h, w, n)
        return blocks.reshape(residuals), {}

    def y_terms(self, at: LayerPass, index: Index) -> Terms:
        r, (c, row, column, n) = self.factor, index
        (p, i), (q, j) = divmod(row, r), divmod(column, r)
        pixel = (c * r * r + r * i + j, p, q, n)
        return Terms(f"y[{listed(index)}] = x[{listed(pixel)}]", (Term(1, (Ref(0, pixel),)),))

    def dx_terms(self, at: LayerPass, k: int, index: Index) -> Terms:
        r, (channel, p, q, n) = self.factor, index
        c, rest = divmod(channel, r * r)
        i, j = divmod(rest, r)
        place = (c, r * p + i, r * q + j, n)
        return Terms(f"dx[{listed(index)}] = dy[{listed(place)}]", (Term(1, (Ref(OUTPUT, place, "gradient"),)),))

    def onnx(self, in_shape: Shape) -> list[OnnxOperator]:
        return [OnnxOperator("DepthToSpace", attributes={"blocksize": self.factor, "mode": "CRD"})]


@register
@dataclass(frozen=True, slots=True)
class Identity(Layer[None]):
    """Hand the input on as it is: a named place for a branch to start or to skip."""

    type: Literal["identity"] = "identity"
    is_linear = True

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, None]:
        return x, None

    def backward(self, params: Params, residuals: None, dy: Array, ctx: Context) -> tuple[Array, Params]:
        return dy, {}

    def y_terms(self, at: LayerPass, index: Index) -> Terms:
        return Terms("y = x", (Term(1, (Ref(0, index),)),))

    def dx_terms(self, at: LayerPass, k: int, index: Index) -> Terms:
        return Terms("dx = dy", (Term(1, (Ref(OUTPUT, index, "gradient"),)),))

    def memory(self, in_shape: Shape) -> int:
        return 0

    def onnx(self, in_shape: Shape) -> list[OnnxOperator]:
        return [OnnxOperator("Identity")]
