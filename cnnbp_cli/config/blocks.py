"""`model.blocks`: groups of layers with parameters, written once. `expansion.py` puts them in their places.

What is wrong with a block whatever its parameters are is found here, once, and not at each of its uses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from cnnbp_cli.config.arithmetic import PARAMETER, ExpressionError, is_expression, parameters_of
from cnnbp_cli.config.errors import KeyPath, suggestion
from cnnbp_cli.config.nodes import InvalidNode, YamlList, YamlMapping, YamlNode, YamlScalar, show
from cnnbp_cli.config.wiring import bad_name, layer_names

INPUT, INDEX = "input", "index"
"""`$input` is what a use of a block takes, `$index` counts its repetitions."""

USE_KEYS = ("block", "name", "inputs", "repeat", "first")
"""The keys of a block's use; all others are its parameters."""

_RESERVED = (*USE_KEYS, "when", "type", INPUT, INDEX)

Complain = Callable[[str, YamlNode, KeyPath], None]


@dataclass(frozen=True, slots=True)
class Block:
    """A definition. The default of a parameter that has to be given is None."""

    parameters: Mapping[str, YamlNode | None]
    layers: Sequence[YamlNode]


def read_blocks(node: YamlNode, complain: Complain) -> dict[str, Block]:
    """Return the blocks under `model.blocks` by name."""
    path: KeyPath = ("model", "blocks")
    if isinstance(node, InvalidNode):
        return {}
    if not isinstance(node, YamlMapping):
        complain(f"blocks: expected a mapping of names to blocks, got {show(node)}", node, path)
        return {}
    blocks: dict[str, Block] = {}
    for name, entry in node.entries.items():
        at, word = (*path, name), YamlScalar(name, entry.key)
        if message := bad_name(name):
            complain(message, word, at)
        reader = _Reader(name, word, at, complain)
        if block := reader.block(entry.node):
            blocks[name] = block
    return blocks


class _Reader:
    """Reads one definition."""

    def __init__(self, name: str, word: YamlNode, path: KeyPath, complain: Complain) -> None:
        self._name, self._word, self._path, self._add = name, word, path, complain

    def _complain(self, message: str, node: YamlNode) -> None:
        if not isinstance(node, InvalidNode):
            self._add(message, node, self._path)

    def block(self, node: YamlNode) -> Block | None:
        """Return the block, unless it has no layers."""
        if not isinstance(node, YamlMapping):
            self._complain(f"expected a mapping with layers, and parameters if it has any, got {show(node)}", node)
            return None
        known = ("parameters", "layers")
        for key, entry in node.entries.items():
            if key not in known:
                message = f"unknown key '{key}' of block {self._name}{suggestion(key, known)}"
                self._complain(message, YamlScalar(key, entry.key))
        layers = node.entries.get("layers")
        if layers is None:
            self._complain(f"missing key 'layers' of block {self._name}", self._word)
            return None
        if not isinstance(layers.node, YamlList) or not layers.node.items:
            self._complain(f"layers: expected a list of layers, got {show(layers.node)}", layers.node)
            return None
        self._check_names(layers.node.items)
        block = Block(self._parameters(node), layers.node.items)
        self._check_references(block)
        return block

    def _parameters(self, node: YamlMapping) -> dict[str, YamlNode | None]:
        entry = node.entries.get("parameters")
        table = entry.node if entry else YamlMapping()
        if isinstance(table, YamlScalar) and table.value is None:
            table = YamlMapping()
        if not isinstance(table, YamlMapping):
            message = f"parameters: expected a mapping of names to defaults, null for none, got {show(table)}"
            self._complain(message, table)
            return {}
        parameters: dict[str, YamlNode | None] = {}
        for key, inner in table.entries.items():
            place = YamlScalar(key, inner.key)
            if key in _RESERVED:
                self._complain(f"'{key}' has a meaning of its own: rename this one", place)
            elif not PARAMETER.fullmatch(key):
                self._complain(f"expected a word of letters, digits and _, got {key!r}", place)
                continue
            required = isinstance(inner.node, YamlScalar) and inner.node.value is None
            parameters[key] = None if required else inner.node
        return parameters

    def _check_names(self, layers: Sequence[YamlNode]) -> None:
        met: set[str] = set()
        for item, own in zip(layers, layer_names(layers), strict=True):
            entry = item.entries.get("name") if isinstance(item, YamlMapping) else None
            place = entry.node if entry else item
            if entry and not (isinstance(place, YamlScalar) and isinstance(place.value, str)):
                self._complain(f"name: expected text, got {show(place)}", place)
            elif entry and (message := bad_name(own) or ("a name cannot be computed" if "$" in own else "")):
                self._complain(f"name: {message}", place)
            elif own in met:
                self._complain(f"duplicate layer name '{own}' in block {self._name}", place)
            met.add(own)

    def _check_references(self, block: Block) -> None:
        """Complain about what is wrong with a block whatever its parameters are."""
        met: set[str] = set()
        for node in scalars(*block.layers):
            if not is_expression(node.value):
                continue
            try:
                references = parameters_of(str(node.value))
            except ExpressionError as error:
                self._complain(str(error), node)
                met.update(block.parameters)  # some of which it may have meant
                continue
            met.update(references)
            known = [*block.parameters, INPUT, INDEX]
            for reference in references:
                if reference not in known:
                    message = f"unknown parameter '${reference}' of block {self._name}{suggestion(reference, known)}"
                    self._complain(message, node)
        for parameter in block.parameters:
            if parameter not in met:
                self._complain(
                    f"parameter '{parameter}' of block {self._name} is used nowhere in it",
                    block.parameters[parameter] or self._word,
                )


def scalars(*nodes: YamlNode) -> Iterator[YamlScalar]:
    """Yield every single value in some nodes."""
    for node in nodes:
        if isinstance(node, YamlList):
            yield from scalars(*node.items)
        elif isinstance(node, YamlMapping):
            yield from scalars(*(entry.node for entry in node.entries.values()))
        elif isinstance(node, YamlScalar):
            yield node
