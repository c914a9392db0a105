"""Convolution and transposed convolution: each is one matrix product per block of unfolded windows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from cnnbp_cli.core import winograd
from cnnbp_cli.core.initializers import AnyInitializer, HeNormal
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
from cnnbp_cli.core.windows import Padding, Windows, check_padding


class ConvResiduals(NamedTuple):
    windows: Windows
    image: Array  # what the windows slide over, padded: (c, h+, w+, n)
    winograd: winograd.Winograd | None = None  # takes the place of the windows where it is faster


@dataclass(frozen=True, slots=True)
class Conv2d(Layer[ConvResiduals]):
    """Cross-correlate the image with learned kernels, as every framework's "convolution" does.

        y[f, p, q] = bias[f] + Σ_{c, i, j} weight[f, c, i, j] · x[c, p·s + i·d, q·s + j·d]

    With `groups` g, output channels in the k-th of g equal parts see only the k-th part of the input
    channels. With the windows unfolded into columns, and w the weight as a matrix:

        y = w @ columns + bias          dw = dy @ columnsᵀ
        dx = fold(wᵀ @ dy)              dbias = Σ dy over positions and batch

    Parameters are `weight` (f, c/g, kh, kw) and `bias` (f,).

    References
    ----------
    Chellapilla et al. 2006 for the unfolding; Goodfellow et al., *Deep Learning*, section 9.5, for the
    gradients.
    """

    filters: int
    kernel_size: Size
    stride: Size = 1
    padding: Padding = "valid"
    dilation: Size = 1
    groups: int = 1
    bias: bool = True
    init: AnyInitializer | None = None
    type: Literal["conv2d"] = "conv2d"

    def __post_init__(self) -> None:
        require(
            at_least(self, 1, "filters", "kernel_size", "stride", "dilation", "groups"),
            check_padding(self.padding),
            [("filters", f"expected a multiple of groups {self.groups}, got {self.filters}")]
            if self.groups > 0 and self.filters % self.groups
            else (),
        )

    def windows(self, in_shape: Shape) -> Windows:
        return Windows.over(in_shape, self.kernel_size, self.stride, self.padding, self.dilation)

    def out_shape(self, in_shape: Shape) -> Shape:
        windows = self.windows(in_shape)
        if in_shape[0] % self.groups:
            raise ShapeError(f"needs a number of channels that {self.groups} groups divide, got {in_shape[0]}")
        return (self.filters, *windows.out)

    def param_shapes(self, in_shape: Shape) -> dict[str, Shape]:
        weight = (self.filters, in_shape[0] // self.groups, *pair(self.kernel_size))
        return {"weight": weight} | ({"bias": (self.filters,)} if self.bias else {})

    def init_params(self, rng: np.random.Generator, in_shape: Shape) -> Params:
        shape = f, c, kh, kw = self.param_shapes(in_shape)["weight"]
        weight = (self.init or HeNormal())(rng, shape, c * kh * kw, f // self.groups * kh * kw)
        return {"weight": weight} | ({"bias": np.zeros(self.filters)} if self.bias else {})

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, ConvResiduals]:
        windows, g, n = self.windows(x.shape[:3]), self.groups, x.shape[3]
        y = ctx.empty("y", (self.filters, *windows.out, n), np.result_type(x, *params.values()))
        if g == 1 and winograd.suits(windows, x.shape[0], self.filters, y.dtype):
            fast = winograd.Winograd.over(windows)
            image = fast.patches.pad(x, ctx)
            fast.forward(params["weight"], params.get("bias"), image, y, ctx)
            return y, ConvResiduals(windows, image, fast)
        image = windows.pad(x, ctx)
        w = params["weight"].reshape(g, self.filters // g, -1)  # (g, f/g, c/g·kh·kw)
        y_flat = y.reshape(g, self.filters // g, -1)  # (g, f/g, oh·ow·n)
        for rows in windows.row_blocks(g * w.shape[2], n, x.itemsize):
            columns = windows.unfold(image, rows, ctx).reshape(g, w.shape[2], -1)  # (g, c/g·kh·kw, positions·n)
            y_block = y_flat[:, :, self._positions(windows, rows, n)]
            np.matmul(w, columns, out=y_block)
            if self.bias:
                y_block += params["bias"].reshape(g, -1, 1)
        return y, ConvResiduals(windows, image)

    def backward(
        self, params: Params, residuals: ConvResiduals, dy: Array, ctx: Context
    ) -> tuple[Array | None, Params]:
        windows, image, fast = residuals
        if fast is not None:
            dimage = ctx.empty("dx", image.shape, dy.dtype) if ctx.wants_dx else None
            grads = {"weight": fast.backward(params["weight"], image, dy, dimage, ctx)}
            if self.bias:
                grads["bias"] = dy.sum((1, 2, 3))
            return None if dimage is None else fast.patches.crop(dimage), grads
        g, n = self.groups, image.shape[3]
        w = params["weight"].reshape(g, self.filters // g, -1)  # (g, f/g, c/g·kh·kw)
        w_transposed = w.swapaxes(1, 2)
        dy_flat = np.ascontiguousarray(dy).reshape(g, self.filters // g, -1)  # (g, f/g, oh·ow·n)
        dw = np.zeros_like(w)
        dimage = ctx.empty("dx", image.shape, dy.dtype) if ctx.wants_dx else None
        if dimage is not None:
            dimage.fill(0)
        for rows in windows.row_blocks(g * w.shape[2], n, image.itemsize):
            # Unfolded again rather than kept: a copy in cache is cheaper than kh·kw times the memory.
            columns = windows.unfold(image, rows, ctx).reshape(g, w.shape[2], -1)
            dy_block = dy_flat[:, :, self._positions(windows, rows, n)]
            dw += dy_block @ columns.swapaxes(1, 2)
            if dimage is not None:
                dcolumns = ctx.scratch("dcolumns", columns.shape, dy.dtype)
                np.matmul(w_transposed, dy_block, out=dcolumns)
                windows.fold(dcolumns, rows, into=dimage)
        grads = {"weight": dw.reshape(params["weight"].shape)}
        if self.bias:
            grads["bias"] = dy.sum((1, 2, 3))
        return None if dimage is None else windows.crop(dimage), grads

    @staticmethod
    def _positions(windows: Windows, rows: range, n: int) -> slice:
        """Where the outputs of these rows lie in a flat (oh·ow·n) axis."""
        return slice(rows.start * windows.out[1] * n, rows.stop * windows.out[1] * n)

    def macs(self, in_shape: Shape) -> int:
        kh, kw = pair(self.kernel_size)
        f, oh, ow = self.out_shape(in_shape)
        return f * oh * ow * (in_shape[0] // self.groups) * kh * kw

    def kernel(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
        return pair(self.kernel_size), pair(self.stride), pair(self.dilation)


@dataclass(frozen=True, slots=True)
class ConvTranspose2d(Layer[ConvResiduals]):
    """The transpose of a convolution: each input pixel adds its kernel, scaled, to the output.

        y[f, p·s + i, q·s + j] += weight[c, f, i, j] · x[c, p, q]

    It is `Conv2d.backward` to the input as a forward pass, so the same windows slide over the *output*:

        y = fold(wᵀ @ x) + bias         dw = x @ unfold(dy)ᵀ         dx = w @ unfold(dy)

    `same` makes the output exactly `stride` times the input. Parameters are `weight` (c, f, kh, kw),
    as PyTorch and ONNX store it, and `bias` (f,).

    References
    ----------
    Dumoulin & Visin 2016, arXiv:1603.07285, chapter 4.
    """

    filters: int
    kernel_size: Size
    stride: Size = 1
    padding: Padding = "valid"
    output_padding: Size = 0
    bias: bool = True
    init: AnyInitializer | None = None
    type: Literal["conv_transpose2d"] = "conv_transpose2d"

    def __post_init__(self) -> None:
        require(
            at_least(self, 1, "filters", "kernel_size", "stride"),
            at_least(self, 0, "output_padding"),
            check_padding(self.padding),
            [("output_padding", f"expected less than the stride, got {show_shape(pair(self.output_padding))}")]
            if any(extra >= s > 0 for extra, s in zip(pair(self.output_padding), pair(self.stride), strict=True))
            else (),
            [("output_padding", "expected 0 with padding same, which sets the output size itself")]
            if self.padding == "same" and any(pair(self.output_padding))
            else (),
        )

    def windows(self, in_shape: Shape) -> Windows:
        """The windows over the output image whose transpose this layer is."""
        if len(in_shape) != 3:
            raise ShapeError(f"needs an image (channels, height, width), got {show_shape(in_shape)}")
        sizes: list[int] = []
        for axis, (size, k, s, extra) in enumerate(
            zip(in_shape[1:], pair(self.kernel_size), pair(self.stride), pair(self.output_padding), strict=True)
        ):
            if self.padding == "same":
                sizes.append(size * s)
            else:
                amount = 0 if isinstance(self.padding, str) else pair(self.padding)[axis]
                sizes.append((size - 1) * s - 2 * amount + k + extra)
        if min(sizes) < 1:
            raise ShapeError(f"the padding leaves nothing of the output: its size would be {show_shape(tuple(sizes))}")
        return Windows.over((self.filters, *sizes), self.kernel_size, self.stride, self.padding)

    def out_shape(self, in_shape: Shape) -> Shape:
        return (self.filters, *self.windows(in_shape).image)

    def param_shapes(self, in_shape: Shape) -> dict[str, Shape]:
        weight = (in_shape[0], self.filters, *pair(self.kernel_size))
        return {"weight": weight} | ({"bias": (self.filters,)} if self.bias else {})

    def init_params(self, rng: np.random.Generator, in_shape: Shape) -> Params:
        shape = c, f, kh, kw = self.param_shapes(in_shape)["weight"]
        sh, sw = pair(self.stride)  # an output pixel lies under kh·kw / (sh·sw) positions of the kernel
        weight = (self.init or HeNormal())(rng, shape, max(1, c * kh * kw // (sh * sw)), f * kh * kw)
        return {"weight": weight} | ({"bias": np.zeros(self.filters)} if self.bias else {})

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, ConvResiduals]:
        windows, n = self.windows(x.shape[:3]), x.shape[3]
        x = np.ascontiguousarray(x)
        x_flat = x.reshape(len(x), -1)  # (c, h·w·n)
        w = params["weight"].reshape(len(x), -1)  # (c, f·kh·kw)
        image = ctx.empty("y", (self.filters, *windows.padded, n), np.result_type(x, *params.values()))
        image.fill(0)
        for rows in windows.row_blocks(w.shape[1], n, x.itemsize):
            x_block = x_flat[:, Conv2d._positions(windows, rows, n)]
            columns = ctx.scratch("columns", (w.shape[1], x_block.shape[1]), image.dtype)
            np.matmul(w.T, x_block, out=columns)
            windows.fold(columns, rows, into=image)
        y = windows.crop(image)
        if self.bias:
            y += params["bias"].reshape(-1, 1, 1, 1)
        return y, ConvResiduals(windows, x)

    def backward(self, params: Params, residuals: ConvResiduals, dy: Array, ctx: Context) -> tuple[Array, Params]:
        windows, x, _ = residuals
        n = x.shape[3]
        x_flat = x.reshape(len(x), -1)  # (c, h·w·n)
        w = params["weight"].reshape(len(x), -1)  # (c, f·kh·kw)
        dimage = windows.pad(dy, ctx)
        dw = np.zeros_like(w)
        dx = ctx.empty("dx", x.shape, dy.dtype)
        dx_flat = dx.reshape(len(x), -1)
        for rows in windows.row_blocks(w.shape[1], n, x.itemsize):
            columns = windows.unfold(dimage, rows, ctx)  # (f·kh·kw, positions·n)
            positions = Conv2d._positions(windows, rows, n)
            dw += x_flat[:, positions] @ columns.T
            np.matmul(w, columns, out=dx_flat[:, positions])
        grads = {"weight": dw.reshape(params["weight"].shape)}
        if self.bias:
            grads["bias"] = dy.sum((1, 2, 3))
        return dx, grads

    def macs(self, in_shape: Shape) -> int:
        kh, kw = pair(self.kernel_size)
        c, h, w = in_shape
        return c * h * w * self.filters * kh * kw
