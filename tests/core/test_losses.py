"""Losses against textbook formulas, against the complex step, and as sums over slices of a batch."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cnnbp_cli.core.losses import (
    MeanSquaredError,
    SigmoidBinaryCrossEntropy,
    SoftmaxCrossEntropy,
    make_loss,
    one_hot,
)

STEP = 1e-30

LOSSES = {
    "softmax": SoftmaxCrossEntropy(),
    "softmax-smoothed": SoftmaxCrossEntropy(0.2),
    "softmax-weighted": SoftmaxCrossEntropy(0.2, (0.5, 2.0, 1.0, 3.0)),
    "sigmoid": SigmoidBinaryCrossEntropy(),
    "mse": MeanSquaredError(),
    "mse-softmax": MeanSquaredError("softmax"),
    "mse-sigmoid": MeanSquaredError("sigmoid"),
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())


def logits(seed=0, classes=4, n=6, levels=None):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(classes, n)) if levels is None else rng.integers(-levels, levels + 1, (classes, n)) * 1.0
    return z, rng.integers(0, classes, n)


def targets(loss, z, labels):
    """Labels for a classifier, numbers to meet for a regression."""
    if loss == MeanSquaredError():
        return np.random.default_rng(9).normal(size=z.shape)
    return labels


@every_loss
@pytest.mark.parametrize("levels", [None, 1], ids=["smooth", "tied"])
def test_backward_is_the_derivative_of_forward(loss, levels):
    z, labels = logits(levels=levels)
    target = targets(loss, z, labels)
    value, residuals = loss.forward(z, target)
    dz = loss.backward(residuals)
    numeric = np.zeros(z.shape)
    for place in np.ndindex(z.shape):
        moved = z.astype(complex)
        moved[place] += 1j * STEP
        total, _ = loss.forward(moved, target)
        numeric[place] = total.imag / STEP
        np.testing.assert_allclose(total.real, value, rtol=1e-14)
    np.testing.assert_allclose(dz, numeric, rtol=1e-12, atol=1e-14)


def test_softmax_cross_entropy_is_the_textbooks():
    z, labels = logits()
    loss = SoftmaxCrossEntropy()
    p = np.exp(z) / np.einsum("kn->n", np.exp(z))
    value, residuals = loss.forward(z, labels)
    np.testing.assert_allclose(value, -sum(math.log(p[label, n]) for n, label in enumerate(labels)), rtol=1e-13)
    np.testing.assert_allclose(loss.predict(z), p, rtol=1e-13)
    np.testing.assert_allclose(loss.backward(residuals), p - np.eye(4)[:, labels], rtol=1e-12, atol=1e-15)
    assert loss.count(z) == 6


def test_label_smoothing_mixes_in_the_uniform_distribution():
    z, labels = logits()
    y = 0.8 * np.eye(4)[:, labels] + 0.2 / 4
    p = np.exp(z) / np.exp(z).sum(0)
    value, residuals = SoftmaxCrossEntropy(0.2).forward(z, labels)
    np.testing.assert_allclose(value, -np.einsum("kn,kn->", y, np.log(p)), rtol=1e-13)
    np.testing.assert_allclose(SoftmaxCrossEntropy(0.2).backward(residuals), p - y, rtol=1e-12, atol=1e-15)
    same, _ = SoftmaxCrossEntropy().forward(z, y)  # distributions may be given themselves
    np.testing.assert_allclose(same, value, rtol=1e-13)


def test_binary_cross_entropy_is_the_textbooks_summed_over_units():
    z, _ = logits(classes=3)
    y = np.random.default_rng(5).integers(0, 2, z.shape).astype(float)
    loss = SigmoidBinaryCrossEntropy()
    value, residuals = loss.forward(z, y)
    p = 1 / (1 + np.exp(-z))
    expected = -np.einsum("kn,kn->", y, np.log(p)) - np.einsum("kn,kn->", 1 - y, np.log(1 - p))
    np.testing.assert_allclose(value, expected, rtol=1e-13)
    np.testing.assert_allclose(loss.predict(z), p, rtol=1e-13)
    np.testing.assert_allclose(loss.backward(residuals), p - y, rtol=1e-12, atol=1e-15)
    assert loss.count(z) == 6


def test_labels_of_one_unit_are_zero_or_one_and_of_several_are_positions():
    z, _ = logits(classes=1)
    labels = np.array([0, 1, 1, 0, 1, 0])
    np.testing.assert_array_equal(one_hot(labels, 1, np.dtype(float)), labels[None])
    loss = SigmoidBinaryCrossEntropy()
    assert loss.forward(z, labels)[0] == loss.forward(z, labels[None] * 1.0)[0]
    np.testing.assert_array_equal(one_hot(np.array([2, 0]), 3, np.dtype(float)), [[0, 1], [0, 0], [1, 0]])
    z, labels = logits(classes=3)
    assert loss.forward(z, labels)[0] == loss.forward(z, np.eye(3)[:, labels])[0]


@pytest.mark.parametrize("head", ["none", "softmax", "sigmoid"])
def test_mean_squared_error_is_of_what_the_head_predicts(head):
    z, labels = logits()
    p = {"none": z, "softmax": np.exp(z) / np.exp(z).sum(0), "sigmoid": 1 / (1 + np.exp(-z))}[head]
    loss = MeanSquaredError(head)
    value, residuals = loss.forward(z, labels)
    error = p - np.eye(4)[:, labels]
    np.testing.assert_allclose(value, np.einsum("kn,kn->", error, error), rtol=1e-13)
    np.testing.assert_allclose(loss.predict(z), p, rtol=1e-13)
    jacobian = {
        "none": np.stack([np.eye(4)] * 6),
        "softmax": np.stack([np.diag(p[:, n]) - np.outer(p[:, n], p[:, n]) for n in range(6)]),
        "sigmoid": np.stack([np.diag(p[:, n] * (1 - p[:, n])) for n in range(6)]),
    }[head]
    expected = np.einsum("njk,jn->kn", jacobian, 2 * error)
    np.testing.assert_allclose(loss.backward(residuals), expected, rtol=1e-12, atol=1e-14)
    assert loss.count(z) == 24


def test_mean_squared_error_takes_images():
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(2, 3, 4, 5))
    loss = MeanSquaredError()
    value, residuals = loss.forward(z, y)
    np.testing.assert_allclose(value / loss.count(z), np.mean((z - y) ** 2), rtol=1e-13)
    np.testing.assert_allclose(loss.backward(residuals), 2 * (z - y), rtol=1e-13)


@every_loss
@pytest.mark.parametrize("cut", [0, 1, 4])
def test_slices_of_a_batch_add_up(loss, cut):
    z, labels = logits()
    target = targets(loss, z, labels)
    value, residuals = loss.forward(z, target)
    parts = [(z[:, part], target[..., part]) for part in (slice(0, cut), slice(cut, None))]
    results = [loss.forward(*part) for part in parts]
    np.testing.assert_allclose(sum(result[0] for result in results), value, rtol=1e-13)
    np.testing.assert_allclose(
        np.concatenate([loss.backward(result[1]) for result in results], 1), loss.backward(residuals), rtol=1e-13
    )
    assert sum(loss.count(part[0]) for part in parts) == loss.count(z)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_huge_logits_overflow_nowhere(dtype):
    z = np.array([[1e4, -1e4, 0], [-1e4, 1e4, 0], [0, 0, -1e4]], dtype)
    value, residuals = SoftmaxCrossEntropy().forward(z, np.array([1, 1, 0]))
    np.testing.assert_allclose(value, 2e4 + math.log(2), rtol=1e-6)
    np.testing.assert_allclose(
        SoftmaxCrossEntropy().backward(residuals), [[1, 0, -0.5], [-1, 0, 0.5], [0, 0, 0]], atol=1e-7
    )
    value, residuals = SigmoidBinaryCrossEntropy().forward(z, np.eye(3, dtype=dtype))
    np.testing.assert_allclose(value, 1e4 + 4 * math.log(2), rtol=1e-6)
    dz = SigmoidBinaryCrossEntropy().backward(residuals)
    np.testing.assert_allclose(dz, [[0, 0, 0.5], [0, 0, 0.5], [0.5, 0.5, -1]], atol=1e-7)
    for head in ("softmax", "sigmoid"):
        value, residuals = MeanSquaredError(head).forward(z, np.eye(3, dtype=dtype))
        assert np.isfinite(value)
        assert np.isfinite(MeanSquaredError(head).backward(residuals)).all()


@every_loss
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_dtype_is_kept(loss, dtype):
    z, labels = logits()
    target = targets(loss, z, labels)
    value, residuals = loss.forward(z.astype(dtype), target.astype(dtype) if target.dtype.kind == "f" else target)
    assert value.dtype == dtype
    assert loss.backward(residuals).dtype == dtype
    assert loss.predict(z.astype(dtype)).dtype == dtype


@every_loss
def test_the_logits_and_targets_are_not_modified(loss):
    z, labels = logits()
    target = targets(loss, z, labels)
    z.flags.writeable = target.flags.writeable = False
    value, residuals = loss.forward(z, target)
    np.testing.assert_array_equal(loss.backward(residuals), loss.backward(residuals))
    assert loss.forward(z, target)[0] == value


@pytest.mark.parametrize(
    ("head", "loss", "expected"),
    [
        ("softmax", "cross_entropy", SoftmaxCrossEntropy(0.1)),
        ("sigmoid", "binary_cross_entropy", SigmoidBinaryCrossEntropy()),
        ("none", "mse", MeanSquaredError("none")),
        ("softmax", "mse", MeanSquaredError("softmax")),
        ("sigmoid", "mse", MeanSquaredError("sigmoid")),
    ],
)
def test_a_head_and_a_loss_that_fit(head, loss, expected):
    assert make_loss(head, loss, 0.1) == expected


@pytest.mark.parametrize(
    ("head", "loss"),
    [
        ("sigmoid", "cross_entropy"),
        ("none", "cross_entropy"),
        ("softmax", "binary_cross_entropy"),
        ("none", "binary_cross_entropy"),
        ("tanh", "mse"),
        ("softmax", "hinge"),
    ],
)
def test_a_head_and_a_loss_that_do_not_fit(head, loss):
    with pytest.raises(ValueError, match=f"^a {head} head does not fit the loss {loss}$"):
        make_loss(head, loss)
