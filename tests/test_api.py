"""The Python API, as its documentation writes it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cnnbp_cli as cnnbp
from cnnbp_cli.model import ModelInputError

CONFIGS = Path(__file__).parents[1] / "configs"

LENET5 = {
    "conv1.weight": (6, 1, 5, 5),
    "conv1.bias": (6,),
    "conv2.weight": (16, 6, 5, 5),
    "conv2.bias": (16,),
    "dense_1.weight": (120, 400),
    "dense_1.bias": (120,),
    "dense_2.weight": (84, 120),
    "dense_2.bias": (84,),
    "dense_3.weight": (10, 84),
    "dense_3.bias": (10,),
}


@pytest.fixture
def model():
    return cnnbp.load(CONFIGS / "lenet5.yaml")


@pytest.fixture
def toy():
    return cnnbp.load(str(CONFIGS / "toy.yaml"), overrides=["data.train=40", "data.test=10", "train.epochs=1"])


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(5, 1, 28, 28))


LABELS = np.array([3, 1, 4, 1, 5])


def test_importing_the_package_imports_nothing_heavy():
    heavy = "'numpy', 'pydantic', 'yaml', 'typer', 'rich', 'torch', 'cnnbp_cli.core', 'cnnbp_cli.model'"
    code = f"import sys, cnnbp_cli; dir(cnnbp_cli); print([name for name in ({heavy}) if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=CONFIGS.parent)
    assert done.stdout == "[]\n"


def test_every_promised_name_is_there():
    names = ["load", "load_data", "fit", "evaluate", "gradcheck", "summary", "register", "Model", "Dataset", "Summary"]
    assert set(names) <= set(dir(cnnbp))
    for name in cnnbp.__all__:
        assert getattr(cnnbp, name) is not None
    assert cnnbp.__version__.count(".") == 2


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError) as caught:
        cnnbp.nothing  # noqa: B018
    assert str(caught.value) == "module 'cnnbp_cli' has no attribute 'nothing'"


def test_parameters_by_name_in_layer_order(model):
    parameters = model.parameters()
    assert {name: value.shape for name, value in parameters.items()} == LENET5
    assert list(parameters) == list(LENET5)
    assert {value.dtype for value in parameters.values()} == {np.dtype(np.float32)}


def test_overrides_apply(model):
    double = cnnbp.load(CONFIGS / "lenet5.yaml", overrides=["dtype=float64", "model.layers.conv1.filters=8"])
    assert double.parameters()["conv1.weight"].shape == (8, 1, 5, 5)
    assert double.parameters()["conv1.weight"].dtype == np.float64
    np.testing.assert_array_equal(
        cnnbp.load(CONFIGS / "lenet5.yaml", overrides=["dtype=float64"])
        .parameters()["dense_3.weight"]
        .astype(np.float32),
        model.parameters()["dense_3.weight"],
    )


def test_parameters_are_copies(model):
    before = model.parameters()
    model.parameters()["conv1.weight"][:] = 7
    np.testing.assert_array_equal(model.parameters()["conv1.weight"], before["conv1.weight"])
    given = np.ones((6, 1, 5, 5), np.float32)
    model.set_parameters({"conv1.weight": given})
    given[:] = 9
    np.testing.assert_array_equal(model.parameters()["conv1.weight"], np.ones((6, 1, 5, 5)))
    np.testing.assert_array_equal(model.parameters()["conv2.weight"], before["conv2.weight"])


def test_setting_what_was_read_changes_nothing(model, images):
    before = model.predict(images)
    model.set_parameters(model.parameters(), complete=True)
    np.testing.assert_array_equal(model.predict(images), before)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"conv9.weight": np.zeros(3)},
            "there is no parameter 'conv9.weight'; the model has conv1.weight, conv1.bias, conv2.weight, conv2.bias, "
            "dense_1.weight, dense_1.bias, dense_2.weight, dense_2.bias, dense_3.weight, dense_3.bias",
        ),
        (
            {"conv1": np.zeros(3)},
            "there is no parameter 'conv1'; the model has conv1.weight, conv1.bias, conv2.weight, conv2.bias, "
            "dense_1.weight, dense_1.bias, dense_2.weight, dense_2.bias, dense_3.weight, dense_3.bias",
        ),
        (
            {"conv1.weight": np.zeros((1, 6, 5, 5), np.float32)},
            "parameter conv1.weight: expected shape (6, 1, 5, 5), got (1, 6, 5, 5)",
        ),
        ({"conv1.bias": 0.0}, "parameter conv1.bias: expected shape (6,), got ()"),
        ({"conv1.bias": np.zeros(6)}, "parameter conv1.bias: expected float32, got float64"),
        ({"conv1.bias": np.zeros(6, int)}, "parameter conv1.bias: expected float32, got int64"),
    ],
)
def test_parameters_that_do_not_fit(model, values, message):
    before = model.parameters()
    with pytest.raises(ModelInputError) as caught:
        model.set_parameters({"conv2.bias": np.ones(16, np.float32)} | values)
    assert str(caught.value) == message
    for name, value in model.parameters().items():
        np.testing.assert_array_equal(value, before[name])


def test_parameters_that_are_missing(model):
    with pytest.raises(ModelInputError) as caught:
        model.set_parameters({"conv1.weight": model.parameters()["conv1.weight"]}, complete=True)
    assert str(caught.value) == "parameter conv1.bias is missing"


def test_predict(model, images):
    p = model.predict(images)
    assert p.shape == (5, 10)
    assert p.dtype == np.float32
    np.testing.assert_allclose(p.sum(1), np.ones(5), rtol=1e-5)
    np.testing.assert_allclose(model.predict(images[:, 0]), p)  # (N, H, W) will do for one channel
    np.testing.assert_allclose(np.concatenate([model.predict(images[k : k + 1]) for k in range(5)]), p, rtol=1e-4)
    assert model.predict(images[:0]).shape == (0, 10)


def test_predict_many_images_in_pieces(toy):
    images = np.random.default_rng(0).normal(size=(600, 1, 6, 6))
    np.testing.assert_allclose(toy.predict(images)[511:513], toy.predict(images[511:513]), rtol=1e-5)


def test_predict_images():
    model = cnnbp.load(CONFIGS / "autoencoder.yaml")
    assert model.predict(np.zeros((3, 1, 28, 28))).shape == (3, 1, 28, 28)


def test_predict_takes_raw_pixels_after_training(toy):
    data = cnnbp.load_data(toy)
    raw = data.test.images
    with pytest.raises(ModelInputError) as caught:
        toy.predict(raw)
    assert str(caught.value) == (
        "images of uint8 are raw pixels, but this model has not been trained on data that says how to normalize "
        "them; give floats"
    )
    list(cnnbp.fit(toy, data))
    p = toy.predict(raw)
    assert p.shape == (10, 1)
    np.testing.assert_allclose(p, toy.predict(data.normalization.apply(raw)), rtol=1e-6)
    assert toy.loss(raw, data.test.labels) == pytest.approx(cnnbp.evaluate(toy, data.test).loss)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((5, 28, 28, 1), "expected images of shape (N, 1, 28, 28), got (5, 28, 28, 1)"),
        ((1, 28, 27), "expected images of shape (N, 1, 28, 28), got (1, 1, 28, 27)"),
        ((28, 28), "expected images of shape (N, 1, 28, 28), got (28, 28)"),
    ],
)
def test_images_that_do_not_fit(model, shape, message):
    for call in (model.predict, lambda x: model.loss(x, LABELS), lambda x: model.loss_and_gradients(x, LABELS)):
        with pytest.raises(ModelInputError) as caught:
            call(np.zeros(shape))
        assert str(caught.value) == message


def test_images_that_are_no_numbers(model):
    with pytest.raises(ModelInputError) as caught:
        model.predict(np.zeros((1, 1, 28, 28), complex))
    assert str(caught.value) == "expected images of numbers, got complex128"


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "expected 5 labels, one for each image, got none"),
        ([1, 2], "expected 5 labels, one for each image, got (2,)"),
        ([0, 1, 2, 3, 10], "expected labels from 0 to 9, the model's classes"),
        ([0, 1, 2, 3, -1], "expected labels from 0 to 9, the model's classes"),
        (
            [0.0, 1, 2, 3, 4],
            "the labels are floats, but the model's classes are whole numbers from 0 to 9; convert them, as with "
            "y.astype(int)",
        ),
        (np.zeros((5, 4)), "labels of shape (5, 4) do not fit outputs of shape 10"),
    ],
)
def test_labels_that_do_not_fit(model, images, labels, message):
    for call in (model.loss, model.loss_and_gradients, lambda *args: cnnbp.gradcheck(model, *args)):
        with pytest.raises(ModelInputError) as caught:
            call(images, labels)
        assert str(caught.value) == message


def test_loss_is_the_mean(model, images):
    p = model.predict(images)
    assert model.loss(images, LABELS) == pytest.approx(-np.log(p[np.arange(5), LABELS]).mean(), rel=1e-5)
    assert type(model.loss(images, LABELS)) is float
    assert np.isnan(model.loss(images[:0], LABELS[:0]))


def test_labels_as_numbers_or_as_distributions(model, images):
    assert model.loss(images, np.eye(10)[LABELS]) == pytest.approx(model.loss(images, LABELS), rel=1e-6)
    assert model.loss(images, LABELS[:, None]) == model.loss(images, LABELS)
    assert model.loss(images, LABELS.astype(np.uint8)) == model.loss(images, list(LABELS))


def test_loss_and_gradients(model, images):
    loss, gradients = model.loss_and_gradients(images, LABELS)
    assert loss == pytest.approx(model.loss(images, LABELS), rel=1e-5)  # no dropout and no batch norm in it
    assert {name: value.shape for name, value in gradients.items()} == LENET5 | {"input": (5, 1, 28, 28)}
    assert list(gradients) == [*LENET5, "input"]
    assert {value.dtype for value in gradients.values()} == {np.dtype(np.float32)}


def test_gradients_are_slopes(images):
    model = cnnbp.load(CONFIGS / "lenet5.yaml", overrides=["dtype=float64"])
    _, gradients = model.loss_and_gradients(images, LABELS)
    start = model.parameters()["dense_3.weight"]
    step = np.zeros_like(start)
    step[3, 7] = 1e-5
    losses = []
    for sign in (1, -1):
        model.set_parameters({"dense_3.weight": start + sign * step})
        losses.append(model.loss(images, LABELS))
    assert (losses[0] - losses[1]) / 2e-5 == pytest.approx(gradients["dense_3.weight"][3, 7], rel=1e-6)


def test_gradients_are_the_callers_own(model, images):
    loss, first = model.loss_and_gradients(images, LABELS)
    kept = {name: value.copy() for name, value in first.items()}
    again, second = model.loss_and_gradients(2 * images, LABELS)
    assert loss != again
    for name, value in first.items():
        np.testing.assert_array_equal(value, kept[name])
        assert not np.shares_memory(value, second[name])


def test_gradients_are_in_training_mode():
    """Dropout drops, and batch norm uses the batch: neither the parameters nor the statistics change."""
    model = cnnbp.load(CONFIGS / "keras-mnist.yaml")
    images = np.random.default_rng(0).normal(size=(5, 1, 28, 28))
    loss, gradients = model.loss_and_gradients(images, LABELS)
    assert loss != pytest.approx(model.loss(images, LABELS), rel=1e-3)
    assert loss == model.loss_and_gradients(images, LABELS)[0]
    assert (gradients["dense_1.weight"] == 0).all(0).any()  # features that all five images dropped
    norm = cnnbp.load(CONFIGS / "depthwise.yaml")
    before = norm.parameters()
    assert "batch_norm_1.running_mean" in before
    assert "batch_norm_1.running_mean" not in norm.loss_and_gradients(images, LABELS)[1]
    for name, value in norm.parameters().items():
        np.testing.assert_array_equal(value, before[name])


def test_one_image_or_more(model, images):
    with pytest.raises(ModelInputError) as caught:
        model.loss_and_gradients(images[:0], LABELS[:0])
    assert str(caught.value) == "expected one image or more, got none"


def test_fit_yields_events(toy):
    data = cnnbp.load_data(toy)
    assert isinstance(data, cnnbp.Dataset)
    assert (len(data.train), len(data.test), data.validation, data.classes) == (40, 10, None, 2)
    start = toy.parameters()
    events = [event.event for event in cnnbp.fit(toy, data)]
    assert events == ["started", "step", "watched", "step", "epoch", "finished"]
    assert any((value != start[name]).any() for name, value in toy.parameters().items())


def test_load_data_from_a_model_a_config_or_a_path(toy):
    path = CONFIGS / "toy.yaml"
    one, two, three = cnnbp.load_data(path), cnnbp.load_data(str(path)), cnnbp.load_data(cnnbp.load(path).config)
    for data in (two, three):
        np.testing.assert_array_equal(data.train.images, one.train.images)
    assert len(cnnbp.load_data(toy).train) == 40


def test_gradcheck_and_summary(toy):
    data = cnnbp.load_data(toy)
    list(cnnbp.fit(toy, data))
    report = cnnbp.gradcheck(toy, data.test.images, data.test.labels)
    assert isinstance(report, cnnbp.GradcheckReport)
    assert report.ok
    summary = cnnbp.summary(toy)
    assert isinstance(summary, cnnbp.Summary)
    assert summary.to_dict()["total_parameters"] == 15


def test_a_layer_of_ones_own(tmp_path):
    """What `register` is for: a layer in one file, used from a config."""
    code = """
from dataclasses import dataclass
from typing import Literal
import numpy as np
import cnnbp_cli as cnnbp
from cnnbp_cli.core.types import Layer

@cnnbp.register
@dataclass(frozen=True, slots=True)
class Square(Layer):
    scale: float = 1.0
    type: Literal["square"] = "square"

    def forward(self, params, x, ctx):
        return self.scale * x * x, x

    def backward(self, params, residuals, dy, ctx):
        return 2 * self.scale * residuals * dy, {}

model = cnnbp.load("own.yaml")
images = np.random.default_rng(0).normal(size=(4, 1, 6, 6))
report = cnnbp.gradcheck(model, images, [0, 1, 1, 0])
print(report.ok, model.graph.shapes["square_1"])
"""
    (tmp_path / "own.yaml").write_text(
        "data: {source: synthetic, kind: bars}\n"
        "model: {input: [1, 6, 6], layers: [{type: square, scale: 2}, flatten, {type: dense, units: 2}]}\n"
    )
    path = [str(CONFIGS.parent), *filter(None, sys.path)]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"import sys; sys.path[:0] = {path!r}\n{code}"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout == "True (1, 6, 6)\n"


def test_registering_a_name_twice_is_an_error():
    from cnnbp_cli.core.layers.dense import Dense

    with pytest.raises(ValueError, match=r"^a layer of type 'dense' is registered already$"):
        cnnbp.register(Dense)


def test_fit_still_takes_the_older_form_of_an_observer(tmp_path):
    model = cnnbp.load(CONFIGS / "toy.yaml", overrides=["train.max_steps=1", "train.workers=1"])
    marks = []
    for _ in cnnbp.fit(model, cnnbp.load_data(model), mark=lambda part, layer: marks.append((part, layer))):
        pass
    assert marks[0] == ("begin", "")
    assert ("forward", "conv2d_1") in marks
    assert marks[-1] == ("update", "")
