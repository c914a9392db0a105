"""The dense (fully connected) layer: one matrix product."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from cnnbp_cli.core.initializers import AnyInitializer, HeNormal
from cnnbp_cli.core.layers.registry import register
from cnnbp_cli.core.terms import OUTPUT, Index, LayerPass, Ref, Term, Terms, over_images
from cnnbp_cli.core.traits import OnnxOperator
from cnnbp_cli.core.types import Array, Context, Layer, Params, Shape, ShapeError, at_least, require, show_shape


@register
@dataclass(frozen=True, slots=True)
class Dense(Layer[Array]):
    """Weigh every input for every unit, and add a bias.

    With samples as columns,

        y = W @ x + b        dx = Wᵀ @ dy        dW = dy @ xᵀ        db = Σ_n dy

    Parameters are `weight` (units, features) and `bias` (units,).

    References
    ----------
    Goodfellow et al., *Deep Learning*, section 6.5.
    """

    units: int
    """Outputs, for example `10`."""
    bias: bool = True
    """Add a learned number to each output."""
    init: AnyInitializer | None = None
    """How the weights start; by default as `model.init` says, for example `glorot_uniform`."""
    type: Literal["dense"] = "dense"
    is_linear = True
    applies_relu = True
    masks_relu = True

    def __post_init__(self) -> None:
        require(at_least(self, 1, "units"))

    def out_shape(self, in_shape: Shape) -> Shape:
        if len(in_shape) != 1:
            raise ShapeError(
                f"needs a vector, got an image of {show_shape(in_shape)}: "
                "put flatten, global_avg_pool2d or global_max_pool2d before it"
            )
        return (self.units,)

    def param_shapes(self, in_shape: Shape) -> dict[str, Shape]:
        return {"weight": (self.units, in_shape[0])} | ({"bias": (self.units,)} if self.bias else {})

    def init_params(self, rng: np.random.Generator, in_shape: Shape) -> Params:
        weight = (self.init or HeNormal())(rng, (self.units, in_shape[0]), in_shape[0], self.units)
        return {"weight": weight} | ({"bias": np.zeros(self.units)} if self.bias else {})

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Array]:
        weight = params["weight"]
        y = ctx.empty("y", (self.units, x.shape[1]), np.result_type(x, *params.values()))
        np.matmul(weight, x, out=y)
        if self.bias:
            y += params["bias"][:, None]
        if ctx.then_relu:
            np.maximum(y, 0, out=y)
        return y, x

    def backward(self, params: Params, residuals: Array, dy: Array, ctx: Context) -> tuple[Array | None, Params]:
        x = residuals
        dx = None
        if ctx.wants_dx:
            dx = np.matmul(params["weight"].T, dy, out=ctx.empty("dx", x.shape, dy.dtype))
            if ctx.after_relu:
                dx *= x > 0
        grads = {"weight": np.matmul(dy, x.T, out=ctx.empty("weight", params["weight"].shape, dy.dtype))}
        if self.bias:
            grads["bias"] = dy.sum(1)
        return dx, grads

    def y_terms(self, at: LayerPass, index: Index) -> Terms:
        k, n = index
        bias = (Term(1, (Ref("bias", (k,)),)),) if self.bias else ()
        products = (Term(1, (Ref("weight", (k, m)), Ref(0, (m, n)))) for m in range(len(at.x)))
        return Terms(f"y[{k}] = {f'bias[{k}] + ' if self.bias else ''}Σ weight[{k}, m] · x[m]", (*bias, *products))

    def dx_terms(self, at: LayerPass, k: int, index: Index) -> Terms:
        m, n = index
        products = (Term(1, (Ref("weight", (j, m)), Ref(OUTPUT, (j, n), "gradient"))) for j in range(self.units))
        return Terms(f"dx[{m}] = Σ weight[k, {m}] · dy[k]", tuple(products))

    def grad_terms(self, at: LayerPass, key: str, index: Index) -> Terms:
        k = index[0]
        dys = [Ref(OUTPUT, (k, n), "gradient") for n in at.images]
        if key == "bias":
            return Terms(f"dbias[{k}] = {over_images(at)}dy[{k}]", tuple(Term(1, (dy,)) for dy in dys))
        products = (Term(1, (dy, Ref(0, (index[1], n)))) for n, dy in enumerate(dys))
        return Terms(f"dweight[{k}, {index[1]}] = {over_images(at)}dy[{k}] · x[{index[1]}]", tuple(products))

    def macs(self, in_shape: Shape) -> int:
        return self.units * in_shape[0]

    def onnx(self, in_shape: Shape) -> list[OnnxOperator]:
        return [OnnxOperator("Gemm", ("x", "weight", *["bias"] * self.bias), {"transB": 1})]
