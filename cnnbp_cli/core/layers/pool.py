"""Pooling: each window, or the whole image, is reduced to its maximum or its mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal, NamedTuple

import numpy as np

from cnnbp_cli.core.layers.registry import register
from cnnbp_cli.core.rows import row_slices
from cnnbp_cli.core.terms import OUTPUT, Index, LayerPass, Reason, Ref, Term, Terms, listed
from cnnbp_cli.core.traits import OnnxOperator
from cnnbp_cli.core.types import (
    Array,
    Context,
    Layer,
    Params,
    Shape,
    ShapeError,
    Size,
    at_least,
    pair,
    require,
    show_shape,
)
from cnnbp_cli.core.windows import Padding, Windows, check_padding, same_padding, sides

LISTED = 9
"""A window of so many pixels or fewer is told pixel by pixel."""


def check_pool(layer: MaxPool2d | AvgPool2d) -> None:
    """Raise `FieldErrors` for sizes below one, and for padding so wide that a window could miss the image."""
    require(
        at_least(layer, 1, "pool_size"),
        at_least(layer, 1, "stride") if layer.stride is not None else (),
        check_padding(layer.padding),
        [("padding", f"expected less than the pool size {show_shape(pair(layer.pool_size))}")]
        if any(
            max(border) >= size > 0 for border, size in zip(sides(layer.padding), pair(layer.pool_size), strict=True)
        )
        else (),
    )


def pool_windows(layer: MaxPool2d | AvgPool2d, shape: Shape) -> Windows:
    """Place the pool's windows on samples of `shape` (c, h, w)."""
    stride = layer.stride or layer.pool_size
    return Windows.over(shape, layer.pool_size, stride, layer.padding, ceil_mode=layer.ceil_mode)


def pool_memory(layer: MaxPool2d | AvgPool2d, in_shape: Shape) -> int:
    """Return the numbers of one sample's padded image, which is larger than the output."""
    return in_shape[0] * prod(pool_windows(layer, in_shape).padded)


def _maximum(arrays: Iterable[Array], out: Array) -> Array:
    """Fill out with the largest of the arrays at each place, and return it."""
    first, *others = arrays
    if not others:
        out[...] = first
    for other in others:
        first = np.maximum(first, other, out=out)
    return out


class MaxPoolResiduals(NamedTuple):
    windows: Windows
    image: Array  # what the windows slide over, padded with -∞: (c, h+, w+, n)
    y: Array  # the maxima (c, oh, ow, n)


@register
@dataclass(frozen=True, slots=True)
class MaxPool2d(Layer[MaxPoolResiduals]):
    """Keep the largest pixel of each window.

        y[c, p, q] = max_{i, j} x[c, p·s + i, q·s + j]

    The gradient goes to the pixel that won. Where several are equal, as on every flat background, the
    first in row-major order takes it all, as in PyTorch, TensorFlow and ONNX Runtime.

    References
    ----------
    Goodfellow et al., *Deep Learning*, section 9.3.
    """

    pool_size: Size
    """Pixels of a window: one number, or [vertical, horizontal], for example `2`."""
    stride: Size | None = None
    """Pixels from one window to the next; by default the pool size: one number, or [vertical, horizontal]."""
    padding: Padding = "valid"
    """`valid` (none), `same`, or pixels: one number, [vertical, horizontal], or [top, bottom, left, right]."""
    ceil_mode: bool = False
    """Let a last window reach over the end where pixels would be left out; it has to start before the end (PyTorch)."""
    type: Literal["max_pool2d"] = "max_pool2d"
    selects = True
    masks_relu = True

    def __post_init__(self) -> None:
        check_pool(self)

    def out_shape(self, in_shape: Shape) -> Shape:
        return (in_shape[0], *pool_windows(self, in_shape).out)

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, MaxPoolResiduals]:
        windows = pool_windows(self, x.shape[:3])
        image = windows.pad(x, ctx, -np.inf)
        y = ctx.empty("y", (x.shape[0], *windows.out, x.shape[3]), x.dtype)
        for rows in row_slices(windows.out[0], image.nbytes):
            y_block = y[:, rows]
            if np.iscomplexobj(x):  # the first of several equal ones wins, as in the backward pass
                first, *others = windows.taps(image, rows)
                y_block[...] = first
                for tap in others:
                    np.copyto(y_block, tap, where=tap.real > y_block.real)
            else:  # whole rows first, as taps are short runs of pixels: 0.24 ms instead of 0.33 for 32×28×28×32
                shape = (rows.stop - rows.start, len(image), *image.shape[2:])
                band = ctx.scratch("band", shape, x.dtype).swapaxes(0, 1)
                _maximum(windows.bands(image, rows), band)
                _maximum(windows.taps_of_band(band), y_block)
        return y, MaxPoolResiduals(windows, image, y)

    def backward(self, params: Params, residuals: MaxPoolResiduals, dy: Array, ctx: Context) -> tuple[Array, Params]:
        windows, image, y = residuals
        dimage = ctx.empty("dx", image.shape, dy.dtype)
        if not windows.tile_the_image:
            dimage.fill(0)
        for rows in row_slices(windows.out[0], image.nbytes):
            maximum, dy_block = y[:, rows], dy[:, rows]
            # Those whose winner has not been met yet; a ReLU's zeros pass no gradient on, so they need none.
            open_windows = maximum > 0 if ctx.after_relu else np.ones(maximum.shape, bool)
            last = windows.kernel[0] * windows.kernel[1] - 1
            for k, (tap, dtap) in enumerate(zip(windows.taps(image, rows), windows.taps(dimage, rows), strict=True)):
                won = open_windows
                if k < last:  # else all that is left
                    won = tap == maximum
                    won &= open_windows
                    open_windows ^= won
                if windows.overlap:
                    dtap += dy_block * won
                else:
                    np.multiply(dy_block, won, out=dtap)
        return windows.crop(dimage), {}

    def branches(self, residuals: MaxPoolResiduals) -> Array:
        """Return which kernel position won each window, counted in row-major order: (c, oh, ow, n)."""
        windows, image, y = residuals
        winners = np.zeros(y.shape, np.int32)
        taps = list(windows.taps(image, slice(0, windows.out[0])))
        for k in reversed(range(len(taps))):  # the first of several equal ones has the last word
            winners[taps[k] == y] = k
        return winners

    def winning_pixels(self, residuals: MaxPoolResiduals) -> Array:
        windows, taps = residuals.windows, self.branches(residuals)
        places: list[Array] = []
        for axis, tap in enumerate((taps // windows.kernel[1], taps % windows.kernel[1])):
            first = np.arange(windows.out[axis]) * windows.stride[axis] - windows.before[axis]
            places.append(tap + first.reshape((-1, 1, 1) if axis == 0 else (-1, 1)))
        return np.stack(places, axis=-2)

    def y_terms(self, at: LayerPass, index: Index) -> Terms:
        c, p, q, n = index
        pixels = [Ref(0, (c, r, s, n)) for _, _, r, s in at.residuals.windows.pixels_of(p, q)]
        winner = self._winner(pixels, at)
        ties = sum(at[pixel] == at[winner] for pixel in pixels)
        first = f", the first of {ties} that are equal" if ties > 1 else ""
        named = {f"x[{listed(pixel.where)}]": at[pixel] for pixel in pixels}
        window = ", ".join(f"{{{name}}}" for name in named) if len(pixels) <= LISTED else "its window"
        return Terms(
            f"y[{listed(index)}] = max({window}) = {{x[{listed(winner.where)}]}}{first}",
            (Term(1, (winner,)),),
            tuple(pixel for pixel in pixels if pixel != winner),
            named,
        )

    def dx_terms(self, at: LayerPass, k: int, index: Index) -> Terms:
        c, r, s, n = index
        windows: Windows = at.residuals.windows
        won: list[Term] = []
        lost: list[Ref] = []
        for _, _, p, q in windows.windows_on(r, s):
            dy = Ref(OUTPUT, (c, p, q, n), "gradient")
            pixels = [Ref(0, (c, row, column, n)) for _, _, row, column in windows.pixels_of(p, q)]
            if self._winner(pixels, at).where == index:
                won.append(Term(1, (dy,)))
            else:
                lost.append(dy)
        formula = f"dx[{listed(index)}] = Σ dy of the windows in which x[{listed(index)}] is the first maximum"
        reason: Reason | None = None if won else "not the winner" if lost else "not read"
        return Terms(formula, tuple(won), tuple(lost), reason=reason)

    @staticmethod
    def _winner(pixels: Sequence[Ref], at: LayerPass) -> Ref:
        """Return the largest of the pixels, the first of several."""
        return max(pixels, key=at.__getitem__)

    def kernel(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
        return pair(self.pool_size), pair(self.stride or self.pool_size), (1, 1)

    def memory(self, in_shape: Shape) -> int:
        return pool_memory(self, in_shape)

    def onnx(self, in_shape: Shape) -> list[OnnxOperator]:
        return [OnnxOperator("MaxPool", attributes=pool_windows(self, in_shape).onnx_attributes())]


class AvgPoolResiduals(NamedTuple):
    windows: Windows
    divisor: Array  # pixels of each window that count: (oh, ow, 1)


@register
@dataclass(frozen=True, slots=True)
class AvgPool2d(Layer[AvgPoolResiduals]):
    """Take the mean of each window.

        y[c, p, q] = (1/m) Σ_{i, j} x[c, p·s + i, q·s + j]        dx[c, p·s + i, q·s + j] += dy[c, p, q] / m

    m is the number of real pixels in the window; with `count_include_pad` also of those in the padding, but not of
    those beyond it, which `ceil_mode` may reach.

    References
    ----------
    Goodfellow et al., *Deep Learning*, section 9.3.
    """

    pool_size: Size
    """Pixels of a window: one number, or [vertical, horizontal], for example `2`."""
    stride: Size | None = None
    """Pixels from one window to the next; by default the pool size: one number, or [vertical, horizontal]."""
    padding: Padding = "valid"
    """`valid` (none), `same`, or pixels: one number, [vertical, horizontal], or [top, bottom, left, right]."""
    count_include_pad: bool = False
    """Divide by the whole window, padding included, instead of by the pixels that are there."""
    ceil_mode: bool = False
    """Let a last window reach over the end where pixels would be left out; it has to start before the end (PyTorch)."""
    type: Literal["avg_pool2d"] = "avg_pool2d"
    is_linear = True

    def __post_init__(self) -> None:
        check_pool(self)

    def out_shape(self, in_shape: Shape) -> Shape:
        return (in_shape[0], *pool_windows(self, in_shape).out)

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, AvgPoolResiduals]:
        windows = pool_windows(self, x.shape[:3])
        first, *others = windows.taps(windows.pad(x, ctx), slice(0, windows.out[0]))
        divisor = self._divisor(windows, x.real.dtype)
        y = ctx.empty("y", first.shape, x.dtype)
        y[...] = first
        for tap in others:
            y += tap
        y /= divisor
        return y, AvgPoolResiduals(windows, divisor)

    def backward(self, params: Params, residuals: AvgPoolResiduals, dy: Array, ctx: Context) -> tuple[Array, Params]:
        windows, divisor = residuals
        dimage = ctx.empty("dx", (dy.shape[0], *windows.padded, dy.shape[3]), dy.dtype)
        dimage.fill(0)
        share = dy / divisor
        for dtap in windows.taps(dimage, slice(0, windows.out[0])):
            dtap += share
        return windows.crop(dimage), {}

    def y_terms(self, at: LayerPass, index: Index) -> Terms:
        c, p, q, n = index
        m = self._pixels(at, p, q)
        pixels = (Ref(0, (c, r, s, n)) for _, _, r, s in at.residuals.windows.pixels_of(p, q))
        return Terms(
            f"y[{listed(index)}] = Σ x / {m} over its window", tuple(Term(1 / m, (pixel,)) for pixel in pixels)
        )

    def dx_terms(self, at: LayerPass, k: int, index: Index) -> Terms:
        c, r, s, n = index
        shares = tuple(
            Term(1 / self._pixels(at, p, q), (Ref(OUTPUT, (c, p, q, n), "gradient"),))
            for _, _, p, q in at.residuals.windows.windows_on(r, s)
        )
        formula = f"dx[{listed(index)}] = Σ dy / m over the windows with it, each of m pixels"
        return Terms(formula, shares, reason=None if shares else "not read")

    @staticmethod
    def _pixels(at: LayerPass, p: int, q: int) -> int:
        """Return how many pixels of a window count."""
        divisor: Array = at.residuals.divisor
        return int(np.broadcast_to(divisor, (*at.residuals.windows.out, 1))[p, q, 0])

    def _divisor(self, windows: Windows, dtype: np.dtype[np.floating]) -> Array:
        if self.count_include_pad and not self.ceil_mode:
            return np.full((1, 1, 1), windows.kernel[0] * windows.kernel[1], dtype)
        counts: list[Array] = []
        for axis, (size, before, k, s, out) in enumerate(
            zip(windows.image, windows.before, windows.kernel, windows.stride, windows.out, strict=True)
        ):
            first = np.arange(out) * s - before
            low, high = 0, size
            if self.count_include_pad:
                border = same_padding(size, k, s) if self.padding == "same" else sides(self.padding)[axis]
                low, high = -border[0], size + border[1]
            counts.append(np.minimum(first + k, high) - np.maximum(first, low))
        return np.multiply.outer(counts[0], counts[1])[:, :, None].astype(dtype)

    def kernel(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
        return pair(self.pool_size), pair(self.stride or self.pool_size), (1, 1)

    def memory(self, in_shape: Shape) -> int:
        return pool_memory(self, in_shape)

    def onnx(self, in_shape: Shape) -> list[OnnxOperator]:
        windows = pool_windows(self, in_shape)
        attributes = windows.onnx_attributes() | {"count_include_pad": int(self.count_include_pad)}
        size = windows.kernel[0] * windows.kernel[1]
        divisor = self._divisor(windows, np.dtype(np.float64))[..., 0]
        if not self.count_include_pad or (divisor == size).all():
            return [OnnxOperator("AveragePool", attributes=attributes)]
        # The operator's `ceil_mode` counts pixels in one way or another, as runtimes have it: here, none is left open.
        means = OnnxOperator("AveragePool", attributes=attributes, output="means")
        return [means, OnnxOperator("Mul", ("means", size / divisor))]


def channels_only(shape: Shape) -> Shape:
    """Return (c,) of an image's (c, h, w)."""
    if len(shape) != 3:
        raise ShapeError(f"needs an image (channels, height, width), got {show_shape(shape)}")
    return shape[:1]


@register
@dataclass(frozen=True, slots=True)
class GlobalAvgPool2d(Layer[Array]):
    """Take the mean of each channel: y[c] = (1 / h·w) Σ x[c, p, q], dx[c, p, q] = dy[c] / (h·w).

    References
    ----------
    Lin et al. 2013, *Network in Network*, arXiv:1312.4400.
    """

    type: Literal["global_avg_pool2d"] = "global_avg_pool2d"
    is_linear = True
    masks_relu = True

    def out_shape(self, in_shape: Shape) -> Shape:
        return channels_only(in_shape)

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Array]:
        _, h, w, _ = x.shape
        return x.sum(1).sum(1) / (h * w), x  # row by row, as they lie in memory

    def backward(self, params: Params, residuals: Array, dy: Array, ctx: Context) -> tuple[Array, Params]:
        x = residuals
        _, h, w, _ = x.shape
        share = (dy / (h * w))[:, None, None, :]
        dx = ctx.empty("dx", x.shape, dy.dtype)
        if ctx.after_relu:
            np.multiply(share, x > 0, out=dx)
        else:
            dx[...] = share
        return dx, {}

    def onnx(self, in_shape: Shape) -> list[OnnxOperator]:
        return [OnnxOperator("GlobalAveragePool", output="pooled"), OnnxOperator("Flatten", ("pooled",))]

    def y_terms(self, at: LayerPass, index: Index) -> Terms:
        c, n = index
        _, h, w, _ = at.x.shape
        pixels = (Ref(0, (c, r, s, n)) for r in range(h) for s in range(w))
        return Terms(f"y[{c}] = Σ x[{c}] / {h * w}", tuple(Term(1 / (h * w), (pixel,)) for pixel in pixels))

    def dx_terms(self, at: LayerPass, k: int, index: Index) -> Terms:
        c, _, _, n = index
        _, h, w, _ = at.x.shape
        share = Term(1 / (h * w), (Ref(OUTPUT, (c, n), "gradient"),))
        return Terms(f"dx[{listed(index)}] = dy[{c}] / {h * w}", (share,))


class GlobalMaxResiduals(NamedTuple):
    in_shape: Shape
    winners: Array  # index into the flat (h·w) axis: (c, 1, n)


@register
@dataclass(frozen=True, slots=True)
class GlobalMaxPool2d(Layer[GlobalMaxResiduals]):
    """Keep the largest pixel of each channel; the first of several equal ones takes the gradient."""

    type: Literal["global_max_pool2d"] = "global_max_pool2d"
    selects = True

    def out_shape(self, in_shape: Shape) -> Shape:
        return channels_only(in_shape)

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, GlobalMaxResiduals]:
        c, h, w, n = x.shape
        pixels = x.reshape(c, h * w, n)
        winners = pixels.real.argmax(1)[:, None]
        return np.take_along_axis(pixels, winners, 1)[:, 0], GlobalMaxResiduals(x.shape, winners)

    def backward(self, params: Params, residuals: GlobalMaxResiduals, dy: Array, ctx: Context) -> tuple[Array, Params]:
        c, h, w, n = residuals.in_shape
        dpixels = np.zeros((c, h * w, n), dy.dtype)
        np.put_along_axis(dpixels, residuals.winners, dy[:, None], 1)
        return dpixels.reshape(residuals.in_shape), {}

    def branches(self, residuals: GlobalMaxResiduals) -> Array:
        return residuals.winners

    def winning_pixels(self, residuals: GlobalMaxResiduals) -> Array:
        return np.concatenate(np.divmod(residuals.winners, residuals.in_shape[2]), axis=1)

    def onnx(self, in_shape: Shape) -> list[OnnxOperator]:
        return [OnnxOperator("GlobalMaxPool", output="pooled"), OnnxOperator("Flatten", ("pooled",))]

    def y_terms(self, at: LayerPass, index: Index) -> Terms:
        c, n = index
        _, h, w, _ = at.x.shape
        winner = self._winner(at, c, n)
        others = (Ref(0, (c, r, s, n)) for r in range(h) for s in range(w) if (c, r, s, n) != winner.where)
        formula = f"y[{c}] = max of channel {c} = x[{listed(winner.where)}]"
        return Terms(formula, (Term(1, (winner,)),), tuple(others))

    def dx_terms(self, at: LayerPass, k: int, index: Index) -> Terms:
        c, _, _, n = index
        dy = Ref(OUTPUT, (c, n), "gradient")
        formula = f"dx[{listed(index)}] = dy[{c}] where it is the first maximum of its channel"
        if self._winner(at, c, n).where == index:
            return Terms(formula, (Term(1, (dy,)),))
        return Terms(formula, (), (dy,), reason="not the winner")

    @staticmethod
    def _winner(at: LayerPass, c: int, n: int) -> Ref:
        return Ref(0, (c, *divmod(int(at.residuals.winners[c, 0, n]), at.x.shape[2]), n))
