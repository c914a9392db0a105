"""Images larger than what the network takes: random parts in training, the middle everywhere else."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

import cnnbp_cli as cnnbp
from cnnbp_cli.analysis.predict import predict_files
from cnnbp_cli.build import build
from cnnbp_cli.cli.app import app
from cnnbp_cli.config.errors import ConfigError
from cnnbp_cli.config.load import parse_config
from cnnbp_cli.data import file_rows
from cnnbp_cli.data.dataset import DataError
from cnnbp_cli.data.file_rows import FileRows
from cnnbp_cli.data.fingerprint import fingerprint
from cnnbp_cli.train.evaluate import evaluate
from cnnbp_cli.train.fit import fit

RNG = np.random.default_rng(1)
MIDDLE = np.s_[:, :, 2:8, 2:7]  # of 9×10: (9 − 6) / 2 = 1.5, which torchvision rounds to 2; (10 − 5) / 2 = 2.5 to 2

TEXT = """
dtype: float64
data: {{source: {source}, path: '{path}', image_size: [9, 10], augment: {{crop: {{padding: 1}}, flip: true}}}}
model:
  input: [3, 6, 5]
  layers: [{{type: conv2d, filters: 3, kernel_size: 3}}, relu, flatten, {{type: dense, units: 2}}]
train: {{epochs: 2, batch_size: 16, workers: 1}}
"""


@pytest.fixture(params=["npz", "npy", "npy on disk"])
def case(request, tmp_path, monkeypatch):
    """Return a config, and the images of its splits."""
    arrays = {f"x_{part}": RNG.integers(0, 256, (n, 9, 10, 3), np.uint8) for part, n in (("train", 40), ("test", 12))}
    labels = {f"y_{part}": np.arange(n) % 2 for part, n in (("train", 40), ("test", 12))}
    if request.param == "npz":
        np.savez(tmp_path / "set.npz", **arrays, **labels)
    else:
        for name, array in (arrays | labels).items():
            np.save(tmp_path / f"{name}.npy", array)
    if request.param == "npy on disk":
        monkeypatch.setattr(file_rows, "IN_MEMORY", 0)
    source, path = ("npz", tmp_path / "set.npz") if request.param == "npz" else ("npy", tmp_path)
    config = parse_config(TEXT.format(source=source, path=path))
    return config, {name: images.transpose(0, 3, 1, 2) for name, images in arrays.items()}


def losses(config, data=None):
    found = fit(build(config), data or cnnbp.load_data(config))
    return [event.loss for event in found if event.event == "step"]


def test_every_split_shows_the_middle(case):
    config, arrays = case
    data = cnnbp.load_data(replace(config, data=replace(config.data, validation=8)))
    np.testing.assert_array_equal(data.test.images[:], arrays["x_test"][MIDDLE])
    assert (data.train.images.shape, data.validation.images.shape) == ((32, 3, 6, 5), (8, 3, 6, 5))
    np.testing.assert_array_equal(data.train.images[:], data.train.whole.images[:][MIDDLE])
    np.testing.assert_array_equal(data.train.take(slice(3, 5)).whole.images[:], data.train.whole.images[3:5])
    assert isinstance(data.train.images, FileRows) == (file_rows.IN_MEMORY == 0)


def test_a_run_knows_the_whole_images_again(case):
    config, _ = case
    data = cnnbp.load_data(config)
    before = fingerprint(data)
    if isinstance(data.train.images, FileRows):
        return
    data.train.whole.images[0, 0, 0, 0] ^= 1  # in a corner, which only training sees
    assert fingerprint(data) != before


def test_training_is_the_same_for_any_number_of_workers_and_sees_more_than_the_middle(case):
    config, _ = case
    one = losses(config)
    several = losses(replace(config, train=replace(config.train, workers=3)))
    np.testing.assert_allclose(one, several, rtol=1e-11)
    still = losses(replace(config, data=replace(config.data, augment=None)))
    assert (np.array(one) != still).all()


def test_evaluation_and_prediction_take_the_middle(case, tmp_path):
    config, arrays = case
    data = cnnbp.load_data(config)
    events = list(fit(build(config), data, run=tmp_path / "run"))
    model = cnnbp.load(tmp_path / "run")
    x, y = data.normalization.apply(arrays["x_test"][MIDDLE], np.float64), data.test.labels
    assert model.loss(x, y) == pytest.approx(events[-1].test_loss)
    assert evaluate(model, data.test).loss == pytest.approx(events[-1].test_loss)
    np.save(tmp_path / "some.npy", arrays["x_test"])
    found = predict_files(model, [tmp_path / "some.npy"])
    np.testing.assert_allclose([one.probabilities for one in found], model.predict(x), rtol=1e-9)
    for command in (
        ["trace", str(tmp_path / "run"), "--file", str(tmp_path / "some.npy")],
        ["diagnose", str(tmp_path / "run")],
    ):
        done = CliRunner().invoke(app, command)
        assert done.exit_code in (0, 1), done.stderr


def test_conversion_keeps_the_whole_images(case, tmp_path):
    config, arrays = case
    if file_rows.IN_MEMORY == 0:
        return
    path = tmp_path / "mine.yaml"
    path.write_text(TEXT.format(source=config.data.source, path=config.data.path))
    done = CliRunner().invoke(app, ["data", "convert", str(path), str(tmp_path / "all.npz")])
    assert yaml.safe_load(done.stdout)["data"]["image_size"] == [9, 10]
    with np.load(tmp_path / "all.npz") as found:
        np.testing.assert_array_equal(found["x_train"], arrays["x_train"])


def test_pictures_are_resized_first(tmp_path):
    image = pytest.importorskip("PIL.Image")
    pixels = RNG.integers(0, 256, (9, 10, 3), np.uint8)
    for number, name in enumerate(("cat", "dog")):
        (tmp_path / name).mkdir()
        for k in range(4):
            image.fromarray(pixels ^ np.uint8(k * number)).save(tmp_path / name / f"{k}.png")
    data = cnnbp.load_data(parse_config(TEXT.format(source="folder", path=tmp_path)))
    np.testing.assert_array_equal(data.train.images[0], pixels.transpose(2, 0, 1)[None][MIDDLE][0])


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("[5, 10]", "data.image_size: images of 5×10 have no part of the size of model.input, 6×5"),
        ("8", "x_train: images are [3, 9, 10], but the config says [3, 8, 8]; write `data.image_size: [9, 10]`"),
    ],
)  # fmt: skip
def test_complaint(case, size, expected):
    config, _ = case
    text = TEXT.format(source=config.data.source, path=config.data.path).replace("[9, 10]", size)
    with pytest.raises(DataError) as caught:
        cnnbp.load_data(parse_config(text))
    assert str(caught.value).endswith(expected) or (config.data.source == "npy" and expected[8:] in str(caught.value))


def test_a_crop_may_say_its_size_which_is_that_of_the_input(case):
    config, _ = case
    text = TEXT.format(source=config.data.source, path=config.data.path)
    said = parse_config(text.replace("{padding: 1}", "{padding: 1, size: [6, 5]}"))
    np.testing.assert_array_equal(losses(said), losses(config))
    with pytest.raises(ConfigError) as caught:
        parse_config(text.replace("{padding: 1}", "{padding: 1, size: 9}"))
    assert "expected [6, 5], as model.input says; data.image_size is what the part is taken from" in str(caught.value)


@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize("kind", ["mask", "image"])
def test_targets_are_cut_with_their_images(tmp_path, kind, factor):
    x = RNG.integers(0, 200, (30, 9, 10), np.uint8)
    large = x.repeat(factor, 1).repeat(factor, 2)
    y = large // 100 if kind == "mask" else large
    np.savez(tmp_path / "set.npz", x_train=x, y_train=y, x_test=x[:9], y_test=y[:9])
    layer = f"{{type: conv_transpose2d, filters: {1 + (kind == 'mask')}, kernel_size: {factor}, stride: {factor}}}"
    text = (
        f"data: {{source: npz, path: '{tmp_path}/set.npz', target: {kind}, image_size: [9, 10], normalize: none, "
        "augment: {crop: {padding: 2}, flip: true}}\n"
        f"model: {{input: [1, 6, 5], head: {'softmax' if kind == 'mask' else 'none'}, layers: [{layer}]}}\n"
        "train: {epochs: 40, batch_size: 10, workers: 1, optimizer: {type: adam, learning_rate: 0.05}}\n"
    )
    config = parse_config(text)
    data = cnnbp.load_data(config)
    middle = data.test.images[:, 0].repeat(factor, 1).repeat(factor, 2)
    np.testing.assert_array_equal(data.test.labels.reshape(middle.shape), middle // 100 if kind == "mask" else middle)
    events = [event for event in fit(build(config), data) if event.event == "epoch"]
    assert json.dumps(events[-1].train_loss)
    if kind == "image":  # the identity is there to be found, and only if images and targets move together
        assert events[-1].train_loss < 0.3 * events[0].train_loss


def test_workers_that_are_spawned_get_whole_images(case, monkeypatch):
    """Images go there in shared memory, once."""
    from cnnbp_cli.train import fit as fitting

    config, _ = case
    data = cnnbp.load_data(config)
    job = fitting.Job(build(config), data, config, 0)
    monkeypatch.setattr(fitting, "forks", lambda method: False)
    monkeypatch.setattr(fitting, "SharedArray", lambda method, array: SimpleNamespace(array=array))
    again = fitting._unpacked(fitting._packed(job, "spawn")).data
    for split in ("train", "test"):
        one, other = getattr(data, split), getattr(again, split)
        np.testing.assert_array_equal(one.images[:], other.images[:])
        np.testing.assert_array_equal(one.whole.images[:], other.whole.images[:])
