"""A config's network, loss and optimizer in PyTorch: written from the format's description, sharing no mathematics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812 (PyTorch's own custom)

from cnnbp_cli.config.schema import Config

Tensor = torch.Tensor


class TorchModel:
    """The network of a config, in float64.

    Parameters
    ----------
    config : Config
    parameters : mapping of str to array
        As `Model.parameters()` gives them.
    """

    def __init__(self, config: Config, parameters: Mapping[str, np.ndarray]) -> None:
        self.config = config
        self.values = {name: torch.tensor(value, dtype=torch.float64) for name, value in parameters.items()}
        self.trainable = {name: value for name, value in self.values.items() if ".running_" not in name}
        for value in self.trainable.values():
            value.requires_grad_()

    def logits(self, images: Tensor, masks: Mapping[str, Tensor], *, training: bool = True) -> Tensor:
        """Return the last layer's output for images (N, C, H, W); `masks` are what dropout multiplies with."""
        outputs = {"input": images}
        for spec in self.config.model.layers:
            xs = [outputs[name] for name in spec.inputs]
            prefix = f"{spec.name}."
            own = {name.removeprefix(prefix): value for name, value in self.values.items() if name.startswith(prefix)}
            if spec.layer.type == "dropout":
                own["mask"] = masks[spec.name] if training else torch.ones(())
            outputs[spec.name] = apply(spec.layer, own, xs, training)
        return outputs[self.config.model.layers[-1].name]

    def loss(self, images: Tensor, labels: Tensor, masks: Mapping[str, Tensor], *, training: bool = True) -> Tensor:
        """Return the mean loss; images that are their own target need no labels."""
        z = self.logits(images, masks, training=training)
        head, loss = self.config.model.head, self.config.train.loss
        if (head, loss) == ("softmax", "cross_entropy"):
            return F.cross_entropy(z, labels, label_smoothing=self.config.train.label_smoothing)
        if (head, loss) == ("sigmoid", "binary_cross_entropy"):
            return F.binary_cross_entropy_with_logits(z[:, 0], labels.double())
        assert (head, loss) == ("none", "mse")
        return F.mse_loss(z, images.detach())

    def optimizer(self) -> torch.optim.Optimizer:
        """Return PyTorch's optimizer for the config's, with the same fields."""
        o: Any = self.config.train.optimizer
        parameters = list(self.trainable.values())
        common = {"lr": o.learning_rate, "weight_decay": o.weight_decay}
        if o.type == "sgd":
            return torch.optim.SGD(parameters, momentum=o.momentum, nesterov=o.nesterov, **common)
        if o.type == "adam":
            return torch.optim.Adam(parameters, betas=o.betas, eps=o.epsilon, **common)
        if o.type == "adamw":
            return torch.optim.AdamW(parameters, betas=o.betas, eps=o.epsilon, **common)
        if o.type == "rmsprop":
            return torch.optim.RMSprop(
                parameters, alpha=o.alpha, eps=o.epsilon, momentum=o.momentum, centered=o.centered, **common
            )
        return torch.optim.Adagrad(
            parameters,
            lr_decay=o.learning_rate_decay,
            initial_accumulator_value=o.initial_accumulator,
            eps=o.epsilon,
            **common,
        )


def apply(layer: Any, own: Mapping[str, Tensor], xs: list[Tensor], training: bool) -> Tensor:
    """Return what a layer does to its inputs (N, …)."""
    x, weight, bias = xs[0], own.get("weight"), own.get("bias")
    match layer.type:
        case "conv2d":
            x = padded(x, layer, layer.kernel_size, layer.dilation)
            return F.conv2d(x, weight, bias, layer.stride, dilation=layer.dilation, groups=layer.groups)
        case "conv_transpose2d":
            assert layer.padding != "same"
            padding = 0 if layer.padding == "valid" else layer.padding
            return F.conv_transpose2d(x, weight, bias, layer.stride, padding, layer.output_padding)
        case "max_pool2d":
            stride = layer.stride or layer.pool_size
            return F.max_pool2d(padded(x, layer, layer.pool_size, 1, value=-torch.inf), layer.pool_size, stride)
        case "global_avg_pool2d":
            return x.mean((2, 3))
        case "flatten":
            return x.flatten(1)
        case "dense":
            return F.linear(x, weight, bias)
        case "batch_norm":
            mean, variance = own["running_mean"], own["running_var"]
            return F.batch_norm(x, mean, variance, weight, bias, training, 1 - layer.momentum, layer.epsilon)
        case "dropout":
            return x * own["mask"]
        case "add":
            return torch.stack(xs).sum(0)
        case name:
            return {"relu": F.relu, "sigmoid": torch.sigmoid}[name](x)


def padded(x: Tensor, layer: Any, kernel: Any, dilation: Any, value: float = 0.0) -> Tensor:
    """Pad as the layer says; with `same`, ceil(size / stride) windows fit and an odd pixel goes to the end."""
    amounts: list[int] = []
    for axis in (1, 0):  # PyTorch begins with the last axis
        if layer.padding == "same":
            size, k, s, d = x.shape[2 + axis], two(kernel)[axis], two(layer.stride)[axis], two(dilation)[axis]
            missing = max(0, (-(-size // s) - 1) * s + (k - 1) * d + 1 - size)
            amounts += [missing // 2, missing - missing // 2]
        else:
            amounts += [0 if layer.padding == "valid" else two(layer.padding)[axis]] * 2
    return F.pad(x, amounts, value=value)


def two(size: Any) -> tuple[int, int]:
    return size if isinstance(size, tuple) else (size, size)


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep PyTorch to one core: on images this small, more are slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
