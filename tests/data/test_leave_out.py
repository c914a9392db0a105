"""Training images that are blank, or tested as well, are left out before anything is measured on them."""

from __future__ import annotations

import numpy as np
import pytest

from cnnbp_cli.data import file_rows
from cnnbp_cli.data.dataset import DataError, load_dataset

SHAPE = (1, 2, 3)


@pytest.fixture
def arrays():
    """Return ten images, each known by its first pixel: 3 and 4 are blank, 0 and 7 are tested as well."""
    images = np.arange(10, dtype=np.uint8)[:, None, None] * 10 + np.arange(6, dtype=np.uint8).reshape(2, 3)
    images[3], images[4] = 130, 200
    tested = np.stack([images[7], images[0], images[7] + 1])
    return {"x_train": images, "y_train": np.arange(10) % 2, "x_test": tested, "y_test": np.array([1, 0, 1])}


@pytest.fixture
def load(tmp_path, data_config, arrays):
    def loaded(**settings):
        np.savez(tmp_path / "set.npz", **arrays)
        return load_dataset(data_config("npz", path=tmp_path / "set.npz", **settings), SHAPE, seed=0)

    return loaded


def firsts(split):
    return split.images[:][:, 0, 0, 0].tolist()


def test_nothing_is_left_out_unless_asked(load):
    assert len(load().train) == 10
    assert not load().remarks


@pytest.mark.parametrize(
    ("kinds", "left", "told"),
    [
        (["blank"], [0, 10, 20, 50, 60, 70, 80, 90], ["2 of 10 training images, which have a single value"]),
        (["leaked"], [10, 20, 130, 200, 50, 60, 80, 90], ["2 of 10 training images, which are validation or test"]),
        (["leaked", "blank"], [10, 20, 50, 60, 80, 90], ["which are validation or test", "which have a single value"]),
    ],
)
def test_what_is_named_is_left_out_and_told(load, kinds, left, told):
    data = load(leave_out=kinds)
    assert firsts(data.train) == left
    assert len(data.train.labels) == len(left)
    assert len(data.test) == 3
    for remark, words in zip(data.remarks, told, strict=True):
        assert words in remark


def test_a_label_stays_with_its_image_and_the_rest_is_measured(load):
    data = load(leave_out=["blank"])
    assert data.train.labels.tolist() == [0, 1, 0, 1, 0, 1, 0, 1]
    assert data.normalization.mean == pytest.approx((data.train.images.mean(),))
    assert data.normalization.high == 95


def test_an_image_that_is_validated_is_leaked_too(load, arrays):
    arrays["x_train"] = np.concatenate([arrays["x_train"]] * 2)  # whichever copy is held out, the other one stays
    arrays["y_train"] = np.concatenate([arrays["y_train"]] * 2)
    del arrays["x_test"], arrays["y_test"]
    data = load(leave_out=["leaked"], validation=6)
    assert not set(firsts(data.train)) & set(firsts(data.validation))
    assert len(data.train) < 14


def test_images_in_a_file_are_left_out_there(load, data_config, arrays, tmp_path, monkeypatch):
    monkeypatch.setattr(file_rows, "IN_MEMORY", 0)
    for name, value in arrays.items():
        np.save(tmp_path / f"{name}.npy", value)
    config = data_config("npy", path=tmp_path, leave_out=["blank", "leaked"])
    data = load_dataset(config, SHAPE, seed=0)
    assert isinstance(data.train.images, file_rows.FileRows)
    assert firsts(data.train) == firsts(load(leave_out=["blank", "leaked"]).train)


def test_something_has_to_be_left(load, arrays):
    arrays["x_test"], arrays["y_test"] = arrays["x_train"], arrays["y_train"]
    with pytest.raises(DataError, match=r"data\.leave_out leaves no training image"):
        load(leave_out=["leaked"])
