"""How weights start: each initializer draws an array whose variance suits the layer's fan-in or fan-out.

Called with a generator, a shape, and the connections of one unit, `fan_in` and `fan_out`, it returns float64 weights.

References
----------
he: He et al. 2015, arXiv:1502.01852. glorot: Glorot & Bengio 2010. lecun: LeCun et al. 1998, *Efficient
BackProp*. orthogonal: Saxe et al. 2014, arXiv:1312.6120.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from cnnbp_cli.core.types import Array, Shape, at_least, require


@dataclass(frozen=True, slots=True)
class HeNormal:
    """Normal with variance 2 / fan_in, which keeps the variance through ReLU layers."""

    type: Literal["he_normal"] = "he_normal"

    def __call__(self, rng: np.random.Generator, shape: Shape, fan_in: int, fan_out: int) -> Array:
        return rng.normal(0.0, np.sqrt(2 / fan_in), shape)


@dataclass(frozen=True, slots=True)
class HeUniform:
    """Uniform with variance 2 / fan_in."""

    type: Literal["he_uniform"] = "he_uniform"

    def __call__(self, rng: np.random.Generator, shape: Shape, fan_in: int, fan_out: int) -> Array:
        limit = np.sqrt(6 / fan_in)
        return rng.uniform(-limit, limit, shape)


@dataclass(frozen=True, slots=True)
class GlorotNormal:
    """Normal with variance 2 / (fan_in + fan_out)."""

    type: Literal["glorot_normal"] = "glorot_normal"

    def __call__(self, rng: np.random.Generator, shape: Shape, fan_in: int, fan_out: int) -> Array:
        return rng.normal(0.0, np.sqrt(2 / (fan_in + fan_out)), shape)


@dataclass(frozen=True, slots=True)
class GlorotUniform:
    """Uniform with variance 2 / (fan_in + fan_out)."""

    type: Literal["glorot_uniform"] = "glorot_uniform"

    def __call__(self, rng: np.random.Generator, shape: Shape, fan_in: int, fan_out: int) -> Array:
        limit = np.sqrt(6 / (fan_in + fan_out))
        return rng.uniform(-limit, limit, shape)


@dataclass(frozen=True, slots=True)
class LecunNormal:
    """Normal with variance 1 / fan_in."""

    type: Literal["lecun_normal"] = "lecun_normal"

    def __call__(self, rng: np.random.Generator, shape: Shape, fan_in: int, fan_out: int) -> Array:
        return rng.normal(0.0, np.sqrt(1 / fan_in), shape)


@dataclass(frozen=True, slots=True)
class Orthogonal:
    """A random matrix with orthonormal rows or columns, whichever are fewer; the first axis is the rows."""

    type: Literal["orthogonal"] = "orthogonal"

    def __call__(self, rng: np.random.Generator, shape: Shape, fan_in: int, fan_out: int) -> Array:
        rows, columns = shape[0], int(np.prod(shape[1:]))
        q, r = np.linalg.qr(rng.normal(size=(max(rows, columns), min(rows, columns))))
        q = q * np.sign(np.diag(r))  # makes the draw uniform over all orthogonal matrices
        return (q if rows >= columns else q.T).reshape(shape)


@dataclass(frozen=True, slots=True)
class Normal:
    """Normal with the standard deviation `std`, whatever the fan."""

    std: float
    """The standard deviation, for example `0.01`."""
    type: Literal["normal"] = "normal"

    def __post_init__(self) -> None:
        require(at_least(self, 0, "std"))

    def __call__(self, rng: np.random.Generator, shape: Shape, fan_in: int, fan_out: int) -> Array:
        return rng.normal(0.0, abs(self.std), shape)


@dataclass(frozen=True, slots=True)
class Constant:
    """The same `value` everywhere."""

    value: float
    """The number, for example `0.1`."""
    type: Literal["constant"] = "constant"

    def __call__(self, rng: np.random.Generator, shape: Shape, fan_in: int, fan_out: int) -> Array:
        return np.full(shape, float(self.value))


@dataclass(frozen=True, slots=True)
class Zeros:
    """Zero everywhere: every unit of the layer then stays the same as its neighbors."""

    type: Literal["zeros"] = "zeros"

    def __call__(self, rng: np.random.Generator, shape: Shape, fan_in: int, fan_out: int) -> Array:
        return np.zeros(shape)


AnyInitializer = (
    HeNormal | HeUniform | GlorotNormal | GlorotUniform | LecunNormal | Orthogonal | Normal | Constant | Zeros
)
"""A new initializer is one more member: the config finds it by its `type`."""
