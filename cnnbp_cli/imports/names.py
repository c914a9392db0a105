"""Names for layers: those of the program that wrote the file, where it left any."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from cnnbp_cli.imports.graph import Op

_NUMBERED = re.compile(r"^(onnx::|val_|node_|n\d|\d)")
_ENDING = re.compile(r"[./](weight|bias|kernel|gamma|beta|scale|running_mean|running_var|W|B|w|b)(:0)?$")
_GENERIC = ("StatefulPartitionedCall", "PartitionedCall", "model", "functional", "sequential")
_COUNT = re.compile(r"_\d+$")
_BAD = re.compile(r"[^A-Za-z0-9_-]+")


class Names:
    """Gives each layer a name of its own.

    Parameters
    ----------
    ops : sequence of Op
        All operators: a module that has others within is not the name of one of its layers.
    """

    def __init__(self, ops: Sequence[Op]) -> None:
        self._taken: set[str] = {"input"}
        self._containers: set[str] = set()
        for op in ops:
            module, _ = _place(op)
            parts = module.split(".")
            self._containers.update(".".join(parts[:k]) for k in range(len(parts)))

    def choose(self, kind: str, op: Op, weights: Iterable[str]) -> str:
        """Return the name of a layer: its weights' module, its own module, or its type with a number."""
        module, call = _place(op)
        own = ".".join(filter(None, (module, call))) if module in self._containers else module
        for name in (*map(_module, weights), own):
            word = _BAD.sub("_", name).strip("_")
            if word and not word.isdigit():
                return self._new(word)
        return self._new(kind, 1)

    def keep(self, name: str) -> str:
        """Return a name as it is, unless it is taken."""
        return self._new(name)

    def _new(self, word: str, first: int = 0) -> str:
        number, name = max(first, 2), f"{word}_{first}" if first else word
        while name in self._taken:
            name = f"{word}_{number}"
            number += 1
        self._taken.add(name)
        return name


def _module(weight: str) -> str:
    """Return the module of a parameter: `layer1.0.conv1` of `layer1.0.conv1.weight`."""
    if _NUMBERED.match(weight) or not _ENDING.search(weight):
        return ""
    return ".".join(_without_generic(_ENDING.sub("", weight)))


def _place(op: Op) -> tuple[str, str]:
    """Return the module that an operator was in, and what was called there; empty where the file does not say.

    PyTorch's newer exporter notes both; its older one and TensorFlow name the operator by them, as in
    `/layer1/layer1.0/conv1/Conv` and `model/dense/MatMul`.
    """
    if len(op.scopes) >= 2:
        return op.scopes[-2], _COUNT.sub("", op.scopes[-1])
    if "/" not in op.name:
        return "", "" if _NUMBERED.match(op.name) or op.name.lower().startswith(op.kind.lower()) else op.name
    *modules, call = _without_generic(op.name) or [""]
    whole = ""
    for module in modules:
        whole = module if module.startswith(f"{whole}.") or not whole else f"{whole}.{module}"
    return whole, _COUNT.sub("", call.lower())


def _without_generic(path: str) -> list[str]:
    """Return the parts of a path without what every name of a file begins with."""
    return [part for part in path.split("/") if part and not part.startswith(_GENERIC)]
