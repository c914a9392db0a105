"""Prove the gradients: compare every one with the complex-step derivative of the loss.

For a direction v in one parameter tensor, `imag(L(w + i·h·v)) / h` with h = 1e-30 is the derivative of
the loss along v to machine precision: there is no subtraction, hence no cancellation, and no step long
enough to cross a kink. A wrong gradient anywhere in a tensor shows along a random direction; single
elements then tell where.

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

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from cnnbp_cli.core.graph import INPUT
from cnnbp_cli.core.rng import generator
from cnnbp_cli.core.types import Array, Context, Params
from cnnbp_cli.model import Model, ModelInputError

STEP = 1e-30
NOISE = 1024 * np.finfo(np.float64).eps
"""Times the largest gradient and change that meet in one layer: differences below are rounding. Derivatives are
differences themselves, such as 1 - y of a sigmoid, and a normalisation may divide their rounding by √epsilon."""
UNDERFLOW = np.finfo(np.float64).tiny / STEP
"""Times `STEP`, derivatives below this lose their digits."""

Status = Literal["ok", "kink", "noise", "wrong"]
_SEVERITY: list[Status] = ["ok", "noise", "kink", "wrong"]


@dataclass(frozen=True, slots=True)
class ParameterCheck:
    """The verdict on one parameter tensor, or on the input image.

    Attributes
    ----------
    name : str
    status : {"ok", "kink", "noise", "wrong"}
    relative_error : float
        The largest over everything checked.
    checked : int
        Directions and elements compared.
    worst_index : list of int or None
        The element with the largest error, among those checked singly.
    shape : list of int
    size : int
    analytic, numeric : float
        The two derivatives where the error is largest.
    mode : {"training", "evaluation"}
        The mode in which it is.
    """

    name: str
    status: Status
    relative_error: float
    checked: int
    worst_index: list[int] | None
    shape: list[int]
    size: int
    analytic: float
    numeric: float
    mode: str


@dataclass(frozen=True, slots=True)
class GradcheckReport:
    """The verdicts on all parameter tensors, in layer order, and on the input image."""

    ok: bool
    method: str
    max_relative_error: float
    tolerance: float
    parameters: list[ParameterCheck]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Comparison:
    analytic: float
    numeric: float
    scale: float
    noise: float
    index: tuple[int, ...] | None
    mode: str

    @property
    def error(self) -> float:
        difference = abs(self.analytic - self.numeric)
        if not np.isfinite(difference):
            return float("inf")
        largest = max(self.scale, abs(self.analytic), abs(self.numeric))
        return difference / largest if difference else 0.0

    def status(self, tolerance: float) -> Status:
        if self.error <= tolerance:
            return "ok"
        return "noise" if abs(self.analytic - self.numeric) <= self.noise else "wrong"


def gradcheck(
    model: Model,
    images: Array,
    labels: Array | None = None,
    *,
    directions: int = 3,
    elements: int | Literal["all"] = 5,
    tolerance: float = 1e-10,
    seed: int = 0,
    layer: str | None = None,
    parameter: str | None = None,
) -> GradcheckReport:
    """Check the gradients of the mean loss over some images.

    Parameters
    ----------
    model : Model
        Checked in float64 whatever its dtype; not changed.
    images, labels
        As for `Model.loss`; a handful of images is enough.
    directions : int
        Random directions in each tensor.
    elements : int or "all"
        Single elements of each tensor, drawn at random.
    tolerance : float
        The largest relative error that passes.
    seed : int
        Draws the directions and the elements.
    layer, parameter : str, optional
        Check only this layer, or only this tensor, such as ``"conv1.weight"`` or ``"input"``.

    Raises
    ------
    ModelInputError
        When there is no such layer or parameter, or no image, or when labels do not fit.
    """
    x, target = model.batch_in(images, labels)
    x = x.astype(np.float64)
    if target.dtype.kind == "f":
        target = target.astype(np.float64)
    has_modes = any(layer.type == "dropout" or layer.state for _, layer in model.graph.layers())
    passes = [_Pass(model, x, target, mode) for mode in (("training", "evaluation") if has_modes else ("training",))]
    names = _chosen([*passes[0].gradients], layer, parameter)
    checks = [_check(name, passes, directions, elements, tolerance, seed) for name in names]
    return GradcheckReport(
        ok=all(check.status != "wrong" for check in checks),
        method="complex",
        max_relative_error=max((check.relative_error for check in checks if check.status != "noise"), default=0.0),
        tolerance=tolerance,
        parameters=checks,
    )


def _chosen(names: list[str], layer: str | None, parameter: str | None) -> list[str]:
    if parameter is not None and parameter not in names:
        raise ModelInputError(f"there is no parameter {parameter!r}; expected one of: {', '.join(names)}")
    chosen = [parameter] if parameter is not None else names
    if layer is not None:
        chosen = [name for name in chosen if name.rpartition(".")[0] == layer or name == layer == INPUT]
        if not chosen:
            layers = dict.fromkeys(name.rpartition(".")[0] or name for name in names)
            raise ModelInputError(f"there is no parameter in a layer {layer!r}; expected one of: {', '.join(layers)}")
    return chosen


class _Pass:
    """One forward and backward pass in float64, of which the neighbourhood is then explored."""

    def __init__(self, model: Model, x: Array, target: Array, mode: str) -> None:
        self.mode = mode
        self.model, self.target = model, target
        self.graph, self.loss = model.graph, model.loss_function
        self.ctx = Context(training=mode == "training", seed=model.config.seed)
        self.params: dict[str, Params] = {
            node: {key: value.astype(np.float64) for key, value in own.items()} for node, own in model.params.items()
        }
        self.values: dict[str, Array] = {INPUT: x}
        z, tape = self.graph.forward(self.params, x, self.ctx, self.values.__setitem__)
        self.count = self.loss.count(z)
        self.flows: dict[str, Array] = {}
        dz = self.loss.backward(self.loss.forward(z, target)[1]) / self.count
        dx, grads = self.graph.backward(self.params, tape, dz, self.ctx, self.flows.__setitem__)
        assert dx is not None
        self.gradients = {f"{node}.{key}": g for node, own in grads.items() for key, g in own.items()} | {INPUT: dx}
        self.flow_norms = {name: float(np.linalg.norm(flow)) for name, flow in self.flows.items()}

    def compare(self, name: str, direction: Array, index: tuple[int, ...] | None) -> _Comparison:
        """Compare the two derivatives of the loss along a direction in one tensor."""
        node, _, key = name.rpartition(".")
        step = 1j * STEP * direction
        if name == INPUT:
            start, changed = INPUT, {INPUT: self.values[INPUT] + step}
        else:
            start = node
            params = self.params[node] | {key: self.params[node][key] + step}
            at, layer = next((n, layer) for n, layer in self.graph.layers() if n.name == node)
            y, _ = layer.forward(params, self.values[at.inputs[0]], self.ctx.at(node))
            changed = {node: self.values[node] + 1j * y.imag}
        changed = self.graph.rerun(self.params, self.values, changed, self.ctx)
        z = changed.get(self.graph.output, self.values[self.graph.output])
        loss_sum, _ = self.loss.forward(z, self.target)
        return _Comparison(
            analytic=float((self.gradients[name] * direction).sum()),
            numeric=float(np.imag(loss_sum)) / STEP / self.count,
            scale=float(np.abs(self.flows[start] * (changed[start].imag / STEP)).sum()),
            noise=NOISE * self._largest_meeting(start, changed) + UNDERFLOW,
            index=index,
            mode=self.mode,
        )

    def _largest_meeting(self, start: str, changed: Mapping[str, Array]) -> float:
        """Return the largest product of a layer's change at the input and its gradient at the output.

        A layer's rounding is relative to this product, and not to the derivative, which may be far smaller.
        """
        changes = {name: float(np.linalg.norm(y.imag / STEP)) for name, y in changed.items()}
        meetings = [changes[start] * self.flow_norms[start], changes.get(self.graph.output, 0.0) / self.count]
        for node in self.graph.nodes:
            if node.name in changes and node.name != start:
                meetings.append(max(changes.get(name, 0.0) for name in node.inputs) * self.flow_norms[node.name])
        return max(meetings)


def _check(
    name: str,
    passes: list[_Pass],
    directions: int,
    elements: int | Literal["all"],
    tolerance: float,
    seed: int,
) -> ParameterCheck:
    shape = passes[0].gradients[name].shape
    found: list[_Comparison] = []
    for one in passes:
        for direction, index in _probes(name, shape, directions, elements, seed):
            found.append(one.compare(name, direction, index))

    def badness(comparison: _Comparison) -> tuple[int, float]:
        return _SEVERITY.index(comparison.status(tolerance)), comparison.error

    worst = max(found, key=badness)
    if worst.index is None and worst.status(tolerance) == "wrong":
        found.append(_locate(name, next(one for one in passes if one.mode == worst.mode), seed))
    worst_single = max((c for c in found if c.index is not None), key=badness, default=None)
    public = (shape[-1], *shape[:-1]) if name == INPUT else shape
    return ParameterCheck(
        name=name,
        status=worst.status(tolerance),
        relative_error=worst.error,
        checked=len(found),
        worst_index=_public_index(name, worst_single.index) if worst_single and worst_single.index else None,
        shape=list(public),
        size=int(np.prod(shape)),
        analytic=worst.analytic,
        numeric=worst.numeric,
        mode=worst.mode,
    )


def _probes(
    name: str, shape: tuple[int, ...], directions: int, elements: int | Literal["all"], seed: int
) -> Iterator[tuple[Array, tuple[int, ...] | None]]:
    """Yield random directions, then single elements with their index."""
    rng = generator(seed, "gradcheck", name)
    size = int(np.prod(shape))
    for _ in range(directions):
        yield rng.normal(size=shape), None
    count = size if elements == "all" else min(elements, size)
    for flat in range(size) if elements == "all" else rng.choice(size, count, replace=False):
        direction = np.zeros(shape)
        index = tuple(int(i) for i in np.unravel_index(flat, shape))
        direction[index] = 1.0
        yield direction, index


def _locate(name: str, one: _Pass, seed: int) -> _Comparison:
    """Find an element that is wrong, by halving: go on with the half along which the derivatives differ more."""
    shape = one.gradients[name].shape
    weights = generator(seed, "gradcheck", name, "locate").normal(size=shape)
    suspects = np.arange(weights.size)

    def along(chosen: Array) -> _Comparison:
        direction = np.zeros(shape)
        direction.flat[chosen] = weights.flat[chosen]
        return one.compare(name, direction, tuple(int(i) for i in np.unravel_index(chosen[0], shape)))

    while len(suspects) > 1:
        halves = np.array_split(suspects, 2)
        suspects = max(halves, key=lambda half: abs(along(half).analytic - along(half).numeric))
    return along(suspects)


def _public_index(name: str, index: tuple[int, ...]) -> list[int]:
    """Return an index as the public shape counts: images (N, C, H, W) have the batch first."""
    return [index[-1], *index[:-1]] if name == INPUT else list(index)
