"""Run a case forward and backward, and measure a gradient against the complex-step derivative of the forward pass."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from laws.cases import Case

from cnnbp_cli.core.types import Array, Communicator, Context, Operation, Params

STEP = 1e-30
TRAINING = Context(training=True, seed=3, step=7, node="here")
EVALUATION = replace(TRAINING, training=False)

T = TypeVar("T")


@dataclass(frozen=True)
class Problem:
    """A case with numbers: parameters, inputs, and the gradient that comes in at the output."""

    case: Case
    params: Params
    xs: list[Array]
    dy: Array

    @property
    def layer(self) -> Operation[Any]:
        return self.case.layer

    def sliced(self, part: slice) -> Problem:
        """The same problem for some samples of the batch only."""
        return replace(self, xs=[x[..., part] for x in self.xs], dy=self.dy[..., part])

    def cast(self, dtype: Any) -> Problem:
        params = {key: value.astype(dtype) for key, value in self.params.items()}
        return replace(self, params=params, xs=[x.astype(dtype) for x in self.xs], dy=self.dy.astype(dtype))


def smooth(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Draw values of which no two are equal and none is zero."""
    return rng.normal(size=shape)


def tied(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Draw values of three levels only: every window has ties, and a third of the values is exactly zero."""
    return 0.5 * rng.integers(-1, 2, shape)


def problem(case: Case, draw: Callable[..., Array] = smooth, n: int = 3, seed: int = 0) -> Problem:
    """Draw numbers for a case and a batch of `n`; parameters are random, not as they are initialized."""
    rng = np.random.default_rng(seed)
    params: Params = {}
    for key, value in case.layer.init_params(rng, case.in_shapes[0]).items():
        params[key] = rng.uniform(0.5, 2, value.shape) if key == "running_var" else rng.normal(size=value.shape)
    xs = [draw(rng, (*shape, n)) for shape in case.in_shapes]
    return Problem(case, params, xs, rng.normal(size=(*case.out_shape, n))).cast(case.dtype)


@dataclass(frozen=True)
class Result:
    """Both passes' results, by name: `y`, `dx0`, `dx1` …, and the gradients by parameter."""

    arrays: dict[str, Array]
    state: Params

    @property
    def y(self) -> Array:
        return self.arrays["y"]

    def per_sample(self) -> dict[str, Array]:
        return {name: array for name, array in self.arrays.items() if name == "y" or name.startswith("dx")}

    def gradients(self) -> dict[str, Array]:
        return {name: array for name, array in self.arrays.items() if name != "y"}

    def grads(self) -> Params:
        return {name: array for name, array in self.gradients().items() if not name.startswith("dx")}


def passes(problem: Problem, ctx: Context) -> Result:
    """Run a problem forward and backward, and copy what it returns: buffers may be reused."""
    y, residuals = problem.layer.node_forward(problem.params, problem.xs, ctx)
    y = y.copy()
    dxs, grads = problem.layer.node_backward(problem.params, residuals, problem.dy, ctx)
    state = problem.layer.next_state(problem.params, residuals)
    arrays = {"y": y} | {f"dx{k}": dx.copy() for k, dx in enumerate(dxs) if dx is not None}
    return Result(arrays | {key: grad.copy() for key, grad in grads.items()}, state)


def derivative_errors(problem: Problem, gradients: dict[str, Array], ctx: Context) -> dict[str, float]:
    """Compare each gradient with the derivative of <dy, forward> along one random direction of its tensor.

    The error is relative to the scale of the computation: the larger of Σ |gradient · v| and Σ |dy · δy|,
    the terms whose sums the two numbers are.
    """
    rng = np.random.default_rng(1)
    errors: dict[str, float] = {}
    for name, gradient in gradients.items():
        params, xs = dict(problem.params), list(problem.xs)
        value = xs[int(name[2:])] if name.startswith("dx") else params[name]
        v = rng.normal(size=value.shape)
        if name.startswith("dx"):
            xs[int(name[2:])] = value + 1j * STEP * v
        else:
            params[name] = value + 1j * STEP * v
        change = problem.layer.node_forward(params, xs, ctx)[0].imag / STEP
        scale = max(np.abs(gradient * v).sum(), np.abs(problem.dy * change).sum())
        error = abs((gradient * v).sum() - (problem.dy * change).sum())
        errors[name] = float(error / scale) if error else 0.0
    return errors


class _Worker:
    """One of several threads that share a batch."""

    def __init__(self, rank: int, parts: list[Array | None], barrier: threading.Barrier) -> None:
        self.rank, self.size = rank, len(parts)
        self._parts, self._barrier = parts, barrier

    def all_reduce(self, array: Array) -> Array:
        self._parts[self.rank] = array
        self._barrier.wait()
        total = sum(part for part in self._parts[1:] if part is not None) + self._parts[0]
        self._barrier.wait()  # nobody may write the next sum's parts before all have read these
        return total


def on_workers(size: int, work: Callable[[Communicator], T]) -> list[T]:
    """Run `work` on `size` threads that can sum over each other, and return what each of them returns."""
    parts: list[Array | None] = [None] * size
    barrier = threading.Barrier(size, timeout=30)
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(work, [_Worker(rank, parts, barrier) for rank in range(size)]))
