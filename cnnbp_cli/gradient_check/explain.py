"""Why a gradient is wrong: which layer's backward pass is at fault, and what kind of wrong its numbers are.

A gradient is wrong because its own layer computes it wrongly, or because a later layer handed down a wrong one. So
each backward pass is checked by itself first: with dy at its output, what it returns has to be Σ dy · δy for every
small change of its input or its parameters, δy being what that change makes of the output.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from cnnbp_cli.core.graph import INPUT, Node
from cnnbp_cli.core.rng import generator
from cnnbp_cli.core.types import Array, Layer
from cnnbp_cli.gradient_check.complex_step import NOISE, STEP, UNDERFLOW
from cnnbp_cli.gradient_check.fault_patterns import Evidence, Number, describe
from cnnbp_cli.gradient_check.point import Index, Point, along

Suspects = dict[str, list[Index]]
"""Elements that are known to be wrong, of every tensor that is."""

MOST = 2000  # elements of a tensor that are compared
LEAST = 60
IN_LINE = 50  # in line with a wrong one, along each axis
IMAGES = 8  # that are looked at one by one
PATIENCE = 2.0  # seconds for the elements between those two
CENTRAL_STEP = 1e-6
DIFFERENCE_NOISE = 8 * np.finfo(np.float64).eps / CENTRAL_STEP
TOLERANCES = {True: 1e-8, False: 1e-5}  # relative to the terms of the sum; by complex steps, or by differences

ORDINALS = ("1st", "2nd", "3rd")


def explain(point: Point, suspects: Suspects, *, seed: int = 0) -> dict[str, str]:
    """Say for every wrong gradient what is wrong with it, in one line.

    Parameters
    ----------
    point : Point
        In float64.
    suspects : dict of str to list of indices
    seed : int
        Draws the elements that are compared.
    """
    return _Inquiry(point, seed).explain(suspects)


@dataclass(frozen=True, eq=False)
class _Claim:
    """Something that one backward pass returned, and the forward pass that it has to be the derivative of.

    Attributes
    ----------
    about : str
        What it is the gradient to, as in ``"dx of pool"``.
    place : str
        The method to look at.
    analytic : Array
        What was returned.
    start : Array
        The parameter or the input that it is the gradient to.
    flow : Array
        The gradient that arrived at the output.
    forward : callable
        Maps what takes the place of `start` to the output and the branches taken.
    """

    about: str
    place: str
    analytic: Array
    start: Array
    flow: Array
    forward: Callable[[Array], tuple[Array, Array | None]]
    axes: tuple[str, ...]
    numbers: Sequence[Number]
    is_parameter: bool

    @cached_property
    def by_complex_steps(self) -> bool:
        """Whether complex numbers pass through; where they do not, central differences have to do."""
        try:
            y, _ = self.forward(self.start + 0j)
        except Exception:  # of somebody else's layer
            return False
        return np.iscomplexobj(y)


class _Inquiry:
    def __init__(self, point: Point, seed: int) -> None:
        self._point = point
        self._rng = generator(seed, "gradcheck", "explain")
        self._known: dict[str, str | None] = {}

    def explain(self, suspects: Suspects) -> dict[str, str]:
        prefix = "in evaluation mode: " if self._point.mode == "evaluation" else ""
        return {name: prefix + self._explain(name, indices) for name, indices in suspects.items()}

    def _explain(self, name: str, indices: list[Index]) -> str:
        if name != INPUT and (own := self._fault(self._of_parameter(name), indices)):
            return own
        faults = [text for claim in self._after(name) if (text := self._fault(claim))]
        if not faults:
            return "each layer is right by itself: look at how gradients of several branches are added up"
        more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
        return f"what arrives is wrong already, {faults[0]}{more}"

    def _fault(self, claim: _Claim, indices: Sequence[Index] = ()) -> str | None:
        """Say what is wrong with a claim; None where nothing is."""
        key = f"{claim.about} {claim.place}"
        if key not in self._known:
            self._known[key] = None
            if not self._holds(claim, indices):
                about = "" if claim.is_parameter else f"{claim.about}: "
                self._known[key] = f"{about}{describe(self._evidence(claim, indices))}; look at {claim.place}"
        return self._known[key]

    # ------------------------------------------------------------ what is claimed

    def _of_parameter(self, name: str) -> _Claim:
        point = self._point
        node, layer, key = point.parameter_node(name)
        own, xs = point.params[node.name], [point.values[before] for before in node.inputs]
        _, grads = point.own_backward(node)

        def forward(value: Array) -> tuple[Array, Array | None]:
            y, residuals = point.compute(node, own | {key: value}, xs)
            return y, layer.branches(residuals)

        return _Claim(
            about=name,
            place=_place(layer, key),
            analytic=grads[key],
            start=own[key],
            flow=point.flows[node.name],
            forward=forward,
            axes=_parameter_axes(own[key].shape, layer, point.values[node.name]),
            numbers=self._numbers(node),
            is_parameter=True,
        )

    def _after(self, name: str) -> Iterator[_Claim]:
        """Yield the gradients to the logits and to the inputs of all layers after a tensor, from the loss down."""
        yield self._of_loss()
        point = self._point
        reached = {INPUT if name == INPUT else name.rpartition(".")[0]}
        claims: list[_Claim] = []
        for node in point.graph.nodes:
            on_the_way = [k for k, before in enumerate(node.inputs) if before in reached]
            if on_the_way:
                reached.add(node.name)
                claims += [self._of_input(node, k) for k in on_the_way]
        yield from reversed(claims)

    def _of_input(self, node: Node, k: int) -> _Claim:
        point, layer = self._point, node.layer
        xs = [point.values[before] for before in node.inputs]
        dx = point.own_backward(node)[0][k]
        which = f" to its {ORDINALS[k] if k < len(ORDINALS) else f'{k + 1}th'} input" if len(xs) > 1 else ""

        def forward(value: Array) -> tuple[Array, Array | None]:
            y, residuals = point.compute(node, point.params.get(node.name, {}), [*xs[:k], value, *xs[k + 1 :]])
            return y, layer.branches(residuals)

        return _Claim(
            about=f"dx of {node.name}{which}",
            place=_place(layer, "dx"),
            analytic=np.zeros_like(xs[k]) if dx is None else dx,
            start=xs[k],
            flow=point.flows[node.name],
            forward=forward,
            axes=_image_axes(xs[k]),
            numbers=self._numbers(node),
            is_parameter=False,
        )

    def _of_loss(self) -> _Claim:
        point = self._point
        z = point.values[point.graph.output]

        def forward(value: Array) -> tuple[Array, Array | None]:
            return np.asarray(point.mean_loss({point.graph.output: value})), None

        return _Claim(
            about="dz of the loss",
            place=_place(point.loss, "dz"),
            analytic=point.flows[point.graph.output],
            start=z,
            flow=np.ones(()),
            forward=forward,
            axes=_image_axes(z),
            numbers=[Number(z.shape[-1], "N", "the batch size"), Number(prod(z.shape[:-1]), "K", "the outputs")],
            is_parameter=False,
        )

    def _numbers(self, node: Node) -> list[Number]:
        point, layer = self._point, node.layer
        x, y = point.values[node.inputs[0]], point.values[node.name]
        found = [Number(x.shape[-1], "N", "the batch size")]
        if y.ndim == 4:
            positions = y.shape[1] * y.shape[2]
            found += [
                Number(positions, "(h·w)", "the output's positions"),
                Number(positions * y.shape[-1], "(N·h·w)", "the batch size times the output's positions"),
            ]
        if x.ndim == 4 and x.shape[1:3] != y.shape[1:3]:
            found.append(Number(x.shape[1] * x.shape[2], "(h·w)", "the input's positions"))
        window = layer.kernel() if isinstance(layer, Layer) else None
        if window is not None:
            found.append(Number(prod(window[0]), "(kh·kw)", "the kernel's positions"))
        found.append(Number(y.shape[0], "f", "the output channels" if y.ndim == 4 else "the output features"))
        found.append(Number(x.shape[0], "c", "the input channels" if x.ndim == 4 else "the input features"))
        return found

    # ------------------------------------------------------------ whether it is true

    def _terms(self, claim: _Claim, direction: Array) -> tuple[Array, float] | None:
        """Return dy · δy for a change of what the claim is about, and its rounding; None where a branch switches."""
        flow = float(np.linalg.norm(claim.flow))
        if claim.by_complex_steps:
            y, _ = claim.forward(claim.start + 1j * STEP * direction)
            change = y.imag / STEP
            noise = NOISE * flow * (float(np.linalg.norm(change)) + float(np.linalg.norm(direction))) + UNDERFLOW
        else:
            up, down = (claim.forward(claim.start + sign * CENTRAL_STEP * direction) for sign in (1, -1))
            here = claim.forward(claim.start)
            if any(taken[1] is not None and not np.array_equal(taken[1], here[1]) for taken in (up, down)):  # type: ignore[arg-type]
                return None
            change = (up[0] - down[0]) / (2 * CENTRAL_STEP)
            noise = DIFFERENCE_NOISE * float(np.linalg.norm(here[0])) * flow
        return claim.flow * change, noise

    def _agrees(self, claim: _Claim, direction: Array) -> bool:
        if (found := self._terms(claim, direction)) is None:
            return True
        terms, noise = found
        difference = abs(along(claim.analytic, direction) - float(terms.sum()))
        return difference <= TOLERANCES[claim.by_complex_steps] * float(np.abs(terms).sum()) + noise

    def _holds(self, claim: _Claim, indices: Sequence[Index]) -> bool:
        """Tell whether a claim is true along random directions, in each image by itself, and at some elements."""
        shape = claim.start.shape
        directions = [self._rng.normal(size=shape) for _ in range(2)]
        if not claim.is_parameter:  # an image that is learned already has gradients too small to show beside others
            directions += [directions[0] * (np.arange(shape[-1]) == k) for k in range(min(shape[-1], IMAGES))]
        return all(self._agrees(claim, one) for one in [*directions, *(_unit(shape, index) for index in indices[:5])])

    def _chosen(self, claim: _Claim, indices: Sequence[Index]) -> list[int]:
        """Return the elements to compare, in order: wrong ones, some in line with them along each axis, any."""
        shape, size = claim.start.shape, claim.start.size
        known = [*indices, self._locate(claim)] if size > MOST else indices
        first = [int(np.ravel_multi_index(index, shape)) for index in known]
        grid = np.arange(size).reshape(shape)
        for index in known[-1:]:
            for axis, k in enumerate(index):
                first += [int(flat) for flat in self._rng.permutation(grid.take(k, axis).ravel())[:IN_LINE]]
        any_other = self._rng.permutation(size)
        return list(dict.fromkeys([*first, *any_other[:MOST].tolist()]))

    def _locate(self, claim: _Claim) -> Index:
        """Find an element that is wrong, by halving: go on with the half along which the derivatives differ more."""
        weights = self._rng.normal(size=claim.start.shape)
        suspects = np.arange(weights.size)

        def difference(chosen: Array) -> float:
            direction = np.zeros_like(weights)
            direction.flat[chosen] = weights.flat[chosen]
            found = self._terms(claim, direction)
            apart = 0.0 if found is None else abs(along(claim.analytic, direction) - float(found[0].sum()))
            return apart if np.isfinite(apart) else float("inf")

        while len(suspects) > 1:
            suspects = max(np.array_split(suspects, 2), key=difference)
        return tuple(int(i) for i in np.unravel_index(suspects[0], claim.start.shape))

    def _evidence(self, claim: _Claim, indices: Sequence[Index]) -> Evidence:
        shape = claim.start.shape
        chosen = self._chosen(claim, indices)
        compared: list[Index] = []
        numeric: list[float] = []
        tolerance: list[float] = []
        parts: dict[str, list[Array]] = {"image": [], "output row": [], "output column": []}
        begun = perf_counter()
        for flat in chosen:
            if len(compared) >= LEAST and perf_counter() - begun > PATIENCE:
                break
            index = tuple(int(i) for i in np.unravel_index(flat, shape))
            if (found := self._terms(claim, _unit(shape, index))) is None:
                continue
            terms, noise = found
            compared.append(index)
            numeric.append(float(terms.sum()))
            tolerance.append(TOLERANCES[claim.by_complex_steps] * float(np.abs(terms).sum()) + noise)
            if claim.is_parameter:
                parts["image"].append(terms.reshape(-1, terms.shape[-1]).sum(0))
            if terms.ndim == 4:
                parts["output row"].append(terms.sum((0, 2, 3)))
                parts["output column"].append(terms.sum((0, 1, 3)))

        def agrees_outside(mask: Array) -> bool:
            return self._agrees(claim, np.where(mask, 0.0, self._rng.normal(size=shape)))

        return Evidence(
            analytic=claim.analytic,
            indices=np.array(compared, int).reshape(-1, len(shape)),
            numeric=np.array(numeric),
            tolerance=np.array(tolerance),
            axes=claim.axes,
            numbers=claim.numbers,
            values=claim.start if claim.is_parameter else None,
            parts={name: np.array(rows) for name, rows in parts.items() if rows},
            agrees_outside=agrees_outside,
        )


def _is_ours(owner: Any) -> bool:
    return type(owner).__module__.startswith("cnnbp_cli.")


def _unit(shape: tuple[int, ...], index: Index) -> Array:
    direction = np.zeros(shape)
    direction[index] = 1.0
    return direction


def _parameter_axes(shape: tuple[int, ...], layer: Any, y: Array) -> tuple[str, ...]:
    if len(shape) == 4:
        channels = (
            ("input channel", "output channel")
            if layer.type == "conv_transpose2d"
            else ("output channel", "input channel")
        )
        return (*channels, "kernel row", "kernel column")
    if len(shape) == 2:
        return ("output feature", "input feature")
    if len(shape) == 1 and shape[0] == y.shape[0]:
        return ("channel" if y.ndim == 4 else "feature",)
    return ("channel", "row", "column") if len(shape) == 3 else tuple(f"axis {k}" for k in range(len(shape)))


def _image_axes(x: Array) -> tuple[str, ...]:
    return {2: ("feature", "image"), 4: ("channel", "row", "column", "image")}.get(
        x.ndim, tuple(f"axis {k}" for k in range(x.ndim))
    )


def _place(owner: Any, key: str) -> str:
    """Say where a gradient is computed: the class, its file when it is not one of ours, and the formula it declares."""
    cls = type(owner)
    where = ""
    if not _is_ours(owner):
        code = inspect.unwrap(cls.backward).__code__
        where = f" ({Path(code.co_filename).name}:{code.co_firstlineno})"
    return f"{cls.__name__}.backward{where}, {_formula(cls, key)}"


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
