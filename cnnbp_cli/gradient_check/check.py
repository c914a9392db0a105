"""Prove the gradients: compare each one with a numerical derivative of the loss.

An error anywhere in a tensor shows along a random direction; single elements then show where it is. There are two
methods: complex steps, exact to machine precision, and central differences, as in textbooks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, Literal

import numpy as np

from cnnbp_cli.core.graph import INPUT
from cnnbp_cli.core.rng import generator
from cnnbp_cli.core.types import Array, Tick
from cnnbp_cli.gradient_check.central import STEPS, CentralDifferences
from cnnbp_cli.gradient_check.complex_step import ComplexStep
from cnnbp_cli.gradient_check.explain import WrongElements, explain
from cnnbp_cli.gradient_check.layer_derivative import STEP, is_shipped
from cnnbp_cli.gradient_check.plan import Clock, Plan, Probe, costs, run, unit
from cnnbp_cli.gradient_check.purity import require_pure
from cnnbp_cli.gradient_check.reference_pass import (
    Comparison,
    Method,
    ReferencePass,
    Status,
    bisect,
    joint_direction,
    public_index,
)
from cnnbp_cli.memory import require_batch
from cnnbp_cli.model import Model, ModelInputError
from cnnbp_cli.parallel.blas import blas_threads
from cnnbp_cli.parallel.processes import available_cores

MethodName = Literal["complex", "central"]
Precision = Literal["float64", "float32"]

WORTH_THREADS = 0.01
"""Seconds of a comparison from which on several threads make the check faster, in place of each other slower."""

SPEEDUP = 0.6
"""What another thread adds to the speed."""

TOLERANCES = {("complex", "float64"): 1e-10, ("central", "float64"): 1e-5, ("central", "float32"): 1e-2}


@dataclass(frozen=True, slots=True)
class ParameterCheck:
    """The verdict on one parameter tensor, or on the input image.

    Attributes
    ----------
    name : str
    status : {"ok", "kink", "noise", "wrong", "unchecked"}
        The worst of all comparisons; only wrong fails the check. Unchecked is what the time did not allow to look at.
    relative_error : float or None
        Of the worst comparison; None without any.
    checked : int
        Comparisons: of directions and of elements, in each mode.
    directions, elements : int
        Different random directions, and different elements, of all `size`, that were compared.
    worst_index : list of int or None
        The element with the largest error, among those checked singly.
    shape : list of int
    size : int
    analytic, numeric : float
        The two derivatives where the error is largest.
    mode : {"training", "evaluation"}
        The mode of the worst comparison.
    kinks, noise : int
        Inconclusive comparisons: at a kink of the loss, or below its rounding.
    coverage : float
        Percentage of the comparisons that are conclusive.
    explanation : str or None
        For a wrong gradient: what is wrong with it, and where to look.
    by_mode : dict of str to int
        The comparisons in each mode.
    """

    name: str
    status: Status | Literal["unchecked"]
    relative_error: float | None
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
    directions: int
    elements: int
    by_mode: dict[str, int]


@dataclass(frozen=True, slots=True)
class GradcheckReport:
    """The verdicts on all parameter tensors, in layer order, and on the input image.

    Attributes
    ----------
    ok : bool
        Whether no gradient is wrong.
    method : {"complex", "central"}
    max_relative_error : float
        The largest of the conclusive comparisons.
    tolerance : float
    step : float
        The length of the step.
    dtype : {"float64", "float32"}
        The precision of the computation.
    kinks, noise : int
        Over all tensors.
    coverage : float
        Percentage of all comparisons that are conclusive.
    modes : list of str
        The modes checked: evaluation too where it gives other numbers than training.
    parameters : list of ParameterCheck
    by_differences : list of str
        Custom layers whose forward pass takes no complex numbers, or decides by them: difference quotients took
        the place of complex steps there.
    comparisons, planned : int
        How many comparisons were made, the first ones of all that were planned.
    seconds : float
        The time that they took.
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
    by_differences: list[str]
    comparisons: int
    planned: int
    seconds: float = field(compare=False)

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
    time: float | None = None,
    comparisons: int | None = None,
    announce: Callable[[int, float], None] | None = None,
    progress: Tick | None = None,
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
        The precision of central differences; complex steps are always double.
    seed : int
        Draws the directions and the elements.
    layer, parameter : str, optional
        Check only this layer, or only this tensor, such as ``"conv1.weight"`` or ``"input"``.
    time : float, optional
        Seconds after which no comparison is begun; a gradient found wrong is explained after that, too.
    comparisons : int, optional
        Make only the first so many of those planned: as many as an earlier check had time for, to repeat it exactly.
    announce : callable, optional
        Called once, with the number of comparisons and the seconds that they will take, when that can be told.
    progress : callable, optional
        Called after each comparison with their number so far, and that of all which are planned.

    Raises
    ------
    ModelInputError
        When there is no such layer or parameter, or no image, when labels do not fit, or options contradict each other.
    """
    _check_options(method, step, dtype)
    if time is not None and not time > 0:
        raise ModelInputError(f"expected a time above 0 seconds, got {time:g}")
    if comparisons is not None and comparisons < 1:
        raise ModelInputError(f"expected 1 comparison or more, got {comparisons}")
    require_batch(model.config, model.graph, len(images), 16, "give fewer images, as with a smaller --batch")
    x, target = model.batch_in(images, labels)
    if tolerance is None:
        tolerance = TOLERANCES[method, dtype]
    if step is None:
        step = STEP if method == "complex" else STEPS[dtype]
    # The products are small: several threads would wait for each other longer than they compute.
    with blas_threads(1), np.errstate(all="ignore"):
        clock = Clock(time)
        references = [ReferencePass(model, x, target, "training", dtype)]
        references.append(ReferencePass(model, x, target, "evaluation", dtype, references[0].params))
        for reference in references:
            require_pure(reference)
        if references[1].equals(references[0]):
            references.pop()

        def method_at(reference: ReferencePass) -> Method:
            if method == "complex":
                return ComplexStep(reference, tolerance)
            return CentralDifferences(reference, step, tolerance, seed)

        methods = [method_at(reference) for reference in references]
        names = _chosen([*references[0].gradients], layer, parameter)
        shapes = {name: references[0].gradients[name].shape for name in names}
        plan = Plan(shapes, len(methods), directions, elements, seed)
        planned = len(plan)
        wanted = planned if comparisons is None else min(comparisons, planned)
        found = _compare(plan, wanted, methods, clock, announce, progress)
        done, seconds = sum(map(len, found.values())), clock.elapsed()
        _locate_wrong(found, methods, clock, seed)
        kinked = [name for name, comparisons in found.items() if any(one.status == "kink" for one in comparisons)]
        if kinked and any(reference.derivatives.has_kinks() for reference in references):
            nearby = [method_at(reference.nearby(seed)) for reference in references]
            for name in kinked:
                direction = joint_direction(
                    references[0].gradients[name].shape, generator(seed, "gradcheck", name, "joint")
                )
                found[name] += [one.compare(name, direction, None) for one in methods]
            again = Plan({name: shapes[name] for name in kinked}, len(nearby), directions, elements, seed)
            elsewhere = _compare(again, len(again), nearby, clock, None, None)
            _locate_wrong(elsewhere, nearby, clock, seed)
            for name in kinked:
                found[name] += elsewhere[name]
        explanations = _explanations(found, seed)
    checks = [_summary(name, references[0], found[name], explanations.get(name)) for name in names]
    everything = [comparison for comparisons in found.values() for comparison in comparisons]
    return GradcheckReport(
        ok=all(check.status != "wrong" for check in checks),
        method=method,
        max_relative_error=max((one.error for one in everything if one.is_conclusive), default=0.0),
        tolerance=tolerance,
        step=step,
        dtype=dtype,
        kinks=sum(check.kinks for check in checks),
        noise=sum(check.noise for check in checks),
        coverage=_coverage(everything),
        modes=[reference.mode for reference in references],
        parameters=checks,
        by_differences=sorted({name for reference in references for name in reference.derivatives.by_differences}),
        comparisons=done,
        planned=planned,
        seconds=round(seconds, 3),
    )


def _check_options(method: str, step: float | None, dtype: str) -> None:
    for name, value, known in (("method", method, ("complex", "central")), ("dtype", dtype, ("float64", "float32"))):
        if value not in known:
            raise ModelInputError(f"unknown {name} {value!r}, expected one of: {', '.join(known)}")
    if method == "complex" and step is not None:
        raise ModelInputError("complex steps need no step length: a step only applies to the method central")
    if method == "complex" and dtype != "float64":
        raise ModelInputError("complex steps always use double precision: float32 only applies to the method central")
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
            raise ModelInputError(f"there is no layer {layer!r} with parameters; expected one of: {', '.join(layers)}")
    return chosen


def _compare(
    plan: Plan,
    wanted: int,
    methods: Sequence[Method],
    clock: Clock,
    announce: Callable[[int, float], None] | None,
    progress: Tick | None,
) -> dict[str, list[Comparison]]:
    """Return the comparisons of each gradient, as many of the plan's as there is time for."""

    def compare(probe: Probe) -> Comparison:
        with np.errstate(all="ignore"):  # a thread has settings of its own
            return methods[probe.mode].compare(probe.name, *plan.direction(probe))

    found: dict[str, list[Comparison]] = {name: [] for name in plan.shapes}
    graph = methods[0].reference.graph
    costly, probes, done, workers = costs(graph, [*plan.shapes]), islice(plan, wanted), 0, 1
    # The second comparison tells what the others will cost: in it, nothing is done for the first time.
    for part in (islice(probes, 1), islice(probes, 1), probes):
        started, last = clock.elapsed(), ""
        for probe, comparison in run(part, compare, workers, clock):
            found[probe.name].append(comparison)
            done, last = done + 1, probe.name
            if progress is not None:
                progress(done, clock.attainable(done, wanted))
        if clock.is_over():
            break
        if done == 2 and last:
            whole = (clock.elapsed() - started) / max(costly[last], 1e-9)
            if whole > WORTH_THREADS and all(is_shipped(node.layer) for node in graph.nodes):
                workers = available_cores()
            if announce is not None:
                ahead = [costly[probe.name] for probe in islice(plan, min(wanted, 10_000))]
                average = whole * sum(ahead) / len(ahead)
                announce(wanted, clock.elapsed() + average * (wanted - done) / (1 + SPEEDUP * (workers - 1)))
    return found


def _locate_wrong(found: dict[str, list[Comparison]], methods: Sequence[Method], clock: Clock, seed: int) -> None:
    """Add a wrong element to each gradient of which only a direction is known to be wrong.

    Where time is over, only to the one nearest to the loss: what is wrong there may be all that is.
    """
    for name, comparisons in reversed(found.items()):
        worst = max(comparisons, key=lambda one: one.severity, default=None)
        if worst and worst.status == "wrong" and worst.index is None:
            comparisons.append(_locate(name, next(one for one in methods if one.reference is worst.reference), seed))
            if clock.is_over():
                return


def _locate(name: str, method: Method, seed: int) -> Comparison:
    """Compare at an element that is wrong."""
    weights = generator(seed, "gradcheck", name, "locate").normal(size=method.reference.gradients[name].shape)

    def severity(direction: Array) -> tuple[bool, float]:
        comparison = method.compare(name, direction, None)
        return comparison.status == "wrong", _difference(comparison)

    index = bisect(weights, severity)
    return method.compare(name, unit(weights.shape, index), index)


def _difference(comparison: Comparison) -> float:
    difference = abs(comparison.analytic - comparison.numeric)
    return difference if np.isfinite(difference) else float("inf")


def _explanations(found: dict[str, list[Comparison]], seed: int) -> dict[str, str]:
    """Return what is wrong with each gradient that is, at the first pass where it is."""
    wrong = {name: [one for one in comparisons if one.status == "wrong"] for name, comparisons in found.items()}
    references = list(dict.fromkeys(one.reference for comparisons in wrong.values() for one in comparisons))
    texts: dict[str, str] = {}
    for reference in references:
        elements: WrongElements = {
            name: [one.index for one in comparisons if one.reference is reference and one.index is not None]
            for name, comparisons in wrong.items()
            if name not in texts and any(one.reference is reference for one in comparisons)
        }
        texts |= explain(reference.in_double(), elements, seed=seed)
    return texts


def _summary(name: str, reference: ReferencePass, found: list[Comparison], explanation: str | None) -> ParameterCheck:
    shape = reference.gradients[name].shape
    worst = max(found, key=lambda one: one.severity, default=None)
    worst_single = max((one for one in found if one.index is not None), key=lambda one: one.severity, default=None)
    public = (shape[-1], *shape[:-1]) if name == INPUT else shape
    statuses = Counter(one.status for one in found)
    return ParameterCheck(
        name=name,
        status=worst.status if worst else "unchecked",
        relative_error=worst.error if worst else None,
        checked=len(found),
        worst_index=public_index(name, worst_single.index) if worst_single and worst_single.index else None,
        shape=list(public),
        size=int(np.prod(shape)),
        analytic=worst.analytic if worst else 0.0,
        numeric=worst.numeric if worst else 0.0,
        mode=worst.reference.mode if worst else reference.mode,
        kinks=statuses["kink"],
        noise=statuses["noise"],
        coverage=_coverage(found),
        explanation=explanation,
        directions=sum(one.index is None and one.reference is found[0].reference for one in found),
        elements=len({one.index for one in found} - {None}),
        by_mode=dict(Counter(one.reference.mode for one in found)),
    )


def _coverage(found: Sequence[Comparison]) -> float:
    return round(100 * sum(one.is_conclusive for one in found) / len(found), 2) if found else 0.0
