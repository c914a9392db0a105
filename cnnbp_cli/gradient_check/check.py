"""Prove the gradients: compare every one with a derivative of the loss that is found numerically.

A wrong gradient anywhere in a tensor shows along a random direction; single elements then tell where. Two
methods find derivatives: complex steps, exact to machine precision, and central differences, as textbooks do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from cnnbp_cli.core.graph import INPUT
from cnnbp_cli.core.rng import generator
from cnnbp_cli.core.types import Array
from cnnbp_cli.gradient_check import complex_step
from cnnbp_cli.gradient_check.central import STEPS, CentralDifferences
from cnnbp_cli.gradient_check.complex_step import ComplexStep
from cnnbp_cli.gradient_check.explain import Suspects, explain
from cnnbp_cli.gradient_check.point import Comparison, Method, Point, Status, public_index
from cnnbp_cli.memory import require_batch
from cnnbp_cli.model import Model, ModelInputError
from cnnbp_cli.parallel.blas import blas_threads

MethodName = Literal["complex", "central"]
Precision = Literal["float64", "float32"]

TOLERANCES = {("complex", "float64"): 1e-10, ("central", "float64"): 1e-5, ("central", "float32"): 1e-2}


@dataclass(frozen=True, slots=True)
class ParameterCheck:
    """The verdict on one parameter tensor, or on the input image.

    Attributes
    ----------
    name : str
    status : {"ok", "kink", "noise", "wrong"}
        The worst of all comparisons; only the last fails the check.
    relative_error : float
        Of the worst comparison.
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
    kinks, noise : int
        Comparisons that say nothing: on a kink of the loss, or below its rounding.
    coverage : float
        Percent of the comparisons that say something.
    explanation : str or None
        Of a wrong gradient: what kind of wrong, and where to look.
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
    kinks: int
    noise: int
    coverage: float
    explanation: str | None


@dataclass(frozen=True, slots=True)
class GradcheckReport:
    """The verdicts on all parameter tensors, in layer order, and on the input image.

    Attributes
    ----------
    ok : bool
        Whether no gradient is wrong.
    method : {"complex", "central"}
    max_relative_error : float
        The largest of the comparisons that say something.
    tolerance : float
    step : float
        The length of the step.
    dtype : {"float64", "float32"}
        What was computed in.
    kinks, noise : int
        Over all tensors.
    coverage : float
        Percent of all comparisons that say something.
    modes : list of str
        The modes in which all was checked: evaluation too where a layer behaves differently in it.
    parameters : list of ParameterCheck
    """

    ok: bool
    method: MethodName
    max_relative_error: float
    tolerance: float
    step: float
    dtype: Precision
    kinks: int
    noise: int
    coverage: float
    modes: list[str]
    parameters: list[ParameterCheck]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def gradcheck(
    model: Model,
    images: Array,
    labels: Array | None = None,
    *,
    method: MethodName = "complex",
    directions: int = 3,
    elements: int | Literal["all"] = 5,
    tolerance: float | None = None,
    step: float | None = None,
    dtype: Precision = "float64",
    seed: int = 0,
    layer: str | None = None,
    parameter: str | None = None,
) -> GradcheckReport:
    """Check the gradients of the mean loss over some images.

    Parameters
    ----------
    model : Model
        Checked in `dtype` whatever its own; not changed.
    images, labels
        As for `Model.loss`; a handful of images is enough.
    method : {"complex", "central"}
        Complex steps, or central differences.
    directions : int
        Random directions in each tensor.
    elements : int or "all"
        Single elements of each tensor, drawn at random.
    tolerance : float, optional
        The largest relative error that passes: by default 1e-10 for complex steps, 1e-5 for central differences,
        1e-2 for those in float32.
    step : float, optional
        The step of central differences: by default 1e-5, or 1e-2 in float32.
    dtype : {"float64", "float32"}
        What central differences are computed in; complex steps are always double.
    seed : int
        Draws the directions and the elements.
    layer, parameter : str, optional
        Check only this layer, or only this tensor, such as ``"conv1.weight"`` or ``"input"``.

    Raises
    ------
    ModelInputError
        When there is no such layer or parameter, or no image, when labels do not fit, or options do not go together.
    """
    _refuse_what_does_not_fit(method, step, dtype)
    require_batch(model.config, model.graph, len(images), 16, "give fewer images, as with a smaller --batch")
    x, target = model.batch_in(images, labels)
    if tolerance is None:
        tolerance = TOLERANCES[method, dtype]
    if step is None:
        step = complex_step.STEP if method == "complex" else STEPS[dtype]
    has_modes = any(layer.type == "dropout" or layer.state for _, layer in model.graph.layers())
    modes = ["training", "evaluation"] if has_modes else ["training"]
    # The products are small: several threads would wait for each other longer than they compute.
    with blas_threads(1):
        points = [Point(model, x, target, mode, dtype) for mode in modes]
        names = _chosen([*points[0].gradients], layer, parameter)
        methods: list[Method] = [
            ComplexStep(point, tolerance) if method == "complex" else CentralDifferences(point, step, tolerance, seed)
            for point in points
        ]
        found = {name: _compare(name, methods, directions, elements, seed) for name in names}
        explanations = _explanations(model, x, target, found, seed)
    checks = [_summed_up(name, points[0], found[name], explanations.get(name)) for name in names]
    everything = [comparison for some in found.values() for comparison in some]
    return GradcheckReport(
        ok=all(check.status != "wrong" for check in checks),
        method=method,
        max_relative_error=max((one.error for one in everything if one.counts), default=0.0),
        tolerance=tolerance,
        step=step,
        dtype=dtype,
        kinks=sum(check.kinks for check in checks),
        noise=sum(check.noise for check in checks),
        coverage=_coverage(everything),
        modes=modes,
        parameters=checks,
    )


def _refuse_what_does_not_fit(method: str, step: float | None, dtype: str) -> None:
    for name, value, known in (("method", method, ("complex", "central")), ("dtype", dtype, ("float64", "float32"))):
        if value not in known:
            raise ModelInputError(f"unknown {name} {value!r}, expected one of: {', '.join(known)}")
    if method == "complex" and step is not None:
        raise ModelInputError("complex steps have no length to choose; a step goes with the method central")
    if method == "complex" and dtype != "float64":
        raise ModelInputError(
            "complex steps are always computed in double precision; float32 goes with the method central"
        )
    if step is not None and not 0 < step < float("inf"):
        raise ModelInputError(f"expected a step above 0, got {step:g}")


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


def _compare(
    name: str, methods: Sequence[Method], directions: int, elements: int | Literal["all"], seed: int
) -> list[Comparison]:
    """Return all comparisons in one tensor: directions and elements in each mode, and a wrong element if any is."""
    shape = methods[0].point.gradients[name].shape
    found = [
        method.compare(name, direction, index)
        for method in methods
        for direction, index in _probes(name, shape, directions, elements, seed)
    ]
    worst = max(found, key=lambda one: one.badness)
    if worst.status == "wrong" and worst.index is None:
        found.append(_locate(name, next(one for one in methods if one.point.mode == worst.mode), seed))
    return found


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


def _locate(name: str, method: Method, seed: int) -> Comparison:
    """Find an element that is wrong, by halving: go on with the half along which the derivatives differ more."""
    shape = method.point.gradients[name].shape
    weights = generator(seed, "gradcheck", name, "locate").normal(size=shape)
    suspects = np.arange(weights.size)

    def along(chosen: Array) -> Comparison:
        direction = np.zeros(shape)
        direction.flat[chosen] = weights.flat[chosen]
        return method.compare(name, direction, tuple(int(i) for i in np.unravel_index(chosen[0], shape)))

    while len(suspects) > 1:
        halves = [(half, along(half)) for half in np.array_split(suspects, 2)]
        suspects, _ = max(halves, key=lambda tried: (tried[1].status == "wrong", _difference(tried[1])))
    direction = np.zeros(shape)
    direction.flat[suspects] = 1.0
    return method.compare(name, direction, tuple(int(i) for i in np.unravel_index(suspects[0], shape)))


def _difference(comparison: Comparison) -> float:
    difference = abs(comparison.analytic - comparison.numeric)
    return difference if np.isfinite(difference) else float("inf")


def _explanations(
    model: Model, x: Array, target: Array, found: dict[str, list[Comparison]], seed: int
) -> dict[str, str]:
    """Return what is wrong with each gradient that is, in the first mode in which it is."""
    texts: dict[str, str] = {}
    for mode in ("training", "evaluation"):
        suspects: Suspects = {}
        for name, some in found.items():
            wrong = [one for one in some if one.status == "wrong" and one.mode == mode]
            if wrong and name not in texts:
                suspects[name] = [one.index for one in wrong if one.index is not None]
        if suspects:
            point = Point(model, x, target, mode)
            texts |= explain(point, suspects, seed=seed)
    return texts


def _summed_up(name: str, point: Point, found: list[Comparison], explanation: str | None) -> ParameterCheck:
    shape = point.gradients[name].shape
    worst = max(found, key=lambda one: one.badness)
    worst_single = max((one for one in found if one.index is not None), key=lambda one: one.badness, default=None)
    public = (shape[-1], *shape[:-1]) if name == INPUT else shape
    statuses = Counter(one.status for one in found)
    return ParameterCheck(
        name=name,
        status=worst.status,
        relative_error=worst.error,
        checked=len(found),
        worst_index=public_index(name, worst_single.index) if worst_single and worst_single.index else None,
        shape=list(public),
        size=int(np.prod(shape)),
        analytic=worst.analytic,
        numeric=worst.numeric,
        mode=worst.mode,
        kinks=statuses["kink"],
        noise=statuses["noise"],
        coverage=_coverage(found),
        explanation=explanation,
    )


def _coverage(found: Sequence[Comparison]) -> float:
    return round(100 * sum(one.counts for one in found) / len(found), 2) if found else 0.0
