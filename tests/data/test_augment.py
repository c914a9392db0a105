"""Augmentation against plain loops: what an affine map of an image means, pixel by pixel."""

from functools import partial
from math import cos, floor, radians, sin
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnbp_cli.config.schema import Augment
from cnnbp_cli.data.augment import draw_flips, draw_maps, flipped, warp
from cnnbp_cli.data.batches import make_batch
from cnnbp_cli.data.normalization import Normalization
from cnnbp_cli.data.split import Split

RNG = np.random.default_rng(2)


def draw(size=(5, 2, 7, 8)):
    return RNG.integers(0, 256, size, dtype=np.uint8)


def maps(*columns):
    return np.array(columns, float).T


def warp_slowly(image, down, right, degrees, factor):
    """Warp one (C, H, W) image: loops over pixels, a point's coordinates relative to the center."""
    channels, height, width = image.shape
    result = np.zeros(image.shape)
    angle = radians(degrees)

    def pixel(channel, row, column):
        inside = 0 <= row < height and 0 <= column < width
        return float(image[channel, row, column]) if inside else 0.0

    for channel in range(channels):
        for row in range(height):
            for column in range(width):
                # Where the map put this pixel from: undo the shift, then the turn, then the zoom. y grows downwards.
                y, x = row - down - (height - 1) / 2, column - right - (width - 1) / 2
                from_x = (cos(angle) * x - sin(angle) * y) / factor + (width - 1) / 2
                from_y = (sin(angle) * x + cos(angle) * y) / factor + (height - 1) / 2
                top, left = floor(from_y), floor(from_x)
                b, a = from_y - top, from_x - left
                result[channel, row, column] = (
                    (1 - b) * (1 - a) * pixel(channel, top, left)
                    + (1 - b) * a * pixel(channel, top, left + 1)
                    + b * (1 - a) * pixel(channel, top + 1, left)
                    + b * a * pixel(channel, top + 1, left + 1)
                )
    return result


def shifted(image, down, right):
    """Roll a (C, H, W) image and blank what came round."""
    result = np.roll(image, (down, right), axis=(1, 2))
    _, height, width = image.shape
    rows, columns = np.arange(height) - down, np.arange(width) - right
    result[:, (rows < 0) | (rows >= height)] = 0
    result[:, :, (columns < 0) | (columns >= width)] = 0
    return result


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_strength_is_the_identity(dtype):
    images = draw()
    none = SimpleNamespace(shift=0, rotate=0, scale=0)
    result = warp(images, draw_maps(none, 0, 0, 0, len(images)), dtype)
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, images.transpose(1, 2, 3, 0))


@given(st.integers(-9, 9), st.integers(-9, 9))
def test_shift_rolls_and_fills_with_zeros(down, right):
    images = draw((2, 2, 5, 6))
    result = warp(images, maps((down, right, 0, 1), (0, 0, 0, 1)), np.float32)
    np.testing.assert_array_equal(result[..., 0], shifted(images[0], down, right))
    np.testing.assert_array_equal(result[..., 1], images[1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_maps_agree_with_plain_loops(dtype):
    images = draw()
    columns = [(0, 0, 30, 1), (1, -2, 0, 1.25), (-1, 3, -77, 0.8), (2, 0, 180, 1.1), (0, 0, 10, 0.5)]
    result = warp(images, maps(*columns), dtype)
    expected = np.stack([warp_slowly(image, *column) for image, column in zip(images, columns, strict=True)], axis=-1)
    np.testing.assert_allclose(result, expected, atol=1e-3 if dtype == np.float32 else 1e-9)


def test_quarter_turn_is_counter_clockwise():
    images = draw((1, 1, 6, 6))
    result = warp(images, maps((0, 0, 90, 1)), np.float64)
    np.testing.assert_allclose(result[0, :, :, 0], np.rot90(images[0, 0]), atol=1e-9)


def test_factor_above_1_magnifies():
    images = np.zeros((1, 1, 9, 9), np.uint8)
    images[:, :, 3:6, 3:6] = 100
    larger, smaller = (warp(images, maps((0, 0, 0, factor)), np.float64).sum() for factor in (1.5, 0.75))
    assert smaller < images.sum() < larger


def test_draws_stay_within_the_strength_and_reach_its_ends():
    strength = SimpleNamespace(shift=2, rotate=10, scale=0.1)
    down, right, angle, factor = draw_maps(strength, 0, 0, 0, 5000)
    assert set(down) == set(right) == {-2, -1, 0, 1, 2}
    assert np.bincount((down + 2).astype(int)).min() > 900
    assert -10 <= angle.min() < -9.9 < 9.9 < angle.max() <= 10
    assert 0.9 <= factor.min() < 0.901 < 1.099 < factor.max() <= 1.1


def test_draws_of_one_kind_do_not_depend_on_the_others():
    alone = draw_maps(SimpleNamespace(shift=0, rotate=10, scale=0), 4, 5, 6, 7)
    together = draw_maps(SimpleNamespace(shift=3, rotate=10, scale=0.5), 4, 5, 6, 7)
    np.testing.assert_array_equal(alone[2], together[2])


def test_half_of_the_images_are_mirrored():
    images = np.random.default_rng(0).integers(0, 256, (400, 2, 3, 4), dtype=np.uint8)
    flips = draw_flips(7, 3, 0, 400)
    assert 160 < flips.sum() < 240
    found = flipped(images, flips)
    np.testing.assert_array_equal(found[flips], images[flips][..., ::-1])
    np.testing.assert_array_equal(found[~flips], images[~flips])
    np.testing.assert_array_equal(draw_flips(7, 3, 100, 300), flips[100:])  # whichever worker makes a sample


def test_a_batch_is_mirrored_before_it_is_shifted():
    images = np.random.default_rng(0).integers(1, 256, (50, 1, 3, 4), dtype=np.uint8)
    split, normalization = Split(images, np.zeros(50, np.int64)), Normalization("none", (0.0,), (1.0,))
    flips = draw_flips(1, 2, 0, 50)
    make = partial(make_batch, split, slice(0, 50), normalization, np.float32, seed=1, step=2)
    x, _ = make(augment=Augment(flip=True))
    np.testing.assert_array_equal(np.moveaxis(x, -1, 0), flipped(images, flips))
    x, _ = make(augment=Augment(flip=True, shift=2))
    mirrored = Split(flipped(images, flips), split.labels)
    expected, _ = make_batch(
        mirrored, slice(0, 50), normalization, np.float32, seed=1, step=2, augment=Augment(shift=2)
    )
    np.testing.assert_array_equal(x, expected)
