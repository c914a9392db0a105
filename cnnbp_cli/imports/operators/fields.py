"""How attributes of operators are written as fields of layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cnnbp_cli.imports.errors import NoLayer
from cnnbp_cli.imports.graph import Op


def border(amounts: Sequence[int]) -> Any:
    """Write (top, bottom, left, right) as shortly as the format can."""
    top, bottom, left, right = (int(amount) for amount in amounts)
    if (top, left) == (bottom, right):
        return top if top == left else (top, left)
    return top, bottom, left, right


def size_of(pair: Sequence[int]) -> Any:
    """Write a pair as one number where both are equal."""
    first, second = (int(size) for size in pair)
    return first if first == second else (first, second)


def two(op: Op, name: str) -> list[int]:
    value = op.get(name, [1, 1])
    if len(value) != 2:
        raise NoLayer(f"works on {len(value)} axes, expected images")
    return list(value)


def numbers(op: Op, **defaults: float) -> dict[str, float]:
    """Return attributes that are not the defaults, which ONNX rounds to float32."""
    found = {name: op.get(name, default) for name, default in defaults.items()}
    return {name: short(value) for name, value in found.items() if short(value) != defaults[name]}


def short(value: float) -> float:
    """Return the shortest decimal that is this float32."""
    return float(str(np.float32(value)))
