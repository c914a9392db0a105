"""Whole networks against PyTorch in float64: loss, every gradient, running statistics, and twenty steps of training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import cnnbp_cli as cnnbp
from cnnbp_cli.core.types import Context
from cnnbp_cli.data.batches import make_batch, order
from cnnbp_cli.train.events import StepDone

torch = pytest.importorskip("torch")

from oracles.torch_model import TorchModel, one_thread  # noqa: E402

CONFIGS = Path(__file__).parents[2] / "configs"
SHARED = "../tests/shared"
"""Modules that are called twice and three times."""
NAMES = [*sorted(path.stem for path in CONFIGS.glob("*.yaml")), SHARED]
BATCH = 8
LARGE = ("pytorch-mnist", "vgg-bn")  # smaller batches for these
STEPS = 20

OPTIMIZERS = {
    "sgd": "{type: sgd, learning_rate: 0.01}",
    "sgd-momentum": "{type: sgd, learning_rate: 0.01, momentum: 0.9, weight_decay: 0.01}",
    "sgd-nesterov": "{type: sgd, learning_rate: 0.01, momentum: 0.9, nesterov: true, weight_decay: 0.01}",
    "adam": "{type: adam, learning_rate: 0.002}",
    "adam-decay": "{type: adam, learning_rate: 0.002, betas: [0.8, 0.95], weight_decay: 0.01}",
    "adamw": "{type: adamw, learning_rate: 0.002, weight_decay: 0.1}",
    "rmsprop": "{type: rmsprop, learning_rate: 0.0005}",
    "rmsprop-centered": "{type: rmsprop, learning_rate: 0.0005, momentum: 0.5, centered: true, weight_decay: 0.01}",
    "adagrad": "{type: adagrad, learning_rate: 0.01, weight_decay: 0.01}",
}


@pytest.fixture(autouse=True)
def single_threaded():
    with one_thread():
        yield


def prepared(name, *overrides):
    """Load a config, in float64 by default, with 40 images, and move biases and norms away from zero and one."""
    size = ["data.train=40", "data.test=0"] if name == "toy" else ["data.limit={train: 40, test: 1}"]
    fixed = ["dtype=float64", "data.validation=0", "train.workers=1", "train.epochs=10"]
    batch_size = f"train.batch_size={BATCH // 2 if name in LARGE else BATCH}"
    model = cnnbp.load(
        CONFIGS / f"{name}.yaml", overrides=[*size, *fixed, batch_size, f"train.max_steps={STEPS}", *overrides]
    )
    rng = np.random.default_rng(7)
    for key, value in model.parameters().items():
        if value.ndim == 1:
            noise = 0.02 * np.abs(rng.normal(size=value.shape))
            model.set_parameters({key: (value + noise).astype(model.dtype)})
    data = cnnbp.load_data(model)
    model.normalization = data.normalization
    return model, data


def batch_of(model, data, step):
    """Return the images (N, C, H, W), the labels and the dropout masks of a step, as the training makes them."""
    size = model.config.train.batch_size
    per_epoch = -(-len(data.train) // size)
    chosen = order(model.config.seed, step // per_epoch, len(data.train))[step % per_epoch * size :][:size]
    augment = model.config.data.augment
    x, labels = make_batch(data.train, chosen, data.normalization, model.dtype, augment=augment, step=step)
    ctx = Context(training=True, seed=model.config.seed, step=step)
    masks = {}
    for node in model.graph.nodes:
        if node.layer.type == "dropout":
            ones = np.ones((*model.graph.in_shapes(node)[0], len(chosen)))
            masks[node.name] = node.forward({}, [ones], ctx)[0]
    turned = {name: torch.tensor(np.moveaxis(mask, -1, 0)) for name, mask in masks.items()}
    return x, torch.tensor(np.moveaxis(x, -1, 0), dtype=torch.float64), labels, torch.tensor(labels), turned, ctx


def error(ours, theirs):
    """Return the largest difference, relative to the tensor's largest value."""
    theirs = theirs.detach().numpy()
    assert ours.shape == theirs.shape
    scale = np.abs(theirs).max()
    return float(np.abs(ours - theirs).max() / scale) if scale else float(np.abs(ours).max())


def gradient_errors(name, *overrides):
    """Return the error of every layer's output, of the loss, of every gradient and of every running statistic.

    Every layer of PyTorch's gets the same inputs as ours. Programs and processors round differently, and where pixels
    are equal but for rounding another one would win a maximum.
    """
    model, data = prepared(name, *overrides)
    other = TorchModel(model.config, model.parameters())
    x, images, labels, torch_labels, masks, ctx = batch_of(model, data, 0)
    images.requires_grad_()
    loss, dx, grads = model.backpropagate(x, model.targets_in(labels, x), ctx)
    values = {"input": x}
    _, tape = model.graph.forward(model.params, x, ctx, values.__setitem__)
    model.set_state(model.graph.next_state(model.params, tape))
    turned = {key: torch.tensor(np.moveaxis(value, -1, 0), dtype=torch.float64) for key, value in values.items()}
    outputs, differences = other.outputs(images, masks, values=turned)
    expected = other.total(outputs, images, torch_labels)
    expected.backward()
    found = {f"output of {key}": difference for key, difference in differences.items()}
    found["loss"] = abs(loss - expected.item()) / abs(expected.item())
    found["input"] = error(np.moveaxis(dx, -1, 0), images.grad)
    found |= {
        key: error(grads[key.rpartition(".")[0]][key.rpartition(".")[2]], value.grad)
        for key, value in other.trainable.items()
    }
    statistics = {key: value for key, value in other.values.items() if key not in other.trainable}
    return found | {key: error(model.parameters()[key], value) for key, value in statistics.items()}


def training_errors(name, *overrides):
    """Return the errors of the losses and of all parameters after training."""
    model, data = prepared(name, *overrides)
    other = TorchModel(model.config, model.parameters())
    optimizer = other.optimizer()
    batches = [batch_of(model, data, step) for step in range(STEPS)]
    steps = [event for event in cnnbp.fit(model, data) if isinstance(event, StepDone)]
    assert len(steps) == STEPS
    found = {}
    for step, (_, images, _, labels, masks, _) in zip(steps, batches, strict=True):
        optimizer.param_groups[0]["lr"] = step.learning_rate
        optimizer.zero_grad()
        loss = other.loss(images, labels, masks)
        loss.backward()
        optimizer.step()
        found[f"loss of step {step.step}"] = abs(step.loss - loss.item()) / abs(loss.item())
    return found | {key: error(model.parameters()[key], value) for key, value in other.values.items()}


@pytest.mark.parametrize("name", NAMES)
def test_loss_gradients_and_statistics(name):
    worst = gradient_errors(name)
    assert {key: value for key, value in worst.items() if value > 1e-11} == {}


@pytest.mark.parametrize("name", NAMES)
def test_float32_is_as_close_as_float32_can_be(name):
    """Also what float32 alone does, such as faster convolutions."""
    worst = gradient_errors(name, "dtype=float32")
    assert {key: value for key, value in worst.items() if value > 3e-4} == {}


@pytest.mark.parametrize("name", NAMES)
def test_evaluation_mode(name):
    model, data = prepared(name)
    other = TorchModel(model.config, model.parameters())
    x, images, labels, torch_labels, masks, _ = batch_of(model, data, 0)
    expected = other.loss(images, torch_labels, masks, training=False).item()
    assert model.loss(np.moveaxis(x, -1, 0), labels) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_twenty_steps_as_configured(name):
    """With the config's own optimizer, schedule, dropout and augmentation."""
    worst = training_errors(name)
    assert {key: value for key, value in worst.items() if value > 1e-9} == {}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", ["toy", "lenet5"])
def test_twenty_steps_of_every_optimizer(name, optimizer):
    worst = training_errors(name, f"train.optimizer={OPTIMIZERS[optimizer]}", "train.schedule=constant")
    assert {key: value for key, value in worst.items() if value > 1e-9} == {}


@pytest.mark.parametrize("name", ["resnet-mini", "vgg-bn"])
@pytest.mark.parametrize("pattern", ["*1", "*"])
def test_training_with_frozen_layers(name, pattern):
    """Some layers in the middle, or all but the last; a frozen batch norm of PyTorch's is one in evaluation mode."""
    last = list(cnnbp.load(CONFIGS / f"{name}.yaml").parameters())[-1].split(".")[0]
    frozen = f"model.freeze=['{pattern}']" if pattern != "*" else f"model.freeze=['[!{last[0]}]*']"
    worst = gradient_errors(name, frozen) | training_errors(name, frozen)
    assert {key: value for key, value in worst.items() if value > 1e-9} == {}
