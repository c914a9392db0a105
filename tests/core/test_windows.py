"""Sliding windows against enumeration, and each copy against its transpose."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from core.geometry import CTX, placed
from hypothesis import given
from oracles.naive import axis_windows, same_amounts

from cnnbp_cli.core.types import ShapeError
from cnnbp_cli.core.windows import Windows, check_padding, out_size, same_padding


def test_out_size_counts_the_windows_that_fit():
    for size, kernel, stride, padding, dilation in product(range(1, 10), range(1, 5), range(1, 5), range(5), (1, 2, 3)):
        if size + padding >= dilation * (kernel - 1) + 1:
            fitting = axis_windows(size, kernel, stride, padding, 0, dilation)
            assert out_size(size, kernel, stride, padding, dilation) == len(fitting)


def test_same_padding_is_the_least_that_gives_a_window_for_every_stride():
    for size, kernel, stride, dilation in product(range(1, 12), range(1, 6), range(1, 6), (1, 2, 3)):
        before, after = same_padding(size, kernel, stride, dilation)
        assert (before, after) == same_amounts(size, kernel, stride, dilation)
        assert out_size(size, kernel, stride, before + after, dilation) == -(-size // stride)


@given(placed())
def test_taps_are_the_pixels_that_enumeration_finds(windows):
    x = np.random.default_rng(0).normal(size=(2, *windows.image, 3))
    rows, columns = (
        axis_windows(size, k, s, before, after, d)
        for size, k, s, before, after, d in zip(
            windows.image, windows.kernel, windows.stride, windows.before, windows.after, windows.dilation, strict=True
        )
    )
    assert windows.out == (len(rows), len(columns))
    taps = np.array(list(windows.taps(windows.pad(x, CTX), range(windows.out[0]))))
    taps = taps.reshape(*windows.kernel, 2, *windows.out, 3)
    for c, (p, some_rows), (q, some_columns) in product(range(2), enumerate(rows), enumerate(columns)):
        for (i, row), (j, column) in product(enumerate(some_rows), enumerate(some_columns)):
            seen = np.zeros(3) if row is None or column is None else x[c, row, column]
            np.testing.assert_array_equal(taps[i, j, c, p, q], seen)


@given(placed())
def test_crop_is_the_transpose_of_pad(windows):
    rng = np.random.default_rng(0)
    x, padded = rng.normal(size=(2, *windows.image, 3)), rng.normal(size=(2, *windows.padded, 3))
    np.testing.assert_allclose(
        (windows.pad(x, CTX) * padded).sum(), (x * windows.crop(padded)).sum(), rtol=1e-11, atol=1e-11
    )
    np.testing.assert_array_equal(windows.crop(windows.pad(x, CTX)), x)


def test_pad_fills_the_border_with_the_value():
    windows = Windows.over((1, 2, 3), 2, 1, (1, 2))
    padded = windows.pad(np.ones((1, 2, 3, 1)), CTX, -np.inf)
    assert padded.shape == (1, 4, 7, 1)
    assert (padded == -np.inf).sum() == 4 * 7 - 2 * 3
    assert (padded[:, 1:3, 2:5] == 1).all()


@pytest.mark.parametrize(
    ("shape", "arguments", "message"),
    [
        ((10,), (3, 1, "valid"), "needs an image (channels, height, width), got 10"),
        ((1, 2, 5), (3, 1, "valid"), "the 3×3 kernel is larger than its 2×5 input"),
        ((1, 2, 5), ((7, 3), 1, (2, 0)), "the 7×3 kernel is larger than its 6×5 padded input"),
        ((1, 4, 5), (3, 1, "valid", 2), "the 3×3 kernel (covering 5×5 with its dilation) is larger than its 4×5 input"),
    ],
)
def test_windows_that_do_not_fit_are_refused(shape, arguments, message):
    with pytest.raises(ShapeError) as error:
        Windows.over(shape, *arguments)
    assert str(error.value) == message


@pytest.mark.parametrize("padding", ["valid", "same", 0, 3, (0, 2), (0, 1, 2, 3)])
def test_good_paddings_pass(padding):
    assert list(check_padding(padding)) == []


@pytest.mark.parametrize(
    ("padding", "shown"), [("full", "full"), (-1, "-1"), ((1, -2), "[1, -2]"), (("same", 1), "[same, 1]")]
)
def test_bad_paddings_are_named(padding, shown):
    expected = f"expected valid, same, or one, two or four numbers from 0, got {shown}"
    assert list(check_padding(padding)) == [("padding", expected)]
