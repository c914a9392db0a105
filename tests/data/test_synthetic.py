"""Drawn images: the classes are what they say, the seed decides all, impossible drawings are refused."""

import numpy as np
import pytest

from cnnbp_cli.core.types import FieldErrors
from cnnbp_cli.data.dataset import load_dataset
from cnnbp_cli.data.errors import DataError

CLASSES = {"bars": 4, "digits": 10}


def load(data_config, seed=0, **fields):
    config = data_config("synthetic", **fields)
    return load_dataset(config, config.image, seed)


def brightest_line(image):
    """Return the class of a bar by looking for the brightest line, in plain loops."""
    height, width = image.shape
    best = {}
    for y in range(1, height - 1):
        best.setdefault(1, []).append(image[y].mean())
    for x in range(1, width - 1):
        best.setdefault(0, []).append(image[:, x].mean())
    for offset in range(-height // 2, height // 2 + 1):
        best.setdefault(2, []).append(np.diagonal(image, offset).mean())
        best.setdefault(3, []).append(np.diagonal(image[:, ::-1], offset).mean())
    return max(best, key=lambda label: max(best[label]))


@pytest.mark.parametrize(("classes", "image"), [(2, (1, 6, 6)), (4, (1, 12, 12)), (4, (1, 16, 16))])
def test_bars_are_where_their_labels_say(data_config, classes, image):
    train = load(data_config, kind="bars", classes=classes, image=image).train
    assert [brightest_line(sample[0].astype(float)) for sample in train.images] == train.labels.tolist()


@pytest.mark.parametrize("size", [8, 12, 28])
def test_digits_are_told_apart_by_their_nearest_neighbors(data_config, size):
    dataset = load(data_config, kind="digits", image=(1, size, size), train=1500, test=150)
    train, test = (split.images.reshape(len(split), -1).astype(float) for split in (dataset.train, dataset.test))
    distance = (train * train).sum(1) - 2 * test @ train.T
    accuracy = (dataset.train.labels[distance.argmin(1)] == dataset.test.labels).mean()
    assert accuracy > 0.8  # chance is 0.1; a network that learns is far above


@pytest.mark.parametrize("kind", CLASSES)
def test_the_seed_decides(data_config, kind):
    first, again, other = (load(data_config, seed, kind=kind, classes=CLASSES[kind]) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.train.images, again.train.images)
    np.testing.assert_array_equal(first.train.labels, again.train.labels)
    np.testing.assert_array_equal(first.test.images, again.test.images)
    assert (first.train.images != other.train.images).any()
    assert (first.train.images[:40] != first.test.images).any()


@pytest.mark.parametrize("kind", CLASSES)
def test_classes_are_balanced_and_declared(data_config, kind):
    dataset = load(data_config, kind=kind, classes=3, train=3001, image=(3, 10, 14))
    assert np.bincount(dataset.train.labels).tolist() == [1001, 1000, 1000]
    assert dataset.train.images.shape == (3001, 3, 10, 14)
    assert dataset.train.images.dtype == np.uint8
    assert (dataset.classes, dataset.name) == (3, f"synthetic {kind}")


def test_without_a_test_split(data_config):
    assert load(data_config, test=0).test is None


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"train": 10**12},
            "data: 1,000,000,000,040 images of [1, 12, 12] take more than 16.0 GiB; draw fewer",
        ),
    ],
)
def test_impossible_drawing(data_config, fields, expected):
    with pytest.raises(DataError) as caught:
        load(data_config, **fields)
    assert str(caught.value) == expected


def test_image_that_the_model_does_not_take(data_config):
    with pytest.raises(DataError) as caught:
        load_dataset(data_config("synthetic"), (1, 28, 28), seed=0)
    assert str(caught.value) == (
        "data.image: images are [1, 12, 12], but the config says [1, 28, 28]; write `model.input: [1, 12, 12]`"
    )


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"kind": "bars", "classes": 5}, ("classes", "bars have 2 to 4 classes, got 5")),
        ({"kind": "digits", "classes": 11}, ("classes", "digits have 2 to 10 classes, got 11")),
        (
            {"kind": "bars", "classes": 2, "image": (1, 3, 9)},
            ("image", "bars need a height and width of 4 or more, got [1, 3, 9]"),
        ),
        ({"image": (1, 9, 7)}, ("image", "digits need a height and width of 8 or more, got [1, 9, 7]")),
    ],
)
def test_what_can_never_be_drawn_is_no_declaration(data_config, fields, problem):
    with pytest.raises(FieldErrors) as caught:
        data_config("synthetic", **fields)
    assert caught.value.problems == [problem]


@pytest.mark.parametrize(("kind", "classes", "size"), [("bars", 4, 4), ("digits", 10, 8)])
def test_the_limits_can_be_drawn(data_config, kind, classes, size):
    train = load(data_config, kind=kind, classes=classes, image=(1, size, size)).train
    assert sorted(set(train.labels.tolist())) == list(range(classes))
