"""Dropout: random units are silent for one step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Literal

import numpy as np

from cnnbp_cli.core.layers.registry import register
from cnnbp_cli.core.rng import sample_words
from cnnbp_cli.core.terms import OUTPUT, Index, LayerPass, Ref, Term, Terms
from cnnbp_cli.core.traits import OnnxOperator
from cnnbp_cli.core.types import Array, Context, Layer, Params, Shape, require, within


@register
@dataclass(frozen=True, slots=True)
class Dropout(Layer[Array | None]):
    """Zero each unit with probability `rate` in training, and scale the others by 1 / (1 - rate).

        y = x · m        dx = dy · m        m = 0 or 1 / (1 - rate), drawn afresh each step

    The scale keeps the mean, so evaluation is the identity. A sample's mask depends on the seed, the
    step, the node and the sample's place in the batch, not on the worker that computes it.

    References
    ----------
    Srivastava et al. 2014, *Dropout*, JMLR 15.
    """

    rate: float
    """The probability with which a unit is zero, for example `0.5`."""
    type: Literal["dropout"] = "dropout"
    is_linear = True

    def __post_init__(self) -> None:
        require(within(self, 0, 1, "rate", open_high=True))

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Array | None]:
        if not ctx.training or self.rate == 0:
            return x, None
        *features, n = x.shape
        words = sample_words(
            ctx.seed, "dropout", ctx.node, ctx.step, start=ctx.first_sample, count=n, size=prod(features)
        )  # (n, units)
        kept = np.ascontiguousarray((words >= round(self.rate * 2**16)).T).reshape(x.shape)
        dtype = x.real.dtype
        mask = np.multiply(kept, dtype.type(1 / (1 - self.rate)), out=ctx.empty("mask", x.shape, dtype))
        return np.multiply(x, mask, out=ctx.empty("y", x.shape, x.dtype)), mask

    def backward(self, params: Params, residuals: Array | None, dy: Array, ctx: Context) -> tuple[Array, Params]:
        if residuals is None:
            return dy, {}
        return np.multiply(dy, residuals, out=ctx.over(dy)), {}

    def drawn_mask(self, residuals: Array | None) -> Array | None:
        return residuals

    def without_noise(self) -> Dropout:
        return replace(self, rate=0.0)

    def onnx(self, in_shape: Shape) -> list[OnnxOperator]:
        return [OnnxOperator("Identity")]

    def y_terms(self, at: LayerPass, index: Index) -> Terms:
        return self._masked("y", Ref(0, index), at)

    def dx_terms(self, at: LayerPass, k: int, index: Index) -> Terms:
        return self._masked("dx", Ref(OUTPUT, index, "gradient"), at)

    def _masked(self, name: str, source: Ref, at: LayerPass) -> Terms:
        mask = 1.0 if at.residuals is None else float(at.residuals[source.where])
        read = "x" if name == "y" else "dy"
        numbers = {read: at[source], "m": mask, name: at[source] * mask}
        formula = f"{{{name}}} = {{{read}}} · {{m}}"
        if mask == 0:
            return Terms(formula, (), (source,), numbers, "dropped")
        return Terms(formula, (Term(mask, (source,)),), (), numbers)
