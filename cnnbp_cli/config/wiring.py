"""Names of layers and the lines between them, before there is a graph.

Checked here and not only in the graph because only here a wrong name has a line and a column, and because
overrides address layers by name while the config is still text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import dropwhile

from cnnbp_cli.config.errors import suggestion
from cnnbp_cli.config.nodes import YamlMapping, YamlNode, YamlScalar

IMAGE = "input"
"""What layers call the image."""

SHARE_KEYS = ("share", "name", "inputs")
"""The keys of another use of a layer: all else is the layer's."""


def layer_names(layers: Sequence[YamlNode]) -> list[str]:
    """Return each layer's name: its own, or `<type>_<k>` with k counting all layers of that type from 1.

    The type of what uses a block is the block. What shares a layer is called `<layer>_<k>`, k counting its uses: the
    layer itself is the first.
    """
    counts: Counter[tuple[str, bool]] = Counter()
    names: list[str] = []
    for node in layers:
        kind, shared = _word(_kind(node)).removeprefix("$"), shares_layer(node)
        counts[kind, shared] += 1
        given = _word(node.entries["name"].node) if isinstance(node, YamlMapping) and "name" in node.entries else ""
        names.append(given or f"{kind}_{counts[kind, shared] + shared}")
    return names


def uses_block(node: YamlNode) -> bool:
    """Tell whether what stands in a list of layers is the use of a block."""
    return isinstance(node, YamlMapping) and "block" in node.entries and "type" not in node.entries


def shares_layer(node: YamlNode) -> bool:
    """Tell whether what stands in a list of layers is another use of one of them."""
    return isinstance(node, YamlMapping) and "share" in node.entries and not {"type", "block"} & node.entries.keys()


def _kind(node: YamlNode) -> YamlNode:
    entries = node.entries if isinstance(node, YamlMapping) else {}
    return next((entries[key].node for key in ("type", "block", "share") if key in entries), node)


def _word(node: YamlNode) -> str:
    return node.value if isinstance(node, YamlScalar) and isinstance(node.value, str) else ""


def bad_name(name: str) -> str | None:
    """Return what is wrong with a layer's name, or None."""
    if name == IMAGE:
        return f"'{IMAGE}' is the image, a layer needs another name"
    if not name or not name.isprintable() or name.isdigit() or any(c.isspace() or c in "./\\=" for c in name):
        return f"expected a word without spaces, dots, slashes and '=' that is not a number, got {name!r}"
    return None


@dataclass(frozen=True, slots=True)
class Wire:
    """What a layer takes. `inputs` is None where the config does not say, or says it wrongly."""

    name: str
    inputs: tuple[str, ...] | None
    kind: str
    merges: bool
    trainable: bool = True


def default_inputs(names: Sequence[str], index: int) -> tuple[str, ...]:
    """Return the layer before, or the image."""
    return (names[index - 1] if index else IMAGE,)


def wiring_problems(wires: Sequence[Wire | None]) -> Iterator[tuple[int, tuple[str | int, ...], str]]:
    """Yield (layer's index, path within the layer, message) for every fault; None is a layer not understood."""
    names = dict.fromkeys(wire.name for wire in wires if wire)
    first: dict[str, int] = {}
    for index, wire in enumerate(wires):
        if wire is None:
            continue
        if wire.name in first:
            yield index, ("name",), f"duplicate layer name '{wire.name}', first at model.layers[{first[wire.name]}]"
        first.setdefault(wire.name, index)
        yield from ((index, path, message) for path, message in _bad_inputs(wire, names))
    for cycle in _cycles(wires):
        around = " → ".join([*cycle, cycle[0]])
        yield first[cycle[0]], ("inputs",), f"the inputs form a cycle: {around}"


def _bad_inputs(wire: Wire, names: Collection[str]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    count = 1 if wire.inputs is None else len(wire.inputs)
    if wire.merges and count < 2:
        yield ("inputs",), f"{wire.kind} takes two inputs or more, got {_counted(wire)}"
    elif not wire.merges and count != 1:
        yield ("inputs",), f"{wire.kind} takes one input, got {count}"
    for i, name in enumerate(wire.inputs or ()):
        if name != IMAGE and name not in names:
            yield ("inputs", i), f"unknown layer '{name}'{suggestion(name, [IMAGE, *names])}"


def _counted(wire: Wire) -> str:
    return str(len(wire.inputs)) if wire.inputs is not None else "the layer before; name them in `inputs`"


def _cycles(wires: Sequence[Wire | None]) -> Iterator[list[str]]:
    """Yield the names around each cycle, beginning with the first in file order; none shares a layer with another."""
    order: dict[str, int] = {}
    inputs: dict[str, tuple[str, ...]] = {}
    before = IMAGE
    for index, wire in enumerate(wires):
        if wire:
            order.setdefault(wire.name, index)
            inputs.setdefault(wire.name, (before,) if wire.inputs is None else wire.inputs)
            before = wire.name
    done: set[str] = {IMAGE}
    for start in order:
        trail: dict[str, None] = {}
        rests = [iter([start])]
        while rests:  # a depth-first walk toward the image, without recursion: models may be long
            name = next((n for n in rests[-1] if n in inputs and n not in done), None)
            if name is None:
                rests.pop()
                if trail:
                    done.add(trail.popitem()[0])
            elif name in trail:
                cycle = [*dropwhile(name.__ne__, trail)]
                first = min(range(len(cycle)), key=lambda i: order[cycle[i]])
                yield cycle[first:] + cycle[:first]
                done.update(trail)
                break
            else:
                trail[name] = None
                rests.append(iter(inputs[name]))
