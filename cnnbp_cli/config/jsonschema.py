"""The YAML format as a JSON Schema, so that editors complete keys and underline mistakes while one types."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from types import NoneType
from typing import Any

from cnnbp_cli.config.hints import adapter, discriminator, hints_of, members
from cnnbp_cli.config.schema import Config, LayerSpec
from cnnbp_cli.config.write import plain
from cnnbp_cli.core.layers import LAYERS

Schema = dict[str, Any]

_WIRING: Schema = {
    "name": {"type": "string", "description": "By default <type>_<k>, with k counting that type from 1."},
    "inputs": {
        "type": "array",
        "items": {"type": "string"},
        "description": "The layers that it takes; `input` is the image. By default the layer before.",
    },
}


def json_schema() -> Schema:
    """Return the JSON Schema (draft 2020-12) of a config file."""
    schema = _record(Config, without=("positions",))
    schema["required"].remove("name")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "cnnbp config", **schema}


def _record(cls: type, without: tuple[str, ...] = (), more: Mapping[str, Schema] | None = None) -> Schema:
    """Return the schema of a dataclass, with properties that are not its own in `more`."""
    hints, texts, properties = hints_of(cls), _field_texts(cls), dict[str, Schema]()
    required: list[str] = []
    for f in fields(cls):
        if f.name in without:
            continue
        schema = dict(_value(hints[f.name]))
        if f.name in texts:
            schema["description"] = texts[f.name]
        default = f.default if f.default_factory is MISSING else f.default_factory()
        if default is MISSING:
            required.append(f.name)
        elif default is not None and "const" not in schema:  # None stands for nothing, or for DERIVED
            schema["default"] = plain(default)
        properties[f.name] = schema
    if key := discriminator(cls):
        required.insert(0, key)
    return {
        "type": "object",
        "description": _first_paragraph(cls),
        "properties": properties | dict(more or {}),
        "required": required,
        "additionalProperties": False,
    }


def _value(hint: Any) -> Schema:
    options = [option for option in members(hint) if option is not NoneType]
    if options == [tuple[LayerSpec, ...]]:
        return {"type": "array", "minItems": 1, "items": _choice(list(LAYERS.values()), _WIRING)}
    if options == [Path]:
        schema: Schema = {"type": "string"}
    elif all(is_dataclass(option) for option in options):
        schema = _choice(options) if discriminator(options[0]) else _record(options[0])
    else:
        return adapter(hint).json_schema()
    return {"anyOf": [schema, {"type": "null"}]} if NoneType in members(hint) else schema


def _choice(classes: list[type], more: Mapping[str, Schema] | None = None) -> Schema:
    """Return the schema of one of several declarations, or of a bare word for one without arguments."""
    records = [_record(cls, more=more) for cls in classes]
    words = [
        {"const": record["properties"][record["required"][0]]["const"], "description": record["description"]}
        for record in records
        if len(record["required"]) == 1
    ]
    return {"anyOf": [*words, *records]}


def _first_paragraph(cls: type) -> str:
    return " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split())


def _field_texts(cls: type) -> dict[str, str]:
    """Return what stands in the string below each field, for the class and its bases."""
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        if not is_dataclass(base):
            continue
        body = ast.parse(dedent(inspect.getsource(base))).body[0].body  # type: ignore[attr-defined]
        for statement, after in pairwise(body):
            if isinstance(statement, ast.AnnAssign) and isinstance(after, ast.Expr):
                texts[statement.target.id] = " ".join(after.value.value.split())  # type: ignore[attr-defined,union-attr]
    return texts
