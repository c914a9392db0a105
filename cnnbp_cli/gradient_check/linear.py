"""How a change passes through a linear layer: in real numbers, at a quarter of the cost of a complex product.

With weights that stay, the imaginary part of conv(x + i·h·v) + b is conv(h·v); with an image that stays, that of a
change of the weights is its convolution with x. The real part, which nobody reads, and the products of imaginary zeros
are most of the work. Whether a layer is linear it says itself, and it is not believed:
once for each layer, and where it stands, the result is compared with a complex step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cnnbp_cli.core.graph import Node
from cnnbp_cli.core.rng import generator
from cnnbp_cli.core.types import Array, Context, Params

STEP = 2.0**-100
CONSTANT = "bias"
"""The parameter that is added to the output, whatever the input is."""
AGREES = 1e-12  # relative to the largest; the two round differently


class LinearLayers:
    """Carries changes through the linear layers of one pass, in float64."""

    def __init__(self, params: Mapping[str, Params], values: Mapping[str, Array], ctx: Context) -> None:
        self._params, self._values, self._ctx = params, values, ctx
        self._is_linear: dict[tuple[str, str], bool] = {}

    def carry(self, node: Node, changes: Sequence[Array | None], dparams: Params) -> Array | None:
        """Return the change of a node's output, given that of its input, or of one of its parameters.

        None where it is not known to be linear in what moves.
        """
        layer = node.layer
        if len(changes) != 1 or not layer.is_linear or layer.state or layer.without_noise() is not layer:
            return None
        (change,) = changes
        key = next(iter(dparams), "")
        if key == CONSTANT or (change is None) == (not dparams):
            return None
        if (node.name, key) not in self._is_linear:
            self._is_linear[node.name, key] = self._test(node, key)
        if not self._is_linear[node.name, key]:
            return None
        return self._forward(node, key, STEP * dparams[key] if key else change)

    def _forward(self, node: Node, key: str, change: Array | None) -> Array:
        """Return the output for a change in place of what changes, without what is added to every output."""
        own = self._params.get(node.owner, {})
        params: Any = {name: np.zeros_like(value) if name == CONSTANT else value for name, value in own.items()}
        x: Any = self._values[node.inputs[0]] if key else change
        return node.forward(params | {key: change} if key else params, [x], self._ctx)[0]

    def _test(self, node: Node, key: str) -> bool:
        x, params = self._values[node.inputs[0]], self._params.get(node.owner, {})
        change = STEP * generator(0, "gradcheck", "linear", node.name, key).normal(
            size=(params[key] if key else x).shape
        )
        moved = params | {key: params[key] + 1j * change} if key else params
        complex_step = node.forward(moved, [x if key else x + 1j * change], self._ctx)[0].imag
        apart = np.abs(complex_step - self._forward(node, key, change)).max(initial=0)
        return bool(apart <= AGREES * np.abs(complex_step).max(initial=0))
