"""The derivative of the loss by central differences, and the reason where it disagrees with backward.

With a step h along a direction v of length one, `(L(w + h·v) - L(w - h·v)) / 2h` is the derivative up to three
errors, which a comparison has to tell from a wrong gradient:

- rounding: both losses are rounded, which leaves ρ / h. ρ is measured: all parameters and pixels are moved
  by one unit in the last place or none, several times, and the largest change of the loss counts.
- truncation: h²/6 · L‴. Where it shows, Richardson's extrapolation `(4·D(h/2) - D(h)) / 3` removes it, and
  where that is not enough because the loss bends within the step, a shorter step does.
- kinks: between w - h·v and w + h·v a ReLU switched, or another pixel became the maximum of a window. Layers
  report their decisions (`Layer.branches`). Closer to w, before the first kink, the gradient still has to be right;
  where there is no such place, w lies on the kink. A layer that reports nothing is recognized by its two one-sided
  slopes: they stay apart however small the step, with the gradient between them.

The error is `|analytic - numeric| / max(|analytic|, |numeric|)`.

References
----------
Nocedal & Wright, *Numerical Optimization*, section 8.1; Moré & Wild 2011, *Estimating Computational Noise*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cnnbp_cli.core.graph import INPUT
from cnnbp_cli.core.rng import generator
from cnnbp_cli.core.types import Array
from cnnbp_cli.gradient_check.complex_step import derivative
from cnnbp_cli.gradient_check.reference_pass import Comparison, Index, ReferencePass, Status, along

STEPS = {"float64": 1e-5, "float32": 1e-2}
"""About the cube root of a type's relative rounding error, where rounding and truncation balance."""

ROUNDING_DRAWS = 8
ROUNDING_MARGIN = 4.0  # times the largest move among those draws
STEP_DIVISOR = 8.0
MAX_SHORTER_STEPS = (
    6  # steps shorter by `STEP_DIVISOR` each, in search of one before the first kink that is not too long
)
CONVERGENCE_MARGIN = 4.0  # a difference that is larger by this than what extrapolation changed is not truncation


@dataclass(frozen=True, slots=True)
class _Slopes:
    """The slopes on both sides for one step."""

    left: float
    right: float
    switched: bool  # whether a branch is another than at the point

    @property
    def central(self) -> float:
        return (self.left + self.right) / 2

    @property
    def gap(self) -> float:
        return abs(self.right - self.left)


class CentralDifferences:
    """Compares with central differences.

    Parameters
    ----------
    reference : ReferencePass
        In float64 or float32; its type is that of the computation.
    step : float
        h, the length of the step in the parameter's own units.
    tolerance : float
        The largest relative error that agrees.
    seed : int
        Draws the roundings.
    """

    def __init__(self, reference: ReferencePass, step: float, tolerance: float, seed: int) -> None:
        self.reference = reference
        self._step = step
        self._tolerance = tolerance
        self._branches = reference.branches()
        self.rounding = self._measure_rounding(seed)

    def compare(self, name: str, direction: Array, index: Index | None) -> Comparison:
        """Compare the two derivatives of the loss along a direction in one tensor."""
        unit = direction / np.linalg.norm(direction)
        analytic = along(self.reference.gradients[name], unit)
        status, numeric = self._judge(name, unit, analytic)
        if status == "wrong" and self._is_tied(name, unit):
            status = "kink"
        return Comparison(analytic, numeric, _error(analytic, numeric), status, index, self.reference)

    def _is_tied(self, name: str, unit: Array) -> bool:
        """Tell whether the point lies on kinks of custom layers whose subgradients allow for the gradient.

        Over many such kinks the slopes of the loss to both sides say little: the choices of each add up.
        """
        reference = self.reference.in_double()
        found = derivative(reference, name, unit)
        difference = abs(along(reference.gradients[name], unit) - found.value)
        return found.gap > 0 and difference <= found.gap * (1 + self._tolerance) + found.error

    def _judge(self, name: str, unit: Array, analytic: float) -> tuple[Status, float]:
        """Return the verdict at the chosen step, or else at the first shorter one that allows one."""
        step, crossed, first = self._step, False, 0.0
        for attempt in range(MAX_SHORTER_STEPS + 1):
            slopes = self._slopes(name, unit, step)
            status, numeric = self._verdict(name, unit, analytic, step, slopes)
            first = first if attempt else numeric
            if status == "wrong" or (status and not crossed):
                return status, numeric
            if status:
                return "kink", first
            crossed = crossed or slopes.switched
            step /= STEP_DIVISOR
        return "kink", first

    def _verdict(
        self, name: str, unit: Array, analytic: float, step: float, slopes: _Slopes
    ) -> tuple[Status | None, float]:
        """Return what the slopes at one step say, None where a shorter one has to, and the numeric derivative."""
        floor, numeric = self.rounding / step, slopes.central
        if _error(analytic, numeric) <= self._tolerance:
            return "ok", numeric
        # With |analytic - numeric| at most the floor, no step of this length can tell the two apart.
        if abs(analytic - numeric) <= floor or max(abs(analytic), abs(numeric)) <= floor:
            return "noise", numeric
        if not np.isfinite(analytic - numeric):
            return "wrong", numeric
        if slopes.switched:
            return None, numeric
        half = self._slopes(name, unit, step / 2).central
        refined = (4 * half - numeric) / 3
        if _error(analytic, refined) <= self._tolerance:
            return "ok", refined
        if abs(analytic - refined) <= 3 * floor:
            return "noise", refined
        if self._is_silent_kink(name, unit, analytic, step, slopes):
            return "kink", numeric
        converged = abs(analytic - refined) > CONVERGENCE_MARGIN * abs(refined - half)
        return ("wrong" if converged else None), numeric

    def _is_silent_kink(self, name: str, unit: Array, analytic: float, step: float, slopes: _Slopes) -> bool:
        """Tell whether the gradient lies between two slopes that stay apart, or is right closer to the point."""
        slack = 2 * self.rounding / step + self._tolerance * abs(analytic)
        if not min(slopes.left, slopes.right) - slack <= analytic <= max(slopes.left, slopes.right) + slack:
            return False
        closer = self._slopes(name, unit, step / STEP_DIVISOR)
        floor = STEP_DIVISOR * self.rounding / step
        stays = closer.gap > slopes.gap / 2 + 2 * floor
        holds = abs(analytic - closer.central) <= self._tolerance * abs(analytic) + floor
        return stays or holds

    def _slopes(self, name: str, unit: Array, step: float) -> _Slopes:
        (up, up_switched), (down, down_switched) = (self._loss_at(name, sign * step * unit) for sign in (1, -1))
        here = self.reference.loss_value
        return _Slopes((here - down) / step, (up - here) / step, up_switched or down_switched)

    def _loss_at(self, name: str, step: Array) -> tuple[float, bool]:
        """Return the mean loss after a step, and whether a branch switched on the way."""
        reference = self.reference
        owner, params, changed = reference.moved(name, step.astype(reference.values[INPUT].dtype))
        switched = False
        for node in reference.graph.nodes:
            if node.owner == owner or any(before in changed for before in node.inputs):
                xs = [changed.get(before, reference.values[before]) for before in node.inputs]
                changed[node.name], residuals = reference.compute(node, params.get(node.owner, {}), xs)
                switched = switched or self._switched(node.name, residuals)
        return self._loss(changed), switched

    def _switched(self, node: str, residuals: object) -> bool:
        if node not in self._branches:
            return False
        taken = self.reference.nodes[node].layer.branches(residuals)
        return not np.array_equal(taken, self._branches[node])  # type: ignore[arg-type]

    def _loss(self, changed: Mapping[str, Array]) -> float:
        return float(self.reference.mean_loss(changed))

    def _measure_rounding(self, seed: int) -> float:
        """Return how far rounding moves the loss: by its own last place at least, and by that of a probability."""
        reference = self.reference
        eps = float(np.finfo(reference.values[INPUT].dtype).eps)
        largest = eps * max(1.0, abs(reference.loss_value))
        for draw in range(ROUNDING_DRAWS):
            rng = generator(seed, "gradcheck", "rounding", draw)
            x = _rounded(reference.values[INPUT], rng)
            params = {
                node: {key: _rounded(value, rng) for key, value in own.items()}
                for node, own in reference.params.items()
            }
            zs, _ = reference.graph.forward(params, x, reference.ctx)
            moved = dict(zip(reference.graph.outputs, zs, strict=True))
            largest = max(largest, abs(self._loss(moved) - reference.loss_value))
        return ROUNDING_MARGIN * largest


def _rounded(values: Array, rng: np.random.Generator) -> Array:
    """Return values of which each was moved by one unit in the last place, up or down, or not at all."""
    eps = np.finfo(values.dtype).eps
    return (values * (1 + eps * rng.integers(-1, 2, values.shape))).astype(values.dtype)


def _error(analytic: float, numeric: float) -> float:
    difference = abs(analytic - numeric)
    if not np.isfinite(difference):
        return float("inf")
    return difference / max(abs(analytic), abs(numeric)) if difference else 0.0
