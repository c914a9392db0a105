"""Sliding windows: the only place that knows how kernels, strides, padding and dilation address an image.

A `Windows` is the geometry of one layer on one image size. It pads and crops, and cuts out the view of
all pixels under one position of the kernel, a *tap*.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from cnnbp_cli.core.terms import spelled
from cnnbp_cli.core.types import Array, Context, Shape, ShapeError, Size, pair, show, show_shape

Padding = int | Literal["valid", "same"] | tuple[int, int] | tuple[int, int, int, int]
"""`valid` (none), `same`, or pixels: one number, (vertical, horizontal), or (top, bottom, left, right)."""


def out_size(size: int, kernel: int, stride: int, padding: int, dilation: int = 1) -> int:
    """Return how many windows fit along one axis; `padding` is the sum of both sides.

    References
    ----------
    Dumoulin & Visin 2016, *A guide to convolution arithmetic for deep learning*, arXiv:1603.07285,
    relationship 15.
    """
    return (size + padding - dilation * (kernel - 1) - 1) // stride + 1


def same_padding(size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """Return (before, after) such that ceil(size / stride) windows fit; an odd pixel goes to the end."""
    windows = -(-size // stride)
    total = max((windows - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
    return total // 2, total - total // 2


def check_padding(padding: Any) -> Iterator[tuple[str, str]]:
    """Yield a problem when `padding` is neither `valid`, `same` nor sizes from zero."""
    parts = padding if isinstance(padding, tuple) else (padding,)
    if padding not in ("valid", "same") and any(isinstance(part, str) or part < 0 for part in parts):
        yield "padding", f"expected valid, same, or one, two or four numbers from 0, got {show(padding)}"


def sides(padding: Padding) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return ((top, bottom), (left, right)) of any padding but `same`, which depends on the image."""
    if isinstance(padding, str):
        return (0, 0), (0, 0)
    if isinstance(padding, tuple) and len(padding) == 4:
        return padding[:2], padding[2:]
    vertical, horizontal = pair(padding)
    return (vertical, vertical), (horizontal, horizontal)


def overhang(size: int, kernel: int, stride: int, before: int, after: int) -> int:
    """Return by how many pixels the last window of `ceil_mode` reaches over the padded end of an axis.

    One more window than fits may stand at the end, but it has to start on the image or on the padding before it:
    PyTorch's rule, `pooling_output_shape` in its `aten/src/ATen/native/Pool.h`.
    """
    windows = -((kernel - size - before - after) // stride) + 1
    windows -= (windows - 1) * stride >= size + before
    return max(0, (windows - 1) * stride + kernel - size - before - after) if windows > 0 else 0


@dataclass(frozen=True, slots=True)
class Windows:
    """How a kernel slides over images of one size; pairs are (vertical, horizontal).

    Attributes
    ----------
    image : (h, w)
    before, after : pixels of padding on top and left, at bottom and right
    out : (oh, ow), the number of windows along each axis
    """

    image: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    before: tuple[int, int]
    after: tuple[int, int]
    out: tuple[int, int]

    @classmethod
    def over(
        cls,
        shape: Shape,
        kernel: Size,
        stride: Size,
        padding: Padding,
        dilation: Size = 1,
        *,
        ceil_mode: bool = False,
    ) -> Windows:
        """Place the windows on samples of `shape` (c, h, w); with `ceil_mode`, pad the end for one that is cut off.

        Raises
        ------
        ShapeError
            When the input is not an image, or not a single window fits into it.
        """
        if len(shape) != 3:
            raise ShapeError(f"needs an image (channels, height, width), got {show_shape(shape)}")
        image, kernels, strides, dilations = shape[1:], pair(kernel), pair(stride), pair(dilation)
        borders = list(sides(padding))
        if padding == "same":
            borders = [same_padding(*axis) for axis in zip(image, kernels, strides, dilations, strict=True)]
        if ceil_mode:
            borders = [
                (before, after + overhang(size, k, s, before, after))
                for size, k, s, (before, after) in zip(image, kernels, strides, borders, strict=True)
            ]
        out = [
            out_size(size, k, s, sum(border), d)
            for size, k, s, border, d in zip(image, kernels, strides, borders, dilations, strict=True)
        ]
        if min(out) < 1:
            spans = tuple(d * (k - 1) + 1 for k, d in zip(kernels, dilations, strict=True))
            padded = tuple(size + sum(border) for size, border in zip(image, borders, strict=True))
            dilated = "" if spans == kernels else f" (covering {show_shape(spans)} with its dilation)"
            where = "input" if padded == image else "padded input"
            raise ShapeError(
                f"the {show_shape(kernels)} kernel{dilated} is larger than its {show_shape(padded)} {where}"
            )
        (top, bottom), (left, right) = borders
        return cls((image[0], image[1]), kernels, strides, dilations, (top, left), (bottom, right), (out[0], out[1]))

    def onnx_attributes(self) -> dict[str, Any]:
        """Return the attributes of an ONNX operator on these windows; `same` is written as the pixels that it means."""
        return {"kernel_shape": self.kernel, "strides": self.stride, "pads": (*self.before, *self.after)}

    @property
    def padded(self) -> tuple[int, int]:
        """The height and width of the image with its padding."""
        (h, w), (top, left), (bottom, right) = self.image, self.before, self.after
        return h + top + bottom, w + left + right

    @property
    def effective_kernel(self) -> tuple[int, int]:
        """How many pixels a window spans along each axis, with the holes of its dilation."""
        (kh, kw), (dh, dw) = self.kernel, self.dilation
        return dh * (kh - 1) + 1, dw * (kw - 1) + 1

    def transposed(self) -> Windows:
        """Return the windows over the output through which each pixel of the image is seen, where the stride is 1."""
        (height, width), (top, left), (bottom, right) = self.effective_kernel, self.before, self.after
        return replace(
            self,
            image=self.out,
            before=(height - 1 - top, width - 1 - left),
            after=(height - 1 - bottom, width - 1 - right),
            out=self.image,
        )

    def columns(self) -> list[tuple[slice, slice]]:
        """Return, for each column of the kernel, the windows whose tap lies on the image, and the pixels under it."""
        w, s, out, columns = self.image[1], self.stride[1], self.out[1], list[tuple[slice, slice]]()
        for j in range(self.kernel[1]):
            offset = j * self.dilation[1] - self.before[1]
            first = max(0, -(offset // s))
            stop = max(first, min(out, (w - 1 - offset) // s + 1))
            pixel = first * s + offset
            columns.append((slice(first, stop), slice(pixel, pixel + max(0, (stop - first - 1) * s + 1), s)))
        return columns

    @property
    def overlap(self) -> bool:
        """True when a pixel may lie in several windows."""
        return any(k > s for k, s in zip(self.kernel, self.stride, strict=True))

    @property
    def tile_the_image(self) -> bool:
        """True when every pixel of the padded image lies in exactly one window."""
        covered = (self.out[0] * self.stride[0], self.out[1] * self.stride[1])
        return self.kernel == self.stride and self.dilation == (1, 1) and covered == self.padded

    def pad(self, x: Array, ctx: Context, value: float = 0.0) -> Array:
        """Return x (c, h, w, n) with its border of `value`: (c, h+, w+, n); x itself where there is none."""
        if self.padded == self.image:
            return x
        c, h, w, n = x.shape
        (top, left), (height, width) = self.before, self.padded
        padded = ctx.empty("padded", (c, height, width, n), x.dtype)
        padded[:, :top] = padded[:, top + h :] = value
        padded[:, top : top + h, :left] = padded[:, top : top + h, left + w :] = value
        padded[:, top : top + h, left : left + w] = x
        return padded

    def crop(self, padded: Array) -> Array:
        """Return the image inside its padding: the transpose of `pad`."""
        (top, left), (h, w) = self.before, self.image
        return padded[:, top : top + h, left : left + w]

    def taps(self, padded: Array, rows: slice) -> Iterator[Array]:
        """Yield, for each kernel position in row-major order, the view (c, rows, ow, n) of pixels under it."""
        for band in self.bands(padded, rows):
            yield from self.taps_of_band(band)

    def bands(self, padded: Array, rows: slice) -> Iterator[Array]:
        """Yield, for each row of the kernel, the view (c, rows, w+, n) of the image rows under it."""
        d, s = self.dilation[0], self.stride[0]
        for i in range(self.kernel[0]):
            top = rows.start * s + i * d
            yield padded[:, top : top + (rows.stop - rows.start - 1) * s + 1 : s]

    def taps_of_band(self, band: Array) -> Iterator[Array]:
        """Yield, for each column of the kernel, the view (c, rows, ow, n) of what it sees of (c, rows, w+, n)."""
        d, s = self.dilation[1], self.stride[1]
        for j in range(self.kernel[1]):
            yield band[:, :, j * d : j * d + (self.out[1] - 1) * s + 1 : s]

    def pixels_of(self, p: int, q: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield (i, j, r, s): each tap of the window (p, q) that lies on the image, and its pixel."""
        for i, r in self._seen(0, p):
            for j, s in self._seen(1, q):
                yield i, j, r, s

    def windows_on(self, r: int, s: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield (i, j, p, q): each tap that sees the pixel (r, s), and its window."""
        for i, p in self._seeing(0, r):
            for j, q in self._seeing(1, s):
                yield i, j, p, q

    def pixels_under(self, i: int, j: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield (p, q, r, s): each window whose tap (i, j) lies on the image, and its pixel."""
        for p, r in self._met(0, i):
            for q, s in self._met(1, j):
                yield p, q, r, s

    def _seen(self, axis: int, window: int) -> Iterator[tuple[int, int]]:
        """Yield (tap, pixel) of one window along an axis."""
        first = window * self.stride[axis] - self.before[axis]
        for tap in range(self.kernel[axis]):
            pixel = first + tap * self.dilation[axis]
            if 0 <= pixel < self.image[axis]:
                yield tap, pixel

    def _seeing(self, axis: int, pixel: int) -> Iterator[tuple[int, int]]:
        """Yield (tap, window) of all that see one pixel along an axis."""
        for tap in range(self.kernel[axis]):
            window, rest = divmod(pixel + self.before[axis] - tap * self.dilation[axis], self.stride[axis])
            if rest == 0 and 0 <= window < self.out[axis]:
                yield tap, window

    def _met(self, axis: int, tap: int) -> Iterator[tuple[int, int]]:
        """Yield (window, pixel) of one tap along an axis."""
        for window in range(self.out[axis]):
            pixel = window * self.stride[axis] - self.before[axis] + tap * self.dilation[axis]
            if 0 <= pixel < self.image[axis]:
                yield window, pixel

    def pixel(self, axis: int, window: int | None, tap: int | None = None) -> str:
        """Write the pixel under a tap along an axis, for a formula; what is not given is a letter."""
        s, d = self.stride[axis], self.dilation[axis]
        offset = (window or 0) * s + (tap or 0) * d - self.before[axis]
        if window is None:
            return spelled("pq"[axis], s, offset)
        return spelled("ij"[axis], d, offset)

    def window(self, axis: int, pixel: int) -> str:
        """Write the window whose tap, i or j, sees a pixel along an axis, for a formula."""
        s = self.stride[axis]
        difference = f"{pixel + self.before[axis]}−{spelled('ij'[axis], self.dilation[axis], 0)}"
        return difference if s == 1 else f"({difference})/{s}"
