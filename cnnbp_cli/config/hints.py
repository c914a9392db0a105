"""Values against type hints: a declaration's annotations are all that the config has to know about it.

The rules are pydantic's strict ones for JSON: no text for a number, no `true` for 1, an integer will do where a
number is wanted, a list becomes a tuple. The few hints that declarations are made of are checked right here,
since importing pydantic takes longer than everything else about a config; other hints go to pydantic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from cnnbp_cli.config.errors import closest
from cnnbp_cli.config.nodes import YamlList, YamlNode, YamlScalar, show, to_python

NAMES = {int: "an integer", float: "a number", bool: "true or false", str: "text"}
MAX_INTEGER = (1 << 63) - 1
"""The largest integer, either way: NumPy, JSON and other programs go no further."""

PLURALS = {int: "integers", float: "numbers", bool: "true or false values", str: "names"}

Complain = Callable[[YamlNode, str, tuple[int, ...]], None]


class Failed:
    """The type of `FAILED`, which stands for a value that has been complained about."""


FAILED = Failed()


@cache
def hints_of(cls: type) -> dict[str, Any]:
    """Return the type of each field of a dataclass."""
    return get_type_hints(cls)


@cache
def discriminator(cls: type) -> str | None:
    """Return the field that tells a declaration from its alternatives."""
    hints = hints_of(cls)
    for key in ("type", "source"):
        if get_origin(hints.get(key)) is Literal and len(get_args(hints[key])) == 1:
            return key
    return None


def record_in(options: Sequence[Any]) -> type | None:
    """Return the dataclass that a list is wanted of, where nothing but such a list is wanted."""
    (inner, *more) = get_args(options[0]) if len(options) == 1 and get_origin(options[0]) is tuple else (None,)
    return inner if is_dataclass(inner) and more == [Ellipsis] and isinstance(inner, type) else None


@cache
def members(hint: Any) -> tuple[Any, ...]:
    """Return the alternatives of a union, or the hint as the only one."""
    if get_origin(hint) in (Union, UnionType):
        return tuple(inner for part in get_args(hint) for inner in members(part))
    return (hint,)


def check(hint: Any, node: YamlNode, complain: Complain, at: tuple[int, ...] = ()) -> Any:
    """Return the value of `node` as `hint` wants it, or complain and return `FAILED`.

    Parameters
    ----------
    complain : callable
        Takes the node at fault, the message, and the indices that lead to it from the outermost node.
    """
    options = members(hint)
    if isinstance(node, YamlScalar):
        for option in sorted(options, key=lambda option: option is float):  # 500 stays an integer where either will do
            if _fits(option, node.value):
                return float(node.value) if option is float else node.value  # type: ignore[arg-type]
    if isinstance(node, YamlList):
        for option in options:
            if (inner := _inner(option, len(node.items))) is not None:
                pairs = zip(inner, node.items, strict=True)
                values = tuple(check(part, item, complain, (*at, i)) for i, (part, item) in enumerate(pairs))
                return FAILED if FAILED in values else values
    if not all(_known(option) for option in options):
        return _check_other(hint, node, complain, at)
    close = _meant(options, node)
    if isinstance(node, YamlScalar) and type(node.value) is int and abs(node.value) > MAX_INTEGER:
        close = ", which is beyond 64 bits"
    complain(node, f"expected {describe(hint)}, got {show(node)}{close}", at)
    return FAILED


def describe(hint: Any) -> str:
    """Say what a hint wants: ``an integer or a list of 2 integers``."""
    parts: list[str] = []
    for option in members(hint):
        if option is NoneType:
            continue
        if get_origin(option) is Literal:
            parts += [str(word) for word in get_args(option)]
        elif get_origin(option) is tuple:
            inner = get_args(option)
            if len(inner) == 2 and inner[1] is Ellipsis:
                parts.append(f"a list of {PLURALS.get(inner[0], 'values')}")
            else:
                parts.append(f"a list of {len(inner)} {PLURALS.get(inner[0], 'values')}")
        elif is_dataclass(option):
            parts.append(f"a mapping with {' and '.join(field.name for field in fields(option))}")
        else:
            parts.append(NAMES.get(option, getattr(option, "__name__", str(option))))
    return " or ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))


def _fits(option: Any, value: object) -> bool:
    if option is float:
        return math.isfinite(value) if type(value) is float else _fits(int, value)
    if option is int:
        return type(value) is int and abs(value) <= MAX_INTEGER
    if get_origin(option) is Literal:
        return any(type(value) is type(word) and value == word for word in get_args(option))
    return type(value) is option


def _inner(option: Any, count: int) -> Sequence[Any] | None:
    """Return the hint of each item of a list of `count`, or None where the hint does not want such a list."""
    if get_origin(option) is not tuple:
        return None
    inner = get_args(option)
    if len(inner) == 2 and inner[1] is Ellipsis:
        return [inner[0]] * count
    return inner if len(inner) == count else None


def _known(option: Any) -> bool:
    if get_origin(option) is tuple:
        return all(_known(inner) for inner in get_args(option) if inner is not Ellipsis)
    return (
        option in NAMES
        or option is NoneType
        or is_dataclass(option)
        or get_origin(option) in (Literal, Union, UnionType)
    )


def _meant(options: Sequence[Any], node: YamlNode) -> str:
    """Return a suggestion where a word is close to one of the literal options."""
    words = [str(word) for option in options if get_origin(option) is Literal for word in get_args(option)]
    if not isinstance(node, YamlScalar) or not isinstance(node.value, str):
        return ""
    close = closest(node.value, words)
    return f", did you mean '{close}'?" if close else ""


def _check_other(hint: Any, node: YamlNode, complain: Complain, at: tuple[int, ...]) -> Any:
    from json import dumps

    from pydantic import ValidationError

    try:
        return adapter(hint).validate_json(dumps(to_python(node)), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]["msg"]
        first = first.removeprefix("Value error, ").removeprefix("Assertion failed, ")  # what a validator raised
        complain(node, f"{first[:1].lower()}{first[1:]}, got {show(node)}", at)
        return FAILED


@cache
def adapter(hint: Any) -> Any:
    """Return pydantic's validator of a hint."""
    from pydantic import TypeAdapter

    return TypeAdapter(hint)
