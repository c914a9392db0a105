"""One layer at several nodes: its parameters exist once, and dw is the sum of what each use adds."""

from __future__ import annotations

import numpy as np
import pytest

from cnnbp_cli.core.graph import Graph, Node, NodeShapeError
from cnnbp_cli.core.layers import Add, BatchNorm, Conv2d, Dense, Flatten, Relu, Tanh
from cnnbp_cli.core.parameters import Layout
from cnnbp_cli.core.types import Context, Workspace

IMAGE = (2, 5, 4)
CONV = Conv2d(2, 3, padding="same")
STEM = [Node("stem", CONV, ("input",))]
TIED = [
    *STEM,
    Node("conv", CONV, ("stem",)),
    Node("relu", Relu(), ("conv",)),
    Node("again", CONV, ("relu",), shares="conv"),
    Node("sum", Add(), ("again", "stem")),
    Node("third", CONV, ("sum",), shares="conv"),
]
EARLY = [
    Node("early", CONV, ("input",), shares="conv"),
    Node("middle", Conv2d(2, 1), ("early",)),
    Node("conv", CONV, ("middle",)),
    Node("late", CONV, ("conv",), shares="conv"),
]
"""The owner is neither the first nor the last use."""


def batch(graph, dtype=np.float64):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(*graph.shapes["input"], 3)).astype(dtype)
    return x, rng.normal(size=(*graph.shapes[graph.output], 3)).astype(dtype)


def run(graph, params, ctx, **options):
    x, dy = batch(graph, next(iter(params["conv"].values())).dtype)
    (y,), tape = graph.forward(params, x, ctx)
    dx, grads = graph.backward(params, tape, [dy], ctx, **options)
    return y, dx, grads


@pytest.mark.parametrize("nodes", [TIED, EARLY])
@pytest.mark.parametrize("fused", [False, True])
def test_a_shared_gradient_is_the_sum_of_those_of_separate_layers_with_equal_weights(nodes, fused):
    tied = Graph(IMAGE, nodes)
    separate = Graph(IMAGE, [Node(node.name, node.layer, node.inputs) for node in nodes])
    params = tied.init_params(5)
    y, dx, grads = run(tied, params, Context(training=True, fused=fused, arrays=Workspace()))
    copies = {node.name: params[node.owner] for node in nodes}
    y_apart, dx_apart, apart = run(separate, copies, Context(training=True))
    np.testing.assert_array_equal(y, y_apart)
    np.testing.assert_array_equal(dx, dx_apart)
    uses = [node.name for node in nodes if node.owner == "conv"]
    assert len(uses) == 3
    for key in ("weight", "bias"):
        last, middle, first = (apart[name][key] for name in reversed(uses))
        np.testing.assert_array_equal(grads["conv"][key], last + middle + first)
        assert not any(grads[name] for name in uses if name != "conv")


@pytest.mark.parametrize("nodes", [TIED, EARLY])
def test_parameters_are_drawn_once_and_lie_once_in_the_vector(nodes):
    graph = Graph(IMAGE, nodes)
    alone = Graph((2, 5, 4), [Node("conv", CONV, ("input",))])
    np.testing.assert_array_equal(graph.init_params(1)["conv"]["weight"], alone.init_params(1)["conv"]["weight"])
    assert [entry.name for entry in Layout(graph).entries].count("conv.weight") == 1
    assert [node.name for node in graph.uses["conv"]] == [node.name for node in nodes if node.owner == "conv"]


@pytest.mark.parametrize("nodes", [TIED, EARLY])
def test_gradients_are_complete_from_the_end_of_the_vector_to_its_beginning(nodes):
    """What MPI sends while the backward pass still runs has to be what stays."""
    graph = Graph(IMAGE, nodes)
    params, layout = graph.init_params(2), Layout(graph)
    _, _, expected = run(graph, params, Context(training=True))
    gradient, workspace = np.full(layout.size, np.nan), Workspace()
    for entry in layout.entries:
        workspace.place((entry.node, entry.key), gradient[entry.start : entry.stop])
    sent = np.full(layout.size, np.nan)
    ends = [layout.size]

    def done(layer, grads):
        start = layout.place(layer, grads, gradient)
        if start is not None:
            sent[start : ends[-1]] = gradient[start : ends[-1]]
            assert start < ends[-1]
            ends.append(start)

    run(graph, params, Context(training=True, arrays=workspace, wants_dx=False), done=done)
    assert ends[-1] == 0
    np.testing.assert_array_equal(sent, layout.vector(expected, np.float64))


def test_the_image_s_gradient_is_computed_where_only_a_share_learns():
    graph = Graph(
        IMAGE,
        [
            Node("one", Tanh(), ("input",)),
            Node("conv", CONV, ("input",)),
            Node("again", CONV, ("one",), shares="conv"),
            Node("end", Add(), ("again", "conv")),
        ],
    )
    assert graph.has_gradient("again")
    assert not graph.has_gradient("one")


@pytest.mark.parametrize("trainable", [True, False])
def test_running_statistics_follow_every_use_in_order(trainable):
    norm = BatchNorm(momentum=0.8)
    graph = Graph(
        IMAGE,
        [
            Node("norm", norm, ("input",), trainable),
            Node("bend", Tanh(), ("norm",)),
            Node("again", norm, ("bend",), trainable, shares="norm"),
        ],
    )
    params, (x, _) = graph.init_params(0), batch(graph)
    _, tape = graph.forward(params, x, Context(training=True))
    state = graph.next_state(params, tape)
    if not trainable:
        assert state == {"norm": {}}
        return
    expected = params["norm"]
    for name in ("norm", "again"):
        expected = expected | norm.next_state(expected, tape.residuals[name])
    assert state.keys() == {"norm"}
    for key, value in state["norm"].items():
        np.testing.assert_array_equal(value, expected[key])
        assert not np.array_equal(value, norm.next_state(params["norm"], tape.residuals["again"])[key])


def test_shapes_that_do_not_fit_are_told_at_both_places():
    nodes = [
        Node("conv", Conv2d(4, 1), ("input",)),
        Node("again", Conv2d(4, 1), ("conv",), shares="conv"),
    ]
    with pytest.raises(NodeShapeError) as caught:
        Graph(IMAGE, nodes)
    assert str(caught.value) == (
        "layer again: shares the parameters of conv, which takes 2×5×4, but takes 4×5×4 itself: "
        "weight would be 4×4×1×1 here and 4×2×1×1 there"
    )
    assert caught.value.trace == [("input", IMAGE), ("conv", (4, 5, 4))]
    flat = [
        Node("a", Flatten(), ("input",)),
        Node("dense", Dense(6), ("a",)),
        Node("again", Dense(6), ("dense",), shares="dense"),
    ]
    with pytest.raises(NodeShapeError, match="which takes 40, but takes 6 itself: weight would be 6×6 here and 6×40"):
        Graph(IMAGE, flat)


def test_parameters_are_frozen_at_all_uses_or_at_none():
    nodes = [*TIED, Node("more", CONV, ("third",), trainable=False, shares=TIED[0].owner)]
    with pytest.raises(ValueError, match=r"layer more shares the parameters of .*, and only one is frozen"):
        Graph(IMAGE, nodes)


def test_a_share_of_a_share_or_of_nothing_is_no_graph():
    for owner in ("again", "nothing"):
        nodes = [*TIED, Node("more", CONV, ("third",), shares=owner)]
        with pytest.raises(ValueError, match=f"layer more shares the parameters of '{owner}', which owns none"):
            Graph(IMAGE, nodes)
