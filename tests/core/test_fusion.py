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
from cnnbp_cli.core.layers import Add, BatchNorm, Conv2d, Dense, Flatten, GlobalAvgPool2d, MaxPool2d, Relu, Tanh
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


@dataclass(frozen=True, slots=True)
class OwnAdd(Add):
    """The mean of its inputs, which its parent's claims would turn into their sum."""

    def forward(self, xs, ctx):
        return sum(xs) / len(xs), len(xs)

    def backward(self, residuals, dy, ctx):
        return (dy / residuals,) * residuals


def residual(*, shortcut=(), add=None, width=4, relu=True):
    """Two residual blocks, one behind the other, and a pool."""
    nodes, x = [Node("stem", Conv2d(width, 3, padding=1), ("input",)), Node("relu", Relu(), ("stem",))], "relu"
    for k in "ab":
        nodes += [
            Node(f"{k}1", Conv2d(width, 3, padding=1, bias=False), (x,)),
            *(Node(f"{k}2", BatchNorm(), (f"{k}1",)), Node(f"{k}3", Relu(), (f"{k}2",))),
            *(Node(f"{k}4", Conv2d(width, 3, padding=1), (f"{k}3",)), Node(f"{k}5", BatchNorm(), (f"{k}4",))),
        ]
        before = x
        for n, layer in enumerate(shortcut):
            nodes.append(Node(f"{k}s{n}", layer, (before,)))
            before = f"{k}s{n}"
        nodes.append(Node(f"{k}6", add or Add(), (f"{k}5", before)))
        x = f"{k}6"
        if relu:
            nodes.append(Node(x := f"{k}7", Relu(), (f"{k}6",)))
    return Graph((2, 9, 8), [*nodes, Node("pool", GlobalAvgPool2d(), (x,)), Node("dense", Dense(3), ("pool",))])


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
    "residual": residual(),
    "residual with projections": residual(shortcut=(Conv2d(4, 1), BatchNorm())),
    "residual with pools": residual(shortcut=(MaxPool2d(3, stride=1, padding=1),)),
    "residual without relu": residual(relu=False),
    "residual with a sum of somebody's own": residual(add=OwnAdd()),
    "three summands": Graph(
        (4, 9, 8),
        [
            *(Node("r", Relu(), ("input",)), Node("a", Conv2d(4, 1), ("r",)), Node("b", BatchNorm(), ("r",))),
            *(Node("c", MaxPool2d(1), ("r",)), Node("s", Add(), ("a", "b", "c")), Node("t", Relu(), ("s",))),
            *(Node("d", Conv2d(4, 3), ("t",)), Node("e", Add(), ("d", "d")), Node("f", Relu(), ("e",))),
            Node("g", Conv2d(2, 1), ("f",)),
        ],
    ),
    "a sum at the end": Graph((2, 9, 8), [Node("a", Conv2d(2, 1), ("input",)), Node("s", Add(), ("a", "input"))]),
    "a summand that is computed later": Graph(
        (2, 9, 8),
        [
            *(Node("a", Conv2d(2, 1), ("input",)), Node("s", Add(), ("a", "b")), Node("b", Conv2d(2, 1), ("input",))),
            *(Node("r", Relu(), ("s",)), Node("p", GlobalAvgPool2d(), ("r",))),
        ],
    ),
    "sums of sums": Graph(
        (2, 9, 8),
        [
            *(Node("a", Conv2d(2, 1), ("input",)), Node("b", Add(), ("a", "input")), Node("c", Add(), ("b", "input"))),
            *(Node("r", Relu(), ("c",)), Node("d", BatchNorm(), ("r",)), Node("e", Add(), ("r", "d"))),
        ],
    ),
    "one layer, fused with other neighbors at each use": Graph(
        (4, 9, 8),
        [
            *(
                Node("a", Conv2d(4, 3, padding=1), ("input",)),
                Node("b", BatchNorm(), ("a",)),
                Node("r", Relu(), ("b",)),
            ),
            *(Node("c", Conv2d(4, 3, padding=1), ("r",), shares="a"), Node("d", BatchNorm(), ("c",), shares="b")),
            *(Node("s", Add(), ("d", "r")), Node("t", Relu(), ("s",)), Node("p", MaxPool2d(2), ("t",))),
            *(Node("e", Conv2d(4, 3, padding=1), ("p",), shares="a"), Node("q", Relu(), ("e",))),
            Node("f", Conv2d(4, 3, padding=1), ("q",), shares="a"),
        ],
    ),
    "outputs in the middle": Graph(
        (2, 9, 8),
        [
            *(Node("a", Conv2d(4, 3), ("input",)), Node("r", Relu(), ("a",)), Node("p", MaxPool2d(2), ("r",))),
            *(Node("b", Conv2d(4, 3, padding=1), ("p",)), Node("s", Add(), ("b", "p")), Node("t", Relu(), ("s",))),
            *(Node("c", Conv2d(4, 3, padding=1), ("t",)), Node("u", Add(), ("c", "t")), Node("v", Relu(), ("u",))),
            *(Node("g", GlobalAvgPool2d(), ("v",)), Node("end", Dense(3), ("g",))),
        ],
        ["a", "r", "s", "t", "c"],
    ),
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
    dys = [rng.normal(size=(*graph.shapes[name], 4)).astype(dtype) for name in graph.outputs]
    results = []
    for fused in (False, True):
        ctx = Context(training=training, seed=1, step=2, fused=fused, arrays=Workspace())
        ys, tape = graph.forward(params, x, ctx)
        ys = [y.copy() for y in ys]
        dx, grads = graph.backward(params, tape, dys, ctx)
        results.append({"ys": ys, "dx": dx, "state": graph.next_state(params, tape), "grads": grads})
    np.testing.assert_equal(*results)


def test_relus_of_a_plain_network_are_fused():
    fusion = GRAPHS["lenet5"].fusion
    assert len(fusion.forward) == 4
    assert len(fusion.backward) == 4


def test_a_subclass_with_other_passes_gives_its_own_results():
    graph = chain(Conv2d(3, 3), OwnRelu(), MaxPool2d(2))
    x = np.random.default_rng(0).normal(size=(*graph.shapes["input"], 4))
    params = graph.init_params(0)
    outputs = [graph.forward(params, x, Context(fused=fused))[0][0] for fused in (False, True)]
    np.testing.assert_array_equal(*outputs)
    assert outputs[0].min() < 0


def test_a_layer_of_somebodys_own_may_take_part():
    nodes = [
        *(Node("a", FusedScale(), ("input",)), Node("r", Relu(), ("a",))),
        *(Node("b", FusedScale(), ("r",)), Node("t", Tanh(), ("b",))),
    ]
    fusion = Graph((2, 9, 8), nodes).fusion
    assert (fusion.forward, fusion.backward) == ({"a": "r"}, {"b": "r"})


@pytest.mark.parametrize(
    "nodes",
    [
        [Node("r", OwnRelu(), ("input",)), Node("p", MaxPool2d(1), ("r",)), Node("d", Conv2d(2, 3), ("p",))],
        [Node("a", Conv2d(2, 3), ("input",)), Node("r", OwnRelu(), ("a",)), Node("t", Tanh(), ("r",))],
        [Node("a", OwnConv(2, 3), ("input",)), Node("r", Relu(), ("a",)), Node("t", Tanh(), ("r",))],
        [Node("a", Conv2d(2, 3), ("input",)), Node("r", Relu(), ("a",)), Node("s", Add(), ("a", "r"))],
        [Node("a", Tanh(), ("input",)), Node("r", OwnRelu(), ("a",)), Node("s", Add(), ("a", "r"))],
        [Node("a", Tanh(), ("input",)), Node("r", Relu(), ("a",)), Node("t", Tanh(), ("r",))],
    ],
    ids=["a subclass of relu", "before a subclass of relu", "a subclass", "two readers", "two others", "another layer"],
)
def test_what_others_may_see_is_left_alone(nodes):
    fusion = Graph((2, 9, 8), nodes).fusion
    assert (fusion.forward, fusion.backward, fusion.sums) == ({}, {}, {})


def test_a_relu_with_two_readers_stops_its_gradients_itself():
    nodes = [
        Node("r", Relu(), ("input",)),
        Node("p", MaxPool2d(1), ("r",)),
        Node("s", Add(), ("p", "r")),
    ]
    assert not Graph((2, 9, 8), nodes).fusion.backward
    assert Graph((2, 9, 8), nodes[:2]).fusion.backward == {"p": "r"}


def test_a_residual_block_leaves_its_sum_and_its_relus_to_its_neighbors():
    fusion = GRAPHS["residual with projections"].fusion
    assert fusion.sums == {"as1": ("a6", "a5"), "bs1": ("b6", "b5")}
    assert fusion.forward == {"stem": "relu", "a2": "a3", "as1": "a7", "b2": "b3", "bs1": "b7"}
    assert fusion.backward == {"a1": "relu", "a4": "a3", "b1": "a7", "b4": "b3", "pool": "b7"}
    assert GRAPHS["residual"].fusion.sums == {"a5": ("a6", "relu"), "b5": ("b6", "a7")}


def test_no_sum_is_left_to_a_neighbor_of_another_shape():
    shapes = {"input": (1, 9, 8), "a": (2, 9, 8), "s": (2, 9, 8)}
    nodes = [Node("a", Conv2d(2, 1), ("input",)), Node("s", Add(), ("a", "input")), Node("r", Relu(), ("s",))]
    assert not Fusion(nodes, ["r"], shapes).sums
    assert Fusion(nodes, ["r"], shapes | {"input": (2, 9, 8)}).sums == {"a": ("s", "input")}
