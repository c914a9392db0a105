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
        if layer.padding == "same":
            sizes.append(size * s)
            cuts.append(same_amounts(size * s, k, s)[0])
        else:
            cut = 0 if layer.padding == "valid" else two(layer.padding)[axis]
            sizes.append((size - 1) * s + k - 2 * cut + two(layer.output_padding)[axis])
            cuts.append(cut)
    y = np.zeros((layer.filters, *sizes, x.shape[3]))
    dx, dw, db = np.zeros(x.shape), np.zeros(w.shape), np.zeros(layer.filters)
    for p, q, i, j in product(*(range(size) for size in x.shape[1:3]), *(range(size) for size in w.shape[2:])):
        row, column = p * two(layer.stride)[0] + i - cuts[0], q * two(layer.stride)[1] + j - cuts[1]
        if not (0 <= row < sizes[0] and 0 <= column < sizes[1]):
            continue
        for c, f in product(range(x.shape[0]), range(layer.filters)):
            y[f, row, column] += w[c, f, i, j] * x[c, p, q]
            dx[c, p, q] += w[c, f, i, j] * dy[f, row, column]
            dw[c, f, i, j] += x[c, p, q] @ dy[f, row, column]
    if layer.bias:
        for f in range(layer.filters):
            y[f] += params["bias"][f]
            db[f] = dy[f].sum()
    return y, [dx], {"weight": dw} | ({"bias": db} if layer.bias else {})


def pool_views(layer: Any, x: Array) -> Iterator[tuple[int, int, list[tuple[int, int]], int]]:
    """Yield for each window its place, the pixels of the image in it, and its size with padding."""
    rows, columns = image_windows(layer, x, layer.pool_size, layer.stride or layer.pool_size, 1)
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


def gelu_slope(v: float) -> float:
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


def add(layer: Any, params: Params, xs: list[Array], dy: Array, ctx: Context) -> Answer:
    return np.array(sum(xs)), [dy for _ in xs], {}


def multiply(layer: Any, params: Params, xs: list[Array], dy: Array, ctx: Context) -> Answer:
    dxs = [dy * np.prod([xs[other] for other in range(len(xs)) if other != k], axis=0) for k in range(len(xs))]
    return np.prod(xs, axis=0), dxs, {}


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
    "gelu": elementwise(lambda _, v: v * sigmoid(gelu_argument(v)[0]), lambda _, v: gelu_slope(v)),
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
