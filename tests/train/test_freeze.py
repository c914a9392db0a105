"""Frozen layers: training leaves their parameters and running statistics alone, and all else learns as ever."""

from __future__ import annotations

import numpy as np
import pytest

import cnnbp_cli as cnnbp
from cnnbp_cli.build import build
from cnnbp_cli.config.errors import ConfigError
from cnnbp_cli.config.load import config_from_dict
from cnnbp_cli.core.layers.conv import Conv2d
from cnnbp_cli.errors import UserError
from cnnbp_cli.train.fit import fit

LAYERS = [
    {"type": "conv2d", "name": "conv1", "filters": 3, "kernel_size": 3, "padding": "same"},
    {"type": "batch_norm", "name": "norm1"},
    "relu",
    {"type": "conv2d", "name": "conv2", "filters": 4, "kernel_size": 3},
    {"type": "dropout", "rate": 0.5},
    "relu",
    "global_avg_pool2d",
    {"type": "dense", "name": "top", "units": 2},
]


def made(freeze=(), layers=LAYERS, **train):
    """Return a small model and its data."""
    data = {"source": "synthetic", "kind": "bars", "train": 24, "test": 0}
    model = {"input": [1, 6, 6], "layers": layers, "freeze": list(freeze)}
    train = {"epochs": 2, "batch_size": 8, "workers": 1, **train}
    config = config_from_dict({"name": "small", "dtype": "float64", "data": data, "model": model, "train": train})
    return build(config), cnnbp.load_data(config)


def trained(*arguments, **train):
    """Return the parameters before and after training."""
    model, data = made(*arguments, **train)
    before = model.parameters()
    list(fit(model, data))
    return before, model.parameters()


def changed(before, after):
    return {name.split(".")[0] for name in before if not np.array_equal(before[name], after[name])}


@pytest.mark.parametrize(
    ("freeze", "learning"),
    [
        ([], {"conv1", "norm1", "conv2", "top"}),
        (["conv1"], {"norm1", "conv2", "top"}),
        (["*1"], {"conv2", "top"}),
        (["norm1", "top"], {"conv1", "conv2"}),
    ],
)
def test_frozen_layers_stay_to_the_bit_and_the_others_learn(freeze, learning):
    assert changed(*trained(freeze)) == learning


def test_a_key_of_the_layer_is_the_same_as_a_pattern():
    marked = [{**LAYERS[0], "trainable": False}, *LAYERS[1:]]
    _, by_key = trained((), marked)
    _, by_pattern = trained(["conv1"])
    assert all(np.array_equal(by_key[name], by_pattern[name]) for name in by_key)


def test_two_workers_agree_with_one():
    _, one = trained(["*1"])
    _, two = trained(["*1"], workers=2)
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, rtol=1e-12, atol=1e-14, err_msg=name)


def test_gradients_of_the_rest_are_those_of_the_whole_network():
    images, labels = np.random.default_rng(0).normal(size=(5, 1, 6, 6)), np.array([0, 1, 1, 0, 1])
    loss, gradients = made()[0].loss_and_gradients(images, labels)
    frozen_loss, frozen = made(["conv*"])[0].loss_and_gradients(images, labels)
    assert frozen_loss == loss
    assert list(frozen) == ["norm1.weight", "norm1.bias", "top.weight", "top.bias", "input"]
    assert all(np.array_equal(frozen[name], gradients[name]) for name in frozen)


def test_gradients_through_a_frozen_batch_norm_are_right():
    model, data = made(["norm1"])
    images, labels = data.normalization.apply(data.train.images[:4], np.float64), data.train.labels[:4]
    report = cnnbp.gradcheck(model, images, labels)
    assert report.ok
    assert not any(entry.name.startswith("norm1") for entry in report.parameters)


def test_no_pass_goes_back_where_nothing_learns(monkeypatch):
    seen = []
    backward = Conv2d.backward
    monkeypatch.setattr(
        Conv2d, "backward", lambda self, params, *rest: seen.append(self.filters) or backward(self, params, *rest)
    )
    trained(["conv1", "norm1"], epochs=1)
    assert set(seen) == {4}


def test_a_summary_counts_what_is_frozen():
    found = cnnbp.summary(made(["*1"])[0])
    frozen = {layer.name: layer.parameters - layer.trainable_parameters for layer in found.layers}
    assert {name: count for name, count in frozen.items() if count} == {"conv1": 30, "norm1": 12}
    assert found.trainable_parameters == 3 * 4 * 9 + 4 + 10


def test_a_pattern_that_means_no_layer_is_named():
    with pytest.raises(ConfigError, match=r"no layer with parameters is called 'tops', did you mean 'top'\?"):
        made(["tops"])


def test_a_layer_without_parameters_cannot_be_frozen():
    with pytest.raises(ConfigError, match=r"layer dropout_1 \(dropout\) has no parameters to freeze"):
        made((), [*LAYERS[:4], {"type": "dropout", "rate": 0.5, "trainable": False}, *LAYERS[5:]])


def test_it_is_complained_about_once_where_others_share_it():
    frozen = {"type": "dropout", "rate": 0.5, "trainable": False}
    with pytest.raises(ConfigError) as caught:
        made((), [*LAYERS[:4], frozen, {"share": "dropout_1"}, *LAYERS[5:]])
    assert [problem.message for problem in caught.value.problems] == [
        "layer dropout_1 (dropout) has no parameters to freeze"
    ]


def test_frozen_altogether_there_is_nothing_to_train():
    with pytest.raises(UserError, match="nothing to train"):
        trained(["*"])
