"""What every layer did in a step: one figure for each statistic, and one definition for each figure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import isfinite
from typing import Any, Literal

import numpy as np

from cnnbp_cli.core.backprop import Part
from cnnbp_cli.core.graph import INPUT
from cnnbp_cli.core.types import Array, Operation
from cnnbp_cli.model import Model
from cnnbp_cli.parallel.worker import Worker

WATCH_EVERY = 25
"""Steps from one watched step to the next, unless said otherwise; `docs/watching.md` tells what it costs."""

Statistic = Literal[
    "gradient", "weight", "update", "ratio", "activation", "mean", "deviation", "zeros", "dead", "saturated", "signal"
]

DEFINITIONS: dict[Statistic, str] = {
    "gradient": "L2 norm of the loss gradient over all parameters of the layer, before clipping",
    "weight": "L2 norm of all parameters of the layer, after the step",
    "update": "L2 norm of the change that the step made to all parameters of the layer",
    "ratio": "L2 norm of the step's change divided by the L2 norm of the parameters before it",
    "activation": "root mean square of the layer's output over the batch",
    "mean": "mean of the layer's output over the batch",
    "deviation": "standard deviation of the layer's output over the batch",
    "zeros": "share of the layer's output over the batch that is exactly 0",
    "dead": (
        "share of the units (channels of images, features of vectors) of a rectifier, such as ReLU, whose output "
        "was not above 0 for any image since the watched step before"
    ),
    "saturated": (
        "share of the output of a saturating layer, such as sigmoid, over the batch within 1% of the range's width of "
        "its ends"
    ),
    "signal": (
        "root mean square over the batch of the gradient of the mean loss to the layer's output, times the images "
        "in the batch: how much each image's own loss depends on the output"
    ),
}

SHARES: tuple[Statistic, ...] = ("zeros", "dead", "saturated")
"""Those between 0 and 1."""

SATURATED = 0.01
"""Share of the range's width: an output as close to an end counts as saturated."""

STATISTICS_BLOCK = 1 << 15
"""Values that are summed at a time, in float64: they stay in the cache."""


def saturated_ends(layer: Operation[Any]) -> tuple[float, float] | None:
    """Return below and above which outputs of a layer are saturated; None where it does not saturate."""
    low, high = layer.output_range()
    slack = SATURATED * (high - low)
    return (low + slack, high - slack) if layer.saturates and isfinite(slack) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerStatistics:
    """What one layer did in one step, as `DEFINITIONS` defines it; None is what such a layer does not have.

    Attributes
    ----------
    gradient, weight, update, ratio : float or None
        For layers with parameters.
    activation, mean, deviation, zeros : float
    dead : float or None
        For layers that rectify.
    saturated : float or None
        For layers that saturate.
    signal : float or None
        Where a parameter lies before the output; training computes no gradient elsewhere.
    """

    gradient: float | None
    weight: float | None
    update: float | None
    ratio: float | None
    activation: float
    mean: float
    deviation: float
    zeros: float
    dead: float | None
    saturated: float | None
    signal: float | None

    def to_dict(self) -> dict[str, float]:
        """Return the statistics that the layer has."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


class Watcher:
    """Follows the layers of one worker from step to step.

    Between two watched steps it keeps only which units have not been active yet, and looks at no others,
    which are few after the first batch.

    Parameters
    ----------
    model : Model
    workers : Worker
        All of them have to watch the same steps.
    every : int
        Watch the first step and every `every`-th; 0 for none.
    """

    def __init__(self, model: Model, workers: Worker, every: int) -> None:
        self.every = every
        self.workers = workers
        self.nodes = {node.name: k for k, node in enumerate(model.graph.nodes)}
        self.ends = {node.name: saturated_ends(node.layer) for node in model.graph.nodes}
        self.has_signal = {name: model.graph.has_gradient(name) for name in self.nodes}
        share = workers.share(model.layout.size)
        self.parts: dict[str, slice] = {}
        """Where each layer's parameters lie in this worker's share of the vector."""
        for entry in model.layout.entries:
            start = self.parts[entry.node].start if entry.node in self.parts else entry.start - share.start
            self.parts[entry.node] = slice(start, entry.stop - share.start)
        size = share.stop - share.start
        self.parts = {name: slice(max(0, p.start), max(0, min(p.stop, size))) for name, p in self.parts.items()}
        self.units = {node.name: model.graph.shapes[node.name][0] for node in model.graph.nodes if node.layer.rectifies}
        self._pending: dict[str, Array] = {}
        self.open_window()

    def at(self, step: int) -> WatchedStep | None:
        """Return what will look at this step, counted from 1, if it is one to watch."""
        watched = self.every and (step == 1 or step % self.every == 0)
        return WatchedStep(self) if watched else None

    def __call__(self, part: Part, layer: str, *arrays: Array) -> None:
        """Observe a step that is not watched."""
        if part == "forward":
            self.track(layer, *arrays)

    def open_window(self) -> None:
        """Forget which units have been active."""
        self._pending = {name: np.arange(units) for name, units in self.units.items()} if self.every else {}

    def active(self) -> Array:
        """Return 1 for every unit that has been active, else 0: those of all layers behind each other."""
        flags = {name: np.ones(units) for name, units in self.units.items()}
        for name, pending in self._pending.items():
            flags[name][pending] = 0
        return np.concatenate([*flags.values(), np.empty(0)])

    def track(self, name: str, y: Array) -> None:
        """Take in a layer's output of a step that is not watched."""
        pending = self._pending.get(name)
        if pending is None or not pending.size or not y.size:
            return
        rows = y.reshape(len(y), -1)
        if pending.size < len(rows):
            rows = rows.take(pending, 0)
        self._pending[name] = pending[~(rows.max(1) > 0)]


class WatchedStep:
    """Sums up one step of one worker; `statistics` puts the sums of all workers together.

    Parameters
    ----------
    watcher : Watcher
    """

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._sums = np.zeros((len(watcher.nodes), 6))  # values, Σ y, Σ y², zeros, saturated, Σ dy²
        self._squares = np.zeros((len(watcher.parts), 4))  # gradient, parameters before, change, parameters after
        self._wide, self._ones = np.empty(STATISTICS_BLOCK), np.ones(STATISTICS_BLOCK)
        self._mask = np.empty(STATISTICS_BLOCK, bool)
        self._before = np.empty(0)

    def __call__(self, part: Part, layer: str, *arrays: Array) -> None:
        """Observe the step."""
        if part == "forward":
            self.output(layer, *arrays)
        elif part == "backward":
            self.flow(layer, *arrays)
        elif part == "sums":
            self.before(*arrays)

    def output(self, name: str, y: Array) -> None:
        """Take in a layer's output."""
        watcher = self._watcher
        watcher.track(name, y)
        sums, ends = self._sums[watcher.nodes[name]], watcher.ends[name]
        flat = y.ravel(order="K")
        sums[0] = flat.size
        for start in range(0, flat.size, STATISTICS_BLOCK):
            block = flat[start : start + STATISTICS_BLOCK]
            wide, mask = self._wide[: block.size], self._mask[: block.size]
            np.copyto(wide, block)
            sums[1] += np.dot(wide, self._ones[: block.size])
            sums[2] += np.dot(wide, wide)
            sums[3] += np.count_nonzero(np.equal(block, 0, out=mask))
            if ends is not None:
                sums[4] += np.count_nonzero(np.less(wide, ends[0], out=mask))
                sums[4] += np.count_nonzero(np.greater(wide, ends[1], out=mask))

    def flow(self, name: str, dy: Array) -> None:
        """Take in the gradient at a layer's output."""
        if name != INPUT:
            self._sums[self._watcher.nodes[name], 5] = self._square(dy.ravel(order="K"))

    def before(self, gradient: Array, vector: Array) -> None:
        """Take in this worker's share of the gradient and of the parameters, before the update."""
        self._before = vector.copy()
        for row, part in zip(self._squares, self._watcher.parts.values(), strict=True):
            row[:2] = self._square(gradient[part]), self._square(vector[part])

    def statistics(self, vector: Array, images: int) -> dict[str, LayerStatistics]:
        """Return every layer's statistics, in network order.

        Parameters
        ----------
        vector : Array
            This worker's share of the parameters, after the update.
        images : int
            In the batch of all workers together.
        """
        watcher = self._watcher
        change = vector - self._before
        for row, part in zip(self._squares, watcher.parts.values(), strict=True):
            row[2:] = self._square(change[part]), self._square(vector[part])
        own = np.concatenate([self._sums.ravel(), self._squares.ravel(), watcher.active()])
        watcher.open_window()
        sums, squares, active = np.split(
            watcher.workers.all_reduce(own), np.cumsum([self._sums.size, self._squares.size]).tolist()
        )
        parameters = dict(zip(watcher.parts, _parameter_figures(squares.reshape(-1, 4)), strict=True))
        outputs = _output_figures(sums.reshape(-1, 6), images)
        starts = np.cumsum([0, *watcher.units.values()])
        dead = {
            name: float((active[start : start + watcher.units[name]] == 0).mean())
            for name, start in zip(watcher.units, starts[:-1].tolist(), strict=True)
        }
        return {
            name: LayerStatistics(
                **parameters.get(name, dict.fromkeys(PARAMETER_FIGURES)),
                **{key: outputs[key][k] for key in ("activation", "mean", "deviation", "zeros")},
                dead=dead.get(name),
                saturated=outputs["saturated"][k] if watcher.ends[name] else None,
                signal=outputs["signal"][k] if watcher.has_signal[name] else None,
            )
            for name, k in watcher.nodes.items()
        }

    def _square(self, flat: Array) -> float:
        """Return the sum of squares, in float64."""
        total = 0.0
        for start in range(0, flat.size, STATISTICS_BLOCK):
            block = flat[start : start + STATISTICS_BLOCK]
            wide = self._wide[: block.size]
            np.copyto(wide, block)
            total += float(np.dot(wide, wide))
        return total


PARAMETER_FIGURES = ("gradient", "weight", "update", "ratio")


def _parameter_figures(squares: Array) -> list[dict[str, float | None]]:
    gradient, before, update, weight = np.sqrt(squares).T
    ratio = np.divide(update, before, out=np.zeros_like(update), where=before != 0)
    rows = np.stack([gradient, weight, update, ratio], 1).tolist()
    return [dict(zip(PARAMETER_FIGURES, row, strict=True)) for row in rows]


def _output_figures(sums: Array, images: int) -> Mapping[str, list[float]]:
    count = sums[:, 0]
    mean, square, zeros, saturated, flow = sums[:, 1:].T / count
    figures = {
        "activation": np.sqrt(square),
        "mean": mean,
        "deviation": np.sqrt(np.maximum(square - mean * mean, 0)),
        "zeros": zeros,
        "saturated": saturated,
        "signal": np.sqrt(flow) * images,
    }
    return {name: values.tolist() for name, values in figures.items()}
