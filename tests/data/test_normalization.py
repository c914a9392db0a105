"""Normalization: its definition, its edges, and its way through a checkpoint."""

import json

import numpy as np
import pytest

from cnnbp_cli.config.schema import MeanStd
from cnnbp_cli.core.types import FieldErrors
from cnnbp_cli.data.dataset import DataError, Normalization
from cnnbp_cli.data.normalization import PIXELS_AT_A_TIME, measure

RNG = np.random.default_rng(5)


def test_standard_gives_each_channel_mean_0_and_deviation_1():
    images = RNG.integers(0, [[[50]], [[200]]], size=(30, 2, 5, 6)).astype(np.uint8)
    x = Normalization.fit("standard", images).apply(images, np.float64)
    np.testing.assert_allclose(x.mean(axis=(0, 2, 3)), 0, atol=1e-12)
    np.testing.assert_allclose(x.std(axis=(0, 2, 3)), 1, rtol=1e-12)


IMAGENET = MeanStd((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize("white", [1, 255, 65535])
@pytest.mark.parametrize("unit", [1, 255])
def test_given_numbers_are_brought_to_the_scale_of_the_images(white, unit):
    """As torchvision's ToTensor and Normalize, whether the numbers are those of 0…1 or of 0…255."""
    images = RNG.uniform(0, white, size=(6, 3, 5, 4))
    images[0, 0, 0, 0] = white
    given = MeanStd(*(tuple(unit * value for value in values) for values in (IMAGENET.mean, IMAGENET.std)))
    normalization = Normalization.fit(given, images)
    mean, std = (np.array(values)[:, None, None] for values in (IMAGENET.mean, IMAGENET.std))
    np.testing.assert_allclose(normalization.apply(images, np.float64), (images / white - mean) / std, rtol=1e-10)
    assert (normalization.kind, normalization.white) == ("given", white)
    assert Normalization.from_dict(json.loads(json.dumps(normalization.to_dict()))) == normalization


def test_one_given_number_is_for_all_channels():
    images = RNG.integers(0, 256, size=(6, 3, 5, 4), dtype=np.uint8)
    x = Normalization.fit(MeanStd((0.5,), (0.25,)), images).apply(images, np.float64)
    np.testing.assert_allclose(x, (images / 255 - 0.5) / 0.25, rtol=1e-12)


def test_given_numbers_for_other_channels_are_told():
    with pytest.raises(DataError, match=r"data.normalize: has 3 means, but the images have 1 channel$"):
        Normalization.fit(IMAGENET, np.zeros((2, 1, 3, 3), np.uint8))


@pytest.mark.parametrize(
    ("mean", "std", "field", "message"),
    [
        ((), (), "mean", "expected a number for each channel, or one for all, got none"),
        ((0.5, 0.4), (0.2,), "std", "expected as many numbers as mean has, 2, got 1"),
        ((0.5,), (0.0,), "std", "expected numbers above 0, got [0.0]"),
    ],
)
def test_given_numbers_that_cannot_be(mean, std, field, message):
    with pytest.raises(FieldErrors) as caught:
        MeanStd(mean, std)
    assert caught.value.problems == [(field, message)]


def test_standard_adds_up_over_chunks():
    images = RNG.integers(0, 256, size=(3 * PIXELS_AT_A_TIME // 100 + 7, 1, 10, 10), dtype=np.uint8)
    normalization = Normalization.fit("standard", images)
    assert normalization.mean[0] == pytest.approx(images.mean(), rel=1e-12)
    assert normalization.std[0] == pytest.approx(images.std(), rel=1e-12)


def test_standard_of_floats_survives_a_large_offset():
    images = 1e6 + RNG.normal(size=(50, 1, 4, 4))
    normalization = Normalization.fit("standard", images)
    assert normalization.std[0] == pytest.approx(images.std(), rel=1e-9)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_standard_of_constant_images_does_not_divide_by_0(dtype):
    images = np.full((4, 1, 3, 3), 7, dtype)
    normalization = Normalization.fit("standard", images)
    assert normalization == Normalization("standard", (7.0,), (1.0,), low=7, high=7)
    assert not normalization.apply(images).any()


def test_unit_of_bytes():
    images = np.array([0, 51, 255], np.uint8).reshape(3, 1, 1, 1)
    np.testing.assert_allclose(Normalization.fit("unit", images).apply(images, np.float64).ravel(), [0, 0.2, 1])


def test_unit_of_floats_uses_the_training_range():
    train = np.array([-2.0, 0.0, 6.0]).reshape(3, 1, 1, 1)
    normalization = Normalization.fit("unit", train)
    np.testing.assert_allclose(normalization.apply(train, np.float64).ravel(), [0, 0.25, 1])
    np.testing.assert_allclose(normalization.apply(train + 8, np.float64).ravel(), [1, 1.25, 2])


def test_none_keeps_raw_values():
    images = RNG.integers(0, 256, size=(3, 2, 2, 2), dtype=np.uint8)
    x = Normalization.fit("none", images).apply(images)
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x, images)


def test_apply_leaves_its_input_alone():
    images = RNG.normal(size=(3, 1, 2, 2))
    before = images.copy()
    Normalization.fit("standard", images).apply(images, np.float64)
    np.testing.assert_array_equal(images, before)


def test_apply_to_other_channels():
    with pytest.raises(DataError) as caught:
        Normalization("none", (0.0,), (1.0,)).apply(np.zeros((2, 3, 4, 4), np.uint8))
    assert str(caught.value) == (
        "images of shape (2, 3, 4, 4): expected (N, 1, H, W), the channels that the normalization was measured on"
    )


def test_round_trip_through_json():
    normalization = Normalization.fit("standard", RNG.integers(0, 256, size=(9, 3, 4, 4), dtype=np.uint8))
    assert Normalization.from_dict(json.loads(json.dumps(normalization.to_dict()))) == normalization


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"kind": "unit", "mean": [0]}, "expected kind, mean and std, the last two as lists of numbers"),
        ({"kind": "unit", "mean": 0, "std": 1}, "expected kind, mean and std, the last two as lists of numbers"),
        ({"kind": "unit", "mean": ["a"], "std": [1]}, "expected kind, mean and std, the last two as lists of numbers"),
        (
            {"kind": "unit", "mean": [0, 0], "std": [1]},
            "expected as many means as standard deviations, one per channel",
        ),
        ({"kind": "unit", "mean": [0], "std": [0]}, "expected finite means and standard deviations above zero"),
        (
            {"kind": "unit", "mean": [float("nan")], "std": [1]},
            "expected finite means and standard deviations above zero",
        ),
    ],
)
def test_damaged_dict(values, expected):
    with pytest.raises(DataError) as caught:
        Normalization.from_dict(values)
    assert str(caught.value) == f"normalization: {expected}"


@pytest.mark.parametrize("shape", [(3, 2, 5, 7), (700, 1, 28, 28), (1, 1, 1, 1), (300, 3, 32, 32)])
@pytest.mark.parametrize("high", [256, 2])
def test_sums_of_bytes_are_exact(shape, high):
    images = RNG.integers(0, high, size=shape, dtype=np.uint8)
    images[0] = 255
    whole = images.astype(object)
    measured = measure(images)
    for channel in range(shape[1]):
        values = whole[:, channel].ravel()
        mean = sum(values) / len(values)
        square = sum(value * value for value in values)
        assert measured.mean[channel] == mean
        assert measured.std[channel] == max(0.0, square / len(values) - mean * mean) ** 0.5
    assert (measured.low, measured.high) == (images.min(), images.max())
