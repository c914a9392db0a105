"""Activations in straight pieces, which cost no exponential, and the rectifier that learns its slope."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from cnnbp_cli.core.layers.activation import Pointwise
from cnnbp_cli.core.layers.registry import register
from cnnbp_cli.core.terms import OUTPUT, Index, LayerPass, Reason, Ref, Term, Terms
from cnnbp_cli.core.traits import OnnxOperator
from cnnbp_cli.core.types import Array, Context, Layer, Params, Shape


def clip(x: Array, low: float, high: float) -> Array:
    """Return x between two bounds; of complex numbers, by their real part."""
    return np.where(x.real <= low, low, np.where(x.real >= high, high, x))


@register
@dataclass(frozen=True, slots=True)
class Relu6(Pointwise[Array]):
    """y = min(max(x, 0), 6), dx = dy where 0 < x < 6, else 0.

    References
    ----------
    Howard et al. 2017, *MobileNets*, arXiv:1704.04861.
    """

    type: Literal["relu6"] = "relu6"
    is_activation = True
    rectifies = True
    can_die = True
    formulas = ("{y} = min(max({x}, 0), 6)", "{dx} = {dy} where 0 < {x} < 6, else 0")

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Array]:
        return clip(x, 0, 6), x

    def backward(self, params: Params, residuals: Array, dy: Array, ctx: Context) -> tuple[Array, Params]:
        x = residuals
        return dy * ((x > 0) & (x < 6)), {}

    def branches(self, residuals: Array) -> Array:
        return np.digitize(residuals.real, (0, 6), right=True)

    def output_range(self) -> tuple[float, float]:
        return 0.0, 6.0

    def onnx(self, in_shape: Shape) -> list[OnnxOperator]:
        return [OnnxOperator("Clip", ("x", np.array(0.0), np.array(6.0)))]


@register
@dataclass(frozen=True, slots=True)
class HardSigmoid(Pointwise[Array]):
    """y = min(max(x/6 + 1/2, 0), 1), dx = dy/6 where -3 < x < 3, else 0.

    References
    ----------
    Howard et al. 2019, *Searching for MobileNetV3*, arXiv:1905.02244; PyTorch's `nn.Hardsigmoid`. Keras has another.
    """

    type: Literal["hard_sigmoid"] = "hard_sigmoid"
    is_activation = True
    saturates = True
    formulas = ("{y} = min(max({x}/6 + 1/2, 0), 1)", "{dx} = {dy}/6 where −3 < {x} < 3, else 0")

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Array]:
        return clip(x + 3, 0, 6) / 6, x

    def backward(self, params: Params, residuals: Array, dy: Array, ctx: Context) -> tuple[Array, Params]:
        return dy * (abs(residuals) < 3) / 6, {}

    def branches(self, residuals: Array) -> Array:
        return np.digitize(residuals.real, (-3, 3), right=True)

    def output_range(self) -> tuple[float, float]:
        return 0.0, 1.0

    def onnx(self, in_shape: Shape) -> list[OnnxOperator]:
        return [OnnxOperator("HardSigmoid", attributes={"alpha": 1 / 6, "beta": 0.5})]


@register
@dataclass(frozen=True, slots=True)
class HardSwish(Pointwise[Array]):
    """y = x · min(max(x + 3, 0), 6)/6; dx = 0 below -3, dy · (x/3 + 1/2) up to 3, dy beyond.

    References
    ----------
    Howard et al. 2019, *Searching for MobileNetV3*, arXiv:1905.02244; PyTorch's `nn.Hardswish`.
    """

    type: Literal["hard_swish"] = "hard_swish"
    is_activation = True
    rectifies = True
    can_die = True
    formulas = ("{y} = {x} · min(max({x} + 3, 0), 6)/6", "{dx} = {dy} · {slope}")

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Array]:
        return x * clip(x + 3, 0, 6) / 6, x

    def backward(self, params: Params, residuals: Array, dy: Array, ctx: Context) -> tuple[Array, Params]:
        x = residuals
        return dy * np.where(x <= -3, 0, np.where(x >= 3, 1, x / 3 + 0.5)), {}

    def branches(self, residuals: Array) -> Array:
        return np.digitize(residuals.real, (-3, 3), right=True)

    def output_range(self) -> tuple[float, float]:
        return -0.375, np.inf

    def onnx(self, in_shape: Shape) -> list[OnnxOperator]:
        return [OnnxOperator("HardSwish")]


@register
@dataclass(frozen=True, slots=True)
class PRelu(Layer[Array]):
    """y = x where x > 0, else weight · x, with a learned slope for each channel or one for all.

        dx = dy · (1 or weight)        dweight = Σ dy · x over everything where x is not above 0

    The parameter is `weight`: (c,), or (1,) with `shared`.

    References
    ----------
    He et al. 2015, *Delving Deep into Rectifiers*, arXiv:1502.01852; PyTorch's `nn.PReLU`.
    """

    start: float = 0.25
    """The slope before training."""
    shared: bool = False
    """One slope for all channels, as is PyTorch's default."""
    type: Literal["prelu"] = "prelu"
    is_activation = True

    def param_shapes(self, in_shape: Shape) -> dict[str, Shape]:
        return {"weight": (1,) if self.shared else in_shape[:1]}

    def init_params(self, rng: np.random.Generator, in_shape: Shape) -> Params:
        return {"weight": np.full(self.param_shapes(in_shape)["weight"], self.start)}

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Array]:
        return np.where(x.real > 0, x, self._along(params["weight"], x) * x), x

    def backward(self, params: Params, residuals: Array, dy: Array, ctx: Context) -> tuple[Array, Params]:
        x = residuals
        dx = np.where(x > 0, dy, self._along(params["weight"], x) * dy)
        dweight = np.where(x > 0, 0, dy * x).sum(tuple(range(1, x.ndim)))
        return dx, {"weight": dweight.sum(keepdims=True) if self.shared else dweight}

    def branches(self, residuals: Array) -> Array:
        return residuals.real > 0

    @staticmethod
    def _along(weight: Array, x: Array) -> Array:
        """Return the weight with an axis for each of x's."""
        return weight.reshape(-1, *(1,) * (x.ndim - 1))

    def _slope(self, index: Index) -> Ref:
        return Ref("weight", (0,) if self.shared else index[:1])

    def y_terms(self, at: LayerPass, index: Index) -> Terms:
        x, weight = Ref(0, index), self._slope(index)
        numbers = {"x": at[x], "weight": at[weight], "y": float(at.y[index])}
        if at[x] > 0:
            return Terms("{y} = {x}", (Term(1, (x,)),), (), numbers)
        return Terms("{y} = {weight} · {x}", (Term(1, (weight, x)),), (), numbers)

    def dx_terms(self, at: LayerPass, k: int, index: Index) -> Terms:
        x, weight, dy = Ref(0, index), self._slope(index), Ref(OUTPUT, index, "gradient")
        numbers = {"x": at[x], "weight": at[weight], "dy": at[dy]}
        if at[x] > 0:
            return Terms("dx = {dy}, as {x} > 0", (Term(1, (dy,)),), (x,), numbers)
        return Terms("dx = {weight} · {dy}", (Term(1, (weight, dy)),), (x,), numbers)

    def grad_terms(self, at: LayerPass, key: str, index: Index) -> Terms:
        channels = range(len(at.x)) if self.shared else index[:1]
        cells = [(c, *place) for c in channels for place in np.ndindex(at.x.shape[1:])]
        below = [cell for cell in cells if at.x[cell] <= 0]
        terms = (Term(1, (Ref(OUTPUT, cell, "gradient"), Ref(0, cell))) for cell in below)
        above = tuple(Ref(0, cell) for cell in cells if at.x[cell] > 0)
        reason: Reason | None = None if below else "gate closed"
        return Terms("dweight = Σ dy · x where x is not above 0", tuple(terms), above, reason=reason)

    def onnx(self, in_shape: Shape) -> list[OnnxOperator]:
        if len(in_shape) == 1:
            return [OnnxOperator("PRelu", ("x", "weight"))]
        slope = OnnxOperator("Unsqueeze", ("weight", np.array([1, 2])), output="slope")  # (c, 1, 1), as in (n, c, h, w)
        return [slope, OnnxOperator("PRelu", ("x", "slope"))]
