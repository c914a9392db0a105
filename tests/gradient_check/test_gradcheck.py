"""The gradient check: it passes what is right, and names the tensor and the element of what is wrong."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest

from cnnbp_cli.build import build
from cnnbp_cli.config.load import config_from_dict
from cnnbp_cli.core.layers import LAYERS, register
from cnnbp_cli.core.layers.dense import Dense
from cnnbp_cli.core.layers.norm import BatchNorm
from cnnbp_cli.gradient_check.check import gradcheck
from cnnbp_cli.model import ModelInputError

SHIPPED = frozenset(LAYERS)

TAIL = ["flatten", {"type": "dense", "units": 2}]


def network(layers, *, head="softmax", loss=None, dtype="float64", image=(1, 6, 6), target="auto"):
    config = {
        "dtype": dtype,
        "data": {"source": "synthetic", "kind": "bars", "target": target},
        "model": {"input": list(image), "head": head, "layers": layers},
    }
    return build(config_from_dict(config | ({"train": {"loss": loss}} if loss else {})))


def batch(count=4, image=(1, 6, 6), seed=1):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, *image)), rng.integers(0, 2, count)


def statuses(report):
    return {check.name: check.status for check in report.parameters}


def check_of(report, name):
    return next(check for check in report.parameters if check.name == name)


CONV = {"type": "conv2d", "filters": 4, "kernel_size": 3, "padding": "same"}

NETWORKS = {
    "conv2d": [CONV | {"padding": 1, "stride": 2, "dilation": 2, "groups": 1}, *TAIL],
    "conv2d-groups": [CONV, CONV | {"groups": 2, "bias": False}, *TAIL],
    "conv_transpose2d": [CONV, {"type": "conv_transpose2d", "filters": 2, "kernel_size": 3, "stride": 2}, *TAIL],
    "max_pool2d": [CONV, {"type": "max_pool2d", "pool_size": 3, "stride": 2, "padding": 1}, *TAIL],
    "avg_pool2d": [CONV, {"type": "avg_pool2d", "pool_size": [2, 3], "padding": "same"}, *TAIL],
    "global_avg_pool2d": [CONV, "global_avg_pool2d", {"type": "dense", "units": 2}],
    "global_max_pool2d": [CONV, "global_max_pool2d", {"type": "dense", "units": 2}],
    "flatten": TAIL,
    "dense": ["flatten", {"type": "dense", "units": 5, "bias": False}, "relu", {"type": "dense", "units": 2}],
    "batch_norm": [CONV, "batch_norm", "relu", *TAIL],
    "batch_norm-vector": ["flatten", {"type": "dense", "units": 5}, {"type": "batch_norm", "affine": False}, *TAIL],
    "layer_norm": [CONV, "layer_norm", *TAIL],
    "group_norm": [CONV, {"type": "group_norm", "groups": 2}, *TAIL],
    "dropout": [CONV, {"type": "dropout", "rate": 0.4}, *TAIL],
    "relu": [CONV, "relu", *TAIL],
    "leaky_relu": [CONV, {"type": "leaky_relu", "slope": 0.2}, *TAIL],
    "elu": [CONV, {"type": "elu", "alpha": 0.7}, *TAIL],
    "gelu": [CONV, "gelu", *TAIL],
    "silu": [CONV, "silu", *TAIL],
    "sigmoid": [CONV, "sigmoid", *TAIL],
    "tanh": [CONV, "tanh", *TAIL],
    "softplus": [CONV, "softplus", *TAIL],
    "softmax": [CONV, "softmax", *TAIL],
    "identity": [CONV, "identity", *TAIL],
    "add": [CONV | {"name": "a"}, "relu", {"type": "add", "inputs": ["relu_1", "a"]}, *TAIL],
    "add-broadcast": [
        *(CONV | {"name": "a"}, {"type": "conv2d", "filters": 1, "kernel_size": 1, "name": "b"}),
        *({"type": "add", "inputs": ["a", "b"]}, *TAIL),
    ],
    "adaptive_avg_pool2d": [CONV, {"type": "adaptive_avg_pool2d", "output_size": 4}, *TAIL],
    "upsample": [CONV, "upsample", {"type": "upsample", "size": 5, "mode": "bilinear"}, *TAIL],
    "pad": [CONV, {"type": "pad", "padding": [1, 0, 2, 1], "mode": "reflect"}, *TAIL],
    "crop": [CONV, {"type": "crop", "cropping": 1}, *TAIL],
    "pixel_shuffle": [CONV, {"type": "pixel_shuffle", "factor": 2}, *TAIL],
    "slice_channels": [CONV, {"type": "slice_channels", "start": 1}, *TAIL],
    "channel_shuffle": [CONV, {"type": "channel_shuffle", "groups": 2}, *TAIL],
    "local_response_norm": [CONV, {"type": "local_response_norm", "size": 3, "alpha": 0.5}, *TAIL],
    "relu6": [CONV, "relu6", *TAIL],
    "hard_sigmoid": [CONV, "hard_sigmoid", *TAIL],
    "hard_swish": [CONV, "hard_swish", *TAIL],
    "prelu": [CONV, "prelu", *TAIL],
    "gelu-exact": [CONV, {"type": "gelu", "approximate": "none"}, *TAIL],
    "concat": [CONV | {"name": "a"}, "relu", {"type": "concat", "inputs": ["relu_1", "a", "input"]}, *TAIL],
    "multiply": [CONV | {"name": "a"}, "sigmoid", {"type": "multiply", "inputs": ["sigmoid_1", "a", "a"]}, *TAIL],
}


def test_networks_cover_every_layer():
    assert {name.partition("-")[0] for name in NETWORKS} == SHIPPED


@pytest.mark.parametrize("layers", NETWORKS.values(), ids=NETWORKS.keys())
def test_passes_every_layer(layers):
    report = gradcheck(network(layers), *batch())
    assert set(statuses(report).values()) == {"ok"}
    assert report.ok
    assert report.method == "complex"
    assert report.tolerance == 1e-10
    assert report.max_relative_error < 1e-11


@pytest.mark.parametrize(
    ("head", "loss"),
    [
        ("softmax", "cross_entropy"),
        ("softmax", "mse"),
        ("sigmoid", "binary_cross_entropy"),
        ("sigmoid", "mse"),
        ("none", "mse"),
    ],
)
def test_passes_every_head_and_loss(head, loss):
    report = gradcheck(network([CONV, "relu", *TAIL], head=head, loss=loss), *batch())
    assert set(statuses(report).values()) == {"ok"}
    assert report.max_relative_error < 1e-11


def test_passes_an_autoencoder_without_labels():
    model = network([CONV | {"filters": 1}, "sigmoid"], head="none", target="image")
    report = gradcheck(model, batch()[0])
    assert set(statuses(report).values()) == {"ok"}


def test_lists_parameters_in_layer_order_then_the_input():
    report = gradcheck(network([CONV, "batch_norm", "relu", *TAIL]), *batch())
    assert [(check.name, check.shape, check.size) for check in report.parameters] == [
        ("conv2d_1.weight", [4, 1, 3, 3], 36),
        ("conv2d_1.bias", [4], 4),
        ("batch_norm_1.weight", [4], 4),
        ("batch_norm_1.bias", [4], 4),
        ("dense_1.weight", [2, 144], 288),
        ("dense_1.bias", [2], 2),
        ("input", [4, 1, 6, 6], 144),
    ]


def test_report_is_what_json_promises():
    report = gradcheck(network(TAIL), *batch(), directions=2, elements=3)
    record = json.loads(json.dumps(report.to_dict()))
    assert {"ok", "method", "max_relative_error", "tolerance", "step", "coverage", "parameters"} <= set(record)
    assert record["parameters"][1]["name"] == "dense_1.bias"
    assert {"name", "status", "relative_error", "checked", "worst_index"} <= set(record["parameters"][0])
    assert [check["checked"] for check in record["parameters"]] == [5, 4, 5]  # a bias of two has two elements
    assert len(record["parameters"][0]["worst_index"]) == 2
    assert len(record["parameters"][2]["worst_index"]) == 4


def test_elements_all_checks_every_one():
    report = gradcheck(network(TAIL), *batch(2), directions=1, elements="all")
    assert [check.checked for check in report.parameters] == [1 + 72, 1 + 2, 1 + 72]


def test_same_seed_checks_the_same_directions():
    model, data = network([CONV, "relu", *TAIL]), batch()
    first, again, other = (gradcheck(model, *data, seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert first != other


@dataclass(frozen=True, slots=True)
class BrokenDense(Dense):
    """A dense layer whose backward pass has one fault."""

    fault: str = "none"
    type: Literal["broken_dense"] = "broken_dense"

    def backward(self, params, residuals, dy, ctx):
        dx, grads = Dense.backward(self, params, residuals, dy, ctx)
        weight = grads["weight"]
        if self.fault == "weight scale":
            weight *= 1.001
        elif self.fault == "weight sign":
            weight *= -1
        elif self.fault == "weight element":
            weight[1, 7] *= 1.001
        elif self.fault == "bias sum":
            grads["bias"] = dy[:, 0]
        elif self.fault == "bias scale":
            grads["bias"] *= 1.001
        elif self.fault == "not finite":
            weight[0, 0] = np.nan
        elif self.fault == "dx scale":
            dx *= 1.001
        elif self.fault == "dx element":
            dx[13, 2] += 1e-3 * np.abs(dx).max()
        return dx, grads


@dataclass(frozen=True, slots=True)
class BrokenBatchNorm(BatchNorm):
    """Batch norm that is wrong in one mode, by 0.1%, in the gradient to its input."""

    wrong_in: str = "training"
    type: Literal["broken_batch_norm"] = "broken_batch_norm"

    def backward(self, params, residuals, dy, ctx):
        dx, grads = BatchNorm.backward(self, params, residuals, dy, ctx)
        return dx * (1.001 if ctx.training == (self.wrong_in == "training") else 1), grads


@pytest.fixture
def broken_layers():
    """Register the broken layers for one test."""
    for layer in (BrokenDense, BrokenBatchNorm):
        register(layer)
    yield
    for name in ("broken_dense", "broken_batch_norm"):
        del LAYERS[name]


def broken(fault, units=64):
    return network(
        [
            {"type": "conv2d", "name": "conv", "filters": 1, "kernel_size": 3, "padding": "same"},
            "flatten",
            {"type": "broken_dense", "name": "dense", "units": units, "fault": fault},
            "tanh",
            {"type": "dense", "name": "last", "units": 2},
        ]
    )


ALL = ("conv.weight", "conv.bias", "dense.weight", "dense.bias", "last.weight", "last.bias", "input")


@pytest.mark.usefixtures("broken_layers")
@pytest.mark.parametrize(
    ("fault", "wrong", "least_error"),
    [
        ("none", (), 0.0),
        ("weight scale", ("dense.weight",), 9e-4),
        ("weight sign", ("dense.weight",), 0.9),
        ("weight element", ("dense.weight",), 1e-10),
        ("bias sum", ("dense.bias",), 0.1),
        ("bias scale", ("dense.bias",), 9e-5),
        ("dx scale", ("conv.weight", "conv.bias", "input"), 1e-6),
        ("dx element", ("conv.weight", "conv.bias", "input"), 1e-8),
    ],
)
def test_names_the_tensors_that_are_wrong(fault, wrong, least_error):
    report = gradcheck(broken(fault), *batch())
    assert statuses(report) == {name: "wrong" if name in wrong else "ok" for name in ALL}
    assert report.ok == (not wrong)
    assert report.max_relative_error >= least_error
    for name in wrong:
        check = check_of(report, name)
        assert check.relative_error >= least_error
        assert check.analytic != check.numeric
        assert check.worst_index is not None


@pytest.mark.usefixtures("broken_layers")
@pytest.mark.parametrize("seed", range(3))
def test_finds_one_wrong_element_among_thousands(seed):
    report = gradcheck(broken("weight element"), *batch(), seed=seed, layer="dense")
    assert check_of(report, "dense.weight").worst_index == [1, 7]
    assert check_of(report, "dense.weight").size == 64 * 36


@pytest.mark.usefixtures("broken_layers")
def test_index_of_a_wrong_pixel_has_the_image_first():
    conv = {"type": "conv2d", "filters": 1, "kernel_size": 1, "bias": False}
    model = network([conv, "flatten", {"type": "broken_dense", "units": 2, "fault": "dx element"}])
    check = check_of(gradcheck(model, *batch()), "input")
    assert check.status == "wrong"
    assert check.worst_index == [2, 0, 2, 1]  # feature 13 of 6×6 is row 2, column 1


@pytest.mark.usefixtures("broken_layers")
def test_a_gradient_that_is_not_finite_is_wrong():
    with np.errstate(invalid="ignore"):
        report = gradcheck(broken("not finite"), *batch())
    assert statuses(report)["dense.weight"] == "wrong"
    assert report.max_relative_error == float("inf")


@pytest.mark.usefixtures("broken_layers")
@pytest.mark.parametrize("mode", ["training", "evaluation"])
def test_both_modes_of_batch_norm_are_checked(mode):
    layers = [CONV, {"type": "broken_batch_norm", "name": "norm", "wrong_in": mode}, "relu", *TAIL]
    report = gradcheck(network(layers), *batch())
    check = check_of(report, "conv2d_1.weight")
    assert (check.status, check.mode) == ("wrong", mode)
    assert statuses(report)["norm.weight"] == "ok"


def test_a_bias_before_batch_norm_is_no_error():
    report = gradcheck(network([CONV, "batch_norm", "relu", *TAIL]), *batch())
    check = check_of(report, "conv2d_1.bias")
    assert check.status == "ok"
    assert check.relative_error < 1e-12


@pytest.mark.parametrize("count", [1, 2, 4])
def test_gradients_that_normalization_cancels_are_no_error(count):
    """One value per group, or one sample per batch: every true gradient before it is zero."""
    groups_of_one = [CONV | {"kernel_size": 6, "padding": "valid"}, {"type": "group_norm", "groups": 4}]
    one_feature = ["flatten", {"type": "dense", "units": 1}, "layer_norm"]
    one_sample = ["flatten", {"type": "dense", "units": 5}, "batch_norm"]
    for layers in (groups_of_one, one_feature, one_sample):
        assert gradcheck(network([*layers, *TAIL]), *batch(count)).ok


@pytest.mark.parametrize("value", [0.0, 0.1, 1.0, 3.7])
@pytest.mark.parametrize("norm", ["batch_norm", "identity"])
def test_flat_images_tie_everywhere_and_are_no_error(value, norm):
    layers = [CONV, norm, "relu", {"type": "max_pool2d", "pool_size": 2}, CONV, "global_max_pool2d", *TAIL[1:]]
    images = np.full((4, 1, 6, 6), value)
    assert gradcheck(network(layers), images, np.array([0, 1, 1, 0])).ok


@pytest.mark.parametrize("scale", [10, 1e2, 1e3, 1e4])
@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "softmax", "silu", "gelu", "softplus", "elu"])
def test_saturated_units_are_no_error(activation, scale):
    images, labels = batch()
    for head, loss in (("softmax", "cross_entropy"), ("sigmoid", "binary_cross_entropy"), ("softmax", "mse")):
        layers = ["flatten", {"type": "dense", "units": 6}, activation, {"type": "dense", "units": 2}]
        assert gradcheck(network(layers, head=head, loss=loss), images * scale, labels).ok


def vanishing(depth, kind, **fields):
    """Return sigmoids one after the other: each takes a factor of four or more off the gradient."""
    first = {"type": kind, "units": 6, "init": {"type": "normal", "std": 0.5}, "name": "first"} | fields
    dense = {"type": "dense", "units": 6, "init": {"type": "normal", "std": 0.5}}
    hidden = [part for k in range(depth) for part in ("sigmoid", dense | {"name": f"hidden{k}"})]
    return network(["flatten", first, *hidden, {"type": "dense", "units": 2, "name": "last"}])


@pytest.mark.usefixtures("broken_layers")
@pytest.mark.parametrize(("depth", "size"), [(8, 1e-4), (20, 1e-12), (40, 2e-24)])
def test_vanishing_gradients_are_still_checked(depth, size):
    model, data = vanishing(depth, "dense"), batch()
    assert np.abs(model.loss_and_gradients(*data)[1]["first.weight"]).max() < size
    report = gradcheck(model, *data)
    assert set(statuses(report).values()) == {"ok"}
    wrong = gradcheck(vanishing(depth, "broken_dense", fault="weight scale"), *data)
    assert statuses(wrong) == statuses(report) | {"first.weight": "wrong"}


def test_dead_layers_have_zero_gradients_and_pass():
    model = network(["flatten", {"type": "dense", "name": "dead", "units": 5}, "relu", {"type": "dense", "units": 2}])
    model.set_parameters({"dead.bias": np.full(5, -100.0)})
    report = gradcheck(model, *batch())
    check = check_of(report, "dead.weight")
    assert (check.status, check.relative_error, check.analytic, check.numeric) == ("ok", 0.0, 0.0, 0.0)
    assert report.ok


def test_dropout_keeps_its_mask_during_the_check():
    layers = ["flatten", {"type": "dense", "units": 8}, {"type": "dropout", "rate": 0.5}, {"type": "dense", "units": 2}]
    report = gradcheck(network(layers), *batch())
    assert set(statuses(report).values()) == {"ok"}
    assert report.parameters[0].checked == 2 * 8  # in training mode and in evaluation mode


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_checks_in_float64_and_changes_nothing(dtype):
    model = network([CONV, "batch_norm", "relu", {"type": "dropout", "rate": 0.3}, *TAIL], dtype=dtype)
    images, labels = batch()
    before, vector, copies = model.parameters(), model.vector, (images.copy(), labels.copy())
    report = gradcheck(model, images, labels)
    assert report.max_relative_error < 1e-11
    assert model.vector is vector
    assert model.vector.dtype == dtype
    for name, value in model.parameters().items():
        np.testing.assert_array_equal(value, before[name])
    np.testing.assert_array_equal(images, copies[0])
    np.testing.assert_array_equal(labels, copies[1])


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({"layer": "conv2d_1"}, ["conv2d_1.weight", "conv2d_1.bias"]),
        ({"layer": "input"}, ["input"]),
        ({"parameter": "dense_1.bias"}, ["dense_1.bias"]),
        ({"parameter": "input"}, ["input"]),
        ({"layer": "dense_1", "parameter": "dense_1.bias"}, ["dense_1.bias"]),
    ],
)
def test_filters_choose_what_is_checked(filters, names):
    report = gradcheck(network([CONV, "relu", *TAIL]), *batch(), **filters)
    assert list(statuses(report)) == names


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        (
            {"parameter": "dense_1.wait"},
            "there is no parameter 'dense_1.wait'; expected one of: conv2d_1.weight, conv2d_1.bias, dense_1.weight, "
            "dense_1.bias, input",
        ),
        ({"layer": "relu_1"}, "there is no layer 'relu_1' with parameters; expected one of: conv2d_1, dense_1, input"),
    ],
)
def test_unknown_names_are_errors(filters, message):
    with pytest.raises(ModelInputError) as caught:
        gradcheck(network([CONV, "relu", *TAIL]), *batch(), **filters)
    assert str(caught.value) == message


def test_no_images_is_an_error():
    with pytest.raises(ModelInputError) as caught:
        gradcheck(network(TAIL), np.zeros((0, 1, 6, 6)), np.zeros(0, int))
    assert str(caught.value) == "expected one image or more, got none"


def test_tolerance_decides():
    model, data = network([CONV, "tanh", *TAIL]), batch()
    assert gradcheck(model, *data, tolerance=1e-12).ok
    strict = gradcheck(model, *data, tolerance=0.0)
    assert strict.tolerance == 0.0
    assert strict.max_relative_error == 0.0  # rounding is told apart from faults whatever the tolerance
    assert set(statuses(strict).values()) <= {"ok", "noise"}
