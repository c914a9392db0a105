"""The one table that drives all layer laws: for every registered type, hyper-parameters and input shapes."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields, replace
from typing import Any

from cnnbp_cli.core.initializers import Constant, Normal, Orthogonal, Zeros
from cnnbp_cli.core.layers import (
    AdaptiveAvgPool2d,
    Add,
    AvgPool2d,
    BatchNorm,
    ChannelShuffle,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Crop,
    Dense,
    Dropout,
    Elu,
    Flatten,
    Gelu,
    GlobalAvgPool2d,
    GlobalMaxPool2d,
    GroupNorm,
    HardSigmoid,
    HardSwish,
    Identity,
    LayerNorm,
    LeakyRelu,
    LocalResponseNorm,
    MaxPool2d,
    Multiply,
    Pad,
    PixelShuffle,
    PRelu,
    Relu,
    Relu6,
    Sigmoid,
    Silu,
    SliceChannels,
    Softmax,
    Softplus,
    Tanh,
    Upsample,
)
from cnnbp_cli.core.types import Operation, Shape


@dataclass(frozen=True)
class Case:
    """One layer on inputs of some shapes; several shapes for a merge."""

    layer: Operation[Any]
    in_shapes: tuple[Shape, ...]
    dtype: str = "float64"

    @property
    def tolerance(self) -> float:
        """What rounding may do, relative to the largest value."""
        return 1e-12 if self.dtype == "float64" else 3e-5

    @property
    def out_shape(self) -> Shape:
        return self.layer.node_out_shape(self.in_shapes)

    def __str__(self) -> str:
        """Say what is not a default, then the shapes: `conv2d(filters=3,kernel_size=1)-2x5x4`."""
        said = [
            f"{field.name}={getattr(self.layer, field.name)}".replace(" ", "")
            for field in fields(self.layer)
            if field.name != "type" and (field.default is MISSING or getattr(self.layer, field.name) != field.default)
        ]
        shapes = ["x".join(str(size) for size in shape) for shape in self.in_shapes]
        dtype = [self.dtype] if self.dtype != "float64" else []
        return "-".join([f"{self.layer.type}({','.join(said)})", *shapes, *dtype])


def on(shape: Shape, *layers: Operation[Any]) -> list[Case]:
    """Put each of some single-input layers on the same shape."""
    return [Case(layer, (shape,)) for layer in layers]


IMAGE = (4, 6, 5)
VECTOR = (7,)

MANY_CHANNELS = on(  # in float32, some of these take another algorithm
    (4, 9, 7),
    Conv2d(4, 3),
    Conv2d(5, 3, padding="same", bias=False),
    Conv2d(4, 3, padding=(0, 2)),
    Conv2d(4, 3, padding=(0, 1, 2, 0)),
    Conv2d(4, 5, padding=2),
    Conv2d(4, 5),
    Conv2d(4, (3, 5), padding="same"),
    Conv2d(4, 3, stride=2, padding=1),
    Conv2d(4, 3, dilation=2, padding=2),
    Conv2d(6, 1),
)

CONVOLUTIONS = [
    *on((1, 6, 6), Conv2d(1, 3), Conv2d(3, 1), Conv2d(2, 6), Conv2d(2, 3, padding="same")),
    *on((3, 7, 1), Conv2d(2, (3, 1)), Conv2d(2, 3, padding=1)),
    *on(
        (2, 7, 6),
        Conv2d(3, 3),
        Conv2d(3, (3, 2), bias=False),
        Conv2d(3, 2, stride=2),
        Conv2d(3, (2, 3), stride=(3, 1)),
        Conv2d(3, 1, stride=3),
        Conv2d(3, 2, stride=4, padding=1),
        Conv2d(3, 3, padding="same"),
        Conv2d(3, (2, 4), padding="same"),
        Conv2d(3, 3, stride=2, padding="same"),
        Conv2d(3, 2, stride=(2, 3), padding="same"),
        Conv2d(3, 1, stride=2, padding="same"),
        Conv2d(3, 2, dilation=2, padding="same"),
        Conv2d(3, 3, stride=2, dilation=(2, 1), padding="same"),
        Conv2d(3, 3, padding=2),
        Conv2d(3, (3, 1), padding=(2, 0)),
        Conv2d(3, 2, padding=3, stride=2),
        Conv2d(3, 3, padding=(1, 0, 2, 0)),
        Conv2d(3, (3, 2), stride=2, padding=(0, 2, 1, 3)),
        Conv2d(3, 3, dilation=2),
        Conv2d(3, (2, 3), stride=2, dilation=(3, 2), padding=(1, 2)),
        Conv2d(4, 3, groups=2),
        Conv2d(2, 3, groups=2, padding="same", bias=False),
        Conv2d(6, (2, 3), groups=2, stride=2, dilation=(1, 2), padding=1),
        Conv2d(3, 3, init=Orthogonal()),
        Conv2d(3, 3, init=Normal(0.5)),
    ),
    *on((4, 7, 6), Conv2d(4, 3, groups=4), Conv2d(8, (3, 2), groups=4, stride=2, padding=1), Conv2d(4, 1, groups=2)),
    *MANY_CHANNELS,
    *(replace(case, dtype="float32") for case in MANY_CHANNELS),
]

TRANSPOSED_CONVOLUTIONS = [
    *on((1, 3, 4), ConvTranspose2d(1, 2), ConvTranspose2d(2, 1), ConvTranspose2d(2, (1, 3), padding=(0, 2))),
    *on(
        (3, 4, 3),
        ConvTranspose2d(2, 3),
        ConvTranspose2d(2, (3, 2), bias=False),
        ConvTranspose2d(2, 3, stride=2),
        ConvTranspose2d(2, 2, stride=2),
        ConvTranspose2d(2, 1, stride=3),
        ConvTranspose2d(2, 2, stride=(3, 1)),
        ConvTranspose2d(2, 3, padding=1),
        ConvTranspose2d(2, 3, padding=(0, 2, 1, 0)),
        ConvTranspose2d(2, (4, 3), stride=2, padding=(2, 1, 0, 1), output_padding=1),
        ConvTranspose2d(2, (4, 3), stride=2, padding=(1, 0)),
        ConvTranspose2d(2, 3, stride=2, padding=1, output_padding=1),
        ConvTranspose2d(2, (3, 4), stride=(3, 2), padding=(0, 1), output_padding=(2, 1)),
        ConvTranspose2d(2, 3, padding="same"),
        ConvTranspose2d(2, 3, stride=2, padding="same"),
        ConvTranspose2d(2, (2, 4), stride=(3, 2), padding="same"),
        ConvTranspose2d(2, 1, stride=2, padding="same", bias=False),
        ConvTranspose2d(4, 3, init=Constant(0.1)),
        ConvTranspose2d(3, 2, dilation=2),
        ConvTranspose2d(2, 2, padding="same", dilation=(3, 2)),
    ),
    *on(
        (4, 4, 3),
        ConvTranspose2d(4, 3, groups=2),
        ConvTranspose2d(6, (2, 3), stride=(2, 1), padding=1, groups=2),
        ConvTranspose2d(2, 3, stride=2, padding="same", groups=2, bias=False),
        ConvTranspose2d(2, (3, 2), stride=(2, 3), padding=(1, 0), output_padding=1, groups=2, dilation=(2, 1)),
        ConvTranspose2d(4, 3, stride=2, groups=4),
    ),
]

POOLS = [
    {"pool_size": 2},
    {"pool_size": 1},
    {"pool_size": (2, 3)},
    {"pool_size": 3, "stride": 1},
    {"pool_size": 3, "stride": 2},
    {"pool_size": (3, 2), "stride": (1, 2)},
    {"pool_size": 2, "stride": 3},
    {"pool_size": 2, "padding": 1},
    {"pool_size": 3, "stride": 2, "padding": (1, 2)},
    {"pool_size": 3, "stride": 2, "padding": (0, 1, 2, 1)},
    {"pool_size": 2, "ceil_mode": True},
    {"pool_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
    {"pool_size": (2, 1), "stride": 3, "padding": (1, 0), "ceil_mode": True},
    {"pool_size": (3, 2), "stride": (2, 3), "padding": 1, "ceil_mode": True},
    {"pool_size": 3, "stride": 2, "padding": "same", "ceil_mode": True},
    {"pool_size": 3, "stride": 1, "padding": "same"},
    {"pool_size": 2, "padding": "same"},
    {"pool_size": 2, "stride": 1, "padding": "same"},
    {"pool_size": (4, 3), "stride": (3, 2), "padding": "same"},
]
POOLED = (2, 7, 5)

MERGED: list[tuple[Shape, ...]] = [
    *((shape,) * count for shape in (IMAGE, VECTOR) for count in (2, 3)),
    *(
        (IMAGE, (4,)),
        ((4,), IMAGE),
        (IMAGE, (4, 1, 1)),
        ((1, 6, 5), (4,), IMAGE),
        ((4, 6, 1), (1, 1, 5)),
        (VECTOR, (1,)),
    ),
]
"""Shapes of several inputs: the same, and those that are repeated along an axis or more."""

CASES: dict[str, list[Case]] = {
    "conv2d": CONVOLUTIONS,
    "conv_transpose2d": TRANSPOSED_CONVOLUTIONS,
    "max_pool2d": [
        *on(POOLED, *(MaxPool2d(**sizes) for sizes in POOLS)),
        *on((1, 4, 4), MaxPool2d(4)),
        *on((1, 2, 4), MaxPool2d(3, 2, ceil_mode=True)),
    ],
    "avg_pool2d": on(
        POOLED,
        *(AvgPool2d(**sizes) for sizes in POOLS),
        *(AvgPool2d(**sizes, count_include_pad=True) for sizes in POOLS if "padding" in sizes),
    ),
    "global_avg_pool2d": [*on(IMAGE, GlobalAvgPool2d()), *on((2, 1, 1), GlobalAvgPool2d())],
    "global_max_pool2d": [*on(IMAGE, GlobalMaxPool2d()), *on((2, 1, 1), GlobalMaxPool2d())],
    "adaptive_avg_pool2d": on(
        IMAGE,
        *(AdaptiveAvgPool2d(size) for size in (1, 2, 3, (6, 5), (4, 1), (7, 9), (1, 5))),
    ),
    "upsample": [
        *on(
            IMAGE, Upsample(), Upsample(2), Upsample((3, 1)), Upsample(size=(4, 7)), Upsample(size=9), Upsample(size=1)
        ),
        *on(
            IMAGE,
            *(
                Upsample(scale, size, "bilinear", corners)
                for scale, size in ((2, None), ((1, 3), None), (None, (4, 7)), (None, 1), (None, 9))
                for corners in (False, True)
            ),
        ),
        *on((2, 1, 1), Upsample(3), Upsample(3, mode="bilinear"), Upsample(2, mode="bilinear", align_corners=True)),
    ],
    "pad": on(
        IMAGE,
        Pad(0),
        Pad(1),
        Pad((2, 1)),
        Pad((1, 0, 2, 3), value=0.5),
        Pad(2, "reflect"),
        Pad((5, 0, 1, 4), "reflect"),
        Pad(2, "replicate"),
        Pad((0, 3, 7, 1), "replicate"),
    ),
    "crop": on(IMAGE, Crop(0), Crop(1), Crop((2, 1)), Crop((1, 0, 2, 1)), Crop((0, 5, 4, 0))),
    "pixel_shuffle": [*on((8, 2, 3), PixelShuffle(2), PixelShuffle(1)), *on((9, 1, 2), PixelShuffle(3))],
    "slice_channels": [
        *on(IMAGE, SliceChannels(), SliceChannels(1), SliceChannels(0, 1), SliceChannels(1, 2)),
        *on(VECTOR, SliceChannels(1), SliceChannels(2, 3)),
    ],
    "channel_shuffle": [
        *on((6, 2, 3), ChannelShuffle(2), ChannelShuffle(3), ChannelShuffle(1), ChannelShuffle(6)),
        *on((4, 1, 1), ChannelShuffle(2)),
    ],
    "prelu": [case for shape in (IMAGE, VECTOR) for case in on(shape, PRelu(), PRelu(shared=True))],
    "flatten": [*on(IMAGE, Flatten()), *on(VECTOR, Flatten())],
    "dense": [
        *on(VECTOR, Dense(5), Dense(1), Dense(4, bias=False), Dense(3, init=Orthogonal()), Dense(3, init=Zeros())),
        *on((1,), Dense(2)),
    ],
    "batch_norm": [
        case
        for shape in (IMAGE, VECTOR, (1, 3, 3))
        for case in on(shape, BatchNorm(), BatchNorm(affine=False), BatchNorm(momentum=0.3, epsilon=0.1))
    ],
    "layer_norm": [
        case
        for shape in (IMAGE, VECTOR)
        for case in on(
            shape,
            LayerNorm(),
            LayerNorm(epsilon=0.1, affine=False),
            LayerNorm(over="channels"),
            LayerNorm(epsilon=0.1, affine=False, over="channels"),
        )
    ],
    "local_response_norm": [
        *on(IMAGE, LocalResponseNorm(3), LocalResponseNorm(5, alpha=0.7, beta=0.5, k=2.0), LocalResponseNorm(9)),
        *on(VECTOR, LocalResponseNorm(1, alpha=0.3), LocalResponseNorm(3, alpha=0.9)),
    ],
    "group_norm": [
        *on(IMAGE, GroupNorm(1), GroupNorm(2), GroupNorm(4), GroupNorm(2, epsilon=0.1, affine=False)),
        *on((6,), GroupNorm(1), GroupNorm(2), GroupNorm(3, affine=False)),
    ],
    "dropout": [case for shape in (IMAGE, VECTOR) for case in on(shape, Dropout(0.5), Dropout(0.1), Dropout(0.0))],
    **{
        layers[0].type: [*on(IMAGE, *layers), *on(VECTOR, *layers)]
        for layers in (
            (Relu(),),
            (LeakyRelu(), LeakyRelu(slope=0.3), LeakyRelu(slope=-0.5)),
            (Elu(), Elu(alpha=0.5)),
            (Gelu(), Gelu(approximate="none")),
            (Relu6(),),
            (HardSigmoid(),),
            (HardSwish(),),
            (Silu(),),
            (Sigmoid(),),
            (Tanh(),),
            (Softplus(),),
            (Softmax(),),
            (Identity(),),
        )
    },
    "add": [Case(Add(), shapes) for shapes in MERGED],
    "multiply": [Case(Multiply(), shapes) for shapes in MERGED],
    "concat": [
        Case(Concat(), ((2, 4, 3), (3, 4, 3))),
        Case(Concat(), ((1, 4, 3), (3, 4, 3), (2, 4, 3))),
        Case(Concat(), ((4,), (2,))),
        Case(Concat(), ((1,), (5,), (1,))),
    ],
}

ALL_CASES = [case for cases in CASES.values() for case in cases]
