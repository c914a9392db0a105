"""Batch norm multiplies x - mean out where that costs no digits, and only there."""

from __future__ import annotations

import numpy as np
import pytest

from cnnbp_cli.core.layers import BatchNorm, norm
from cnnbp_cli.core.types import Context

C, H, W, N = 5, 6, 7, 16


def images(means, deviations, dtype, seed=0):
    """Draw images (c, h, w, n) whose channels have about these means and standard deviations."""
    drawn = np.random.default_rng(seed).normal(size=(C, H, W, N))
    shape = (-1, 1, 1, 1)
    return (np.reshape(means, shape) + np.reshape(deviations, shape) * drawn).astype(dtype)


def parameters(dtype):
    rng = np.random.default_rng(1)
    params = {"weight": rng.normal(size=C), "bias": rng.normal(size=C)}
    return {name: value.astype(dtype) for name, value in (params | running()).items()}


def running():
    return {"running_mean": np.zeros(C), "running_var": np.ones(C)}


def textbook(x, dy, params, epsilon=1e-5):
    """Return y, dx and the running variance's share, in float64 and in whole arrays."""
    x, dy = x.astype(float), dy.astype(float)
    weight, bias = (params[name].astype(float).reshape(-1, 1, 1, 1) for name in ("weight", "bias"))
    mean = x.mean((1, 2, 3), keepdims=True)
    variance = ((x - mean) ** 2).mean((1, 2, 3), keepdims=True)
    r = 1 / np.sqrt(variance + epsilon)
    xhat = (x - mean) * r
    dxhat = dy * weight
    means = [part.mean((1, 2, 3), keepdims=True) for part in (dxhat, dxhat * xhat)]
    dx = r * (dxhat - means[0] - xhat * means[1])
    return {"y": xhat * weight + bias, "dx": dx, "variance": variance[:, 0, 0], "weight": (dy * xhat).sum((1, 2, 3))}


def layer_passes(x, dy, params):
    layer, ctx = BatchNorm(), Context(training=True)
    y, residuals = layer.forward(params, x, ctx)
    dx, grads = layer.backward(params, residuals, dy, ctx)
    return {"y": y, "dx": dx, "variance": residuals.variance, "weight": grads["weight"]}


STATISTICS = {
    "near": ([0, 1, -2, 3, 0.5], [1, 1, 2, 3, 0.2]),
    "at the border": ([3.9, 4.1, -4, 0, 0], [1, 1, 1, 1, 1]),
    "one far": ([0, 1, 300, 0, 0], [1, 1, 0.5, 1, 1]),
    "all far": ([1000, -1000, 500, 2000, 100], [0.1, 0.2, 0.1, 0.5, 0.01]),
    "tiny": ([1e-12, 0, 0, 0, 0], [1e-12, 1, 1, 1, 1]),
}


@pytest.mark.parametrize("name", STATISTICS)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-5), ("float64", 1e-12)])
def test_no_mean_costs_digits(name, dtype, tolerance):
    means, deviations = STATISTICS[name]
    x, dy = images(means, deviations, dtype), images([0.3] * C, [1] * C, dtype, seed=2)
    params = parameters(dtype)
    expected, got = textbook(x, dy, params), layer_passes(x, dy, params)
    # A mean rounds to the type: far from 0 that alone moves x - mean by so many deviations.
    rounding = max(tolerance, 8 * np.finfo(dtype).eps * max(abs(np.divide(means, deviations))))
    for key, value in expected.items():
        scale = abs(value).max(tuple(range(1, value.ndim)), keepdims=True)
        assert (abs(got[key] - value) <= rounding * scale).all(), key


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_variance_survives_rows_far_from_zero(dtype):
    """Rows of a picture that differ in brightness, each almost flat: the squares of a row would cancel."""
    x = images([0] * C, [1e-3] * C, dtype) + np.linspace(-50, 50, H).reshape(1, -1, 1, 1).astype(dtype)
    got = layer_passes(x, np.ones_like(x), parameters(dtype))["variance"]
    np.testing.assert_allclose(got[:, 0], x.astype(float).var((1, 2, 3)), rtol=3e-7 if dtype == "float32" else 1e-14)


@pytest.mark.parametrize("value", [0.0, 0.1, -7.3, 1234.5])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_constant_channel_becomes_its_bias(value, dtype):
    x = images([0] * C, [1] * C, dtype)
    x[2] = value
    params = parameters(dtype)
    got = layer_passes(x, np.ones_like(x), params)
    np.testing.assert_allclose(got["y"][2], params["bias"][2], rtol=0, atol=np.finfo(dtype).eps * 400 * abs(value))
    if value == 0:
        np.testing.assert_array_equal(got["y"][2], np.full((H, W, N), params["bias"][2]))


@pytest.mark.parametrize("training", [True, False])
def test_both_ways_agree(training, monkeypatch):
    x, dy = images([0, 1, -2, 3, 0.5], [1, 1, 2, 3, 0.2], float), images([0] * C, [1] * C, float, seed=2)
    params = parameters(float) | {"running_mean": np.linspace(-1, 1, C), "running_var": np.linspace(0.5, 2, C)}
    results = []
    for bound in (norm.NEAR, -1.0):
        monkeypatch.setattr(norm, "NEAR", bound)
        layer, ctx = BatchNorm(), Context(training=training)
        y, residuals = layer.forward(params, x, ctx)
        results.append((y, *layer.backward(params, residuals, dy, ctx)))
    (y, dx, grads), (other_y, other_dx, other_grads) = results
    np.testing.assert_allclose(y, other_y, rtol=0, atol=1e-13)
    np.testing.assert_allclose(dx, other_dx, rtol=0, atol=1e-13)
    assert (y != other_y).any()  # they are two ways
    for name, value in grads.items():
        np.testing.assert_allclose(value, other_grads[name], rtol=1e-11)
