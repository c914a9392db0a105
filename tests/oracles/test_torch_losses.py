"""Several losses against PyTorch's autograd: their weighted sum, every gradient of it, and training by it."""

from __future__ import annotations

import numpy as np
import pytest
from train.three_losses import THREE

from cnnbp_cli.build import build
from cnnbp_cli.config.load import parse_config
from cnnbp_cli.core.types import Context
from cnnbp_cli.data.batches import make_batch, order
from cnnbp_cli.loading import load_data
from cnnbp_cli.train.events import EpochDone, StepDone
from cnnbp_cli.train.fit import fit

torch = pytest.importorskip("torch")

from oracles.torch_model import TorchModel, one_thread  # noqa: E402

TWO = """
dtype: float64
data: {source: synthetic, kind: digits, image: [1, 8, 8], classes: 4, train: 40, test: 0}
model:
  input: [1, 8, 8]
  layers:
    - {type: conv2d, name: stem, filters: 4, kernel_size: 3}
    - relu
    - {type: dense, name: side, units: 4, inputs: [pooled]}
    - {type: global_avg_pool2d, name: pooled, inputs: [relu_1]}
    - {type: conv2d, filters: 4, kernel_size: 3, padding: same, inputs: [relu_1]}
    - relu
    - flatten
    - {type: dense, name: end, units: 4}
train: {epochs: 2, batch_size: 8, workers: 1, losses: [{layer: side, weight: 0.3}, {layer: end, weight: 0.7}]}
"""

SUPERVISED = """
dtype: float64
data: {source: synthetic, kind: bars, image: [1, 6, 6], target: TARGET}
model:
  input: [1, 6, 6]
  head: HEAD
  layers:
    - {type: conv2d, name: low, filters: 3, kernel_size: 3, padding: same}
    - {type: max_pool2d, pool_size: 2}
    - {type: conv2d, name: deep, filters: 3, kernel_size: 3, padding: same}
    - {type: upsample, scale: 2}
    - {type: conv2d, name: upsampled, filters: 3, kernel_size: 1}
    - {type: concat, inputs: [upsampled, low]}
    - {type: conv2d, name: end, filters: 3, kernel_size: 1}
train: {losses: [{layer: end}, {layer: low, weight: 0.2}, {layer: upsampled, weight: 0.5}]}
"""
"""A U-Net in small: losses at every level, at outputs that other layers read."""


@pytest.fixture(autouse=True)
def single_threaded():
    with one_thread():
        yield


def error(ours, theirs):
    theirs = theirs.detach().numpy()
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-12))


def gradient_errors(model, images, labels):
    """Return the error of the loss, and of every gradient, in evaluation mode: no dropout to repeat."""
    x, target = model.batch_in(images, labels)
    other = TorchModel(model.config, model.parameters())
    pixels = torch.tensor(images).requires_grad_()
    outputs, _ = other.outputs(pixels, {}, training=False)
    loss = other.total(outputs, pixels, torch.tensor(labels))
    loss.backward()
    found, dx, grads = model.backpropagate(x, target, Context())
    errors = {"loss": abs(found - loss.item()) / loss.item(), "input": error(np.moveaxis(dx, -1, 0), pixels.grad)}
    for name, value in other.trainable.items():
        node, _, key = name.rpartition(".")
        errors[name] = error(grads[node][key], value.grad)
    return errors


@pytest.mark.parametrize("text", [TWO, THREE], ids=["two", "three"])
def test_labels(text):
    model = build(parse_config(text))
    rng = np.random.default_rng(3)
    images = rng.normal(size=(7, *model.config.model.input))
    errors = gradient_errors(model, images, rng.integers(0, model.classes, 7))
    assert {name: value for name, value in errors.items() if value > 1e-10} == {}


@pytest.mark.parametrize(("target", "head"), [("mask", "softmax"), ("image", "none"), ("image", "sigmoid")])
def test_deep_supervision(target, head):
    model = build(parse_config(SUPERVISED.replace("TARGET", target).replace("HEAD", head), any_target(target)))
    rng = np.random.default_rng(3)
    images = rng.normal(size=(4, 1, 6, 6))
    labels = rng.integers(0, 3, (4, 6, 6)) if target == "mask" else rng.uniform(size=(4, 3, 6, 6))
    errors = gradient_errors(model, images, labels)
    assert {name: value for name, value in errors.items() if value > 1e-10} == {}


def any_target(target):
    """Return what lets images be compared with others than themselves."""
    return ["data={source: npz, path: never-read.npz, target: image}"] if target == "image" else []


@pytest.mark.parametrize(
    "optimizer", ["{type: sgd, learning_rate: 0.05, momentum: 0.9}", "{type: adam, learning_rate: 0.01}"]
)
def test_training(optimizer):
    model = build(parse_config(TWO, [f"train.optimizer={optimizer}"]))
    data = load_data(model)
    other = TorchModel(model.config, model.parameters())
    by_torch = other.optimizer()
    events = list(fit(model, data))
    steps = [event for event in events if isinstance(event, StepDone)]
    sums = {"side": 0.0, "end": 0.0}
    for step in steps:
        epoch, batch = divmod(step.step - 1, 5)
        x, labels = make_batch(data.train, order(0, epoch, 40)[8 * batch :][:8], data.normalization, np.float64)
        images, labels = torch.tensor(np.moveaxis(x, -1, 0)), torch.tensor(labels)
        by_torch.zero_grad()
        outputs, _ = other.outputs(images, {})
        loss = other.total(outputs, images, labels)
        loss.backward()
        by_torch.step()
        assert step.loss == pytest.approx(loss.item(), rel=1e-9)
        if epoch == 1:
            sums = {name: value + other.loss_of(outputs[name], images, labels).item() for name, value in sums.items()}
    last = [event for event in events if isinstance(event, EpochDone)][-1]
    assert last.train_losses == pytest.approx({name: value / 5 for name, value in sums.items()}, rel=1e-9)
    for name, value in model.parameters().items():
        assert error(value, other.values[name]) < 1e-9, name
