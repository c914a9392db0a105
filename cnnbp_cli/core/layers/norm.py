"""Normalisation: subtract a mean and divide by a standard deviation, taken over the batch or over a sample.

All three layers share one pair of formulas and differ only in what `mean` averages over:

    x̂ = (x - mean(x)) · r,  r = 1 / √(mean((x - mean(x))²) + epsilon),  y = weight · x̂ + bias
    dx = r · (dx̂ - mean(dx̂) - x̂ · mean(dx̂ · x̂))  with dx̂ = weight · dy
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import ClassVar, Literal, NamedTuple

import numpy as np

from cnnbp_cli.core.types import Array, Context, Layer, Params, Shape, ShapeError, at_least, require, within

Mean = Callable[[Array], Array]


class Standardised(NamedTuple):
    xhat: Array
    r: Array  # 1 / standard deviation
    mean: Array
    variance: Array  # without epsilon, divided by the count (not by the count less one)


def standardise(x: Array, mean: Mean, epsilon: float) -> Standardised:
    """Return x with mean zero and variance one; `mean` keeps its axes, and may be complex (no modulus)."""
    mu = mean(x)
    centred = x - mu
    variance = mean(centred * centred)
    r = 1 / np.sqrt(variance + epsilon)
    centred *= r
    return Standardised(centred, r, mu, variance)


def standardise_backward(dxhat: Array, s: Standardised, mean: Mean) -> Array:
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


class BatchNormResiduals(NamedTuple):
    s: Standardised
    values: int | None  # per channel over all workers; None in evaluation mode


@dataclass(frozen=True, slots=True)
class BatchNorm(Layer[BatchNormResiduals]):
    """Normalise each channel (or feature) over the batch; in evaluation, by running statistics.

    In training, `running = momentum · running + (1 - momentum) · batch`, with the unbiased variance.
    The mean is taken over all workers' slices of the batch. Parameters are `weight` and `bias` (c,);
    the state is `running_mean` and `running_var` (c,).

    References
    ----------
    Ioffe & Szegedy 2015, arXiv:1502.03167, algorithm 1.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    affine: bool = True
    type: Literal["batch_norm"] = "batch_norm"
    state: ClassVar[tuple[str, ...]] = ("running_mean", "running_var")

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
        axes = tuple(range(1, x.ndim))
        if ctx.training:
            count = self._count(x, ctx)
            s = standardise(x, self._mean(axes, count, ctx), self.epsilon)
        else:
            count = None
            mean, variance = (np.expand_dims(params[name], axes) for name in self.state)
            r = 1 / np.sqrt(variance + self.epsilon)
            s = Standardised((x - mean) * r, r, mean, variance)
        return affine(params, s.xhat, axes), BatchNormResiduals(s, count)

    def backward(self, params: Params, residuals: BatchNormResiduals, dy: Array, ctx: Context) -> tuple[Array, Params]:
        s, count = residuals.s, residuals.values
        axes = tuple(range(1, dy.ndim))
        dxhat, grads = affine_backward(params, s.xhat, dy, axes)
        if count is None:
            return dxhat * s.r, grads
        return standardise_backward(dxhat, s, self._mean(axes, count, ctx)), grads

    def next_state(self, params: Params, residuals: BatchNormResiduals) -> Params:
        s, count = residuals.s, residuals.values
        if count is None:
            return {}
        unbiased = s.variance.ravel() * (count / max(count - 1, 1))
        keep = self.momentum
        return {
            "running_mean": keep * params["running_mean"] + (1 - keep) * s.mean.ravel(),
            "running_var": keep * params["running_var"] + (1 - keep) * unbiased,
        }

    @staticmethod
    def _count(x: Array, ctx: Context) -> int:
        return int(ctx.workers.all_reduce(np.array([x[0].size]))[0])

    @staticmethod
    def _mean(axes: tuple[int, ...], count: int, ctx: Context) -> Mean:
        return lambda values: ctx.workers.all_reduce(values.sum(axes, keepdims=True)) / count


@dataclass(frozen=True, slots=True)
class LayerNorm(Layer[Standardised]):
    """Normalise each sample over all its values. Parameters are `weight` and `bias` of the sample's shape.

    References
    ----------
    Ba, Kiros & Hinton 2016, arXiv:1607.06450.
    """

    epsilon: float = 1e-5
    affine: bool = True
    type: Literal["layer_norm"] = "layer_norm"

    def __post_init__(self) -> None:
        require(within(self, 0, np.inf, "epsilon", open_low=True))

    def param_shapes(self, in_shape: Shape) -> dict[str, Shape]:
        return dict.fromkeys(("weight", "bias"), in_shape) if self.affine else {}

    def init_params(self, rng: np.random.Generator, in_shape: Shape) -> Params:
        return unit_affine(self.param_shapes(in_shape))

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Standardised]:
        s = standardise(x, self._mean(x), self.epsilon)
        return affine(params, s.xhat, (-1,)), s

    def backward(self, params: Params, residuals: Standardised, dy: Array, ctx: Context) -> tuple[Array, Params]:
        dxhat, grads = affine_backward(params, residuals.xhat, dy, (-1,))
        return standardise_backward(dxhat, residuals, self._mean(dy)), grads

    @staticmethod
    def _mean(x: Array) -> Mean:
        axes = tuple(range(x.ndim - 1))
        return lambda values: values.mean(axes, keepdims=True)


@dataclass(frozen=True, slots=True)
class GroupNorm(Layer[Standardised]):
    """Normalise each sample over groups of channels. Parameters are `weight` and `bias` (c,).

    References
    ----------
    Wu & He 2018, arXiv:1803.08494.
    """

    groups: int
    epsilon: float = 1e-5
    affine: bool = True
    type: Literal["group_norm"] = "group_norm"

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

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Standardised]:
        s = standardise(x.reshape(self._grouped(x)), self._mean, self.epsilon)
        return affine(params, s.xhat.reshape(x.shape), tuple(range(1, x.ndim))), s

    def backward(self, params: Params, residuals: Standardised, dy: Array, ctx: Context) -> tuple[Array, Params]:
        dxhat, grads = affine_backward(params, residuals.xhat.reshape(dy.shape), dy, tuple(range(1, dy.ndim)))
        dx = standardise_backward(dxhat.reshape(self._grouped(dy)), residuals, self._mean)
        return dx.reshape(dy.shape), grads

    def _grouped(self, x: Array) -> Shape:
        return (self.groups, prod(x.shape[:-1]) // self.groups, x.shape[-1])  # (g, c/g·h·w, n)

    @staticmethod
    def _mean(values: Array) -> Array:
        return values.mean(1, keepdims=True)
