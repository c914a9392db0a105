"""The derivative of the loss by a complex step, exact to machine precision.

For a direction v in one tensor, `imag(L(w + i·h·v)) / h` with h = 1e-30 is the derivative of the loss along v:
there is no subtraction, hence no cancellation, and no step long enough to cross a kink.

The error is `|analytic - numeric| / scale`. The scale is Σ |dy · δy| over the layer's output, where δy is
its change and dy the gradient there: the size of the terms whose sum both numbers are. It is the larger
of the two numbers when nothing cancels, and keeps a gradient that is zero by cancellation, such as a bias
before batch norm, from looking wrong by its rounding noise.

References
----------
Squire & Trapp 1998, *Using Complex Variables to Estimate Derivatives of Real Functions*; Martins, Sturdza
& Alonso 2003, *The Complex-Step Derivative Approximation*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cnnbp_cli.core.graph import INPUT, Node
from cnnbp_cli.core.rng import generator
from cnnbp_cli.core.types import Array, Params
from cnnbp_cli.gradient_check.layer_derivative import STEP, is_shipped
from cnnbp_cli.gradient_check.reference_pass import Comparison, Index, ReferencePass, Status, along

NOISE = 1024 * np.finfo(np.float64).eps
"""Times the largest gradient, change and gain that meet in one layer: differences below are rounding. Derivatives
are differences themselves, such as 1 - y of a sigmoid or 1 - x̂² of a normalization, and little may be left of them."""
UNDERFLOW = np.finfo(np.float64).tiny / STEP
"""Times `STEP`, derivatives below this lose their digits."""


DIFFERENCE_TOLERANCE = 1e-6
"""The least tolerance for derivatives that a layer's difference quotients take part in."""


@dataclass(frozen=True, slots=True)
class LossDerivative:
    """The derivative of the mean loss along a direction in one tensor.

    Attributes
    ----------
    value : float
    changes : dict of str to Array
        The outputs that move, with `STEP` times their derivative as the imaginary part; the real part is the value.
        All of them where they are asked for, else the first and those with losses.
    gap : float
        How far a right gradient may be from `value`, for the kinks of custom layers: Σ |dy| · gap.
    error : float
        The error of `value` by the difference quotients in it, Σ |dy| · error.
    has_differences : bool
        Whether there are any.
    """

    value: float
    changes: dict[str, Array]
    gap: float
    error: float
    has_differences: bool


def derivative(reference: ReferencePass, name: str, direction: Array, *, keep: bool = False) -> LossDerivative:
    """Carry a direction in one tensor forward through all layers that depend on it.

    With `keep`, what becomes of it at every layer is returned too.

    With dy the gradient at a layer's output, Σ dy · (δy - δy′) is what the choice of a subgradient δy′ in the place of
    δy makes of the derivative of the loss, whatever is chosen in the layers after it.
    """
    changes: dict[str, Array] = {}
    gap = error = 0.0
    has_differences = False
    moved, _, key = name.rpartition(".")
    ends = {*reference.starts(name), *reference.graph.outputs}
    if name == INPUT:
        changes[INPUT] = reference.values[INPUT] + 1j * STEP * direction
    for node in reference.graph.nodes:
        if node.owner != moved and not any(before in changes for before in node.inputs):
            continue
        dparams: Params = {key: direction} if node.owner == moved else {}
        if is_shipped(node.layer):
            moves = [changes[before].imag if before in changes else None for before in node.inputs]
            carried = reference.linear.carry(node, moves, dparams)
            imaginary = _imaginary(reference, node, changes, dparams) if carried is None else carried
        else:
            dxs = [changes[before].imag / STEP if before in changes else None for before in node.inputs]
            change = reference.derivatives.along(node, dxs, dparams)
            imaginary = STEP * change.value
            dy = np.abs(reference.output_gradients[node.name])
            gap, error = gap + float((dy * change.gap).sum()), error + float((dy * change.error).sum())
            has_differences = has_differences or change.has_differences
        # The real part stays as it was, to the bit: complex products round otherwise than real ones, and a maximum
        # that several pixels share would go to another of them.
        changes[node.name] = reference.values[node.name] + 1j * imaginary
        for before in () if keep else set(node.inputs) - ends:
            if reference.last_reader[before] == node.name:
                changes.pop(before, None)  # of a large network, all of them would not fit into memory
    return LossDerivative(float(np.imag(reference.mean_loss(changes))) / STEP, changes, gap, error, has_differences)


def _imaginary(reference: ReferencePass, node: Node, changes: Mapping[str, Array], dparams: Params) -> Array:
    """Return the imaginary part of a node's output."""
    params = reference.params.get(node.owner, {})
    params = params | {key: params[key] + 1j * STEP * step for key, step in dparams.items()}
    y: Array = reference.compute(node, params, [changes.get(k, reference.values[k]) for k in node.inputs])[0].imag
    return y


class ComplexStep:
    """Compares with complex steps around a reference pass in float64."""

    def __init__(self, reference: ReferencePass, tolerance: float) -> None:
        self.reference = reference
        self._tolerance = tolerance
        self._gradient_norms = {name: float(np.linalg.norm(flow)) for name, flow in reference.output_gradients.items()}
        self._gains: dict[str, float] = {}

    def compare(self, name: str, direction: Array, index: Index | None) -> Comparison:
        """Compare the two derivatives of the loss along a direction in one tensor."""
        reference = self.reference
        found = derivative(reference, name, direction)
        analytic, numeric = along(reference.gradients[name], direction), found.value
        scale = sum(
            float(np.abs(reference.output_gradients[start] * (found.changes[start].imag / STEP)).sum())
            for start in reference.starts(name)
        )
        difference = abs(analytic - numeric)
        error = difference / max(scale, abs(analytic), abs(numeric)) if difference else 0.0
        error = error if np.isfinite(difference) else float("inf")
        status: Status = "ok"
        if not error <= (max(self._tolerance, DIFFERENCE_TOLERANCE) if found.has_differences else self._tolerance):
            changes = derivative(reference, name, direction, keep=True).changes
            noise = NOISE * self._largest_term(name, changes) + UNDERFLOW + found.error
            status = "noise" if difference <= noise else "kink" if difference <= found.gap + noise else "wrong"
        return Comparison(analytic, numeric, error, status, index, reference)

    def _largest_term(self, tensor: str, changed: Mapping[str, Array]) -> float:
        """Return the largest product of a layer's change at the input, its gradient at the output and its gain.

        The terms that a layer adds up are of this size. Its rounding is relative to them, and not to their sum,
        which may be far smaller: a normalization takes away most of a change that all its values share.
        """
        reference = self.reference
        changes = {name: float(np.linalg.norm(y.imag / STEP)) for name, y in changed.items()}
        terms = [
            *(changes[start] * self._gradient_norms[start] for start in reference.starts(tensor)),
            *(
                one.weight * changes.get(one.layer, 0.0) / count
                for one, count in zip(reference.losses, reference.counts, strict=True)
            ),
        ]
        for node in reference.graph.nodes:
            if node.name in changes and any(name in changes for name in node.inputs):
                change = max(changes.get(name, 0.0) for name in node.inputs)
                terms.append(change * self._gradient_norms[node.name] * max(1.0, self._gain(node)))
        return max(terms)

    def _gain(self, node: Node) -> float:
        """Return how large the terms are that a layer adds up, for a random change at its inputs of length 1.

        Their sum is the change of the output. Where it is much smaller, rounding tells: a derivative is linear in
        the change, so what a third of the change gives, times three, differs by nothing else.
        """
        if node.name not in self._gains:
            rng = generator(0, "gain", node.name)
            inputs = [self.reference.values[name] for name in node.inputs]
            changes = [rng.normal(size=x.shape) for x in inputs]

            if not is_shipped(node.layer):
                change = self.reference.derivatives.along(node, changes, {}).value
                self._gains[node.name] = float(np.linalg.norm(change) / max(np.linalg.norm(v) for v in changes))
                return self._gains[node.name]

            def moved(factor: float) -> Array:
                xs = [x + 1j * STEP * factor * change for x, change in zip(inputs, changes, strict=True)]
                y, _ = self.reference.compute(node, self.reference.params.get(node.owner, {}), xs)
                return y.imag / (STEP * factor)

            whole = moved(1.0)
            rounding = np.max([np.abs(whole - moved(1 / divisor)) for divisor in (3, 5, 7)], axis=0)
            terms = rounding / np.finfo(np.float64).eps
            gain = max(np.linalg.norm(whole), np.linalg.norm(terms)) / max(np.linalg.norm(v) for v in changes)
            # One channel whose values are nearly equal may add up much larger terms than all others.
            steepest = np.max(terms) / max(np.sqrt(np.mean(v * v)) for v in changes)
            self._gains[node.name] = float(max(gain, steepest))
        return self._gains[node.name]
