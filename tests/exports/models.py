"""Models with one layer of interest, whose every parameter is random."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from laws.cases import Case

from cnnbp_cli.config.schema import Config, LayerSpec, ModelConfig, Synthetic
from cnnbp_cli.core.graph import Graph, Node
from cnnbp_cli.core.layers import Conv2d, Dense, Flatten
from cnnbp_cli.core.losses import WeightedLoss, make_loss
from cnnbp_cli.core.types import Operation, Shape
from cnnbp_cli.data.normalization import Normalization
from cnnbp_cli.model import Model


def make_model(
    shape: Shape,
    layers: Sequence[tuple[str, Operation[Any], tuple[str, ...]]],
    *,
    dtype: str = "float32",
    head: str = "none",
) -> Model:
    """Return a model of (name, layer, inputs) on images of `shape` (c, h, w)."""
    specs = tuple(LayerSpec(name, inputs, layer) for name, layer, inputs in layers)
    config = Config("one-layer", dtype=dtype, data=Synthetic(), model=ModelConfig(shape, specs, head=head))
    graph = Graph(shape, [Node(spec.name, spec.layer, spec.inputs) for spec in config.model.layers])
    losses = [WeightedLoss(graph.output, make_loss(head, config.train.loss))]
    model = Model(config, graph, losses, graph.init_params(0, np.dtype(dtype)), np.dtype(dtype))
    shuffle(model)
    return model


def shuffle(model: Model) -> None:
    """Give every parameter values of its own, running statistics of batch norm included.

    Weights stay near their initial ones: saturated outputs would hide differences.
    """
    rng = np.random.default_rng(1)
    for name, old in model.parameters().items():
        if name.endswith("running_var"):
            new = rng.uniform(0.5, 2, old.shape)
        else:
            new = rng.normal(old, 0.1 if old.ndim == 1 else 0.1 * old.std())
        model.set_parameters({name: new.astype(model.dtype)})


def one_layer(case: Case, dtype: str) -> Model:
    """Return a model with the case's layer behind what makes its inputs: one layer for each of several."""
    first = case.in_shapes[0]
    vector = len(first) == 1
    shape = (first[0], 1, 1) if vector else first
    layers: list[tuple[str, Operation[Any], tuple[str, ...]]] = []
    ready = "input"
    if vector:
        layers.append(("features", Flatten(), ("input",)))
        ready = "features"
    inputs = [ready]
    if len(case.in_shapes) > 1:
        inputs = [f"branch{k}" for k in range(len(case.in_shapes))]
        for name, (size, *_) in zip(inputs, case.in_shapes, strict=True):
            layers.append((name, Dense(size) if vector else Conv2d(size, 1), (ready,)))
    layers.append(("subject", case.layer, tuple(inputs)))
    return make_model(shape, layers, dtype=dtype)


def pixels(model: Model, count: int, seed: int = 2) -> np.ndarray:
    """Return raw images, and make the model know how to normalize them."""
    c, h, w = model.config.model.input
    rng = np.random.default_rng(seed)
    model.normalization = Normalization("standard", tuple(rng.uniform(20, 60, c)), tuple(rng.uniform(50, 90, c)))
    return rng.integers(0, 256, (count, c, h, w), dtype=np.uint8)
