"""Where a gradient is checked: one forward and backward pass, and what the methods of checking share.

A method perturbs one tensor of a `ReferencePass` and follows the change to the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import DTypeLike

from cnnbp_cli.core.backprop import Part, backpropagate
from cnnbp_cli.core.graph import INPUT, Node
from cnnbp_cli.core.losses import total_loss
from cnnbp_cli.core.rng import generator
from cnnbp_cli.core.types import Array, Context, Params
from cnnbp_cli.gradient_check.layer_derivative import LayerDerivatives
from cnnbp_cli.gradient_check.linear import LinearLayers
from cnnbp_cli.model import Model

Status = Literal["ok", "kink", "noise", "wrong"]
SEVERITY: tuple[Status, ...] = ("ok", "noise", "kink", "wrong")

Index = tuple[int, ...]

NEARBY = 0.1
"""How far `ReferencePass.nearby` moves, relative to the root mean square of a tensor: far enough for the outputs that
lay on kinks to spread, so that a step of central differences rarely meets another kink."""
NEARLY_ZERO = 1e-3
"""A tensor of a smaller root mean square, such as fresh biases, moves by `NEARBY` itself."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The two derivatives of the loss along one direction, or to one element.

    Attributes
    ----------
    analytic, numeric : float
    error : float
        Relative, as the method defines it.
    status : {"ok", "kink", "noise", "wrong"}
    index : tuple of int or None
        The element; None for a direction.
    reference : ReferencePass
        Where.
    """

    analytic: float
    numeric: float
    error: float
    status: Status
    index: Index | None
    reference: ReferencePass

    @property
    def severity(self) -> tuple[int, float]:
        """Largest for the worst of several comparisons."""
        return SEVERITY.index(self.status), self.error

    @property
    def is_conclusive(self) -> bool:
        """Whether it says something about the gradient, for it or against it."""
        return self.status in ("ok", "wrong")


class Method(Protocol):
    """A way to find the derivative numerically, around one reference pass."""

    @property
    def reference(self) -> ReferencePass: ...

    def compare(self, name: str, direction: Array, index: Index | None) -> Comparison:
        """Compare the two derivatives of the loss along a direction in one tensor."""
        ...


class ReferencePass:
    """One forward and backward pass, whose tensors are then perturbed one at a time.

    Parameters
    ----------
    model : Model
    x : Array, shape (c, h, w, n)
    target : Array
    mode : {"training", "evaluation"}
    dtype : float64 or float32
    params : mapping of str to Params, optional
        Other parameters than the model's; they are used as they are, if they are of that type.

    Attributes
    ----------
    values : dict of str to Array
        Every node's output, and ``"input"``.
    output_gradients : dict of str to Array
        The gradient of the mean loss at every node's output, and ``"input"``.
    gradients : dict of str to Array
        Those to the parameters by name, in layer order, and to ``"input"``.
    nodes : dict of str to Node
    loss_value : float
        The mean loss: the weighted sum, where there are several.
    """

    def __init__(
        self,
        model: Model,
        x: Array,
        target: Array,
        mode: str,
        dtype: DTypeLike = np.float64,
        params: Mapping[str, Params] | None = None,
    ) -> None:
        self.mode = mode
        self._model, self._x, self._target = model, x, target
        self.graph, self.losses = model.graph, model.losses
        self.target = target.astype(dtype) if target.dtype.kind == "f" else target
        self.ctx = Context(training=mode == "training", seed=model.config.seed)
        self.params: dict[str, Params] = {
            node: {key: value.astype(dtype, copy=params is None) for key, value in own.items()}
            for node, own in (params or model.params).items()
        }
        self.nodes: dict[str, Node] = {node.name: node for node in self.graph.nodes}
        self.values: dict[str, Array] = {INPUT: x.astype(dtype)}
        self.output_gradients: dict[str, Array] = {}
        x = self.values[INPUT]
        found = backpropagate(self.graph, self.losses, self.params, x, self.target, self.ctx, observe=self._keep)
        self.tape, self.loss_value = found.tape, found.loss
        self.sums, self.counts = found.loss_sums, found.loss_counts
        assert found.dx is not None
        grads = {f"{node}.{key}": g for node, own in found.grads.items() for key, g in own.items()}
        self.gradients = grads | {INPUT: found.dx}

    def _keep(self, part: Part, layer: str, *arrays: Array) -> None:
        """Keep every output, and the gradient that arrives at it."""
        if part == "forward":
            (self.values[layer],) = arrays
        elif part == "backward":
            (self.output_gradients[layer],) = arrays

    @cached_property
    def derivatives(self) -> LayerDerivatives:
        """The derivatives of single layers, in double precision."""
        double = self.in_double()
        return LayerDerivatives(double.graph, double.params, double.values, double.ctx)

    @cached_property
    def last_reader(self) -> dict[str, str]:
        """The last node that reads each output."""
        return {name: node.name for node in self.graph.nodes for name in node.inputs}

    @cached_property
    def linear(self) -> LinearLayers:
        """What carries changes through linear layers, in double precision."""
        return LinearLayers(self.params, self.values, self.ctx)

    def in_double(self) -> ReferencePass:
        """Return the same pass in float64."""
        if self.values[INPUT].dtype == np.float64:
            return self
        return ReferencePass(self._model, self._x, self._target, self.mode, params=self.params)

    def nearby(self, seed: int) -> ReferencePass:
        """Return a pass with all pixels and trainable parameters moved off the kinks that lie here."""

        def moved(value: Array, *name: str) -> Array:
            size = float(np.sqrt(np.mean(value * value)))
            size = size if size > NEARLY_ZERO else 1.0
            return value + NEARBY * size * generator(seed, "gradcheck", "nearby", *name).normal(size=value.shape)

        params = {
            node: own | {key: moved(own[key], node, key) for key in self.graph.trainable[node]}
            for node, own in self.params.items()
        }
        x = moved(self.values[INPUT], INPUT)
        return ReferencePass(self._model, x, self._target, self.mode, self.values[INPUT].dtype, params)

    def starts(self, name: str) -> list[str]:
        """Return the outputs that a tensor goes into directly: of its layer, at each use, or ``"input"`` itself."""
        return [INPUT] if name == INPUT else [node.name for node in self.graph.uses[name.rpartition(".")[0]]]

    def moved(self, name: str, step: Array) -> tuple[str | None, Mapping[str, Params], dict[str, Array]]:
        """Move one tensor by `step`.

        Returns
        -------
        owner : str or None
            The layer that it is a parameter of; None for the image.
        params : mapping of str to Params
            Of all layers.
        changed : dict of str to Array
            The image, if it is that.
        """
        owner, _, key = name.rpartition(".")
        if name == INPUT:
            return None, self.params, {INPUT: self.values[INPUT] + step}
        own = self.params[owner]
        return owner, self.params | {owner: own | {key: own[key] + step}}, {}

    def compute(self, node: Node, params: Params, xs: list[Array]) -> tuple[Array, Any]:
        """Return a node's output and residuals for parameters or inputs other than those of this pass."""
        return node.forward(params, xs, self.ctx)

    def own_backward(self, node: Node) -> tuple[tuple[Array | None, ...], Params]:
        """Return the gradients to a node's inputs and to its parameters, given the gradient at its output."""
        return self.backward(node, self.tape.residuals[node.name], self.output_gradients[node.name])

    def backward(self, node: Node, residuals: Any, dy: Array) -> tuple[tuple[Array | None, ...], Params]:
        """Return the same for another forward pass and another gradient at the output."""
        return node.backward(self.params.get(node.owner, {}), residuals, dy, self.ctx)

    def equals(self, other: ReferencePass) -> bool:
        """Tell whether another pass has the same outputs and gradients, bit by bit."""
        pairs = ((self.values, other.values), (self.gradients, other.gradients))
        return all(np.array_equal(mine[name], theirs[name], equal_nan=True) for mine, theirs in pairs for name in mine)

    def mean_loss(self, changed: Mapping[str, Array]) -> Any:
        """Return the mean loss with some outputs replaced."""
        zs = (changed.get(one.layer, self.values[one.layer]) for one in self.losses)
        sums = [one.loss.forward(z, self.target)[0] for one, z in zip(self.losses, zs, strict=True)]
        return total_loss(self.losses, sums, self.counts)

    def loss_gradient(self, k: int) -> Array:
        """Return what the k-th loss alone sends back to its layer's output."""
        one = self.losses[k]
        _, residuals = one.loss.forward(self.values[one.layer], self.target)
        return one.weight * (one.loss.backward(residuals) / self.counts[k])

    def branches(self) -> dict[str, Array]:
        """Return the discrete decisions of the pass, by node."""
        found = {node: self.nodes[node].layer.branches(residuals) for node, residuals in self.tape.residuals.items()}
        return {node: taken for node, taken in found.items() if taken is not None}


def along(gradient: Array, direction: Array) -> float:
    """Return the derivative along a direction that a gradient implies."""
    derivative = float((gradient * direction).sum())
    if np.isfinite(derivative):
        return derivative
    moved = direction != 0  # elements that are not finite elsewhere do not matter
    return float((gradient[moved] * direction[moved]).sum())


def joint_direction(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Return a direction that moves all pixels of a channel of an image by the same.

    Pixels that tie for a maximum then go on to tie, which leaves no choice of a subgradient.
    """
    spread = (shape[0], *(1 for _ in shape[1:-1]), shape[-1]) if len(shape) > 2 else shape
    return np.broadcast_to(rng.normal(size=spread), shape).copy()


def bisect(weights: Array, severity: Callable[[Array], Any]) -> Index:
    """Return an element where two derivatives differ.

    Each round keeps the half of the elements along which the derivatives differ more, by `severity` of a direction
    that has the `weights` of the half and is zero elsewhere.
    """
    suspects = np.arange(weights.size)

    def half_severity(chosen: Array) -> Any:
        direction = np.zeros_like(weights)
        direction.flat[chosen] = weights.flat[chosen]
        return severity(direction)

    while len(suspects) > 1:
        suspects = max(np.array_split(suspects, 2), key=half_severity)
    return tuple(int(i) for i in np.unravel_index(suspects[0], weights.shape))


def public_index(name: str, index: Index) -> list[int]:
    """Return an index as the public shape counts: images (N, C, H, W) have the batch first."""
    return [index[-1], *index[:-1]] if name == INPUT else list(index)
