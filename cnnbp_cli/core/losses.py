"""Losses, each fused with the head before it where that makes the gradient simple and stable.

Each returns a sum over the batch; `count` says what to divide it by, so that the mean loss is
`sum / count` and its gradient `backward() / count`, on one worker or on several.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal, NamedTuple, assert_never

import numpy as np

from cnnbp_cli.core.layers.activation import logistic, softmax
from cnnbp_cli.core.terms import OUTPUT, TARGET, Index, LossPass, Ref, Term, Terms, unstated
from cnnbp_cli.core.types import Array, Loss

Head = Literal["softmax", "sigmoid", "none"]
LossName = Literal["cross_entropy", "binary_cross_entropy", "mse"]


def one_hot(labels: Array, classes: int, dtype: np.dtype[np.floating]) -> Array:
    """Return (classes, …, n) with a one for each label (…, n); labels of one unit are 0 or 1 already."""
    if classes == 1:
        return labels.astype(dtype)[None]
    return (np.arange(classes).reshape(-1, *[1] * labels.ndim) == labels).astype(dtype)


def unfolded(z: Array, target: Array) -> Array:
    """Return targets in the shape of the logits z: labels become columns, everything else is so already."""
    return target if target.ndim == z.ndim else one_hot(target, z.shape[0], z.real.dtype)


def head_terms(head: str, at: LossPass, index: Index) -> Terms:
    """Explain a prediction of a softmax, a sigmoid or no head."""
    z, (k, *place) = Ref(0, index), index
    if head == "softmax":
        zs = tuple(Ref(0, (j, *place)) for j in range(len(at.z)))
        p = float(softmax(np.array([at[z] for z in zs]))[k])
        return Terms("{p} = exp({z}) / Σ exp(z)", (Term(p),), zs, {"z": at[z], "p": p})
    if head == "sigmoid":
        p = float(logistic(np.array(at[z])))
        return Terms("{p} = 1 / (1 + exp(−{z}))", (Term(p),), (z,), {"z": at[z], "p": p})
    return Terms("{p} = {z}", (Term(1, (z,)),), (), {"z": at[z], "p": at[z]})


def difference(at: LossPass, index: Index) -> Terms:
    """Explain dz = (p - y) / n, to which softmax and cross-entropy, and sigmoid and its own, both come down."""
    p, y = Ref(OUTPUT, index), Ref(TARGET, index)
    numbers = {"p": at[p], "y": at[y], "n": float(at.count)}
    formula = "dz = {p} − {y}" if at.count == 1 else "dz = ({p} − {y}) / {n}"
    return Terms(formula, (Term(1 / at.count, (p,)), Term(-1 / at.count, (y,))), (), numbers)


class FusedResiduals(NamedTuple):
    p: Array  # the head's output
    y: Array  # the target, as distributions: (classes, n), times the weights of the classes


@dataclass(frozen=True, slots=True)
class SoftmaxCrossEntropy(Loss[FusedResiduals]):
    """Softmax head with cross-entropy, on the logits z (classes, n), or of each pixel (classes, h, w, n).

        L = -Σ_k y_k log p_k = log Σ_k exp(z_k) - Σ_k y_k z_k        dz = p - y

    `count` is the number of distributions: n, or h·w·n. y is one at the label; label smoothing a mixes it with the
    uniform distribution, (1 - a)·y + a/K.

    Weights w_k of the classes stand before the terms of the sum, as in PyTorch:

        L = -Σ_k w_k y_k log p_k        dz = p Σ_k w_k y_k - w y

    Whoever sets them divides by the sum of the labels' weights, which `count` does not know.

    References
    ----------
    Bishop, *Pattern Recognition and Machine Learning*, section 4.3.4; Szegedy et al. 2016,
    arXiv:1512.00567, section 7, for label smoothing; PyTorch, `torch.nn.CrossEntropyLoss`, for weights.
    """

    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] | None = None

    def predict(self, z: Array) -> Array:
        return softmax(z)

    def forward(self, z: Array, target: Array) -> tuple[Array, FusedResiduals]:
        y = self.expected(z, target)
        shifted = z - z.real.max(0)
        e = np.exp(shifted)
        total = e.sum(0)
        if self.class_weights is not None:
            y = y * np.array(self.class_weights, y.dtype).reshape(-1, *[1] * (y.ndim - 1))
            return (y.sum(0) * np.log(total) - (y * shifted).sum(0)).sum(), FusedResiduals(e / total, y)
        return (np.log(total) - (y * shifted).sum(0)).sum(), FusedResiduals(e / total, y)

    def backward(self, residuals: FusedResiduals) -> Array:
        p, y = residuals
        return p - y if self.class_weights is None else p * y.sum(0) - y

    def count(self, z: Array) -> int:
        return prod(z.shape[1:])

    def expected(self, z: Array, target: Array) -> Array:
        return (1 - self.label_smoothing) * unfolded(z, target) + self.label_smoothing / z.shape[0]

    def head_terms(self, at: LossPass, index: Index) -> Terms:
        return head_terms("softmax", at, index)

    def dz_terms(self, at: LossPass, index: Index) -> Terms:
        if self.class_weights is not None:
            return unstated(type(self), "backward")
        return difference(at, index)

    def loss_terms(self, at: LossPass) -> Terms:
        if self.class_weights is not None:
            return unstated(type(self), "forward")
        shifted = at.z - at.z.max(0)
        log_p = shifted - np.log(np.exp(shifted).sum(0))  # also where p itself is too small for a float
        indices = list(np.ndindex(at.z.shape))
        formula, numbers = "loss = −Σ y · log(p)" + " / n" * (at.count > 1), dict[str, float]()
        if [at.target[index] for index in indices if at.target[index]] == [1]:  # a single label
            formula += f" = −log({{p[{int(at.target.argmax())}]}})"
            numbers[f"p[{int(at.target.argmax())}]"] = float(at.p.ravel()[at.target.argmax()])
        return Terms(
            formula,
            tuple(Term(-float(log_p[index]) / at.count, (Ref(TARGET, index),)) for index in indices),
            tuple(Ref(OUTPUT, index) for index in indices),
            numbers,
        )


@dataclass(frozen=True, slots=True)
class SigmoidBinaryCrossEntropy(Loss[FusedResiduals]):
    """Sigmoid head with binary cross-entropy, on the logits z (units, n); `count` is n.

        L = Σ_k log(1 + exp(z_k)) - y_k z_k        dz = p - y

    With several units the loss is summed over them: each is a yes-or-no question of its own. Pixels of a mask are
    samples of their own: then `count` is n times their number.

    References
    ----------
    Bishop, *Pattern Recognition and Machine Learning*, section 4.3.2.
    """

    per_pixel: bool = False

    def predict(self, z: Array) -> Array:
        return logistic(z)

    def forward(self, z: Array, target: Array) -> tuple[Array, FusedResiduals]:
        y = self.expected(z, target)
        positive = z.real > 0
        softplus = np.where(positive, z, 0) + np.log1p(np.exp(np.where(positive, -z, z)))
        return (softplus - y * z).sum(), FusedResiduals(logistic(z), y)

    def backward(self, residuals: FusedResiduals) -> Array:
        return residuals.p - residuals.y

    def count(self, z: Array) -> int:
        return prod(z.shape[1:]) if self.per_pixel else z.shape[-1]

    def expected(self, z: Array, target: Array) -> Array:
        return unfolded(z, target)

    def head_terms(self, at: LossPass, index: Index) -> Terms:
        return head_terms("sigmoid", at, index)

    def dz_terms(self, at: LossPass, index: Index) -> Terms:
        return difference(at, index)

    def loss_terms(self, at: LossPass) -> Terms:
        terms: list[Term] = []
        for index in np.ndindex(at.z.shape):
            z, y = float(at.z[index]), float(at.target[index])
            small = float(np.log1p(np.exp(-abs(z))))  # −log(p) is small where z > 0, −log(1 − p) where z < 0
            yes, no = max(-z, 0) + small, max(z, 0) + small
            terms.append(Term((y * yes + (1 - y) * no) / at.count))
        reads = tuple(Ref(tensor, index) for index in np.ndindex(at.z.shape) for tensor in (OUTPUT, TARGET))
        if len(terms) == 1:
            numbers = {"p": at[reads[0]], "y": at[reads[1]]}
            return Terms("loss = −({y} · log({p}) + (1 − {y}) · log(1 − {p}))", tuple(terms), reads, numbers)
        return Terms("loss = −Σ (y · log(p) + (1 − y) · log(1 − p))" + " / n" * (at.count > 1), tuple(terms), reads)


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

    head: Head = "none"

    def predict(self, z: Array) -> Array:
        match self.head:
            case "none":
                return z
            case "sigmoid":
                return logistic(z)
            case "softmax":
                return softmax(z)
            case _:
                assert_never(self.head)

    def forward(self, z: Array, target: Array) -> tuple[Array, SquaredErrorResiduals]:
        y = self.expected(z, target)
        p = self.predict(z)
        error = p - y
        return (error * error).sum(), SquaredErrorResiduals(p, error)

    def backward(self, residuals: SquaredErrorResiduals) -> Array:
        p, dp = residuals.p, 2 * residuals.error
        match self.head:
            case "none":
                return dp
            case "sigmoid":
                return dp * p * (1 - p)
            case "softmax":
                return p * (dp - (p * dp).sum(0))
            case _:
                assert_never(self.head)

    def count(self, z: Array) -> int:
        return prod(z.shape)

    def expected(self, z: Array, target: Array) -> Array:
        return unfolded(z, target)

    def head_terms(self, at: LossPass, index: Index) -> Terms:
        return head_terms(self.head, at, index)

    def loss_terms(self, at: LossPass) -> Terms:
        squares = (at.p - at.target) ** 2
        return Terms(
            f"loss = Σ (p − y)² / {at.count}",
            tuple(Term(float(squares[index]) / at.count) for index in np.ndindex(at.z.shape)),
            tuple(Ref(tensor, index) for index in np.ndindex(at.z.shape) for tensor in (OUTPUT, TARGET)),
        )

    def dz_terms(self, at: LossPass, index: Index) -> Terms:
        p, formula = at[Ref(OUTPUT, index)], f"dz = 2 · (p − y) / {at.count}"
        slopes = [(index, 1.0)]  # of the predictions that read this logit
        if self.head == "sigmoid":
            slopes = [(index, p * (1 - p))]
            formula += " · p · (1 − p)"
        if self.head == "softmax":
            k, *place = index
            others = [(m, *place) for m in range(len(at.p))]
            slopes = [(index, p), *((other, -p * float(at.p[other])) for other in others)]
            formula = f"dz[{k}] = p[{k}] · (dp[{k}] − Σ p · dp), where dp = 2 · (p − y) / {at.count}"
        terms = (
            Term(sign * slope * 2 / at.count, (Ref(tensor, other),))
            for other, slope in slopes
            for tensor, sign in ((OUTPUT, 1), (TARGET, -1))
        )
        return Terms(formula, tuple(terms), (Ref(OUTPUT, index),) if self.head != "none" else ())


@dataclass(frozen=True, slots=True)
class WeightedLoss:
    """A loss at a layer's output, and how much it counts in the total that training minimizes.

        L = Σ_k w_k L_k        dL / dz_k = w_k · dL_k / dz_k

    References
    ----------
    Szegedy et al. 2015, arXiv:1409.4842, section 5; Lee et al. 2015, arXiv:1409.5185.
    """

    layer: str
    loss: Loss[Any]
    weight: float = 1.0


def total_loss(losses: Sequence[WeightedLoss], sums: Sequence[Any], counts: Sequence[float]) -> Any:
    """Return L from each loss summed over a batch, and from what each sum is divided by."""
    return sum(one.weight * own / count for one, own, count in zip(losses, sums, counts, strict=True))


def make_loss(head: Head, loss: LossName, label_smoothing: float = 0.0, *, per_pixel: bool = False) -> Loss[Any]:
    """Return the loss for a config's `model.head` and `train.loss`; `per_pixel` is for masks.

    Raises
    ------
    ValueError
        When the two do not fit each other.
    """
    match loss, head:
        case "cross_entropy", "softmax":
            return SoftmaxCrossEntropy(label_smoothing)
        case "binary_cross_entropy", "sigmoid":
            return SigmoidBinaryCrossEntropy(per_pixel)
        case "mse", "none" | "sigmoid" | "softmax":
            return MeanSquaredError(head)
        case _:
            raise ValueError(f"a {head} head does not fit the loss {loss}")
