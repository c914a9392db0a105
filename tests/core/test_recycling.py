"""Gradients lie in a few buffers that are used again, and never while somebody has yet to read them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cnnbp_cli.core.graph import Graph, Node
from cnnbp_cli.core.layers import Add, BatchNorm, Conv2d, Dense, Flatten, GlobalAvgPool2d, Relu, Tanh
from cnnbp_cli.core.recycling import RecycledArrays
from cnnbp_cli.core.types import Context, FreshArrays, Layer, Workspace

CONV = Conv2d(4, 3, padding="same")


@dataclass(frozen=True, slots=True)
class Template(Layer):
    """Adds one learned image to every sample; its gradient, of one sample, is a view of what came in."""

    type: str = "template"

    def init_params(self, rng, in_shape):
        return {"weight": rng.normal(size=in_shape)}

    def forward(self, params, x, ctx):
        return x + params["weight"][..., None], None

    def backward(self, params, residuals, dy, ctx):
        return dy, {"weight": dy[..., 0]}


@dataclass(frozen=True, slots=True)
class Total(Layer):
    """Adds all channels up; its gradient is the one that came in, broadcast."""

    type: str = "total"

    def out_shape(self, in_shape):
        return (1, *in_shape[1:])

    def forward(self, params, x, ctx):
        return x.sum(0, keepdims=True), x.shape

    def backward(self, params, residuals, dy, ctx):
        return np.broadcast_to(dy, residuals), {}


def chain(*layers):
    names = ["input", *(f"{layer.type}{k}" for k, layer in enumerate(layers))]
    return [Node(name, layer, (before,)) for before, name, layer in zip(names, names[1:], layers, strict=False)]


def backward(graph, arrays, *, fused, images=1):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 6, 6, images))
    ctx = Context(training=True, arrays=arrays, fused=fused)
    params = graph.init_params(0)
    ys, tape = graph.forward(params, x, ctx)
    return graph.backward(params, tape, [rng.normal(size=y.shape) for y in ys], ctx)


def same(graph, images=1):
    """Compare with arrays of which none is used twice."""
    expected, expected_grads = backward(graph, FreshArrays(), fused=False, images=images)
    for fused in (False, True):
        dx, grads = backward(graph, Workspace(), fused=fused, images=images)
        np.testing.assert_array_equal(dx, expected)
        for name, own in expected_grads.items():
            for key, value in own.items():
                np.testing.assert_array_equal(grads[name][key], value, err_msg=f"{name}.{key}")


def test_gradients_of_many_layers_lie_in_two_or_three_buffers():
    arrays = Workspace()
    backward(Graph((4, 6, 6), chain(*[CONV, Tanh(), Relu()] * 6)), arrays, fused=False)
    assert 1 < sum(role.startswith("gradient") for _, role in arrays._buffers) <= 3
    assert not any(role == "dx" for _, role in arrays._buffers)


def test_a_gradient_that_waits_for_a_branch_is_not_overwritten():
    """The skipped gradient is read after those of three layers have come and gone."""
    nodes = [
        *[Node("a", CONV, ("input",)), Node("b", Relu(), ("a",)), Node("c", CONV, ("b",)), Node("d", CONV, ("c",))],
        *[Node("e", CONV, ("d",)), Node("sum", Add(), ("a", "e", "b")), Node("f", CONV, ("sum",))],
    ]
    same(Graph((4, 6, 6), nodes), images=3)


def test_a_gradient_at_an_output_in_the_middle_is_not_overwritten():
    nodes = chain(CONV, Relu(), CONV, CONV, Relu(), CONV, CONV)
    same(Graph((4, 6, 6), nodes, [nodes[0].name, nodes[1].name, nodes[3].name]), images=3)


def test_batch_norm_writes_over_the_gradient_at_its_output_where_nobody_else_reads_it():
    arrays = Workspace()
    backward(Graph((4, 6, 6), chain(CONV, BatchNorm(), BatchNorm(), BatchNorm(), CONV)), arrays, fused=True)
    assert sum(role.startswith("gradient") for _, role in arrays._buffers) == 2  # the convolution's, and the image's
    same(Graph((4, 6, 6), chain(CONV, BatchNorm(), Relu(), CONV, BatchNorm(), BatchNorm(), Relu(), CONV)), images=3)
    same(Graph((4, 6, 6), chain(CONV, BatchNorm(), Flatten(), BatchNorm(), Dense(5))), images=3)


def test_batch_norm_does_not_write_over_a_gradient_that_another_branch_reads():
    nodes = [
        *[Node("a", CONV, ("input",)), Node("b", BatchNorm(), ("a",)), Node("c", CONV, ("b",))],
        *[Node("d", BatchNorm(), ("c",)), Node("e", BatchNorm(), ("a",)), Node("sum", Add(), ("d", "e", "b"))],
        *[Node("f", BatchNorm(), ("sum",)), Node("g", CONV, ("f",)), Node("h", Add(), ("g", "f"))],
    ]
    same(Graph((4, 6, 6), nodes), images=3)
    same(Graph((4, 6, 6), nodes, ["b", "d", "h"]), images=3)


def test_what_a_layer_has_broadcast_is_not_written_over():
    """It cannot be, even where each number of it is one value."""
    same(Graph((4, 6, 6), chain(CONV, BatchNorm(), Total(), CONV)), images=3)
    same(Graph((4, 6, 6), chain(CONV, Flatten(), Dense(5), BatchNorm(), Total(), Dense(3))), images=3)
    same(Graph((4, 6, 6), chain(Conv2d(1, 3), BatchNorm(), Total(), CONV)), images=3)


def test_a_layer_may_hand_on_a_view():
    same(Graph((4, 6, 6), chain(CONV, Flatten(), Dense(5), Dense(4))), images=3)
    same(Graph((4, 6, 6), chain(CONV, GlobalAvgPool2d(), Dense(5))), images=3)


def test_a_gradient_to_a_parameter_may_be_a_view():
    same(Graph((4, 6, 6), chain(CONV, CONV, CONV, CONV, Template(), CONV)))


def test_only_what_nobody_needs_is_used_again():
    arrays = RecycledArrays(Workspace())
    first, second = (arrays.empty(("node", "dx"), (8,), np.float64) for _ in range(2))
    assert not np.may_share_memory(first, second)
    arrays.keep([second[2:4]])
    third = arrays.empty(("node", "dx"), (4,), np.float64)
    assert np.may_share_memory(first, third)
    assert not np.may_share_memory(second, third)
