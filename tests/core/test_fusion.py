"""A pass in which neighbors do the work of ReLUs gives the same bits as one in which every layer does its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from cnnbp_cli.build import build_graph
from cnnbp_cli.config.load import load_config
from cnnbp_cli.core.fusion import Fusion
from cnnbp_cli.core.graph import Graph, Node
from cnnbp_cli.core.layers import Add, BatchNorm, Conv2d, Dense, Flatten, MaxPool2d, Relu, Tanh
from cnnbp_cli.core.types import Context, Layer, Workspace

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


@dataclass(frozen=True, slots=True)
class OwnConv(Conv2d):
    """A layer of somebody's own, which knows nothing about ReLUs."""


@dataclass(frozen=True, slots=True)
class OwnRelu(Relu):
    """A leaky one, which its parent's claims would turn into a ReLU."""

    def forward(self, params, x, ctx):
        return np.where(x > 0, x, 0.1 * x), x

    def backward(self, params, residuals, dy, ctx):
        return np.where(residuals > 0, dy, 0.1 * dy), {}


@dataclass(frozen=True, slots=True)
class FusedScale(Layer):
    """A layer of somebody's own that takes part in both directions."""

    applies_relu = True
    masks_relu = True
    type: str = "fused_scale"

    def forward(self, params, x, ctx):
        return np.maximum(2 * x, 0) if ctx.then_relu else 2 * x, x

    def backward(self, params, residuals, dy, ctx):
        return 2 * dy * (residuals > 0) if ctx.after_relu else 2 * dy, {}


def chain(*layers, shape=(2, 9, 8)):
    names = ["input", *(f"{layer.type}{k}" for k, layer in enumerate(layers))]
    return Graph(
        shape, [Node(name, layer, (before,)) for before, name, layer in zip(names[:-1], names[1:], layers, strict=True)]
    )


GRAPHS = {
    "overlapping pool": chain(Conv2d(3, 3), Relu(), MaxPool2d(3, stride=2)),
    "padded pool": chain(Conv2d(3, 3, padding="same"), BatchNorm(), Relu(), MaxPool2d(3, stride=2, padding=1)),
    "pool with a rest": chain(Conv2d(4, 2, groups=2, bias=False), Relu(), MaxPool2d(3)),
    "dense": chain(Flatten(), Dense(5), Relu(), Dense(4), BatchNorm(), Relu(), Dense(2)),
    "convolutions": chain(
        *(Conv2d(4, 3), Relu(), Conv2d(4, 2, stride=2), Relu()),
        *(Conv2d(4, 3, padding="same", groups=2), Relu(), Conv2d(2, 3, dilation=2, padding=2)),
    ),
    "a layer of somebody's own": chain(FusedScale(), Relu(), FusedScale(), Tanh()),
    "relu at the end": chain(Conv2d(3, 3), Relu()),
    "relu of the image": chain(Relu(), MaxPool2d(2), Conv2d(3, 3)),
    **{path.stem: build_graph(load_config(path)) for path in CONFIGS},
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", GRAPHS)
def test_fused_passes_give_the_same_bits(name, training, dtype):
    graph, rng = GRAPHS[name], np.random.default_rng(0)
    params = graph.init_params(0, dtype)
    x = rng.normal(size=(*graph.shapes["input"], 4)).astype(dtype)
    x[..., :2, :] = 0  # windows of equal pixels, as on every flat background
    dy = rng.normal(size=(*graph.shapes[graph.output], 4)).astype(dtype)
    results = []
    for fused in (False, True):
        ctx = Context(training=training, seed=1, step=2, fused=fused, arrays=Workspace())
        y, tape = graph.forward(params, x, ctx)
        y = y.copy()
        dx, grads = graph.backward(params, tape, dy, ctx)
        results.append({"y": y, "dx": dx, "state": graph.next_state(params, tape), "grads": grads})
    np.testing.assert_equal(*results)


def test_relus_of_a_plain_network_are_fused():
    fusion = Fusion(GRAPHS["lenet5"].nodes, GRAPHS["lenet5"].output)
    assert len(fusion.forward) == 4
    assert len(fusion.backward) == 4


def test_a_subclass_with_other_passes_gives_its_own_results():
    graph = chain(Conv2d(3, 3), OwnRelu(), MaxPool2d(2))
    x = np.random.default_rng(0).normal(size=(*graph.shapes["input"], 4))
    params = graph.init_params(0)
    outputs = [graph.forward(params, x, Context(fused=fused))[0] for fused in (False, True)]
    np.testing.assert_array_equal(*outputs)
    assert outputs[0].min() < 0


def test_a_layer_of_somebodys_own_may_take_part():
    nodes = [
        *(Node("a", FusedScale(), ("input",)), Node("r", Relu(), ("a",))),
        *(Node("b", FusedScale(), ("r",)), Node("t", Tanh(), ("b",))),
    ]
    fusion = Fusion(nodes, "t")
    assert (fusion.forward, fusion.backward) == ({"a": "r"}, {"b": "r"})


@pytest.mark.parametrize(
    "nodes",
    [
        [Node("r", OwnRelu(), ("input",)), Node("p", MaxPool2d(1), ("r",)), Node("d", Conv2d(2, 3), ("p",))],
        [Node("a", Conv2d(2, 3), ("input",)), Node("r", OwnRelu(), ("a",)), Node("t", Tanh(), ("r",))],
        [Node("a", OwnConv(2, 3), ("input",)), Node("r", Relu(), ("a",)), Node("t", Tanh(), ("r",))],
        [Node("a", Conv2d(2, 3), ("input",)), Node("r", Relu(), ("a",)), Node("s", Add(), ("a", "r"))],
        [Node("a", Tanh(), ("input",)), Node("r", Relu(), ("a",)), Node("t", Tanh(), ("r",))],
    ],
    ids=["a subclass of relu", "before a subclass of relu", "a subclass", "two readers", "another layer"],
)
def test_what_others_may_see_is_left_alone(nodes):
    fusion = Fusion(nodes, nodes[-1].name)
    assert not fusion.forward
    assert not fusion.backward


def test_a_relu_with_two_readers_stops_its_gradients_itself():
    nodes = [
        Node("r", Relu(), ("input",)),
        Node("p", MaxPool2d(1), ("r",)),
        Node("s", Add(), ("p", "r")),
    ]
    assert not Fusion(nodes, "s").backward
    assert Fusion(nodes[:2], "p").backward == {"p": "r"}
