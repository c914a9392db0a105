"""The verdict on an example: does anything that cnnbp says about its gradients fail to be true?

`cnnbp gradcheck` compares a backward pass with the forward pass that it belongs to. What lies around both is
judged here by other means: the mean that the loss is, the sums of several workers, the updates of training.
What is judged is imported late, as it may have to be imported with a fault in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np
from laws.passes import on_workers
from proof.example import Example
from proof.zoo import Inhabitant

if TYPE_CHECKING:
    from cnnbp_cli.core.types import Array
    from cnnbp_cli.model import Model

STEP = 1e-30
TOLERANCE = 1e-9


def complaint(inhabitant: Inhabitant) -> str | None:
    """Return what is wrong with the gradients of an example, or None."""
    with np.errstate(all="ignore"), ExitStack() as changes:
        for change in _changes(inhabitant):
            changes.enter_context(change)
        return _complaint(inhabitant)


def _changes(inhabitant: Inhabitant) -> Iterator[AbstractContextManager[Any]]:
    """Yield what is different from production while an example is judged."""
    from cnnbp_cli.core import correlate, rows
    from cnnbp_cli.core.correlate import by_rows, by_strips, products

    if inhabitant.blocks:
        yield patch.object(by_rows, "PRODUCTS_BYTES", 1)
        yield patch.object(by_strips, "STRIP_BYTES", 2000)
        yield patch.object(by_strips, "LARGE_STRIP_BYTES", 8000)
        yield patch.object(rows, "BLOCK_BYTES", 2000)
    if inhabitant.points:
        for name, value in {"POINT_TYPES": "fd", "POINT_TERMS": 1, "POINT_PRODUCT": 1}.items():
            yield patch.object(correlate, name, value)
    if inhabitant.blocks or inhabitant.points:
        yield patch.object(products, "processor", lambda: products.HAVE_SMALL_KERNELS[0])
        for name, size in {"SMALL": 200, "SMALL_TRANSPOSED": 24, "ROWS": 4, "COLUMNS": 4}.items():
            yield patch.object(products, name, size)


def _complaint(inhabitant: Inhabitant) -> str | None:
    from cnnbp_cli.gradient_check.check import gradcheck

    model, images, labels = inhabitant.example.build()
    report = gradcheck(model, images, labels)
    if not report.ok:
        wrong = [check for check in report.parameters if check.status == "wrong"]
        return f"gradcheck: {wrong[0].name} is off by {max(check.relative_error for check in wrong):.1e}"
    return (
        (_mean_loss(inhabitant.example, model, images, labels) if inhabitant.mean_loss else None)
        or (_workers(model, images, labels) if inhabitant.workers else None)
        or (_steps(inhabitant.example) if inhabitant.steps else None)
    )


def _apart(a: Any, b: Any) -> bool:
    """Tell whether two arrays differ by more than rounding."""
    a, b = np.asarray(a), np.asarray(b)
    scale = max(np.abs(a).max(initial=0), np.abs(b).max(initial=0))
    return a.shape != b.shape or not np.abs(a - b).max(initial=0) <= TOLERANCE * scale


# ---------------------------------------------------------------- the mean loss


def plain_total(example: Example, zs: Mapping[str, Array], target: Array) -> Any:
    """Return what training minimizes, for the outputs (…, n) of the layers that have losses; they may be complex."""
    alone = [{"layer": next(iter(zs)), "loss": example.train["loss"]}]
    every = example.train.get("losses", alone)
    return sum(
        one.get("weight", 1.0) * plain_loss(example, zs[one["layer"]], target, one.get("loss", example.train["loss"]))
        for one in every
    )


def plain_loss(example: Example, z: Array, target: Array, loss: str) -> Any:
    """Return the mean loss for outputs z (…, n), which may be complex, by the formulas of the textbooks."""
    head = example.model.get("head", "softmax")
    units, n = len(z), z.shape[-1]
    y = target
    if target.ndim == 1 and units == 1:
        y = target[None].astype(float)
    elif target.ndim == 1:
        y = np.array([[1.0 if k == label else 0.0 for label in target] for k in range(units)])
    if loss == "cross_entropy":
        a = example.train.get("label_smoothing", 0.0)
        y = y * (1 - a) + a / units
        return (y * (np.log(np.exp(z).sum(0)) - z)).sum() / n
    if loss == "binary_cross_entropy":
        p = 1 / (1 + np.exp(-z))
        return -(y * np.log(p) + (1 - y) * np.log(1 - p)).sum() / n
    p = {"softmax": lambda: np.exp(z) / np.exp(z).sum(0), "sigmoid": lambda: 1 / (1 + np.exp(-z)), "none": lambda: z}
    error = p[head]() - y
    return (error * error).sum() / z.size


def _mean_loss(example: Example, model: Model, images: Array, labels: Array | None) -> str | None:
    """Check `Model.loss_and_gradients` along a direction in all tensors at once."""
    from cnnbp_cli.core.types import Context

    loss, gradients = model.loss_and_gradients(images, labels)
    x = model.images_in(images)
    target = model.targets_in(labels, x)
    ctx = Context(training=True, seed=example.seed)

    def mean(zs: Sequence[Array]) -> Any:
        return plain_total(example, dict(zip(model.graph.outputs, zs, strict=True)), target)

    if _apart(loss, mean(model.graph.forward(model.params, x, ctx)[0])):
        return "the loss is not the mean"
    rng = np.random.default_rng(0)
    v = {name: rng.normal(size=gradient.shape) for name, gradient in gradients.items()}
    params = {
        node: {key: value + 1j * STEP * v.get(f"{node}.{key}", 0) for key, value in own.items()}
        for node, own in model.params.items()
    }
    zs, _ = model.graph.forward(params, x + 1j * STEP * np.moveaxis(v["input"], 0, -1), ctx)
    numeric = np.imag(mean(zs)) / STEP
    analytic = [(gradient * v[name]).sum() for name, gradient in gradients.items()]
    scale = sum(np.abs(gradient * v[name]).sum() for name, gradient in gradients.items())
    if not abs(sum(analytic) - numeric) <= TOLERANCE * scale:
        return "loss_and_gradients: not the derivative of the mean loss"
    return None


# ---------------------------------------------------------------- several workers


def _workers(model: Model, images: Array, labels: Array | None) -> str | None:
    """Compare the gradients of two slices, summed, with those of the whole batch."""
    from cnnbp_cli.core.types import Context

    x = model.images_in(images)
    target, n = model.targets_in(labels, x), x.shape[-1]

    def gradients(worker: Any) -> dict[str, Array]:
        part = slice(n * worker.rank // worker.size, n * (worker.rank + 1) // worker.size)
        ctx = Context(training=True, workers=worker, first_sample=part.start)
        (z,), tape = model.graph.forward(model.params, x[..., part], ctx)
        _, residuals = model.loss_function.forward(z, target[..., part])
        dx, grads = model.graph.backward(model.params, tape, [model.loss_function.backward(residuals)], ctx)
        assert dx is not None
        sums = {f"{node}.{key}": value for node, own in grads.items() for key, value in own.items()}
        return sums | {f"input {k}": dx[..., k - part.start] for k in range(part.start, part.stop)}

    (whole,), parts = on_workers(1, gradients), on_workers(2, gradients)
    for name, value in whole.items():
        if _apart(value, sum(part[name] for part in parts if name in part)):
            return f"two workers: another gradient of {name}"
    return None


# ---------------------------------------------------------------- training

SAMPLES = 11  # two batches and a short one


def _batch_by_hand(
    model: Model, images: Array, labels: Array | None, weights: list[float] | None
) -> tuple[float, Array]:
    """Return a batch's loss and gradient; where classes have weights, as the weighted mean of those of each image."""
    parts = [(1.0, images, labels)]
    if weights is not None and labels is not None:
        parts = [(weights[label], images[k : k + 1], labels[k : k + 1]) for k, label in enumerate(labels)]
    total, loss, flat = sum(part[0] for part in parts), 0.0, np.zeros_like(model.vector)
    for weight, some, theirs in parts:
        own, gradients = model.loss_and_gradients(some, theirs)
        loss += weight / total * own
        flat += weight / total * np.concatenate([gradients[entry.name].ravel() for entry in model.layout.entries])
    return loss, flat


def _steps(example: Example) -> str | None:
    """Train, and repeat every update by hand: SGD with momentum and weight decay."""
    from cnnbp_cli.data.batches import order
    from cnnbp_cli.data.dataset import Dataset
    from cnnbp_cli.data.normalization import Normalization
    from cnnbp_cli.data.split import Split
    from cnnbp_cli.train.events import StepDone
    from cnnbp_cli.train.fit import fit

    train, sgd = example.train, example.train["optimizer"]
    trained, by_hand = example.build()[0], example.build()[0]
    images, labels = example.draw_images(SAMPLES), example.draw_labels(SAMPLES, trained.output_shape)
    split = Split(images, np.zeros(SAMPLES, int) if labels is None else labels)
    channels = images.shape[1]
    data = Dataset(split, None, None, Normalization("none", (0.0,) * channels, (1.0,) * channels), None, "example")
    steps = [event for event in fit(trained, data) if isinstance(event, StepDone)]
    size, velocity, done = train["batch_size"], np.zeros_like(by_hand.vector), iter(steps)
    if len(steps) != train["epochs"] * -(-SAMPLES // size):
        return f"training: ended after {len(steps)} steps"
    for epoch in range(train["epochs"]):
        visit = order(example.seed, epoch, SAMPLES)
        for start in range(0, SAMPLES, size):
            chosen, step = visit[start : start + size], next(done)
            target = None if labels is None else labels[chosen]
            loss, flat = _batch_by_hand(by_hand, images[chosen], target, train.get("class_weights"))
            if _apart(step.loss, loss):
                return "training: another loss than that of the batch"
            if _apart(step.grad_norm, np.linalg.norm(flat)):
                return "training: another gradient than that of the batch"
            velocity = sgd["momentum"] * velocity + flat + sgd["weight_decay"] * by_hand.vector
            by_hand.vector -= sgd["learning_rate"] * velocity
    return "training: another update than the gradient's" if _apart(trained.vector, by_hand.vector) else None
