"""Classes with names: from the data or the config, kept by the run, and shown wherever a class is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cli.bars import Command

RNG = np.random.default_rng(0)


def two_kinds(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images with an upright or a level bar, and what each has."""
    images = RNG.integers(0, 40, (count, 6, 6), dtype=np.uint8)
    kinds = np.arange(count) % 2
    for image, kind in zip(images, kinds, strict=True):
        image[:, 2] = 255 if kind else image[:, 2]
        image[2] = image[2] if kind else 255
    return images, np.array(["level", "up"])[kinds]


@pytest.fixture
def run(cnnbp: Command) -> str:
    """A run whose labels were words."""
    x, y = two_kinds(64)
    np.savez("words.npz", x_train=x, y_train=y, x_test=x[:10], y_test=y[:10])
    done = cnnbp("train", "bars.yaml", "--set", "data={source: npz, path: words.npz}", "--out", "run", "--quiet")
    assert (done.code, done.stderr) == (0, "")
    np.save("two.npy", x[:2])
    return "run"


def test_data_info(cnnbp: Command, run: str) -> None:
    done = cnnbp("data", "info", f"{run}/config.yaml", "--format", "json")
    assert json.loads(done.stdout)["class_names"] == ["level", "up"]
    assert "\nlevel     32     5\nup        32     5\n" in cnnbp("data", "info", f"{run}/config.yaml").stdout


def test_evaluate(cnnbp: Command, run: str) -> None:
    table = cnnbp("evaluate", run).stdout
    assert "\ntrue   level    up\n" in table
    rows = json.loads(cnnbp("evaluate", run, "--format", "json").stdout)["per_class"]
    assert [(row["label"], row["name"]) for row in rows] == [(0, "level"), (1, "up")]
    header, first, _ = cnnbp("evaluate", run, "--format", "csv").stdout.splitlines()
    assert header == "label,precision,recall,count,predicted_level,predicted_up,name"
    assert first.endswith(",level")


def test_predict_does_not_need_the_data(cnnbp: Command, run: str) -> None:
    Path("words.npz").unlink()
    first, second = json.loads(cnnbp("predict", run, "two.npy", "--format", "json").stdout)["predictions"]
    assert [(one["class"], one["name"]) for one in (first, second)] == [(0, "level"), (1, "up")]
    assert cnnbp("predict", run, "two.npy").stdout.startswith("two.npy[0]: level, ")
    header, row, _ = cnnbp("predict", run, "two.npy", "--format", "csv").stdout.splitlines()
    assert header == "image,class,probability_level,probability_up,name"
    assert row.endswith(",level")


def test_trace(cnnbp: Command, run: str) -> None:
    assert ": image 1 of the test split, label up, evaluation mode\n" in cnnbp("trace", run, "--image", "1").stdout


def test_onnx(cnnbp: Command, run: str) -> None:
    onnx = pytest.importorskip("onnx")
    assert cnnbp("export", run, "model.onnx").code == 0
    described = {entry.key: entry.value for entry in onnx.load("model.onnx").metadata_props}
    assert json.loads(described["classes"]) == ["level", "up"]


def test_other_data_are_evaluated_by_name(cnnbp: Command, run: str) -> None:
    """A test set that names its classes in another order, or has only one of them."""
    x, y = two_kinds(20)
    data, model = "{source: npz, path: other.npz, classes: [up, level]}", "{input: [1, 6, 6], layers: [relu]}"
    Path("other.yaml").write_text(f"data: {data}\nmodel: {model}\n", encoding="utf-8")
    np.savez("other.npz", x_train=x, y_train=y == "level", x_test=x[1::2], y_test=(y == "level")[1::2])
    accuracy = json.loads(cnnbp("evaluate", run, "--format", "json").stdout)["accuracy"]
    done = json.loads(cnnbp("evaluate", run, "--data", "other.yaml", "--format", "json").stdout)
    assert [row["count"] for row in done["per_class"]] == [0, 10]
    assert done["accuracy"] == accuracy == 1


def test_names_of_the_config(cnnbp: Command) -> None:
    done = cnnbp("train", "bars.yaml", "--set", "data.classes=[upright, level]", "--out", "run", "--quiet")
    assert (done.code, done.stderr) == (0, "")
    assert "upright" in cnnbp("evaluate", "run").stdout
    for names, complaint in {
        "[a, a]": "'a' is there twice; each class has a name of its own",
        "[a]": "bars have 2 to 4 classes, got 1",
        '[a, ""]': "expected names that can be shown, got ''",
    }.items():
        done = cnnbp("validate", "bars.yaml", "--set", f"data.classes={names}")
        assert done.code == 2
        assert complaint in done.stdout + done.stderr
