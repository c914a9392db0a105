"""A config as YAML, complete: what a run directory keeps, and what reads back as the same config."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import PurePath
from typing import Any

from cnnbp_cli.config.arithmetic import is_expression
from cnnbp_cli.config.nodes import resolve, to_python
from cnnbp_cli.config.schema import Config, LayerSpec

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*(/[A-Za-z0-9_-]+)*", re.ASCII)
_PAIR = re.compile(r"(?<=,) (?=[A-Za-z_]\w*: )", re.ASCII)
_EXPRESSION = re.compile(r"[$(0-9][$\w.+*/() -]*[\w)]", re.ASCII)


def to_dict(config: Config) -> dict[str, Any]:
    """Return the config as plain values under the keys of the YAML format, defaults included."""
    return plain(config)


def to_dict_with_blocks(config: Config) -> dict[str, Any]:
    """Return the same with the blocks of its text, and with the layers as they stand there: an equal config, too.

    Where overrides changed single layers of blocks, there are none.
    """
    values, expansion = to_dict(config), config.positions.expansion
    if expansion.blocks and expansion.layers and not expansion.changed:
        model = values["model"]
        blocks = {"blocks": to_python(expansion.blocks)} if expansion.uses else {}
        values["model"] = {"input": model["input"], **blocks, **model, "layers": to_python(expansion.layers)}
    return values


def to_yaml(config: Config) -> str:
    """Return the config as YAML with every default written out; it reads back as an equal config."""
    return as_yaml(to_dict(config))


def as_yaml(values: Mapping[str, Any]) -> str:
    """Return what `to_dict` or `to_dict_with_blocks` returns as YAML."""
    lines: list[str] = []
    for key, section in values.items():
        if not isinstance(section, Mapping):
            lines.append(f"{key}: {flow(section)}")
            continue
        lines += ["", f"{key}:"]
        for name, value in section.items():
            if name == "layers":
                lines += _layers(value, "  ")
            elif name == "blocks":
                lines += ["  blocks:", *(line for block in value.items() for line in _block(*block))]
            else:
                lines.append(f"  {name}: {flow(value)}")
    return "\n".join(lines) + "\n"


def folded(text: str, columns: int) -> str:
    """Return what `as_yaml` wrote with no line longer than a terminal is wide, as far as the commas allow."""
    lines: list[str] = []
    for line in text.splitlines():
        first, *more = _PAIR.split(line) if len(line) > columns else [line]
        lines.append(first)
        indent = " " * (len(line) - len(line.lstrip(" -")) + 2)
        for pair in more:
            if len(lines[-1]) + 1 + len(pair) <= columns:
                lines[-1] += f" {pair}"
            else:
                lines.append(f"{indent}{pair}")
    return "\n".join(lines) + "\n"


def _block(name: str, block: Mapping[str, Any]) -> list[str]:
    parameters = [f"      parameters: {flow(block['parameters'])}"] if block.get("parameters") else []
    return [f"    {flow(name)}:", *parameters, *_layers(block["layers"], "      ")]


def _layers(layers: list[Any], indent: str) -> list[str]:
    return [f"{indent}layers:", *(f"{indent}  - {flow(layer)}" for layer in layers)]


def plain(value: Any) -> Any:
    """Return a declaration as YAML would hold it: mappings, lists and scalars."""
    if isinstance(value, LayerSpec):
        wiring = {"name": value.name, "inputs": list(value.inputs)}
        if value.shares:
            return {"share": value.shares} | wiring
        frozen = {} if value.trainable else {"trainable": False}
        return {"type": value.layer.type} | wiring | frozen | _fields(value.layer)
    if is_dataclass(value):
        values = _fields(value)
        return values["type"] if list(values) == ["type"] else values
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, PurePath) else value


def _fields(declaration: Any) -> dict[str, Any]:
    """Return the fields as plain values, what tells the declaration from its alternatives first."""
    names = [f.name for f in fields(declaration) if f.compare]
    names.sort(key=lambda name: name not in ("type", "source"))
    return {name: plain(getattr(declaration, name)) for name in names}


def flow(value: Any) -> str:
    """Write a plain value in one line of YAML."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(flow, value)) + "]"
    if isinstance(value, str):
        is_plain = _PLAIN.fullmatch(value) or (is_expression(value) and _EXPRESSION.fullmatch(value))
        return value if is_plain and isinstance(resolve(value), str) else _quoted(value)
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _quoted(text: str) -> str:
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
