"""All trainable parameters as one contiguous vector, of which each layer's arrays are views.

One vector makes an optimizer a handful of operations on flat arrays, a global norm one dot product,
and a sum over workers one pass over shared memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from cnnbp_cli.core.graph import Graph
from cnnbp_cli.core.types import Array, Params, Shape


@dataclass(frozen=True, slots=True)
class ParameterSlice:
    """Where one parameter tensor lies in the vector."""

    node: str
    key: str
    shape: Shape
    start: int
    stop: int

    @property
    def name(self) -> str:
        return f"{self.node}.{self.key}"


class Layout:
    """Where each trainable parameter of a graph lies in the vector.

    Attributes
    ----------
    entries : tuple of ParameterSlice
        In layer order.
    size : int
        The number of trainable values.
    """

    def __init__(self, graph: Graph) -> None:
        entries: list[ParameterSlice] = []
        start = 0
        for node, shapes in graph.trainable.items():
            for key, shape in shapes.items():
                entries.append(ParameterSlice(node, key, shape, start, start + prod(shape)))
                start = entries[-1].stop
        self.entries = tuple(entries)
        self.size = start
        self._nodes = list(graph.trainable)
        self._of_node = {node: [entry for entry in entries if entry.node == node] for node in self._nodes}

    def views(self, vector: Array) -> dict[str, Params]:
        """Return, by node and key, the parts of `vector` in the parameters' shapes."""
        params: dict[str, Params] = {node: {} for node in self._nodes}
        for entry in self.entries:
            params[entry.node][entry.key] = vector[entry.start : entry.stop].reshape(entry.shape)
        return params

    def gather(self, params: Mapping[str, Params], out: Array) -> Array:
        """Copy the trainable arrays of `params` into the vector `out`, but for those that lie there already."""
        for node in self._nodes:
            self.place(node, params[node], out)
        return out

    def place(self, node: str, params: Params, out: Array) -> int | None:
        """Copy a node's trainable arrays to their places in the vector `out`, and return where they begin, if any."""
        entries = self._of_node[node]
        for entry in entries:
            value, home = params[entry.key].reshape(-1), out[entry.start : entry.stop]
            if value.ctypes.data != home.ctypes.data:
                home[...] = value
        return entries[0].start if entries else None

    def vector(self, params: Mapping[str, Params], dtype: np.dtype[Any]) -> Array:
        """Return the trainable arrays of `params` as a new vector."""
        return self.gather(params, np.empty(self.size, dtype))
