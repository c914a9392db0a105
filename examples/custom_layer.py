"""A layer of your own: PReLU, a ReLU that learns how much of the negative side it lets through.

    cnnbp gradcheck examples/custom_layer.yaml --layers examples/custom_layer.py
    cnnbp train examples/custom_layer.yaml --layers examples/custom_layer.py

or, from Python, `python examples/custom_layer.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

import cnnbp_cli as cnnbp
from cnnbp_cli.core.types import Array, Context, Layer, Params, Shape


@cnnbp.register
@dataclass(frozen=True, slots=True)
class PRelu(Layer[Array]):
    """Let a learned share of the negative values through, one for each channel.

        y = x where x > 0, else slope · x
        dx = dy · (1 or slope)
        dslope = Σ dy · min(x, 0) over positions and batch

    References
    ----------
    He et al. 2015, *Delving Deep into Rectifiers*, arXiv:1502.01852.
    """

    start: float = 0.25
    type: Literal["my_prelu"] = "my_prelu"
    is_activation = True  # what a layer may say about itself: docs/custom-layer.md
    rectifies = True

    def param_shapes(self, in_shape: Shape) -> dict[str, Shape]:
        return {"slope": in_shape[:1]}

    def init_params(self, rng: np.random.Generator, in_shape: Shape) -> Params:
        return {"slope": np.full(in_shape[:1], self.start)}

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Array]:
        slope = params["slope"].reshape(-1, *[1] * (x.ndim - 1))  # (c, 1, 1, 1): the batch is the last axis
        return np.where(x.real > 0, x, slope * x), x

    def backward(self, params: Params, residuals: Array, dy: Array, ctx: Context) -> tuple[Array, Params]:
        x = residuals
        slope = params["slope"].reshape(-1, *[1] * (x.ndim - 1))
        everything_but_channels = tuple(range(1, x.ndim))
        dslope = (dy * np.minimum(x, 0)).sum(everything_but_channels)
        return np.where(x > 0, dy, slope * dy), {"slope": dslope}

    def branches(self, residuals: Array) -> Array:
        return residuals.real > 0


def main() -> None:
    model = cnnbp.load(Path(__file__).with_suffix(".yaml"))
    data = cnnbp.load_data(model)
    images, labels = data.train.images[:4], data.train.labels[:4]
    report = cnnbp.gradcheck(model, data.normalization.apply(images, "float64"), labels)
    for check in report.parameters:
        print(f"{check.name:15} {check.status:6} {check.relative_error:.1e}")


if __name__ == "__main__":
    main()
