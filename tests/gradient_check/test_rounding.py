"""Gradients that are zero but for rounding: the check must not take them for faults."""

from __future__ import annotations

import numpy as np
import pytest
from proof.example import Example

from cnnbp_cli.core.layers import BatchNorm
from cnnbp_cli.core.types import Context
from cnnbp_cli.gradient_check.check import gradcheck


def conv(k, **fields):
    return {"type": "conv2d", "name": f"conv2d_{k}", "filters": 1, "kernel_size": 1, "bias": False, **fields}


@pytest.mark.parametrize("seed", range(20))
def test_a_normalization_of_nearly_equal_values_magnifies_rounding(seed):
    """The mean of a normalized image depends on nothing; small slopes and epsilon magnify changes 300 times."""
    layers = [
        "relu",
        *(conv(k) for k in range(1, 4)),
        conv(4, padding=1, bias=True),
        {"type": "leaky_relu", "slope": 0.01},
        "batch_norm",
        "global_avg_pool2d",
        {"type": "dense", "units": 2},
    ]
    model = {"input": [1, 4, 4], "head": "softmax", "layers": layers}
    report = gradcheck(*Example(model, {"loss": "mse"}, images="levels", count=1, seed=seed).build())
    assert {check.name: check.status for check in report.parameters if check.status == "wrong"} == {}


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("norm", ["group_norm", "layer_norm"])
def test_two_nearly_equal_values_leave_nothing_of_a_change(norm, seed):
    """Normalized, two values are -1 and 1 whatever they were: all terms of the derivative cancel."""
    groups = {"groups": 1} if norm == "group_norm" else {}
    layers = [
        {"type": "batch_norm", "affine": False},
        "softplus",
        "global_avg_pool2d",
        {"type": norm, "affine": False, "epsilon": 1e-9, **groups},
        {"type": "dense", "units": 1},
    ]
    model = {"input": [2, 9, 3], "head": "sigmoid", "layers": layers}
    report = gradcheck(*Example(model, {"loss": "binary_cross_entropy"}, count=2, seed=seed).build())
    assert {check.name: check.status for check in report.parameters if check.status == "wrong"} == {}


@pytest.mark.parametrize("seed", [75, 203, 245, 48802])
def test_a_channel_of_two_nearly_equal_images_among_others(seed):
    """The images of one channel are 0.01 apart and the others' are not: its terms are the largest by far."""
    layers = [
        {"type": "conv2d", "filters": 9, "kernel_size": 3, "padding": "same", "groups": 3},
        "flatten",
        {"type": "batch_norm", "affine": False, "epsilon": 1e-9},
        {"type": "dense", "units": 1, "bias": False},
        {"type": "dense", "units": 1, "bias": False},
        "relu",
        {"type": "dense", "units": 2},
    ]
    model = {"input": [3, 1, 1], "head": "softmax", "layers": layers}
    example = Example(model, {"loss": "cross_entropy"}, images="levels", dead=0.5, count=2, seed=seed)
    report = gradcheck(*example.build())
    assert {check.name: check.status for check in report.parameters if check.status == "wrong"} == {}


def test_batch_norm_centers_before_it_scales():
    """Of a constant channel only the rounding of its mean is left, which backward takes for what it is."""
    norm = BatchNorm(epsilon=1e-9)
    x = np.full((2, 3, 3, 4), 0.1)
    y, residuals = norm.forward(norm.init_params(np.random.default_rng(0), x.shape[:3]), x, Context(training=True))
    assert y.any()
    np.testing.assert_allclose(
        y, ((0.1 - residuals.mean) * residuals.r)[:, :, None, None] * np.ones(x.shape), rtol=1e-12
    )
