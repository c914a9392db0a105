"""Faults without imagination: every gradient that any layer or loss returns is spoilt in the same four ways."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np
from proof.mutants import first_complaint
from proof.zoo import ZOO, Inhabitant

from cnnbp_cli.core.layers import LAYERS
from cnnbp_cli.core.losses import make_loss
from cnnbp_cli.core.types import Array, Params


def _one_element(gradient: Array) -> Array:
    """Make the largest element 0.1% larger."""
    changed = gradient.copy()
    changed.flat[np.abs(changed).argmax()] *= 1.001
    return changed


SPOIL: dict[str, Callable[[Array], Array]] = {
    "of the wrong sign": lambda gradient: -gradient,
    "0.1% too large": lambda gradient: 1.001 * gradient,
    "0.1% too large in one element": _one_element,
    "zero": lambda gradient: 0 * gradient,
}


@dataclass(frozen=True)
class Spoilt:
    """One gradient of one layer or loss, spoilt in one way.

    Attributes
    ----------
    kind : str
        The layer's type, or the head and the loss.
    part : str
        ``dx``, ``first dx`` and ``last dx`` of a merge, ``dz`` of a loss, or the parameter's name.
    fault : str
    """

    kind: str
    part: str
    fault: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.part} {self.fault}"

    def verdict(self) -> str | None:
        """Return what complains first among the networks with this layer or loss, or None."""
        with self._planted():
            return first_complaint(only=self._concerns)

    def _concerns(self, inhabitant: Inhabitant) -> bool:
        return self.kind in inhabitant.types or self.kind == _head_and_loss(inhabitant)

    @contextmanager
    def _planted(self) -> Iterator[None]:
        cls: Any = LAYERS.get(self.kind) or type(make_loss(*self.kind.split(" + ")))
        right, spoil = cls.backward, SPOIL[self.fault]

        def wrong(layer: Any, *args: Any) -> Any:
            answer = right(layer, *args)
            if self.part == "dz":
                return spoil(answer)
            if layer.several_inputs:
                k = 0 if self.part == "first dx" else len(answer) - 1
                return (*answer[:k], spoil(answer[k]), *answer[k + 1 :])
            dx, grads = answer
            if self.part == "dx":
                return None if dx is None else spoil(dx), grads
            changed: Params = {key: spoil(value) if key == self.part else value for key, value in grads.items()}
            return dx, changed

        with patch.object(cls, "backward", wrong):
            yield


def _head_and_loss(inhabitant: Inhabitant) -> str:
    return f"{inhabitant.example.model['head']} + {inhabitant.example.train['loss']}"


def _parts() -> Iterator[tuple[str, str]]:
    """Yield every gradient that there is, as (kind, part)."""
    for kind, operation in LAYERS.items():
        if operation.several_inputs:
            yield from ((kind, "first dx"), (kind, "last dx"))
        else:
            yield kind, "dx"
    found: dict[tuple[str, str], None] = {}
    for inhabitant in ZOO.values():
        graph = inhabitant.example.build()[0].graph
        found |= {(node.layer.type, key): None for node in graph.nodes for key in graph.trainable[node.name]}
    yield from found
    yield from {(_head_and_loss(inhabitant), "dz"): None for inhabitant in ZOO.values()}


SPOILT = [Spoilt(kind, part, fault) for kind, part in _parts() for fault in SPOIL]
