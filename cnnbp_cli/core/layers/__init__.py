"""Every layer there is, by the name that YAML calls it: the one registry."""

from __future__ import annotations

from dataclasses import Field
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
        When it is no layer, is incomplete, or its name is taken.
    """
    if not issubclass(operation, Layer | Merge):
        raise ValueError(
            f"{operation.__name__} is no layer: it has to derive from Layer, or from Merge for several inputs"
        )
    if missing := sorted(operation.__abstractmethods__):
        raise ValueError(f"{operation.__name__} lacks the method{'s' * (len(missing) > 1)} {' and '.join(missing)}")
    # A subclass that forgets the decorator has its parent's fields, so the class itself must have been decorated.
    own: dict[str, Field[Any]] = vars(operation).get("__dataclass_fields__", {})
    name = own["type"].default if "type" in own else None
    if not isinstance(name, str):
        raise ValueError(
            f"{operation.__name__} has to be a @dataclass(frozen=True) with a field like "
            f'type: Literal["{operation.__name__.lower()}"] = "{operation.__name__.lower()}"; '
            "@register goes above @dataclass"
        )
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
