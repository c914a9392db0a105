"""Every layer once more, by plain loops over pixels and textbook Jacobians: slow, and nothing shared with the layers.

Each function takes a layer's hyper-parameters, its parameters, inputs, the gradient at the output and
whether it is training, and returns the output, the gradients to the inputs, and those to the parameters.
Windows are found by enumeration, not by a formula.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np

from cnnbp_cli.core.rng import sample_words
from cnnbp_cli.core.types import Array, Context, Params

Answer = tuple[Array, list[Array], Params]
Naive = Callable[[Any, Params, list[Array], Array, Context], Answer]


def two(size: Any) -> tuple[Any, Any]:
    return size if isinstance(size, tuple) else (size, size)


def axis_windows(
    size: int, kernel: int, stride: int, before: int, after: int, dilation: int = 1
) -> list[list[int | None]]:
    """List every window along one axis as the positions it sees, None in the padding."""
    line = [None] * before + list(range(size)) + [None] * after
    reach = dilation * (kernel - 1) + 1
    return [line[start : start + reach : dilation] for start in range(0, len(line) - reach + 1, stride)]


def same_amounts(size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """Add pixels, the first of each two at the end, until there is a window for every `stride` pixels."""
    before = after = 0
    while len(axis_windows(size, kernel, stride, before, after, dilation)) < math.ceil(size / stride):
        before, after = (before, after + 1) if before == after else (before + 1, after)
    return before, after


def axis_padding(padding: Any, axis: int, size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    if padding == "valid":
        return 0, 0
    if padding == "same":
        return same_amounts(size, kernel, stride, dilation)
    if isinstance(padding, tuple) and len(padding) == 4:
        return padding[2 * axis], padding[2 * axis + 1]
    return two(padding)[axis], two(padding)[axis]


def image_windows(layer: Any, x: Array, kernel: Any, stride: Any, dilation: Any) -> list[list[list[int | None]]]:
    return [
        axis_windows(size, k, s, *axis_padding(layer.padding, axis, size, k, s, d), d)
        for axis, (size, k, s, d) in enumerate(zip(x.shape[1:3], two(kernel), two(stride), two(dilation), strict=True))
    ]


def conv2d(layer: Any, params: Params, xs: list[Array], dy: Array, ctx: Context) -> Answer:
    (x,), w = xs, params["weight"]
    rows, columns = image_windows(layer, x, layer.kernel_size, layer.stride, layer.dilation)
    y = np.zeros((layer.filters, len(rows), len(columns), x.shape[3]))
    dx, dw, db = np.zeros(x.shape), np.zeros(w.shape), np.zeros(layer.filters)
    per_group, seen = layer.filters // layer.groups, x.shape[0] // layer.groups
    for f, p, q in product(range(layer.filters), range(len(rows)), range(len(columns))):
        if layer.bias:
            y[f, p, q] += params["bias"][f]
            db[f] += dy[f, p, q].sum()
        for c, (i, row), (j, column) in product(range(seen), enumerate(rows[p]), enumerate(columns[q])):
            if row is not None and column is not None:
                channel = f // per_group * seen + c
                y[f, p, q] += w[f, c, i, j] * x[channel, row, column]
                dx[channel, row, column] += w[f, c, i, j] * dy[f, p, q]
                dw[f, c, i, j] += x[channel, row, column] @ dy[f, p, q]
    return y, [dx], {"weight": dw} | ({"bias": db} if layer.bias else {})


def conv_transpose2d(layer: Any, params: Params, xs: list[Array], dy: Array, ctx: Context) -> Answer:
    (x,), w = xs, params["weight"]
    sizes, cuts = [], []
    for axis in (0, 1):
        size, k, s = x.shape[1 + axis], two(layer.kernel_size)[axis], two(layer.stride)[axis]
        k = (k - 1) * two(layer.dilation)[axis] + 1
        if layer.padding == "same":
            sizes.append(size * s)
            cuts.append(same_amounts(size * s, k, s)[0])
        else:
            before, after = axis_padding(layer.padding, axis, size, k, s)
            sizes.append((size - 1) * s + k - before - after + two(layer.output_padding)[axis])
            cuts.append(before)
    y = np.zeros((layer.filters, *sizes, x.shape[3]))
    dx, dw, db = np.zeros(x.shape), np.zeros(w.shape), np.zeros(layer.filters)
    for p, q, i, j in product(*(range(size) for size in x.shape[1:3]), *(range(size) for size in w.shape[2:])):
        row = p * two(layer.stride)[0] + i * two(layer.dilation)[0] - cuts[0]
        column = q * two(layer.stride)[1] + j * two(layer.dilation)[1] - cuts[1]
        if not (0 <= row < sizes[0] and 0 <= column < sizes[1]):
            continue
        for c, k in product(range(x.shape[0]), range(w.shape[1])):
            f = c * layer.groups // x.shape[0] * w.shape[1] + k
            y[f, row, column] += w[c, k, i, j] * x[c, p, q]
            dx[c, p, q] += w[c, k, i, j] * dy[f, row, column]
            dw[c, k, i, j] += x[c, p, q] @ dy[f, row, column]
    if layer.bias:
        for f in range(layer.filters):
            y[f] += params["bias"][f]
            db[f] = dy[f].sum()
    return y, [dx], {"weight": dw} | ({"bias": db} if layer.bias else {})


def cut_off(layer: Any, size: int, axis: int) -> list[list[int | None]]:
    """List the windows of a pool along an axis; with `ceil_mode` they may be cut off at the end, but not be empty."""
    k, s = two(layer.pool_size)[axis], two(layer.stride or layer.pool_size)[axis]
    before, after = axis_padding(layer.padding, axis, size, k, s)
    if not layer.ceil_mode:
        return axis_windows(size, k, s, before, after)
    line = [None] * before + list(range(size)) + [None] * after
    windows: list[list[int | None]] = []
    for start in range(0, before + size, s):  # a window starts on the image or on the padding before it
        windows.append(line[start : start + k])
        if start + k >= len(line):
            break
    return windows


def pool_views(layer: Any, x: Array) -> Iterator[tuple[int, int, list[tuple[int, int]], int]]:
    """Yield for each window its place, the pixels of the image in it, and its size with padding."""
    rows, columns = (cut_off(layer, size, axis) for axis, size in enumerate(x.shape[1:3]))
    for (p, some_rows), (q, some_columns) in product(enumerate(rows), enumerate(columns)):
        pixels = [(i, j) for i in some_rows for j in some_columns if i is not None and j is not None]
        yield p, q, pixels, len(some_rows) * len(some_columns)


def max_pool2d(layer: Any, params: Params, xs: list[Array], dy: Array, ctx: Context) -> Answer:
    (x,) = xs
    y, dx = np.zeros(dy.shape), np.zeros(x.shape)
    for p, q, pixels, _ in pool_views(layer, x):
        for c, n in product(range(x.shape[0]), range(x.shape[3])):
            winner = pixels[0]
            for pixel in pixels:
                if x[c, *pixel, n] > x[c, *winner, n]:
                    winner = pixel
            y[c, p, q, n] = x[c, *winner, n]
            dx[c, *winner, n] += dy[c, p, q, n]
    return y, [dx], {}


def avg_pool2d(layer: Any, params: Params, xs: list[Array], dy: Array, ctx: Context) -> Answer:
    (x,) = xs
    y, dx = np.zeros(dy.shape), np.zeros(x.shape)
    for p, q, pixels, size in pool_views(layer, x):
        share = 1 / (size if layer.count_include_pad else len(pixels))
        for i, j in pixels:
            y[:, p, q] += share * x[:, i, j]
            dx[:, i, j] += share * dy[:, p, q]
    return y, [dx], {}


def global_avg_pool2d(layer: Any, params: Params, xs: list[Array], dy: Array, ctx: Context) -> Answer:
    h, w = xs[0].shape[1:3]
    share = np.full((h, w), 1 / (h * w))
    return np.einsum("chwn,hw->cn", xs[0], share), [np.einsum("cn,hw->chwn", dy, share)], {}


def global_max_pool2d(layer: Any, params: Params, xs: list[Array], dy: Array, ctx: Context) -> Answer:
    (x,) = xs
    y, dx = np.zeros(dy.shape), np.zeros(x.shape)
    for c, n in product(range(x.shape[0]), range(x.shape[3])):
        values = [(x[c, i, j, n], (i, j)) for i, j in np.ndindex(x.shape[1:3])]
        y[c, n], winner = max(values, key=lambda value: value[0])  # Python's max keeps the first of equals
        dx[c, *winner, n] = dy[c, n]
    return y, [dx], {}


def adaptive_avg_pool2d(layer: Any, params: Params, xs: list[Array], dy: Array, ctx: Context) -> Answer:
    (x,) = xs
    y, dx = np.zeros(dy.shape), np.zeros(x.shape)
    (h, w), (oh, ow) = x.shape[1:3], dy.shape[1:3]
    for p, q in product(range(oh), range(ow)):
        rows = range(math.floor(p * h / oh), math.ceil((p + 1) * h / oh))
        columns = range(math.floor(q * w / ow), math.ceil((q + 1) * w / ow))
        for r, s in product(rows, columns):
            y[:, p, q] += x[:, r, s] / (len(rows) * len(columns))
            dx[:, r, s] += dy[:, p, q] / (len(rows) * len(columns))
    return y, [dx], {}


def shares(layer: Any, k: int, size: int, out: int) -> list[tuple[int, float]]:
    """List the pixels that the k-th of `out` looks at along an axis of an enlarged image, each with its share."""
    if layer.mode == "nearest":
        return [(math.floor(k * size / out), 1.0)]
    if layer.align_corners:
        place = k * (size - 1) / (out - 1) if out > 1 else 0.0
    else:
        place = (k + 0.5) * size / out - 0.5
    place = min(max(place, 0.0), size - 1.0)
    low = math.floor(place)
    return [(low, 1 - (place - low)), *([(low + 1, place - low)] if low + 1 < size else [])]


def upsample(layer: Any, params: Params, xs: list[Array], dy: Array, ctx: Context) -> Answer:
    (x,) = xs
    y, dx = np.zeros(dy.shape), np.zeros(x.shape)
    for p, q in np.ndindex(dy.shape[1:3]):
        for r, a in shares(layer, p, x.shape[1], dy.shape[1]):
            for s, b in shares(layer, q, x.shape[2], dy.shape[2]):
                y[:, p, q] += a * b * x[:, r, s]
                dx[:, r, s] += a * b * dy[:, p, q]
    return y, [dx], {}


def mirrored(k: int, size: int) -> int:
    """Walk |k| steps from the first pixel, turning round at either end."""
    place, step = 0, 1
    for _ in range(abs(k)):
        step = -step if not 0 <= place + step < size else step
        place += step
    return place


def pad(layer: Any, params: Params, xs: list[Array], dy: Array, ctx: Context) -> Answer:
    (x,) = xs
    y, dx = np.full(dy.shape, layer.value), np.zeros(x.shape)
    (top, _), (left, _) = (axis_padding(layer.padding, axis, 0, 0, 0) for axis in (0, 1))
    for p, q in np.ndindex(dy.shape[1:3]):
        place = [p - top, q - left]
        if layer.mode == "constant" and not all(0 <= k < size for k, size in zip(place, x.shape[1:3], strict=True)):
            continue
        if layer.mode == "replicate":
            place = [min(max(k, 0), size - 1) for k, size in zip(place, x.shape[1:3], strict=True)]
        if layer.mode == "reflect":
            place = [mirrored(k, size) for k, size in zip(place, x.shape[1:3], strict=True)]
        y[:, p, q] = x[:, *place]
        dx[:, *place] += dy[:, p, q]
    return y, [dx], {}


def crop(layer: Any, params: Params, xs: list[Array], dy: Array, ctx: Context) -> Answer:
    (x,) = xs
    y, dx = np.zeros(dy.shape), np.zeros(x.shape)
    (top, _), (left, _) = (axis_padding(layer.cropping, axis, 0, 0, 0) for axis in (0, 1))
    for p, q in np.ndindex(dy.shape[1:3]):
        y[:, p, q] = x[:, p + top, q + left]
        dx[:, p + top, q + left] = dy[:, p, q]
    return y, [dx], {}


def pixel_shuffle(layer: Any, params: Params, xs: list[Array], dy: Array, ctx: Context) -> Answer:
    (x,), r = xs, layer.factor
    y, dx = np.zeros(dy.shape), np.zeros(x.shape)
    for c, p, q, i, j in product(*map(range, (dy.shape[0], *x.shape[1:3], r, r))):
        y[c, p * r + i, q * r + j] = x[c * r * r + i * r + j, p, q]
        dx[c * r * r + i * r + j, p, q] = dy[c, p * r + i, q * r + j]
    return y, [dx], {}


def slice_channels(layer: Any, params: Params, xs: list[Array], dy: Array, ctx: Context) -> Answer:
    (x,) = xs
    y, dx = np.zeros(dy.shape), np.zeros(x.shape)
    for c in range(len(dy)):
        y[c] = x[layer.start + c]
        dx[layer.start + c] = dy[c]
    return y, [dx], {}


def channel_shuffle(layer: Any, params: Params, xs: list[Array], dy: Array, ctx: Context) -> Answer:
    (x,), each = xs, len(xs[0]) // layer.groups
    y, dx = np.zeros(x.shape), np.zeros(x.shape)
    for group, k in product(range(layer.groups), range(each)):
        y[k * layer.groups + group] = x[group * each + k]
        dx[group * each + k] = dy[k * layer.groups + group]
    return y, [dx], {}


def local_response_norm(layer: Any, params: Params, xs: list[Array], dy: Array, ctx: Context) -> Answer:
    """By the Jacobian, ∂y_c/∂x_j = [c = j] · s_c^−β − 2αβ/size · x_c · x_j · s_c^−(β+1) for j beside c."""
    (x,) = xs
    y, dx = np.zeros(x.shape), np.zeros(x.shape)
    for place in np.ndindex(x.shape[1:]):
        values = x[:, *place]
        beside = [[j for j in range(len(values)) if abs(j - c) <= layer.size // 2] for c in range(len(values))]
        for c, near in enumerate(beside):
            s = layer.k + layer.alpha * math.fsum(values[j] ** 2 for j in near) / layer.size
            y[c, *place] = values[c] / s**layer.beta
            dx[c, *place] += dy[c, *place] / s**layer.beta
            for j in near:
                slope = 2 * layer.alpha * layer.beta / layer.size * values[c] * values[j] / s ** (layer.beta + 1)
                dx[j, *place] -= slope * dy[c, *place]
    return y, [dx], {}


def prelu(layer: Any, params: Params, xs: list[Array], dy: Array, ctx: Context) -> Answer:
    (x,) = xs
    y, dx, dw = np.zeros(x.shape), np.zeros(x.shape), np.zeros(params["weight"].shape)
    for place in np.ndindex(x.shape):
        k = place[0] if len(dw) > 1 else 0
        slope = 1.0 if x[place] > 0 else params["weight"][k]
        y[place], dx[place] = slope * x[place], slope * dy[place]
        dw[k] += 0 if x[place] > 0 else dy[place] * x[place]
    return y, [dx], {"weight": dw}


def flatten(layer: Any, params: Params, xs: list[Array], dy: Array, ctx: Context) -> Answer:
    (x,) = xs
    places = list(np.ndindex(x.shape[:-1]))
    dx = np.zeros(x.shape)
    for k, place in enumerate(places):
        dx[place] = dy[k]
    return np.array([x[place] for place in places]), [dx], {}


def dense(layer: Any, params: Params, xs: list[Array], dy: Array, ctx: Context) -> Answer:
    (x,), w = xs, params["weight"]
    y = np.einsum("uf,fn->un", w, x)
    grads = {"weight": np.einsum("un,fn->uf", dy, x)}
    if layer.bias:
        y = y + np.einsum("u,n->un", params["bias"], np.ones(x.shape[1]))
        grads["bias"] = np.einsum("un->u", dy)
    return y, [np.einsum("uf,un->fn", w, dy)], grads


def standardized(values: Array, dvalues: Array, epsilon: float) -> tuple[Array, Array]:
    """Standardise one list of numbers, and take a gradient back through it by its Jacobian, written out.

    ∂x̂_i/∂x_j = ([i = j] - 1/m) / sd - x̂_i x̂_j / (m · sd)
    """
    m = len(values)
    mean = math.fsum(values) / m
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / m + epsilon)
    xhat = np.array([(value - mean) / sd for value in values])
    jacobian = (np.eye(m) - 1 / m) / sd - np.outer(xhat, xhat) / (m * sd)
    return xhat, jacobian.T @ dvalues


def normalized(
    layer: Any, params: Params, x: Array, dy: Array, parts: list[Any], weights: tuple[Array, Array] | None
) -> Answer:
    """Standardise each of the `parts` of x by itself; `weights` are weight and bias spread out to x's shape."""
    weight, bias = weights if weights is not None else (np.ones(x.shape), np.zeros(x.shape))
    xhat, dx = np.zeros(x.shape), np.zeros(x.shape)
    for part in parts:
        one_xhat, one_dx = standardized(x[part].ravel(), (weight * dy)[part].ravel(), layer.epsilon)
        xhat[part], dx[part] = one_xhat.reshape(x[part].shape), one_dx.reshape(x[part].shape)
    return weight * xhat + bias, [dx], {"xhat": xhat}


def per_channel(params: Params, x: Array) -> tuple[Array, Array] | None:
    if "weight" not in params:
        return None
    weight, bias = np.zeros(x.shape), np.zeros(x.shape)
    for c in range(x.shape[0]):
        weight[c], bias[c] = params["weight"][c], params["bias"][c]
    return weight, bias


def channel_grads(params: Params, xhat: Array, dy: Array) -> Params:
    if "weight" not in params:
        return {}
    return {
        "weight": np.array([(xhat[c] * dy[c]).sum() for c in range(len(dy))]),
        "bias": np.array([dy[c].sum() for c in range(len(dy))]),
    }


def batch_norm(layer: Any, params: Params, xs: list[Array], dy: Array, ctx: Context) -> Answer:
    (x,) = xs
    weights = per_channel(params, x)
    if ctx.training:
        y, dxs, extra = normalized(layer, params, x, dy, list(range(x.shape[0])), weights)
        return y, dxs, channel_grads(params, extra["xhat"], dy)
    weight, bias = weights if weights is not None else (np.ones(x.shape), np.zeros(x.shape))
    xhat, dx = np.zeros(x.shape), np.zeros(x.shape)
    for c in range(x.shape[0]):
        sd = math.sqrt(params["running_var"][c] + layer.epsilon)
        xhat[c] = (x[c] - params["running_mean"][c]) / sd
        dx[c] = weight[c] * dy[c] / sd
    return weight * xhat + bias, [dx], channel_grads(params, xhat, dy)


def layer_norm(layer: Any, params: Params, xs: list[Array], dy: Array, ctx: Context) -> Answer:
    (x,) = xs
    weights, n = None, x.shape[-1]
    if layer.over == "channels":
        parts = [(slice(None), *place) for place in np.ndindex(x.shape[1:])]
        y, dxs, extra = normalized(layer, params, x, dy, parts, per_channel(params, x))
        return y, dxs, channel_grads(params, extra["xhat"], dy)
    if layer.affine:
        weights = np.stack([params["weight"]] * n, -1), np.stack([params["bias"]] * n, -1)
    y, dxs, extra = normalized(layer, params, x, dy, [(..., k) for k in range(n)], weights)
    if not layer.affine:
        return y, dxs, {}
    dw = sum(extra["xhat"][..., k] * dy[..., k] for k in range(n))
    return y, dxs, {"weight": dw, "bias": sum(dy[..., k] for k in range(n))}


def group_norm(layer: Any, params: Params, xs: list[Array], dy: Array, ctx: Context) -> Answer:
    (x,) = xs
    size = x.shape[0] // layer.groups
    parts = [(slice(g * size, (g + 1) * size), ..., k) for g, k in product(range(layer.groups), range(x.shape[-1]))]
    y, dxs, extra = normalized(layer, params, x, dy, parts, per_channel(params, x))
    return y, dxs, channel_grads(params, extra["xhat"], dy)


def dropout(layer: Any, params: Params, xs: list[Array], dy: Array, ctx: Context) -> Answer:
    (x,) = xs
    if not ctx.training:
        return x, [dy], {}
    y, dx = np.zeros(x.shape), np.zeros(x.shape)
    units = list(np.ndindex(x.shape[:-1]))
    for k in range(x.shape[-1]):
        words = sample_words(
            ctx.seed, "dropout", ctx.node, ctx.step, start=ctx.first_sample + k, count=1, size=len(units)
        )
        for unit, word in zip(units, words[0], strict=True):
            if int(word) >= round(layer.rate * 2 ** (8 * words.itemsize)):
                y[*unit, k] = x[*unit, k] / (1 - layer.rate)
                dx[*unit, k] = dy[*unit, k] / (1 - layer.rate)
    return y, [dx], {}


def sigmoid(v: float) -> float:
    return (1 + math.tanh(v / 2)) / 2


def sigmoid_slope(v: float) -> float:
    return 1 / (4 * math.cosh(v / 2) ** 2)


def gelu_argument(v: float) -> tuple[float, float]:
    """Return 2u and its slope: the tanh form of GELU is x · sigmoid(2u)."""
    scale = math.sqrt(8 / math.pi)
    return scale * (v + 0.044715 * v**3), scale * (1 + 0.134145 * v**2)


def gelu(layer: Any, v: float) -> float:
    if layer.approximate == "none":
        return v * math.erfc(-v / math.sqrt(2)) / 2
    return v * sigmoid(gelu_argument(v)[0])


def gelu_slope(layer: Any, v: float) -> float:
    if layer.approximate == "none":
        return math.erfc(-v / math.sqrt(2)) / 2 + v * math.exp(-v * v / 2) / math.sqrt(2 * math.pi)
    argument, slope = gelu_argument(v)
    return sigmoid(argument) + v * slope * sigmoid_slope(argument)


Scalar = Callable[[Any, float], float]


def elementwise(value: Scalar, slope: Scalar) -> Naive:
    """Apply a function of one number, and its derivative, to every number."""

    def naive(layer: Any, params: Params, xs: list[Array], dy: Array, ctx: Context) -> Answer:
        y, dx = np.zeros(dy.shape), np.zeros(dy.shape)
        for place in np.ndindex(dy.shape):
            y[place] = value(layer, float(xs[0][place]))
            dx[place] = dy[place] * slope(layer, float(xs[0][place]))
        return y, [dx], {}

    return naive


def softmax(layer: Any, params: Params, xs: list[Array], dy: Array, ctx: Context) -> Answer:
    (x,) = xs
    y, dx = np.zeros(x.shape), np.zeros(x.shape)
    for place in np.ndindex(x.shape[1:]):
        powers = [math.exp(v) for v in x[:, *place]]
        p = np.array([power / math.fsum(powers) for power in powers])
        y[:, *place] = p
        dx[:, *place] = (np.diag(p) - np.outer(p, p)).T @ dy[:, *place]
    return y, [dx], {}


def cell_read(x: Array, place: tuple[int, ...]) -> tuple[int, ...]:
    """Return the cell of an input that a place of the output (…, n) reads: the only one along an axis, or its own."""
    *cell, n = place
    return (*(0 if size == 1 else k for size, k in zip(x.shape[:-1], cell, strict=False)), n)


def add(layer: Any, params: Params, xs: list[Array], dy: Array, ctx: Context) -> Answer:
    y, dxs = np.zeros(dy.shape), [np.zeros(x.shape) for x in xs]
    for place in np.ndindex(dy.shape):
        for x, dx in zip(xs, dxs, strict=True):
            y[place] += x[cell_read(x, place)]
            dx[cell_read(x, place)] += dy[place]
    return y, dxs, {}


def multiply(layer: Any, params: Params, xs: list[Array], dy: Array, ctx: Context) -> Answer:
    y, dxs = np.zeros(dy.shape), [np.zeros(x.shape) for x in xs]
    for place in np.ndindex(dy.shape):
        factors = [float(x[cell_read(x, place)]) for x in xs]
        y[place] = math.prod(factors)
        for k, (x, dx) in enumerate(zip(xs, dxs, strict=True)):
            dx[cell_read(x, place)] += dy[place] * math.prod(factors[:k] + factors[k + 1 :])
    return y, dxs, {}


def concat(layer: Any, params: Params, xs: list[Array], dy: Array, ctx: Context) -> Answer:
    rows = iter(dy)
    return np.array([row for x in xs for row in x]), [np.array([next(rows) for _ in x]) for x in xs], {}


NAIVE: dict[str, Naive] = {
    "conv2d": conv2d,
    "conv_transpose2d": conv_transpose2d,
    "max_pool2d": max_pool2d,
    "avg_pool2d": avg_pool2d,
    "global_avg_pool2d": global_avg_pool2d,
    "global_max_pool2d": global_max_pool2d,
    "flatten": flatten,
    "dense": dense,
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "group_norm": group_norm,
    "dropout": dropout,
    "relu": elementwise(lambda _, v: max(v, 0.0), lambda _, v: float(v > 0)),
    "leaky_relu": elementwise(
        lambda layer, v: v if v > 0 else layer.slope * v, lambda layer, v: 1.0 if v > 0 else layer.slope
    ),
    "elu": elementwise(
        lambda layer, v: v if v > 0 else layer.alpha * (math.exp(v) - 1),
        lambda layer, v: 1.0 if v > 0 else layer.alpha * math.exp(v),
    ),
    "gelu": elementwise(gelu, gelu_slope),
    "relu6": elementwise(lambda _, v: min(max(v, 0.0), 6.0), lambda _, v: float(0 < v < 6)),
    "hard_sigmoid": elementwise(lambda _, v: min(max(v / 6 + 0.5, 0.0), 1.0), lambda _, v: (-3 < v < 3) / 6),
    "hard_swish": elementwise(
        lambda _, v: v * min(max(v / 6 + 0.5, 0.0), 1.0),
        lambda _, v: 0.0 if v <= -3 else 1.0 if v >= 3 else v / 3 + 0.5,
    ),
    "prelu": prelu,
    "adaptive_avg_pool2d": adaptive_avg_pool2d,
    "upsample": upsample,
    "pad": pad,
    "crop": crop,
    "pixel_shuffle": pixel_shuffle,
    "slice_channels": slice_channels,
    "channel_shuffle": channel_shuffle,
    "local_response_norm": local_response_norm,
    "silu": elementwise(lambda _, v: v * sigmoid(v), lambda _, v: sigmoid(v) + v * sigmoid_slope(v)),
    "sigmoid": elementwise(lambda _, v: sigmoid(v), lambda _, v: sigmoid_slope(v)),
    "tanh": elementwise(lambda _, v: math.tanh(v), lambda _, v: 1 / math.cosh(v) ** 2),
    "softplus": elementwise(lambda _, v: math.log(1 + math.exp(v)), lambda _, v: sigmoid(v)),
    "softmax": softmax,
    "identity": elementwise(lambda _, v: v, lambda _, v: 1.0),
    "add": add,
    "multiply": multiply,
    "concat": concat,
}
