"""Every layer there is, by the name that YAML calls it: the one registry."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from cnnbp_cli.core.layers.activation import (
    Elu,
    Gelu,
    LeakyRelu,
    Relu,
    Sigmoid,
    Silu,
    Softmax,
    Softplus,
    Tanh,
)
from cnnbp_cli.core.layers.conv import Conv2d, ConvTranspose2d
from cnnbp_cli.core.layers.dense import Dense
from cnnbp_cli.core.layers.dropout import Dropout
from cnnbp_cli.core.layers.merge import Add, Concat, Multiply
from cnnbp_cli.core.layers.norm import BatchNorm, GroupNorm, LayerNorm
from cnnbp_cli.core.layers.pool import AvgPool2d, GlobalAvgPool2d, GlobalMaxPool2d, MaxPool2d
from cnnbp_cli.core.layers.reshape import Flatten, Identity
from cnnbp_cli.core.types import Layer, Merge

Operation = Layer[Any] | Merge[Any]

LAYERS: dict[str, type[Operation]] = {}


def register(operation: type[Operation]) -> type[Operation]:
    """Make a layer known under its `type`; usable as a decorator on a layer of your own.

    Raises
    ------
    ValueError
        When the name is taken.
    """
    name = next(str(f.default) for f in fields(operation) if f.name == "type")  # type: ignore[arg-type]
    if name in LAYERS:
        raise ValueError(f"a layer of type {name!r} is registered already")
    LAYERS[name] = operation
    return operation


for _operation in (
    *(Conv2d, ConvTranspose2d),
    *(MaxPool2d, AvgPool2d, GlobalAvgPool2d, GlobalMaxPool2d, Flatten),
    *(Dense, BatchNorm, LayerNorm, GroupNorm, Dropout),
    *(Relu, LeakyRelu, Elu, Gelu, Silu, Sigmoid, Tanh, Softplus, Softmax, Identity),
    *(Add, Concat, Multiply),
):
    register(_operation)
