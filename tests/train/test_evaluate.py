"""Evaluation against counting one image at a time."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
from dataclasses import replace

import numpy as np
import pytest

from cnnbp_cli.core.types import Solo
from cnnbp_cli.data.split import Split
from cnnbp_cli.model import Model, ModelInputError
from cnnbp_cli.parallel import local, team
from cnnbp_cli.parallel.local import local_workers
from cnnbp_cli.parallel.processes import start_process
from cnnbp_cli.train.evaluate import evaluate
from cnnbp_cli.train.fit import fit


def slow_figures(p, labels, classes):
    """Accuracy, confusion, precision and recall, by going through the images."""
    confusion = [[0] * classes for _ in range(classes)]
    for row, label in zip(p, labels, strict=True):
        called = int(max(range(len(row)), key=lambda k: row[k])) if len(row) > 1 else int(row[0] > 0.5)
        confusion[int(label)][called] += 1
    right = sum(confusion[k][k] for k in range(classes))
    precision, recall = [], []
    for k in range(classes):
        called = sum(confusion[j][k] for j in range(classes))
        true = sum(confusion[k])
        precision.append(confusion[k][k] / called if called else None)
        recall.append(confusion[k][k] / true if true else None)
    return right / len(labels), confusion, precision, recall


def wide(setup, classes, *overrides):
    """Return a model of several classes whose data use but a few of them."""
    model, data = setup(f"model.layers.last.units={classes}", "data.test=57", *overrides)
    model.normalization = data.normalization
    rng = np.random.default_rng(classes)
    for name in ("last.weight", "last.bias"):
        model.set_parameters({name: rng.normal(size=model.parameters()[name].shape).astype(model.dtype)})
    return model, data.test


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("batch_size", [1, 10, 57, 256])
def test_classification(setup, classes, batch_size):
    model, split = wide(setup, classes, "dtype=float64")
    found = evaluate(model, split, batch_size=batch_size)
    p = model.predict(split.images)
    accuracy, confusion, precision, recall = slow_figures(p, split.labels, classes)
    assert found.count == 57
    assert found.accuracy == accuracy
    assert found.confusion == confusion
    assert [one.label for one in found.per_class] == list(range(classes))
    assert [one.precision for one in found.per_class] == precision
    assert [one.recall for one in found.per_class] == recall
    assert [one.count for one in found.per_class] == [int((split.labels == k).sum()) for k in range(classes)]
    losses = [-math.log(row[label]) for row, label in zip(p, split.labels, strict=True)]
    assert found.loss == pytest.approx(math.fsum(losses) / 57, rel=1e-12)
    assert found.loss == pytest.approx(model.loss(split.images, split.labels), rel=1e-12)


@pytest.mark.parametrize("cores", [1, 2, 3])
@pytest.mark.parametrize("classes", [3, 300])
def test_workers_find_what_one_finds(setup, monkeypatch, classes, cores):
    """300 classes confuse each other in more ways than workers can tell each other at once."""
    model, split = wide(setup, classes, "dtype=float64")
    alone, expected = evaluate(model, split, workers=Solo()), model.predict(split.images)
    started = []

    def workers(*arguments, **how):
        started.append(arguments[0])
        return local_workers(*arguments, **how)

    monkeypatch.setattr(team, "WORTHWHILE", 0)
    monkeypatch.setattr(team, "WORTHWHILE_SPAWNED", 0)  # where another test has left a thread
    monkeypatch.setattr(team, "available_cores", lambda: cores)
    monkeypatch.setattr(team, "local_workers", workers)
    together, predicted = evaluate(model, split), model.predict(split.images)
    assert started == ([] if cores == 1 else [cores, cores])
    np.testing.assert_allclose(predicted, expected, rtol=1e-12)
    assert together.loss == pytest.approx(alone.loss, rel=1e-12)
    assert replace(together, loss=alone.loss) == alone


@pytest.fixture
def spawning(monkeypatch):
    """Spawn two workers for any work, as on a platform that cannot fork; return what has been started."""
    started = []

    def start(method, adopt, *arguments, **how):
        started.append(method.get_start_method())
        start_process(method, adopt, *arguments, **how)

    for module in (team, local):
        monkeypatch.setattr(module, "start_method", lambda: multiprocessing.get_context("spawn"))
    monkeypatch.setattr(local, "start_process", start)
    monkeypatch.setattr(team, "WORTHWHILE_SPAWNED", 0)
    monkeypatch.setattr(team, "available_cores", lambda: 2)
    return started


def test_spawned_workers_find_what_one_finds(setup, spawning):
    model, split = wide(setup, 3, "dtype=float64")
    alone = evaluate(model, split, workers=Solo())
    ticks = []
    together = evaluate(model, split, progress=lambda *tick: ticks.append(tick))  # cannot be pickled
    assert spawning == ["spawn"]
    assert ticks
    assert together.loss == pytest.approx(alone.loss, rel=1e-12)
    assert replace(together, loss=alone.loss) == alone
    whole = model.logits(model.images_in(split.images))
    np.testing.assert_allclose(model.predict(split.images), model.loss_function.predict(whole).T, rtol=1e-12)
    assert spawning == ["spawn", "spawn"]


def test_layers_that_a_spawned_process_does_not_know_are_left_to_one_worker(setup, spawning, monkeypatch):
    model, split = wide(setup, 3)
    assert model.is_portable
    monkeypatch.setattr(type(model.graph.nodes[0].layer), "__module__", "my_layers")
    assert not model.is_portable
    assert evaluate(model, split).count == 57
    assert spawning == []


def test_a_worker_that_dies_is_done_without(setup, monkeypatch):
    model, split = wide(setup, 3)
    parent, forward = os.getpid(), Model.logits

    def deadly(self, x, ctx=None):
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return forward(self, x, ctx)

    alone = evaluate(model, split, workers=Solo())
    monkeypatch.setattr(team, "WORTHWHILE", 0)
    monkeypatch.setattr(team, "available_cores", lambda: 2)
    monkeypatch.setattr(Model, "logits", deadly)
    assert evaluate(model, split) == alone


def test_workers_are_not_started_for_a_few_images(setup, monkeypatch):
    model, split = wide(setup, 3)
    monkeypatch.setattr(team, "local_workers", None)
    assert evaluate(model, split).count == 57


def test_json_keys(setup):
    model, split = wide(setup, 3)
    record = json.loads(json.dumps(evaluate(model, split).to_dict(), allow_nan=False))
    assert set(record) == {"loss", "accuracy", "count", "per_class", "confusion"}
    assert set(record["per_class"][0]) == {"label", "precision", "recall", "count", "name"}
    assert record["per_class"][2]["recall"] is None  # the bars have two classes only


def test_one_sigmoid_unit_says_yes_or_no(setup):
    model, split = wide(setup, 1, "model.head=sigmoid", "dtype=float64")
    found = evaluate(model, split)
    p = model.predict(split.images)
    accuracy, confusion, precision, recall = slow_figures(p, split.labels, 2)
    assert (found.accuracy, found.confusion) == (accuracy, confusion)
    assert [(one.precision, one.recall) for one in found.per_class] == list(zip(precision, recall, strict=True))
    y = split.labels
    expected = -(y * np.log(p[:, 0]) + (1 - y) * np.log(1 - p[:, 0])).mean()
    assert found.loss == pytest.approx(expected, rel=1e-12)


def test_evaluation_is_in_evaluation_mode_and_changes_nothing(setup):
    model, split = wide(setup, 2, "model.layers.dropout_1.rate=0.9")
    before = model.parameters()
    assert evaluate(model, split) == evaluate(model, split)
    for name, value in model.parameters().items():
        np.testing.assert_array_equal(value, before[name])


def predictions(model, data):
    """Return the outputs for the test images; floats go in as they come out of the normalization."""
    return model.predict(data.normalization.apply(data.test.images, np.float64))


def npz(tmp_path, labels, count=30):
    rng = np.random.default_rng(0)
    path = tmp_path / "data.npz"
    images = rng.normal(size=(count, 6, 6))
    np.savez(path, x_train=images, y_train=labels, x_test=images[:11], y_test=labels[:11])
    return f"data={{source: npz, path: {path}}}"


@pytest.mark.parametrize("outputs", [1, 3])
def test_regression(setup, tmp_path, outputs):
    """Targets are floats: the loss is the mean over images and outputs, and there is no accuracy."""
    shape = (30,) if outputs == 1 else (30, outputs)
    source = npz(tmp_path, np.random.default_rng(1).normal(size=shape))
    model, data = setup(source, "model.head=none", f"model.layers.last.units={outputs}", "dtype=float64")
    model.normalization = data.normalization
    found = evaluate(model, data.test)
    errors = predictions(model, data) - data.test.labels.reshape(11, outputs)
    assert found.loss == pytest.approx((errors**2).mean(), rel=1e-12)
    assert (found.accuracy, found.per_class, found.confusion, found.count) == (None, None, None, 11)
    events = list(fit(model, data))
    assert events[1].accuracy is None
    assert events[-1].test_loss < found.loss
    assert (events[-1].test_accuracy, events[-1].train_accuracy) == (None, None)


@pytest.mark.parametrize("units", [1, 3])
def test_soft_targets_of_a_sigmoid_have_no_accuracy(setup, tmp_path, units):
    """Each unit is a question of its own, with an answer between 0 and 1."""
    shape = (30,) if units == 1 else (30, units)
    source = npz(tmp_path, np.random.default_rng(1).uniform(size=shape))
    model, data = setup(source, "model.head=sigmoid", f"model.layers.last.units={units}", "dtype=float64")
    model.normalization = data.normalization
    found = evaluate(model, data.test)
    p, y = predictions(model, data), data.test.labels.reshape(11, units)
    assert found.loss == pytest.approx(-(y * np.log(p) + (1 - y) * np.log(1 - p)).sum(1).mean(), rel=1e-12)
    assert found.accuracy is None
    events = list(fit(model, data))
    assert events[1].accuracy is None
    assert events[-1].test_accuracy is None
    assert math.isfinite(events[-1].test_loss)


def test_soft_targets_of_a_softmax_have_no_accuracy(setup, tmp_path):
    y = np.random.default_rng(1).dirichlet([1, 1, 1], 30)
    model, data = setup(npz(tmp_path, y), "model.layers.last.units=3", "dtype=float64")
    model.normalization = data.normalization
    found = evaluate(model, data.test)
    assert found.loss == pytest.approx(-(y[:11] * np.log(predictions(model, data))).sum(1).mean(), rel=1e-12)
    assert found.accuracy is None
    assert list(fit(model, data))[-1].test_accuracy is None


def test_numbers_of_classes_as_targets_of_regression(setup):
    model, data = setup("model.head=none", "model.layers.last.units=1", "dtype=float64")
    model.normalization = data.normalization
    found = evaluate(model, data.test)
    errors = predictions(model, data)[:, 0] - data.test.labels
    assert found.loss == pytest.approx((errors**2).mean(), rel=1e-12)
    assert found.accuracy is None


def test_an_autoencoder(setup):
    layers = "[{type: conv2d, filters: 1, kernel_size: 3, padding: same}, sigmoid]"
    model, data = setup(
        f"model={{input: [1, 6, 6], head: none, layers: {layers}}}", "data.normalize=unit", "dtype=float64"
    )
    model.normalization = data.normalization
    assert model.target == "image"
    found = evaluate(model, data.test)
    errors = predictions(model, data) - data.test.images / 255
    assert found.loss == pytest.approx((errors**2).mean(), rel=1e-12)
    assert found.accuracy is None
    events = list(fit(model, data))
    assert events[1].accuracy is None
    assert events[-1].test_loss < found.loss


def test_an_untrained_model_needs_a_normalization(setup):
    model, data = setup()
    with pytest.raises(ValueError, match=r"^the model does not know its normalization: pass one$"):
        evaluate(model, data.test)
    assert evaluate(model, data.test, data.normalization).count == 20


def test_labels_that_are_no_classes(setup):
    model, data = setup()
    split = Split(data.test.images, np.full(20, 2))
    with pytest.raises(ModelInputError) as caught:
        evaluate(model, split, data.normalization)
    assert str(caught.value) == "expected labels from 0 to 1, the model's classes"
