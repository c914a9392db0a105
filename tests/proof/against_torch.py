"""Random networks in PyTorch: its autograd knows nothing of our backward passes.

Both compute every layer from the same inputs, ours: two programs that round differently would let different
pixels win where several are equal but for rounding, and a normalization of nearly equal values would make a
large difference of a small one. What is left to compare is each layer's output, and the gradients.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from oracles.torch_model import TorchModel
from proof.example import Example

from cnnbp_cli.core.graph import Tape
from cnnbp_cli.core.types import Array, Context
from cnnbp_cli.model import Model

ROUNDING = 1024 * np.finfo(np.float64).eps
"""Times the largest gradient and value of the network, and what normalizations divide by: less is rounding."""


@dataclass
class Disagreement:
    """How far apart two programs are, relative to each tensor's largest value.

    Attributes
    ----------
    errors : dict of str to float
        The loss, every output in training and in evaluation, and every gradient.
    rounding : list of str
        Gradients that are zero but for rounding, and differ by no more; they are not among the errors.
    """

    errors: dict[str, float] = field(default_factory=dict)
    rounding: list[str] = field(default_factory=list)

    @property
    def worst(self) -> float:
        return max(self.errors.values())


def disagreement(example: Example) -> Disagreement:
    """Compute an example in both programs."""
    model, images, labels = example.build()
    x = model.images_in(images)
    other = TorchModel(model.config, model.parameters())
    ctx = Context(training=True, seed=example.seed)
    values, flows, found = {"input": x}, {}, Disagreement()
    zs, tape = model.graph.forward(model.params, x, ctx, values.__setitem__)
    dzs = output_gradients(model, zs, model.targets_in(labels, x))
    dx, grads = model.graph.backward(model.params, tape, dzs, ctx, flows.__setitem__)
    mean, _, _ = model.backpropagate(x, model.targets_in(labels, x), ctx)

    pixels = batch_first(x).requires_grad_()
    turned = {name: batch_first(value) for name, value in values.items()}
    outputs, found.errors = other.outputs(pixels, masks(model, len(images), ctx), values=turned)
    target = None if labels is None else torch.tensor(labels)
    loss = other.total(outputs, pixels, target)
    loss.backward()
    largest_logit = max(float(np.abs(z).max()) for z in zs)  # the loss is a difference of numbers of this size
    found.errors["loss"] = abs(mean - loss.item()) / max(abs(loss.item()), largest_logit, 1e-300)
    largest = steepest_and_largest(model, tape, values, flows, 1 / model.loss_function.count(zs[0]))
    ours = {f"{node}.{key}": value for node, own in grads.items() for key, value in own.items()}
    theirs = {name: value.grad for name, value in other.trainable.items()}
    ours["d input"], theirs["d input"] = np.moveaxis(dx, -1, 0), pixels.grad
    for name, gradient in ours.items():
        grad = theirs[name]
        expected = np.zeros(gradient.shape) if grad is None else grad.numpy()  # None where nothing reads it
        difference, scale = np.abs(gradient - expected).max(), np.abs(expected).max()
        if difference <= 1e-9 * scale or difference > ROUNDING * largest:
            found.errors[name] = float(difference / scale) if difference else 0.0
        else:
            found.rounding.append(name)
    found.errors |= {f"{name} in evaluation": error for name, error in evaluated(model, other, x).items()}
    return found


def output_gradients(model: Model, zs: Sequence[Array], target: Array) -> list[Array]:
    """Return the gradient of the weighted sum of all mean losses at the output of each layer that has one."""
    return [
        one.weight * one.loss.backward(one.loss.forward(z, target)[1]) / one.loss.count(z)
        for one, z in zip(model.losses, zs, strict=True)
    ]


def steepest_and_largest(
    model: Model, tape: Tape, values: Mapping[str, Array], flows: Mapping[str, Array], unit: float
) -> float:
    """Return the size of the numbers that gradients are computed from; `unit` is that of one wrong prediction."""
    # A loss that is all but zero has gradients p - y and the like, which are differences of numbers about 1.
    steepest = max(unit, *(float(np.linalg.norm(flow)) for flow in flows.values()))
    factors = (float(np.linalg.norm(value)) for value in (*values.values(), *model.parameters().values()))
    largest = steepest * max(1.0, *factors)  # a layer without parameters multiplies with numbers about 1
    for residual in tape.residuals.values():  # a normalization magnifies rounding by 1 / standard deviation
        largest *= max(1.0, float(np.max(getattr(residual, "r", 1.0))))
    return largest


def evaluated(model: Model, other: TorchModel, x: Array) -> dict[str, float]:
    """Return the errors of all outputs in evaluation mode."""
    values = {"input": x}
    model.graph.forward(model.params, x, Context(), values.__setitem__)
    turned = {name: batch_first(value) for name, value in values.items()}
    fresh = TorchModel(model.config, model.parameters())  # training has moved its running statistics
    return fresh.outputs(turned["input"], {}, training=False, values=turned)[1]


def masks(model: Model, count: int, ctx: Context) -> dict[str, torch.Tensor]:
    """Return what our dropout layers multiply with."""
    found: dict[str, torch.Tensor] = {}
    for node in model.graph.nodes:
        if node.layer.type == "dropout":
            ones = np.ones((*model.graph.in_shapes(node)[0], count))
            found[node.name] = batch_first(node.forward({}, [ones], ctx)[0])
    return found


def batch_first(array: Array) -> torch.Tensor:
    return torch.tensor(np.ascontiguousarray(np.moveaxis(array, -1, 0)), dtype=torch.float64)


def run_torch(examples: int, seed: int) -> int:
    """Compare random networks; a disagreement is shrunk and shown."""
    from proof.campaign import at_length

    torch.set_num_threads(1)
    seen: Counter[str] = Counter()
    worst: dict[str, float] = {"output": 0.0, "loss": 0.0, "gradient": 0.0}

    @at_length(examples, seed)
    def check(example: Example) -> None:
        found = disagreement(example)
        assert found.worst <= 1e-9, f"{example}\n{ {k: v for k, v in found.errors.items() if v > 1e-9} }"
        seen.update(networks=1, rounding=len(found.rounding))
        for name, error in found.errors.items():
            kind = "loss" if name == "loss" else "gradient" if "." in name or name == "d input" else "output"
            worst[kind] = max(worst[kind], error)
            seen[kind] += 1

    check()
    print(f"{seen['networks']} networks agree; {seen['rounding']} gradients are zero but for rounding")
    for kind, error in worst.items():
        print(f"{seen[kind]:6} {kind}s, largest relative difference {error:.1e}")
    return 0
