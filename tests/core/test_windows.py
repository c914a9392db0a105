"""Sliding windows against enumeration, and each copy against its transpose."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from oracles.naive import axis_windows, same_amounts

from cnnbp_cli.core import windows as windows_module
from cnnbp_cli.core.types import Context, ShapeError
from cnnbp_cli.core.windows import Windows, check_padding, out_size, same_padding

CTX = Context()


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


pairs = st.tuples(st.integers(1, 4), st.integers(1, 4))


@st.composite
def placed(draw) -> Windows:
    amounts = st.tuples(st.integers(0, 2), st.integers(0, 2))
    try:
        return Windows.over(
            (1, draw(st.integers(1, 8)), draw(st.integers(1, 8))),
            draw(pairs),
            draw(pairs),
            draw(st.sampled_from(["valid", "same"]) | amounts),
            draw(pairs),
        )
    except ShapeError:
        assume(False)
        raise


@given(placed())
def test_unfold_copies_the_windows_that_enumeration_finds(windows):
    x = np.random.default_rng(0).normal(size=(2, *windows.image, 3))
    rows, columns = (
        axis_windows(size, k, s, before, after, d)
        for size, k, s, before, after, d in zip(
            windows.image, windows.kernel, windows.stride, windows.before, windows.after, windows.dilation, strict=True
        )
    )
    assert windows.out == (len(rows), len(columns))
    unfolded = windows.unfold(windows.pad(x, CTX), range(windows.out[0]), CTX)
    unfolded = unfolded.reshape(2, *windows.kernel, *windows.out, 3)
    for c, (p, some_rows), (q, some_columns) in product(range(2), enumerate(rows), enumerate(columns)):
        for (i, row), (j, column) in product(enumerate(some_rows), enumerate(some_columns)):
            seen = np.zeros(3) if row is None or column is None else x[c, row, column]
            np.testing.assert_array_equal(unfolded[c, i, j, p, q], seen)


@given(placed(), st.data())
def test_fold_is_the_transpose_of_unfold(windows, data):
    start = data.draw(st.integers(0, windows.out[0] - 1))
    rows = range(start, data.draw(st.integers(start + 1, windows.out[0])))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *windows.padded, 3))
    columns = rng.normal(size=(2 * np.prod(windows.kernel), len(rows) * windows.out[1] * 3))
    folded = np.zeros(x.shape)
    windows.fold(columns, rows, into=folded)
    unfolded = windows.unfold(x, rows, CTX)
    np.testing.assert_allclose((unfolded * columns).sum(), (x * folded).sum(), rtol=1e-11, atol=1e-11)


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


@pytest.mark.parametrize("size", [1, 1000, 1 << 40])
@pytest.mark.parametrize("n", [0, 1, 64])
def test_blocks_cover_every_row_once_and_in_order(size, n, monkeypatch):
    monkeypatch.setattr(windows_module, "COLUMN_BYTES", size)
    windows = Windows.over((3, 11, 6), 3, 1, "same")
    blocks = list(windows.row_blocks(27, n, 8))
    assert [row for block in blocks for row in block] == list(range(11))
    assert all(len(block) > 0 for block in blocks)


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


@pytest.mark.parametrize("padding", ["valid", "same", 0, 3, (0, 2)])
def test_good_paddings_pass(padding):
    assert list(check_padding(padding)) == []


@pytest.mark.parametrize(
    ("padding", "shown"), [("full", "full"), (-1, "-1"), ((1, -2), "[1, -2]"), (("same", 1), "[same, 1]")]
)
def test_bad_paddings_are_named(padding, shown):
    expected = f"expected valid, same, a number from 0 or a pair of them, got {shown}"
    assert list(check_padding(padding)) == [("padding", expected)]
