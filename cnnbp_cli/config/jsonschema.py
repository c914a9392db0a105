"""The YAML format as a JSON Schema, so that editors complete keys and underline mistakes while one types.

All of it comes from the declarations: types and defaults from their fields, descriptions from their docstrings and
from the strings below the fields; where such a string says "for example `16`", that is an example.
"""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import MISSING, fields, is_dataclass
from functools import reduce
from itertools import pairwise
from operator import or_
from pathlib import Path
from textwrap import dedent
from types import NoneType
from typing import Any, get_args, get_origin

import yaml

from cnnbp_cli.config.hints import adapter, discriminator, hints_of, members, record_in
from cnnbp_cli.config.schema import Config, LayerSpec
from cnnbp_cli.config.write import plain
from cnnbp_cli.core.layers import LAYERS
from cnnbp_cli.core.types import FieldErrors, Operation

Schema = dict[str, Any]

_EXAMPLE = re.compile(r",? for example `(.+?)`")

_NAME: Schema = {"type": "string", "description": "By default <type>_<k>, with k counting that type from 1."}
_INPUT: Schema = {
    "type": "array",
    "items": {"type": "string"},
    "minItems": 1,
    "maxItems": 1,
    "description": "The layer that it takes; `input` is the image. By default the layer before.",
}
_INPUTS: Schema = {
    "type": "array",
    "items": {"type": "string"},
    "minItems": 2,
    "description": "The layers that it takes; `input` is the image.",
    "examples": [["input", "conv2d_1"]],
}
_TRAINABLE: Schema = {
    "type": "boolean",
    "default": True,
    "description": "Whether training changes the layer's parameters; false freezes them, and running statistics too.",
}


_EXPRESSION: Schema = {
    "type": "string",
    "pattern": r"\$",
    "description": "A parameter of the block, or arithmetic with parameters: numbers, + - * // and parentheses.",
    "examples": ["$filters", "4 * $filters"],
}
_AN_EXPRESSION: Schema = {"$ref": "#/$defs/expression"}
_WHEN: Schema = {
    "anyOf": [{"type": "boolean"}, _AN_EXPRESSION],
    "description": "Whether the layer is there; if not, its name stands for its first input.",
}
_ABOUT_BLOCKS = (
    "Groups of layers with parameters, by name, each used in `layers` as often as you like. Parameters stand in the "
    "block's layers as `$name`, `$input` is the layer that the block takes."
)


def json_schema() -> Schema:
    """Return the JSON Schema (draft 2020-12) of a config file."""
    schema = _record(Config, without=("positions",)) | {"title": "cnnbp config"}
    schema["required"].remove("name")
    model = schema["properties"]["model"]["properties"]
    layer = {"anyOf": [*model["layers"]["items"]["anyOf"], _share()]}
    model["blocks"] = _blocks(layer)
    model["layers"]["items"] = _either_or_use(layer, use=_use())
    meta = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$defs": {"expression": _EXPRESSION}}
    return meta | schema


def _blocks(layer: Schema) -> Schema:
    """Return the schema of all blocks, given that of a layer outside of them."""
    use = _use()
    use["properties"] = {key: _with_expressions(value) for key, value in use["properties"].items()} | {"when": _WHEN}
    layers = [_with_expressions(option) for option in layer["anyOf"]]
    for option in layers:
        if "properties" in option:
            option["properties"]["when"] = _WHEN
    properties: Schema = {
        "parameters": {
            "title": "parameters",
            "type": "object",
            "description": "The block's parameters and their defaults; null where there is none, so that one is given.",
            "examples": [{"filters": None, "stride": 1}],
        },
        "layers": {
            "type": "array",
            "minItems": 1,
            "items": _either_or_use({"anyOf": layers}, use),
            "description": "The block's layers; the first takes `$input`, which others may name in `inputs`, too.",
        },
    }
    block: Schema = {
        "title": "definition of a block",
        "type": "object",
        "description": "Layers, and the parameters that differ where they are used.",
        "properties": properties,
        "required": ["layers"],
        "additionalProperties": False,
    }
    return {"title": "blocks", "type": "object", "description": _ABOUT_BLOCKS, "additionalProperties": block}


def _share() -> Schema:
    """Return the schema of another use of a layer."""
    name = {"type": "string", "description": "By default <layer>_<k>, with k counting the layer's uses, itself first."}
    shared = {
        "type": "string",
        "description": "The layer, or the use of a block, whose settings and parameters these are, too.",
    }
    return {
        "title": "share",
        "type": "object",
        "description": "A layer, or a use of a block, from above once more, with the same parameters.",
        "properties": {"share": shared | {"examples": ["conv2d_1"]}, "name": name, "inputs": _INPUT},
        "required": ["share"],
        "additionalProperties": False,
    }


def _use() -> Schema:
    """Return the schema of a block's use in a list of layers."""
    return {
        "title": "block",
        "type": "object",
        "description": "The layers of a block, with the values of its parameters.",
        "properties": {
            "block": {"type": "string", "description": "The name of the block."},
            "name": {"type": "string", "description": "Begins the names of its layers. By default <block>_<k>."},
            "inputs": _INPUT,
            "repeat": {"type": "integer", "minimum": 0, "description": "How often, each after the other."},
            "first": {
                "title": "first",
                "type": "object",
                "description": "Parameters that are others in the first repetition.",
            },
        },
        "required": ["block"],
        "not": {"required": ["type"]},
        "additionalProperties": True,
    }


def _either_or_use(layer: Schema, use: Schema) -> Schema:
    return {"anyOf": [*layer["anyOf"], use]}


def _with_expressions(schema: Schema) -> Schema:
    """Return the schema of a value in a block, in the place of which, or of a part of which, an expression may be."""
    if "const" in schema:
        return schema
    relaxed = dict(schema)
    for key in ("prefixItems", "anyOf"):
        if key in relaxed:
            relaxed[key] = [_with_expressions(part) for part in relaxed[key]]
    if isinstance(relaxed.get("items"), dict):
        relaxed["items"] = _with_expressions(relaxed["items"])
    if "properties" in relaxed:
        relaxed["properties"] = {key: _with_expressions(part) for key, part in relaxed["properties"].items()}
    if relaxed.get("type") not in ("integer", "number", "boolean", "array") and "enum" not in relaxed:
        return relaxed
    about: Schema = {key: relaxed.pop(key) for key in ("description", "default", "examples") if key in relaxed}
    return {"anyOf": [relaxed, _AN_EXPRESSION], **about}


def _record(cls: type, without: tuple[str, ...] = ()) -> Schema:
    """Return the schema of a dataclass."""
    hints, texts, properties = hints_of(cls), _field_texts(cls), dict[str, Schema]()
    description, key, required = _first_paragraph(cls), discriminator(cls), list[str]()
    for f in sorted(fields(cls), key=lambda f: f.name != key):  # what kind it is comes first
        if f.name in without:
            continue
        schema = dict(_value(hints[f.name]))
        if f.name == key:
            schema["description"] = description
        elif f.name in texts:
            schema["description"] = _EXAMPLE.sub("", texts[f.name])
            if example := _EXAMPLE.search(texts[f.name]):
                schema["examples"] = [yaml.safe_load(example[1])]
        default = f.default if f.default_factory is MISSING else f.default_factory()
        if default is MISSING or f.name == key:
            required.append(f.name)
        elif default is not None:  # None stands for nothing, or for DERIVED
            value = plain(default)
            kept = {k: part for k, part in value.items() if part is not None} if isinstance(value, dict) else value
            schema["default"] = kept
        properties[f.name] = schema
    known = {name: properties[name].get("examples", [None])[0] for name in required if name != key}
    for name in properties if None not in known.values() else ():
        _bound(properties[name], _bounds(cls, name, hints[name], known))
    record: Schema = {
        "title": properties[key]["const"] if key else _words(cls.__name__),
        "type": "object",
        "description": description,
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }
    if key:
        record["examples"] = [{key: record["title"]} | known]
    return record


def _bounds(cls: type, name: str, hint: Any, known: dict[str, Any]) -> Schema:
    """Return the limits of a number, found by trying: the declaration's own checks are what knows them."""
    kinds = {inner for option in members(hint) for inner in (option, *get_args(option))} & {int, float}

    def fits(value: float) -> bool:
        try:
            cls(**{**known, name: value})
        except FieldErrors as error:
            return name not in dict(error.problems)
        return True

    if not kinds or all(get_origin(option) is tuple for option in members(hint)):
        return {}
    if int in kinds:
        low = next((value for value in (-1, 0, 1, 2) if fits(value)), None)
        return {} if low in (-1, None) else {"minimum": low}
    bounds = {} if fits(-1.0) else {"minimum": 0} if fits(0.0) else {"exclusiveMinimum": 0}
    return bounds | ({} if fits(1.5) else {"maximum": 1} if fits(1.0) else {"exclusiveMaximum": 1})


def _bound(schema: Schema, bounds: Schema) -> None:
    """Write the limits into every number of a schema, those of a pair too."""
    if schema.get("type") in ("integer", "number"):
        schema.update(bounds)
    for part in (*schema.get("anyOf", ()), *schema.get("prefixItems", ())):
        _bound(part, bounds)


def _words(name: str) -> str:
    """Write a class's name as words: ``early stopping``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower().removesuffix(" config")


def _value(hint: Any) -> Schema:
    options = [option for option in members(hint) if option is not NoneType]
    if options == [tuple[LayerSpec, ...]]:
        return {"type": "array", "minItems": 1, "items": _either([_layer(operation) for operation in LAYERS.values()])}
    if record := record_in(options):
        return {"type": "array", "items": _record(record)}
    if options == [Path]:
        schema: Schema = {"type": "string"}
    elif all(is_dataclass(option) for option in options):
        schema = _either([_record(option) for option in options]) if discriminator(options[0]) else _record(options[0])
    elif declared := [option for option in options if is_dataclass(option) and isinstance(option, type)]:
        others = reduce(or_, (option for option in options if option not in declared))
        schema = {"anyOf": [adapter(others).json_schema(), *map(_record, declared)]}
    else:
        return adapter(hint).json_schema()
    return {"anyOf": [schema, {"type": "null"}]} if NoneType in members(hint) else schema


def _layer(operation: type[Operation[Any]]) -> Schema:
    """Return the schema of a layer at its place: with a name, and with inputs, which only merges have to name."""
    schema = _record(operation)
    schema["properties"] |= {"name": _NAME, "inputs": _INPUTS if operation.several_inputs else _INPUT}
    schema["properties"]["trainable"] = _TRAINABLE
    if operation.several_inputs:
        schema["required"].append("inputs")
        schema["examples"] = [schema["examples"][0] | {"inputs": _INPUTS["examples"][0]}]
    return schema


def _either(records: list[Schema]) -> Schema:
    """Return the schema of one of several declarations, or of a bare word for one without arguments."""
    words = [
        {"const": record["title"], "title": record["title"], "description": record["description"]}
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
