"""Every config that is shipped: what it is said to be, proven gradients, and a run that can be read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import cnnbp_cli as cnnbp
from cnnbp_cli.build import build_graph
from cnnbp_cli.config.load import load_config
from cnnbp_cli.core.parameters import Layout
from cnnbp_cli.train.events import CheckpointSaved, EpochDone, LayersWatched, RunFinished, RunStarted, StepDone

CONFIGS = Path(__file__).parents[1] / "configs"

# Name: trainable values, running statistics.
TOTALS = {
    "allconv": (160 + 2_320 + 4_640 + 9_248 + 330, 0),
    "autoencoder": (80 + 292 + 520 + 129, 0),
    "depthwise": (144 + 32 + 144 + 32 + 512 + 64 + 288 + 64 + 2_048 + 128 + 650, 2 * (16 + 16 + 32 + 32 + 64)),
    "keras-mnist": (34_826, 0),
    "lenet5": (61_706, 0),
    "pytorch-mnist": (1_199_882, 0),
    "resnet-mini": (144 + 2 * 2_304 + 4_608 + 9_216 + 512 + 2 * (3 * 16 + 3 * 32) + 330, 2 * (3 * 16 + 3 * 32)),
    "toy": (10 + 5, 0),
    "vgg-bn": (65_834, 2 * (32 + 32 + 64 + 64)),
}

every_config = pytest.mark.parametrize("name", TOTALS)


def config_path(name):
    return CONFIGS / f"{name}.yaml"


def small(name, *overrides):
    """Load a config with one batch of training images, which every step then sees."""
    size = "train=12, test=8" if name == "toy" else "limit={train: 12, test: 8}"
    sizes = [f"data.{part}" for part in (size.split(", ") if name == "toy" else [size])]
    fixed = ["data.validation=0", "data.augment=null", "train.batch_size=12", "train.max_steps=3"]
    return cnnbp.load(config_path(name), overrides=[*sizes, *fixed, *overrides])


def test_these_are_all_configs():
    assert sorted(path.stem for path in CONFIGS.glob("*.yaml")) == sorted(TOTALS)


@every_config
def test_is_complete_by_itself(name):
    config = load_config(config_path(name))
    assert config.name == name
    assert config.data.source in ("mnist-subset", "synthetic")  # nothing to download


@every_config
def test_parameter_totals(name):
    graph = build_graph(load_config(config_path(name)))
    trainable, statistics = TOTALS[name]
    assert Layout(graph).size == trainable
    shapes = [shape for shapes in graph.param_shapes.values() for shape in shapes.values()]
    assert sum(int(np.prod(shape)) for shape in shapes) == trainable + statistics


@every_config
def test_summary_has_the_totals(name):
    summary = cnnbp.summary(cnnbp.load(config_path(name))).to_dict()
    trainable, statistics = TOTALS[name]
    assert summary["name"] == name
    assert summary["trainable_parameters"] == trainable
    assert summary["total_parameters"] == trainable + statistics
    assert sum(layer["parameters"] for layer in summary["layers"]) == trainable + statistics


def test_shapes_of_the_toy():
    graph = build_graph(load_config(config_path("toy")))
    assert graph.shapes == {
        "input": (1, 6, 6),
        "conv2d_1": (1, 4, 4),
        "relu_1": (1, 4, 4),
        "max_pool2d_1": (1, 2, 2),
        "flatten_1": (4,),
        "dense_1": (1,),
    }


@every_config
def test_gradients_are_right(name):
    model = small(name)
    data = cnnbp.load_data(model)
    model.normalization = data.normalization
    images, labels = data.train.images[:3], data.train.labels[:3]
    report = cnnbp.gradcheck(model, images, labels, directions=2, elements=3)
    statuses = {check.name: check.status for check in report.parameters}
    assert statuses.pop("input") in ("ok", "noise")  # the loss is nearly flat around images that are classified well
    assert statuses == {entry.name: "ok" for entry in model.layout.entries}
    assert report.ok
    assert report.max_relative_error < 1e-10


@every_config
def test_learns_and_is_read_back_from_its_run(name, tmp_path):
    model = small(name)
    data = cnnbp.load_data(model)
    model.normalization = data.normalization
    labels = data.train.labels
    before, _ = model.loss_and_gradients(data.train.images, labels)
    events = list(cnnbp.fit(model, data, run=tmp_path / "run"))

    assert isinstance(events[0], RunStarted)
    assert events[0].parameters == TOTALS[name][0]
    assert isinstance(events[-1], RunFinished)
    steps = [event for event in events if isinstance(event, StepDone)]
    assert len(steps) == 3
    assert all(np.isfinite([event.loss, event.grad_norm, event.learning_rate]).all() for event in steps)
    assert steps[0].loss == pytest.approx(before, rel=1e-5) or "dropout" in {n.layer.type for n in model.graph.nodes}
    after, _ = model.loss_and_gradients(data.train.images, labels)
    assert after <= before
    kinds = {RunStarted, CheckpointSaved, StepDone, LayersWatched, EpochDone, RunFinished}
    assert {type(event) for event in events} == kinds

    again = cnnbp.load(tmp_path / "run")
    assert again.config == model.config
    assert again.normalization == model.normalization
    assert again.parameters().keys() == model.parameters().keys()
    for parameter, value in model.parameters().items():
        np.testing.assert_array_equal(again.parameters()[parameter], value)
    images = data.test.images
    np.testing.assert_array_equal(again.predict(images), model.predict(images))
    evaluation = cnnbp.evaluate(again, data.test)
    assert evaluation.loss == events[-1].test_loss
    assert evaluation.accuracy == events[-1].test_accuracy
    written = load_config(tmp_path / "run" / "config.yaml")
    assert written == model.config
