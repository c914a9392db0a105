"""Normalization: subtract a mean and divide by a standard deviation, taken over the batch or over a sample.

All three layers have one pair of formulas and differ only in what `mean` averages over:

    x̂ = (x - mean(x)) · r,  r = 1 / √(mean((x - mean(x))²) + epsilon),  y = weight · x̂ + bias
    dx = r · (dx̂ - mean(dx̂) - x̂ · mean(dx̂ · x̂))  with dx̂ = weight · dy

Layer and group norm share the code, too. Batch norm has its own: its means span workers, and its channels
are taken a few at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import ClassVar, Literal, NamedTuple

import numpy as np

from cnnbp_cli.core.epilogue import backward_epilogue, forward_epilogue
from cnnbp_cli.core.layers.norm_terms import NormalizedCell, affine_terms
from cnnbp_cli.core.layers.registry import register
from cnnbp_cli.core.rows import blocks, broadcast_to_row, by_row, sum_rows
from cnnbp_cli.core.terms import Index, LayerPass, Ref, Terms
from cnnbp_cli.core.traits import OnnxOperator
from cnnbp_cli.core.types import Array, Context, Layer, Params, Shape, ShapeError, at_least, require, within

Mean = Callable[[Array], Array]


class Standardized(NamedTuple):
    xhat: Array
    r: Array  # 1 / standard deviation


def standardize(x: Array, mean: Mean, epsilon: float) -> Standardized:
    """Return x with mean zero and variance one; `mean` keeps its axes, and may be complex (no modulus)."""
    centered = x - mean(x)
    variance = mean(centered * centered)
    r = 1 / np.sqrt(variance + epsilon)
    centered *= r
    return Standardized(centered, r)


def standardize_backward(dxhat: Array, s: Standardized, mean: Mean) -> Array:
    """Return dx from the gradient to x̂: the mean and the variance depend on x, too."""
    return s.r * (dxhat - mean(dxhat) - s.xhat * mean(dxhat * s.xhat))


def affine(params: Params, xhat: Array, axes: tuple[int, ...]) -> Array:
    """Return weight · x̂ + bias, with both expanded along `axes`; x̂ itself when there is no weight."""
    if "weight" not in params:
        return xhat
    return np.expand_dims(params["weight"], axes) * xhat + np.expand_dims(params["bias"], axes)


def affine_backward(params: Params, xhat: Array, dy: Array, axes: tuple[int, ...]) -> tuple[Array, Params]:
    """Return the gradient to x̂ and those to weight and bias, which are summed over `axes`."""
    if "weight" not in params:
        return dy, {}
    grads = {"weight": (dy * xhat).sum(axes), "bias": dy.sum(axes)}
    return dy * np.expand_dims(params["weight"], axes), grads


def unit_affine(shapes: dict[str, Shape]) -> Params:
    """Return a weight of ones and a bias of zeros; nothing where there are no shapes for them."""
    return {"weight": np.ones(shapes["weight"]), "bias": np.zeros(shapes["bias"])} if shapes else {}


def onnx_affine(learned: bool, shape: Shape) -> tuple[str | Array, str | Array]:
    """Return the weight and bias of an ONNX operator, or what stands for them in a layer that has none."""
    return ("weight", "bias") if learned else (np.ones(shape), np.zeros(shape))


class BatchNormResiduals(NamedTuple):
    rows: Array  # the input by rows of the image: (h, c, w·n); (1, c, n) of vectors
    mean: Array  # (c, 1)
    variance: Array  # (c, 1), divided by the count (not by the count less one)
    r: Array  # (c, 1), 1 / √(variance + epsilon)
    values: int | None  # per channel over all workers; None in evaluation mode


@register
@dataclass(frozen=True, slots=True)
class BatchNorm(Layer[BatchNormResiduals]):
    """Normalize each channel (or feature) over the batch; in evaluation, by running statistics.

    In training, `running = momentum · running + (1 - momentum) · batch`, with the unbiased variance.
    The mean is taken over all workers' slices of the batch. Parameters are `weight` and `bias` (c,);
    the state is `running_mean` and `running_var` (c,).

    References
    ----------
    Ioffe & Szegedy 2015, arXiv:1502.03167, algorithm 1.
    """

    momentum: float = 0.9
    """The share of the running statistics that a step keeps (PyTorch's momentum is 1 minus this)."""
    epsilon: float = 1e-5
    """Added to the variance."""
    affine: bool = True
    """Learn a factor and an offset."""
    type: Literal["batch_norm"] = "batch_norm"
    state: ClassVar[tuple[str, ...]] = ("running_mean", "running_var")
    is_linear = True
    applies_relu = True
    masks_relu = True
    applies_sum = True
    adds_gradient = True
    normalizes = True
    mixes_samples = True

    def __post_init__(self) -> None:
        require(within(self, 0, 1, "momentum"), within(self, 0, np.inf, "epsilon", open_low=True))

    def param_shapes(self, in_shape: Shape) -> dict[str, Shape]:
        names = ("weight", "bias", *self.state) if self.affine else self.state
        return dict.fromkeys(names, in_shape[:1])

    def init_params(self, rng: np.random.Generator, in_shape: Shape) -> Params:
        starts_at_one = ("weight", "running_var")
        return {
            name: np.full(shape, 1.0 if name in starts_at_one else 0.0)
            for name, shape in self.param_shapes(in_shape).items()
        }

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, BatchNormResiduals]:
        rows, values = by_row(x), None
        if ctx.training:
            mean, variance, values = self._statistics(rows, ctx)
        else:
            mean, variance = (params[name][:, None] for name in self.state)
        r = 1 / np.sqrt(variance + self.epsilon)
        scale = r * params["weight"][:, None] if self.affine else r
        y = ctx.empty("y", x.shape, np.result_type(x, *params.values()))
        y_rows = by_row(y)
        near = _near(mean, variance)
        bias = params["bias"][:, None] if self.affine else np.zeros_like(scale)
        means, scales = broadcast_to_row("mean", mean, y_rows, ctx), broadcast_to_row("scale", scale, y_rows, ctx)
        offset = bias - mean * scale if near else bias if self.affine else None
        finish = forward_epilogue(y_rows, offset, ctx)
        for some in blocks(rows):
            if near:  # y = x · scale + (bias - mean · scale)
                np.multiply(rows[some], scales[some[1]], out=y_rows[some])
            else:  # y = (x - mean) · scale + bias
                y_block = np.subtract(rows[some], means[some[1]], out=y_rows[some])
                y_block *= scales[some[1]]
            finish(some)
        return y, BatchNormResiduals(rows, mean, variance, r, values)

    def backward(self, params: Params, residuals: BatchNormResiduals, dy: Array, ctx: Context) -> tuple[Array, Params]:
        rows, mean, variance, r, values = residuals
        dy_rows = by_row(dy)
        near = _near(mean, variance)
        parts = np.empty((2, *rows.shape[:2], 1), dy.dtype)  # Σ dy and Σ dy · x̂ of each channel in each row
        means = broadcast_to_row("mean", mean, rows, ctx)
        for some in blocks(rows):
            dy_block, x_block = dy_rows[some], rows[some]
            parts[0, *some, 0] = sum_rows(dy_block)
            if not near:
                x_block = np.subtract(x_block, means[some[1]], out=ctx.scratch("centered", x_block.shape, rows.dtype))
            parts[1, *some, 0] = _dots(x_block, dy_block)
        if near:  # Σ dy · (x - mean) = Σ dy · x - mean · Σ dy
            parts[1] -= mean * parts[0]
        parts[1] *= r
        sums = parts.sum(1)  # (2, c, 1)
        grads = {"weight": sums[1, :, 0], "bias": sums[0, :, 0]} if self.affine else {}
        scale = r * params["weight"][:, None] if self.affine else r
        dx = ctx.over(dy)
        dx_rows = by_row(dx)
        finish = backward_epilogue(dx_rows, rows, ctx)
        scales = broadcast_to_row("scale", scale, dx_rows, ctx)
        if values is None:
            for some in blocks(rows):
                np.multiply(dy_rows[some], scales[some[1]], out=dx_rows[some])
                finish(some)
            return dx, grads
        mean_dy, mean_dy_xhat = ctx.workers.all_reduce(sums) / values
        slope = r * mean_dy_xhat
        slopes = broadcast_to_row("slope", slope, dx_rows, ctx)
        offsets = broadcast_to_row("offset", mean_dy - mean * slope if near else mean_dy, dx_rows, ctx)
        for some in blocks(rows):
            # dx = scale · (dy - mean(dy) - (x - mean) · slope) with scale = r · weight, slope = r · mean(dy · x̂);
            # near: scale · (dy - x · slope - (mean(dy) - mean · slope))
            x_block, part = rows[some], ctx.scratch("centered", rows[some].shape, dx.dtype)
            if not near:
                x_block = np.subtract(x_block, means[some[1]], out=part)
            np.multiply(x_block, slopes[some[1]], out=part)
            dx_block = np.subtract(dy_rows[some], part, out=dx_rows[some])
            dx_block -= offsets[some[1]]
            dx_block *= scales[some[1]]
            finish(some)
        return dx, grads

    def next_state(self, params: Params, residuals: BatchNormResiduals) -> Params:
        _, mean, variance, _, values = residuals
        if values is None:
            return {}
        unbiased = variance[:, 0] * (values / max(values - 1, 1))
        keep = self.momentum
        return {
            "running_mean": keep * params["running_mean"] + (1 - keep) * mean[:, 0],
            "running_var": keep * params["running_var"] + (1 - keep) * unbiased,
        }

    def y_terms(self, at: LayerPass, index: Index) -> Terms:
        kept = () if at.residuals.values else tuple(Ref(name, index[:1]) for name in self.state)
        return self._cell(at, index).y_terms(at, kept)

    def dx_terms(self, at: LayerPass, k: int, index: Index) -> Terms:
        return self._cell(at, index).dx_terms(at)

    def grad_terms(self, at: LayerPass, key: str, index: Index) -> Terms:
        places = list(product(*map(range, at.x.shape[1:])))
        one = self._cell(at, (*index, *places[0]))
        return affine_terms(at, key, (replace(one, index=(*index, *place)) for place in places))

    def _cell(self, at: LayerPass, index: Index) -> NormalizedCell:
        c = index[0]
        axes = (range(c, c + 1), *map(range, at.x.shape[1:])) if at.residuals.values else ()
        mean, r = float(at.residuals.mean[c, 0]), float(at.residuals.r[c, 0])
        return NormalizedCell(index, axes, mean, r, lambda cell: cell[:1])

    @staticmethod
    def _statistics(rows: Array, ctx: Context) -> tuple[Array, Array, int]:
        """Return mean and variance (c, 1) over all workers of rows (h, c, m), and the number of values per channel.

        Each row of each channel has a mean and a sum of squares about it, so that it is read once; those of a worker's
        rows are put together, and then those of all workers, so that they have to meet only once.
        """
        h, c, m = rows.shape
        means = np.zeros((h, c), np.result_type(rows, np.float64))
        squares = np.zeros_like(means)
        for some in blocks(rows):
            block = rows[some]
            means[some] = mean = sum_rows(block) / max(1, m)
            squares[some] = square = _dots(block, block) - m * mean * mean
            if not _near(mean, square / max(1, m)):  # what is left of the squares would be rounding
                means[some] = mean = block.sum(2) / max(1, m)
                centered = np.subtract(block, mean[:, :, None], out=ctx.scratch("centered", block.shape, rows.dtype))
                squares[some] = _dots(centered, centered)
        workers = np.zeros((ctx.workers.size, 2 * c + 1), means.dtype)
        workers[ctx.workers.rank] = np.concatenate([*_together(means, squares, np.full((h, 1), m)), [h * m]])
        workers = ctx.workers.all_reduce(workers)
        counts = workers[:, -1:]
        mean, squares = _together(workers[:, :c], workers[:, c:-1], counts)
        variance, values = squares / counts.sum(), int(counts.sum().real)
        return mean[:, None].astype(rows.dtype), variance[:, None].astype(rows.dtype), values

    def onnx(self, in_shape: Shape) -> list[OnnxOperator]:
        inputs = ("x", *onnx_affine(self.affine, in_shape[:1]), *self.state)
        return [OnnxOperator("BatchNormalization", inputs, {"epsilon": self.epsilon})]


def _together(means: Array, squares: Array, counts: Array) -> tuple[Array, Array]:
    """Return mean and Σ (x - mean)² (c,) of parts with their own means and squares (k, c) and counts (k, 1).

    References
    ----------
    Chan, Golub & LeVeque 1983, *Algorithms for computing the sample variance*: no large numbers cancel.
    """
    mean = (counts * means).sum(0) / np.maximum(counts.sum().real, 1)
    off = means - mean
    return mean, (squares + counts * (off * off)).sum(0)


def _dots(a: Array, b: Array) -> Array:
    """Return Σ_m a · b of a and b (h, c, m) as (h, c): as products of matrices, in half the time of `einsum`."""
    return (a[:, :, None, :] @ b[:, :, :, None])[:, :, 0, 0]


NEAR = 16.0
"""How many times the variance the square of a mean may be to count as near 0."""


def _near(mean: Array, variance: Array) -> bool:
    """Return whether x - mean may be multiplied out: no mean is far from 0, compared with the deviations from it.

    Then a · x - a · mean is as exact as a · (x - mean) but for a factor √`NEAR`, and Σ x² - m · mean² as
    Σ (x - mean)² but for a factor `NEAR`, which float32 can spare; the sums take a pass less over a block in the cache.
    Where a channel is constant there is no such room, but for a channel of zeros. On a block in the cache of one
    core, ns for each value: sums 0.15 instead of 0.47, forward 0.31 instead of 0.40, backward 0.59 instead of 0.92.
    """
    if np.iscomplexobj(mean):  # an imaginary part of 1e-20 has no share in such a bound
        return False
    return bool((mean * mean <= NEAR * variance).all())


@register
@dataclass(frozen=True, slots=True)
class LayerNorm(Layer[Standardized]):
    """Normalize each sample over all its values, or the channels of each pixel by themselves.

    Parameters are `weight` and `bias` of the sample's shape, or (c,) with `over: channels`.

    References
    ----------
    Ba, Kiros & Hinton 2016, arXiv:1607.06450; over channels as in Liu et al. 2022, *A ConvNet for the 2020s*,
    arXiv:2201.03545.
    """

    epsilon: float = 1e-5
    """Added to the variance."""
    affine: bool = True
    """Learn a factor and an offset."""
    over: Literal["sample", "channels"] = "sample"
    """What shares a mean: the whole `sample`, or the `channels` of a pixel."""
    type: Literal["layer_norm"] = "layer_norm"
    normalizes = True

    def __post_init__(self) -> None:
        require(within(self, 0, np.inf, "epsilon", open_low=True))

    def param_shapes(self, in_shape: Shape) -> dict[str, Shape]:
        shape = in_shape if self.over == "sample" else in_shape[:1]
        return dict.fromkeys(("weight", "bias"), shape) if self.affine else {}

    def init_params(self, rng: np.random.Generator, in_shape: Shape) -> Params:
        return unit_affine(self.param_shapes(in_shape))

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Standardized]:
        s = standardize(x, self._mean(x), self.epsilon)
        return affine(params, s.xhat, self._expanded(x)), s

    def backward(self, params: Params, residuals: Standardized, dy: Array, ctx: Context) -> tuple[Array, Params]:
        dxhat, grads = affine_backward(params, residuals.xhat, dy, self._expanded(dy))
        return standardize_backward(dxhat, residuals, self._mean(dy)), grads

    def y_terms(self, at: LayerPass, index: Index) -> Terms:
        return self._cell(at, index).y_terms(at)

    def dx_terms(self, at: LayerPass, k: int, index: Index) -> Terms:
        return self._cell(at, index).dx_terms(at)

    def grad_terms(self, at: LayerPass, key: str, index: Index) -> Terms:
        places = product(*(range(at.x.shape[axis]) for axis in self._expanded(at.x)))
        return affine_terms(at, key, (self._cell(at, (*index, *place)) for place in places))

    def _cell(self, at: LayerPass, index: Index) -> NormalizedCell:
        kept = self._expanded(at.x)
        axes = tuple(
            range(k, k + 1) if axis in kept else range(size)
            for axis, (k, size) in enumerate(zip(index, at.x.shape, strict=True))
        )
        where = tuple(slice(k, k + 1) if axis in kept else slice(None) for axis, k in enumerate(index))
        mean, r = float(at.x[where].mean()), float(at.residuals.r[where].item())
        return NormalizedCell(index, axes, mean, r, lambda cell: cell[: len(cell) - len(kept)])

    def _expanded(self, x: Array) -> tuple[int, ...]:
        """Return the axes that weight and bias lack: the batch, and the pixels where each has a mean of its own."""
        return tuple(range(1, x.ndim)) if self.over == "channels" else (x.ndim - 1,)

    def _mean(self, x: Array) -> Mean:
        axes = tuple(axis for axis in range(x.ndim) if axis not in self._expanded(x))
        return lambda values: values.mean(axes, keepdims=True)

    def onnx(self, in_shape: Shape) -> list[OnnxOperator]:
        inputs = onnx_affine(self.affine, in_shape if self.over == "sample" else in_shape[:1])
        attributes = {"axis": 1, "epsilon": self.epsilon}
        if self.over == "sample" or len(in_shape) == 1:
            return [OnnxOperator("LayerNormalization", ("x", *inputs), attributes)]
        last = OnnxOperator("Transpose", ("x",), {"perm": (0, 2, 3, 1)}, "channels_last")
        normed = OnnxOperator("LayerNormalization", ("channels_last", *inputs), attributes | {"axis": -1}, "normed")
        return [last, normed, OnnxOperator("Transpose", ("normed",), {"perm": (0, 3, 1, 2)})]


@register
@dataclass(frozen=True, slots=True)
class GroupNorm(Layer[Standardized]):
    """Normalize each sample over groups of channels. Parameters are `weight` and `bias` (c,).

    References
    ----------
    Wu & He 2018, arXiv:1803.08494.
    """

    groups: int
    """Parts that the channels are cut into, for example `4`."""
    epsilon: float = 1e-5
    """Added to the variance."""
    affine: bool = True
    """Learn a factor and an offset."""
    type: Literal["group_norm"] = "group_norm"
    normalizes = True

    def __post_init__(self) -> None:
        require(at_least(self, 1, "groups"), within(self, 0, np.inf, "epsilon", open_low=True))

    def out_shape(self, in_shape: Shape) -> Shape:
        if in_shape[0] % self.groups:
            raise ShapeError(f"needs a number of channels that {self.groups} groups divide, got {in_shape[0]}")
        return in_shape

    def param_shapes(self, in_shape: Shape) -> dict[str, Shape]:
        return dict.fromkeys(("weight", "bias"), in_shape[:1]) if self.affine else {}

    def init_params(self, rng: np.random.Generator, in_shape: Shape) -> Params:
        return unit_affine(self.param_shapes(in_shape))

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Standardized]:
        s = standardize(x.reshape(self._grouped(x)), self._mean, self.epsilon)
        return affine(params, s.xhat.reshape(x.shape), tuple(range(1, x.ndim))), s

    def backward(self, params: Params, residuals: Standardized, dy: Array, ctx: Context) -> tuple[Array, Params]:
        dxhat, grads = affine_backward(params, residuals.xhat.reshape(dy.shape), dy, tuple(range(1, dy.ndim)))
        dx = standardize_backward(dxhat.reshape(self._grouped(dy)), residuals, self._mean)
        return dx.reshape(dy.shape), grads

    def y_terms(self, at: LayerPass, index: Index) -> Terms:
        return self._cell(at, index).y_terms(at)

    def dx_terms(self, at: LayerPass, k: int, index: Index) -> Terms:
        return self._cell(at, index).dx_terms(at)

    def grad_terms(self, at: LayerPass, key: str, index: Index) -> Terms:
        cells: list[NormalizedCell] = []
        for n in at.images:
            one = self._cell(at, (*index, *[0] * (at.x.ndim - 2), n))
            places = product(*map(range, at.x.shape[1:-1]))
            cells += (replace(one, index=(*index, *place, n)) for place in places)
        return affine_terms(at, key, cells)

    def _cell(self, at: LayerPass, index: Index) -> NormalizedCell:
        size, n = len(at.x) // self.groups, index[-1]
        group = index[0] // size
        first = group * size
        axes = (range(first, first + size), *map(range, at.x.shape[1:-1]), range(n, n + 1))
        mean, r = float(at.x[first : first + size, ..., n].mean()), float(at.residuals.r[group, 0, n])
        return NormalizedCell(index, axes, mean, r, lambda cell: cell[:1])

    def _grouped(self, x: Array) -> Shape:
        return (self.groups, prod(x.shape[:-1]) // self.groups, x.shape[-1])  # (g, c/g·h·w, n)

    @staticmethod
    def _mean(values: Array) -> Array:
        return values.mean(1, keepdims=True)

    def onnx(self, in_shape: Shape) -> list[OnnxOperator]:
        inputs = ("x", *onnx_affine(self.affine, in_shape[:1]))
        attributes = {"num_groups": self.groups, "epsilon": self.epsilon}
        return [OnnxOperator("GroupNormalization", inputs, attributes)]
