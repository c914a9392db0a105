"""A node of the graph: an operation under a name, called in one way whether it takes one input or several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cnnbp_cli.core.types import Array, Context, Operation, Params, Shape


@dataclass(frozen=True, slots=True)
class Node:
    """A layer at its place: what it is called and whose outputs it reads.

    A frozen layer, with `trainable` false, keeps its parameters, and its running statistics too: a frozen batch norm
    normalizes by them, as in evaluation.

    One layer may stand at several nodes. One of them owns its parameters, and the others share them: `shares` is the
    owner's name.
    """

    name: str
    layer: Operation[Any]
    inputs: tuple[str, ...]
    trainable: bool = True
    shares: str = ""

    @property
    def owner(self) -> str:
        """The node whose parameters it computes with: itself, unless it shares those of another."""
        return self.shares or self.name

    def out_shape(self, in_shapes: Sequence[Shape]) -> Shape:
        """Return the shape of one output sample; raise `ShapeError` when the inputs do not fit."""
        return self.layer.node_out_shape(in_shapes)

    def param_shapes(self, in_shapes: Sequence[Shape]) -> dict[str, Shape]:
        """Return the shapes of the parameters and of the state."""
        return self.layer.param_shapes(in_shapes[0])

    def trainable_shapes(self, in_shapes: Sequence[Shape]) -> dict[str, Shape]:
        """Return the shapes of the parameters that training changes by their gradients."""
        shapes = self.param_shapes(in_shapes) if self.trainable else {}
        return {key: shape for key, shape in shapes.items() if key not in self.layer.state}

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
        self,
        params: Params,
        xs: Sequence[Array],
        ctx: Context,
        *,
        then_relu: bool = False,
        then_add: Array | None = None,
    ) -> tuple[Array, Any]:
        """Return the output for the inputs and what `backward` will need."""
        return self.layer.node_forward(params, xs, self._context(ctx, then_relu=then_relu, then_add=then_add))

    def backward(
        self,
        params: Params,
        residuals: Any,
        dy: Array,
        ctx: Context,
        *,
        wants_dx: bool = True,
        after_relu: bool = False,
        plus: Array | None = None,
        dy_is_free: bool = False,
    ) -> tuple[tuple[Array | None, ...], Params]:
        """Return the gradient to each input and the gradients to the parameters, from `dy` at the output."""
        here = self._context(ctx, wants_dx=wants_dx, after_relu=after_relu, plus=plus, dy_is_free=dy_is_free)
        dxs, grads = self.layer.node_backward(params, residuals, dy, here)
        return dxs, grads if self.trainable else {}

    def next_state(self, params: Params, residuals: Any) -> Params:
        """Return what changes without a gradient, such as running statistics, as it is after this step."""
        return self.layer.next_state(params, residuals) if self.layer.state and self.trainable else {}

    def _context(self, ctx: Context, **how: Any) -> Context:
        frozen = bool(self.layer.state) and not self.trainable
        return ctx.at(self.name, training=ctx.training and not frozen, **how)
