"""Four networks of which nobody publishes multiply-accumulates, from their papers, for PyTorch's own counter."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (PyTorch's own custom)


def all_cnn_c() -> nn.Module:
    """Springenberg et al. 2015, table 1, model C with its pools replaced by strides (table 2)."""
    layers: list[nn.Module] = []
    before = 3
    for after, kernel, stride, padding in (
        *((96, 3, 1, 1), (96, 3, 1, 1), (96, 3, 2, 1)),
        *((192, 3, 1, 1), (192, 3, 1, 1), (192, 3, 2, 1)),
        *((192, 3, 1, 0), (192, 1, 1, 0), (10, 1, 1, 0)),
    ):
        layers += [nn.Conv2d(before, after, kernel, stride, padding), nn.ReLU()]
        before = after
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


class WideBlock(nn.Module):
    """Batch norm, ReLU and convolution twice (Zagoruyko & Komodakis 2016, figure 1 b)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(before), nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(after), nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(before, after, 1, stride, bias=False) if before != after else None

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(x))
        return self.conv2(F.relu(self.bn2(self.conv1(y)))) + (x if self.shortcut is None else self.shortcut(y))


def wrn_16_4() -> nn.Module:
    """Three groups of (16 − 4) / 6 blocks, of 16, 32 and 64 channels times 4 (table 1)."""
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, 1, 1, bias=False)]
    before = 16
    for after, stride in ((64, 1), (128, 2), (256, 2)):
        layers += [WideBlock(before, after, stride), WideBlock(after, after, 1)]
        before = after
    return nn.Sequential(*layers, nn.BatchNorm2d(256), nn.ReLU(), nn.AvgPool2d(8), nn.Flatten(), nn.Linear(256, 10))


def dcgan_generator() -> nn.Module:
    """As PyTorch's tutorial has it, with nz = 100 and ngf = 64."""
    layers: list[nn.Module] = []
    before = 100
    for after, stride, padding in ((512, 1, 0), (256, 2, 1), (128, 2, 1), (64, 2, 1)):
        layers += [nn.ConvTranspose2d(before, after, 4, stride, padding, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        before = after
    return nn.Sequential(*layers, nn.ConvTranspose2d(64, 3, 4, 2, 1, bias=False), nn.Tanh())


def _double(before: int, after: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(before, after, 3), nn.ReLU(), nn.Conv2d(after, after, 3), nn.ReLU())


class UNet(nn.Module):
    """Ronneberger et al. 2015, figure 1: no padding, and the middle of each map across."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (64, 128, 256, 512, 1024)
        self.down = nn.ModuleList(map(_double, (1, *sizes), sizes))
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * size, size, 2, 2) for size in sizes[-2::-1])
        self.merge = nn.ModuleList(_double(2 * size, size) for size in sizes[-2::-1])
        self.classes = nn.Conv2d(64, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        across: list[Tensor] = []
        for k, double in enumerate(self.down):
            x = double(F.max_pool2d(x, 2) if k else x)
            across.append(x)
        for up, merge, skip in zip(self.up, self.merge, across[-2::-1], strict=True):
            x = up(x)
            cut = (skip.shape[2] - x.shape[2]) // 2
            x = merge(torch.cat([skip[:, :, cut : cut + x.shape[2], cut : cut + x.shape[3]], x], 1))
        return self.classes(x)


NETWORKS = {
    "all-cnn-c": (all_cnn_c, (3, 32, 32)),
    "wrn-16-4": (wrn_16_4, (3, 32, 32)),
    "dcgan-generator": (dcgan_generator, (100, 1, 1)),
    "unet": (UNet, (1, 572, 572)),
}
"""Each with the shape of its input."""


def counted(name: str) -> tuple[int, int]:
    """Return a network's parameters and multiply-accumulates, by PyTorch's counter, which has two FLOPs for each."""
    from torch.utils.flop_counter import FlopCounterMode

    build, shape = NETWORKS[name]
    with torch.device("meta"):  # shapes alone: nothing is computed
        network, image = build().eval(), torch.empty(1, *shape)
    with FlopCounterMode(display=False) as counter:
        network(image)
    return sum(value.numel() for value in network.parameters()), counter.get_total_flops() // 2
