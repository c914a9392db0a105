"""Weights of classes: their definition, PyTorch's loss with them, and workers that agree."""

import numpy as np
import pytest

from cnnbp_cli.build import build
from cnnbp_cli.config.errors import ConfigError
from cnnbp_cli.config.load import parse_config
from cnnbp_cli.core.losses import SoftmaxCrossEntropy
from cnnbp_cli.data.dataset import DataError, Dataset, Normalization, Split
from cnnbp_cli.train.class_weights import class_weights
from cnnbp_cli.train.fit import fit

CONFIG = """
data: {source: synthetic, kind: bars, classes: [up, level, fall], normalize: none}
model: {input: [1, 6, 6], layers: [flatten, {type: dense, units: 3}]}
train: {batch_size: 16, max_steps: 3, optimizer: {type: sgd, learning_rate: 0.1}, class_weights: balanced}
"""
RNG = np.random.default_rng(4)
LABELS = np.repeat([0, 1, 2], [30, 10, 8])
IMAGES = RNG.normal(size=(48, 1, 6, 6)).astype(np.float32)


def setup(*overrides):
    model = build(parse_config(CONFIG, ["dtype=float64", *overrides]))
    data = Dataset(Split(IMAGES, LABELS), None, None, Normalization("none", (0.0,), (1.0,)), 3, "set")
    return model, data


def weights(value):
    model, data = setup(f"train.class_weights={value}")
    return class_weights(model.config.train, data, model)


def test_definition():
    np.testing.assert_allclose(weights("balanced"), [48 / (3 * 30), 48 / (3 * 10), 48 / (3 * 8)])
    np.testing.assert_array_equal(weights("[1, 2, 0.5]"), [1, 2, 0.5])
    np.testing.assert_array_equal(weights("{fall: 4, up: 2}"), [2, 1, 4])
    np.testing.assert_array_equal(weights("{1: 3.5}"), [1, 3.5, 1])
    assert weights("null") is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("[1, 2]", "train.class_weights: has 2 weights, the model has 3 classes"),
        ("{cow: 2}", "train.class_weights: there is no class 'cow'; the model has up, level, fall, 0, 1, 2"),
    ],
)
def test_complaint(value, expected):
    with pytest.raises(DataError) as caught:
        weights(value)
    assert str(caught.value) == expected


@pytest.mark.parametrize("value", ["[1, 0, 1]", "{up: -1}", "fair", "3"])
def test_values_that_are_none(value):
    with pytest.raises(ConfigError, match="class_weights"):
        setup(f"train.class_weights={value}")


def test_only_for_cross_entropy():
    with pytest.raises(ConfigError, match=r"apply only to the loss cross_entropy, not to mse"):
        setup("train.loss=mse")


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("place", [(), (2, 5)])
def test_loss_and_gradient_are_those_of_pytorch(smoothing, place):
    torch = pytest.importorskip("torch")
    w, labels = (0.5, 2.0, 1.5, 1.0), RNG.integers(0, 4, (*place, 7))
    z = RNG.normal(size=(4, *place, 7)) * 3
    loss = SoftmaxCrossEntropy(smoothing, w)
    target = (np.arange(4).reshape(-1, *[1] * labels.ndim) == labels).astype(float)
    summed, residuals = loss.forward(z, target)
    count = np.array(w)[labels].sum()
    logits = torch.tensor(np.moveaxis(z, -1, 0), requires_grad=True)
    theirs = torch.nn.CrossEntropyLoss(weight=torch.tensor(w, dtype=torch.float64), label_smoothing=smoothing)
    value = theirs(logits, torch.tensor(np.moveaxis(labels, -1, 0)))
    value.backward()
    np.testing.assert_allclose(summed / count, value.item(), rtol=1e-12)
    np.testing.assert_allclose(loss.backward(residuals) / count, np.moveaxis(logits.grad.numpy(), 0, -1), atol=1e-14)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_training_is_that_of_pytorch_on_any_number_of_workers(workers):
    torch = pytest.importorskip("torch")
    model, data = setup(f"train.workers={workers}")
    dense = torch.nn.Linear(36, 3, dtype=torch.float64)
    with torch.no_grad():
        dense.weight.copy_(torch.tensor(model.parameters()["dense_1.weight"]))
        dense.bias.zero_()
    optimizer = torch.optim.SGD(dense.parameters(), 0.1)
    theirs = torch.nn.CrossEntropyLoss(weight=torch.tensor([48 / 90, 48 / 30, 48 / 24], dtype=torch.float64))
    from cnnbp_cli.data.batches import order

    losses = []
    for k in range(3):
        batch = order(0, 0, 48)[16 * k : 16 * k + 16]
        optimizer.zero_grad()
        x = torch.tensor(IMAGES[batch].reshape(16, 36), dtype=torch.float64)
        loss = theirs(dense(x), torch.tensor(LABELS[batch]))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    found = [event.loss for event in fit(model, data) if event.event == "step"]
    np.testing.assert_allclose(found, losses, rtol=1e-12)
    np.testing.assert_allclose(model.parameters()["dense_1.weight"], dense.weight.detach().numpy(), atol=1e-14)
