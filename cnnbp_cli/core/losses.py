"""Losses, each fused with the head before it where that makes the gradient simple and stable.

Each returns a sum over the batch; `count` says what to divide it by, so that the mean loss is
`sum / count` and its gradient `backward() / count`, on one worker or on several.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import numpy as np

from cnnbp_cli.core.layers.activation import logistic, softmax
from cnnbp_cli.core.types import Array, Loss


def one_hot(labels: Array, classes: int, dtype: np.dtype[np.floating]) -> Array:
    """Return (classes, n) with a one in each column at its label; labels of one unit are 0 or 1 already."""
    if classes == 1:
        return labels.astype(dtype)[None, :]
    return (np.arange(classes)[:, None] == labels).astype(dtype)


class FusedResiduals(NamedTuple):
    p: Array  # the head's output
    y: Array  # the target, as distributions: (classes, n)


@dataclass(frozen=True, slots=True)
class SoftmaxCrossEntropy(Loss[FusedResiduals]):
    """Softmax head with cross-entropy, on the logits z (classes, n); `count` is n.

        L = -Σ_k y_k log p_k = log Σ_k exp(z_k) - Σ_k y_k z_k        dz = p - y

    y is one at the label; label smoothing a mixes it with the uniform distribution, (1 - a)·y + a/K.

    References
    ----------
    Bishop, *Pattern Recognition and Machine Learning*, section 4.3.4; Szegedy et al. 2016,
    arXiv:1512.00567, section 7, for label smoothing.
    """

    label_smoothing: float = 0.0

    def predict(self, z: Array) -> Array:
        return softmax(z)

    def forward(self, z: Array, target: Array) -> tuple[Array, FusedResiduals]:
        y = target if target.ndim == z.ndim else one_hot(target, z.shape[0], z.real.dtype)
        y = (1 - self.label_smoothing) * y + self.label_smoothing / z.shape[0]
        shifted = z - z.real.max(0)
        e = np.exp(shifted)
        total = e.sum(0)
        return (np.log(total) - (y * shifted).sum(0)).sum(), FusedResiduals(e / total, y)

    def backward(self, residuals: FusedResiduals) -> Array:
        return residuals.p - residuals.y

    def count(self, z: Array) -> int:
        return z.shape[-1]


@dataclass(frozen=True, slots=True)
class SigmoidBinaryCrossEntropy(Loss[FusedResiduals]):
    """Sigmoid head with binary cross-entropy, on the logits z (units, n); `count` is n.

        L = Σ_k log(1 + exp(z_k)) - y_k z_k        dz = p - y

    With several units the loss is summed over them: each is a yes-or-no question of its own.

    References
    ----------
    Bishop, *Pattern Recognition and Machine Learning*, section 4.3.2.
    """

    def predict(self, z: Array) -> Array:
        return logistic(z)

    def forward(self, z: Array, target: Array) -> tuple[Array, FusedResiduals]:
        y = target if target.ndim == z.ndim else one_hot(target, z.shape[0], z.real.dtype)
        positive = z.real > 0
        softplus = np.where(positive, z, 0) + np.log1p(np.exp(np.where(positive, -z, z)))
        return (softplus - y * z).sum(), FusedResiduals(logistic(z), y)

    def backward(self, residuals: FusedResiduals) -> Array:
        return residuals.p - residuals.y

    def count(self, z: Array) -> int:
        return z.shape[-1]


class SquaredErrorResiduals(NamedTuple):
    p: Array  # the head's output
    error: Array  # p - y


@dataclass(frozen=True, slots=True)
class MeanSquaredError(Loss[SquaredErrorResiduals]):
    """The mean over all outputs of (p - y)², after the head; `count` is the number of outputs.

        L = Σ (p - y)²        dp = 2 (p - y)
        dz = dp (no head),  dp · p · (1 - p) (sigmoid),  p · (dp - Σ_k p_k dp_k) (softmax)

    References
    ----------
    Bishop, *Pattern Recognition and Machine Learning*, section 5.2.
    """

    head: str = "none"

    def predict(self, z: Array) -> Array:
        if self.head == "softmax":
            return softmax(z)
        return logistic(z) if self.head == "sigmoid" else z

    def forward(self, z: Array, target: Array) -> tuple[Array, SquaredErrorResiduals]:
        y = target if target.ndim == z.ndim else one_hot(target, z.shape[0], z.real.dtype)
        p = self.predict(z)
        error = p - y
        return (error * error).sum(), SquaredErrorResiduals(p, error)

    def backward(self, residuals: SquaredErrorResiduals) -> Array:
        p, dp = residuals.p, 2 * residuals.error
        if self.head == "softmax":
            return p * (dp - (p * dp).sum(0))
        return dp * p * (1 - p) if self.head == "sigmoid" else dp

    def count(self, z: Array) -> int:
        return prod(z.shape)


def make_loss(head: str, loss: str, label_smoothing: float = 0.0) -> Loss[Any]:
    """Return the loss for a config's `model.head` and `train.loss`.

    Raises
    ------
    ValueError
        When the two do not fit each other.
    """
    if loss == "mse" and head in ("softmax", "sigmoid", "none"):
        return MeanSquaredError(head)
    if (head, loss) == ("softmax", "cross_entropy"):
        return SoftmaxCrossEntropy(label_smoothing)
    if (head, loss) == ("sigmoid", "binary_cross_entropy"):
        return SigmoidBinaryCrossEntropy()
    raise ValueError(f"a {head} head does not fit the loss {loss}")
