"""A node of the graph: an operation under a name, called in one way whether it takes one input or several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cnnbp_cli.core.types import Array, Context, Operation, Params, Shape


@dataclass(frozen=True, slots=True)
class Node:
    """A layer at its place: what it is called and whose outputs it reads."""

    name: str
    layer: Operation[Any]
    inputs: tuple[str, ...]

    def out_shape(self, in_shapes: Sequence[Shape]) -> Shape:
        """Return the shape of one output sample; raise `ShapeError` when the inputs do not fit."""
        return self.layer.node_out_shape(in_shapes)

    def param_shapes(self, in_shapes: Sequence[Shape]) -> dict[str, Shape]:
        """Return the shapes of the parameters and of the state."""
        return self.layer.param_shapes(in_shapes[0])

    def init_params(self, rng: np.random.Generator, in_shapes: Sequence[Shape]) -> Params:
        """Draw fresh parameters, in float64; `{}` when there are none."""
        return self.layer.init_params(rng, in_shapes[0])

    def memory(self, in_shapes: Sequence[Shape]) -> int:
        """Return how many numbers are held for one sample, at the least; 0 where the output is the input."""
        return self.layer.node_memory(in_shapes)

    def macs(self, in_shapes: Sequence[Shape]) -> int:
        """Return the multiply-accumulate operations of one sample's forward pass."""
        return self.layer.macs(in_shapes[0])

    def forward(
        self, params: Params, xs: Sequence[Array], ctx: Context, *, then_relu: bool = False
    ) -> tuple[Array, Any]:
        """Return the output for the inputs and what `backward` will need."""
        return self.layer.node_forward(params, xs, ctx.at(self.name, then_relu=then_relu))

    def backward(
        self,
        params: Params,
        residuals: Any,
        dy: Array,
        ctx: Context,
        *,
        wants_dx: bool = True,
        after_relu: bool = False,
    ) -> tuple[tuple[Array | None, ...], Params]:
        """Return the gradient to each input and the gradients to the parameters, from `dy` at the output."""
        here = ctx.at(self.name, wants_dx=wants_dx, after_relu=after_relu)
        return self.layer.node_backward(params, residuals, dy, here)
