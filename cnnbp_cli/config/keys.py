"""What can follow what somebody has typed after `--set`: keys, names of layers, words that a value may be.

A shell waits for this at every press of the tab key, so nothing here imports NumPy: the format is read from
`schema.json`, which `make schema` writes, instead of from the declarations.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from itertools import takewhile
from pathlib import Path
from typing import Any

from cnnbp_cli.config.errors import ConfigError, Source
from cnnbp_cli.config.expansion import expand_blocks
from cnnbp_cli.config.nodes import MAX_CONFIG_BYTES, YamlList, YamlMapping, YamlNode, YamlScalar, compose, copy
from cnnbp_cli.config.overrides import apply_overrides
from cnnbp_cli.config.sources import is_template, located
from cnnbp_cli.config.templates import template
from cnnbp_cli.config.wiring import layer_names, shares_layer, uses_block

Schema = Mapping[str, Any]
Candidate = tuple[str, str]
"""A text, and what it means."""

_LAYERS = "model.layers."


def read_tree(config: Path, overrides: Sequence[str] = ()) -> YamlNode:
    """Return what a config says so far; nothing where there is none, or it is broken."""
    try:
        if is_template(str(config)):
            text = template(str(config)).text
        else:
            config = located(config)
            path = config / "config.yaml" if config.is_dir() else config
            if not path.is_file() or path.stat().st_size > MAX_CONFIG_BYTES:  # a pipe would wait
                return YamlMapping()
            text = path.read_text(encoding="utf-8")
        root = compose(Source(str(config), text), [])
        apply_overrides(root, overrides, Path(), [])
        return root
    except (ConfigError, OSError, ValueError):
        return YamlMapping()


def names_of_layers(root: YamlNode) -> list[str]:
    """Return the layers of a config, by name."""
    expanded = copy(root)
    expand_blocks(expanded, [])
    layers = _entry(_entry(expanded, "model"), "layers")
    return layer_names(layers.items) if isinstance(layers, YamlList) else []


def _with_layers_of_blocks(root: YamlNode) -> YamlNode:
    """Return the tree with the layers of blocks after those that it has, and with all parameters at their uses."""
    expanded, root = copy(root), copy(root)
    expand_blocks(expanded, [])
    layers, flat = (_entry(_entry(tree, "model"), "layers") for tree in (root, expanded))
    if isinstance(layers, YamlList) and isinstance(flat, YamlList) and any(map(uses_block, layers.items)):
        for use in filter(uses_block, layers.items):
            block = _entry(_entry(_entry(root, "model"), "blocks"), _word_of(_entry(use, "block")))
            parameters = _entry(block, "parameters")
            if isinstance(use, YamlMapping) and isinstance(parameters, YamlMapping):
                use.entries = parameters.entries | use.entries
        known = layer_names(layers.items)
        layers.items += [
            layer for layer, name in zip(flat.items, layer_names(flat.items), strict=True) if name not in known
        ]
    return root


def complete_override(typed: str, root: YamlNode) -> list[Candidate]:
    """Return what can stand in the place of `typed`: keys that end in `.` or `=`, or with a value after the `=`."""
    key, equals, _ = typed.partition("=")
    names, root = names_of_layers(root), _with_layers_of_blocks(root)
    schema: Schema = json.loads(files("cnnbp_cli.config").joinpath("schema.json").read_text(encoding="utf-8"))
    above, _, last = key.rpartition(".")
    *parts, last = [*above.split("."), last] if above else [last]
    node: YamlNode | None = root
    for part in parts:
        schema, node = _below(schema, node, part)
    prefix = f"{above}." if above else ""
    if equals and prefix.startswith(_LAYERS) and last == "share":
        return [(f"{key}={name}", "") for name in takewhile(parts[-1].__ne__, names)]
    if equals:
        schema, _ = _below(schema, node, last)
        return [(f"{key}={word}", about) for word, about in _values(schema)]
    return list(_keys(prefix, last, schema, node))


def _keys(prefix: str, start: str, schema: Schema, node: YamlNode | None) -> Iterator[Candidate]:
    """Yield the keys that begin with `start`; what is below the only one that has keys itself, too."""
    found = {name: about for name, about in _names(prefix, schema, node).items() if name.startswith(start)}
    for name, about in found.items():
        inner, inner_node = _below(schema, node, name)
        below = _names(f"{prefix}{name}.", inner, inner_node)
        if below and len(found) == 1:
            yield from _keys(f"{prefix}{name}.", "", inner, inner_node)
        elif below:
            yield f"{prefix}{name}.", about
        may_be_word = len(found) == 1 and prefix != _LAYERS and any("const" in option for option in _options(inner))
        if not below or may_be_word:
            yield f"{prefix}{name}=", about


def _names(prefix: str, schema: Schema, node: YamlNode | None) -> dict[str, str]:
    """Return the keys that there are below `prefix`, each with its description."""
    if prefix == _LAYERS:
        layers = node.items if isinstance(node, YamlList) else []
        return {name: _kind(layer) for name, layer in zip(layer_names(layers), layers, strict=True)}
    found: dict[str, str] = {}
    if node is not None and uses_block(node):
        found = dict.fromkeys(node.entries if isinstance(node, YamlMapping) else (), "")
    for record in _records(schema, node):
        for key, value in record["properties"].items():
            found.setdefault(key, _about(value))
    return found


def _below(schema: Schema, node: YamlNode | None, part: str) -> tuple[Schema, YamlNode | None]:
    """Return what the format, and what the config, says about a key; a layer's name or an index is one, too."""
    if "items" in schema:
        items = node.items if isinstance(node, YamlList) else []
        names = layer_names(items)
        index = names.index(part) if part in names else int(part) if part.isdecimal() else -1
        if items and not 0 <= index < len(items):
            return {}, None
        return schema["items"], items[index] if items else None
    if part in ("type", "source"):
        records = [record for record in _options(schema) if "properties" in record]
        return {"anyOf": [{"const": _word(r), "description": r["description"]} for r in records if _word(r)]}, None
    options = [record["properties"][part] for record in _records(schema, node) if part in record["properties"]]
    return options[0] if len(options) == 1 else {"anyOf": options}, _entry(node, part)


def _records(schema: Schema, node: YamlNode | None) -> list[Schema]:
    """Return the mappings that the format allows, or the one that the config, or else the default, chooses."""
    records = [option for option in _options(schema) if "properties" in option]
    if node is not None and uses_block(node):
        return [record for record in records if "block" in record["properties"]]
    if node is not None and shares_layer(node):
        return [record for record in records if "share" in record["properties"]]
    default = schema.get("default")
    word = _kind(node) or (default.get("type", "") if isinstance(default, Mapping) else default)
    chosen = [record for record in records if word and _word(record) == word]
    return chosen or records


def _options(schema: Schema) -> Iterator[Schema]:
    if "anyOf" in schema:
        for option in schema["anyOf"]:
            yield from _options(option)
    else:
        yield schema


def _values(schema: Schema) -> Iterator[Candidate]:
    """Yield the words that a value may be."""
    seen: set[str] = set()
    for option in _options(schema):
        words = [*option.get("enum", ()), *([option["const"]] if "const" in option else ())]
        words += {"boolean": ["true", "false"], "null": ["null"]}.get(option.get("type", ""), [])
        for word in map(str, words):
            if word not in seen:
                seen.add(word)
                yield word, option.get("description", "")


def _word(record: Schema) -> str:
    """Return what tells a mapping from its alternatives."""
    properties = record["properties"]
    return next((str(properties[key]["const"]) for key in ("type", "source") if "const" in properties.get(key, ())), "")


def _about(schema: Schema) -> str:
    about = str(schema.get("description", ""))
    default = schema.get("default")
    return (
        about if default is None or isinstance(default, Mapping) else f"{about} (default {json.dumps(default)})".strip()
    )


def _kind(node: YamlNode | None) -> str:
    """Return the word for what a mapping is, or that stands for the mapping itself."""
    if node is not None and shares_layer(node):
        return f"shares {_word_of(_entry(node, 'share'))}"
    return _word_of(node if isinstance(node, YamlScalar) else _entry(node, "type") or _entry(node, "source"))


def _word_of(node: YamlNode | None) -> str:
    return node.value if isinstance(node, YamlScalar) and isinstance(node.value, str) else ""


def _entry(node: YamlNode | None, key: str) -> YamlNode | None:
    entry = node.entries.get(key) if isinstance(node, YamlMapping) else None
    return entry.node if entry else None
