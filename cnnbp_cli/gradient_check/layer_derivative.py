"""How one layer's output changes with its inputs and parameters: by a complex step, or by differences where it must.

The layers of this package take complex numbers, and decide by real parts. A custom layer may not: NumPy orders complex
numbers by the imaginary part where real parts tie, so that `np.maximum(x, 0)`, `max`, `sorted` and `x > 0` decide
by the step itself, and `abs` and `.real` lose it. So a custom layer's complex derivative is tested first, at the very
inputs of the check, element by element of the output: it has to be odd in the direction, and to agree with difference
quotients. Where it does not, difference quotients take its place.

At a kink, where a ReLU's input is exactly 0 or pixels tie for a maximum, the derivatives to both sides of an output
element differ. Each number between them is a subgradient, and libraries choose different ones: for max(x, 0) at 0
any slope from 0 to 1 is right, and the gradient to a maximum may go to any one of the pixels that tie, or be shared
among them. It may not go to all of them in full: moved together they move the maximum once.

References
----------
Clarke 1990, *Optimization and Nonsmooth Analysis*, section 2.3 (the subgradients of a maximum).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cnnbp_cli.core.graph import Graph, Node
from cnnbp_cli.core.rng import generator
from cnnbp_cli.core.types import Array, Context, Params

STEP = 2.0**-100  # about 1e-30; multiplying with a power of two, or dividing by it, does not round
DIFFERENCE_STEPS = (1e-4, 1.25e-5, 1.5625e-6)
"""Relative to the size of what moves. Each is an eighth of the one before, for Richardson's extrapolation."""
EPS = float(np.finfo(np.float64).eps)
AGREES = 1e-6  # of complex derivatives with differences, relative to the largest
KINK = 1e-4  # a larger error of an element's differences, relative to the steepest, is that of a kink
ODD = 1e-10  # the same, of complex derivatives in opposite directions


@dataclass(frozen=True, slots=True)
class OutputDerivative:
    """The derivative of a layer's output along a direction.

    Attributes
    ----------
    value : Array
        Of the output's shape. At a kink one of the subgradients makes it.
    gap : Array or float
        By how much that of any other subgradient may differ from it.
    error : Array or float
        The error of `value`, but for rounding.
    has_differences : bool
        Whether some elements were found by differences.
    """

    value: Array
    gap: Array | float = 0.0
    error: Array | float = 0.0
    has_differences: bool = False


class LayerDerivatives:
    """Differentiates the layers of a network at the values of one pass, in float64."""

    def __init__(self, graph: Graph, params: Mapping[str, Params], values: Mapping[str, Array], ctx: Context) -> None:
        self._graph, self._params, self._values, self._ctx = graph, params, values, ctx
        self._trusted: dict[str, Array] = {}
        self._kinked: set[str] = set()

    @property
    def by_differences(self) -> list[str]:
        """The names of the layers of which some complex derivative was not usable."""
        return [name for name, trusted in self._trusted.items() if not trusted.all()]

    def has_kinks(self) -> bool:
        """Tell whether an output of a custom layer lies on a kink."""
        for node in self._graph.nodes:
            if not is_shipped(node.layer):
                self._trust(node)
        return bool(self._kinked)

    def along(self, node: Node, dxs: Sequence[Array | None], dparams: Params) -> OutputDerivative:
        """Return the derivative of a node's output along a direction.

        Parameters
        ----------
        dxs : sequence of Array or None
            The direction in each of its inputs; None for an input that does not move.
        dparams : dict of str to Array
            The direction in the parameters that move.
        """
        output = self._output_along(node, dxs, dparams)
        if is_shipped(node.layer):
            return OutputDerivative(_complex(output))
        trusted = self._trust(node)
        if trusted.all() and node.name not in self._kinked:
            return OutputDerivative(_complex(output))
        found = _differences(output, self._values[node.name], self._sizes(node, dxs, dparams))
        if not trusted.any():
            return found
        value = np.where(trusted, _complex(output), found.value)
        gap = np.where(found.gap, found.gap + np.abs(value - found.value), 0.0)
        return OutputDerivative(value, gap, np.where(trusted, 0.0, found.error), not trusted.all())

    def _output_along(self, node: Node, dxs: Sequence[Array | None], dparams: Params) -> Callable[[complex], Array]:
        """Return a function: the output of a node after a step of some length."""
        inputs, params = [self._values[name] for name in node.inputs], self._params.get(node.owner, {})

        def output(step: complex) -> Array:
            xs = [x if dx is None else x + step * dx for x, dx in zip(inputs, dxs, strict=True)]
            moved = {key: params[key] + step * direction for key, direction in dparams.items()}
            return node.forward(params | moved, xs, self._ctx)[0]

        return output

    def _sizes(self, node: Node, dxs: Sequence[Array | None], dparams: Params) -> list[tuple[float, float]]:
        """Return for everything that moves its root mean square, or 1 if that is larger, and the largest move."""
        moves = [(self._values[name], dx) for name, dx in zip(node.inputs, dxs, strict=True) if dx is not None]
        moves += [(self._params[node.owner][key], direction) for key, direction in dparams.items()]
        sizes = [(float(np.sqrt(np.mean(at * at))), float(np.abs(move).max(initial=0))) for at, move in moves]
        return [(min(1.0, size) or 1.0, move) for size, move in sizes if move]

    def _trust(self, node: Node) -> Array:
        """Tell for each element of a custom layer's output whether its complex derivative is usable."""
        if node.name not in self._trusted:
            self._trusted[node.name] = self._test(node)
        return self._trusted[node.name]

    def _test(self, node: Node) -> Array:
        y, rng = self._values[node.name], generator(0, "gradcheck", "derivative", node.name)
        dxs = [rng.normal(size=self._values[name].shape) for name in node.inputs]
        own, learned = self._params.get(node.owner, {}), self._graph.trainable[node.owner]
        params = {key: rng.normal(size=own[key].shape) for key in learned}
        output = self._output_along(node, dxs, params)
        if not np.isfinite(y).all():  # nothing to test; the explanation will name this layer
            return np.ones(y.shape, bool)
        found = _differences(output, y, self._sizes(node, dxs, params))
        if np.any(found.gap):
            self._kinked.add(node.name)
        try:
            there, back = _complex(output), _complex(lambda step: output(-step))
        except MemoryError:
            raise
        except Exception:  # a custom layer need not take complex numbers
            return np.zeros(y.shape, bool)
        size = np.abs(there).max(initial=0)
        odd = np.abs(there + back) <= ODD * size
        agrees = np.abs(there - found.value) <= AGREES * size + 10 * found.error + found.gap
        trusted: Array = odd & agrees
        return trusted


def is_shipped(operation: Any) -> bool:
    """Tell whether a layer or a loss is one of this package."""
    return type(operation).__module__.startswith("cnnbp_cli.")


def _complex(output: Callable[[complex], Array]) -> Array:
    """Return a derivative by a complex step."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", np.exceptions.ComplexWarning)
        y = output(1j * STEP)
    if not np.iscomplexobj(y):
        raise TypeError("complex numbers became real")
    return y.imag / STEP


def _differences(
    output: Callable[[complex], Array], y: Array, sizes: Sequence[tuple[float, float]]
) -> OutputDerivative:
    """Return a derivative by differences, and what is not certain about it.

    The derivatives to both sides differ by h · y″ where the output is smooth, and by a number that does not shrink with
    h at a kink.
    """
    if not sizes:
        return OutputDerivative(np.zeros(y.shape), has_differences=True)
    unit = min(size / move for size, move in sizes)
    steps = [unit * step for step in DIFFERENCE_STEPS]
    rights, lefts = ([(output(sign * h) - y) / (sign * h) for h in steps] for sign in (1, -1))
    centers = [(right + left) / 2 for right, left in zip(rights, lefts, strict=True)]
    gaps = [np.abs(right - left) for right, left in zip(rights, lefts, strict=True)]
    noises = [4 * EPS * float(np.abs(y).max(initial=0)) / h for h in steps]
    value, error = centers[-1], np.full(y.shape, np.inf)
    for k in range(len(steps) - 1):
        smooth = gaps[k + 1] <= gaps[k] / 4 + 2 * noises[k + 1]
        apart = centers[k + 1] - centers[k]
        estimate = np.where(smooth, np.abs(apart) / 4 + noises[k + 1], np.inf)
        value = np.where(estimate < error, centers[k + 1] + apart / 63, value)
        error = np.minimum(error, estimate)
    slopes = [*rights[-2:], *lefts[-2:]]  # of two steps: a kink may lie between them
    highest, lowest = np.max(slopes, axis=0), np.min(slopes, axis=0)
    kink = ~(error <= KINK * np.maximum(np.abs(highest), np.abs(lowest)) + 2 * noises[-1])
    value = np.where(kink, (highest + lowest) / 2, value)
    return OutputDerivative(
        value, np.where(kink, (highest - lowest) / 2, 0.0), np.where(kink, 2 * noises[-1], error), True
    )
