"""Wrong backward passes that courses see every year, computed, so that a gradient can be compared with each of them.

What a custom layer is, a convolution, a normalization, an activation or a pool, is recognized by its numbers: a formula
that gives its output. Then the gradients that the usual mistakes would give are known, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from cnnbp_cli.core.terms import LayerPass
from cnnbp_cli.core.types import Array

Mistake = tuple[str, Array]
"""What was done, and the gradient that comes of it."""

MAX_STRIDE = 4
MAX_MACS = 50_000_000
SAME = 1e-9  # relative to the largest value: the formula gives the output
SLOPE_STEP = 1e-6


def mistakes_in_dx(at: LayerPass, forward: Callable[[Array], Array]) -> Iterator[Mistake]:
    """Yield wrong gradients to the input; `forward` returns the output for another input."""
    if conv := Convolution.recognized(at):
        yield from conv.mistakes_in_dx()
    elif norm := Normalization.recognized(at):
        yield from norm.mistakes_in_dx()
    elif at.x.shape == at.y.shape:
        yield "dy is passed on unchanged: the layer's derivative is left out", at.dy
        if _same(forward(at.x[::-1]), at.y[::-1]) and _same(forward(at.x[..., ::-1]), at.y[..., ::-1]):
            yield from _activation(at, forward)
    elif at.x.ndim == at.y.ndim == 4:
        yield from _pool(at)


def mistakes_in_parameter(at: LayerPass, key: str) -> Iterator[Mistake]:
    """Yield wrong gradients to a parameter."""
    conv = Convolution.recognized(at)
    if conv and at.params[key] is conv.weight:
        yield from conv.mistakes_in_dweight()


@dataclass(frozen=True, slots=True, eq=False)
class Convolution:
    """y[f, p, q] = bias[f] + Σ_{c, i, j} weight[f, c, i, j] · x[c, s·p + i - pad, s·q + j - pad]."""

    weight: Array
    image: Array  # x with its padding
    dy: Array
    stride: int
    pad: int

    @classmethod
    def recognized(cls, at: LayerPass) -> Convolution | None:
        weights = [value for value in at.params.values() if value.ndim == 4]
        if at.x.ndim != 4 or at.y.ndim != 4 or len(weights) != 1:
            return None
        (weight,) = weights
        (f, c, kh, kw), (_, h, w, _), (_, oh, ow, _) = weight.shape, at.x.shape, at.y.shape
        if (f, c) != (len(at.y), len(at.x)) or weight.size * at.y[0].size > MAX_MACS:
            return None
        bias = next((value for value in at.params.values() if value.shape == (f,)), np.zeros(f))
        for stride, pad in product(range(1, MAX_STRIDE + 1), range(max(kh, kw))):
            fits = [(size + 2 * pad - k) // stride + 1 for size, k in ((h, kh), (w, kw))] == [oh, ow]
            image = np.pad(at.x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
            if not fits or min(image.shape[1] - kh, image.shape[2] - kw) < 0:
                continue
            found = cls(weight, image, at.dy, stride, pad)
            if _same(np.einsum("fcij,cpqnij->fpqn", weight, found._windows(stride)) + bias[:, None, None, None], at.y):
                return found
        return None

    def _windows(self, stride: int) -> Array:
        """Return the patches (c, oh, ow, n, kh, kw) that output pixels look at."""
        _, oh, ow, _ = self.dy.shape
        patches = sliding_window_view(self.image, self.weight.shape[2:], (1, 2))
        return patches[:, ::stride, ::stride][:, :oh, :ow]

    def mistakes_in_dweight(self) -> Iterator[Mistake]:
        if self.stride > 1:
            patches = self._windows(1)
            yield "the stride is left out of the patches of x", np.einsum("fpqn,cpqnij->fcij", self.dy, patches)
        total = self.dy.sum((1, 2, 3))[:, None, None, None]
        yield (
            "the filter times dy, where x belongs: weights need the input, the input needs the filter",
            self.weight * total,
        )
        if self.pad:
            cropped = Convolution(
                self.weight, np.roll(self.image, (-self.pad, -self.pad), (1, 2)), self.dy, self.stride, 0
            )
            patches = cropped._windows(self.stride)
            yield "the padding of x is left out", np.einsum("fpqn,cpqnij->fcij", self.dy, patches)

    def mistakes_in_dx(self) -> Iterator[Mistake]:
        stride, weight = self.stride, self.weight
        yield (
            "the kernel is not flipped, or flipped twice: dx is each dy times the kernel as it is, added up, which is "
            "the full correlation of dy with the flipped kernel",
            self._crop(self._scattered(weight[:, :, ::-1, ::-1], stride)),
        )
        if weight.shape[2] == weight.shape[3]:
            yield (
                "rows and columns of the kernel are swapped",
                self._crop(self._scattered(weight.swapaxes(2, 3), stride)),
            )
        if stride > 1:
            yield (
                "the stride is left out: dy of row p belongs to the rows from stride · p",
                self._crop(self._scattered(weight, 1)),
            )
        overwritten = "windows that overlap overwrite each other: write dx[…] += …, not dx[…] = …"
        for by_columns, last_filter in product((False, True), repeat=2):
            yield overwritten, self._crop(self._assigned(by_columns, last_filter))
        if self.pad:
            right, (_, h, w, _) = self._scattered(weight, stride), self._crop(self.image).shape
            for first in {0, 2 * self.pad}:
                moved = np.zeros((len(right), h, w, right.shape[3]))
                part = right[:, first : first + h, first : first + w]
                moved[:, : part.shape[1], : part.shape[2]] = part
                yield (
                    f"the padding is cut off at {first}, not at {self.pad}: dx begins at row and column {self.pad}",
                    moved,
                )
        patches = np.zeros_like(self.image)
        for p, q, rows, columns in self._places():
            patches[:, rows, columns] += self.image[:, rows, columns] * self.dy[:, p, q].sum(0)
        yield (
            "x times dy, where the filter belongs: the input needs the filter, weights need the input",
            self._crop(patches),
        )

    def _places(self) -> Iterator[tuple[int, int, slice, slice]]:
        _, _, kh, kw = self.weight.shape
        for p, q in np.ndindex(self.dy.shape[1:3]):
            top, left = p * self.stride, q * self.stride
            yield p, q, slice(top, top + kh), slice(left, left + kw)

    def _crop(self, image: Array) -> Array:
        _, h, w, _ = image.shape
        return image[:, self.pad : h - self.pad, self.pad : w - self.pad]

    def _scattered(self, weight: Array, stride: int) -> Array:
        """Return the gradient to the padded image for a kernel and a stride."""
        image = np.zeros_like(self.image)
        _, oh, ow, _ = self.dy.shape
        for i, j in np.ndindex(weight.shape[2:]):
            terms = np.einsum("fc,fpqn->cpqn", weight[:, :, i, j], self.dy)
            image[:, i : i + oh * stride : stride, j : j + ow * stride : stride] += terms
        return image

    def _assigned(self, by_columns: bool, last_filter: bool) -> Array:
        """Return the same where each window overwrites the ones before it, and each filter too, if so."""
        image = np.zeros_like(self.image)
        weight, dy = (self.weight[-1:], self.dy[-1:]) if last_filter else (self.weight, self.dy)
        for p, q, rows, columns in sorted(self._places(), key=lambda place: place[1::-1] if by_columns else place[:2]):
            image[:, rows, columns] = np.einsum("fcij,fn->cijn", weight, dy[:, p, q])
        return image


@dataclass(frozen=True, slots=True, eq=False)
class Normalization:
    """y = γ x̂ + β with x̂ = (x - mean) / s over some axes."""

    g: Array  # dy · γ
    dy: Array
    xhat: Array
    s: Array
    axes: tuple[int, ...]

    @classmethod
    def recognized(cls, at: LayerPass) -> Normalization | None:
        if at.x.shape != at.y.shape:
            return None
        shape = (-1, *[1] * (at.x.ndim - 1))
        one = np.ones((len(at.x), *shape[1:]))
        vectors = [value.reshape(shape) for value in at.params.values() if value.shape == at.x.shape[:1]]
        pairs = [(gamma, beta) for gamma in vectors for beta in vectors if gamma is not beta] or [(one, 0 * one)]
        for (gamma, beta), axes in product(pairs, (tuple(range(1, at.x.ndim)), tuple(range(at.x.ndim - 1)))):
            if not np.all(gamma):
                continue
            xhat, centered = (at.y - beta) / gamma, at.x - at.x.mean(axes, keepdims=True)
            squares = (xhat * xhat).sum(axes, keepdims=True)
            if not np.all(squares):
                continue
            s = np.sqrt((centered * centered).sum(axes, keepdims=True) / squares)
            if np.all(s) and _same(centered / s, xhat):
                return cls(at.dy * gamma, at.dy, xhat, s, axes)
        return None

    def mistakes_in_dx(self) -> Iterator[Mistake]:
        g, dy, xhat, s = self.g, self.dy, self.xhat, self.s
        mean = g.mean(self.axes, keepdims=True)
        product_mean = (g * xhat).mean(self.axes, keepdims=True)
        variance = "the variance is taken for a constant: the term - x̂ · mean(dx̂ · x̂) / s is missing"
        average = "the mean is taken for a constant: the term - mean(dx̂) / s is missing"
        yield variance, (g - mean) / s
        yield average, (g - xhat * product_mean) / s
        yield "mean and variance are taken for constants: dx̂ / s alone", g / s
        yield (
            "the factor γ is left out",
            (dy - dy.mean(self.axes, keepdims=True) - xhat * (dy * xhat).mean(self.axes, keepdims=True)) / s,
        )
        yield "the division by the standard deviation is left out", g - mean - xhat * product_mean


def _activation(at: LayerPass, forward: Callable[[Array], Array]) -> Iterator[Mistake]:
    """Yield mistakes in a layer that has one function for every element."""
    x, y, dy = at.x, at.y, at.dy
    slope = _slope(forward, x)
    yield "the derivative is not multiplied by dy", slope
    yield "dy passes where dy is above 0, not where the input is: a ReLU's gate is its input", dy * (dy > 0)
    yield "gradients below 0 are cut off: the gate belongs to the input, not to dy", slope * dy * (dy > 0)
    at_output = _slope(forward, y)
    yield "the derivative is taken at the output: f'(f(x)) in place of f'(x)", at_output * dy
    formulas: dict[str, Callable[[Array], Array]] = {"1 - y²": lambda v: 1 - v * v, "y (1 - y)": lambda v: v * (1 - v)}
    for name, formula in formulas.items():
        yield f"{name} holds for the output y, and is taken of the input", formula(x) * dy
        yield f"{name} is taken of the output twice: of f(f(x))", formula(forward(y)) * dy
    yield "dy times the output, not times the derivative", y * dy
    yield "dy times the input, not times the derivative", x * dy
    yield "dy of the skip connection is left out: add up both gradients", slope * dy - dy


def _slope(forward: Callable[[Array], Array], x: Array) -> Array:
    """Return the derivative of a function of each element."""
    return (forward(x + SLOPE_STEP) - forward(x - SLOPE_STEP)) / (2 * SLOPE_STEP)


def _pool(at: LayerPass) -> Iterator[Mistake]:
    """Yield mistakes of a pool without overlaps."""
    (c, h, w, n), (_, oh, ow, _) = at.x.shape, at.y.shape
    kh, kw = h // oh, w // ow
    if len(at.y) != c or h != kh * oh or w != kw * ow:
        return
    windows = at.x.reshape(c, oh, kh, ow, kw, n)
    spread = at.dy.repeat(kh, 1).repeat(kw, 2)
    highest = windows.max((2, 4), keepdims=True)
    if _same(highest.reshape(at.y.shape), at.y):
        yield "each pixel of a window gets dy: only the largest may", spread
        yield "dy is shared by the whole window, as of an average: only the largest gets it", spread / (kh * kw)
        lowest = (windows == windows.min((2, 4), keepdims=True)).reshape(at.x.shape)
        yield "the smallest pixel of each window gets dy", spread * lowest


def _same(a: Array, b: Array) -> bool:
    return a.shape == b.shape and bool(np.abs(a - b).max(initial=0) <= SAME * np.abs(b).max(initial=0))
