"""Where the time of a training step goes, layer by layer, beside what this machine could do at best.

The steps are those of `fit`: its first worker takes the time while their parts go by. Of the steps after the
warm-up the faster half counts, as the others tell what else the machine was doing; every figure is a mean over
these same steps, so the rows add up to the step.

GFLOP/s count two operations for each multiply-accumulate of the plain definition: one product forward, and
backward one for the weights and one for the input, where its gradient is wanted. Layers that find a way with
fewer multiplications can therefore be faster than the peak.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from time import perf_counter
from typing import Any

import numpy as np

from cnnbp_cli.core.backprop import Part
from cnnbp_cli.core.graph import Graph, Node
from cnnbp_cli.core.types import Array, Tick
from cnnbp_cli.data.dataset import Dataset
from cnnbp_cli.errors import UserError
from cnnbp_cli.memory import require_batch
from cnnbp_cli.model import Model
from cnnbp_cli.parallel.blas import blas_threads
from cnnbp_cli.train.events import NonFinite, RunStarted, StepDone
from cnnbp_cli.train.fit import fit

WARM_UP = 5  # steps before the first that may count: buffers are made, workers start
PEAK_SIZE = 1024  # rows and columns of the matrices that are multiplied to find the peak

Times = Mapping[tuple[str, str], float]
"""Seconds by part of the step and layer."""


class ProfileError(UserError):
    """There was no step to measure."""


@dataclass(frozen=True, slots=True)
class LayerTime:
    """One layer's part in a step.

    Attributes
    ----------
    name, type : str
    forward_ms, backward_ms : float
    share : float
        Of the whole step, 0 to 1.
    forward_gflops, backward_gflops : float or None
        GFLOP/s; None for layers that have no products to count.
    """

    name: str
    type: str
    forward_ms: float
    backward_ms: float
    share: float
    forward_gflops: float | None
    backward_gflops: float | None


@dataclass(frozen=True, slots=True)
class PartTime:
    """What a step consists of besides its layers.

    Attributes
    ----------
    name : {"batch", "loss", "sums", "update", "other"}
        The batch's preparation, augmentation included; the loss and its gradient; the addition of gradients
        and figures, which begins with waiting for the other workers; the update; everything else.
    ms : float
    share : float
    """

    name: str
    ms: float
    share: float


@dataclass(frozen=True, slots=True)
class Profile:
    """Where the time of a step goes.

    Attributes
    ----------
    name, dtype : str
    batch_size, workers : int
    images : int
        The first worker's slice of the batch, which the layers' times are for.
    steps : int
        How many the means are over.
    layers : list of LayerTime
        In the order of computation.
    parts : list of PartTime
    step_ms : float
        The whole step: the sum of all layers and parts.
    images_per_second : float
        Of all workers together.
    gflops : float
        GFLOP/s of the first worker over the whole step.
    peak_gflops : float
        GFLOP/s of a large matrix product of this type on this machine, with one thread.
    """

    name: str
    dtype: str
    batch_size: int
    workers: int
    images: int
    steps: int
    layers: list[LayerTime]
    parts: list[PartTime]
    step_ms: float
    images_per_second: float
    gflops: float
    peak_gflops: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Stopwatch:
    """Takes the time of the parts of a step, as an `Observer`."""

    def __init__(self) -> None:
        self._marks: list[tuple[float, str, str]] = []

    def __call__(self, part: Part, layer: str, *arrays: Array) -> None:
        self._marks.append((perf_counter(), part, layer))

    def taken(self, seconds: float) -> Times:
        """Return the times of the step that has just ended and took `seconds`, and begin anew."""
        times: dict[tuple[str, str], float] = defaultdict(float)
        for (start, before, layer), (end, after, done) in pairwise(self._marks):
            # Backward is marked at the beginning of a layer, the rest at the end of a part.
            times[(before, layer) if before == "backward" else (after, done)] += end - start
        times["other", ""] = seconds - sum(times.values())
        self._marks.clear()
        return times


def profile(model: Model, data: Dataset, *, steps: int = 40, progress: Tick | None = None) -> Profile:
    """Train for some steps and take the time of every part.

    Parameters
    ----------
    model : Model
        It is trained; batch size and workers are those of its config.
    data : Dataset
        The training split is cut, or repeated, to whole batches.
    steps : int
        Steps to measure; the faster half counts.
    progress : callable, optional
        Called after each step with the number of steps made, and of all.

    Raises
    ------
    ProfileError
        When values become infinite or NaN at once.
    """
    config = model.config
    size = config.train.batch_size
    train = replace(config.train, max_steps=WARM_UP + steps, epochs=WARM_UP + steps, early_stopping=None)
    config = replace(config, train=train)
    require_batch(config, model.graph, size, model.dtype.itemsize, "choose a smaller --batch or train.batch_size")
    count = len(data.train)
    whole = slice(count - count % size) if count >= size else np.arange(size) % count
    data = replace(data, train=data.train.take(whole), validation=None, test=None)
    watch, rows, workers = Stopwatch(), list[tuple[float, Times]](), 1
    for event in fit(model, data, config=config, watch_every=0, observer=watch):
        if isinstance(event, RunStarted):
            workers = event.workers
        elif isinstance(event, StepDone):
            rows.append((event.seconds, watch.taken(event.seconds)))
            if progress is not None:
                progress(len(rows), WARM_UP + steps)
        elif isinstance(event, NonFinite) and len(rows) <= WARM_UP:
            raise ProfileError(f"{event.what} became infinite or NaN at step {event.step}")
    rows = sorted(rows[WARM_UP:], key=lambda row: row[0])[: (len(rows) - WARM_UP + 1) // 2]
    return _report(model, rows, workers)


def _report(model: Model, rows: Sequence[tuple[float, Times]], workers: int) -> Profile:
    step = _mean([seconds for seconds, _ in rows])

    def seconds(part: str, layer: str = "") -> float:
        return _mean([times.get((part, layer), 0.0) for _, times in rows])

    size = model.config.train.batch_size
    images = size // workers  # of the first worker
    layers: list[LayerTime] = []
    total = 0
    for node in model.graph.nodes:
        forward, backward = seconds("forward", node.name), seconds("backward", node.name)
        products = _products(model.graph, node)
        flops = [2 * images * count for count in products]
        total += sum(flops)
        rates = [count / time / 1e9 if count else None for count, time in zip(flops, (forward, backward), strict=True)]
        share = (forward + backward) / step
        layers.append(LayerTime(node.name, node.layer.type, 1e3 * forward, 1e3 * backward, share, *rates))
    parts = {name: seconds(name) for name in ("batch", "loss", "sums", "update")}
    parts["other"] = step - sum(parts.values()) - sum(layer.forward_ms + layer.backward_ms for layer in layers) / 1e3
    return Profile(
        name=model.config.name,
        dtype=model.config.dtype,
        batch_size=size,
        workers=workers,
        images=images,
        steps=len(rows),
        layers=layers,
        parts=[PartTime(name, 1e3 * time, time / step) for name, time in parts.items()],
        step_ms=1e3 * step,
        images_per_second=size / step,
        gflops=total / step / 1e9,
        peak_gflops=peak_gflops(model.dtype),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _products(graph: Graph, node: Node) -> tuple[int, int]:
    """Return the multiply-accumulates of one image forward and backward."""
    macs = node.macs(graph.in_shapes(node))
    return macs, macs * (1 + any(graph.has_gradient(name) for name in node.inputs))


def peak_gflops(dtype: np.dtype[Any], repeats: int = 7) -> float:
    """Return the GFLOP/s of the best of some large matrix products, with one thread."""
    a, b, out = (np.ones((PEAK_SIZE, PEAK_SIZE), dtype) for _ in range(3))
    best = float("inf")
    with blas_threads(1):
        for _ in range(repeats):
            started = perf_counter()
            np.matmul(a, b, out=out)
            best = min(best, perf_counter() - started)
    return 2 * PEAK_SIZE**3 / best / 1e9
