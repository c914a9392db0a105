"""Why a gradient is wrong: which layer's backward pass is at fault, and which known mistake gives its numbers.

A gradient is wrong because its own layer computes it wrongly, or because a later layer passed on a wrong one. So
each backward pass is checked alone first: given dy at its output, what it returns has to be Σ dy · δy for every
small change of its input or its parameters, where δy is the resulting change of the output.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from cnnbp_cli.core.graph import INPUT, Node
from cnnbp_cli.core.rng import generator
from cnnbp_cli.core.terms import LayerPass
from cnnbp_cli.core.types import Array
from cnnbp_cli.gradient_check.complex_step import DIFFERENCE_TOLERANCE, NOISE, UNDERFLOW
from cnnbp_cli.gradient_check.course_mistakes import Mistake, mistakes_in_dx, mistakes_in_parameter
from cnnbp_cli.gradient_check.fault_patterns import KnownFactor, Mismatch, describe
from cnnbp_cli.gradient_check.layer_derivative import STEP, OutputDerivative, is_shipped
from cnnbp_cli.gradient_check.plan import unit
from cnnbp_cli.gradient_check.reference_pass import Index, ReferencePass, along, bisect, joint_direction

WrongElements = dict[str, list[Index]]
"""The elements known to be wrong, of every tensor that is wrong."""

MAX_ELEMENTS = 2000  # elements of a tensor that are compared
MIN_ELEMENTS = 60
PER_AXIS = 50  # in line with a wrong one, along each axis
MAX_IMAGES = 8  # that are looked at one by one
TIME_LIMIT = 2.0  # seconds for the elements between those two
TOLERANCE = 1e-8  # relative to the terms of the sum

ORDINALS = ("1st", "2nd", "3rd")


def explain(reference: ReferencePass, wrong: WrongElements, *, seed: int = 0) -> dict[str, str]:
    """Return one line for every wrong gradient: what is wrong with it, and where to look.

    Parameters
    ----------
    reference : ReferencePass
        In float64.
    wrong : dict of str to list of indices
    seed : int
        Draws the elements that are compared.
    """
    return _Explainer(reference, seed).explain(wrong)


@dataclass(frozen=True, eq=False)
class _LocalGradient:
    """A gradient that one backward pass returned, and the forward pass that it has to be the derivative of.

    Attributes
    ----------
    about : str
        Its name, as in ``"dx of pool"``.
    place : str
        The backward method, its file and its formula.
    analytic : Array
        The gradient returned.
    start : Array
        The value of that parameter or input.
    dy : Array
        The gradient at the output.
    change : callable
        Maps a direction in it to the derivative of the output.
    mistakes : callable
        Yields what well-known mistakes would return in the place of `analytic`.
    """

    about: str
    place: str
    analytic: Array
    start: Array
    dy: Array
    change: Callable[[Array], OutputDerivative]
    axes: tuple[str, ...]
    numbers: Sequence[KnownFactor]
    is_parameter: bool
    mistakes: Callable[[], Iterable[Mistake]] = tuple


class _Explainer:
    def __init__(self, reference: ReferencePass, seed: int, *, is_nearby: bool = False) -> None:
        self._reference, self._is_nearby = reference, is_nearby
        self._rng = generator(seed, "gradcheck", "explain")
        self._known: dict[str, str | None] = {}

    def explain(self, wrong: WrongElements) -> dict[str, str]:
        if text := self._not_finite():
            return dict.fromkeys(wrong, text)
        prefix = "in evaluation mode: " if self._reference.mode == "evaluation" else ""
        return {name: prefix + self._explain(name, indices) for name, indices in wrong.items()}

    def _explain(self, name: str, indices: list[Index]) -> str:
        uses = self._reference.graph.uses.get(name.rpartition(".")[0], [])
        for node in uses:
            if own := self._fault(self._of_parameter(name, node), indices):
                return f"at {node.name}: {own}" if len(uses) > 1 else own
        faults = [text for gradient in self._after(name) if (text := self._fault(gradient))]
        if not faults and not self._is_nearby and self._reference.derivatives.has_kinks():  # they allow for more
            return _Explainer(self._reference.nearby(0), 0, is_nearby=True)._explain(name, indices)
        if not faults:
            parts = "its uses" if len(uses) > 1 else "branches"
            return f"every layer's own backward pass is correct: look at how the gradients of {parts} are added up"
        more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
        return f"the incoming gradient is already wrong: {faults[0]}{more}"

    def _not_finite(self) -> str | None:
        """Name the first array of the forward pass that is not finite: all that follows it says nothing."""
        reference = self._reference
        arrays = [("the input", reference.values[INPUT], "")]
        for node in reference.graph.nodes:
            arrays += [(f"{node.name}.{key}", value, "") for key, value in reference.params.get(node.name, {}).items()]
            place = f", from finite inputs; look at {_method(node.layer, 'forward')}"
            arrays.append((f"the output of {node.name}", reference.values[node.name], place))
        for k, (one, loss_sum) in enumerate(zip(reference.losses, reference.sums, strict=True)):
            arrays.append((self._loss_name(k), np.array(loss_sum), f"; look at {_method(one.loss, 'forward')}"))
        for what, values, place in arrays:
            if bad := int(values.size - np.isfinite(values).sum()):
                return f"{what} is infinite or NaN in {bad:,} of {values.size:,} elements{place}"
        return None

    def _fault(self, gradient: _LocalGradient, indices: Sequence[Index] = ()) -> str | None:
        """Say what is wrong with a gradient; None where nothing is."""
        key = f"{gradient.about} {gradient.place}"
        if key not in self._known:
            self._known[key] = None
            if not self._holds(gradient, indices):
                about = "" if gradient.is_parameter else f"{gradient.about}: "
                self._known[key] = f"{about}{describe(self._mismatch(gradient, indices))}; look at {gradient.place}"
        return self._known[key]

    # ------------------------------------------------------------ the gradients of single layers

    def _of_parameter(self, name: str, node: Node) -> _LocalGradient:
        """Return what one use of a layer adds to the gradient of a parameter."""
        reference, layer, key = self._reference, node.layer, name.rpartition(".")[2]
        own = reference.params[node.owner]
        _, grads = reference.own_backward(node)

        def change(direction: Array) -> OutputDerivative:
            return reference.derivatives.along(node, [None] * len(node.inputs), {key: direction})

        return _LocalGradient(
            about=f"{key} at {node.name}",
            place=_place(layer, key),
            analytic=grads[key],
            start=own[key],
            dy=reference.output_gradients[node.name],
            change=change,
            axes=_parameter_axes(own[key].shape, layer, reference.values[node.name]),
            numbers=self._numbers(node),
            is_parameter=True,
            mistakes=lambda: mistakes_in_parameter(self._layer_pass(node), key),
        )

    def _after(self, name: str) -> Iterator[_LocalGradient]:
        """Yield the gradients to the logits and to the inputs of all layers after a tensor, from the losses down."""
        reference = self._reference
        reached = set(reference.starts(name))
        gradients: list[_LocalGradient] = []
        for node in reference.graph.nodes:
            on_the_way = [k for k, before in enumerate(node.inputs) if before in reached]
            if on_the_way:
                reached.add(node.name)
                gradients += [self._of_input(node, k) for k in on_the_way]
        yield from (self._of_loss(k) for k, one in enumerate(reference.losses) if one.layer in reached)
        yield from reversed(gradients)

    def _of_input(self, node: Node, k: int) -> _LocalGradient:
        reference, layer = self._reference, node.layer
        xs = [reference.values[before] for before in node.inputs]
        dx = reference.own_backward(node)[0][k]
        which = f" to its {ORDINALS[k] if k < len(ORDINALS) else f'{k + 1}th'} input" if len(xs) > 1 else ""

        def change(direction: Array) -> OutputDerivative:
            return reference.derivatives.along(node, [direction if i == k else None for i in range(len(xs))], {})

        def forward(x: Array) -> Array:
            return reference.compute(node, reference.params.get(node.owner, {}), [x])[0]

        return _LocalGradient(
            about=f"dx of {node.name}{which}",
            place=_place(layer, "dx"),
            analytic=np.zeros_like(xs[k]) if dx is None else dx,
            start=xs[k],
            dy=reference.output_gradients[node.name],
            change=change,
            axes=_image_axes(xs[k]),
            numbers=self._numbers(node),
            is_parameter=False,
            mistakes=(lambda: mistakes_in_dx(self._layer_pass(node), forward)) if len(xs) == 1 else tuple,
        )

    def _layer_pass(self, node: Node) -> LayerPass:
        reference, name = self._reference, node.name
        return LayerPass(
            params=reference.params.get(node.owner, {}),
            xs=[reference.values[before] for before in node.inputs],
            y=reference.values[name],
            dy=reference.output_gradients[name],
            residuals=reference.tape.residuals[name],
        )

    def _loss_name(self, k: int) -> str:
        return f"the loss of {self._reference.losses[k].layer}" if len(self._reference.losses) > 1 else "the loss"

    def _of_loss(self, k: int) -> _LocalGradient:
        reference, one = self._reference, self._reference.losses[k]
        z = reference.values[one.layer]

        def change(direction: Array) -> OutputDerivative:
            return OutputDerivative(np.imag(reference.mean_loss({one.layer: z + 1j * STEP * direction})) / STEP)

        return _LocalGradient(
            about=f"dz of {self._loss_name(k)}",
            place=_place(one.loss, "dz"),
            analytic=reference.loss_gradient(k),
            start=z,
            dy=np.ones(()),
            change=change,
            axes=_image_axes(z),
            numbers=[
                KnownFactor(z.shape[-1], "N", "the batch size"),
                KnownFactor(prod(z.shape[:-1]), "K", "the outputs"),
            ],
            is_parameter=False,
        )

    def _numbers(self, node: Node) -> list[KnownFactor]:
        reference, layer = self._reference, node.layer
        x, y = reference.values[node.inputs[0]], reference.values[node.name]
        found = [KnownFactor(x.shape[-1], "N", "the batch size")]
        if y.ndim == 4:
            positions = y.shape[1] * y.shape[2]
            found += [
                KnownFactor(positions, "(h·w)", "the output's positions"),
                KnownFactor(positions * y.shape[-1], "(N·h·w)", "the batch size times the output's positions"),
            ]
        if x.ndim == 4 and x.shape[1:3] != y.shape[1:3]:
            found.append(KnownFactor(x.shape[1] * x.shape[2], "(h·w)", "the input's positions"))
        window = layer.kernel()
        if window is not None:
            found.append(KnownFactor(prod(window[0]), "(kh·kw)", "the kernel's positions"))
        found.append(KnownFactor(y.shape[0], "f", "the output channels" if y.ndim == 4 else "the output features"))
        found.append(KnownFactor(x.shape[0], "c", "the input channels" if x.ndim == 4 else "the input features"))
        return found

    # ------------------------------------------------------------ whether they are correct

    def _terms(self, gradient: _LocalGradient, direction: Array) -> tuple[Array, float, bool]:
        """Return dy · δy along a direction, by how much their sum may be off, and whether a kink is a part of that."""
        change, dy_norm = gradient.change(direction), float(np.linalg.norm(gradient.dy))
        noise = NOISE * dy_norm * (float(np.linalg.norm(change.value)) + float(np.linalg.norm(direction))) + UNDERFLOW
        terms = gradient.dy * change.value
        noise += float((np.abs(gradient.dy) * (change.gap + change.error)).sum())
        tolerance = DIFFERENCE_TOLERANCE if change.has_differences else TOLERANCE
        return terms, tolerance * float(np.abs(terms).sum()) + noise, bool(np.any(change.gap))

    def _agrees(self, gradient: _LocalGradient, direction: Array) -> bool:
        terms, slack, _ = self._terms(gradient, direction)
        return abs(along(gradient.analytic, direction) - float(terms.sum())) <= slack

    def _holds(self, gradient: _LocalGradient, indices: Sequence[Index]) -> bool:
        """Tell whether a gradient is true along random directions, in each image by itself, and at some elements."""
        shape = gradient.start.shape
        directions = [self._rng.normal(size=shape) for _ in range(2)]
        if not gradient.is_parameter:  # an image that is learned already has gradients too small to show beside others
            directions.append(joint_direction(shape, self._rng))
            directions += [directions[0] * (np.arange(shape[-1]) == k) for k in range(min(shape[-1], MAX_IMAGES))]
        return all(self._agrees(gradient, one) for one in [*directions, *(unit(shape, index) for index in indices[:5])])

    def _chosen(self, gradient: _LocalGradient, indices: Sequence[Index]) -> list[int]:
        """Return the elements to compare, in order: wrong ones, some in line with them along each axis, any."""
        shape, size = gradient.start.shape, gradient.start.size
        known = [*indices, self._locate(gradient)] if size > MAX_ELEMENTS else indices
        first = [int(np.ravel_multi_index(index, shape)) for index in known]
        grid = np.arange(size).reshape(shape)
        for index in known[-1:]:
            for axis, k in enumerate(index):
                first += [int(flat) for flat in self._rng.permutation(grid.take(k, axis).ravel())[:PER_AXIS]]
        any_other = self._rng.permutation(size)
        return list(dict.fromkeys([*first, *any_other[:MAX_ELEMENTS].tolist()]))

    def _locate(self, gradient: _LocalGradient) -> Index:
        """Return an element that is wrong."""

        def difference(direction: Array) -> float:
            terms, slack, _ = self._terms(gradient, direction)
            apart = abs(along(gradient.analytic, direction) - float(terms.sum()))
            return max(0.0, apart - slack) if np.isfinite(apart) else float("inf")

        return bisect(self._rng.normal(size=gradient.start.shape), difference)

    def _mismatch(self, gradient: _LocalGradient, indices: Sequence[Index]) -> Mismatch:
        shape = gradient.start.shape
        chosen = self._chosen(gradient, indices)
        compared: list[Index] = []
        numeric: list[float] = []
        tolerance: list[float] = []
        parts: dict[str, list[Array]] = {"image": [], "output row": [], "output column": []}
        has_ties, begun = False, perf_counter()
        for flat in chosen:
            if len(compared) >= MIN_ELEMENTS and perf_counter() - begun > TIME_LIMIT:
                break
            index = tuple(int(i) for i in np.unravel_index(flat, shape))
            terms, slack, tied = self._terms(gradient, unit(shape, index))
            has_ties = has_ties or tied
            compared.append(index)
            numeric.append(float(terms.sum()))
            tolerance.append(slack)
            if gradient.is_parameter:
                parts["image"].append(terms.reshape(-1, terms.shape[-1]).sum(0))
            if terms.ndim == 4:
                parts["output row"].append(terms.sum((0, 2, 3)))
                parts["output column"].append(terms.sum((0, 1, 3)))

        def agrees_outside(mask: Array) -> bool:
            return self._agrees(gradient, np.where(mask, 0.0, self._rng.normal(size=shape)))

        return Mismatch(
            analytic=gradient.analytic,
            indices=np.array(compared, int).reshape(-1, len(shape)),
            numeric=np.array(numeric),
            tolerance=np.array(tolerance),
            axes=gradient.axes,
            numbers=gradient.numbers,
            values=gradient.start if gradient.is_parameter else None,
            parts={name: np.array(rows) for name, rows in parts.items() if rows},
            has_ties=has_ties,
            mistakes=gradient.mistakes,
            agrees_outside=agrees_outside,
        )


def _parameter_axes(shape: tuple[int, ...], layer: Any, y: Array) -> tuple[str, ...]:
    if len(shape) in (2, 4):
        kind = "channel" if len(shape) == 4 else "feature"
        sides = ("input", "output") if layer.unit_axis else ("output", "input")
        return (*(f"{side} {kind}" for side in sides), *("kernel row", "kernel column")[: len(shape) - 2])
    if len(shape) == 1 and shape[0] == y.shape[0]:
        return ("channel" if y.ndim == 4 else "feature",)
    return ("channel", "row", "column") if len(shape) == 3 else tuple(f"axis {k}" for k in range(len(shape)))


def _image_axes(x: Array) -> tuple[str, ...]:
    return {2: ("feature", "image"), 4: ("channel", "row", "column", "image")}.get(
        x.ndim, tuple(f"axis {k}" for k in range(x.ndim))
    )


def _place(owner: Any, key: str) -> str:
    """Say where a gradient is computed: the method, and the formula that the class declares."""
    return f"{_method(owner, 'backward')}, {_formula(type(owner), key)}"


def _method(owner: Any, name: str) -> str:
    """Name a method, with its file when the class is not one of this package."""
    where = ""
    if not is_shipped(owner):
        code = inspect.unwrap(getattr(type(owner), name)).__code__
        where = f" ({Path(code.co_filename).name}:{code.co_firstlineno})"
    return f"{type(owner).__name__}.{name}{where}"


def _formula(cls: type, key: str) -> str:
    """Return the line of a class's docstring that gives a gradient, or the gradient's name."""
    names = {"weight": ("dweight", "dW", "dw"), "bias": ("dbias", "db")}.get(
        key, (key if key in ("dx", "dz") else f"d{key}",)
    )
    pieces = re.split(r"\s{2,}|\n|;\s+|,\s+(?=d\w+(?:\[[^\]]*\])?\s*\+?=)", cls.__doc__ or "")
    for piece in pieces:
        for name in names:
            if re.match(rf"{re.escape(name)}(_k)?(\[[^\]]*\])?\s*\+?=", piece):
                return piece.strip().rstrip(".,:;")
    return names[0]
