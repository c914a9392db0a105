"""Central differences: what agrees, and what tells a kink, rounding and a fault apart where they do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest

from cnnbp_cli.core.layers.activation import Elu, LeakyRelu, Relu
from cnnbp_cli.core.layers.dense import Dense
from cnnbp_cli.core.layers.pool import GlobalMaxPool2d, MaxPool2d
from cnnbp_cli.core.types import Context, Layer
from cnnbp_cli.gradient_check.check import gradcheck
from cnnbp_cli.model import ModelInputError

CONV = {"type": "conv2d", "name": "conv", "filters": 3, "kernel_size": 3, "padding": "same"}
OUT = {"type": "dense", "name": "out", "units": 2}
UNIT = {"type": "dense", "name": "unit", "units": 1}
PIXEL = (1, 1, 1)


def central(model, images, labels=None, **options):
    report = gradcheck(model, images, labels, method="central", **options)
    return {check.name: check for check in report.parameters}, report


def one_unit(network, activation, z, **values):
    """Return a network whose one hidden unit sees z, and its image."""
    model = network("flatten", UNIT, activation, OUT, image=PIXEL, unit__weight=[[1.0]], unit__bias=[z - 1.0], **values)
    return model, np.ones((1, *PIXEL)), np.zeros(1, int)


@pytest.mark.parametrize(
    "layers",
    [
        [CONV, "tanh", "flatten"],
        [CONV, "relu", {"type": "max_pool2d", "pool_size": 2}, "flatten"],
        [CONV, "batch_norm", "elu", "global_max_pool2d"],
        [CONV, {"type": "dropout", "rate": 0.5}, "leaky_relu", "flatten"],
        [CONV, "layer_norm", "gelu", {"type": "avg_pool2d", "pool_size": 3}, "flatten"],
    ],
    ids=lambda layers: "-".join(layer if isinstance(layer, str) else layer["type"] for layer in layers[1:-1]),
)
def test_confirms_what_is_right(network, batch, layers):
    _, report = central(network(*layers, OUT), *batch(), elements="all", directions=2)
    assert report.ok
    assert report.coverage > 90
    assert 1e-13 < report.max_relative_error <= 1e-5  # fewer digits than complex steps have


def test_report_says_how_it_was_done(network, batch):
    model, data = network(CONV, "tanh", "flatten", OUT), batch()
    _, report = central(model, *data)
    record = report.to_dict()
    assert {key: record[key] for key in ("ok", "method", "step", "dtype", "tolerance", "modes")} == {
        "ok": True,
        "method": "central",
        "step": 1e-5,
        "dtype": "float64",
        "tolerance": 1e-5,
        "modes": ["training"],
    }
    assert {"kinks": 0, "noise": 0, "coverage": 100.0, "explanation": None}.items() <= record["parameters"][0].items()


# ---------------------------------------------------------------- kinks

KINKY = {
    "relu": "relu",
    "leaky_relu": {"type": "leaky_relu", "slope": 0.2},
    "elu": {"type": "elu", "alpha": 0.5},
}


@pytest.mark.parametrize("activation", KINKY.values(), ids=KINKY)
@pytest.mark.parametrize("z", [0.0, 3e-6, -3e-6, 1e-9])
def test_a_branch_that_switches_within_the_step_is_a_kink(network, activation, z):
    checks, report = central(*one_unit(network, activation, z))
    expected = {"unit.weight": "kink", "unit.bias": "kink", "out.bias": "ok", "input": "kink"}
    assert {name: checks[name].status for name in expected} == expected
    assert checks["unit.bias"].kinks == checks["unit.bias"].checked
    assert checks["unit.bias"].coverage == 0.0
    assert checks["unit.bias"].explanation is None
    assert report.ok
    assert gradcheck(*one_unit(network, activation, z)).max_relative_error < 1e-12  # a complex step crosses nothing


def test_a_step_that_stays_on_one_side_meets_no_kink(network):
    checks, _ = central(*one_unit(network, "relu", 3e-6), step=1e-6)
    assert checks["unit.bias"].status == "ok"


@pytest.mark.parametrize(
    "pool", [{"type": "max_pool2d", "pool_size": 2}, {"type": "max_pool2d", "pool_size": 3, "stride": 1}]
)
def test_tied_pixels_are_a_kink(network, pool):
    model = network(pool, "flatten", OUT, image=(1, 4, 4))
    checks, report = central(model, np.full((2, 1, 4, 4), 0.3), np.array([0, 1]), elements="all")
    assert checks["input"].status == "kink"
    assert checks["out.weight"].status == "ok"
    assert report.ok


def test_a_tied_global_maximum_is_a_kink(network):
    model = network({**CONV, "filters": 2, "bias": False}, "global_max_pool2d", OUT, image=(1, 4, 4))
    checks, report = central(model, np.full((2, 1, 4, 4), 0.3), np.array([0, 1]), elements="all")
    assert checks["input"].kinks > 0
    assert report.ok


@dataclass(frozen=True, slots=True)
class Absolute(Layer):
    """y = |x|, without a word about its kink."""

    type: Literal["absolute"] = "absolute"

    def forward(self, params, x, ctx):
        return np.abs(x), x

    def backward(self, params, residuals, dy, ctx):
        return np.where(residuals < 0, -dy, dy), {}


@pytest.mark.parametrize("z", [0.0, 1e-7, -3e-6])
def test_two_slopes_give_a_silent_kink_away(network, registered, z):
    registered(Absolute)
    checks, report = central(*one_unit(network, "absolute", z))
    assert checks["unit.bias"].status == "kink"
    assert report.ok


# ---------------------------------------------------------------- faults


@dataclass(frozen=True, slots=True)
class Scaled(Dense):
    """A dense layer whose weight gradient has a factor."""

    factor: float = 1.001
    type: Literal["scaled"] = "scaled"

    def backward(self, params, residuals, dy, ctx):
        dx, grads = Dense.backward(self, params, residuals, dy, ctx)
        return dx, grads | {"weight": grads["weight"] * self.factor}


@pytest.mark.parametrize("z", [0.5, 3e-6, 1e-7])
def test_a_kink_nearby_hides_no_fault(network, registered, z):
    registered(Scaled)
    model = network(
        *("flatten", UNIT | {"type": "scaled"}, "relu", OUT),
        image=PIXEL,
        unit__weight=[[1.0]],
        unit__bias=[z - 1.0],
    )
    checks, report = central(model, np.ones((1, *PIXEL)), np.zeros(1, int))
    assert checks["unit.weight"].status == "wrong"
    assert not report.ok


@pytest.mark.parametrize("factor", [1.001, 0.5, -1, 0])
def test_finds_a_wrong_factor(network, batch, registered, factor):
    registered(Scaled)
    model = network("flatten", {"type": "scaled", "name": "bad", "units": 5, "factor": factor}, "tanh", OUT)
    checks, report = central(model, *batch())
    assert [name for name, check in checks.items() if check.status == "wrong"] == ["bad.weight"]
    assert not report.ok
    assert checks["bad.weight"].worst_index is not None


# ---------------------------------------------------------------- noise and truncation


def test_a_bias_before_batch_norm_is_noise(network, batch):
    checks, report = central(network(CONV, "batch_norm", "tanh", "flatten", OUT), *batch(), elements="all")
    bias = checks["conv.bias"]
    assert bias.status == "noise"  # zero in training, where batch norm takes it away; real in evaluation
    assert bias.noise >= 5
    assert bias.kinks == 0
    assert 0 < bias.coverage < 100
    assert report.ok
    assert report.modes == ["training", "evaluation"]


def test_a_dead_network_has_zeros_on_both_sides(network, batch):
    model = network("flatten", UNIT, "relu", OUT, unit__bias=[-100.0])
    checks, report = central(model, *batch())
    assert (checks["unit.weight"].analytic, checks["unit.weight"].numeric) == (0.0, 0.0)
    assert checks["unit.weight"].status == "ok"
    assert report.ok


def test_gradients_below_the_rounding_are_noise(network, batch):
    model = network(
        "flatten", {"type": "dense", "name": "tiny", "units": 3}, "tanh", OUT, out__weight=[[1e-12] * 3, [-1e-12] * 3]
    )
    checks, report = central(model, *batch())
    assert checks["tiny.weight"].status == "noise"
    assert checks["tiny.weight"].coverage == 0.0
    assert report.ok


@pytest.mark.parametrize("step", [1e-3, 1e-2])
def test_truncation_is_no_fault(network, batch, step):
    model = network(CONV, "tanh", "flatten", OUT)
    checks, report = central(model, *batch(), step=step)
    assert {check.status for check in checks.values()} == {"ok"}
    assert report.ok


def test_single_precision_shows_why_it_is_not_enough(network, batch):
    model, data = network(CONV, "tanh", "flatten", {"type": "dense", "name": "mid", "units": 20}, "tanh", OUT), batch()
    _, double = central(model, *data, elements=50)
    _, single = central(model, *data, elements=50, dtype="float32")
    assert single.ok
    assert (single.dtype, single.step, single.tolerance) == ("float32", 1e-2, 1e-2)
    assert single.max_relative_error > 1e3 * double.max_relative_error
    assert single.coverage < double.coverage


# ---------------------------------------------------------------- what layers report

RELUS = np.array([[-1.0, 0.0, 2.0]])


@pytest.mark.parametrize("layer", [Relu(), LeakyRelu(), Elu()], ids=lambda layer: layer.type)
def test_activations_report_the_units_that_are_on(layer):
    _, residuals = layer.forward({}, RELUS, Context())
    np.testing.assert_array_equal(layer.branches(residuals), [[False, False, True]])


def test_pools_report_the_first_winner():
    x = np.array([[1.0, 3.0, 2.0, 2.0], [3.0, 0.0, 1.0, 2.0]])[None, :, :, None]
    pool = MaxPool2d(2)
    _, residuals = pool.forward({}, x, Context())
    np.testing.assert_array_equal(pool.branches(residuals)[0, :, :, 0], [[1, 0]])
    whole = GlobalMaxPool2d()
    _, residuals = whole.forward({}, x, Context())
    np.testing.assert_array_equal(whole.branches(residuals).ravel(), [1])


def test_smooth_layers_report_nothing():
    assert Dense(1).branches(RELUS) is None


# ---------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "forward"}, "unknown method 'forward', expected one of: complex, central"),
        ({"dtype": "float16"}, "unknown dtype 'float16', expected one of: float64, float32"),
        ({"step": 1e-3}, "complex steps need no step length: a step only applies to the method central"),
        (
            {"dtype": "float32"},
            "complex steps always use double precision: float32 only applies to the method central",
        ),
        ({"method": "central", "step": 0.0}, "expected a step above 0, got 0"),
        ({"method": "central", "step": float("nan")}, "expected a step above 0, got nan"),
    ],
)
def test_options_that_do_not_go_together(network, batch, options, message):
    with pytest.raises(ModelInputError) as caught:
        gradcheck(network("flatten", OUT), *batch(), **options)
    assert str(caught.value) == message
