"""Borders: pixels added around the image, or taken away from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from cnnbp_cli.core.layers.registry import register
from cnnbp_cli.core.terms import OUTPUT, Index, LayerPass, Ref, Term, Terms, listed
from cnnbp_cli.core.traits import OnnxOperator
from cnnbp_cli.core.types import Array, Context, Layer, Params, Shape, ShapeError, at_least, require, show, show_shape
from cnnbp_cli.core.windows import sides

Border = int | tuple[int, int] | tuple[int, int, int, int]
"""Pixels of a border: one number, (vertical, horizontal), or (top, bottom, left, right)."""

Mode = Literal["constant", "reflect", "replicate"]

OUTSIDE = -1
"""What `Pad` reads where it writes its constant."""


def image_size(shape: Shape) -> tuple[int, int]:
    """Return (h, w) of an image's (c, h, w)."""
    if len(shape) != 3:
        raise ShapeError(f"needs an image (channels, height, width), got {show_shape(shape)}")
    return shape[1], shape[2]


def onnx_pads(border: Border, sign: int) -> Array:
    """Return the pads of ONNX's `Pad`: those before each of the four axes, then those after; negative ones crop."""
    (top, bottom), (left, right) = sides(border)
    return sign * np.array([0, 0, top, left, 0, 0, bottom, right])


@register
@dataclass(frozen=True, slots=True)
class Pad(Layer[Shape]):
    """Put a border around the image: of a constant, of the image's mirror image, or of its outermost pixels.

    Each output reads one pixel or the constant, so a pixel gets the sum of dy over all outputs that read it.
    `reflect` does not repeat the outermost pixel, `replicate` repeats nothing else.

    References
    ----------
    PyTorch's `nn.functional.pad`.
    """

    padding: Border
    """Pixels to add: one number, [vertical, horizontal], or [top, bottom, left, right], for example `1`."""
    mode: Mode = "constant"
    """`constant`, `reflect` (the mirror image), or `replicate` (the outermost pixels)."""
    value: float = 0.0
    """The constant."""
    type: Literal["pad"] = "pad"
    is_linear = True

    def __post_init__(self) -> None:
        require(
            at_least(self, 0, "padding"),
            [("value", f"expected 0 with mode {self.mode}, which copies pixels")]
            if self.mode != "constant" and self.value
            else (),
        )

    def out_shape(self, in_shape: Shape) -> Shape:
        (h, w), ((top, bottom), (left, right)) = image_size(in_shape), sides(self.padding)
        if self.mode == "reflect" and (max(top, bottom) >= h or max(left, right) >= w):
            raise ShapeError(
                f"cannot reflect {show(self.padding)} pixels of a {show_shape((h, w))} image: it has too few"
            )
        return (in_shape[0], top + h + bottom, left + w + right)

    def sources(self, in_shape: Shape) -> list[Array]:
        """Return which row each output row reads, and which column each column: `OUTSIDE` for the constant."""
        found: list[Array] = []
        for size, (before, after) in zip(image_size(in_shape), sides(self.padding), strict=True):
            place = np.arange(-before, size + after)
            if self.mode == "constant":
                place = np.where((place >= 0) & (place < size), place, OUTSIDE)
            elif self.mode == "replicate":
                place = np.clip(place, 0, size - 1)
            else:
                place = (size - 1) - abs((size - 1) - abs(place))
            found.append(place)
        return found

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Shape]:
        _, h, w, _ = x.shape
        (top, _), (left, _) = sides(self.padding)
        y = ctx.empty("y", (*self.out_shape(x.shape[:-1]), x.shape[-1]), x.dtype)
        if self.mode == "constant":
            y[...] = self.value
            y[:, top : top + h, left : left + w] = x
        else:
            rows, columns = self.sources(x.shape[:-1])
            np.copyto(y, x[:, rows[:, None], columns])
        return y, x.shape

    def backward(self, params: Params, residuals: Shape, dy: Array, ctx: Context) -> tuple[Array, Params]:
        _, h, w, _ = residuals
        (top, bottom), (left, right) = sides(self.padding)
        if self.mode == "constant":
            return dy[:, top : top + h, left : left + w], {}
        rows, columns = self.sources(residuals[:-1])
        middle = ctx.empty("middle", (dy.shape[0], h, *dy.shape[2:]), dy.dtype)
        np.copyto(middle, dy[:, top : top + h])
        for p in (*range(top), *range(top + h, top + h + bottom)):
            middle[:, rows[p]] += dy[:, p]
        dx = ctx.empty("dx", residuals, dy.dtype)
        np.copyto(dx, middle[:, :, left : left + w])
        for q in (*range(left), *range(left + w, left + w + right)):
            dx[:, :, columns[q]] += middle[:, :, q]
        return dx, {}

    def y_terms(self, at: LayerPass, index: Index) -> Terms:
        c, p, q, n = index
        rows, columns = self.sources(at.x.shape[:-1])
        r, s = int(rows[p]), int(columns[q])
        if OUTSIDE in (r, s):
            return Terms(f"y[{listed(index)}] = {self.value:g}, the border", (Term(self.value),))
        return Terms(f"y[{listed(index)}] = x[{c}, {r}, {s}]", (Term(1, (Ref(0, (c, r, s, n)),)),))

    def dx_terms(self, at: LayerPass, k: int, index: Index) -> Terms:
        c, r, s, n = index
        rows, columns = self.sources(at.x.shape[:-1])
        readers = [(c, int(p), int(q), n) for p in np.flatnonzero(rows == r) for q in np.flatnonzero(columns == s)]
        read = " + ".join(f"dy[{listed(place)}]" for place in readers)
        return Terms(
            f"dx[{listed(index)}] = {read}", tuple(Term(1, (Ref(OUTPUT, at_, "gradient"),)) for at_ in readers)
        )

    def onnx(self, in_shape: Shape) -> list[OnnxOperator]:
        mode = "edge" if self.mode == "replicate" else self.mode
        value = (np.array(self.value),) if self.mode == "constant" else ()
        return [OnnxOperator("Pad", ("x", onnx_pads(self.padding, 1), *value), {"mode": mode})]


@register
@dataclass(frozen=True, slots=True)
class Crop(Layer[Shape]):
    """Take a border away from the image: y[c, p, q] = x[c, p + top, q + left]; the border gets no gradient."""

    cropping: Border
    """Pixels to take away: one number, [vertical, horizontal], or [top, bottom, left, right], for example `1`."""
    type: Literal["crop"] = "crop"
    is_linear = True
    selects = True

    def __post_init__(self) -> None:
        require(at_least(self, 0, "cropping"))

    def out_shape(self, in_shape: Shape) -> Shape:
        (h, w), (vertical, horizontal) = image_size(in_shape), sides(self.cropping)
        size = (h - sum(vertical), w - sum(horizontal))
        if min(size) < 1:
            raise ShapeError(
                f"cannot crop {show(self.cropping)} pixels of a {show_shape((h, w))} image: nothing is left"
            )
        return (in_shape[0], *size)

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Shape]:
        return x[self._kept(x.shape)], x.shape

    def backward(self, params: Params, residuals: Shape, dy: Array, ctx: Context) -> tuple[Array, Params]:
        dx = ctx.empty("dx", residuals, dy.dtype)
        dx.fill(0)
        dx[self._kept(residuals)] = dy
        return dx, {}

    def _kept(self, shape: Shape) -> tuple[slice, slice, slice]:
        """Return what is left of images of `shape` (c, h, w, n)."""
        (top, bottom), (left, right) = sides(self.cropping)
        return slice(None), slice(top, shape[1] - bottom), slice(left, shape[2] - right)

    def y_terms(self, at: LayerPass, index: Index) -> Terms:
        c, p, q, n = index
        (top, _), (left, _) = sides(self.cropping)
        pixel = (c, p + top, q + left, n)
        return Terms(f"y[{listed(index)}] = x[{listed(pixel)}]", (Term(1, (Ref(0, pixel),)),))

    def dx_terms(self, at: LayerPass, k: int, index: Index) -> Terms:
        c, r, s, n = index
        (top, _), (left, _) = sides(self.cropping)
        place = (c, r - top, s - left, n)
        if all(0 <= k < size for k, size in zip(place, at.y.shape, strict=True)):
            return Terms(f"dx[{listed(index)}] = dy[{listed(place)}]", (Term(1, (Ref(OUTPUT, place, "gradient"),)),))
        return Terms(f"dx[{listed(index)}] = 0, as it was cropped", reason="not read")

    def onnx(self, in_shape: Shape) -> list[OnnxOperator]:
        return [OnnxOperator("Pad", ("x", onnx_pads(self.cropping, -1)))]
