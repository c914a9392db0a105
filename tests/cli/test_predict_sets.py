"""Predictions and evaluations of whole sets: folders, tables, archives, patterns, and what Kaggle takes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cli.bars import Command

RNG = np.random.default_rng(0)


@pytest.fixture
def sets(cnnbp: Command, bars_run: Path) -> np.ndarray:
    """The same images as an array, as a table with labels and as one without."""
    images = RNG.integers(0, 256, (12, 6, 6), dtype=np.uint8)
    np.save("set.npy", images)
    rows = images.reshape(12, 36)
    header = ",".join(f"pixel{k}" for k in range(36))
    np.savetxt("test.csv", rows, "%d", ",", header=header, comments="")
    np.savetxt("train.csv", np.c_[np.arange(12) % 2, rows], "%d", ",", header=f"label,{header}", comments="")
    np.savez("set.npz", x_train=images, y_train=np.arange(12) % 2)
    return images


def predicted(cnnbp: Command, *arguments: str | Path) -> list[dict[str, object]]:
    done = cnnbp("predict", *arguments, "--format", "json", "--no-invert")
    assert done.code == 0
    return list(json.loads(done.stdout)["predictions"])


def test_tables(cnnbp: Command, bars_run: Path, sets: np.ndarray) -> None:
    expected = [one["probabilities"] for one in predicted(cnnbp, bars_run, "set.npy")]
    for table in ("test.csv", "train.csv"):
        found = predicted(cnnbp, bars_run, table)
        assert [one["probabilities"] for one in found] == expected
        assert found[3]["image"] == f"{table}[3]"


def test_kaggle(cnnbp: Command, bars_run: Path, sets: np.ndarray) -> None:
    classes = [one["class"] for one in predicted(cnnbp, bars_run, "test.csv")]
    lines = cnnbp("predict", bars_run, "test.csv", "--format", "csv", "--id-column", "ImageId", "--no-invert").lines
    assert lines == ["ImageId,Label", *(f"{k},{label}" for k, label in enumerate(classes, 1))]
    arguments = ("--format", "csv", "--id-column", "id", "--label-column", "species")
    assert cnnbp("predict", bars_run, "test.csv", *arguments).lines[0] == "id,species"
    assert cnnbp("predict", bars_run, "test.csv", "--format", "json", "--id-column", "id").code == 2
    done = cnnbp("predict", bars_run, "test.csv", "--format", "csv", "--id-column", "Label")
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr == "error: --id-column: is Label, as the other column; --label-column renames that\n"
    done = cnnbp("predict", bars_run, "test.csv", "--format", "csv", "--id-column", "id", "--top", "2")
    assert done.code == 2
    assert done.stderr == "error: --id-column: goes with one class for each image, and not with --top\n"


@pytest.mark.parametrize("place", [0, 36, 5])
def test_kaggle_with_names_of_its_own(cnnbp: Command, bars_run: Path, sets: np.ndarray, place: int) -> None:
    """They come back, wherever their column is; without it, they are no label and no pixel either."""
    classes = [one["class"] for one in predicted(cnnbp, bars_run, "test.csv")]
    names = [*(f"pixel{k}" for k in range(36))]
    names.insert(place, "id")
    rows = np.insert(sets.reshape(12, 36).astype(int), place, 100 + np.arange(12), 1)
    np.savetxt("named.csv", rows, "%d", ",", header=",".join(names), comments="")
    arguments = ("--format", "csv", "--no-invert", "--id-column")
    found = cnnbp("predict", bars_run, "named.csv", *arguments, "id").lines
    assert found == ["id,Label", *(f"{100 + k},{label}" for k, label in enumerate(classes))]


def test_kaggle_with_pictures(cnnbp: Command, bars_run: Path, sets: np.ndarray) -> None:
    image = pytest.importorskip("PIL.Image")
    Path("test").mkdir()
    for k in (1, 2, 10):
        image.fromarray(sets[k]).save(f"test/{k}.png")
    classes = {k: one["class"] for k, one in enumerate(predicted(cnnbp, bars_run, "set.npy"))}
    found = cnnbp("predict", bars_run, "test", "--format", "csv", "--no-invert", "--id-column", "id").lines
    assert found == ["id,Label", f"1,{classes[1]}", f"10,{classes[10]}", f"2,{classes[2]}"]


def test_the_most_likely_classes(cnnbp: Command, bars_run: Path, sets: np.ndarray) -> None:
    one = predicted(cnnbp, bars_run, "test.csv", "--top", "1")[0]
    assert one["top"] == [{"name": str(one["class"]), "probability": max(one["probabilities"])}]  # type: ignore[call-overload]
    lines = cnnbp("predict", bars_run, "test.csv", "--top", "5", "--format", "csv", "--no-invert").lines
    assert lines[0] == "image,class_1,probability_1,class_2,probability_2"
    assert lines[1].startswith(f"test.csv[0],{one['class']},{max(one['probabilities'])}")  # type: ignore[call-overload]
    assert cnnbp("predict", bars_run, "test.csv", "--top", "0").code == 2
    assert "class 1" in cnnbp("predict", bars_run, "test.csv", "--top", "2").lines[0]


def test_evaluate_files(cnnbp: Command, bars_run: Path, sets: np.ndarray) -> None:
    labels = [one["class"] for one in predicted(cnnbp, bars_run, "set.npy")]
    right = float(np.mean(np.array(labels) == np.arange(12) % 2))
    for path in ("train.csv", "set.npz"):
        found = json.loads(cnnbp("evaluate", bars_run, "--data", path, "--format", "json").stdout)
        assert (found["accuracy"], found["count"]) == (right, 12)


def test_folders_and_patterns(cnnbp: Command, bars_run: Path, sets: np.ndarray) -> None:
    image = pytest.importorskip("PIL.Image")
    for k, pixels in enumerate(sets):
        (place := Path("set", str(k % 2))).mkdir(parents=True, exist_ok=True)
        image.fromarray(pixels).save(place / f"{k:02}.png")
    by_name = {str(one["image"]): one["probabilities"] for one in predicted(cnnbp, bars_run, "set")}
    assert list(by_name) == sorted(by_name)
    expected = predicted(cnnbp, bars_run, "set.npy")
    for k, one in enumerate(expected):
        np.testing.assert_allclose(by_name[f"set/{k % 2}/{k:02}.png"], one["probabilities"], rtol=1e-5)  # type: ignore[arg-type]
    assert [one["image"] for one in predicted(cnnbp, bars_run, "set/1/*.png")] == [n for n in by_name if "/1/" in n]
    found = json.loads(cnnbp("evaluate", bars_run, "--data", "set", "--format", "json").stdout)
    assert found["count"] == 12
    Path("empty").mkdir()
    done = cnnbp("predict", bars_run, "empty")
    assert done.code == 2
    assert done.stderr.startswith("error: empty: has no pictures; expected files that end in .png, ")
