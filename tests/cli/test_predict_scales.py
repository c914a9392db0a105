"""One picture in many forms, bytes, floats, booleans, PNG: the same prediction, or a message that says why not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cli.bars import Command, Outcome

import cnnbp_cli
from cnnbp_cli.analysis.predict import predict_files
from cnnbp_cli.data.normalization import Normalization
from cnnbp_cli.train.checkpoint import Checkpoint, CheckpointError

Image = pytest.importorskip("PIL.Image")

TRAINED_ON = {
    "bytes": lambda x: x,
    "floats to 1": lambda x: (x / 255).astype(np.float32),
    "floats to 255": lambda x: x.astype(np.float64),
    "16 bits": lambda x: x.astype(np.uint16) * 257,
    "light bytes": lambda x: 255 - x,
    "light floats": lambda x: (1 - x / 255).astype(np.float32),
}
FORMS = {
    "bytes.npy": lambda x: x,
    "integers.npy": lambda x: x.astype(np.int64),
    "floats.npy": lambda x: x / 255,
    "float32.npy": lambda x: x.astype(np.float32) / 255,
    "float255.npy": lambda x: x.astype(np.float32),
    "light.npy": lambda x: 255 - x,
    "light_floats.npy": lambda x: 1 - x / 255,
}


@pytest.fixture
def bars() -> dict[str, np.ndarray]:
    data = cnnbp_cli.load_data("bars.yaml")
    assert data.test is not None
    train, test = data.train, data.test
    return {"x_train": train.images[:, 0], "y_train": train.labels, "x_test": test.images[:, 0], "y_test": test.labels}


def train(cnnbp: Command, arrays: dict[str, np.ndarray], *more: str) -> None:
    np.savez("data.npz", **arrays)
    settings = ["--set", "data={source: npz, path: data.npz}", *more]
    assert cnnbp("train", "bars.yaml", *settings, "--out", "run", "--quiet").code == 0


@pytest.mark.parametrize("normalize", ["standard", "unit", "none"])
@pytest.mark.parametrize("trained_on", TRAINED_ON)
def test_every_form_of_an_image_gives_the_same_prediction(
    trained_on: str, normalize: str, cnnbp: Command, bars: dict[str, np.ndarray]
) -> None:
    convert = TRAINED_ON[trained_on]
    converted = {name: convert(array) if name.startswith("x") else array for name, array in bars.items()}
    train(cnnbp, converted, "--set", f"data.normalize={normalize}", "--set", "train.optimizer.learning_rate=1e-4")
    model = cnnbp_cli.load("run")
    assert model.normalization is not None
    expected = model.predict(model.normalization.apply(converted["x_test"][:, None]))

    for name, form in FORMS.items():
        np.save(name, form(bars["x_test"]))
        found = predict_files(model, [Path(name)])
        np.testing.assert_allclose([one.probabilities for one in found], expected, rtol=1e-3, atol=1e-5, err_msg=name)
    for k, pixels in enumerate(bars["x_test"][:4]):
        Image.fromarray(pixels).save("dark.png")
        Image.fromarray(255 - pixels).save("light.png")
        for one in predict_files(model, [Path("dark.png"), Path("light.png")]):
            np.testing.assert_allclose(one.probabilities, expected[k], rtol=1e-3, atol=1e-5)


def test_booleans_are_black_and_white(cnnbp: Command, bars: dict[str, np.ndarray]) -> None:
    masks = {name: array > 127 if name.startswith("x") else array for name, array in bars.items()}
    train(cnnbp, masks)
    model = cnnbp_cli.load("run")
    assert model.normalization is not None
    assert model.normalization.white == 1
    np.save("mask.npy", masks["x_test"])
    np.save("bytes.npy", masks["x_test"] * np.uint8(255))
    np.save("zero_and_one.npy", masks["x_test"].astype(np.int64))
    expected = model.predict(masks["x_test"][:, None])
    for name in ("mask.npy", "bytes.npy", "zero_and_one.npy"):
        found = [one.probabilities for one in predict_files(model, [Path(name)])]
        np.testing.assert_allclose(found, expected, rtol=1e-4)

    train_on_bytes = Normalization.fit("unit", bars["x_train"][:, None])
    mask = masks["x_test"][:, None]
    np.testing.assert_array_equal(train_on_bytes.apply(train_on_bytes.rescale(mask, "mask")), mask)


def test_what_is_normalized_already_is_taken_so_and_said(cnnbp: Command, bars_run: Path) -> None:
    model = cnnbp_cli.load(bars_run)
    data = cnnbp_cli.load_data(model)
    assert data.test is not None
    np.save("x.npy", data.normalization.apply(data.test.images))
    done = cnnbp("predict", bars_run, "x.npy", "--format", "json")
    found = [one["probabilities"] for one in json.loads(done.stdout)["predictions"]]
    np.testing.assert_allclose(found, model.predict(data.test.images), rtol=1e-5)
    assert done.remarks == f"x.npy ({len(data.test)} images): floats below zero are taken as normalized already\n"
    assert cnnbp("predict", bars_run, "x.npy", "--invert").stderr == (
        "error: x.npy: is taken as normalized already, so that --invert has no meaning\n"
    )


def test_floats_are_no_pixels_to_a_model_without_a_normalization(cnnbp: Command, bars_run: Path) -> None:
    cnnbp("export", bars_run, "w.npz")
    with np.load("w.npz") as found:
        np.savez("bare.npz", **{name: found[name] for name in cnnbp_cli.load(bars_run).parameters()})
    np.save("x.npy", np.linspace(0, 1, 36, dtype=np.float32).reshape(1, 6, 6))
    done = cnnbp("predict", bars_run.parent / "bars.yaml", "x.npy", "--weights", "bare.npz")
    assert (done.code, done.remarks) == (0, "x.npy: floats are taken as they are\n")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            np.linspace(0, 16, 36).reshape(1, 6, 6),
            "has values from 0 to 16, which are neither 0 to 1 nor 0 to 255; the model was trained on pixels from 0 to "
            "255, give pixels in that range",
        ),
        (np.full((1, 6, 6), np.nan), "has pixels that are not finite; remove or replace them"),
        (
            np.linspace(-5, 200, 36).reshape(1, 6, 6).astype(int),
            "has values from -5 to 200, which are neither 0 to 1 nor 0 to 255; the model was trained on pixels from 0 "
            "to 255, give pixels in that range",
        ),
    ],
)
def test_values_of_no_known_scale(values: np.ndarray, message: str, cnnbp: Command, bars_run: Path) -> None:
    np.save("x.npy", values)
    assert cnnbp("predict", bars_run, "x.npy").stderr == f"error: x.npy: {message}\n"


def test_a_model_of_another_scale_takes_arrays_like_its_own(cnnbp: Command, bars: dict[str, np.ndarray]) -> None:
    sixteenths = {name: array / 16 if name.startswith("x") else array for name, array in bars.items()}
    train(cnnbp, sixteenths)
    np.save("x.npy", sixteenths["x_test"])
    np.save("bytes.npy", bars["x_test"])
    np.save("unit.npy", bars["x_test"] / 255)
    Image.fromarray(bars["x_test"][0]).save("bar.png")
    model = cnnbp_cli.load("run")
    assert model.normalization is not None
    expected = model.predict(model.normalization.apply(sixteenths["x_test"][:, None]))
    found = [one.probabilities for one in predict_files(model, [Path("x.npy")])]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    high = sixteenths["x_train"].max()
    for name, top in (("bytes.npy", bars["x_test"].max()), ("bar.png", 255), ("unit.npy", bars["x_test"].max() / 255)):
        assert cnnbp("predict", "run", name).stderr == (
            f"error: {name}: has values from 0 to {top:g}, but the model was trained on values from 0 to {high:g}; "
            "give an array that was scaled in the same way\n"
        )


def evaluated(name: str, arrays: dict[str, np.ndarray], cnnbp: Command) -> Outcome:
    """Evaluate the run on other arrays."""
    np.savez(name, **arrays)
    config = cnnbp("config", "bars.yaml", "--set", f"data={{source: npz, path: {name}}}").stdout
    Path("other.yaml").write_text(config, encoding="utf-8")
    return cnnbp("evaluate", "run", "--data", "other.yaml")


def test_evaluate_notices_another_scale_and_polarity(cnnbp: Command, bars: dict[str, np.ndarray]) -> None:
    train(cnnbp, bars)
    folder = Path.cwd()

    def changed(convert: Callable[[np.ndarray], np.ndarray]) -> dict[str, np.ndarray]:
        return {name: convert(array) if name.startswith("x") else array for name, array in bars.items()}

    floats = evaluated("floats.npz", changed(lambda x: x / 255), cnnbp)
    assert floats.stdout == cnnbp("evaluate", "run").stdout
    assert floats.remarks == (
        f"npz {folder}/floats.npz: pixels from 0 to 1, but the model was trained on 0 to 255; they are brought to that "
        "scale\n"
    )
    light = evaluated("light.npz", changed(lambda x: 255 - x), cnnbp)
    assert light.remarks == (
        f"npz {folder}/light.npz: the images have light edges, but the model was trained on dark ones; swap dark and "
        "light in one of them\n"
    )
    top = bars["x_train"].max() / 16
    sixteenths = evaluated("sixteenths.npz", changed(lambda x: x / 16), cnnbp)
    assert (sixteenths.code, sixteenths.stderr) == (
        2,
        f"error: npz {folder}/sixteenths.npz: has values from 0 to {top:g}, but the model was trained on pixels from 0 "
        "to 255; scale them alike\n",
    )


def test_floats_that_look_raw_are_not_taken_as_normalized_silently(bars_run: Path) -> None:
    model = cnnbp_cli.load(bars_run)
    data = cnnbp_cli.load_data(model)
    with pytest.warns(UserWarning, match=r"^these floats look like raw pixels, but floats are taken as normalized: "):
        model.predict(data.train.images.astype(np.float32))
    model.predict(data.normalization.apply(data.train.images))


def test_checkpoints_of_older_versions_say_their_scale_by_mean_and_deviation() -> None:
    scales = {
        "bytes": (Normalization("standard", (33.3,), (78.6,)), 255.0, False),
        "light bytes": (Normalization("standard", (221.7,), (78.6,)), 255.0, True),
        "floats": (Normalization("standard", (0.13,), (0.31,)), 1.0, False),
        "unit": (Normalization("unit", (0.0,), (255.0,)), 255.0, False),
        "unit floats": (Normalization("unit", (0.0,), (1.0,)), 1.0, False),
        "raw": (Normalization("none", (0.0,), (1.0,)), None, False),
        "standardized": (Normalization("standard", (-0.1,), (1.0,)), None, False),
    }
    for name, (old, white, is_light) in scales.items():
        assert Normalization.from_dict({"kind": old.kind, "mean": old.mean, "std": old.std}) == old
        assert (old.white, old.is_light) == (white, is_light), name


def test_a_checkpoint_with_three_means_for_one_channel(bars_run: Path, tmp_path: Path) -> None:
    found = Checkpoint.read(next((bars_run / "checkpoints").glob("*.npz")))
    path = tmp_path / "three.npz"
    three = {"kind": "standard", "mean": [1, 2, 3], "std": [1, 1, 1]}
    replace(found, normalization=three).save(path)
    with pytest.raises(CheckpointError) as caught:
        cnnbp_cli.load(path)
    assert str(caught.value) == (
        f"{path}: does not fit the model: normalization: has 3 means, but the model's images have 1 channel"
    )


def test_a_loss_that_is_not_finite_is_no_success(cnnbp: Command, bars_run: Path) -> None:
    model = cnnbp_cli.load(bars_run)
    huge = {name: np.full_like(value, 3e38) for name, value in model.parameters().items()}
    np.savez("huge.npz", **huge)
    done = cnnbp("evaluate", bars_run, "--weights", "huge.npz")
    assert (done.code, done.remarks) == (
        1,
        "the loss is not finite: the model's outputs are infinite or NaN, and its accuracy means nothing\n",
    )
