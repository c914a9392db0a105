"""Every layer, loss and window count against PyTorch, forward and backward, in float64; skipped where it is missing."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
from laws.cases import ALL_CASES, CASES
from laws.passes import EVALUATION, TRAINING, passes, problem, smooth, tied
from oracles.naive import axis_padding, two

from cnnbp_cli.core.layers import LAYERS
from cnnbp_cli.core.losses import MeanSquaredError, SigmoidBinaryCrossEntropy, SoftmaxCrossEntropy
from cnnbp_cli.core.types import ShapeError
from cnnbp_cli.core.windows import Windows

torch = pytest.importorskip("torch")
F = torch.nn.functional

Tensor = Any
Tensors = dict[str, Tensor]


def batch_first(array: np.ndarray) -> Tensor:
    """(c, h, w, n) to (N, C, H, W), and (features, n) to (N, features)."""
    return torch.tensor(np.ascontiguousarray(np.moveaxis(array, -1, 0)), dtype=torch.float64)


def batch_last(tensor: Tensor) -> np.ndarray:
    return np.moveaxis(tensor.detach().numpy(), 0, -1)


def padded(layer: Any, x: Tensor, kernel: Any, stride: Any, dilation: Any = 1, value: float = 0.0) -> Tensor:
    """Pad as the layer says: PyTorch itself cannot pad one side more than the other, nor `same` with a stride."""
    (top, bottom), (left, right) = (
        axis_padding(layer.padding, axis, x.shape[2 + axis], two(kernel)[axis], two(stride)[axis], two(dilation)[axis])
        for axis in (0, 1)
    )
    return F.pad(x, (left, right, top, bottom), value=value)


def conv2d(layer: Any, p: Tensors, xs: list[Tensor], training: bool) -> Tensor:
    x = padded(layer, xs[0], layer.kernel_size, layer.stride, layer.dilation)
    return F.conv2d(x, p["weight"], p.get("bias"), layer.stride, 0, layer.dilation, layer.groups)


def conv_transpose2d(layer: Any, p: Tensors, xs: list[Tensor], training: bool) -> Tensor:
    if layer.padding != "same":
        padding = 0 if layer.padding == "valid" else layer.padding
        return F.conv_transpose2d(xs[0], p["weight"], p.get("bias"), layer.stride, padding, layer.output_padding)
    sizes = [size * s for size, s in zip(xs[0].shape[2:], two(layer.stride), strict=True)]
    cuts = [
        axis_padding("same", axis, size, two(layer.kernel_size)[axis], two(layer.stride)[axis])
        for axis, size in enumerate(sizes)
    ]
    extra = [max(s - k, 0) for k, s in zip(two(layer.kernel_size), two(layer.stride), strict=True)]
    y = F.conv_transpose2d(xs[0], p["weight"], p.get("bias"), layer.stride, 0, extra)
    (top, _), (left, _) = cuts
    return y[:, :, top : top + sizes[0], left : left + sizes[1]]


def max_pool2d(layer: Any, p: Tensors, xs: list[Tensor], training: bool) -> Tensor:
    stride = layer.stride or layer.pool_size
    x = padded(layer, xs[0], layer.pool_size, stride, value=-torch.inf)
    return F.max_pool2d(x, layer.pool_size, stride)


def avg_pool2d(layer: Any, p: Tensors, xs: list[Tensor], training: bool) -> Tensor:
    stride = layer.stride or layer.pool_size
    y = F.avg_pool2d(padded(layer, xs[0], layer.pool_size, stride), layer.pool_size, stride)
    if layer.count_include_pad:
        return y
    real = padded(layer, torch.ones_like(xs[0]), layer.pool_size, stride)
    return y / F.avg_pool2d(real, layer.pool_size, stride)  # the share of real pixels in each window


def batch_norm(layer: Any, p: Tensors, xs: list[Tensor], training: bool) -> Tensor:
    return F.batch_norm(
        xs[0], p["running_mean"], p["running_var"], p.get("weight"), p.get("bias"), training,
        1 - layer.momentum, layer.epsilon,
    )  # fmt: skip


def layer_norm(layer: Any, p: Tensors, xs: list[Tensor], training: bool) -> Tensor:
    return F.layer_norm(xs[0], xs[0].shape[1:], p.get("weight"), p.get("bias"), layer.epsilon)


def group_norm(layer: Any, p: Tensors, xs: list[Tensor], training: bool) -> Tensor:
    return F.group_norm(xs[0], layer.groups, p.get("weight"), p.get("bias"), layer.epsilon)


TORCH: dict[str, Callable[[Any, Tensors, list[Tensor], bool], Tensor]] = {
    "conv2d": conv2d,
    "conv_transpose2d": conv_transpose2d,
    "max_pool2d": max_pool2d,
    "avg_pool2d": avg_pool2d,
    "global_avg_pool2d": lambda layer, p, xs, training: F.adaptive_avg_pool2d(xs[0], 1).flatten(1),
    "global_max_pool2d": lambda layer, p, xs, training: F.adaptive_max_pool2d(xs[0], 1).flatten(1),
    "flatten": lambda layer, p, xs, training: xs[0].flatten(1),
    "dense": lambda layer, p, xs, training: F.linear(xs[0], p["weight"], p.get("bias")),
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "group_norm": group_norm,
    "dropout": lambda layer, p, xs, training: F.dropout(xs[0], layer.rate, training),
    "relu": lambda layer, p, xs, training: F.relu(xs[0]),
    "leaky_relu": lambda layer, p, xs, training: F.leaky_relu(xs[0], layer.slope),
    "elu": lambda layer, p, xs, training: F.elu(xs[0], layer.alpha),
    "gelu": lambda layer, p, xs, training: F.gelu(xs[0], approximate="tanh"),
    "silu": lambda layer, p, xs, training: F.silu(xs[0]),
    "sigmoid": lambda layer, p, xs, training: torch.sigmoid(xs[0]),
    "tanh": lambda layer, p, xs, training: torch.tanh(xs[0]),
    "softplus": lambda layer, p, xs, training: F.softplus(xs[0]),
    "softmax": lambda layer, p, xs, training: F.softmax(xs[0], 1),
    "identity": lambda layer, p, xs, training: xs[0].clone(),
    "add": lambda layer, p, xs, training: sum(xs[1:], xs[0]),
    "multiply": lambda layer, p, xs, training: torch.prod(torch.stack(xs), 0),
    "concat": lambda layer, p, xs, training: torch.cat(xs, 1),
}

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
    assert TORCH.keys() == LAYERS.keys()
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
    y = TORCH[case.layer.type](case.layer, p, xs, ctx.training)
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
    max_pool2d(case.layer, {}, [x], True).backward(batch_first(numbers.dy))
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
