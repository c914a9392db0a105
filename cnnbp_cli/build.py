"""From a config to a model: the one place that wires graph, loss and parameters together."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from math import prod

import numpy as np

from cnnbp_cli.config.errors import ConfigError, suggestion
from cnnbp_cli.config.schema import Config
from cnnbp_cli.core.graph import Graph, Node, NodeShapeError
from cnnbp_cli.core.losses import WeightedLoss, make_loss
from cnnbp_cli.core.types import show_shape
from cnnbp_cli.errors import UserError
from cnnbp_cli.memory import require_parameters
from cnnbp_cli.model import Model, target_of

TRACE = 8  # shapes shown before the layer that fails


def build_graph(config: Config) -> Graph:
    """Return the network of a config, its shapes inferred; nothing is allocated.

    What the network is to learn does not matter here; see `require_target`.

    Raises
    ------
    ConfigError
        When a layer cannot take its input, with the shapes up to it, or when layers of `train.losses` differ in shape.
    """
    freeze = config.model.freeze
    nodes = [
        Node(
            spec.name,
            spec.layer,
            spec.inputs,
            spec.trainable and not _matches(spec.shares or spec.name, freeze),
            spec.shares,
        )
        for spec in config.model.layers
    ]
    try:
        graph = Graph(config.model.input, nodes, [one.layer for one in config.losses[1:]])
    except NodeShapeError as error:
        index = next(i for i, spec in enumerate(config.model.layers) if spec.name == error.node)
        steps = [f"{name} {show_shape(shape)}" for name, shape in error.trace]
        trace = " → ".join(["…"] * (len(steps) > TRACE) + steps[-TRACE:])
        message = f"layer {error.node} {error.message} (shapes: {trace} → {error.node})"
        raise ConfigError([config.positions.problem(("model", "layers", index), message)]) from error
    require_frozen(config, graph)
    require_one_shape(config, graph)
    return graph


def require_frozen(config: Config, graph: Graph) -> None:
    """Complain where a layer without parameters is to be frozen, or a pattern means no layer.

    Raises
    ------
    ConfigError
        Names the layer or the pattern.
    """
    at = config.positions.problem
    problems = [
        at(("model", "layers", k, "trainable"), f"layer {spec.name} ({spec.layer.type}) has no parameters to freeze")
        for k, spec in enumerate(config.model.layers)
        if not (spec.trainable or spec.shares or graph.param_shapes[spec.name])
    ]
    learning = [name for name, shapes in graph.param_shapes.items() if shapes]
    for k, pattern in enumerate(config.model.freeze):
        if not any(fnmatchcase(name, pattern) for name in learning):
            message = f"no layer with parameters is called '{pattern}'{suggestion(pattern, learning)}"
            problems.append(at(("model", "freeze", k), message))
    if problems:
        raise ConfigError(problems)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def require_target(config: Config, graph: Graph) -> None:
    """Complain about a network whose output cannot be compared with its target.

    Raises
    ------
    ConfigError
        Names the layer.
    """
    if complaint := _misfit(config, graph):
        last = len(config.model.layers) - 1
        raise ConfigError([config.positions.problem(("model", "layers", last), complaint)])


def require_one_shape(config: Config, graph: Graph) -> None:
    """Complain where a layer of `train.losses` has another shape than the output: the targets are the same.

    Raises
    ------
    ConfigError
        Names the layer.
    """
    wanted = graph.shapes[graph.output]
    problems = [
        config.positions.problem(
            ("train", "losses", k, "layer"),
            f"layer {one.layer} gives {show_shape(graph.shapes[one.layer])}, but has the same targets as "
            f"{graph.output}, which gives {show_shape(wanted)}",
        )
        for k, one in enumerate(config.train.losses)
        if graph.shapes[one.layer] != wanted
    ]
    if problems:
        raise ConfigError(problems)


def _misfit(config: Config, graph: Graph) -> str | None:
    """Return why the last layer's output does not fit what the network is to learn, if it does not."""
    output = graph.shapes[graph.output]
    gives = f"the last layer {graph.output} gives {show_shape(output)}"
    target = target_of(config, output)
    if target == "mask":
        if len(output) != 3:
            return f"{gives}, but masks need a channel for each class, and the height and width of the mask"
        if config.model.head == "none" or (config.model.head == "sigmoid" and output[0] != 1):
            return f"{gives}, but masks need the head softmax, or sigmoid and a single channel"
    elif target == "image":
        if not config.data.may_have_targets and output not in (config.model.input, (prod(config.model.input),)):
            return f"{gives}, but the target is the image, {show_shape(config.model.input)}"
    elif len(output) != 1:
        return f"{gives}, but labels need a vector: end with flatten, dense or a global pool"
    if config.model.head == "softmax" and output[0] == 1:
        return f"{gives}, and a softmax over one unit is always 1: use head sigmoid, or a unit for each class"
    return None


def build(
    config: Config,
    *,
    graph: Graph | None = None,
    losses: Sequence[WeightedLoss] | None = None,
    any_target: bool = False,
) -> Model:
    """Return the model of a config, with fresh parameters drawn from its seed.

    Parameters
    ----------
    config : Config
    graph, losses : optional
        Take the place of those that the config describes.
    any_target : bool
        Build networks whose output fits no target, too, which can predict but not be trained.

    Raises
    ------
    ConfigError
        When the shapes do not fit, or the parameters would not fit into any memory of this machine.
    UserError
        When they do not fit into what is left of it.
    """
    graph = graph or build_graph(config)
    if not any_target:
        require_target(config, graph)
    if losses is None:
        is_mask = target_of(config, graph.shapes[graph.output]) == "mask"
        head, smoothing = config.model.head, config.train.label_smoothing
        losses = [
            WeightedLoss(one.layer, make_loss(head, one.loss, smoothing, per_pixel=is_mask), one.weight)
            for one in config.losses
        ]
    dtype = np.dtype(config.dtype)
    require_parameters(config, graph, dtype.itemsize)
    try:
        params = graph.init_params(config.seed, dtype)
        return Model(config, graph, losses, params, dtype)
    except MemoryError:
        raise UserError("the model's parameters do not fit into memory; `cnnbp summary` shows which layer") from None
