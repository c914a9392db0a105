"""Which comparisons a check makes, in what order, on how many cores, and when it stops.

The order is fixed by the network and the seed. Every gradient gets its first direction before any gets an element, and
each of these before any gets its second, in each mode; so a check that has to stop early has looked everywhere. How
many comparisons a time allows depends on the machine, but they are always the first ones of the same list.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from math import prod
from time import perf_counter
from typing import Literal, TypeVar

import numpy as np

from cnnbp_cli.core.graph import INPUT, Graph
from cnnbp_cli.core.rng import generator
from cnnbp_cli.core.types import Array

T = TypeVar("T")
Index = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Probe:
    """One comparison: in which mode, of which gradient, and the number of the direction or of the element."""

    mode: int
    name: str
    kind: Literal["direction", "element"]
    number: int


@dataclass(frozen=True, slots=True)
class Plan:
    """All comparisons of a check.

    Attributes
    ----------
    shapes : mapping of str to tuple
        Of the gradients to check.
    modes : int
    directions : int
        Random directions for each gradient and mode.
    elements : int or "all"
        Single elements, the same in each mode.
    seed : int
    """

    shapes: Mapping[str, tuple[int, ...]]
    modes: int
    directions: int
    elements: int | Literal["all"]
    seed: int
    _chosen: dict[str, Array] = field(default_factory=dict[str, Array], repr=False)

    def __len__(self) -> int:
        return self.modes * sum(self.directions + self._count(name) for name in self.shapes)

    def __iter__(self) -> Iterator[Probe]:
        names = sorted(self.shapes, key=lambda name: name != INPUT)  # the image's gradient comes through every layer
        most = max(map(self._count, self.shapes), default=0)
        for number in range(max(self.directions, most)):
            for mode in range(self.modes if number < self.directions else 0):
                yield from (Probe(mode, name, "direction", number) for name in names)
            for mode in range(self.modes if number < most else 0):
                yield from (Probe(mode, name, "element", number) for name in names if number < self._count(name))

    def direction(self, probe: Probe) -> tuple[Array, Index | None]:
        """Return the direction to compare along, and the element where it is that of one."""
        shape = self.shapes[probe.name]
        if probe.kind == "direction":
            return self._drawn(probe.name, probe.number + 1)[1], None
        index = tuple(int(i) for i in np.unravel_index(self._element(probe.name, probe.number), shape))
        return unit(shape, index), index

    def _element(self, name: str, number: int) -> int:
        if self.elements == "all":
            return number
        if name not in self._chosen:
            rng, _ = self._drawn(name, self.directions)
            self._chosen[name] = rng.choice(prod(self.shapes[name]), self._count(name), replace=False)
        return int(self._chosen[name][number])

    def _drawn(self, name: str, directions: int) -> tuple[np.random.Generator, Array]:
        """Return the last of so many directions, and what draws what comes after it: first directions, then elements.

        They are drawn anew at each comparison, as the directions of a large network would not fit into memory.
        """
        rng, direction = generator(self.seed, "gradcheck", name), np.zeros(0)
        for _ in range(directions):
            direction = rng.normal(size=self.shapes[name])
        return rng, direction

    def _count(self, name: str) -> int:
        size = prod(self.shapes[name])
        return size if self.elements == "all" else min(self.elements, size)


def unit(shape: tuple[int, ...], index: Index) -> Array:
    """Return the direction of one element."""
    direction = np.zeros(shape)
    direction[index] = 1.0
    return direction


def costs(graph: Graph, names: Sequence[str]) -> dict[str, float]:
    """Return what a comparison of each gradient costs, as a part of one that goes through the whole network."""
    macs = {node.name: node.macs(graph.in_shapes(node)) + prod(graph.shapes[node.name]) for node in graph.nodes}
    found: dict[str, float] = {}
    for start in dict.fromkeys(name.rpartition(".")[0] or INPUT for name in names):
        moved = {start}
        for node in graph.nodes:
            if node.owner == start or moved.intersection(node.inputs):
                moved.add(node.name)
        found[start] = sum(macs.get(name, 0) for name in moved) / max(sum(macs.values()), 1)
    return {name: found[name.rpartition(".")[0] or INPUT] for name in names}


class Clock:
    """How much time there is, and how much a plan takes.

    Parameters
    ----------
    limit : float or None
        Seconds from now on.
    """

    def __init__(self, limit: float | None) -> None:
        self._started = perf_counter()
        self.limit = limit

    def elapsed(self) -> float:
        return perf_counter() - self._started

    def is_over(self) -> bool:
        return self.limit is not None and self.elapsed() >= self.limit

    def attainable(self, done: int, planned: int) -> int:
        """Return how many comparisons there will be, judged by those so far."""
        if self.limit is None or not done:
            return planned
        return min(planned, max(done, round(done * self.limit / max(self.elapsed(), 1e-9))))


def run(
    probes: Iterator[Probe], compare: Callable[[Probe], T], workers: int, clock: Clock
) -> Iterator[tuple[Probe, T]]:
    """Yield the results of comparisons in their order, of one at least, until the time is over.

    NumPy lets go of Python's lock while it computes, so that threads do.
    """
    if workers == 1:
        for probe in probes:
            yield probe, compare(probe)
            if clock.is_over():
                return
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[tuple[Probe, Future[T]]] = deque()
        try:
            for probe in islice(probes, workers + 1):
                waiting.append((probe, pool.submit(compare, probe)))
            while waiting:
                done, future = waiting.popleft()
                result = future.result()
                if not clock.is_over() and (probe := next(probes, None)):  # type: ignore[assignment]
                    waiting.append((probe, pool.submit(compare, probe)))
                yield done, result
        finally:
            for _, future in waiting:
                future.cancel()
