"""One number for each layer and step: what `gradnorms` shows, each with its definition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from cnnbp_cli.core.types import Array, Communicator
from cnnbp_cli.model import Model

Statistic = Literal["gradient", "update", "activation", "weight", "ratio"]

DEFINITIONS: dict[Statistic, str] = {
    "gradient": "L2 norm of the loss gradient over all parameters of the layer, before clipping",
    "update": "L2 norm of the change that the step made to all parameters of the layer",
    "activation": "root mean square of the layer's output over the batch",
    "weight": "L2 norm of all parameters of the layer, after the step",
    "ratio": "L2 norm of the step's change divided by the L2 norm of the parameters before it",
}


def layer_norms(
    statistic: Statistic,
    model: Model,
    gradient: Array,
    before: Array,
    outputs: Mapping[str, Array],
    workers: Communicator,
) -> dict[str, float]:
    """Return the statistic of every layer that has one, in network order.

    Parameters
    ----------
    gradient : Array, shape (parameters,)
    before : Array, shape (parameters,)
        The parameters before the step.
    outputs : mapping of str to Array
        Each layer's output for this worker's slice of the batch, for ``"activation"``.
    workers : Communicator
    """
    if statistic == "activation":
        own = np.array([(_l2(y) ** 2, y.size) for y in outputs.values()])
        squares, counts = workers.all_reduce(own).T
        return dict(zip(outputs, np.sqrt(squares / counts).tolist(), strict=True))
    if statistic == "gradient":
        return {name: _l2(g) for name, g in model.layout.by_layer(gradient)}
    weights = {name: _l2(w) for name, w in model.layout.by_layer(model.vector)}
    if statistic == "weight":
        return weights
    updates = {name: _l2(u) for name, u in model.layout.by_layer(model.vector - before)}
    if statistic == "update":
        return updates
    starts = {name: _l2(w) for name, w in model.layout.by_layer(before)}
    return {name: updates[name] / starts[name] if starts[name] else 0.0 for name in updates}


def _l2(values: Array) -> float:
    return float(np.linalg.norm(np.asarray(values, np.float64).ravel()))
