"""More published networks in plain PyTorch, small: what they ask of an import that the others do not."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (PyTorch's own custom)


def unit(
    before: int, after: int, kernel: int | tuple[int, int] = 1, activation: type[nn.Module] = nn.ReLU, **options: object
) -> nn.Sequential:
    """Return convolution, batch norm and activation, as nearly all of them have it."""
    sizes = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    options = {"padding": tuple(size // 2 for size in sizes)} | options
    return nn.Sequential(nn.Conv2d(before, after, kernel, bias=False, **options), nn.BatchNorm2d(after), activation())


class SqueezeExcitation(nn.Module):
    """A gate for each channel, with the activations that EfficientNet or RegNet has (Hu et al. 2018)."""

    def __init__(self, channels: int, squeezed: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1, self.fc2 = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)
        self.activation, self.scale_activation = activation(), nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return self.scale_activation(self.fc2(self.activation(self.fc1(self.avgpool(x))))) * x


class MBConv(nn.Module):
    """EfficientNet's block (Tan & Le 2019)."""

    def __init__(self, before: int, after: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = before * expand
        self.residual = stride == 1 and before == after
        self.block = nn.Sequential(
            unit(before, hidden, 1, nn.SiLU),
            unit(hidden, hidden, 5, nn.SiLU, stride=stride, groups=hidden),
            SqueezeExcitation(hidden, max(1, before // 4), nn.SiLU),
            nn.Conv2d(hidden, after, 1, bias=False),
            nn.BatchNorm2d(after),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) + x if self.residual else self.block(x)


class EfficientNet(nn.Module):
    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            unit(3, 8, 3, nn.SiLU, stride=2), MBConv(8, 12, 2, 4), MBConv(12, 12, 1, 4), unit(12, 24, 1, nn.SiLU)
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(24, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    n, c, h, w = x.size()
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


class ShuffleUnit(nn.Module):
    """Half of the channels pass, the other half is filtered, and then both are shuffled (Ma et al. 2018)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        half, self.stride = after // 2, stride
        seen = before if stride > 1 else half
        if stride > 1:
            self.branch1 = nn.Sequential(
                nn.Conv2d(before, before, 3, stride, 1, groups=before, bias=False),
                nn.BatchNorm2d(before),
                unit(before, half),
            )
        self.branch2 = nn.Sequential(
            unit(seen, half),
            nn.Conv2d(half, half, 3, stride, 1, groups=half, bias=False),
            nn.BatchNorm2d(half),
            unit(half, half),
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.stride > 1:
            return channel_shuffle(torch.cat((self.branch1(x), self.branch2(x)), 1), 2)
        first, second = x.chunk(2, dim=1)
        return channel_shuffle(torch.cat((first, self.branch2(second)), 1), 2)


class ShuffleNet(nn.Module):
    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1, self.maxpool = unit(3, 8, 3, stride=2), nn.MaxPool2d(3, 2, 1)
        self.stage2 = nn.Sequential(ShuffleUnit(8, 16, 2), ShuffleUnit(16, 16, 1))
        self.conv5, self.fc = unit(16, 24), nn.Linear(24, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv5(self.stage2(self.maxpool(self.conv1(x)))).mean([2, 3]))


class RegNetBlock(nn.Module):
    """A bottleneck with groups and a gate (Radosavovic et al. 2020)."""

    def __init__(self, before: int, after: int, stride: int, groups: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
        self.f = nn.Sequential(
            unit(before, after),
            unit(after, after, 3, stride=stride, groups=groups),
            SqueezeExcitation(after, 2, nn.ReLU),
            nn.Conv2d(after, after, 1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.proj(x) + self.f(x))


class RegNet(nn.Module):
    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = unit(3, 8, 3, stride=2)
        self.trunk_output = nn.Sequential(RegNetBlock(8, 12, 2, 3), RegNetBlock(12, 16, 2, 4))
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d((1, 1)), nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.avgpool(self.trunk_output(self.stem(x))).flatten(start_dim=1))


class InceptionE(nn.Module):
    """The block of Inception-v3 that branches twice (Szegedy et al. 2016), with kernels of 1×3 and 3×1."""

    def __init__(self, before: int) -> None:
        super().__init__()
        self.branch1x1, self.branch3x3_1 = unit(before, 6), unit(before, 6)
        self.branch3x3_2a, self.branch3x3_2b = unit(6, 6, (1, 3)), unit(6, 6, (3, 1))
        self.branch7x7 = nn.Sequential(unit(before, 4), unit(4, 4, (1, 7)), unit(4, 6, (7, 1)))
        self.branch_pool = unit(before, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.branch3x3_1(x)
        both = torch.cat([self.branch3x3_2a(y), self.branch3x3_2b(y)], 1)
        pooled = self.branch_pool(F.avg_pool2d(x, kernel_size=3, stride=1, padding=1))
        return torch.cat([self.branch1x1(x), both, self.branch7x7(x), pooled], 1)


class InceptionV3(nn.Module):
    """With the change of the input's scale that torchvision's pretrained weights want."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.Conv2d_1a_3x3, self.Mixed_7b = unit(3, 8, 3, stride=2, padding=0), InceptionE(8)
        self.reduce = unit(28, 12, 3, stride=2, padding=0)
        self.avgpool, self.dropout, self.fc = nn.AdaptiveAvgPool2d((1, 1)), nn.Dropout(), nn.Linear(40, classes)

    def forward(self, x: Tensor) -> Tensor:
        channels = ((0.229, 0.485), (0.224, 0.456), (0.225, 0.406))
        parts = [torch.unsqueeze(x[:, k], 1) * (s / 0.5) + (m - 0.5) / 0.5 for k, (s, m) in enumerate(channels)]
        y = self.Mixed_7b(self.Conv2d_1a_3x3(torch.cat(parts, 1)))
        y = torch.cat((self.reduce(y), F.max_pool2d(y, kernel_size=3, stride=2)), 1)
        return self.fc(torch.flatten(self.dropout(self.avgpool(y)), 1))


class GoogLeNet(nn.Module):
    """One inception module (Szegedy et al. 2015), with the local response norm of the paper."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1, self.maxpool1 = nn.Conv2d(3, 8, 7, 2, 3), nn.MaxPool2d(3, 2, ceil_mode=True)
        self.norm1, self.norm2 = nn.LocalResponseNorm(5, alpha=0.3), nn.LocalResponseNorm(3, 0.5, 0.5, 2.0)
        self.branch1, self.branch2 = (
            nn.Conv2d(8, 4, 1),
            nn.Sequential(nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 6, 3, 1, 1)),
        )
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1, ceil_mode=True), nn.Conv2d(8, 4, 1))
        self.fc = nn.Linear(14, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(self.maxpool1(F.relu(self.conv1(x))))
        x = self.norm2(F.relu(torch.cat([self.branch1(x), self.branch2(x), self.branch4(x)], 1)))
        return F.log_softmax(self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)), 1)


class Mnasnet(nn.Module):
    """Separable convolutions and inverted residuals (Tan et al. 2019), the mean as its last layers."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            unit(3, 8, 3, stride=2), unit(8, 8, 3, groups=8), nn.Conv2d(8, 6, 1, bias=False), nn.BatchNorm2d(6),
            unit(6, 18), unit(18, 18, 3, stride=2, groups=18), nn.Conv2d(18, 10, 1, bias=False), nn.BatchNorm2d(10),
        )  # fmt: skip
        self.classifier = nn.Sequential(nn.Dropout(p=0.2, inplace=True), nn.Linear(10, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.layers(x).mean([2, 3]))


class Decoder(nn.Module):
    """Transposed convolutions with groups and with holes; channels that are split, gated and weighed."""

    def __init__(self) -> None:
        super().__init__()
        self.up1 = nn.ConvTranspose2d(8, 12, 3, 2, 1, output_padding=1, groups=4)
        self.up2 = nn.ConvTranspose2d(4, 6, 3, 2, padding=2, dilation=(2, 3), bias=False)
        self.first = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        a, b, c = torch.split(self.up1(self.first(x)), [4, 4, 4], dim=1)
        y = self.up2(a * torch.sigmoid(b) - 0.3 * c)
        values, gate = y.chunk(2, 1)
        return torch.cat([values[:, :2] * torch.tanh(gate[:, 1:]), values[:, 2:]], 1)


MORE: dict[str, tuple[type[nn.Module], tuple[int, int]]] = {
    "efficientnet": (EfficientNet, (32, 24)),
    "shufflenet": (ShuffleNet, (32, 24)),
    "regnet": (RegNet, (32, 24)),
    "inception-v3": (InceptionV3, (31, 27)),
    "googlenet": (GoogLeNet, (32, 32)),
    "mnasnet": (Mnasnet, (24, 32)),
    "decoder": (Decoder, (6, 5)),
}
"""Each with the height and width of an image that is large enough for it."""
