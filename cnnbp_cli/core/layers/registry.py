"""Every layer there is, by the name that YAML calls it: the one registry."""

from __future__ import annotations

from dataclasses import Field, fields
from typing import Any, TypeVar

from cnnbp_cli.core.types import Layer, Merge, Operation

LAYERS: dict[str, type[Operation[Any]]] = {}

Op = TypeVar("Op", bound=Operation[Any])


def register(operation: type[Op]) -> type[Op]:
    """Make a layer known under its `type`; a decorator above `@dataclass`, for layers of your own as for ours.

    Raises
    ------
    ValueError
        When it is no layer, is incomplete, its name is taken, or a field hides what every layer has.
    """
    if not issubclass(operation, Operation):
        raise ValueError(
            f"{operation.__name__} is not a layer: it has to derive from Layer, or from Merge for several inputs"
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
    base = Merge if operation.several_inputs else Layer
    names = [field.name for field in fields(operation)]  # type: ignore[arg-type] # without class variables
    if hidden := [field for field in names if hasattr(base, field)]:
        raise ValueError(
            f"{operation.__name__} has a field {hidden[0]!r}, which hides what every layer has under this name: rename "
            "it, or leave out the annotation to say what the layer is"
        )
    if name in LAYERS:
        raise ValueError(f"a layer of type {name!r} is registered already")
    LAYERS[name] = operation
    return operation
