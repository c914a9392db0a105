"""Custom layers as learners write them: right ones pass whatever NumPy makes of complex numbers, wrong ones do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest

from cnnbp_cli.core.graph import Graph
from cnnbp_cli.core.types import Layer
from cnnbp_cli.gradient_check.check import gradcheck

ACTIVATIONS = {
    "maximum": (lambda x: np.maximum(x, 0), lambda x: x > 0),
    "maximum, >= in backward": (lambda x: np.maximum(x, 0), lambda x: x >= 0),
    "maximum, half in backward": (lambda x: np.maximum(x, 0), lambda x: np.heaviside(x, 0.5)),
    "where": (lambda x: np.where(x > 0, x, 0), lambda x: x > 0),
    "where real": (lambda x: np.where(x.real > 0, x, 0), lambda x: x > 0),
    "times a mask": (lambda x: x * (x > 0), lambda x: x > 0),
    "clip": (lambda x: np.clip(x, 0, 1), lambda x: (x > 0) & (x < 1)),
    "abs": (np.abs, np.sign),
    "abs squared": (lambda x: np.abs(x) ** 2, lambda x: 2 * x),
    "real part": (lambda x: x.real + 0 * x.real, lambda x: np.ones(x.shape)),
    "fmax": (lambda x: np.fmax(x, 0), lambda x: x > 0),
    "into float64": (lambda x: np.maximum(np.array(x, float), 0), lambda x: x > 0),
    "tanh": (np.tanh, lambda x: 1 - np.tanh(x) ** 2),
}


@dataclass(frozen=True, slots=True)
class MyActivation(Layer):
    """y = f(x), dx = factor · f′(x) · dy."""

    function: str
    factor: float = 1.0
    type: Literal["my_activation"] = "my_activation"

    def forward(self, params, x, ctx):
        return ACTIVATIONS[self.function][0](x), x

    def backward(self, params, residuals, dy, ctx):
        return self.factor * dy * ACTIVATIONS[self.function][1](residuals), {}


def windows(x):
    c, h, w, n = x.shape
    return x.reshape(c, h // 2, 2, w // 2, 2, n).transpose(0, 1, 3, 5, 2, 4).reshape(c, h // 2, w // 2, n, 4)


POOLS = {
    "max": lambda x: windows(x).max(-1),
    "sorted": lambda x: np.sort(windows(x), -1)[..., -1],
    "python": lambda x: np.apply_along_axis(max, -1, windows(x)),
    "slices": lambda x: np.maximum.reduce([x[:, i::2, j::2] for i in range(2) for j in range(2)]),
}


def shares(x, convention):
    """Return what each pixel gets of its window's gradient."""
    found = windows(x)
    winners = (found == found.max(-1, keepdims=True)).astype(float)
    if convention == "first":
        winners *= np.cumsum(winners, -1) == 1
    elif convention == "last":
        winners *= np.cumsum(winners[..., ::-1], -1)[..., ::-1] == 1
    elif convention == "shared":
        winners /= winners.sum(-1, keepdims=True)
    c, h, w, n = x.shape
    return winners.reshape(c, h // 2, w // 2, n, 2, 2).transpose(0, 1, 4, 2, 5, 3).reshape(x.shape)


@dataclass(frozen=True, slots=True)
class MyPool(Layer):
    """Max pooling of 2×2, with a convention for ties."""

    function: str = "max"
    ties: str = "first"
    factor: float = 1.0
    type: Literal["my_pool"] = "my_pool"

    def out_shape(self, in_shape):
        return in_shape[0], in_shape[1] // 2, in_shape[2] // 2

    def forward(self, params, x, ctx):
        return POOLS[self.function](x), x

    def backward(self, params, residuals, dy, ctx):
        return self.factor * shares(residuals, self.ties) * dy.repeat(2, 1).repeat(2, 2), {}


@pytest.fixture(autouse=True)
def layers(registered):
    registered(MyActivation)
    registered(MyPool)


@pytest.fixture
def check(network):
    """Check a network of a convolution and one layer on two images with a black background.

    With biases of 0, most pixels after the convolution are exactly 0: units on their kink, windows of equal pixels.
    """
    images = np.zeros((2, 1, 8, 8))
    images[:, :, 2:6, 3:7] = np.random.default_rng(0).uniform(-1, 1, size=(2, 1, 4, 4))

    def run(*layers, method="complex", bias=0.0, elements=8):
        conv = {"type": "conv2d", "name": "conv", "filters": 2, "kernel_size": 3, "padding": "same"}
        model = network(conv, *layers, "flatten", {"type": "dense", "units": 2}, image=(1, 8, 8))
        model.set_parameters({"conv.bias": np.full(2, bias)})
        return gradcheck(model, images, np.array([0, 1]), method=method, elements=elements)

    return run


def activation(function, **fields):
    return {"type": "my_activation", "function": function, **fields}


def pool(function="max", **fields):
    return {"type": "my_pool", "function": function, **fields}


def statuses(report):
    return {check.name: check.status for check in report.parameters}


BEFORE = {"conv.weight", "conv.bias", "input"}


def wrong(report):
    return {name for name, status in statuses(report).items() if status == "wrong"}


@pytest.mark.parametrize("method", ["complex", "central"])
@pytest.mark.parametrize("function", ACTIVATIONS)
def test_right_activations_pass(check, function, method):
    report = check(activation(function), method=method)
    assert wrong(report) == set()
    assert all(one.coverage > 0 for one in report.parameters)


@pytest.mark.parametrize("method", ["complex", "central"])
@pytest.mark.parametrize("factor", [1.001, -1])
@pytest.mark.parametrize("function", ACTIVATIONS)
def test_wrong_activations_do_not(check, function, factor, method):
    assert wrong(check(activation(function, factor=factor), method=method)) == BEFORE


@pytest.mark.parametrize("function", ["maximum", "where real", "abs"])
@pytest.mark.parametrize("bias", [1e-5, 1e-6, 1e-7, -1e-7, 1e-9])
def test_a_kink_nearby_is_no_fault_and_hides_none(check, function, bias):
    assert wrong(check(activation(function), bias=bias)) == set()
    assert wrong(check(activation(function, factor=1.001), bias=bias)) == BEFORE


@pytest.mark.parametrize("method", ["complex", "central"])
@pytest.mark.parametrize("ties", ["first", "last", "shared"])
@pytest.mark.parametrize("function", POOLS)
@pytest.mark.parametrize("bias", [0.0, 0.5])
def test_right_pools_pass_whatever_they_do_about_ties(check, function, ties, bias, method):
    assert wrong(check(pool(function, ties=ties), bias=bias, method=method)) == set()
    assert wrong(check(activation("maximum"), pool(function, ties=ties), bias=bias, method=method)) == set()


@pytest.mark.parametrize("method", ["complex", "central"])
@pytest.mark.parametrize("function", POOLS)
def test_the_gradient_may_not_go_to_all_tied_winners_in_full(check, function, method):
    assert wrong(check(pool(function, ties="all"), bias=0.5, method=method)) >= {"conv.bias"}


@pytest.mark.parametrize("function", POOLS)
def test_a_wrong_pool_is_seen_among_ties(check, function):
    assert wrong(check(pool(function, factor=1.001))) == BEFORE


def test_ties_are_reported(check):
    report = check(activation("maximum"))
    assert report.by_differences == ["my_activation_1"]
    assert statuses(report) == {
        **{"conv.weight": "ok", "conv.bias": "kink", "dense_1.weight": "ok", "dense_1.bias": "ok", "input": "kink"}
    }
    assert check(activation("tanh")).by_differences == []
    # Decided by real parts, ties are no obstacle: the derivative is exact, for the subgradient that forward takes.
    exact = check(activation("where real"))
    assert exact.by_differences == []
    assert set(statuses(exact).values()) == {"ok"}
    assert exact.max_relative_error <= 1e-12


def test_ties_that_no_small_move_undoes_do_not_keep_the_explanation_busy(check, monkeypatch):
    """Behind a ReLU, windows of zeros go on to tie nearby, where a fault outside all layers is looked for, too."""
    right, passes = Graph.backward, []

    def twice(self, *arguments, **options):
        passes.append(self)
        dx, grads = right(self, *arguments, **options)
        return 2 * dx, grads

    monkeypatch.setattr(Graph, "backward", twice)
    report = check(activation("maximum"), pool())
    (text,) = {one.explanation for one in report.parameters if one.explanation}
    assert text == "every layer's own backward pass is correct: look at how the gradients of branches are added up"
    assert len(passes) < 10
