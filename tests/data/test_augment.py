"""Augmentation against plain loops: what an affine map of an image means, pixel by pixel."""

from functools import partial
from math import cos, floor, radians, sin
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnbp_cli.config.schema import Augment, Crop
from cnnbp_cli.core.types import FieldErrors
from cnnbp_cli.data.augment import draw_corners, draw_flips, draw_maps, flipped, warp
from cnnbp_cli.data.batches import make_batch
from cnnbp_cli.data.errors import DataError
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


# ---------------------------------------------------------------------- random crops


def cropped_slowly(image, top, left, size, padding):
    """Crop one (C, H, W) image as torchvision's ``F.crop(F.pad(image, padding), top, left, *size)``."""
    padded = np.pad(image, [(0, 0), (padding, padding), (padding, padding)])
    return padded[:, top : top + size[0], left : left + size[1]]


def cropping(whole, size, labels=None):
    return Split(whole, np.zeros(len(whole), np.int64) if labels is None else labels).cropped(size)


RAW = Normalization("none", (0.0,) * 2, (1.0,) * 2)


@pytest.mark.parametrize(("whole", "size", "padding"), [((9, 12), (6, 7), 0), ((9, 8), (6, 8), 2), ((5, 6), (5, 6), 3)])
def test_crops_agree_with_plain_slices(whole, size, padding):
    images = draw((300, 2, *whole))
    split = cropping(images, size)
    make = partial(make_batch, split, slice(0, 300), RAW, np.float32, seed=4, step=9)
    x, _ = make(augment=Augment(crop=Crop(padding)))
    room = [have + 2 * padding - want for have, want in zip(whole, size, strict=True)]
    corners = draw_corners(room, 4, 9, 0, 300)
    expected = [
        cropped_slowly(image, *corner, size, padding) for image, corner in zip(images, corners.T.tolist(), strict=True)
    ]
    np.testing.assert_array_equal(np.moveaxis(x, -1, 0), expected)
    assert [set(places) for places in corners.tolist()] == [{*range(most + 1)} for most in room]
    others = partial(make_batch, split, slice(200, 300), RAW, np.float32, seed=4, step=9, first_sample=200)
    other, _ = others(augment=Augment(crop=Crop(padding)))
    np.testing.assert_array_equal(other, x[..., 200:])  # whichever worker makes a sample
    again, _ = make(augment=Augment(crop=Crop(padding)), seed=5)
    assert (again != x).any()


@pytest.mark.parametrize(("whole", "size"), [((9, 12), (6, 7)), ((8, 9), (5, 4)), ((6, 7), (6, 7))])
def test_without_augmentation_the_middle_is_taken(whole, size):
    images = draw((3, 2, *whole))
    x, _ = make_batch(cropping(images, size), slice(0, 3), RAW, np.float32)
    top, left = (round((have - want) / 2) for have, want in zip(whole, size, strict=True))  # torchvision's rule
    np.testing.assert_array_equal(
        np.moveaxis(x, -1, 0), [cropped_slowly(image, top, left, size, 0) for image in images]
    )


def test_a_crop_is_mirrored_and_then_turned():
    images = draw((50, 2, 9, 12))

    def make(split, **augment):
        return make_batch(split, slice(0, 50), RAW, np.float32, seed=1, step=2, augment=Augment(**augment))[0]

    first = np.moveaxis(make(cropping(images, (6, 6)), crop=Crop()), -1, 0)
    expected = make(cropping(first, (6, 6)), flip=True, rotate=20)
    np.testing.assert_array_equal(make(cropping(images, (6, 6)), crop=Crop(), flip=True, rotate=20), expected)


def test_a_shift_beside_a_crop_is_told():
    with pytest.raises(FieldErrors) as caught:
        Augment(shift=2, crop=Crop())
    assert caught.value.problems == [
        ("shift", "crop moves the images already; leave one out, or write `crop: {padding: 2}`")
    ]


# ---------------------------------------------------------------------- targets that are masks or images

EVERYTHING = {"flip": True, "rotate": 25, "scale": 0.3, "shift": 2}


def batch_of(split, count, **augment):
    return make_batch(split, slice(0, count), RAW, np.float64, seed=3, step=1, augment=Augment(**augment))


@pytest.mark.parametrize("augment", [EVERYTHING, {"crop": Crop(2), "flip": True, "rotate": 25}])
def test_a_target_that_is_its_image_still_is(augment):
    images = draw((40, 2, 9, 12))
    x, y = batch_of(Split(images, images.astype(np.float64)).cropped((6, 8)), 40, **augment)
    assert (x != 0).any()
    np.testing.assert_allclose(np.moveaxis(x, -1, 0), y)


@pytest.mark.parametrize("augment", [{"flip": True}, {"shift": 2, "flip": True}, {"crop": Crop(2), "flip": True}])
def test_larger_targets_move_as_many_times_as_far(augment):
    """Each pixel of the target block is that of the image it belongs to, also after whole pixels of moves."""
    images = draw((40, 2, 9, 12))
    large = images.repeat(3, 2).repeat(3, 3).astype(np.float64)
    x, y = batch_of(Split(images, large).cropped((6, 8)), 40, **augment)
    np.testing.assert_array_equal(np.moveaxis(x, -1, 0).repeat(3, 2).repeat(3, 3), y)


def test_a_larger_target_turns_about_the_same_center():
    large = draw((20, 1, 16, 16)).astype(np.float64)
    split = Split(large[:, :, ::2, ::2], large)
    _, y = batch_of(split, 20, rotate=30, scale=0.2, shift=1)
    drawn = draw_maps(Augment(rotate=30, scale=0.2, shift=1), 3, 1, 0, 20).T.tolist()
    expected = [
        warp_slowly(image, 2 * down, 2 * right, angle, factor)
        for image, (down, right, angle, factor) in zip(large, drawn, strict=True)
    ]
    np.testing.assert_allclose(y, expected, atol=1e-9)


def test_masks_take_the_nearest_pixel_and_class_0_outside():
    masks = RNG.integers(1, 4, (60, 9, 9)).astype(np.uint8)
    _, y = batch_of(Split(masks[:, None].repeat(2, 1), masks), 60, rotate=40, scale=0.4, shift=3)
    assert y.dtype == np.uint8
    assert set(np.unique(y)) == {0, 1, 2, 3}
    columns = draw_maps(Augment(rotate=40, scale=0.4, shift=3), 3, 1, 0, 60)
    for mask, moved, (down, right, angle, factor) in zip(masks, y, columns.T, strict=True):
        for row, column in np.ndindex(9, 9):
            dy, dx, a = row - down - 4, column - right - 4, radians(angle)
            from_y = floor((sin(a) * dx + cos(a) * dy) / factor + 4.5)
            from_x = floor((cos(a) * dx - sin(a) * dy) / factor + 4.5)
            inside = 0 <= from_y < 9 and 0 <= from_x < 9
            assert moved[row, column] == (mask[from_y, from_x] if inside else 0)


def test_outside_of_a_target_image_is_the_normalized_0():
    images, normalization = draw((30, 2, 6, 6)), Normalization("standard", (100.0, 50.0), (20.0, 10.0))
    split = Split(images, normalization.apply(images, np.float64))
    x, y = make_batch(
        split, slice(0, 30), normalization, np.float64, augment=Augment(shift=3), target_normalization=normalization
    )
    np.testing.assert_allclose(np.moveaxis(x, -1, 0), y, atol=1e-12)
    assert y.min() == -5


@pytest.mark.parametrize(
    ("images", "targets", "augment", "expected"),
    [
        ((6, 6), (9, 9), {"shift": 1}, "cannot move targets of 9×9 with images of 6×6: they need the same size, or a"),
        ((6, 6), (12, 6), {"crop": Crop(1)}, "cannot move targets of 12×6 with images of 6×6"),
        ((1, 1), (8, 8), {"flip": True}, "data.augment moves images, but the network takes vectors; leave it out"),
    ],
)
def test_targets_that_cannot_follow(images, targets, augment, expected):
    split = Split(draw((4, 2, *images)), np.zeros((4, 2, *targets)))
    with pytest.raises(DataError) as caught:
        batch_of(split, 4, **augment)
    assert expected in str(caught.value)


def test_targets_of_any_size_are_mirrored():
    images, targets = draw((40, 2, 6, 6)), draw((40, 3, 4, 5)).astype(np.float64)
    _, y = batch_of(Split(images, targets), 40, flip=True)
    np.testing.assert_array_equal(y, flipped(targets, draw_flips(3, 1, 0, 40)))
