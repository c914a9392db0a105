"""Convolution and transposed convolution: two of the sums over windows, and each other's gradient."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal, NamedTuple

import numpy as np

from cnnbp_cli.core.correlate import correlate, correlate_transposed, correlate_weights
from cnnbp_cli.core.epilogue import backward_epilogue, forward_epilogue
from cnnbp_cli.core.initializers import AnyInitializer, HeNormal
from cnnbp_cli.core.layers.registry import register
from cnnbp_cli.core.rows import by_row, sum_rows
from cnnbp_cli.core.terms import OUTPUT, Index, LayerPass, Ref, Term, Terms, over_images, spelled
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
from cnnbp_cli.core.windows import Padding, Windows, check_padding, sides


class ConvResiduals(NamedTuple):
    windows: Windows
    x: Array  # (c, h, w, n)


def bias_terms(at: LayerPass, f: int) -> Terms:
    """Explain a bias's gradient: it was added to every pixel, so it gets the sum of their gradients."""
    _, oh, ow, images = at.dy.shape
    dys = (Ref(OUTPUT, (f, p, q, n), "gradient") for n in range(images) for p in range(oh) for q in range(ow))
    return Terms(f"dbias[{f}] = {over_images(at, 'Σ ')}dy[{f}, p, q]", tuple(Term(1, (dy,)) for dy in dys))


@register
@dataclass(frozen=True, slots=True)
class Conv2d(Layer[ConvResiduals]):
    """Cross-correlate the image with learned kernels, as every framework's "convolution" does.

        y[f, p, q] = bias[f] + Σ_{c, i, j} weight[f, c, i, j] · x[c, p·s + i·d, q·s + j·d]

    With `groups` g, output channels in the k-th of g equal parts see only the k-th part of the input
    channels. The gradients are sums over the same windows (see `core.correlate`):

        dw[f, c, i, j] = Σ_{p, q, n} dy[f, p, q] · x[c, p·s + i·d, q·s + j·d]        dbias[f] = Σ_{p, q, n} dy[f, p, q]
        dx[c, p·s + i·d, q·s + j·d] += Σ_f weight[f, c, i, j] · dy[f, p, q]

    Parameters are `weight` (f, c/g, kh, kw) and `bias` (f,).

    References
    ----------
    Goodfellow, Bengio & Courville, *Deep Learning*, section 9.5; Dumoulin & Visin 2016, arXiv:1603.07285.
    """

    filters: int
    """Output channels, for example `16`."""
    kernel_size: Size
    """Pixels of the kernel: one number, or [vertical, horizontal], for example `3`."""
    stride: Size = 1
    """Pixels from one window to the next: one number, or [vertical, horizontal], for example `2`."""
    padding: Padding = "valid"
    """`valid` (none), `same`, or pixels: one number, [vertical, horizontal], or [top, bottom, left, right]."""
    dilation: Size = 1
    """Pixels from one tap of the kernel to the next: one number, or [vertical, horizontal]."""
    groups: int = 1
    """Parts that the channels are cut into; as many as there are input channels make it depthwise."""
    bias: bool = True
    """Add a learned number to each output channel."""
    init: AnyInitializer | None = None
    """How the weights start; by default as `model.init` says, for example `glorot_uniform`."""
    type: Literal["conv2d"] = "conv2d"
    is_linear = True
    applies_relu = True
    masks_relu = True
    applies_sum = True
    adds_gradient = True

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
        windows = self.windows(x.shape[:3])
        y = ctx.empty("y", (self.filters, *windows.out, x.shape[3]), np.result_type(x, *params.values()))
        finish = forward_epilogue(by_row(y), params["bias"][:, None] if self.bias else None, ctx)
        correlate(x, params["weight"], windows, self.groups, y, ctx, finish)
        return y, ConvResiduals(windows, x)

    def backward(
        self, params: Params, residuals: ConvResiduals, dy: Array, ctx: Context
    ) -> tuple[Array | None, Params]:
        windows, x = residuals
        weight = params["weight"]
        grads = {"weight": correlate_weights(x, dy, weight, windows, self.groups, ctx)}
        if self.bias:
            grads["bias"] = sum_rows(by_row(dy)).sum(0)
        if not ctx.wants_dx:
            return None, grads
        dx = ctx.empty("dx", x.shape, dy.dtype)
        finish = backward_epilogue(by_row(dx), by_row(x), ctx)
        correlate_transposed(weight, dy, windows, self.groups, dx, ctx, finish)
        return dx, grads

    def y_terms(self, at: LayerPass, index: Index) -> Terms:
        f, p, q, n = index
        windows, weight = at.residuals.windows, at.params["weight"]
        first = self._first_channel(f, weight)
        products = (
            Term(1, (Ref("weight", (f, c, i, j)), Ref(0, (first + c, r, s, n))))
            for c in range(weight.shape[1])
            for i, j, r, s in windows.pixels_of(p, q)
        )
        bias = (Term(1, (Ref("bias", (f,)),)),) if self.bias else ()
        pixel = f"{spelled('c', 1, first)}, {windows.pixel(0, p)}, {windows.pixel(1, q)}"
        formula = f"y[{f}, {p}, {q}] = {f'bias[{f}] + ' if self.bias else ''}Σ weight[{f}, c, i, j] · x[{pixel}]"
        return Terms(formula, (*bias, *products))

    def dx_terms(self, at: LayerPass, k: int, index: Index) -> Terms:
        channel, r, s, n = index
        windows, weight = at.residuals.windows, at.params["weight"]
        group, c = divmod(channel, weight.shape[1])
        filters = range(group * self.filters // self.groups, (group + 1) * self.filters // self.groups)
        stamps = list(windows.windows_on(r, s))
        products = tuple(
            Term(1, (Ref("weight", (f, c, i, j)), Ref(OUTPUT, (f, p, q, n), "gradient")))
            for f in filters
            for i, j, p, q in stamps
        )
        dx = f"dx[{channel}, {r}, {s}]"
        return Terms(
            f"{dx} = Σ weight[f, {c}, i, j] · dy[f, {windows.window(0, r)}, {windows.window(1, s)}]",
            products,
            reason=None if products else "not read",
            retold=f"each dy[f, p, q] stamps dy[f, p, q] · weight[f, {c}] on the input; "
            f"{dx} is the sum of what {len(products)} of the stamps leave there",
        )

    def grad_terms(self, at: LayerPass, key: str, index: Index) -> Terms:
        f = index[0]
        windows, weight = at.residuals.windows, at.params["weight"]
        if key == "bias":
            return bias_terms(at, f)
        _, c, i, j = index
        channel = self._first_channel(f, weight) + c
        products = tuple(
            Term(1, (Ref(OUTPUT, (f, p, q, n), "gradient"), Ref(0, (channel, r, s, n))))
            for n in at.images
            for p, q, r, s in windows.pixels_under(i, j)
        )
        patch = f"{channel}, {windows.pixel(0, None, i)}, {windows.pixel(1, None, j)}"
        formula = f"dweight[{f}, {c}, {i}, {j}] = {over_images(at, 'Σ ')}dy[{f}, p, q] · x[{patch}]"
        return Terms(formula, products, reason=None if products else "padding")

    def _first_channel(self, f: int, weight: Array) -> int:
        """Return the first input channel that a filter sees."""
        return f // (self.filters // self.groups) * weight.shape[1]

    def macs(self, in_shape: Shape) -> int:
        kh, kw = pair(self.kernel_size)
        f, oh, ow = self.out_shape(in_shape)
        return f * oh * ow * (in_shape[0] // self.groups) * kh * kw

    def kernel(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
        return pair(self.kernel_size), pair(self.stride), pair(self.dilation)

    def memory(self, in_shape: Shape) -> int:
        return max(prod(self.out_shape(in_shape)), in_shape[0] * prod(self.windows(in_shape).padded))

    def onnx(self, in_shape: Shape) -> list[OnnxOperator]:
        windows = self.windows(in_shape)
        attributes = windows.onnx_attributes() | {"dilations": windows.dilation, "group": self.groups}
        return [OnnxOperator("Conv", ("x", "weight", *["bias"] * self.bias), attributes)]


@register
@dataclass(frozen=True, slots=True)
class ConvTranspose2d(Layer[ConvResiduals]):
    """The transpose of a convolution: each input pixel adds its kernel, scaled, to the output.

        y[f, p·s + i·d, q·s + j·d] += weight[c, f, i, j] · x[c, p, q]

    It is the gradient of `Conv2d` to its input, as a forward pass: the windows slide over the *output*, and
    its own gradient to the input is `Conv2d` forward:

        dx[c, p, q] = Σ_{f, i, j} weight[c, f, i, j] · dy[f, p·s + i·d, q·s + j·d]
        dw[c, f, i, j] = Σ_{p, q, n} x[c, p, q] · dy[f, p·s + i·d, q·s + j·d]

    With `groups` g, input channels in the k-th of g equal parts write only to the k-th part of the output channels.
    `same` makes the output exactly `stride` times the input. Parameters are `weight` (c, f/g, kh, kw),
    as PyTorch and ONNX store it, and `bias` (f,).

    References
    ----------
    Dumoulin & Visin 2016, arXiv:1603.07285, chapter 4.
    """

    filters: int
    """Output channels, for example `16`."""
    kernel_size: Size
    """Pixels of the kernel: one number, or [vertical, horizontal], for example `3`."""
    stride: Size = 1
    """Pixels of the output from one window to the next: one number, or [vertical, horizontal], for example `2`."""
    padding: Padding = "valid"
    """`valid` (none), `same`, or pixels: one number, [vertical, horizontal], or [top, bottom, left, right]."""
    output_padding: Size = 0
    """Pixels more at the bottom and at the right: one number, or [vertical, horizontal], below the stride."""
    bias: bool = True
    """Add a learned number to each output channel."""
    init: AnyInitializer | None = None
    """How the weights start; by default as `model.init` says, for example `glorot_uniform`."""
    groups: int = 1
    """Parts that the channels are cut into; as many as there are input channels make it depthwise."""
    dilation: Size = 1
    """Pixels of the output from one tap of the kernel to the next: one number, or [vertical, horizontal]."""
    type: Literal["conv_transpose2d"] = "conv_transpose2d"
    is_linear = True
    unit_axis = 1
    transposed = True

    def __post_init__(self) -> None:
        require(
            at_least(self, 1, "filters", "kernel_size", "stride", "groups", "dilation"),
            at_least(self, 0, "output_padding"),
            check_padding(self.padding),
            [("output_padding", f"expected less than the stride, got {show_shape(pair(self.output_padding))}")]
            if any(extra >= s > 0 for extra, s in zip(pair(self.output_padding), pair(self.stride), strict=True))
            else (),
            [("output_padding", "expected 0 with padding same, which sets the output size itself")]
            if self.padding == "same" and any(pair(self.output_padding))
            else (),
            [("filters", f"expected a multiple of groups {self.groups}, got {self.filters}")]
            if self.groups > 0 and self.filters % self.groups
            else (),
        )

    def windows(self, in_shape: Shape) -> Windows:
        """The windows over the output image whose transpose this layer is."""
        if len(in_shape) != 3:
            raise ShapeError(f"needs an image (channels, height, width), got {show_shape(in_shape)}")
        sizes: list[int] = []
        spans = [d * (k - 1) + 1 for k, d in zip(pair(self.kernel_size), pair(self.dilation), strict=True)]
        stride, output_padding = pair(self.stride), pair(self.output_padding)
        for size, k, s, extra, border in zip(
            in_shape[1:], spans, stride, output_padding, sides(self.padding), strict=True
        ):
            sizes.append(size * s if self.padding == "same" else (size - 1) * s - sum(border) + k + extra)
        if min(sizes) < 1:
            raise ShapeError(f"the padding removes the whole output: its size would be {show_shape(tuple(sizes))}")
        return Windows.over((self.filters, *sizes), self.kernel_size, self.stride, self.padding, self.dilation)

    def out_shape(self, in_shape: Shape) -> Shape:
        windows = self.windows(in_shape)
        if in_shape[0] % self.groups:
            raise ShapeError(f"needs a number of channels that {self.groups} groups divide, got {in_shape[0]}")
        return (self.filters, *windows.image)

    def param_shapes(self, in_shape: Shape) -> dict[str, Shape]:
        weight = (in_shape[0], self.filters // self.groups, *pair(self.kernel_size))
        return {"weight": weight} | ({"bias": (self.filters,)} if self.bias else {})

    def init_params(self, rng: np.random.Generator, in_shape: Shape) -> Params:
        shape = c, f, kh, kw = self.param_shapes(in_shape)["weight"]
        sh, sw = pair(self.stride)  # an output pixel lies under kh·kw / (sh·sw) positions of the kernel
        seen = max(1, c // self.groups * kh * kw // (sh * sw))
        weight = (self.init or HeNormal())(rng, shape, seen, f * kh * kw)
        return {"weight": weight} | ({"bias": np.zeros(self.filters)} if self.bias else {})

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, ConvResiduals]:
        windows = self.windows(x.shape[:3])
        y = ctx.empty("y", (self.filters, *windows.image, x.shape[3]), np.result_type(x, *params.values()))

        def epilogue(rows: slice) -> None:
            if self.bias:
                y[:, rows] += params["bias"].reshape(-1, 1, 1, 1)

        correlate_transposed(params["weight"], x, windows, self.groups, y, ctx, epilogue)
        return y, ConvResiduals(windows, x)

    def backward(self, params: Params, residuals: ConvResiduals, dy: Array, ctx: Context) -> tuple[Array, Params]:
        windows, x = residuals
        weight = params["weight"]
        dx = ctx.empty("dx", x.shape, dy.dtype)
        correlate(dy, weight, windows, self.groups, dx, ctx)
        grads = {"weight": correlate_weights(dy, x, weight, windows, self.groups, ctx)}
        if self.bias:
            grads["bias"] = dy.sum((1, 2, 3))
        return dx, grads

    def y_terms(self, at: LayerPass, index: Index) -> Terms:
        f, r, s, n = index
        windows, weight = at.residuals.windows, at.params["weight"]
        group, k = divmod(f, weight.shape[1])
        products = (
            Term(1, (Ref("weight", (c, k, i, j)), Ref(0, (c, p, q, n))))
            for c in range(group * len(weight) // self.groups, (group + 1) * len(weight) // self.groups)
            for i, j, p, q in windows.windows_on(r, s)
        )
        bias = (Term(1, (Ref("bias", (f,)),)),) if self.bias else ()
        return Terms(
            f"y[{f}, {r}, {s}] = {f'bias[{f}] + ' if self.bias else ''}"
            f"Σ weight[c, {k}, i, j] · x[c, {windows.window(0, r)}, {windows.window(1, s)}]",
            (*bias, *products),
            retold=f"each x[c, p, q] stamps x[c, p, q] · weight[c, {k}] on the output",
        )

    def dx_terms(self, at: LayerPass, k: int, index: Index) -> Terms:
        c, p, q, n = index
        windows: Windows = at.residuals.windows
        first = self._first_filter(c, at.params["weight"])
        products = tuple(
            Term(1, (Ref("weight", (c, f, i, j)), Ref(OUTPUT, (first + f, r, s, n), "gradient")))
            for f in range(self.filters // self.groups)
            for i, j, r, s in windows.pixels_of(p, q)
        )
        pixel = f"{spelled('f', 1, first)}, {windows.pixel(0, p)}, {windows.pixel(1, q)}"
        formula = f"dx[{c}, {p}, {q}] = Σ weight[{c}, f, i, j] · dy[{pixel}]"
        return Terms(formula, products, reason=None if products else "padding")

    def grad_terms(self, at: LayerPass, key: str, index: Index) -> Terms:
        if key == "bias":
            return bias_terms(at, index[0])
        c, f, i, j = index
        windows: Windows = at.residuals.windows
        filter_ = self._first_filter(c, at.params["weight"]) + f
        products = tuple(
            Term(1, (Ref(OUTPUT, (filter_, r, s, n), "gradient"), Ref(0, (c, p, q, n))))
            for n in at.images
            for p, q, r, s in windows.pixels_under(i, j)
        )
        patch = f"{filter_}, {windows.pixel(0, None, i)}, {windows.pixel(1, None, j)}"
        formula = f"dweight[{c}, {f}, {i}, {j}] = {over_images(at, 'Σ ')}dy[{patch}] · x[{c}, p, q]"
        return Terms(formula, products, reason=None if products else "padding")

    def _first_filter(self, c: int, weight: Array) -> int:
        """Return the first output channel that an input channel writes to."""
        return c // (len(weight) // self.groups) * weight.shape[1]

    def macs(self, in_shape: Shape) -> int:
        kh, kw = pair(self.kernel_size)
        c, h, w = in_shape
        return c * h * w * (self.filters // self.groups) * kh * kw

    def kernel(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
        return pair(self.kernel_size), pair(self.stride), pair(self.dilation)

    def memory(self, in_shape: Shape) -> int:
        return self.filters * prod(self.windows(in_shape).padded)

    def onnx(self, in_shape: Shape) -> list[OnnxOperator]:
        windows = self.windows(in_shape)
        smallest = (
            (size - 1) * s + k - before - after
            for size, s, k, before, after in zip(
                in_shape[1:], windows.stride, windows.effective_kernel, windows.before, windows.after, strict=True
            )
        )
        extra = tuple(size - least for size, least in zip(windows.image, smallest, strict=True))
        attributes = windows.onnx_attributes() | {"output_padding": extra}
        attributes |= {"group": self.groups} if self.groups > 1 else {}
        attributes |= {"dilations": windows.dilation} if windows.dilation != (1, 1) else {}
        return [OnnxOperator("ConvTranspose", ("x", "weight", *["bias"] * self.bias), attributes)]
