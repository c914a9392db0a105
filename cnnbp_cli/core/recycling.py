"""Buffers for the gradients that flow backward, each used again as soon as nobody needs what it holds.

A gradient lives from one layer to the next. Two or three buffers, which the cache may still hold, then do for the
whole pass, in place of one for each layer.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import DTypeLike

from cnnbp_cli.core.types import Allocator, Array, Shape, Workspace


class RecycledArrays:
    """An allocator for one backward pass.

    Parameters
    ----------
    arrays : Allocator
        Where the buffers come from, each under a key of its own.
    """

    def __init__(self, arrays: Allocator) -> None:
        self._arrays = arrays
        self._held: dict[int, Array] = {}
        self._free: list[int] = []
        self._count = 0

    def empty(self, key: tuple[str, str], shape: Shape, dtype: DTypeLike) -> Array:
        if not self._free:
            self._free.append(self._count)
            self._count += 1
        number = self._free.pop()
        self._held[number] = self._arrays.empty(("", f"gradient {number}"), shape, dtype)
        return self._held[number]

    def only_holds(self, array: Array, others: Iterable[Array | None]) -> bool:
        """Return whether an array lies in a buffer, none of `others` does in the same, and the next pass reuses it."""
        held = isinstance(self._arrays, Workspace) and any(
            np.may_share_memory(array, one) for one in self._held.values()
        )
        return held and not any(other is not None and np.may_share_memory(array, other) for other in others)

    def keep(self, needed: Iterable[Array], results: Iterable[Array] = ()) -> None:
        """Take back all arrays but those that share memory with one of `needed`; with one of `results`, never."""
        needed, results = list(needed), list(results)
        for number, array in list(self._held.items()):
            if any(np.may_share_memory(array, one) for one in results):
                del self._held[number]
            elif not any(np.may_share_memory(array, one) for one in needed):
                del self._held[number]
                self._free.append(number)
