"""The three sums over windows are those of the reference, which are each other's transposes."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from core.geometry import CTX, placed
from hypothesis import given
from hypothesis import strategies as st

from cnnbp_cli.core import correlate as sums
from cnnbp_cli.core.correlate import by_points, by_rows, by_strips, in_place, products, reference
from cnnbp_cli.core.layers import Conv2d
from cnnbp_cli.core.openblas import gemm, processor
from cnnbp_cli.core.types import Context, Workspace
from cnnbp_cli.core.windows import Windows


def problem(windows, groups, cg, fg, images=3):
    """Return random x, weight and dy of a convolution with such groups."""
    rng = np.random.default_rng(0)
    shapes = (
        (groups * cg, *windows.image, images),
        (groups * fg, cg, *windows.kernel),
        (groups * fg, *windows.out, images),
    )
    return [rng.normal(size=shape) for shape in shapes]


def unset(shape):
    """Return an array that fails every comparison where it is not filled."""
    return np.full(shape, np.nan)


def check(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


sizes = st.sampled_from([(1, 1), (1, 2), (2, 1), (2, 3)])


@given(placed(), st.integers(1, 3), sizes)
def test_the_fast_sums_are_those_of_the_reference(windows, groups, size):
    x, w, dy = problem(windows, groups, *size)
    y, dx = unset(dy.shape), unset(x.shape)
    sums.correlate(x, w, windows, groups, y, CTX)
    sums.correlate_transposed(w, dy, windows, groups, dx, CTX)
    check(y, reference.correlate(x, w, windows, groups))
    check(dx, reference.correlate_transposed(w, dy, windows, groups))
    check(sums.correlate_weights(x, dy, w, windows, groups, CTX), reference.correlate_weights(x, dy, windows, groups))


@pytest.mark.parametrize("way", [by_rows, by_strips], ids=["by rows", "by strips"])
@given(placed(), st.integers(1, 3), sizes)
def test_each_way_gives_the_sums_of_the_reference(way, windows, groups, size):
    """Whatever it is chosen for; rows are finished in their order, none is left out."""
    x, w, dy = problem(windows, groups, *size)
    y = unset(dy.shape)
    assert list(way.correlate(x, w, windows, groups, y, CTX)) == list(range(windows.out[0]))
    check(y, reference.correlate(x, w, windows, groups))
    dw = way.correlate_weights(x, dy, windows, groups, CTX)[:, :: windows.dilation[0]]
    check(dw.transpose(0, 4, 3, 1, 2).reshape(w.shape), reference.correlate_weights(x, dy, windows, groups))


def by_rows_in_memory(image, ctx=CTX):
    """Return an image as layers get it from a context."""
    placed = ctx.empty("image", image.shape, image.dtype)
    placed[...] = image
    return placed


@pytest.mark.skipif(gemm("d") is None, reason="NumPy's products are not OpenBLAS's")
@given(placed(strides=st.just((1, 1)), kernels=st.tuples(st.integers(2, 5), st.integers(1, 4))), sizes, st.data())
def test_the_sums_by_points_are_those_of_the_reference(windows, size, data):
    """Transposed as well, and cut into pieces of any size."""
    groups, small = data.draw(st.integers(1, 3)), data.draw(st.sampled_from([10, 300, 10**6]))
    long = data.draw(st.sampled_from([0, 10**6]))
    x, w, dy = problem(windows, groups, *size)
    x, y, dy, dx = (by_rows_in_memory(image) for image in (x, unset(dy.shape), dy, unset(x.shape)))
    if not by_points.can(windows, w, x, y):
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "HAVE_SMALL_KERNELS", (processor(),))
        patch.setattr(products, "SMALL", small)
        patch.setattr(products, "SMALL_TRANSPOSED", max(16 * 16, small))
        patch.setattr(products, "COLUMNS", 2)
        patch.setattr(products, "ROWS", 2)
        patch.setattr(in_place, "LONG", long)
        forget_calls()
        assert list(by_points.correlate(x, w, windows, groups, y, CTX)) == list(range(windows.out[0]))
        dw = by_points.correlate_weights(x, dy, windows, groups, CTX)
        list(by_points.correlate(dy, sums._flipped(w, groups), windows.transposed(), groups, dx, CTX))
    forget_calls()
    check(y, reference.correlate(x, w, windows, groups))
    check(dx, reference.correlate_transposed(w, dy, windows, groups))
    check(dw.transpose(0, 4, 3, 1, 2).reshape(w.shape), reference.correlate_weights(x, dy, windows, groups))


def forget_calls():
    """Let calls be made anew: they depend on the sizes that a test changes."""
    in_place._kept.cache_clear()


@pytest.mark.skipif(gemm("f") is None, reason="NumPy's products are not OpenBLAS's")
def test_points_are_possible_where_no_pixel_is_skipped_and_rows_lie_together():
    w, x = np.ones((2, 2, 3, 3), np.float32), by_rows_in_memory(np.ones((2, 5, 5, 3), np.float32))
    assert by_points.can(Windows.over((2, 5, 5), 3, 1, 1, (1, 2)), w, x)
    assert not by_points.can(Windows.over((2, 5, 5), 3, (2, 1), 1), w, x)
    assert not by_points.can(Windows.over((2, 5, 5), 3, (1, 2), 1), w, x)
    assert not by_points.can(Windows.over((2, 5, 5), 3, 1, 2, (2, 1)), w, x)
    assert not by_points.can(Windows.over((2, 5, 5), (1, 3), 1, 1), w, x)
    assert not by_points.can(Windows.over((2, 9, 9), 6, 1, 1), w, x)
    assert not by_points.can(Windows.over((2, 5, 5), 3, 1, 1), w.astype(float), x)
    assert not by_points.can(Windows.over((2, 5, 5), 3, 1, 1), w, np.ascontiguousarray(x))


def test_without_openblas_the_sums_are_computed_in_another_way(monkeypatch):
    """As where NumPy uses Accelerate or MKL: what pays by points elsewhere is right there, too."""
    rng, windows = np.random.default_rng(0), Windows.over((16, 12, 12), 3, 1, 1)
    x, dy = (by_rows_in_memory(rng.normal(size=(16, 12, 12, 32)).astype(np.float32)) for _ in range(2))
    w = rng.normal(size=(16, 16, 3, 3)).astype(np.float32)
    y, dx = (by_rows_in_memory(np.zeros(x.shape, np.float32)) for _ in range(2))
    assert (sums._way(w, windows, 1, x, y) is by_points) == (gemm("f") is not None)
    monkeypatch.setattr(in_place, "gemm", lambda character: None)
    assert sums._way(w, windows, 1, x, y) is not by_points
    sums.correlate(x, w, windows, 1, y, CTX)
    sums.correlate_transposed(w, dy, windows, 1, dx, CTX)
    dw = sums.correlate_weights(x, dy, w, windows, 1, CTX)
    check = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-3)
    check(y, reference.correlate(x, w, windows, 1))
    check(dx, reference.correlate_transposed(w, dy, windows, 1))
    check(dw, reference.correlate_weights(x, dy, windows, 1))


@pytest.mark.parametrize("r", [2, 3, 4, 5])
def test_points_determine_all_sums_of_neighbors(r):
    m = by_points.VALUES + 1 - r
    A, G, B = by_points.evaluation(m, r)
    w, x = np.random.default_rng(0).normal(size=(r, 1)), np.random.default_rng(1).normal(size=(by_points.VALUES, 1))
    expected = [sum(w[i] * x[p + i] for i in range(r)) for p in range(m)]
    np.testing.assert_allclose(A @ ((G @ w) * (B @ x)), expected, rtol=1e-12)


@pytest.mark.skipif(gemm("f") is None, reason="NumPy's products are not OpenBLAS's")
@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_points_cost_four_times_the_rounding_errors_of_plain_sums_at_most(size):
    rng = np.random.default_rng(0)
    windows = Windows.over((32, 12, 12), size, 1, 1)
    x, w = by_rows_in_memory(rng.normal(size=(32, 12, 12, 8))), rng.normal(size=(16, 32, size, size))
    exact = reference.correlate(x, w, windows, 1)
    errors = []
    for way in (by_strips, by_points):
        y = by_rows_in_memory(np.zeros(exact.shape, np.float32))
        list(way.correlate(by_rows_in_memory(x.astype(np.float32)), w.astype(np.float32), windows, 1, y, CTX))
        errors.append(np.sqrt(((y - exact) ** 2).mean()))
    assert 0 < errors[1] < 4 * errors[0]


@given(placed(), st.integers(1, 3), sizes)
def test_the_transposed_sum_by_rows_is_that_of_the_reference(windows, groups, size):
    _, w, dy = problem(windows, groups, *size)
    dx = unset((groups * size[0], *windows.image, 3))
    assert list(by_rows.correlate_transposed(w, dy, windows, groups, dx, CTX)) == list(range(windows.image[0]))
    check(dx, reference.correlate_transposed(w, dy, windows, groups))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 200), st.sampled_from([np.float32, np.float64, complex]))
def test_products_in_pieces_are_whole_products(m, k, n, dtype):
    rng = np.random.default_rng(0)
    a, b, c = (rng.normal(size=size).astype(dtype) for size in ((2, m, k), (1, k, n), (2, m, n)))
    out = unset((2, m, n)).astype(dtype)
    tolerance = 1e-4 if dtype == np.float32 else 1e-9
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "HAVE_SMALL_KERNELS", (processor(),))
        patch.setattr(products, "SMALL", 20_000)
        patch.setattr(products, "SMALL_TRANSPOSED", 300)
        products.multiply(a, b, out)
        transposed = products.multiply_transposed(c, b)
    np.testing.assert_allclose(out, a @ b, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(transposed, c @ b.swapaxes(1, 2), rtol=tolerance, atol=tolerance)


@given(placed(), st.sampled_from([1, 2]))
def test_the_sums_of_the_reference_are_one_trilinear_form(windows, groups):
    """Each is the derivative of Σ dy · correlate(x, w) to one of its three arguments."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, *windows.image, 3))
    w = rng.normal(size=(6, 4 // groups, *windows.kernel))
    dy = rng.normal(size=(6, *windows.out, 3))
    form = (dy * reference.correlate(x, w, windows, groups)).sum()
    dx, dw = reference.correlate_transposed(w, dy, windows, groups), reference.correlate_weights(x, dy, windows, groups)
    np.testing.assert_allclose((x * dx).sum(), form, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose((w * dw).sum(), form, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("size", [1, 500, 10**9])
@given(placed())
def test_blocks_of_any_size_give_the_same(size, windows):
    x, w, dy = problem(windows, 2, 2, 1)
    results = []
    for limit in (None, size):
        y, dx = unset(dy.shape), unset(x.shape)
        with pytest.MonkeyPatch.context() as patch:
            if limit is not None:
                for place in (
                    (by_strips, "STRIP_BYTES"),
                    (by_strips, "LARGE_STRIP_BYTES"),
                    (by_rows, "PRODUCTS_BYTES"),
                ):
                    patch.setattr(*place, limit)
            sums.correlate(x, w, windows, 2, y, CTX)
            sums.correlate_transposed(w, dy, windows, 2, dx, CTX)
            results.append((y, dx, *(way.correlate_weights(x, dy, windows, 2, CTX) for way in (by_rows, by_strips))))
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("channels", "filters"), [(8, 8), (2, 16)])
def test_no_column_matrix_is_kept(channels, filters):
    """Scratch of a step, in either way of convolving, is small beside the 9 columns that each pixel would fill."""
    arrays = Workspace()
    layer, ctx = Conv2d(filters, 3, padding="same"), Context(training=True, arrays=arrays)
    x = np.ones((channels, 96, 24, 8))
    params = layer.init_params(np.random.default_rng(0), x.shape[:3])
    y, residuals = layer.forward(params, x, ctx)
    layer.backward(params, residuals, np.ones_like(y), ctx)  # in the order of memory, as layers hand it on
    scratch = {role: buffer.nbytes for (_, role), buffer in arrays._buffers.items() if role not in ("y", "dx")}
    assert scratch
    assert sum(scratch.values()) < 9 * x.nbytes / 2
