"""The parameter vector: every trainable array is a view of it, and nothing else is in it."""

from __future__ import annotations

import numpy as np

from cnnbp_cli.core.graph import Graph, Node
from cnnbp_cli.core.layers import BatchNorm, Conv2d, Dense, Flatten, Relu
from cnnbp_cli.core.parameters import Layout, ParameterSlice
from cnnbp_cli.core.types import Context, Workspace

LAYERS = {
    "conv": Conv2d(3, 2),
    "norm": BatchNorm(),
    "relu": Relu(),
    "flat": Flatten(),
    "hidden": Dense(4, bias=False),
    "dense": Dense(2),
}


def make_graph() -> Graph:
    before, nodes = "input", []
    for name, layer in LAYERS.items():
        nodes.append(Node(name, layer, (before,)))
        before = name
    return Graph((1, 3, 3), nodes)


GRAPH = make_graph()
LAYOUT = Layout(GRAPH)


def test_entries_lie_one_after_the_other_in_layer_order():
    assert [(entry.name, entry.shape, entry.start, entry.stop) for entry in LAYOUT.entries] == [
        ("conv.weight", (3, 1, 2, 2), 0, 12),
        ("conv.bias", (3,), 12, 15),
        ("norm.weight", (3,), 15, 18),
        ("norm.bias", (3,), 18, 21),
        ("hidden.weight", (4, 12), 21, 69),
        ("dense.weight", (2, 4), 69, 77),
        ("dense.bias", (2,), 77, 79),
    ]
    assert LAYOUT.size == 79
    assert LAYOUT.entries[0] == ParameterSlice("conv", "weight", (3, 1, 2, 2), 0, 12)


def test_views_share_the_vectors_memory():
    vector = np.arange(79.0)
    views = LAYOUT.views(vector)
    assert list(views) == list(LAYERS)
    assert views["relu"] == {}
    assert list(views["norm"]) == ["weight", "bias"]
    np.testing.assert_array_equal(views["conv"]["weight"].ravel(), np.arange(12.0))
    views["dense"]["bias"][1] = -1
    assert vector[78] == -1
    vector[15] = 7
    assert views["norm"]["weight"][0] == 7


def test_a_vector_holds_the_parameters_and_gives_them_back():
    params = GRAPH.init_params(0)
    vector = LAYOUT.vector(params, np.dtype(np.float64))
    assert vector.shape == (79,)
    for node, views in LAYOUT.views(vector).items():
        for key, value in views.items():
            np.testing.assert_array_equal(value, params[node][key])
            assert not np.shares_memory(value, params[node][key])
    assert LAYOUT.vector(params, np.dtype(np.float32)).dtype == np.float32


def test_gather_takes_any_layout_and_leaves_what_is_in_place():
    params = GRAPH.init_params(0)
    expected = LAYOUT.vector(params, np.dtype(np.float64))
    turned = {node: {key: np.asfortranarray(value) for key, value in own.items()} for node, own in params.items()}
    out = np.full(79, np.nan)
    assert LAYOUT.gather(turned, out) is out
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(LAYOUT.gather(LAYOUT.views(out), out), expected)
    half_in_place = LAYOUT.views(out) | {"dense": {"weight": np.ones((2, 4)), "bias": np.zeros(2)}}
    np.testing.assert_array_equal(LAYOUT.gather(half_in_place, out)[69:], [1] * 8 + [0] * 2)


def test_buffers_can_lie_in_the_gradient_vector():
    gradient, workspace = np.full(79, np.nan), Workspace()
    for entry in LAYOUT.entries:
        workspace.place((entry.node, entry.key), gradient[entry.start : entry.stop])
    params = GRAPH.init_params(0)
    rng = np.random.default_rng(0)
    x, dy = rng.normal(size=(1, 3, 3, 5)), rng.normal(size=(2, 5))
    results = []
    for ctx in (Context(training=True, arrays=workspace), Context(training=True)):
        _, tape = GRAPH.forward(params, x, ctx)
        _, grads = GRAPH.backward(params, tape, [dy], ctx)
        results.append(LAYOUT.gather(grads, gradient if ctx.arrays is workspace else np.empty(79)))
    np.testing.assert_array_equal(*results)
