"""The three sums over windows are those of the reference, which are each other's transposes."""

from __future__ import annotations

import numpy as np
import pytest
from core.geometry import CTX, placed
from hypothesis import given
from hypothesis import strategies as st

from cnnbp_cli.core import correlate as sums
from cnnbp_cli.core.correlate import by_strips, reference
from cnnbp_cli.core.layers import Conv2d
from cnnbp_cli.core.types import Context, Workspace


@pytest.mark.parametrize("channels", [2, 4], ids=["by strips", "by rows"])
@given(placed(), st.sampled_from([1, 2]))
def test_the_fast_sums_are_those_of_the_reference(channels, windows, groups):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(channels, *windows.image, 3))
    w = rng.normal(size=(6, channels // groups, *windows.kernel))
    y, dx = np.empty((6, *windows.out, 3)), np.empty(x.shape)
    dy = rng.normal(size=y.shape)
    sums.correlate(x, w, windows, groups, y, CTX)
    sums.correlate_transposed(w, dy, windows, groups, dx, CTX)
    dw = sums.correlate_weights(x, dy, w, windows, groups, CTX)
    np.testing.assert_allclose(y, reference.correlate(x, w, windows, groups), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(dx, reference.correlate_transposed(w, dy, windows, groups), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(dw, reference.correlate_weights(x, dy, windows, groups), rtol=1e-10, atol=1e-10)


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
def test_strips_of_any_size_give_the_same(size, windows):
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, *windows.image, 3)), rng.normal(size=(2, 2, *windows.kernel))
    dy = rng.normal(size=(2, *windows.out, 3))
    results = []
    for limit in (by_strips.STRIP_BYTES, size):
        y, dx = np.empty(dy.shape), np.empty(x.shape)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(by_strips, "STRIP_BYTES", limit)
            sums.correlate(x, w, windows, 1, y, CTX)
            sums.correlate_transposed(w, dy, windows, 1, dx, CTX)
            results.append((y, dx, sums.correlate_weights(x, dy, w, windows, 1, CTX)))
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
