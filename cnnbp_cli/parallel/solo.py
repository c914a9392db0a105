"""One worker alone: everything that workers do together is done already."""

from __future__ import annotations

from typing import Any

import numpy as np

from cnnbp_cli.core.types import Array, Solo


class SoloWorker(Solo):
    """The communicator of a run in one process.

    Attributes
    ----------
    vector, gradient : Array, shape (values,)
        The parameters and their gradient.
    """

    def __init__(self, values: int, dtype: np.dtype[Any]) -> None:
        self.vector = np.empty(values, dtype)
        self.gradient = np.empty(values, dtype)

    def barrier(self) -> None:
        pass

    def reduce_from(self, start: int) -> None:
        pass

    def reduce_share(self) -> Array:
        return self.gradient

    def publish(self) -> None:
        pass

    def gather(self, part: Array) -> Array:
        return part.copy()
