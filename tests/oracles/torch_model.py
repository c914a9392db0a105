"""A config's network, loss and optimizer in PyTorch: written from the format's description, sharing no mathematics."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import PurePath
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
        self.frozen = {
            spec.name
            for spec in config.model.layers
            if not spec.trainable or any(map(PurePath(spec.shares or spec.name).match, config.model.freeze))
        }
        self.trainable = {
            name: value
            for name, value in self.values.items()
            if ".running_" not in name and name.split(".")[0] not in self.frozen
        }
        for value in self.trainable.values():
            value.requires_grad_()

    def outputs(
        self,
        images: Tensor,
        masks: Mapping[str, Tensor],
        *,
        training: bool = True,
        values: Mapping[str, Tensor] | None = None,
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Return every layer's output for images (N, C, H, W), and by how much each differs from `values`.

        Parameters
        ----------
        masks : mapping of str to Tensor
            What dropout layers multiply with.
        values : mapping of str to Tensor, optional
            Outputs that take the place of PyTorch's own, whose derivatives stay: two layers that round
            differently would let different pixels win where several are equal but for rounding.
        """
        outputs, differences = {"input": images}, dict[str, float]()
        waiting = {spec.name: spec for spec in self.config.model.layers}
        while waiting:  # a config may list layers in any order
            spec = next(spec for spec in waiting.values() if outputs.keys() >= {*spec.inputs})
            xs = [outputs[name] for name in spec.inputs]
            prefix = f"{spec.shares or spec.name}."
            own = {name.removeprefix(prefix): value for name, value in self.values.items() if name.startswith(prefix)}
            if spec.layer.type == "dropout":
                own["mask"] = masks[spec.name] if training else torch.ones(())
            y = apply(spec.layer, own, xs, training and spec.name not in self.frozen)
            if values is not None:
                value = values[spec.name]
                differences[spec.name] = relative(value, y, *xs)
                y = value + (y - y.detach())
            outputs[waiting.pop(spec.name).name] = y
        return outputs, differences

    def logits(self, images: Tensor, masks: Mapping[str, Tensor], *, training: bool = True) -> Tensor:
        """Return the last layer's output for images (N, C, H, W)."""
        return self.outputs(images, masks, training=training)[0][self.config.model.layers[-1].name]

    def loss(
        self, images: Tensor, labels: Tensor | None, masks: Mapping[str, Tensor], *, training: bool = True
    ) -> Tensor:
        """Return the mean loss; images that are their own target need no labels. Evaluation knows the output alone."""
        outputs, _ = self.outputs(images, masks, training=training)
        output = self.config.model.layers[-1].name
        return self.total(outputs, images, labels) if training else self.loss_of(outputs[output], images, labels)

    def total(self, outputs: Mapping[str, Tensor], images: Tensor, labels: Tensor | None) -> Tensor:
        """Return what training minimizes, from every layer's output."""
        losses = self.config.train.losses
        if not losses:
            return self.loss_of(outputs[self.config.model.layers[-1].name], images, labels)
        return sum(one.weight * self.loss_of(outputs[one.layer], images, labels, one.loss) for one in losses)

    def loss_of(self, z: Tensor, images: Tensor, labels: Tensor | None, loss: str | None = None) -> Tensor:
        """Return the mean loss of an output z (N, …); by default that of the last layer."""
        head, output = self.config.model.head, self.config.model.layers[-1].name
        if loss is None:
            own = {one.layer: one.loss for one in self.config.train.losses}
            loss = own.get(output, self.config.train.loss)
        if loss == "cross_entropy":
            return F.cross_entropy(z, labels, label_smoothing=self.config.train.label_smoothing)
        if labels is None or (z.ndim == 4 and head == "none" and labels.shape != z.shape):
            y = images.detach().reshape(z.shape)
        elif labels.is_floating_point() or z.shape[1] == 1:
            y = labels.double().reshape(z.shape)
        else:
            y = F.one_hot(labels, z.shape[1]).double()
        if loss == "binary_cross_entropy":
            return F.binary_cross_entropy_with_logits(z, y, reduction="sum") / len(z)
        p = {"none": lambda: z, "sigmoid": lambda: torch.sigmoid(z), "softmax": lambda: F.softmax(z, 1)}[head]()
        return F.mse_loss(p, y)

    def optimizer(self) -> torch.optim.Optimizer:
        """Return PyTorch's optimizer for the config's, with the same fields."""
        return optimizer(self.config.train.optimizer, [*self.trainable.values()])


def optimizer(o: Any, parameters: list[Tensor]) -> torch.optim.Optimizer:
    """Return PyTorch's optimizer with the fields of one of ours."""
    common = {"lr": o.learning_rate, "weight_decay": o.weight_decay}
    match o.type:
        case "sgd":
            return torch.optim.SGD(parameters, momentum=o.momentum, nesterov=o.nesterov, **common)
        case "adam":
            return torch.optim.Adam(parameters, betas=o.betas, eps=o.epsilon, **common)
        case "adamw":
            return torch.optim.AdamW(parameters, betas=o.betas, eps=o.epsilon, **common)
        case "rmsprop":
            return torch.optim.RMSprop(
                parameters, alpha=o.alpha, eps=o.epsilon, momentum=o.momentum, centered=o.centered, **common
            )
        case "adagrad":
            return torch.optim.Adagrad(
                parameters,
                lr_decay=o.learning_rate_decay,
                initial_accumulator_value=o.initial_accumulator,
                eps=o.epsilon,
                **common,
            )
    raise ValueError(o.type)


def apply(layer: Any, own: Mapping[str, Tensor], xs: list[Tensor], training: bool) -> Tensor:
    """Return what a layer does to its inputs (N, …)."""
    x, weight, bias = xs[0], own.get("weight"), own.get("bias")
    match layer.type:
        case "conv2d":
            x = padded(x, layer, layer.kernel_size, layer.dilation)
            return F.conv2d(x, weight, bias, layer.stride, dilation=layer.dilation, groups=layer.groups)
        case "conv_transpose2d":
            return conv_transpose2d(layer, x, weight, bias)
        case "max_pool2d":
            stride = layer.stride or layer.pool_size
            x = padded(x, layer, layer.pool_size, 1, value=-torch.inf)
            if layer.ceil_mode and layer.padding != "same":
                padding = 0 if layer.padding == "valid" else layer.padding
                return F.max_pool2d(xs[0], layer.pool_size, stride, padding, ceil_mode=True)
            return F.max_pool2d(x, layer.pool_size, stride)
        case "avg_pool2d":
            stride = layer.stride or layer.pool_size
            counted = padded(torch.ones_like(x), layer, layer.pool_size, 1, value=float(layer.count_include_pad))
            if layer.ceil_mode and layer.padding != "same":
                padding = 0 if layer.padding == "valid" else layer.padding
                return F.avg_pool2d(x, layer.pool_size, stride, padding, True, layer.count_include_pad)
            means = [F.avg_pool2d(v, layer.pool_size, stride) for v in (padded(x, layer, layer.pool_size, 1), counted)]
            return means[0] / means[1]
        case "global_avg_pool2d":
            return x.mean((2, 3))
        case "global_max_pool2d":
            return F.max_pool2d(x, x.shape[2:]).flatten(1)
        case "flatten":
            return x.flatten(1)
        case "dense":
            return F.linear(x, weight, bias)
        case "batch_norm":
            mean, variance = own["running_mean"], own["running_var"]  # not by `F`, which refuses single values
            return torch.batch_norm(
                x, weight, bias, mean, variance, training, 1 - layer.momentum, layer.epsilon, cudnn_enabled=False
            )
        case "layer_norm":
            if layer.over == "channels":
                return F.layer_norm(x.movedim(1, -1), x.shape[1:2], weight, bias, layer.epsilon).movedim(-1, 1)
            return F.layer_norm(x, x.shape[1:], weight, bias, layer.epsilon)
        case "local_response_norm":
            y = F.local_response_norm(
                x.reshape(*x.shape, *[1] * (4 - x.ndim)), layer.size, layer.alpha, layer.beta, layer.k
            )
            return y.reshape(x.shape)
        case "adaptive_avg_pool2d":
            return F.adaptive_avg_pool2d(x, layer.output_size)
        case "upsample":
            corners = {} if layer.mode == "nearest" else {"align_corners": layer.align_corners}
            return F.interpolate(x, layer.size, layer.scale or (None if layer.size else 2), layer.mode, **corners)
        case "pad":
            top, bottom, left, right = four(layer.padding)
            value = {"value": layer.value} if layer.mode == "constant" else {}
            return F.pad(x, (left, right, top, bottom), layer.mode, **value)
        case "crop":
            top, bottom, left, right = four(layer.cropping)
            return F.pad(x, (-left, -right, -top, -bottom))
        case "pixel_shuffle":
            return F.pixel_shuffle(x, layer.factor)
        case "slice_channels":
            return x[:, layer.start : layer.stop]
        case "channel_shuffle":
            return F.channel_shuffle(x, layer.groups)
        case "prelu":
            return F.prelu(x, weight)
        case "group_norm":
            return torch.group_norm(x, layer.groups, weight, bias, layer.epsilon)
        case "dropout":
            return x * own["mask"]
        case "add":
            return sum(broadcast(xs))
        case "multiply":
            return math.prod(broadcast(xs))
        case "concat":
            return torch.cat(xs, 1)
        case name:
            return activation(name, layer, x)


def activation(name: str, layer: Any, x: Tensor) -> Tensor:
    if name == "leaky_relu":
        return F.leaky_relu(x, layer.slope)
    if name == "elu":
        return F.elu(x, layer.alpha)
    if name == "gelu":
        return F.gelu(x, approximate=layer.approximate)
    if name == "softplus":
        return F.softplus(x, threshold=700.0)  # by default it is linear from 20 on
    if name == "softmax":
        return F.softmax(x, 1)
    if name == "identity":
        return x.clone()
    functions = {"relu": F.relu, "silu": F.silu, "sigmoid": torch.sigmoid, "tanh": torch.tanh}
    functions |= {"relu6": F.relu6, "hard_sigmoid": lambda x: F.relu6(x + 3) / 6, "hard_swish": F.hardswish}
    return functions[name](x)


def conv_transpose2d(layer: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    if layer.padding != "same":
        padding = 0 if layer.padding == "valid" else layer.padding
        if isinstance(padding, tuple) and len(padding) == 4:
            top, bottom, left, right = padding
            y = F.conv_transpose2d(x, weight, bias, layer.stride, 0, layer.output_padding, layer.groups, layer.dilation)
            return y[:, :, top : y.shape[2] - bottom, left : y.shape[3] - right]
        return F.conv_transpose2d(
            x, weight, bias, layer.stride, padding, layer.output_padding, layer.groups, layer.dilation
        )
    sizes = [size * s for size, s in zip(x.shape[2:], two(layer.stride), strict=True)]
    spans = [(k - 1) * d + 1 for k, d in zip(two(layer.kernel_size), two(layer.dilation), strict=True)]
    cuts = [max(0, k - s) // 2 for k, s in zip(spans, two(layer.stride), strict=True)]
    short = [max(0, s - k) for k, s in zip(spans, two(layer.stride), strict=True)]
    y = F.conv_transpose2d(x, weight, bias, layer.stride, 0, short, layer.groups, layer.dilation)
    return y[:, :, cuts[0] : cuts[0] + sizes[0], cuts[1] : cuts[1] + sizes[1]]


def relative(ours: Tensor, theirs: Tensor, *inputs: Tensor) -> float:
    """Return the largest difference between two tensors, relative to the largest value in it or its inputs."""
    assert ours.shape == theirs.shape
    scale = max(float(tensor.detach().abs().max()) for tensor in (theirs, *inputs))
    difference = float((ours - theirs).detach().abs().max())
    return difference / scale if scale else difference


def padded(x: Tensor, layer: Any, kernel: Any, dilation: Any, value: float = 0.0) -> Tensor:
    """Pad as the layer says; with `same`, ceil(size / stride) windows fit and an odd pixel goes to the end."""
    amounts: list[int] = []
    for axis in (1, 0):  # PyTorch begins with the last axis
        if layer.padding == "same":
            size, k, s, d = x.shape[2 + axis], two(kernel)[axis], two(layer.stride or kernel)[axis], two(dilation)[axis]
            missing = max(0, (-(-size // s) - 1) * s + (k - 1) * d + 1 - size)
            amounts += [missing // 2, missing - missing // 2]
        else:
            amounts += [0] * 2 if layer.padding == "valid" else four(layer.padding)[2 * axis : 2 * axis + 2]
    return F.pad(x, amounts, value=value)


def broadcast(xs: list[Tensor]) -> list[Tensor]:
    """Give vectors beside images two axes of size 1."""
    rank = max(x.ndim for x in xs)
    return [x.reshape(*x.shape, *[1] * (rank - x.ndim)) for x in xs]


def four(padding: Any) -> list[int]:
    """Return (top, bottom, left, right)."""
    if isinstance(padding, tuple) and len(padding) == 4:
        return list(padding)
    vertical, horizontal = two(padding)
    return [vertical, vertical, horizontal, horizontal]


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
