"""The error function against Python's own, and the corners of the piecewise activations against PyTorch's."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cnnbp_cli.core.erf import erf
from cnnbp_cli.core.layers import HardSigmoid, HardSwish, Relu6
from cnnbp_cli.core.types import Context

POINTS = np.concatenate([np.linspace(-9, 9, 4001), [0.0, 1.0, -1.0, 8.0, -8.0, 1e-300, 1e300, np.inf, -np.inf]])


def test_it_is_pythons_to_the_last_digit_or_two() -> None:
    expected = np.array([math.erf(x) for x in POINTS])
    np.testing.assert_allclose(erf(POINTS), expected, rtol=5e-16, atol=0)
    assert np.isnan(erf(np.array([np.nan]))).all()
    assert math.copysign(1, float(erf(np.array(-0.0)))) == -1


def test_its_imaginary_steps_give_the_derivative() -> None:
    finite = POINTS[np.abs(POINTS) < 1e9]
    slopes = erf(finite + 1e-30j).imag / 1e-30
    np.testing.assert_allclose(slopes, 2 / math.sqrt(math.pi) * np.exp(-finite * finite), rtol=1e-13, atol=2e-15)


def test_float32_stays_float32() -> None:
    points = np.where(np.abs(POINTS) < 1e30, POINTS, 0).astype(np.float32)
    values = erf(points)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, erf(points.astype(np.float64)), rtol=0, atol=2e-7)


@pytest.mark.parametrize("layer", [Relu6(), HardSigmoid(), HardSwish()], ids=lambda layer: layer.type)
def test_corners_are_pytorchs(layer) -> None:
    torch = pytest.importorskip("torch")
    x = np.array([[-4.0, -3.0, -1.0, 0.0, 1.0, 3.0, 4.0, 6.0, 7.0]])
    functions = {"relu6": "relu6", "hard_sigmoid": "hardsigmoid", "hard_swish": "hardswish"}
    tensor = torch.tensor(x, requires_grad=True)
    theirs = getattr(torch.nn.functional, functions[layer.type])(tensor)
    theirs.sum().backward()
    y, residuals = layer.forward({}, x, Context())
    dx, _ = layer.backward({}, residuals, np.ones_like(x), Context())
    np.testing.assert_allclose(y, theirs.detach().numpy(), atol=1e-7)
    np.testing.assert_allclose(dx, tensor.grad.numpy(), atol=1e-7)
