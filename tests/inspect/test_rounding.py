"""Gradients that are zero but for rounding: the check must not take them for faults."""

from __future__ import annotations

import pytest
from proof.example import Example

from cnnbp_cli.inspect.gradcheck import gradcheck


def conv(k, **fields):
    return {"type": "conv2d", "name": f"conv2d_{k}", "filters": 1, "kernel_size": 1, "bias": False, **fields}


@pytest.mark.parametrize("seed", range(20))
def test_a_normalisation_of_nearly_equal_values_magnifies_rounding(seed):
    """The mean of a normalised image depends on nothing; small slopes and epsilon magnify changes 300 times."""
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
    """Normalised, two values are -1 and 1 whatever they were: all terms of the derivative cancel."""
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
