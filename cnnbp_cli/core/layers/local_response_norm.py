"""Local response normalization: each channel is divided by what the channels beside it say, as in AlexNet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from cnnbp_cli.core.layers.registry import register
from cnnbp_cli.core.terms import OUTPUT, Index, LayerPass, Ref, Term, Terms, listed
from cnnbp_cli.core.traits import OnnxOperator
from cnnbp_cli.core.types import Array, Context, Layer, Params, Shape, at_least, require, within


class ResponseResiduals(NamedTuple):
    x: Array
    scale: Array  # k + alpha/size · Σ x²


@register
@dataclass(frozen=True, slots=True)
class LocalResponseNorm(Layer[ResponseResiduals]):
    """Divide each value by a power of the squares at its place in the `size` channels around it.

        s[c] = k + alpha/size · Σ_{j around c} x[j]²        y[c] = x[c] · s[c]^−beta
        dx[c] = dy[c] · s[c]^−beta − 2 · alpha · beta/size · x[c] · Σ_{j around c} dy[j] · y[j] / s[j]

    References
    ----------
    Krizhevsky et al. 2012, *ImageNet Classification with Deep CNNs*, section 3.3, which has alpha where PyTorch's
    `nn.LocalResponseNorm` and ONNX's `LRN` have alpha/size, as is done here.
    """

    size: int
    """Channels that count, the own one in their middle: an odd number, for example `5`."""
    alpha: float = 1e-4
    """The factor of the mean square."""
    beta: float = 0.75
    """The power."""
    k: float = 1.0
    """What is added."""
    type: Literal["local_response_norm"] = "local_response_norm"

    def __post_init__(self) -> None:
        require(
            at_least(self, 1, "size"),
            [("size", f"expected an odd number, got {self.size}")] if self.size > 0 and self.size % 2 == 0 else (),
            at_least(self, 0, "alpha", "beta"),
            within(self, 0, np.inf, "k", open_low=True),
        )

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, ResponseResiduals]:
        scale = self.k + self.alpha / self.size * self._around(x * x)
        return x * scale**-self.beta, ResponseResiduals(x, scale)

    def backward(self, params: Params, residuals: ResponseResiduals, dy: Array, ctx: Context) -> tuple[Array, Params]:
        x, scale = residuals
        power = scale**-self.beta
        passed = self._around(dy * x * power / scale)
        return dy * power - (2 * self.alpha * self.beta / self.size) * x * passed, {}

    def _around(self, values: Array) -> Array:
        """Return the sum over the channels around each."""
        total = values.copy()
        for off in range(1, min(self.size // 2, len(values) - 1) + 1):
            total[off:] += values[:-off]
            total[:-off] += values[off:]
        return total

    def _channels(self, at: LayerPass, index: Index) -> Iterator[Index]:
        """Yield the cells around one, itself among them."""
        c, reach = index[0], self.size // 2
        return ((j, *index[1:]) for j in range(max(0, c - reach), min(len(at.x), c + reach + 1)))

    def y_terms(self, at: LayerPass, index: Index) -> Terms:
        scale = float(at.residuals.scale[index])
        others = tuple(Ref(0, cell) for cell in self._channels(at, index) if cell != index)
        x = Ref(0, index)
        numbers = {"x": at[x], "s": scale, "y": float(at.y[index])}
        return Terms(f"{{y}} = {{x}} · {{s}}^−{self.beta:g}", (Term(scale**-self.beta, (x,)),), others, numbers)

    def dx_terms(self, at: LayerPass, k: int, index: Index) -> Terms:
        x, scale = at.x, at.residuals.scale
        own = Term(float(scale[index] ** -self.beta), (Ref(OUTPUT, index, "gradient"),))
        factor = -2 * self.alpha * self.beta / self.size * float(x[index])
        cells = list(self._channels(at, index))
        through = (
            Term(factor * float(x[cell] * scale[cell] ** (-self.beta - 1)), (Ref(OUTPUT, cell, "gradient"),))
            for cell in cells
        )
        formula = (
            f"dx[{listed(index)}] = dy · s^−{self.beta:g} − {2 * self.alpha * self.beta / self.size:.4g} · x · "
            f"Σ dy · y / s over {len(cells)} channels"
        )
        return Terms(formula, (own, *through), tuple(Ref(0, cell) for cell in cells))

    def onnx(self, in_shape: Shape) -> list[OnnxOperator]:
        attributes = {"size": self.size, "alpha": self.alpha, "beta": self.beta, "bias": self.k}
        if len(in_shape) == 3:
            return [OnnxOperator("LRN", attributes=attributes)]
        image = OnnxOperator("Unsqueeze", ("x", np.array([2, 3])), output="image")
        return [image, OnnxOperator("LRN", ("image",), attributes, "normed"), OnnxOperator("Flatten", ("normed",))]
