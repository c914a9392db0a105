"""The graph: its order, its traps where branches part and meet, and its gradients as a whole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cnnbp_cli.core.graph import Graph, Node, NodeShapeError
from cnnbp_cli.core.layers import (
    Add,
    BatchNorm,
    Concat,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    Identity,
    MaxPool2d,
    Multiply,
    PRelu,
    Relu,
    Sigmoid,
    Tanh,
)
from cnnbp_cli.core.types import Context, FreshArrays, Workspace

STEP = 1e-30
TRAINING = Context(training=True, seed=1, step=2)
IMAGE = (2, 5, 4)


def graph(*nodes, shape=IMAGE, auxiliary=()):
    """Build a graph from (name, layer, *inputs); without inputs a node reads the one before it.

    A name in place of a layer shares the layer of that name.
    """
    before, made = "input", []
    layers = {name: layer for name, layer, *_ in nodes}
    for name, layer, *inputs in nodes:
        shares = layer if isinstance(layer, str) else ""
        made.append(Node(name, layers.get(shares, layer), tuple(inputs) or (before,), shares=shares))
        before = name
    return Graph(shape, made, auxiliary)


def numbers(net, n=3, seed=0):
    """Draw random parameters (not the initial ones), images, and a gradient at each output."""
    rng = np.random.default_rng(seed)
    params = {
        name: {key: rng.uniform(0.5, 1.5, value.shape) for key, value in own.items()}
        for name, own in net.init_params(0).items()
    }
    x = rng.normal(size=(*net.shapes["input"], n))
    return params, x, [rng.normal(size=(*net.shapes[name], n)) for name in net.outputs]


def gradients(net, params, x, dys, ctx=TRAINING, watch=None):
    _, tape = net.forward(params, x, ctx)
    return net.backward(params, tape, dys, ctx, watch)


def assert_proven(net, ctx=TRAINING):
    """Compare the gradients to the image and to every parameter with the complex step through the whole graph."""
    params, x, dys = numbers(net)
    dx, grads = gradients(net, params, x, dys, ctx)
    rng = np.random.default_rng(7)

    def check(gradient, changed_params, changed_x, v):
        ys, _ = net.forward(changed_params, changed_x, ctx)
        terms = np.concatenate([(dy * y.imag / STEP).ravel() for dy, y in zip(dys, ys, strict=True)])
        scale = max(np.abs(terms).sum(), np.abs(gradient * v).sum())
        # a bias before batch norm has gradient zero, and rounding noise for numbers of order one
        assert abs((gradient * v).sum() - terms.sum()) <= 1e-12 * scale + 1e-14

    v = rng.normal(size=x.shape)
    check(dx, params, x + 1j * STEP * v, v)
    for node, own in grads.items():
        for key, gradient in own.items():
            v = rng.normal(size=gradient.shape)
            changed = params | {node: params[node] | {key: params[node][key] + 1j * STEP * v}}
            check(gradient, changed, x, v)
    expected = {node: set(shapes) for node, shapes in net.trainable.items()}
    assert {node: set(own) for node, own in grads.items()} == expected


TOPOLOGIES = {
    "chain": graph(
        ("conv", Conv2d(3, 3)), ("norm", BatchNorm()), ("relu", Relu()), ("pool", MaxPool2d(2)),
        ("flat", Flatten()), ("dense", Dense(4)),
    ),
    "residual": graph(
        ("stem", Conv2d(3, 1)), ("a", Conv2d(3, 3, padding="same")), ("b", Tanh()), ("sum", Add(), "b", "stem"),
        ("pool", GlobalAvgPool2d()), ("dense", Dense(2)),
    ),
    "concat": graph(
        ("one", Conv2d(2, 1)), ("three", Conv2d(3, 3, padding="same"), "input"),
        ("both", Concat(), "one", "three", "input"), ("out", Conv2d(2, 2)),
    ),
    "multiply": graph(
        ("value", Conv2d(2, 3, padding="same"), "input"), ("gate", Conv2d(2, 1), "input"), ("open", Sigmoid()),
        ("gated", Multiply(), "value", "open", "input"), ("flat", Flatten()), ("dense", Dense(3)),
    ),
    "add returns one array to two parents": graph(
        ("a", Conv2d(2, 1), "input"), ("b", Conv2d(2, 1), "input"), ("sum", Add(), "a", "b"),
        ("other", Tanh(), "a"), ("end", Multiply(), "sum", "other", "a"),
    ),
    "three readers": graph(
        ("a", Conv2d(2, 1)), ("b", Tanh(), "a"), ("c", Sigmoid(), "a"), ("d", Conv2d(2, 1), "a"),
        ("end", Add(), "b", "c", "d"),
    ),
    "one node twice in a sum": graph(("a", Conv2d(2, 3)), ("end", Add(), "a", "a")),
    "one node twice in a product": graph(("a", Conv2d(2, 3)), ("end", Multiply(), "a", "a", "a")),
    "one node twice side by side": graph(("a", Conv2d(2, 3)), ("end", Concat(), "a", "a")),
    "sums of sums": graph(
        ("a", Conv2d(2, 1)), ("s", Add(), "a", "input"), ("t", Add(), "s", "a"), ("u", Add(), "t", "s", "input"),
        ("end", Identity()),
    ),
    "one layer three times": graph(
        ("stem", Conv2d(3, 1)), ("conv", Conv2d(3, 3, padding="same")), ("norm", BatchNorm()), ("relu", Relu()),
        ("again", "conv"), ("normed", "norm"), ("bent", Relu()), ("third", "conv"), ("sum", Add(), "third", "relu"),
        ("flat", Flatten()), ("dense", Dense(4)), ("bend", Tanh()), ("more", Dense(4)), ("last", "more"),
    ),
    "two branches of the same layers": graph(
        ("left", Conv2d(2, 3), "input"), ("slope", PRelu(), "left"), ("flip", Tanh(), "input"),
        ("right", "left", "flip"), ("bent", "slope", "right"), ("both", Concat(), "slope", "bent"),
    ),
    "a use that is computed before its owner": graph(
        ("first", "owner", "input"), ("bend", Tanh()), ("owner", Conv2d(2, 3, padding="same")), ("last", "owner"),
    ),
    "the image alone": graph(("end", Multiply(), "input", "input")),
    "two outputs": graph(
        ("stem", Conv2d(3, 3)), ("relu", Relu()), ("flat", Flatten()), ("aux", Dense(4)),
        ("conv", Conv2d(2, 2), "relu"), ("end", Tanh()), auxiliary=["aux"],
    ),
    "outputs that others read": graph(
        ("a", Conv2d(2, 1)), ("b", Relu()), ("c", Conv2d(2, 1)), ("sum", Add(), "c", "a"), ("d", Relu()),
        ("end", Multiply(), "d", "b", "c"), auxiliary=["b", "sum", "a"],
    ),
    "an output behind the output": graph(
        ("late", Conv2d(2, 1), "end"), ("end", Conv2d(2, 3), "input"), auxiliary=["late"],
    ),
}  # fmt: skip
every_topology = pytest.mark.parametrize("net", TOPOLOGIES.values(), ids=TOPOLOGIES.keys())


@every_topology
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_gradients_are_the_derivative_of_the_whole_graph(net, training):
    assert_proven(net, replace(TRAINING, training=training))


def test_add_returns_one_array_to_two_parents_and_neither_corrupts_the_other():
    net = graph(
        ("a", Identity(), "input"), ("b", Identity(), "input"), ("sum", Add(), "a", "b"), ("end", Add(), "sum", "a")
    )
    x, dy = np.ones((*IMAGE, 1)), np.full((*IMAGE, 1), 1.0)
    seen = {}
    dx, _ = gradients(net, net.init_params(0), x, [dy], watch=lambda name, flow: seen.setdefault(name, flow.copy()))
    assert {name: flow[0, 0, 0, 0] for name, flow in seen.items()} == {"end": 1, "sum": 1, "b": 1, "a": 2, "input": 3}
    np.testing.assert_array_equal(dx, np.full(dx.shape, 3.0))
    np.testing.assert_array_equal(dy, np.full(dy.shape, 1.0))


def test_one_layer_object_at_two_nodes_has_parameters_and_residuals_of_its_own_at_each():
    shared = Conv2d(2, 3, padding="same")
    net = graph(("first", shared), ("relu", Tanh()), ("second", shared), ("end", Add(), "second", "first"))
    assert_proven(net)
    params = net.init_params(0)
    assert not np.array_equal(params["first"]["weight"], params["second"]["weight"])


def test_dropout_at_two_nodes_draws_two_masks():
    layer = Dropout(0.5)
    net = graph(("a", layer, "input"), ("b", layer, "input"), ("end", Concat(), "a", "b"))
    (y,), _ = net.forward(net.init_params(0), np.ones((*IMAGE, 50)), TRAINING)
    assert 0.4 < (y[:2] == y[2:]).mean() < 0.6


# ---------------------------------------------------------------- order


def test_nodes_may_be_listed_before_what_they_read():
    net = graph(
        ("sum", Add(), "left", "right"),
        ("right", Tanh(), "stem"),
        ("left", Conv2d(2, 1), "stem"),
        ("stem", Conv2d(2, 3), "input"),
        ("end", Relu(), "sum"),
    )
    order = [node.name for node in net.nodes]
    assert sorted(order) == ["end", "left", "right", "stem", "sum"]
    assert order[0] == "stem"
    assert order[-2:] == ["sum", "end"]
    assert net.output == "end"
    assert_proven(net)


def test_nodes_in_a_good_order_stay_where_they_are():
    names = ["z", "a", "m", "b"]
    net = graph(*((name, Identity()) for name in names))
    assert [node.name for node in net.nodes] == names


def test_the_output_may_be_read_by_nodes_that_lead_nowhere():
    net = graph(("late", Conv2d(2, 1), "end"), ("end", Conv2d(2, 3), "input"))
    assert net.output == "end"
    params, x, dys = numbers(net)
    _, grads = gradients(net, params, x, dys)
    assert np.abs(grads["end"]["weight"]).min() > 0
    assert not grads["late"]["weight"].any()
    assert_proven(net)
    np.testing.assert_array_equal(net.apply(params, x, TRAINING), net.forward(params, x, TRAINING)[0][0])


def test_a_node_that_nothing_reads_has_zero_gradients():
    net = graph(("used", Conv2d(2, 1), "input"), ("unused", Conv2d(3, 3), "used"), ("end", Tanh(), "used"))
    params, x, dys = numbers(net)
    dx, grads = gradients(net, params, x, dys)
    assert {key: value.shape for key, value in grads["unused"].items()} == {"weight": (3, 2, 3, 3), "bias": (3,)}
    assert not any(value.any() for value in grads["unused"].values())
    assert dx is not None
    assert_proven(net)


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (
            [("a", Identity(), "c"), ("b", Identity(), "a"), ("c", Identity(), "b")],
            "layers feed each other in a cycle: ",
        ),
        ([("a", Identity(), "a")], "layers feed each other in a cycle: a → a"),
        ([("a", Identity(), "b")], "layer a reads 'b', which does not exist"),
        (
            [("a", Identity(), "input"), ("a", Identity(), "input")],
            "every layer needs a unique name other than 'input'",
        ),
        ([("input", Identity(), "input")], "every layer needs a unique name other than 'input'"),
    ],
    ids=["cycle", "itself", "unknown", "twice", "input"],
)
def test_graphs_that_are_none_are_refused(nodes, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011, the whole message is compared below
        graph(*nodes)
    if message.endswith(": "):  # the cycle may be told from any of its nodes
        text, _, cycle = str(error.value).partition(": ")
        assert text + ": " == message
        assert cycle in ("a → b → c → a", "b → c → a → b", "c → a → b → c")
    else:
        assert str(error.value) == message


def test_a_layer_that_cannot_take_its_input_is_named_with_all_shapes_before_it():
    with pytest.raises(NodeShapeError) as error:
        graph(("conv", Conv2d(3, 3)), ("pool", MaxPool2d(2)), ("dense", Dense(10)))
    message = "needs a vector, got an image of 3×1×1: put flatten, global_avg_pool2d or global_max_pool2d before it"
    assert str(error.value) == f"layer dense: {message}"
    assert error.value.node == "dense"
    assert error.value.message == message
    assert error.value.trace == [("input", IMAGE), ("conv", (3, 3, 2)), ("pool", (3, 1, 1))]


def test_a_merge_that_cannot_take_its_inputs_is_named():
    with pytest.raises(NodeShapeError) as error:
        graph(("conv", Conv2d(3, 3)), ("sum", Add(), "conv", "input"))
    expected = "layer sum: needs inputs of one shape, or with sizes of 1 in their place, got 3×3×2 and 2×5×4"
    assert str(error.value) == expected
    with pytest.raises(NodeShapeError) as error:
        graph(("conv", Conv2d(3, 3)), ("stack", Concat(), "conv", "input"))
    assert str(error.value) == "layer stack: needs inputs that differ in channels only, got 3×3×2 and 2×5×4"


# ---------------------------------------------------------------- the walk


@every_topology
def test_apply_equals_forward(net):
    params, x, _ = numbers(net)
    for training in (True, False):
        ctx = replace(TRAINING, training=training)
        np.testing.assert_array_equal(net.apply(params, x, ctx), net.forward(params, x, ctx)[0][0])


@every_topology
def test_shapes_are_those_of_the_outputs(net):
    params, x, _ = numbers(net)
    seen = {}
    net.forward(params, x, TRAINING, lambda name, y: seen.update({name: y.shape}))
    assert seen == {name: (*shape, 3) for name, shape in net.shapes.items() if name != "input"}


@every_topology
def test_forward_and_backward_are_watched_in_opposite_orders(net):
    params, x, dys = numbers(net)
    names = [node.name for node in net.nodes]
    outputs, flows = {}, {}
    ys, tape = net.forward(params, x, TRAINING, outputs.__setitem__)
    dx, _ = net.backward(params, tape, dys, TRAINING, flows.__setitem__)
    assert list(outputs) == names
    assert list(flows) == [*reversed(names), "input"]
    for name, y, dy in zip(net.outputs, ys, dys, strict=True):
        assert outputs[name] is y
        if not any(name in node.inputs for node in net.nodes):
            np.testing.assert_array_equal(flows[name], dy)
    assert flows["input"] is dx
    for name in names:
        assert flows[name].shape == outputs[name].shape


@pytest.mark.parametrize("name", ["residual", "two outputs", "outputs that others read"])
def test_what_is_watched_backward_is_the_gradient_at_each_output(name):
    net = TOPOLOGIES[name]
    params, x, dys = numbers(net)
    flows, values = {}, {"input": x}
    _, tape = net.forward(params, x, TRAINING, values.__setitem__)
    net.backward(params, tape, dys, TRAINING, flows.__setitem__)
    for name, flow in flows.items():
        v = np.random.default_rng(3).normal(size=flow.shape)
        changed = {name: values[name] + 1j * STEP * v}
        for node in net.nodes:
            if node.name != name and any(before in changed for before in node.inputs):
                xs = [changed.get(before, values[before]) for before in node.inputs]
                changed[node.name], _ = node.forward(params.get(node.name, {}), xs, TRAINING)
        moved = (np.imag(changed.get(output, 0.0)) for output in net.outputs)
        numeric = sum((dy * change).sum() for dy, change in zip(dys, moved, strict=True)) / STEP
        np.testing.assert_allclose((flow * v).sum(), numeric, rtol=1e-10)


@every_topology
def test_gradients_to_parameters_do_not_need_the_image_s(net):
    params, x, dys = numbers(net)
    _, expected = gradients(net, params, x, dys)
    seen = []
    dx, grads = gradients(
        net, params, x, dys, replace(TRAINING, wants_dx=False), watch=lambda name, flow: seen.append(name)
    )
    assert dx is None
    assert "input" not in seen
    for node, own in expected.items():
        assert grads[node].keys() == own.keys()
        for key, gradient in own.items():
            np.testing.assert_allclose(grads[node][key], gradient, rtol=1e-12, atol=1e-13)


@every_topology
def test_a_workspace_changes_nothing(net):
    workspace = Workspace()
    for n, seed in ((3, 0), (1, 1), (4, 2)):
        params, x, dys = numbers(net, n, seed)
        results = []
        for arrays in (workspace, FreshArrays()):
            ctx = replace(TRAINING, arrays=arrays)
            ys, tape = net.forward(params, x, ctx)
            dx, grads = net.backward(params, tape, dys, ctx)
            own = [grads[node][key].copy() for node in grads for key in grads[node]]
            results.append([*(y.copy() for y in ys), dx.copy(), *own])
        for reused, fresh in zip(*results, strict=True):
            np.testing.assert_array_equal(reused, fresh)


def test_nothing_that_goes_in_is_modified():
    for net in TOPOLOGIES.values():
        params, x, dys = numbers(net)
        for array in (x, *dys, *(value for own in params.values() for value in own.values())):
            array.flags.writeable = False
        first, second = gradients(net, params, x, dys), gradients(net, params, x, dys)
        np.testing.assert_array_equal(first[0], second[0])


# ---------------------------------------------------------------- parameters and state


def test_initial_parameters_depend_on_seed_and_name_alone():
    small = graph(("conv", Conv2d(3, 3)), ("flat", Flatten()), ("dense", Dense(2)))
    large = graph(("first", Conv2d(2, 1)), ("conv", Conv2d(3, 3)), ("flat", Flatten()), ("dense", Dense(2)))
    for node in ("conv", "dense"):
        np.testing.assert_array_equal(small.init_params(5)[node]["weight"], large.init_params(5)[node]["weight"])
        assert not np.array_equal(small.init_params(5)[node]["weight"], small.init_params(6)[node]["weight"])
    assert list(small.init_params(0)) == ["conv", "flat", "dense"]
    assert small.init_params(0)["flat"] == {}
    assert small.init_params(0, np.float32)["conv"]["weight"].dtype == np.float32


def test_running_statistics_come_back_instead_of_changing():
    net = graph(("conv", Conv2d(3, 1)), ("norm", BatchNorm(momentum=0.75)), ("relu", Relu()))
    params = net.init_params(0)
    x = np.random.default_rng(0).normal(2, 3, size=(*IMAGE, 6))
    outputs = {}
    _, tape = net.forward(params, x, TRAINING, outputs.__setitem__)
    state = net.next_state(params, tape)
    assert set(state) == {"norm"}
    conv = outputs["conv"].reshape(3, -1)
    np.testing.assert_allclose(state["norm"]["running_mean"], 0.25 * conv.mean(1), rtol=1e-12)
    np.testing.assert_allclose(state["norm"]["running_var"], 0.75 + 0.25 * conv.var(1, ddof=1), rtol=1e-12)
    np.testing.assert_array_equal(params["norm"]["running_mean"], np.zeros(3))
    _, tape = net.forward(params, x, replace(TRAINING, training=False))
    assert net.next_state(params, tape) == {"norm": {}}


def test_state_is_not_trainable():
    layers = (
        ("norm", BatchNorm()),
        ("bare", BatchNorm(affine=False)),
        ("flat", Flatten()),
        ("dense", Dense(2, bias=False)),
    )
    net = graph(*layers, shape=(3, 1, 1))
    assert net.trainable == {
        "norm": {"weight": (3,), "bias": (3,)},
        "bare": {},
        "flat": {},
        "dense": {"weight": (2, 3)},
    }
    assert set(net.param_shapes["bare"]) == {"running_mean", "running_var"}
