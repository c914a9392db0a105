# expects: frozen-layer
#
# A layer of one's own passes its input on, but no gradient back: everything before it stays as it was drawn. A person
# sees a network that learns a little, from random features.

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from diagnosis_campaign.corpus import HEALTHY, Pair, load

from cnnbp_cli.core.graph import Graph
from cnnbp_cli.core.layers import Relu
from cnnbp_cli.core.types import Array, Context, Params


@dataclass(frozen=True, slots=True)
class Detached(Relu):
    """ReLU in the forward pass, nothing in the backward pass."""

    def backward(self, params: Params, residuals: Any, dy: Array, ctx: Context) -> tuple[Array, Params]:
        return np.zeros_like(dy), {}


def broken() -> Pair:
    model, data = fixed()
    last = [node.name for node in model.graph.nodes if isinstance(node.layer, Relu)][-1]
    nodes = [replace(node, layer=Detached()) if node.name == last else node for node in model.graph.nodes]
    model.graph = Graph(model.config.model.input, nodes)
    return model, data


def fixed() -> Pair:
    return load(HEALTHY / "conv-narrow.yaml")
