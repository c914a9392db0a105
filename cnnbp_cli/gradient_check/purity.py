"""Whether a custom layer's passes are functions of their arguments: what every check of its gradient takes for granted.

A forward pass that draws other random numbers at each call, counts its calls or writes into its arguments has no
derivative to compare with, and a numerical one may agree with a wrong gradient by mistake.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np

from cnnbp_cli.config.custom_layers import CustomLayerError, broken_rule
from cnnbp_cli.core.graph import Node
from cnnbp_cli.core.rng import generator
from cnnbp_cli.core.types import Array
from cnnbp_cli.gradient_check.layer_derivative import is_shipped
from cnnbp_cli.gradient_check.reference_pass import ReferencePass

REPETITIONS = 3
ROUNDING = 1e-12  # relative to the largest value; the order of a sum may depend on where its array lies in memory

DRAW_FROM_CTX = (
    "draw random numbers from cnnbp_cli.core.rng.generator(ctx.seed, 'mask', ctx.node, ctx.step), "
    "which gives the same ones at each call of a step"
)


def require_pure(reference: ReferencePass) -> None:
    """Run each custom layer again, at the values of a pass.

    Raises
    ------
    CustomLayerError
        When a layer returns other numbers for the same arguments, keeps state between calls, or changes an argument.
        The message names the method, its file and line, and the remedy.
    """
    for node in reference.graph.nodes:
        if not is_shipped(node.layer):
            _LayerCheck(reference, node).run()


class _LayerCheck:
    def __init__(self, reference: ReferencePass, node: Node) -> None:
        self._reference, self._node = reference, node
        self._params = reference.params.get(node.owner, {})
        self._xs = [reference.values[name] for name in node.inputs]

    def run(self) -> None:
        y = self._unchanged("forward", self._forward)
        if not _same(y, self._reference.values[self._node.name].copy()):
            raise self._random("forward", self._forward)
        kept = y.copy()
        gradients = self._unchanged("backward", self._backward)
        before = [None if g is None else g.copy() for g in gradients]
        for _ in range(REPETITIONS - 1):
            if not _same(self._forward(), kept):
                raise self._random("forward", self._forward)
            if not all(map(_same, self._backward(), before)):
                raise self._random("backward", self._backward)
        self._run_elsewhere()
        if not _same(y, kept) or not all(map(_same, gradients, before)):
            method = "backward" if _same(y, kept) else "forward"
            raise self._error(method, "returned an array that its next call overwrites: allocate a new one")
        if not all(map(_same, self._backward(), before)):
            raise self._error("backward", "keeps state between calls: let forward return what backward needs")
        if not _same(self._forward(), kept):
            raise self._error("forward", "keeps state between calls: its output depends on an earlier input")

    def _forward(self) -> Array:
        return self._reference.compute(self._node, self._params, self._xs)[0]

    def _backward(self) -> list[Array | None]:
        dxs, grads = self._reference.own_backward(self._node)
        return [*dxs, *grads.values()]

    def _run_elsewhere(self) -> None:
        """Run both passes on other inputs, and let the results go."""
        rng = generator(0, "gradcheck", "purity", self._node.name)
        dy = self._reference.output_gradients[self._node.name]
        *xs, dy = (value + rng.normal(size=value.shape).astype(value.dtype) for value in (*self._xs, dy))
        self._reference.backward(self._node, self._reference.compute(self._node, self._params, xs)[1], dy)

    def _unchanged(self, name: str, method: Callable[[], Any]) -> Any:
        """Return what a method returns, unless it writes into its arguments."""
        dy = self._reference.output_gradients[self._node.name]
        arguments = {"its input": self._xs, "its parameters": [*self._params.values()], "dy": [dy]}
        before = {what: [array.copy() for array in arrays] for what, arrays in arguments.items()}
        result = method()
        for what, arrays in arguments.items():
            if not all(map(_same, arrays, before[what])):
                raise self._error(name, f"changed {what} in place: work on a copy")
        return result

    def _random(self, name: str, method: Callable[[], Any]) -> CustomLayerError:
        """Return the error about results that differ, by what they depend on."""
        complaint = f"returned {'another output' if name == 'forward' else 'other gradients'} for the same arguments"
        before = _global_random_state()
        method()
        if _global_random_state() != before:
            return self._error(name, f"{complaint}, by global random numbers: {DRAW_FROM_CTX}")
        changes = ", changes its residuals" if name == "backward" else ""
        return self._error(
            name,
            f"{complaint}: it has its own random generator{changes}, keeps state between calls, or reads a clock or a "
            f"global; {DRAW_FROM_CTX}",
        )

    def _error(self, name: str, complaint: str) -> CustomLayerError:
        cls = type(self._node.layer)
        return broken_rule(cls.__name__, getattr(cls, name), self._node.name, complaint)


def _global_random_state() -> str:
    return f"{random.getstate()} {np.random.get_state(legacy=False)}"


def _same(a: Array | None, b: Array | None) -> bool:
    if a is None or b is None:
        return a is b
    size = np.abs(b, where=np.isfinite(b), out=np.zeros(b.shape)).max(initial=0)
    return bool(np.allclose(a, b, rtol=0, atol=ROUNDING * size, equal_nan=True))
