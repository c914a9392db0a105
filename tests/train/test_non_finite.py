"""Values that become NaN or infinite: the run names the first of them, and what it has saved stays good."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from cnnbp_cli.data.dataset import DataError
from cnnbp_cli.data.normalization import Normalization
from cnnbp_cli.data.split import Split
from cnnbp_cli.loading import load, load_data
from cnnbp_cli.train.checkpoint import Checkpoint
from cnnbp_cli.train.events import NonFinite, StepDone
from cnnbp_cli.train.fit import fit
from cnnbp_cli.train.run_directory import RunDirectory

RAW = Normalization("none", (0.0,), (1.0,))


def steps(events):
    return [event.step for event in events if isinstance(event, StepDone)]


def with_images(data, change):
    """Return the data with images as raw floats that `change` has spoilt."""
    images = data.train.images.astype(np.float64)
    change(images)
    return replace(data, train=Split(images, data.train.labels), normalization=RAW)


def plant(value):
    return lambda images: images.__setitem__((slice(None), 0, 2, 3), value)


@pytest.mark.parametrize(
    ("dtype", "rate", "layer", "where", "step"),
    [
        ("float32", 1e30, "last", "output", 2),  # 1e30 weights of the convolution times 1e30 weights of the last layer
        ("float64", 1e200, "last", "output", 2),
        ("float32", 1e300, "conv", "parameters", 1),
    ],
)
def test_a_learning_rate_far_too_high(setup, run, dtype, rate, layer, where, step):
    optimizer = f"train.optimizer={{type: sgd, learning_rate: {rate}, momentum: 0.9}}"
    overrides = (f"dtype={dtype}", "model.layers.norm={type: identity, name: norm}")
    model, data = setup(optimizer, *overrides)
    events = list(fit(model, data, run=run))
    bad = events[-1]
    assert isinstance(bad, NonFinite)
    assert (bad.step, bad.layer, bad.where) == (step, layer, where)
    assert steps(events) == list(range(1, step))
    assert bad.checkpoint == str(run / "checkpoints" / "step-00000000.npz")
    start, _ = setup(*overrides)
    for name, value in load(run).parameters().items():
        np.testing.assert_array_equal(value, start.parameters()[name])


def test_an_update_that_spoils_the_last_step_of_an_epoch_is_not_saved(setup, run):
    """One step is an epoch here: the update after the only good loss is infinite."""
    model, data = setup("train.optimizer={type: sgd, learning_rate: 1e300}", "train.batch_size=44", "train.epochs=1")
    events = list(fit(model, data, run=run))
    assert [event.event for event in events] == ["started", "checkpoint", "non_finite"]
    bad = events[-1]
    assert (bad.step, bad.layer, bad.where) == (1, "conv", "parameters")
    assert math.isfinite(bad.loss)
    (only,) = RunDirectory(run).checkpoints()
    assert bad.checkpoint == str(only)
    assert all(np.isfinite(value).all() for value in Checkpoint.read(only).parameters.values())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["conv.weight", "norm.bias", "norm.running_var", "last.bias"])
def test_a_bad_parameter(setup, name, value):
    model, data = setup()
    planted = model.parameters()[name]
    planted.flat[-1] = value
    model.set_parameters({name: planted})
    events = list(fit(model, data))
    assert (events[-1].step, events[-1].layer, events[-1].where) == (1, name.partition(".")[0], "parameters")
    assert len(events) == 2


def test_a_parameter_that_goes_bad_in_the_middle_of_a_run(setup, run):
    model, data = setup("train.epochs=3")
    events = fit(model, data, run=run)
    seen = []
    for event in events:
        seen.append(event)
        if isinstance(event, StepDone) and event.step == 8:
            model.set_parameters({"last.bias": np.array([np.nan, 0], np.float32)})
    bad = seen[-1]
    assert isinstance(bad, NonFinite)
    assert (bad.step, bad.layer, bad.where) == (9, "last", "parameters")
    assert bad.checkpoint == str(run / "checkpoints" / "step-00000006.npz")
    assert Checkpoint.read(RunDirectory(run).checkpoints()[0]).progress["step"] == 6

    resumed, _ = setup("train.epochs=3")
    list(fit(resumed, data, run=run, resume=True))
    straight, _ = setup("train.epochs=3")
    list(fit(straight, data))
    np.testing.assert_array_equal(resumed.vector, straight.vector)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_a_bad_pixel(setup, value):
    """1e300 is no float32: it becomes infinite on the way to the first layer."""
    model, data = setup()
    events = list(fit(model, with_images(data, plant(value))))
    assert (events[-1].step, events[-1].layer, events[-1].where) == (1, "input", "output")
    assert math.isnan(events[-1].loss) or math.isinf(events[-1].loss)


def test_a_pixel_so_large_that_the_first_layer_overflows(setup):
    model, data = setup(
        "model.layers.norm={type: identity, name: norm}", "model.layers.conv.init={type: constant, value: 9}"
    )
    events = list(fit(model, with_images(data, plant(3e38))))
    assert (events[-1].step, events[-1].layer, events[-1].where) == (1, "conv", "output")


def test_a_bad_pixel_in_a_file_is_refused_when_it_is_read(setup, tmp_path):
    images = np.random.default_rng(0).normal(size=(20, 1, 6, 6))
    images[7, 0, 1, 2] = np.nan
    path = tmp_path / "images.npz"
    np.savez(path, x_train=images, y_train=np.arange(20) % 2)
    with pytest.raises(DataError) as caught:
        setup(f"data={{source: npz, path: {path}}}")
    assert str(caught.value) == f"{path}: x_train: image 7 has a pixel that is not finite; remove or replace it"


def test_a_bad_target(tmp_path, setup):
    path = tmp_path / "images.npz"
    rng = np.random.default_rng(0)
    np.savez(path, x_train=rng.normal(size=(20, 1, 6, 6)), y_train=rng.normal(size=(20, 2)))
    model, data = setup(f"data={{source: npz, path: {path}}}", "model.head=none")
    data.train.labels[:] = np.nan
    events = list(fit(model, load_data(model)))
    assert isinstance(events[1], StepDone)
    events = list(fit(model, data))
    assert (events[-1].step, events[-1].layer, events[-1].where) == (1, "loss", "loss")


def test_a_gradient_that_overflows_behind_a_finite_loss(setup):
    """Outputs near 1e17 have finite squares in float32, but 1e17 times the weights of 1e25 is infinite."""
    model, data = setup(
        "model.head=none",
        "model.layers.norm={type: identity, name: norm}",
        "model.layers.last.init={type: constant, value: 1e25}",
        "model.layers.conv.init={type: constant, value: 1e-9}",
    )
    events = list(fit(model, data))
    bad = events[-1]
    assert (bad.step, bad.layer, bad.where) == (1, "dropout_1", "gradient")
    assert math.isfinite(bad.loss)


def test_running_statistics_that_overflow(setup):
    """A variance beyond float32 divides everything to zero: the loss stays finite, the statistics do not."""
    model, data = setup()
    events = list(fit(model, with_images(data, plant(1e25))))
    bad = events[-1]
    assert isinstance(bad, NonFinite)
    assert bad.step == 1
    assert bad.layer == "norm"
