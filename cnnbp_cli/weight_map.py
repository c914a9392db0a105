"""Whose parameters are whose: the layers of a weight file laid beside those of a model.

PyTorch calls a layer `layer1.0.conv1` or `0`, the config `stage1_conv1` or `conv2d_1`. Layers are matched by

1. the names that the user gives;
2. equal names, where `.` counts as `_`;
3. kind and shape, where one layer of the file and one of the model have such parameters;
4. order among as many layers of equal kind and shape on both sides, a normalization first by the layer before it.

What is matched by order may be wrong in a network with branches, so a match says how it was found.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from cnnbp_cli.config.errors import suggestion
from cnnbp_cli.core.types import Shape, show_shape
from cnnbp_cli.errors import UserError

Shapes = dict[str, Shape]
How = Literal["map", "name", "shape", "neighbor", "order"]


class WeightMapError(UserError):
    """Layers of a file that do not fit those of the model, or names that mean none."""


@dataclass(frozen=True, slots=True)
class Match:
    """A layer of the model, and the layer of the file whose parameters it gets.

    Attributes
    ----------
    layer : str
    source : str or None
        None where it keeps the parameters that it has.
    shapes : dict of str to Shape
        Of the layer's parameters, by key.
    how : str or None
        What found the source.
    """

    layer: str
    source: str | None
    shapes: Shapes
    how: How | None = None


@dataclass(frozen=True, slots=True)
class Matching:
    """What a weight file has for a model.

    Attributes
    ----------
    matches : list of Match
        One for each layer with parameters, in layer order.
    unused : list of str
        Layers of the file that nothing takes.
    """

    matches: list[Match]
    unused: list[str] = field(default_factory=list[str])

    def names(self) -> Iterator[tuple[str, str]]:
        """Yield each parameter's name in the model and in the file."""
        for match in self.matches:
            if match.source is not None:
                for key in match.shapes:
                    yield f"{match.layer}.{key}", join(match.source, key)


def match_layers(
    model: Mapping[str, Shape],
    file: Mapping[str, Shape],
    names: Mapping[str, str],
    *,
    before: Mapping[str, str] | None = None,
    by_shape: bool = True,
    in_order: bool = True,
) -> Matching:
    """Find for each layer of a model the layer of a file that it takes its parameters from.

    Parameters
    ----------
    model, file : mapping of str to Shape
        The parameters of both, by name.
    names : mapping of str to str
        Layers of the model, and what the file calls them.
    before : mapping of str to str, optional
        The layer with parameters before each layer of the model.
    by_shape : bool
        Whether to go on where names say nothing, by kind and shape.
    in_order : bool
        Whether the file has its layers in the order in which they were made; otherwise they are put into the order of
        their names, numbers as numbers.

    Raises
    ------
    WeightMapError
        When `names` has layers that do not exist, or whose parameters do not fit.
    """
    ours, theirs = layers_of(model), layers_of(file)
    found = dict(_by_map(ours, theirs, names))
    found |= _by_name(ours, theirs, found)
    if by_shape:
        order = list(theirs) if in_order else sorted(theirs, key=_natural)
        found |= _by_shape(ours, theirs, found, order)
        if in_order and before:
            found |= _by_neighbor(ours, theirs, found, order, before)
        found |= _by_order(ours, theirs, found, order)
    taken = {source for source, _ in found.values()}
    nothing: tuple[str | None, How | None] = (None, None)
    matches = []
    for layer, shapes in ours.items():
        source, how = found.get(layer, nothing)
        matches.append(Match(layer, source, shapes, how))
    return Matching(matches, [layer for layer in theirs if layer not in taken])


def layers_of(parameters: Mapping[str, Shape]) -> dict[str, Shapes]:
    """Return the parameters' shapes by layer and key."""
    layers: dict[str, Shapes] = defaultdict(dict)
    for name, shape in parameters.items():
        layer, _, key = name.rpartition(".")
        layers[layer][key] = tuple(shape)
    return dict(layers)


def join(layer: str, key: str) -> str:
    """Return a parameter's name."""
    return f"{layer}.{key}" if layer else key


def show_shapes(shapes: Shapes) -> str:
    """Write a layer's parameters: ``weight 6×1×5×5, bias 6``."""
    return ", ".join(f"{key} {show_shape(shape) or 'a number'}" for key, shape in shapes.items())


Found = Mapping[str, tuple[str, How]]


def _by_map(
    ours: Mapping[str, Shapes], theirs: Mapping[str, Shapes], names: Mapping[str, str]
) -> Iterator[tuple[str, tuple[str, How]]]:
    for layer, source in names.items():
        if layer not in ours:
            raise WeightMapError(f"the model has no layer '{layer}' with parameters{suggestion(layer, list(ours))}")
        if source not in theirs:
            raise WeightMapError(f"there is no layer '{source}'{suggestion(source, list(theirs))}")
        if ours[layer] != theirs[source]:
            raise WeightMapError(
                f"{source} has {show_shapes(theirs[source])}, but {layer} needs {show_shapes(ours[layer])}"
            )
        yield layer, (source, "map")
    for source in names.values():
        if len(users := [layer for layer, other in names.items() if other == source]) > 1:
            raise WeightMapError(f"'{source}' is given to several layers: {', '.join(users)}")


def _by_name(
    ours: Mapping[str, Shapes], theirs: Mapping[str, Shapes], found: Found
) -> Iterator[tuple[str, tuple[str, How]]]:
    taken = {source for source, _ in found.values()}
    alike = {source.replace(".", "_"): source for source in theirs if source not in taken}
    for layer, shapes in ours.items():
        source = alike.get(layer.replace(".", "_"))
        if layer not in found and source is not None and theirs[source] == shapes:
            yield layer, (source, "name")


def _groups(
    ours: Mapping[str, Shapes], theirs: Mapping[str, Shapes], found: Found, order: Sequence[str]
) -> Iterator[tuple[list[str], list[str]]]:
    """Yield the layers of both sides, without those that are matched, that have parameters of equal shapes."""
    taken = {source for source, _ in found.values()}
    groups: dict[frozenset[tuple[str, Shape]], tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for layer, shapes in ours.items():
        if layer not in found:
            groups[frozenset(shapes.items())][0].append(layer)
    for source in order:
        if source not in taken:
            groups[frozenset(theirs[source].items())][1].append(source)
    yield from groups.values()


def _by_shape(
    ours: Mapping[str, Shapes], theirs: Mapping[str, Shapes], found: Found, order: Sequence[str]
) -> Iterator[tuple[str, tuple[str, How]]]:
    for layers, sources in _groups(ours, theirs, found, order):
        if len(layers) == len(sources) == 1:
            yield layers[0], (sources[0], "shape")


def _by_neighbor(
    ours: Mapping[str, Shapes],
    theirs: Mapping[str, Shapes],
    found: Found,
    order: Sequence[str],
    before: Mapping[str, str],
) -> dict[str, tuple[str, How]]:
    """Match the normalizations, given the other layers: those that follow layers that are matched."""
    others = {**found, **dict(_by_order(ours, theirs, found, order))}
    ahead = dict(zip(order[1:], order, strict=False))
    matched: dict[str, tuple[str, How]] = {}
    for layers, sources in _groups(ours, theirs, found, order):
        if any(len(shape) > 1 for layer in layers for shape in ours[layer].values()):
            continue
        behind = {others[before[layer]][0]: layer for layer in layers if before.get(layer) in others}
        pairs = {behind[ahead[source]]: source for source in sources if ahead.get(source) in behind}
        if len(layers) == len(sources) == len(pairs):
            matched |= {layer: (source, "neighbor") for layer, source in pairs.items()}
    return matched


def _by_order(
    ours: Mapping[str, Shapes], theirs: Mapping[str, Shapes], found: Found, order: Sequence[str]
) -> Iterator[tuple[str, tuple[str, How]]]:
    for layers, sources in _groups(ours, theirs, found, order):
        if len(layers) == len(sources):
            for layer, source in zip(layers, sources, strict=True):
                yield layer, (source, "order")


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Return what puts `features.10` behind `features.9`."""
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", name)]
