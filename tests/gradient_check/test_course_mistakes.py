"""The mistakes that courses see every year, each in a layer as a learner writes it, and the sentence about each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest

from cnnbp_cli.core.types import Layer
from cnnbp_cli.gradient_check.check import gradcheck


@dataclass(frozen=True, slots=True)
class CourseConv(Layer):
    """A convolution in loops, with stride and zero padding."""

    mistake: str = "none"
    stride: int = 2
    pad: int = 1
    type: Literal["course_conv"] = "course_conv"

    def out_shape(self, in_shape):
        return (3, *((size + 2 * self.pad - 3) // self.stride + 1 for size in in_shape[1:]))

    def init_params(self, rng, in_shape):
        return {"weight": rng.normal(size=(3, in_shape[0], 3, 3)), "bias": rng.normal(size=3)}

    def windows(self, shape, stride):
        for p, q in np.ndindex(shape[1:3]):
            yield p, q, (slice(None), slice(p * stride, p * stride + 3), slice(q * stride, q * stride + 3))

    def forward(self, params, x, ctx):
        image = np.pad(x, ((0, 0), (self.pad,) * 2, (self.pad,) * 2, (0, 0)))
        y = np.empty((*self.out_shape(x.shape[:3]), x.shape[3]), np.result_type(x, *params.values()))
        for p, q, window in self.windows(y.shape, self.stride):
            y[:, p, q] = np.tensordot(params["weight"], image[window], 3) + params["bias"][:, None]
        return y, image

    def backward(self, params, image, dy, ctx):
        weight, mistake, pad = params["weight"], self.mistake, self.pad
        dweight, dimage = np.zeros_like(weight), np.zeros_like(image)
        stride = 1 if mistake == "no stride" else self.stride
        kernel = {"flipped": weight[:, :, ::-1, ::-1], "transposed": weight.swapaxes(2, 3)}.get(mistake, weight)
        for p, q, window in self.windows(dy.shape, stride):
            if mistake == "last row" and p == dy.shape[1] - 1:
                continue
            patch = np.tensordot(dy[:, p, q], image[window], (1, 3))
            stamp = np.tensordot(kernel, dy[:, p, q], (0, 0))
            if mistake == "swapped":
                patch = weight * dy[:, p, q].sum(1)[:, None, None, None]
                stamp = image[window] * dy[:, p, q].sum(0)
            dweight += patch
            dimage[window] = stamp if mistake == "assigned" else dimage[window] + stamp
        dweight = dweight[:, :, ::-1, ::-1] if mistake == "dweight flipped" else dweight
        dbias = dy.mean((1, 2, 3)) if mistake == "bias mean" else dy.sum((1, 2, 3))
        first = 2 * pad if mistake == "cropped" else pad
        h, w = (size - 2 * pad for size in image.shape[1:3])
        dx = np.zeros_like(image[:, :h, :w])
        part = dimage[:, first : first + h, first : first + w]
        dx[:, : part.shape[1], : part.shape[2]] = part
        return dx, {"weight": dweight, "bias": dbias}


@dataclass(frozen=True, slots=True)
class CourseNorm(Layer):
    """Batch normalization."""

    mistake: str = "none"
    type: Literal["course_norm"] = "course_norm"

    def init_params(self, rng, in_shape):
        return {"gamma": rng.uniform(1, 2, in_shape[0]), "beta": rng.normal(size=in_shape[0])}

    def forward(self, params, x, ctx):
        centered = x - x.mean((1, 2, 3), keepdims=True)
        s = np.sqrt((centered * centered).mean((1, 2, 3), keepdims=True) + 1e-5)
        gamma, beta = (params[key][:, None, None, None] for key in ("gamma", "beta"))
        return gamma * centered / s + beta, (centered / s, s)

    def backward(self, params, residuals, dy, ctx):
        xhat, s = residuals
        g = dy if self.mistake == "no gamma" else dy * params["gamma"][:, None, None, None]
        mean, product = g.mean((1, 2, 3), keepdims=True), (g * xhat).mean((1, 2, 3), keepdims=True)
        if self.mistake in ("constant mean", "both constant"):
            mean = 0
        if self.mistake in ("constant variance", "both constant"):
            product = 0
        dx = (g - mean - xhat * product) / (1 if self.mistake == "no deviation" else s)
        return dx, {"gamma": (dy * xhat).sum((1, 2, 3)), "beta": dy.sum((1, 2, 3))}


def relu(x):
    return np.maximum(x, 0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


ACTIVATIONS = {
    "unchanged": (relu, lambda x, y, dy: dy),
    "without dy": (np.tanh, lambda x, y, dy: 1 - y * y),
    "gated by dy": (relu, lambda x, y, dy: dy * (dy > 0)),
    "gated by both": (relu, lambda x, y, dy: dy * (dy > 0) * (x > 0)),
    "tanh of tanh": (np.tanh, lambda x, y, dy: dy * (1 - np.tanh(y) ** 2)),
    "tanh of x": (np.tanh, lambda x, y, dy: dy * (1 - x * x)),
    "sigmoid of x": (sigmoid, lambda x, y, dy: dy * x * (1 - x)),
    "times y": (relu, lambda x, y, dy: dy * y),
    "skip left out": (lambda x: x + np.tanh(x), lambda x, y, dy: dy * (1 - np.tanh(x) ** 2)),
    "skip alone": (lambda x: x + np.tanh(x), lambda x, y, dy: dy),
}


@dataclass(frozen=True, slots=True)
class CourseActivation(Layer):
    """A function of each element."""

    mistake: str
    type: Literal["course_activation"] = "course_activation"

    def forward(self, params, x, ctx):
        y = ACTIVATIONS[self.mistake][0](x)
        return y, (x, y)

    def backward(self, params, residuals, dy, ctx):
        return ACTIVATIONS[self.mistake][1](*residuals, dy), {}


@dataclass(frozen=True, slots=True)
class CoursePool(Layer):
    """Max pooling of 2×2."""

    mistake: str
    type: Literal["course_pool"] = "course_pool"

    def out_shape(self, in_shape):
        return in_shape[0], in_shape[1] // 2, in_shape[2] // 2

    def forward(self, params, x, ctx):
        return np.maximum.reduce([x[:, i::2, j::2] for i in range(2) for j in range(2)]), x

    def backward(self, params, x, dy, ctx):
        spread = dy.repeat(2, 1).repeat(2, 2)
        if self.mistake == "smallest":
            y = np.minimum.reduce([x[:, i::2, j::2] for i in range(2) for j in range(2)])
            return spread * (x == y.repeat(2, 1).repeat(2, 2)), {}
        return spread / (4 if self.mistake == "shared" else 1), {}


KERNEL = (
    "the kernel is not flipped, or flipped twice: dx is each dy times the kernel as it is, added up, which is the full "
    "correlation of dy with the flipped kernel"
)
OVERWRITTEN = "windows that overlap overwrite each other: write dx[…] += …, not dx[…] = …"
CONV = {
    "flipped": ("dx", KERNEL),
    "transposed": ("dx", "rows and columns of the kernel are swapped"),
    "assigned": ("dx", OVERWRITTEN),
    "cropped": ("dx", "the padding is cut off at 2, not at 1: dx begins at row and column 1"),
    "dweight flipped": (
        "weight",
        "the kernel is flipped in space, by 180°: a convolution in place of a cross-correlation?",
    ),
}
OTHERS = {
    ("course_norm", "constant variance"): (
        "the variance is taken for a constant: the term - x̂ · mean(dx̂ · x̂) / s is missing"
    ),
    ("course_norm", "constant mean"): "the mean is taken for a constant: the term - mean(dx̂) / s is missing",
    ("course_norm", "both constant"): "mean and variance are taken for constants: dx̂ / s alone",
    ("course_norm", "no deviation"): "the division by the standard deviation is left out",
    ("course_norm", "no gamma"): "the factor γ is left out",
    ("course_activation", "unchanged"): "dy is passed on unchanged: the layer's derivative is left out",
    ("course_activation", "skip alone"): "dy is passed on unchanged: the layer's derivative is left out",
    ("course_activation", "without dy"): "the derivative is not multiplied by dy",
    ("course_activation", "gated by dy"): (
        "dy passes where dy is above 0, not where the input is: a ReLU's gate is its input"
    ),
    ("course_activation", "gated by both"): "gradients below 0 are cut off: the gate belongs to the input, not to dy",
    ("course_activation", "tanh of tanh"): "the derivative is taken at the output: f'(f(x)) in place of f'(x)",
    ("course_activation", "tanh of x"): "1 - y² holds for the output y, and is taken of the input",
    ("course_activation", "sigmoid of x"): "y (1 - y) holds for the output y, and is taken of the input",
    ("course_activation", "times y"): "dy times the output, not times the derivative",
    ("course_activation", "skip left out"): "dy of the skip connection is left out: add up both gradients",
    ("course_pool", "all"): "each pixel of a window gets dy: only the largest may",
    ("course_pool", "shared"): "dy is shared by the whole window, as of an average: only the largest gets it",
    ("course_pool", "smallest"): "the smallest pixel of each window gets dy",
}  # fmt: skip


@pytest.fixture
def explanations(network, batch, registered):
    """Return the explanations of the wrong gradients of a network with one layer of a course, by name."""
    for layer in (CourseConv, CourseNorm, CourseActivation, CoursePool):
        registered(layer)

    def explain(layer, method="complex"):
        first = {"type": "conv2d", "name": "first", "filters": 2, "kernel_size": 3, "padding": "same"}
        model = network(first, {"name": "own", **layer}, "flatten", {"type": "dense", "units": 2})
        report = gradcheck(model, *batch(), method=method)
        return {check.name: check.explanation for check in report.parameters if check.explanation}

    return explain


def dx(text):
    return f"the incoming gradient is already wrong: dx of own: {text}; look at "


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("mistake", CONV)
def test_mistakes_in_a_convolution(explanations, mistake, stride):
    found = explanations({"type": "course_conv", "mistake": mistake, "stride": stride})
    where, text = CONV[mistake]
    names = {"first.weight", "first.bias", "input"} if where == "dx" else {f"own.{where}"}
    assert set(found) == names
    assert all(one.startswith(dx(text) if where == "dx" else f"{text}; look at ") for one in found.values()), found


def test_the_mean_over_positions_and_images_for_the_bias(explanations):
    found = explanations({"type": "course_conv", "mistake": "bias mean"})
    assert set(found) == {"own.bias"}
    assert found["own.bias"].startswith(
        "analytic is numeric / 36: the batch size times the output's positions, divided by (N·h·w) once too often? or "
    )


@pytest.mark.parametrize(
    ("mistake", "of_weight", "of_dx"),
    [
        (
            "no stride",
            "the stride is left out of the patches of x",
            "the stride is left out: dy of row p belongs to the rows from stride · p",
        ),
        (
            "swapped",
            "the filter times dy, where x belongs: weights need the input, the input needs the filter",
            "x times dy, where the filter belongs: the input needs the filter, weights need the input",
        ),
        (
            "last row",
            "output row 2 (the last) is left out of the sum",
            "output row 2 (the last) is left out of the sum",
        ),
    ],
)
def test_mistakes_in_both_gradients_of_a_convolution(explanations, mistake, of_weight, of_dx):
    found = explanations({"type": "course_conv", "mistake": mistake})
    assert found["own.weight"].startswith(f"{of_weight}; look at CourseConv.backward")
    assert found["input"].startswith(dx(of_dx))


@pytest.mark.parametrize("method", ["complex", "central"])
@pytest.mark.parametrize(("kind", "mistake"), OTHERS, ids=" ".join)
def test_mistakes_in_other_layers(explanations, kind, mistake, method):
    found = explanations({"type": kind, "mistake": mistake}, method)
    assert found["input"].startswith(dx(OTHERS[kind, mistake]))


@pytest.mark.parametrize("layer", ["course_conv", "course_norm"])
def test_without_a_mistake_all_is_right(explanations, layer):
    assert explanations({"type": layer}) == {}
