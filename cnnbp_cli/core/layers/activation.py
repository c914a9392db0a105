"""Activations: one scalar function for every unit, and softmax.

The class docstrings give y = f(x) and dx = dy · f'(x); branches compare real parts, so that each is
analytic along the imaginary axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, TypeVar

import numpy as np

from cnnbp_cli.core.erf import erf
from cnnbp_cli.core.layers.registry import register
from cnnbp_cli.core.rows import by_row, row_slices
from cnnbp_cli.core.terms import OUTPUT, Index, LayerPass, Ref, Term, Terms
from cnnbp_cli.core.traits import EVERYTHING, OnnxOperator
from cnnbp_cli.core.types import Array, Context, Layer, Params, Shape, at_least, require


def logistic(x: Array) -> Array:
    """Return 1 / (1 + exp(-x)) without overflow: the exponential is only taken of what is not positive."""
    positive = x.real >= 0
    e = np.exp(np.where(positive, -x, x))
    return np.where(positive, 1, e) / (1 + e)


def softmax(x: Array) -> Array:
    """Return exp(x) / Σ exp(x) over the first axis, without overflow."""
    e = np.exp(x - x.real.max(0))
    return e / e.sum(0)


R = TypeVar("R")


class Pointwise(Layer[R]):
    """A layer with one function for every cell, y = f(x) and dx = dy · f'(x).

    Its terms have the layer's own numbers: its passes, run on the one cell.
    """

    __slots__ = ()

    formulas: ClassVar[tuple[str, str]]
    """How y and dx are written."""
    straight: ClassVar[bool] = False
    """True when f is a straight line through 0 on either side of 0, so that y = f'(x) · x."""

    def _on(self, at: LayerPass, index: Index) -> tuple[float, float]:
        """Return y and the slope at one cell."""
        one = at.x[index].reshape((1,) * at.x.ndim)
        y, residuals = self.forward({}, one, Context())
        slope, _ = self.backward({}, residuals, np.ones_like(one), Context())
        assert slope is not None
        return y.item(), slope.item()

    def y_terms(self, at: LayerPass, index: Index) -> Terms:
        x = Ref(0, index)
        y, slope = self._on(at, index)
        numbers = {"x": at[x], "y": y}
        if not self.straight:
            return Terms(self.formulas[0], (Term(y),), (x,), numbers)
        if slope == 0:
            return Terms(self.formulas[0], (), (x,), numbers, "gate closed")
        return Terms(self.formulas[0], (Term(slope, (x,)),), (), numbers)

    def dx_terms(self, at: LayerPass, k: int, index: Index) -> Terms:
        x, dy = Ref(0, index), Ref(OUTPUT, index, "gradient")
        y, slope = self._on(at, index)
        numbers = {"x": at[x], "y": y, "slope": slope, "dy": at[dy], "dx": slope * at[dy]}
        if slope == 0:
            return Terms(self.formulas[1], (), (x, dy), numbers, "gate closed" if self.straight else "saturated")
        return Terms(self.formulas[1], (Term(slope, (dy,)),), (x,), numbers)


@register
@dataclass(frozen=True, slots=True)
class Relu(Pointwise[Array]):
    """y = max(x, 0), dx = dy where x > 0, else 0.

    References
    ----------
    Glorot, Bordes & Bengio 2011, *Deep Sparse Rectifier Neural Networks*.
    """

    type: Literal["relu"] = "relu"
    is_relu = True
    is_activation = True
    rectifies = True
    can_die = True
    formulas = ("{y} = max({x}, 0)", "{dx} = {dy} where {x} > 0, else 0")
    straight = True

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Array]:
        if np.iscomplexobj(x):
            y = np.where(x.real > 0, x, 0)
        else:
            y = np.maximum(x, 0, out=ctx.empty("y", x.shape, x.dtype))
        return y, y

    def backward(self, params: Params, residuals: Array, dy: Array, ctx: Context) -> tuple[Array, Params]:
        y = residuals
        dx = ctx.empty("dx", dy.shape, dy.dtype)
        dx_rows, dy_rows, y_rows = by_row(dx), by_row(dy), by_row(y.real)
        for some in row_slices(len(dy_rows), dy.nbytes):
            np.multiply(dy_rows[some], y_rows[some] > 0, out=dx_rows[some])
        return dx, {}

    def branches(self, residuals: Array) -> Array:
        return residuals.real > 0

    def output_range(self) -> tuple[float, float]:
        return 0.0, np.inf

    def onnx(self, in_shape: Shape) -> list[OnnxOperator]:
        return [OnnxOperator("Relu")]


@register
@dataclass(frozen=True, slots=True)
class LeakyRelu(Pointwise[Array]):
    """y = x where x > 0, else slope · x; dx = dy · (1 or slope).

    References
    ----------
    Maas, Hannun & Ng 2013, *Rectifier Nonlinearities Improve Neural Network Acoustic Models*.
    """

    slope: float = 0.01
    """The slope where x is negative."""
    type: Literal["leaky_relu"] = "leaky_relu"
    is_activation = True
    rectifies = True
    formulas = ("{y} = {x} · {slope}", "{dx} = {dy} · {slope}")
    straight = True

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Array]:
        return np.where(x.real > 0, x, self.slope * x), x

    def backward(self, params: Params, residuals: Array, dy: Array, ctx: Context) -> tuple[Array, Params]:
        x = residuals
        return np.where(x.real > 0, dy, self.slope * dy), {}

    def branches(self, residuals: Array) -> Array:
        return residuals.real > 0

    def output_range(self) -> tuple[float, float]:
        return EVERYTHING if self.slope > 0 else (0.0, np.inf)

    def onnx(self, in_shape: Shape) -> list[OnnxOperator]:
        return [OnnxOperator("LeakyRelu", attributes={"alpha": self.slope})]


@register
@dataclass(frozen=True, slots=True)
class Elu(Pointwise[tuple[Array, Array]]):
    """y = x where x > 0, else alpha · (exp(x) - 1); dx = dy · (1 or y + alpha).

    References
    ----------
    Clevert, Unterthiner & Hochreiter 2016, arXiv:1511.07289.
    """

    alpha: float = 1.0
    """Minus the limit for very negative x."""
    type: Literal["elu"] = "elu"
    is_activation = True
    rectifies = True
    formulas = ("{y} = {x} where {x} > 0, else alpha · (exp({x}) − 1)", "{dx} = {dy} · {slope}")

    def __post_init__(self) -> None:
        require(at_least(self, 0, "alpha"))

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, tuple[Array, Array]]:
        positive = x.real > 0
        y = np.where(positive, x, self.alpha * np.expm1(np.where(positive, 0, x)))
        return y, (positive, y)

    def backward(self, params: Params, residuals: tuple[Array, Array], dy: Array, ctx: Context) -> tuple[Array, Params]:
        positive, y = residuals
        return np.where(positive, dy, dy * (y + self.alpha)), {}

    def branches(self, residuals: tuple[Array, Array]) -> Array:
        return residuals[0]

    def output_range(self) -> tuple[float, float]:
        return -self.alpha, np.inf

    def onnx(self, in_shape: Shape) -> list[OnnxOperator]:
        return [OnnxOperator("Elu", attributes={"alpha": self.alpha})]


GELU_SCALE = float(np.sqrt(2 / np.pi))
GELU_CUBIC = 0.044715
SQRT_HALF = float(np.sqrt(0.5))


@register
@dataclass(frozen=True, slots=True)
class Gelu(Pointwise[tuple[Array, Array]]):
    """y = x · Φ(x), with Φ the normal distribution, or a tanh that comes close to it.

    With `approximate: tanh`, Φ(x) is (1 + t)/2 with t = tanh(u), u = √(2/π) · (x + 0.044715 x³), and

        dx = dy · ((1 + t)/2 + x/2 · (1 - t²) · √(2/π) · (1 + 3 · 0.044715 x²))

    With `none` it is (1 + erf(x/√2))/2, and dx = dy · (Φ(x) + x · exp(-x²/2)/√(2π)).

    References
    ----------
    Hendrycks & Gimpel 2016, arXiv:1606.08415; PyTorch's `nn.GELU`, whose default is `none`.
    """

    approximate: Literal["tanh", "none"] = "tanh"
    """`tanh`, or `none` for the error function itself."""
    type: Literal["gelu"] = "gelu"
    is_activation = True
    rectifies = True
    can_die = True
    formulas = ("{y} = {x} · Φ({x})", "{dx} = {dy} · {slope}")

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, tuple[Array, Array]]:
        if self.approximate == "tanh":
            t = np.tanh(GELU_SCALE * (x + GELU_CUBIC * (x * x * x)))
        else:
            t = erf(x * SQRT_HALF)
        return 0.5 * x * (1 + t), (x, t)

    def backward(self, params: Params, residuals: tuple[Array, Array], dy: Array, ctx: Context) -> tuple[Array, Params]:
        x, t = residuals
        if self.approximate == "tanh":
            dt = (1 - t * t) * (GELU_SCALE * (1 + 3 * GELU_CUBIC * (x * x)))
        else:
            dt = GELU_SCALE * np.exp(-0.5 * (x * x))
        return dy * (0.5 * (1 + t) + 0.5 * x * dt), {}

    def output_range(self) -> tuple[float, float]:
        return -0.1701, np.inf

    def onnx(self, in_shape: Shape) -> list[OnnxOperator]:
        return [OnnxOperator("Gelu", attributes={"approximate": self.approximate})]


@register
@dataclass(frozen=True, slots=True)
class Silu(Pointwise[tuple[Array, Array]]):
    """y = x · s with s = 1 / (1 + exp(-x)); dx = dy · s · (1 + x · (1 - s)).

    References
    ----------
    Elfwing, Uchibe & Doya 2018, arXiv:1702.03118.
    """

    type: Literal["silu"] = "silu"
    is_activation = True
    rectifies = True
    can_die = True
    formulas = ("{y} = {x} / (1 + exp(−{x}))", "{dx} = {dy} · {slope}")

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, tuple[Array, Array]]:
        s = logistic(x)
        return x * s, (x, s)

    def backward(self, params: Params, residuals: tuple[Array, Array], dy: Array, ctx: Context) -> tuple[Array, Params]:
        x, s = residuals
        return dy * s * (1 + x * (1 - s)), {}

    def output_range(self) -> tuple[float, float]:
        return -0.2785, np.inf

    def onnx(self, in_shape: Shape) -> list[OnnxOperator]:
        return [OnnxOperator("Sigmoid", output="gates"), OnnxOperator("Mul", ("x", "gates"))]


@register
@dataclass(frozen=True, slots=True)
class Sigmoid(Pointwise[Array]):
    """y = 1 / (1 + exp(-x)), dx = dy · y · (1 - y)."""

    type: Literal["sigmoid"] = "sigmoid"
    is_activation = True
    saturates = True
    formulas = ("{y} = 1 / (1 + exp(−{x}))", "{dx} = {dy} · {y} · (1 − {y})")

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Array]:
        y = logistic(x)
        return y, y

    def backward(self, params: Params, residuals: Array, dy: Array, ctx: Context) -> tuple[Array, Params]:
        y = residuals
        return dy * y * (1 - y), {}

    def output_range(self) -> tuple[float, float]:
        return 0.0, 1.0

    def onnx(self, in_shape: Shape) -> list[OnnxOperator]:
        return [OnnxOperator("Sigmoid")]


@register
@dataclass(frozen=True, slots=True)
class Tanh(Pointwise[Array]):
    """y = tanh(x), dx = dy · (1 - y²)."""

    type: Literal["tanh"] = "tanh"
    is_activation = True
    saturates = True
    formulas = ("{y} = tanh({x})", "{dx} = {dy} · (1 − {y}²)")

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Array]:
        y = np.tanh(x)
        return y, y

    def backward(self, params: Params, residuals: Array, dy: Array, ctx: Context) -> tuple[Array, Params]:
        y = residuals
        return dy * (1 - y * y), {}

    def output_range(self) -> tuple[float, float]:
        return -1.0, 1.0

    def onnx(self, in_shape: Shape) -> list[OnnxOperator]:
        return [OnnxOperator("Tanh")]


@register
@dataclass(frozen=True, slots=True)
class Softplus(Pointwise[Array]):
    """y = log(1 + exp(x)), dx = dy / (1 + exp(-x)).

    References
    ----------
    Dugas et al. 2001, *Incorporating Second-Order Functional Knowledge*.
    """

    type: Literal["softplus"] = "softplus"
    is_activation = True
    formulas = ("{y} = log(1 + exp({x}))", "{dx} = {dy} / (1 + exp(−{x}))")

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Array]:
        positive = x.real > 0
        small = np.log1p(np.exp(np.where(positive, -x, x)))
        return np.where(positive, x + small, small), x

    def backward(self, params: Params, residuals: Array, dy: Array, ctx: Context) -> tuple[Array, Params]:
        return dy * logistic(residuals), {}

    def output_range(self) -> tuple[float, float]:
        return 0.0, np.inf

    def onnx(self, in_shape: Shape) -> list[OnnxOperator]:
        return [OnnxOperator("Softplus")]


@register
@dataclass(frozen=True, slots=True)
class Softmax(Layer[Array]):
    """y_k = exp(x_k) / Σ_l exp(x_l) over channels (or features); dx = y · (dy - Σ_k y_k dy_k).

    References
    ----------
    Bridle 1990; Goodfellow et al., *Deep Learning*, section 6.2.2.3.
    """

    type: Literal["softmax"] = "softmax"
    is_activation = True
    is_distribution = True

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Array]:
        y = softmax(x)
        return y, y

    def backward(self, params: Params, residuals: Array, dy: Array, ctx: Context) -> tuple[Array, Params]:
        y = residuals
        return y * (dy - (y * dy).sum(0)), {}

    def output_range(self) -> tuple[float, float]:
        return 0.0, 1.0

    def onnx(self, in_shape: Shape) -> list[OnnxOperator]:
        return [OnnxOperator("Softmax", attributes={"axis": 1})]

    def y_terms(self, at: LayerPass, index: Index) -> Terms:
        k, *place = index
        xs = tuple(Ref(0, (j, *place)) for j in range(len(at.x)))
        numbers = {"x": at[xs[k]], "y": float(softmax(np.array([at[x] for x in xs]))[k])}
        return Terms("{y} = exp({x}) / Σ exp(x)", (Term(numbers["y"]),), xs, numbers)

    def dx_terms(self, at: LayerPass, k: int, index: Index) -> Terms:
        m, *place = index
        ys = [Ref(OUTPUT, (j, *place)) for j in range(len(at.y))]
        dys = [Ref(OUTPUT, (j, *place), "gradient") for j in range(len(at.y))]
        numbers = {"y": at[ys[m]], "dy": at[dys[m]], "sum": sum(at[y] * at[dy] for y, dy in zip(ys, dys, strict=True))}
        others = (Term(-1, (ys[m], y, dy)) for y, dy in zip(ys, dys, strict=True))
        return Terms(
            "dx = {y} · ({dy} − {sum}), where {sum} = Σ y · dy", (Term(1, (ys[m], dys[m])), *others), (), numbers
        )
