"""The networks as a PyTorch user types them; the order of parameters is that of the configs."""

from __future__ import annotations

import torch
from torch import nn


def lenet5() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )


def keras_mnist() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Dropout(0.5), nn.Linear(1600, 10)),
    )


def pytorch_mnist() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.25)),
        *(nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10)),
    )


def vgg_bn() -> nn.Module:
    def block(c: int, f: int) -> list[nn.Module]:
        return [nn.Conv2d(c, f, 3, padding=1, bias=False), nn.BatchNorm2d(f), nn.ReLU()]

    return nn.Sequential(
        *(*block(1, 32), *block(32, 32), nn.MaxPool2d(2), *block(32, 64), *block(64, 64), nn.MaxPool2d(2)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)),
    )


def keras_cifar() -> nn.Module:
    def block(c: int, f: int) -> list[nn.Module]:
        convolutions = (nn.Conv2d(c, f, 3, padding=1), nn.ReLU(), nn.Conv2d(f, f, 3), nn.ReLU())
        return [*convolutions, nn.MaxPool2d(2), nn.Dropout(0.25)]

    return nn.Sequential(
        *(*block(3, 32), *block(32, 64)),
        *(nn.Flatten(), nn.Linear(2304, 512), nn.ReLU(), nn.Dropout(0.5), nn.Linear(512, 10)),
    )


def normalized(c: int, f: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Return a convolution that keeps the image's size but for its stride, and batch norm."""
    return [nn.Conv2d(c, f, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(f)]


class Residual(nn.Module):
    def __init__(self, c: int, f: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(*normalized(c, f, 3, stride), nn.ReLU(), *normalized(f, f, 3))
        self.shortcut = nn.Sequential(*normalized(c, f, 1, stride)) if stride > 1 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.branch(x) + self.shortcut(x))


def resnet20() -> nn.Module:
    widths = ((16, 16, 1), (16, 16, 1), (16, 16, 1), (16, 32, 2), (32, 32, 1), (32, 32, 1))
    blocks = [Residual(*width) for width in (*widths, (32, 64, 2), (64, 64, 1), (64, 64, 1))]
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    return nn.Sequential(*normalized(3, 16, 3), nn.ReLU(), *blocks, *head)


def mobilenet() -> nn.Module:
    def block(c: int, f: int, stride: int) -> list[nn.Module]:
        return [*normalized(c, c, 3, stride, groups=c), nn.ReLU(), *normalized(c, f, 1), nn.ReLU()]

    return nn.Sequential(
        *(*normalized(3, 32, 3), nn.ReLU(), *block(32, 64, 1), *block(64, 128, 2)),
        *(*block(128, 128, 1), *block(128, 256, 2), *block(256, 256, 1)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 10)),
    )


NETS = {
    "lenet5": lenet5,
    "keras-mnist": keras_mnist,
    "pytorch-mnist": pytorch_mnist,
    "vgg-bn": vgg_bn,
    "keras-cifar": keras_cifar,
    "resnet20": resnet20,
    "mobilenet": mobilenet,
}
