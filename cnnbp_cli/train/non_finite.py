"""Which array of a step became infinite or NaN first."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cnnbp_cli.core.backprop import BackpropResult, Part
from cnnbp_cli.core.graph import INPUT
from cnnbp_cli.core.types import Array, Communicator
from cnnbp_cli.model import Model

WHERE: dict[Part, str] = {"forward": "output", "loss": "loss", "backward": "gradient"}


@dataclass(frozen=True, slots=True)
class Culprit:
    """The first array, in the order of computation, with a value that is not finite.

    Attributes
    ----------
    layer : str
        A layer, ``"input"``, ``"loss"``, or ``"all layers together"``.
    where : {"parameters", "output", "loss", "gradient"}
        What of it.
    """

    layer: str
    where: str


def find_culprit(
    model: Model,
    workers: Communicator,
    loss: float,
    x: Array | None = None,
    repeat: Callable[..., BackpropResult] | None = None,
) -> Culprit:
    """Look at the parameters, then at every array of a step; all workers look at the same arrays and find the same.

    Parameters
    ----------
    model : Model
    workers : Communicator
    loss : float
        The mean over the whole batch.
    x : Array, optional
        This worker's input to the step.
    repeat : callable, optional
        Goes through the step once more, with the keyword `observe`.
    """
    places: dict[tuple[str, str], bool] = {}  # in the order of computation

    def look(layer: str, where: str, *arrays: Array) -> None:
        places[layer, where] = places.get((layer, where), False) or not all_finite(*arrays)

    def observe(part: Part, layer: str, *arrays: Array) -> None:
        if part == "loss":
            arrays = (*arrays, np.array(loss))
        if arrays:
            look(layer or part, WHERE[part], *arrays)

    for node, params in model.params.items():
        look(node, "parameters", *params.values())
    if x is not None and repeat is not None:
        look(INPUT, "output", x)
        for name, own in repeat(observe=observe).grads.items():
            look(name, "gradient", *own.values())
    found = workers.all_reduce(np.array([*places.values(), True], np.int64))
    return Culprit(*[*places, ("all layers together", "gradient")][int(np.flatnonzero(found)[0])])


def all_finite(*arrays: Array) -> bool:
    """Return whether all values are finite."""
    # A sum of squares takes one pass; it says no as well where it overflows, and then every value is looked at.
    return all(math.isfinite(np.vdot(array, array)) or bool(np.isfinite(array).all()) for array in arrays)
