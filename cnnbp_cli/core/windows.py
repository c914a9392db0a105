"""Sliding windows: the only place that knows how kernels, strides, padding and dilation address an image.

A `Windows` is the geometry of one layer on one image size. `unfold` copies the windows of a few
output rows into the columns of a matrix, `fold` is its transpose: it adds such columns back to where
they came from. The whole column matrix never exists; `row_blocks` cuts it into pieces that stay in
the processor's cache between the copy and the matrix product.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.lib.stride_tricks import as_strided

from cnnbp_cli.core.types import Array, Context, Shape, ShapeError, Size, pair, show, show_shape

Padding = int | Literal["valid", "same"] | tuple[int, int]
"""`valid` (none), `same`, or how many pixels on both sides: one number or (vertical, horizontal)."""

COLUMN_BYTES = 512 * 1024
"""About how many bytes of columns to unfold at a time, so that they stay in a 1–2 MB second-level cache."""


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
        yield "padding", f"expected valid, same, a number from 0 or a pair of them, got {show(padding)}"


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
    def over(cls, shape: Shape, kernel: Size, stride: Size, padding: Padding, dilation: Size = 1) -> Windows:
        """Place the windows on samples of `shape` (c, h, w).

        Raises
        ------
        ShapeError
            When the input is not an image, or not a single window fits into it.
        """
        if len(shape) != 3:
            raise ShapeError(f"needs an image (channels, height, width), got {show_shape(shape)}")
        image, kernels, strides, dilations = shape[1:], pair(kernel), pair(stride), pair(dilation)
        if padding == "same":
            sides = [same_padding(*axis) for axis in zip(image, kernels, strides, dilations, strict=True)]
        else:
            amounts = (0, 0) if isinstance(padding, str) else pair(padding)
            sides = [(amount, amount) for amount in amounts]
        out = tuple(
            out_size(size, k, s, sum(side), d)
            for size, k, s, side, d in zip(image, kernels, strides, sides, dilations, strict=True)
        )
        if min(out) < 1:
            reach = tuple(d * (k - 1) + 1 for k, d in zip(kernels, dilations, strict=True))
            padded = tuple(size + sum(side) for size, side in zip(image, sides, strict=True))
            dilated = "" if reach == kernels else f" (covering {show_shape(reach)} with its dilation)"
            where = "input" if padded == image else "padded input"
            raise ShapeError(
                f"the {show_shape(kernels)} kernel{dilated} is larger than its {show_shape(padded)} {where}"
            )
        return cls(
            (image[0], image[1]),
            kernels,
            strides,
            dilations,
            (sides[0][0], sides[1][0]),
            (sides[0][1], sides[1][1]),
            (out[0], out[1]),
        )

    @property
    def padded(self) -> tuple[int, int]:
        """The height and width of the image with its padding."""
        (h, w), (top, left), (bottom, right) = self.image, self.before, self.after
        return h + top + bottom, w + left + right

    @property
    def is_identity(self) -> bool:
        """True when each window is one pixel and every pixel has one: a 1×1 kernel with stride 1."""
        return self.kernel == (1, 1) and self.stride == (1, 1) and self.padded == self.image

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
            return np.ascontiguousarray(x)
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

    def taps(self, padded: Array, rows: range) -> Iterator[Array]:
        """Yield, for each kernel position in row-major order, the view (c, rows, ow, n) of pixels under it."""
        (dh, dw), (sh, sw), ow = self.dilation, self.stride, self.out[1]
        for i in range(self.kernel[0]):
            top = rows.start * sh + i * dh
            for j in range(self.kernel[1]):
                left = j * dw
                yield padded[:, top : top + (len(rows) - 1) * sh + 1 : sh, left : left + (ow - 1) * sw + 1 : sw]

    def row_blocks(self, depth: int, n: int, itemsize: int) -> Iterator[range]:
        """Cut the output rows into blocks of about `COLUMN_BYTES` of columns, `depth` values deep."""
        oh, ow = self.out
        height = max(1, min(oh, COLUMN_BYTES // max(1, depth * ow * n * itemsize)))
        for start in range(0, oh, height):
            yield range(start, min(start + height, oh))

    def view(self, padded: Array, rows: range) -> Array:
        """Return the windows of some output rows as a read-only view (c, kh, kw, rows, ow, n)."""
        c, _, _, n = padded.shape
        (kh, kw), (sh, sw), (dh, dw) = self.kernel, self.stride, self.dilation
        channel, row, column, sample = padded.strides
        return as_strided(
            padded[:, rows.start * sh :],
            (c, kh, kw, len(rows), self.out[1], n),
            (channel, row * dh, column * dw, row * sh, column * sw, sample),
            writeable=False,
        )

    def unfold(self, padded: Array, rows: range, ctx: Context) -> Array:
        """Copy the windows of some output rows into columns (c·kh·kw, rows·ow·n).

        Row (c, i, j) of the result is the view that `taps` yields for (i, j), of channel c.
        """
        c, _, _, n = padded.shape
        if self.is_identity:
            positions = slice(rows.start * self.out[1] * n, rows.stop * self.out[1] * n)
            return padded.reshape(c, -1)[:, positions]
        windows = self.view(padded, rows)
        columns = ctx.scratch("columns", windows.shape, padded.dtype)
        np.copyto(columns, windows)
        return columns.reshape(c * self.kernel[0] * self.kernel[1], -1)

    def fold(self, columns: Array, rows: range, into: Array) -> None:
        """Add columns (c·kh·kw, rows·ow·n) to the pixels `into` (c, h+, w+, n) that they were unfolded from."""
        c, _, _, n = into.shape
        kh, kw = self.kernel
        taps = columns.reshape(c, kh * kw, len(rows), self.out[1], n)
        for k, pixels in enumerate(self.taps(into, rows)):
            pixels += taps[:, k]
