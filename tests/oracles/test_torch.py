"""Every layer, loss and window count against PyTorch, forward and backward, in float64; skipped where it is missing."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from laws.cases import ALL_CASES, CASES
from laws.passes import EVALUATION, TRAINING, passes, problem, smooth, tied
from oracles.naive import two

from cnnbp_cli.core.layers import LAYERS
from cnnbp_cli.core.losses import MeanSquaredError, SigmoidBinaryCrossEntropy, SoftmaxCrossEntropy
from cnnbp_cli.core.types import ShapeError
from cnnbp_cli.core.windows import Windows

torch = pytest.importorskip("torch")
F = torch.nn.functional
from oracles.torch_model import apply  # noqa: E402 (it needs PyTorch)

Tensor = Any


def batch_first(array: np.ndarray) -> Tensor:
    """(c, h, w, n) to (N, C, H, W), and (features, n) to (N, features)."""
    return torch.tensor(np.ascontiguousarray(np.moveaxis(array, -1, 0)), dtype=torch.float64)


def batch_last(tensor: Tensor) -> np.ndarray:
    return np.moveaxis(tensor.detach().numpy(), 0, -1)


COMPARED = [
    (case, ctx)
    for case in ALL_CASES
    for ctx in (TRAINING, EVALUATION)
    if not (case.layer.type == "dropout" and ctx.training)  # PyTorch draws another mask
]


def assert_close(actual: np.ndarray, expected: np.ndarray, tolerance: float = 1e-12) -> None:
    assert actual.shape == expected.shape
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale)


def test_every_registered_layer_is_compared():
    assert {case.layer.type for case, _ in COMPARED} == set(LAYERS)


@pytest.mark.parametrize("draw", [smooth, tied])
@pytest.mark.parametrize(
    ("case", "ctx"),
    [pytest.param(case, ctx, id=f"{case}-{'training' if ctx.training else 'evaluation'}") for case, ctx in COMPARED],
)
def test_pytorch_agrees(case, ctx, draw):
    numbers = problem(case, draw)
    ours = passes(numbers, ctx)
    xs = [batch_first(x).requires_grad_() for x in numbers.xs]
    p = {key: torch.tensor(value, dtype=torch.float64) for key, value in numbers.params.items()}
    for key in p.keys() - set(numbers.layer.state):
        p[key].requires_grad_()
    y = apply(case.layer, p | {"mask": torch.ones(())}, xs, ctx.training)
    y.backward(batch_first(numbers.dy))
    theirs = {"y": batch_last(y)} | {f"dx{k}": batch_last(x.grad) for k, x in enumerate(xs)}
    theirs |= {key: value.grad.numpy() for key, value in p.items() if value.requires_grad}
    assert ours.arrays.keys() == theirs.keys()
    for name, value in theirs.items():
        assert_close(ours.arrays[name], value, case.tolerance)
    for key, value in ours.state.items():  # PyTorch has updated its running statistics in place
        assert_close(value, p[key].numpy(), case.tolerance)
    assert bool(ours.state) == (case.layer.type == "batch_norm" and ctx.training)


@pytest.mark.parametrize("case", [case for case in CASES["max_pool2d"] if two(case.layer.pool_size) != (1, 1)], ids=str)
def test_on_flat_images_the_same_pixels_win(case):
    numbers = problem(case, lambda rng, shape: np.zeros(shape))
    (x,) = [batch_first(x).requires_grad_() for x in numbers.xs]
    apply(case.layer, {}, [x], True).backward(batch_first(numbers.dy))
    np.testing.assert_array_equal(passes(numbers, TRAINING).arrays["dx0"] != 0, batch_last(x.grad) != 0)


def test_window_counts_are_pytorchs():
    for size, kernel, stride, padding, dilation in product(range(1, 9), range(1, 5), range(1, 4), range(3), (1, 2)):
        x, weight = torch.zeros(1, 1, size), torch.zeros(1, 1, kernel)
        if dilation * (kernel - 1) + 1 > size + 2 * padding:
            with pytest.raises(ShapeError, match="is larger than its"):
                Windows.over((1, size, 1), (kernel, 1), (stride, 1), (padding, 0), (dilation, 1))
            continue
        windows = Windows.over((1, size, 1), (kernel, 1), (stride, 1), (padding, 0), (dilation, 1))
        assert windows.out == (F.conv1d(x, weight, None, stride, padding, dilation).shape[2], 1)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
def test_same_padding_is_pytorchs_where_it_has_it():
    rng = np.random.default_rng(0)
    for size, kernel, dilation in product(range(1, 9), range(1, 6), (1, 2)):
        windows = Windows.over((1, size, 1), (kernel, 1), 1, "same", (dilation, 1))
        x, w = rng.normal(size=size), rng.normal(size=kernel)
        ours = F.conv1d(
            F.pad(torch.tensor(x)[None, None], (windows.before[0], windows.after[0])),
            torch.tensor(w)[None, None],
            dilation=dilation,
        )
        theirs = F.conv1d(torch.tensor(x)[None, None], torch.tensor(w)[None, None], padding="same", dilation=dilation)
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-13, atol=1e-14)


# ---------------------------------------------------------------- losses

LABELS = np.array([0, 3, 1, 1, 2, 0])


def logits(units: int = 4) -> tuple[np.ndarray, Tensor]:
    z = np.random.default_rng(0).normal(size=(units, 6))
    return z, batch_first(z).requires_grad_()


def assert_loss_agrees(loss: Any, z: np.ndarray, target: np.ndarray, tensor: Tensor, theirs: Tensor) -> None:
    """Compare sums and their gradients; `theirs` is computed from `tensor`, the same logits."""
    theirs.backward()
    value, residuals = loss.forward(z, target)
    assert_close(np.array(value), theirs.detach().numpy())
    assert_close(loss.backward(residuals), batch_last(tensor.grad))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_softmax_cross_entropy(smoothing):
    z, tensor = logits()
    theirs = F.cross_entropy(tensor, torch.tensor(LABELS), reduction="sum", label_smoothing=smoothing)
    assert_loss_agrees(SoftmaxCrossEntropy(smoothing), z, LABELS, tensor, theirs)
    assert_close(SoftmaxCrossEntropy().predict(z), batch_last(F.softmax(tensor, 1)))


@pytest.mark.parametrize("units", [1, 4])
def test_sigmoid_binary_cross_entropy(units):
    z, tensor = logits(units)
    y = np.random.default_rng(1).integers(0, 2, z.shape).astype(float)
    theirs = F.binary_cross_entropy_with_logits(tensor, batch_first(y), reduction="sum")
    assert_loss_agrees(SigmoidBinaryCrossEntropy(), z, y[0] if units == 1 else y, tensor, theirs)


@pytest.mark.parametrize("head", ["none", "softmax", "sigmoid"])
def test_mean_squared_error(head):
    z, tensor = logits()
    y = np.eye(4)[:, LABELS]
    p = {"none": tensor, "softmax": F.softmax(tensor, 1), "sigmoid": torch.sigmoid(tensor)}[head]
    theirs = F.mse_loss(p, batch_first(y), reduction="sum")
    assert_loss_agrees(MeanSquaredError(head), z, LABELS, tensor, theirs)
    assert_close(
        np.array(MeanSquaredError(head).forward(z, LABELS)[0] / z.size), F.mse_loss(p, batch_first(y)).detach().numpy()
    )
