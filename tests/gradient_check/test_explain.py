"""The explanations of wrong gradients: one seeded mistake after the other, each with its whole sentence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from cnnbp_cli.core.layers.activation import Relu
from cnnbp_cli.core.layers.conv import Conv2d
from cnnbp_cli.core.layers.dense import Dense
from cnnbp_cli.core.layers.merge import Add
from cnnbp_cli.core.layers.pool import MaxPool2d
from cnnbp_cli.core.losses import SoftmaxCrossEntropy
from cnnbp_cli.core.types import Layer
from cnnbp_cli.gradient_check.check import gradcheck

Fault = Callable[..., Any]
FAULTS: dict[str, Fault] = {}


def mistake(fault: Fault) -> Fault:
    FAULTS[fault.__name__] = fault
    return fault


@dataclass(frozen=True, slots=True)
class BadConv(Conv2d):
    """A convolution.

    dweight = whatever the mistake makes of it
    """

    fault: str = ""
    type: Literal["bad_conv"] = "bad_conv"

    def backward(self, params, residuals, dy, ctx):
        dx, grads = Conv2d.backward(self, params, residuals, dy, ctx)
        return FAULTS[self.fault](params=params, dx=dx.copy(), grads=grads, dy=dy)


@dataclass(frozen=True, slots=True)
class BadDense(Dense):
    """A dense layer with a mistake."""

    fault: str = ""
    type: Literal["bad_dense"] = "bad_dense"

    def backward(self, params, residuals, dy, ctx):
        dx, grads = Dense.backward(self, params, residuals, dy, ctx)
        return FAULTS[self.fault](params=params, dx=dx.copy(), grads=grads, dy=dy, x=residuals)


@dataclass(frozen=True, slots=True)
class BadRelu(Relu):
    """A ReLU whose backward pass takes its input for positive everywhere."""

    type: Literal["bad_relu"] = "bad_relu"

    def backward(self, params, residuals, dy, ctx):
        return dy, {}


@dataclass(frozen=True, slots=True)
class BadAdd(Add):
    """A sum that sends twice the gradient to its second input."""

    type: Literal["bad_add"] = "bad_add"

    def backward(self, residuals, dy, ctx):
        return dy, 2 * dy


@dataclass(frozen=True, slots=True)
class EveryWinner(MaxPool2d):
    """A pool that sends the gradient to all of several equal pixels."""

    type: Literal["every_winner"] = "every_winner"

    def backward(self, params, residuals, dy, ctx):
        windows, image, y = residuals
        dimage = np.zeros_like(image)
        rows = range(windows.out[0])
        for tap, dtap in zip(windows.taps(image, rows), windows.taps(dimage, rows), strict=True):
            dtap += dy * (tap == y)
        return windows.crop(dimage), {}


@dataclass(frozen=True, slots=True)
class RowLost(MaxPool2d):
    """A pool that forgets the last row of windows."""

    type: Literal["row_lost"] = "row_lost"

    def backward(self, params, residuals, dy, ctx):
        dy = dy.copy()
        dy[:, -1] = 0
        return MaxPool2d.backward(self, params, residuals, dy, ctx)


@dataclass(frozen=True, slots=True)
class BadAbsolute(Relu):
    """y = |x|, which loses imaginary parts; the sign of its gradient is that of -x.

    dx = dy · sign(x)
    """

    type: Literal["bad_absolute"] = "bad_absolute"

    def forward(self, params, x, ctx):
        return np.abs(x), x

    def backward(self, params, residuals, dy, ctx):
        return -dy * np.sign(residuals), {}


LAYERS = (BadConv, BadDense, BadRelu, BadAdd, EveryWinner, RowLost, BadAbsolute)


def change(key: str, make: Callable[..., Any]) -> Callable[..., Any]:
    """Return a mistake in one of the gradients."""

    def fault(params, dx, grads, dy, **rest):
        return dx, grads | {key: make(grads[key], w=params[key], dy=dy, **rest)}

    return fault


def element(g, at, amount):
    g = g.copy()
    g[at] += amount
    return g


FAULTS |= {
    "none": lambda dx, grads, **rest: (dx, grads),
    "batch": change("weight", lambda g, dy, **rest: g * dy.shape[-1]),
    "per image": change("weight", lambda g, dy, **rest: g / dy.shape[-1]),
    "half": change("weight", lambda g, **rest: g / 2),
    "twice": change("weight", lambda g, **rest: -2 * g),
    "sign": change("weight", lambda g, **rest: -g),
    "factor": change("weight", lambda g, **rest: 1.001 * g),
    "zero": change("weight", lambda g, **rest: 0 * g),
    "flipped": change("weight", lambda g, **rest: g[:, :, ::-1, ::-1]),
    "transposed": change("weight", lambda g, **rest: g.T if g.ndim == 2 else g.swapaxes(2, 3)),
    "shifted": change("weight", lambda g, **rest: np.roll(g, 1, 3)),
    "channels": change("weight", lambda g, **rest: g[[1, 2, 0, 3]]),
    "order": change("weight", lambda g, **rest: g.T.reshape(g.shape)),
    "element": change("weight", lambda g, **rest: element(g, (1,) * g.ndim, 0.5)),
    "channel": change("weight", lambda g, **rest: g * np.array([1, 1, 2, 1]).reshape(4, 1, 1, 1)),
    "row": change("weight", lambda g, **rest: g * np.array([1, 1, 0])[:, None]),
    "corner": change("weight", lambda g, **rest: element(g, (slice(None), slice(None), 0, 2), 0.25)),
    "constant": change("weight", lambda g, **rest: g + 0.125),
    "missing constant": change("weight", lambda g, **rest: g - 0.125),
    "per channel": change("weight", lambda g, **rest: g + np.arange(4).reshape(4, 1, 1, 1)),
    "factors": change("weight", lambda g, **rest: g * np.arange(1, 5).reshape(4, 1, 1, 1)),
    "decay": change("weight", lambda g, w, **rest: g + 0.01 * w),
    "nonsense": change("weight", lambda g, **rest: np.sin(100 * g)),
    "nan": change("weight", lambda g, **rest: element(g, (0,) * g.ndim, np.nan)),
    "bias mean": change("bias", lambda g, dy, **rest: dy.mean((1, 2, 3))),
    "bias positions": change("bias", lambda g, dy, **rest: dy.mean((1, 2)).sum(-1)),
    "bias first image": change("bias", lambda g, dy, **rest: dy[..., 0].sum((1, 2))),
    "bias last row": change("bias", lambda g, dy, **rest: dy[:, :-1].sum((1, 2, 3))),
    "bias first column": change("bias", lambda g, dy, **rest: dy[:, :, 1:].sum((1, 2, 3))),
    "image left out": change("weight", lambda g, dy, x, **rest: dy[:, 1:] @ x[:, 1:].T),
    "dx sign": lambda dx, grads, **rest: (-dx, grads),
    "dx border": lambda dx, grads, **rest: (np.pad(dx[:, 1:-1, 1:-1], [(0, 0), (1, 1), (1, 1), (0, 0)]), grads),
    "dx row": lambda dx, grads, **rest: (np.where(np.arange(6)[:, None, None] == 5, 3 * dx, dx), grads),
}

FILE, SOURCE = Path(__file__).name, Path(__file__).read_text(encoding="utf-8").splitlines()


def look_at(name: str, formula: str) -> str:
    """Return the end of the sentence: the method and its line in this file."""
    line = next(k for k, text in enumerate(SOURCE) if text.startswith(f"class {name}("))
    line += next(k for k, text in enumerate(SOURCE[line:]) if text.startswith("    def backward"))
    return f"; look at {name}.backward ({FILE}:{line + 1}), {formula}"


@pytest.fixture
def explanations(network, batch, registered) -> Callable[..., dict[str, str]]:
    """Return the explanations of the wrong gradients of a network, by name."""
    for layer in LAYERS:
        registered(layer)

    def explain(*layers: Any, image: tuple[int, int, int] = (2, 6, 6), **options: Any) -> dict[str, str]:
        model = network(*layers, "flatten", {"type": "dense", "name": "out", "units": 2}, image=image)
        with np.errstate(invalid="ignore"):
            report = gradcheck(model, *batch(image=image), **options)
        assert all((check.explanation is None) == (check.status != "wrong") for check in report.parameters)
        return {check.name: check.explanation for check in report.parameters if check.explanation is not None}

    return explain


def conv(fault: str) -> dict[str, Any]:
    return {"type": "bad_conv", "name": "conv", "filters": 4, "kernel_size": 3, "padding": "same", "fault": fault}


OF_WEIGHTS = {
    "batch": "analytic is 4 × numeric: the batch size, missing 1/N? or the output channels, missing 1/f?",
    "per image": "analytic is numeric / 4: the batch size, divided by N once too often? or the output channels, "
    "divided by f once too often?",
    "half": "analytic is numeric / 2: a missing factor of 2 or the input channels, divided by c once too often?",
    "twice": "analytic is −2 × numeric: an extra factor of 2, and wrong sign or the input channels, missing 1/c?, "
    "and wrong sign",
    "sign": "analytic is −1 × numeric: wrong sign",
    "factor": "analytic is 1.001 × numeric: a constant factor",
    "zero": "analytic is 0: is the gradient computed and returned?",
    "flipped": "the kernel is flipped in space, by 180°: a convolution in place of a cross-correlation?",
    "transposed": "transposed: kernel row and kernel column are swapped",
    "shifted": "shifted by one along kernel column",
    "channels": "output channels are in the wrong order: 0 is at 2, 1 is at 0, 2 is at 1",
    "element": None,
    "channel": "only output channel 2 is wrong: there analytic is 2 × numeric: an extra factor of 2 or the input "
    "channels, missing 1/c?",
    "row": "only kernel row 2 (the last) is wrong: there analytic is 0: is the gradient computed and returned?",
    "corner": "only kernel row 0 (the first), kernel column 2 (the last) is wrong: there analytic is numeric + 0.25: "
    "an extra or missing constant term",
    "constant": "analytic is numeric + 0.125: an extra or missing constant term",
    "missing constant": "analytic is numeric − 0.125: an extra or missing constant term",
    "per channel": "analytic is numeric + a different number for each output channel: an extra or missing term",
    "factors": "each output channel is off by a different factor, from 1 to 4",
    "decay": "analytic is numeric + 0.01 × the parameter: weight decay inside the gradient?",
    "nonsense": "72 of the 72 elements compared are wrong, in no known pattern",
    "nan": "1 of 72 elements is infinite or NaN, first [0, 0, 0, 0]",
}


@pytest.mark.parametrize("method", ["complex", "central"])
@pytest.mark.parametrize(("fault", "text"), OF_WEIGHTS.items(), ids=OF_WEIGHTS)
def test_mistakes_in_a_kernels_gradient(explanations, fault, text, method):
    found = explanations(conv(fault), "tanh", method=method)
    assert list(found) == ["conv.weight"]
    text = text or "only one element is wrong, [1, 1, 1, 1]: analytic "
    assert found["conv.weight"].startswith(text)
    assert found["conv.weight"].endswith(look_at("BadConv", "dweight = whatever the mistake makes of it"))
    assert "element is wrong" in text or len(found["conv.weight"]) == len(text) + len(
        look_at("BadConv", "dweight = whatever the mistake makes of it")
    )


@pytest.mark.parametrize(
    ("fault", "text"),
    {
        "bias mean": "analytic is numeric / 144: the batch size times the output's positions, divided by (N·h·w) "
        "once too often?",
        "bias positions": "analytic is numeric / 36: the output's positions, divided by (h·w) once too often?",
        "bias first image": "only image 0 (the first) contributes: is the sum over all 4 missing?",
        "bias last row": "output row 5 (the last) is left out of the sum",
        "bias first column": "output column 0 (the first) is left out of the sum",
    }.items(),
)
def test_mistakes_in_a_biass_gradient(explanations, fault, text):
    assert explanations(conv(fault), "tanh") == {"conv.bias": text + look_at("BadConv", "dbias")}


def dense(fault: str, units: int = 8) -> list[Any]:
    return ["flatten", {"type": "bad_dense", "name": "dense", "units": units, "fault": fault}, "tanh"]


@pytest.mark.parametrize(
    ("fault", "units", "text"),
    [
        ("transposed", 8, "transposed"),
        ("order", 5, "in a different memory order: a reshape where a transpose is needed?"),
        ("image left out", 5, "image 0 (the first) is left out of the sum"),
    ],
)
def test_mistakes_in_a_matrix(explanations, fault, units, text):
    found = explanations(*dense(fault, units), image=(2, 2, 2))
    assert found == {"dense.weight": text + look_at("BadDense", "dweight")}


@pytest.mark.parametrize(
    ("fault", "text"),
    {
        "dx sign": "analytic is −1 × numeric: wrong sign",
        "dx border": "only the border is wrong: there analytic is 0: is the gradient computed and returned?",
        "dx row": "only row 5 (the last) is wrong: there analytic is 3 × numeric: a constant factor",
    }.items(),
)
def test_layers_before_a_wrong_dx_name_where_it_comes_from(explanations, fault, text):
    first = {"type": "conv2d", "name": "first", "filters": 2, "kernel_size": 3, "padding": "same"}
    found = explanations(first, "tanh", conv(fault), "tanh")
    expected = f"the incoming gradient is already wrong: dx of conv: {text}" + look_at("BadConv", "dx")
    assert found == {"first.weight": expected, "first.bias": expected, "input": expected}


def test_activations_pools_and_merges_are_named(explanations, network, batch):
    first = {"type": "conv2d", "name": "first", "filters": 2, "kernel_size": 1}
    relu = explanations(first, {"type": "bad_relu", "name": "on"})["input"]
    assert relu == (
        "the incoming gradient is already wrong: dx of on: "
        "dy is passed on unchanged: the layer's derivative is left out" + look_at("BadRelu", "dx")
    )
    merged = explanations(first, "tanh", {"type": "bad_add", "name": "sum", "inputs": ["tanh_1", "first"]})[
        "first.bias"
    ]
    assert merged == (
        "the incoming gradient is already wrong: dx of sum to its 2nd input: analytic is 2 × numeric: an extra factor "
        "of 2 or the output channels, missing 1/f? or the input channels, missing 1/c?" + look_at("BadAdd", "dx")
    )
    pool = {"type": "every_winner", "name": "pool", "pool_size": 2}
    model = network(pool, "flatten", {"type": "dense", "units": 2})
    report = gradcheck(model, np.full((2, 1, 6, 6), 0.5), np.array([0, 1]))
    assert report.parameters[-1].explanation == (
        "the incoming gradient is already wrong: dx of pool: each element by itself may be right, but not all of them "
        "together: does the gradient go to all of several equal values? Give it to one of them, or share it"
        + look_at("EveryWinner", "dx")
    )


def test_layers_that_no_complex_number_passes_are_explained_by_differences(explanations):
    first = {"type": "conv2d", "name": "first", "filters": 2, "kernel_size": 1}
    found = explanations(first, {"type": "bad_absolute", "name": "abs"}, method="central")
    assert set(found) == {"first.weight", "first.bias", "input"}
    assert set(found.values()) == {
        "the incoming gradient is already wrong: dx of abs: analytic is −1 × numeric: wrong sign"
        + look_at("BadAbsolute", "dx = dy · sign(x)")
    }


@pytest.mark.parametrize("method", ["complex", "central"])
def test_what_is_rare_among_many_elements_is_found(explanations, network, method):
    """Of 13,824 pixels fewer than 150 matter to the last row of windows, on images that are flat for the most part."""
    explanations()  # registers the layers
    conv = {"type": "conv2d", "filters": 1, "kernel_size": 3, "padding": "same", "bias": False}
    pool = {"type": "row_lost", "name": "pool", "pool_size": 2}
    model = network(conv, pool, "flatten", {"type": "dense", "units": 2}, image=(1, 48, 48))
    images = np.zeros((6, 1, 48, 48))
    images[:, :, 40:, 8:40] = np.random.default_rng(0).uniform(size=(6, 1, 8, 32))
    (text,) = {
        check.explanation
        for check in gradcheck(model, images, np.arange(6) % 2, method=method).parameters
        if check.status == "wrong"
    }
    assert text == (
        "the incoming gradient is already wrong: dx of pool: output row 23 (the last) is left out of the sum"
        + look_at("RowLost", "dx")
    )


def test_several_wrong_layers_are_counted(explanations):
    first = {"type": "conv2d", "name": "first", "filters": 2, "kernel_size": 3, "padding": "same"}
    found = explanations(first, conv("dx sign"), {"type": "bad_relu", "name": "on"})
    assert found["first.bias"].startswith("the incoming gradient is already wrong: dx of on: ")
    assert found["first.bias"].endswith(", and 1 more")


def test_a_layer_with_a_mistake_before_another_gets_its_own_explanation(explanations):
    found = explanations(conv("sign"), {"type": "bad_relu", "name": "on"})
    assert found["conv.weight"].startswith("analytic is −1 × numeric: wrong sign; look at BadConv.backward")
    assert found["conv.bias"].startswith("the incoming gradient is already wrong: dx of on: ")


def test_a_wrong_loss_is_named(explanations, monkeypatch):
    right = SoftmaxCrossEntropy.backward
    monkeypatch.setattr(SoftmaxCrossEntropy, "backward", lambda self, residuals: 4 * right(self, residuals))
    found = explanations("tanh")
    assert set(found) == {"out.weight", "out.bias", "input"}
    assert set(found.values()) == {
        "the incoming gradient is already wrong: dz of the loss: analytic is 4 × numeric: the batch size, "
        "missing 1/N?; look at SoftmaxCrossEntropy.backward, dz = p - y"
    }


def test_formulas_of_shipped_layers_are_quoted(explanations, monkeypatch):
    right = Dense.backward

    def backward(self, params, residuals, dy, ctx):
        dx, grads = right(self, params, residuals, dy, ctx)
        return dx, grads | {"weight": -grads["weight"]}

    monkeypatch.setattr(Dense, "backward", backward)
    assert explanations("tanh") == {
        "out.weight": "analytic is −1 × numeric: wrong sign; look at Dense.backward, dW = dy @ xᵀ",
    }


def test_a_fault_of_a_shared_layer_is_told_at_one_of_its_uses(explanations):
    shared = [conv("sign"), {"type": "tanh"}, {"share": "conv"}]
    found = explanations(*shared, image=(4, 6, 6))
    assert found.keys() == {"conv.weight"}
    assert found["conv.weight"].startswith("at conv: analytic is −1 × numeric: wrong sign; look at BadConv.backward")


def test_a_graph_that_forgets_a_use_is_told(explanations, monkeypatch):
    from cnnbp_cli.core import graph

    monkeypatch.setattr(graph, "_sum_over_uses", lambda others, own, node, ctx: own)
    layer = {"type": "conv2d", "name": "conv", "filters": 2, "kernel_size": 1}
    found = explanations(layer, {"type": "tanh"}, {"share": "conv"})
    text = "every layer's own backward pass is correct: look at how the gradients of its uses are added up"
    assert found == {"conv.weight": text, "conv.bias": text}


def test_a_graph_that_adds_up_wrongly_is_no_layers_fault(explanations, monkeypatch):
    from cnnbp_cli.core.graph import Graph

    right = Graph.backward

    def backward(self, *args):
        dx, grads = right(self, *args)
        return dx, grads | {"first": {key: value / 2 for key, value in grads["first"].items()}}

    monkeypatch.setattr(Graph, "backward", backward)
    found = explanations({"type": "conv2d", "name": "first", "filters": 2, "kernel_size": 1})
    text = "every layer's own backward pass is correct: look at how the gradients of branches are added up"
    assert found == {"first.weight": text, "first.bias": text}


def test_a_single_wrong_weight_among_many_is_named(explanations):
    found = explanations(*dense("element", 64), image=(2, 6, 6), directions=3, elements=0)
    assert found["dense.weight"].startswith("only one element is wrong, [1, 1]: analytic ")


def test_a_forward_that_makes_nan_is_named_and_no_backward(network, batch, registered):
    @dataclass(frozen=True, slots=True)
    class RootOfAnything(Layer[Any]):
        """y = √x, of negative numbers too."""

        type: Literal["root_of_anything"] = "root_of_anything"

        def forward(self, params, x, ctx):
            with np.errstate(invalid="ignore"):
                y = np.sqrt(x)
            return y, y

        def backward(self, params, residuals, dy, ctx):
            return dy / (2 * residuals), {}

    registered(RootOfAnything)
    model = network({"type": "root_of_anything", "name": "root"}, "flatten", {"type": "dense", "units": 2})
    report = gradcheck(model, *batch())
    assert not report.ok
    told = {check.explanation for check in report.parameters if check.explanation}
    assert any("RootOfAnything.forward" in text for text in told), told
    assert not any("backward" in text for text in told), told
