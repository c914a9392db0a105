"""Weight files in use: a model's parameters by name, for other tools and from them.

Names, shapes and order of the values are those of `Model.parameters`, and of the `state_dict` of an
equivalent PyTorch module. A file also carries the config and the normalization, as text: in the metadata of
safetensors, and in the comment of the npz archive, so that `numpy.load` finds the parameters and nothing else.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np

from cnnbp_cli.config.load import read_names
from cnnbp_cli.config.write import to_yaml
from cnnbp_cli.core.graph import Graph
from cnnbp_cli.core.types import Array
from cnnbp_cli.data.errors import DataError
from cnnbp_cli.files import replace_file
from cnnbp_cli.model import Model
from cnnbp_cli.weight_files import Weights, WeightsError, read_weights, require_safetensors
from cnnbp_cli.weight_map import Matching, WeightMapError, layers_of, match_layers, show_shapes

COMMENT_LIMIT = 65_535
"""The most bytes that the comment of a zip archive can have."""

FEW = 3
"""Layers that a message names."""


def ignore(matching: Matching) -> None:
    """Show nothing."""


@dataclass(frozen=True, slots=True)
class WeightsFrom:
    """A weight file, and how its layers become those of a model.

    Attributes
    ----------
    path : Path
    names : Path, "auto" or None
        A YAML file that says for layers of the model what the file calls them; the others, and with "auto" all, are
        matched by name, kind, shape and order. None: every parameter has the model's own name.
    partial : bool
        Whether layers that the file has not, or in another shape, keep the values that they have.
    show : callable
        Called with what was matched with what, unless every name is the model's own.
    """

    path: Path
    names: Path | Literal["auto"] | None = None
    partial: bool = False
    show: Callable[[Matching], None] = ignore


def use_weights(model: Model, weights: WeightsFrom | Path) -> None:
    """Give a model the parameters of a weight file, and its normalization and names of classes where the file has any.

    Names that the config has are kept, and no others are taken where the layer that gives the classes may not be the
    file's.

    Floats of another width are converted to the model's.

    Raises
    ------
    WeightsError, CheckpointError, ConfigError
        When the file, or the one with names, is damaged; lacks a parameter, has one too many, or one of another shape
        or kind. The model is as before then.
    """
    wanted = weights if isinstance(weights, WeightsFrom) else WeightsFrom(weights)
    path, strict = wanted.path, wanted.names is None and not wanted.partial
    found = read_weights(path)
    names = {name: name for name in found.parameters} if strict else dict(_matched(model, wanted, found).names())
    for name in names.values():
        if not np.isfinite(found.parameters[name]).all():
            raise WeightsError(f"{path}: parameter {name} has values that are not finite; export it before it diverges")
    try:
        if found.normalization:
            found.normalization.require_channels(model.config.model.input[0])
        values = converted(model, {own: found.parameters[name] for own, name in names.items()})
        if bad := first_non_finite(values):
            raise WeightsError(f"{path}: parameter {names[bad]} has values that are too large for {model.dtype}")
        model.set_parameters(values, complete=not wanted.partial)
    except (ValueError, DataError) as error:
        hint = "; --map auto matches layers by kind, shape and order" if names.keys() - model.parameters() else ""
        raise WeightsError(f"{path}: does not fit the model: {error}{hint}") from None
    model.normalization = found.normalization or model.normalization
    if model.class_names is None and not wanted.partial and len(found.class_names or ()) == model.classes:
        model.class_names = found.class_names


def _matched(model: Model, wanted: WeightsFrom, found: Weights) -> Matching:
    """Return which layer gets which; complain about those that get none, unless that is wanted."""
    names = read_names(wanted.names) if isinstance(wanted.names, Path) else {}
    try:
        matching = match_layers(
            {name: value.shape for name, value in model.parameters().items()},
            {name: value.shape for name, value in found.parameters.items()},
            names,
            before=_layers_before(model.graph),
            by_shape=wanted.names is not None,
            in_order=found.in_order,
        )
    except WeightMapError as error:
        raise WeightsError(f"{wanted.names if names else wanted.path}: {error}") from None
    missing = [match for match in matching.matches if match.source is None]
    if missing and (not wanted.partial or len(missing) == len(matching.matches)):
        raise WeightsError(_unmatched(wanted, found, matching))
    wanted.show(matching)
    return matching


def _unmatched(wanted: WeightsFrom, found: Weights, matching: Matching) -> str:
    theirs = layers_of({name: value.shape for name, value in found.parameters.items()})
    missing = [f"{match.layer} ({show_shapes(match.shapes)})" for match in matching.matches if match.source is None]
    unused = [f"{layer} ({show_shapes(theirs[layer])})" for layer in matching.unused]
    remedy = "name pairs in a YAML file for --map, as in `conv1: layer1.0.conv1`"
    if not wanted.partial:
        remedy += "; --partial keeps the initial values of the rest"
    return (
        f"{wanted.path}: nothing in it is certain to be {_few(missing)}; unmatched in the file: "
        f"{_few(unused) or 'nothing'}; {remedy}"
    )


def _few(words: list[str]) -> str:
    more = f" and {len(words) - FEW} more" if len(words) > FEW else ""
    return ", ".join(words[:FEW]) + more


def _layers_before(graph: Graph) -> dict[str, str]:
    """Return, for each layer, the nearest one with parameters that its first input comes from."""
    nearest: dict[str, str] = {}
    before: dict[str, str] = {}
    for node in graph.nodes:
        if (source := nearest.get(node.inputs[0])) is not None:
            before[node.name] = source
        here = node.owner if graph.param_shapes[node.owner] else source
        if here is not None:
            nearest[node.name] = here
    return before


def converted(model: Model, parameters: Mapping[str, Array]) -> dict[str, Array]:
    """Return parameters in the model's precision."""
    with np.errstate(over="ignore"):
        return {name: value.astype(model.dtype) for name, value in parameters.items()}


def first_non_finite(parameters: Mapping[str, Array]) -> str | None:
    """Return the name of the first parameter that has infinite or NaN values."""
    return next((name for name, value in parameters.items() if not np.isfinite(value).all()), None)


def save_weights(model: Model, path: Path, to: str) -> None:
    """Write all parameters and running statistics of a model.

    Parameters
    ----------
    model : Model
    path : Path
        Replaced if it exists.
    to : {"npz", "safetensors"}

    Raises
    ------
    WeightsError, WriteError
        When safetensors is not installed, or the file cannot be written.
    """
    arrays = model.parameters()
    metadata = describe(model)
    if to == "safetensors":
        require_safetensors(path)
        from safetensors.numpy import save

        replace_file(path, save(arrays, metadata))
        return
    comment = json.dumps(metadata).encode()
    if len(comment) > COMMENT_LIMIT:
        raise WeightsError(f"{path}: the config is too long for an npz file, write safetensors")
    buffer = BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = comment
    replace_file(path, buffer.getvalue())


def describe(model: Model) -> dict[str, str]:
    """Return what an exported file says about its model: the config as YAML, all else as JSON."""
    described = {"config": to_yaml(model.config)}
    if model.normalization is not None:
        described["normalization"] = json.dumps(model.normalization.to_dict())
    if names := model.named_classes:
        described["classes"] = json.dumps(names, ensure_ascii=False)
    return described
