"""Layers that only rearrange: from an image to a vector, and the layer that does nothing."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np

from cnnbp_cli.core.layers.registry import register
from cnnbp_cli.core.terms import OUTPUT, Index, LayerPass, Ref, Term, Terms, listed
from cnnbp_cli.core.traits import OnnxOperator
from cnnbp_cli.core.types import Array, Context, Layer, Params, Shape


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
