"""Convolution as a first homework: loops over the output, and mistakes to make on purpose.

cnnbp gradcheck examples/homework_conv.yaml --layers examples/homework_conv.py
cnnbp gradcheck examples/homework_conv.yaml --layers examples/homework_conv.py --set model.layers.conv.mistake=last_row
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

import cnnbp_cli as cnnbp
from cnnbp_cli.core.types import Array, Context, Layer, Params, Shape, ShapeError


@cnnbp.register
@dataclass(frozen=True, slots=True)
class HomeworkConv(Layer[Array]):
    """Slide a k × k kernel over the image, one output pixel after the other.

        y[f, p, q] = bias[f] + Σ_{c, i, j} weight[f, c, i, j] · x[c, p + i, q + j]
        dweight[f, c, i, j] = Σ_{p, q} dy[f, p, q] · x[c, p + i, q + j]
        dbias[f] = Σ_{p, q} dy[f, p, q]
        dx[c, p + i, q + j] += Σ_f weight[f, c, i, j] · dy[f, p, q]

    all of them summed over the batch but for dx.
    """

    filters: int
    k: int
    mistake: Literal["none", "flipped", "last_row", "mean", "sign"] = "none"
    type: Literal["homework_conv"] = "homework_conv"

    def out_shape(self, in_shape: Shape) -> Shape:
        _, h, w = in_shape
        if min(h, w) < self.k:
            raise ShapeError(f"needs an image of {self.k}×{self.k} at least")
        return (self.filters, h - self.k + 1, w - self.k + 1)

    def init_params(self, rng: np.random.Generator, in_shape: Shape) -> Params:
        weight = rng.normal(size=(self.filters, in_shape[0], self.k, self.k)) / self.k
        return {"weight": weight, "bias": np.zeros(self.filters)}

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Array]:
        weight, bias = params["weight"], params["bias"]
        f, oh, ow = self.out_shape(x.shape[:3])
        # Of a type that holds both x and the parameters: the gradient check makes one of them complex.
        y = np.empty((f, oh, ow, x.shape[3]), np.result_type(x, weight, bias))
        for p in range(oh):
            for q in range(ow):
                window = x[:, p : p + self.k, q : q + self.k]  # (c, k, k, n)
                y[:, p, q] = np.tensordot(weight, window, 3) + bias[:, None]
        return y, x

    def backward(self, params: Params, residuals: Array, dy: Array, ctx: Context) -> tuple[Array, Params]:
        weight, x = params["weight"], residuals
        _, oh, ow, _ = dy.shape
        dweight, dx = np.zeros_like(weight), np.zeros_like(x)
        for p in range(oh - (self.mistake == "last_row")):
            for q in range(ow):
                window = x[:, p : p + self.k, q : q + self.k]
                dweight += np.tensordot(dy[:, p, q], window, (1, 3))  # (f, n) and (c, k, k, n) over n
                dx[:, p : p + self.k, q : q + self.k] += np.tensordot(weight, dy[:, p, q], (0, 0))
        dbias = dy.mean((1, 2, 3)) if self.mistake == "mean" else dy.sum((1, 2, 3))
        if self.mistake == "flipped":
            dweight = dweight[:, :, ::-1, ::-1]
        if self.mistake == "sign":
            dx = -dx
        return dx, {"weight": dweight, "bias": dbias}
