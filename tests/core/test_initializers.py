"""Initializers: their distributions, and the fans that the layers tell them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from cnnbp_cli.core.initializers import (
    Constant,
    GlorotNormal,
    GlorotUniform,
    HeNormal,
    HeUniform,
    LecunNormal,
    Normal,
    Orthogonal,
    Zeros,
)
from cnnbp_cli.core.layers import Conv2d, ConvTranspose2d, Dense
from cnnbp_cli.core.types import FieldErrors

SHAPE, FAN_IN, FAN_OUT = (400, 500), 500, 400


def draw(initializer, shape=SHAPE, seed=0):
    return initializer(np.random.default_rng(seed), shape, FAN_IN, FAN_OUT)


@pytest.mark.parametrize(
    ("initializer", "variance"),
    [
        (HeNormal(), 2 / FAN_IN),
        (HeUniform(), 2 / FAN_IN),
        (GlorotNormal(), 2 / (FAN_IN + FAN_OUT)),
        (GlorotUniform(), 2 / (FAN_IN + FAN_OUT)),
        (LecunNormal(), 1 / FAN_IN),
        (Normal(0.3), 0.09),
    ],
    ids=lambda value: getattr(value, "type", ""),
)
def test_the_variance_is_the_one_announced_around_a_mean_of_zero(initializer, variance):
    weights = draw(initializer)
    assert weights.dtype == np.float64
    assert abs(weights.mean()) < 5 * np.sqrt(variance / weights.size)
    assert abs(weights.var() / variance - 1) < 5 * np.sqrt(2 / weights.size)


@pytest.mark.parametrize(
    ("initializer", "limit"),
    [(HeUniform(), np.sqrt(6 / FAN_IN)), (GlorotUniform(), np.sqrt(6 / (FAN_IN + FAN_OUT)))],
    ids=["he_uniform", "glorot_uniform"],
)
def test_uniform_draws_reach_their_limit_and_not_further(initializer, limit):
    weights = draw(initializer)
    assert 0.999 * limit < np.abs(weights).max() <= limit


@pytest.mark.parametrize("shape", [(5, 12), (12, 5), (6, 6), (4, 3, 2, 2), (30, 1, 3, 3), (1, 1)])
def test_orthogonal_rows_or_columns_are_orthonormal(shape):
    weights = draw(Orthogonal(), shape)
    assert weights.shape == shape
    matrix = weights.reshape(shape[0], -1)
    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-13)


def test_orthogonal_draws_have_no_preferred_sign():
    signs = [np.sign(draw(Orthogonal(), (3, 3), seed).trace()) for seed in range(400)]
    assert abs(np.mean(signs)) < 0.2


def test_constants_and_zeros():
    np.testing.assert_array_equal(draw(Constant(3), (2, 3)), np.full((2, 3), 3.0))
    np.testing.assert_array_equal(draw(Zeros(), (2, 3)), np.zeros((2, 3)))
    assert draw(Constant(3), (2, 3)).dtype == np.float64


def test_a_negative_standard_deviation_is_refused():
    with pytest.raises(FieldErrors) as error:
        Normal(-0.1)
    assert error.value.problems == [("std", "expected 0 or more, got -0.1")]


@dataclass(frozen=True)
class Spy:
    """An initializer that writes down what it is asked for."""

    asked: list[tuple[tuple[int, ...], int, int]] = field(default_factory=list)

    def __call__(self, rng, shape, fan_in, fan_out):
        self.asked.append((shape, fan_in, fan_out))
        return np.zeros(shape)


@pytest.mark.parametrize(
    ("make", "in_shape", "expected"),
    [
        (lambda spy: Dense(5, init=spy), (7,), ((5, 7), 7, 5)),
        (lambda spy: Conv2d(8, (3, 5), init=spy), (4, 9, 9), ((8, 4, 3, 5), 4 * 15, 8 * 15)),
        (lambda spy: Conv2d(8, 3, groups=4, init=spy), (4, 9, 9), ((8, 1, 3, 3), 9, 2 * 9)),
        (lambda spy: ConvTranspose2d(6, 3, init=spy), (4, 5, 5), ((4, 6, 3, 3), 4 * 9, 6 * 9)),
        (lambda spy: ConvTranspose2d(6, 4, stride=2, init=spy), (4, 5, 5), ((4, 6, 4, 4), 4 * 4, 6 * 16)),
    ],
    ids=["dense", "conv2d", "depthwise", "conv_transpose2d", "conv_transpose2d-strided"],
)
def test_layers_count_the_connections_of_one_unit(make, in_shape, expected):
    spy = Spy()
    make(spy).init_params(np.random.default_rng(0), in_shape)
    assert spy.asked == [expected]


@pytest.mark.parametrize("layer", [Dense(400), Conv2d(400, 3, padding="same")], ids=["dense", "conv2d"])
def test_the_default_keeps_the_second_moment_through_relu(layer):
    rng = np.random.default_rng(0)
    shape = (500,) if isinstance(layer, Dense) else (64, 8, 8)
    weight = layer.init_params(rng, shape)["weight"]
    fan_in = weight[0].size
    before = np.maximum(rng.normal(size=(fan_in, 2000)), 0)
    after = np.maximum(weight.reshape(len(weight), -1) @ before, 0)
    assert abs((after * after).mean() / (before * before).mean() - 1) < 0.1
