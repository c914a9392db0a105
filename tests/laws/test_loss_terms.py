"""The law of terms for heads and losses: prediction, loss and the gradient at the logits."""

from __future__ import annotations

from math import fsum

import numpy as np
import pytest

from cnnbp_cli.core.losses import MeanSquaredError, SigmoidBinaryCrossEntropy, SoftmaxCrossEntropy
from cnnbp_cli.core.terms import OUTPUT, LossPass, Term, Terms, products

SHAPES = [(5,), (1,)]
LOSSES = {
    "softmax": (SoftmaxCrossEntropy(), (5,)),
    "smoothed": (SoftmaxCrossEntropy(0.1), (5,)),
    "sigmoid": (SigmoidBinaryCrossEntropy(), (5,)),
    "one sigmoid": (SigmoidBinaryCrossEntropy(), (1,)),
    "mse": (MeanSquaredError(), (5,)),
    "mse of images": (MeanSquaredError(), (2, 3, 4)),
    "mse after softmax": (MeanSquaredError("softmax"), (5,)),
    "mse after sigmoid": (MeanSquaredError("sigmoid"), (5,)),
    "mse after sigmoid of images": (MeanSquaredError("sigmoid"), (2, 3, 4)),
}
every_loss = pytest.mark.parametrize(("loss", "shape"), LOSSES.values(), ids=LOSSES.keys())
counts = pytest.mark.parametrize("n", [1, 3])


def passed(loss, shape, n, scale=1.0):
    """Run a loss; return what its terms are stated about, the mean loss, and the gradient at the logits."""
    rng = np.random.default_rng(4)
    z = scale * rng.normal(size=(*shape, n))
    target = rng.integers(0, max(2, shape[0]), n) if len(shape) == 1 else rng.normal(size=z.shape)
    total, residuals = loss.forward(z, target)
    count = loss.count(z)
    at = LossPass(z, loss.predict(z), loss.expected(z, target), count)
    return at, float(total) / count, loss.backward(residuals) / count


def cells(loss, at: LossPass, mean: float, dz) -> list[tuple[float, Terms]]:
    found = [(mean, loss.loss_terms(at))]
    for index in np.ndindex(at.z.shape):
        found += [(float(at.p[index]), loss.head_terms(at, index)), (float(dz[index]), loss.dz_terms(at, index))]
    return found


def error(value: float, terms: Terms, at: LossPass) -> float:
    summands = products(at.__getitem__, terms.terms)
    return abs(fsum(summands) - value) / max(fsum(map(abs, summands)), 1e-300)


@every_loss
@counts
@pytest.mark.parametrize("scale", [1.0, 300.0], ids=["usual", "saturated"])
def test_the_terms_add_up(loss, shape, n, scale):
    at, mean, dz = passed(loss, shape, n, scale)
    for value, terms in cells(loss, at, mean, dz):
        assert error(value, terms, at) <= 1e-12, (value, terms)
        assert "{" not in terms.symbols() + terms.filled()


@every_loss
@counts
def test_a_coefficient_that_is_off_by_a_millionth_is_rejected(loss, shape, n):
    at, mean, dz = passed(loss, shape, n)
    for value, terms in cells(loss, at, mean, dz):
        largest = max(range(len(terms.terms)), key=lambda k: abs(products(at.__getitem__, terms.terms)[k]))
        wrong = list(terms.terms)
        wrong[largest] = Term(wrong[largest].coefficient * (1 + 1e-6), wrong[largest].factors)
        assert error(value, Terms(terms.formula, tuple(wrong)), at) > 1e-10


def test_the_fused_gradient_is_prediction_less_target():
    for loss, shape in (LOSSES["softmax"], LOSSES["sigmoid"]):
        at, _, _ = passed(loss, shape, 1)
        terms = loss.dz_terms(at, (2, 0))
        assert terms.symbols() == "dz = p − y"
        assert [(term.coefficient, term.factors[0].tensor) for term in terms.terms] == [(1, OUTPUT), (-1, "target")]
