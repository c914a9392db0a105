"""Targets that are masks or images: PyTorch's losses, scores by plain counting, and every command on the way."""

import json
from dataclasses import replace

import numpy as np
import pytest

from cnnbp_cli.build import build
from cnnbp_cli.config.errors import ConfigError
from cnnbp_cli.config.load import parse_config
from cnnbp_cli.data.dataset import DataError
from cnnbp_cli.gradient_check.check import gradcheck
from cnnbp_cli.loading import load, load_data
from cnnbp_cli.train.evaluate import evaluate
from cnnbp_cli.train.fit import fit

RNG = np.random.default_rng(8)
NETWORKS = {
    "mask": ("[2, 5, 6]", "softmax", "[{type: conv2d, filters: 3, kernel_size: 3, padding: same}]"),
    "two classes": ("[2, 5, 6]", "sigmoid", "[{type: conv2d, filters: 1, kernel_size: 3, padding: same}]"),
    "larger": ("[2, 5, 6]", "none", "[{type: conv_transpose2d, filters: 3, kernel_size: 2, stride: 2}]"),
    "from a vector": ("[4, 1, 1]", "none", "[{type: conv_transpose2d, filters: 1, kernel_size: 5}]"),
}
TARGETS = {"mask": "auto", "two classes": "mask", "larger": "auto", "from a vector": "image"}


def arrays(kind, count=40):
    """Return images and targets as an npz has them."""
    if kind == "from a vector":
        return RNG.normal(size=(count, 4, 1, 1)), RNG.integers(0, 256, (count, 5, 5), dtype=np.uint8)
    x = RNG.integers(0, 256, (count, 2, 5, 6), dtype=np.uint8)
    if kind == "larger":
        return x, RNG.integers(0, 256, (count, 10, 12, 3), dtype=np.uint8)
    return x, x[:, 0] // 86 if kind == "mask" else x[:, :1] > 127


@pytest.fixture
def make(tmp_path):
    def made(kind, *overrides):
        (x, y), (tx, ty) = arrays(kind), arrays(kind, 10)
        np.savez(tmp_path / "set.npz", x_train=x, y_train=y, x_test=tx, y_test=ty)
        shape, head, layers = NETWORKS[kind]
        text = (
            f"data: {{source: npz, path: '{tmp_path}/set.npz', target: {TARGETS[kind]}}}\n"
            f"model: {{input: {shape}, head: {head}, layers: {layers}}}\n"
            "train: {epochs: 3, batch_size: 8, optimizer: {type: adam, learning_rate: 0.05}}\n"
        )
        return parse_config(text, overrides)

    return made


@pytest.mark.parametrize("kind", ["mask", "two classes", "larger"])
def test_loss_and_gradients_are_those_of_pytorch(make, kind):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    model = build(make(kind, "dtype=float64"))
    x = RNG.normal(size=(6, 2, 5, 6))
    weight, bias = (torch.tensor(value, requires_grad=True) for value in model.parameters().values())
    if kind == "larger":
        y = RNG.normal(size=(6, 3, 10, 12))
        theirs = functional.mse_loss(functional.conv_transpose2d(torch.tensor(x), weight, bias, 2), torch.tensor(y))
    else:
        z = functional.conv2d(torch.tensor(x), weight, bias, padding=1)
        y = RNG.integers(0, model.classes, (6, 5, 6))
        if kind == "mask":
            theirs = functional.cross_entropy(z, torch.tensor(y))
        else:
            theirs = functional.binary_cross_entropy_with_logits(z[:, 0], torch.tensor(y, dtype=torch.float64))
    theirs.backward()
    loss, gradients = model.loss_and_gradients(x, y)
    np.testing.assert_allclose(loss, theirs.item(), rtol=1e-12)
    for value, mine in ((weight, "weight"), (bias, "bias")):
        (name,) = [name for name in gradients if name.endswith(mine)]
        np.testing.assert_allclose(gradients[name], value.grad.numpy(), rtol=1e-10, atol=1e-13)
    assert gradcheck(model, x[:2], y[:2]).ok


@pytest.mark.parametrize("kind", NETWORKS)
def test_what_is_trained_is_evaluated_alike(make, kind, tmp_path):
    config = make(kind)
    model, data = build(config), load_data(config)
    assert data.classes is None
    events = list(fit(model, data, run=tmp_path / "run"))
    epochs = [event.train_loss for event in events if event.event == "epoch"]
    assert epochs[-1] < epochs[0]
    again = load(tmp_path / "run")
    assert evaluate(again, load_data(again).test).loss == pytest.approx(events[-1].test_loss, rel=1e-6)
    assert again.predict(np.zeros((2, *config.model.input), np.float32)).shape == (2, *model.output_shape)


@pytest.mark.parametrize("kind", ["mask", "larger"])
def test_workers_agree(make, kind):
    config, losses = make(kind, "dtype=float64"), []
    for workers in (1, 3):
        own = replace(config, train=replace(config.train, workers=workers))
        losses.append([event.loss for event in fit(build(own), load_data(own)) if event.event == "step"])
    np.testing.assert_allclose(*losses, rtol=1e-11)


def test_scores_of_masks_are_counted(make):
    config = make("mask", "data.classes=[sky, sea, land]")
    model, data = build(config), load_data(config)
    model.normalization, model.class_names = data.normalization, data.class_names
    called = model.predict(data.test.images).argmax(1)
    true = data.test.labels
    scores = evaluate(model, data.test).masks
    assert scores.pixel_accuracy == pytest.approx(np.mean(called == true))
    for k, (one, name) in enumerate(zip(scores.per_class, ("sky", "sea", "land"), strict=True)):
        both, either = np.sum((called == k) & (true == k)), np.sum((called == k) | (true == k))
        assert (one.name, one.pixels) == (name, np.sum(true == k))
        assert one.iou == pytest.approx(both / either)
        assert one.dice == pytest.approx(2 * both / (np.sum(called == k) + np.sum(true == k)))
    assert scores.mean_iou == pytest.approx(np.mean([one.iou for one in scores.per_class]))
    json.dumps(evaluate(model, data.test).to_dict())


def test_target_images_are_normalized_by_themselves(make, tmp_path):
    config = make("larger")
    data = load_data(config)
    with np.load(config.data.path) as found:
        y = found["y_train"].transpose(0, 3, 1, 2).astype(float)
    mean, std = (np.array(part)[:, None, None] for part in (y.mean((0, 2, 3)), y.std((0, 2, 3))))
    np.testing.assert_allclose(data.train.labels, (y - mean) / std, atol=1e-5)
    for _ in fit(build(config), data, run=tmp_path / "run"):
        pass
    assert load(tmp_path / "run").target_normalization == data.target_normalization
    unit = replace(config, data=replace(config.data, normalize="unit"))
    np.testing.assert_allclose(load_data(unit).train.labels, y / 255, rtol=1e-6)


@pytest.mark.parametrize(
    ("kind", "y", "expected"),
    [
        ("mask", np.full((40, 5, 6), 3), "mask 0 has 3 at [0, 0], expected a class from 0 to 2"),
        ("mask", np.zeros((40, 5, 5), int), "masks are 5×5, but the network gives 5×6"),
        (
            "mask",
            np.zeros(40, int),
            "has shape [40] of int64, expected masks as (N, H, W), with the number of its class",
        ),
        ("two classes", np.full((40, 5, 6), 255) * (np.arange(6) > 2), "; divide masks of 0 and 255 by 255"),
        ("larger", np.zeros((40, 5, 6)), "targets are 5×6, but the network gives 3×10×12"),
    ],
)
def test_complaint(make, kind, y, expected):
    config = make(kind)
    with np.load(config.data.path) as found:
        np.savez(config.data.path, x_train=found["x_train"], y_train=y)
    with pytest.raises(DataError) as caught:
        load_data(config)
    assert str(caught.value).startswith(f"{config.data.path}: y_train: ")
    assert expected in str(caught.value)


def test_an_image_of_another_size_is_no_target(make):
    config = make("larger")
    with np.load(config.data.path) as found:
        np.savez(config.data.path, x_train=found["x_train"], y_train=np.zeros(40, int))
    with pytest.raises(DataError) as caught:
        load_data(config)
    assert str(caught.value) == (
        f"npz {config.data.path}: the network gives 3×10×12, but the target is the image itself, 2×5×6; other targets "
        "are arrays, as y_train of an npz"
    )


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["data.target=mask", "model.head=none"], "masks need the head softmax, or sigmoid and a single channel"),
        (["data.target=mask", "model.layers=[flatten]"], "masks need a channel for each class"),
        (["data.target=label"], "labels need a vector: end with flatten, dense or a global pool"),
    ],
)
def test_networks_that_give_no_such_target(make, overrides, expected):
    with pytest.raises(ConfigError, match=expected):
        build(make("mask", *overrides))


@pytest.mark.parametrize("kind", ["mask", "two classes", "larger"])
def test_targets_are_augmented_with_their_images(make, kind):
    """The same for any number of workers."""
    config, losses = make(kind, "dtype=float64", "data.augment={flip: true, shift: 1, rotate: 9}"), []
    for workers in (1, 3):
        own = replace(config, train=replace(config.train, workers=workers))
        losses.append([event.loss for event in fit(build(own), load_data(own)) if event.event == "step"])
    np.testing.assert_allclose(*losses, rtol=1e-11)


def test_vectors_cannot_be_augmented(make):
    with pytest.raises(DataError, match=r"data.augment moves images, but the network takes vectors; leave it out"):
        load_data(make("from a vector", "data.augment={flip: true}"))
