"""Small networks that together use every feature: a fault anywhere in the gradients must show in one of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from proof.example import Example

from cnnbp_cli.core.layers import LAYERS

Layers = list[Any]

ACTIVATIONS = [kind for kind, layer in LAYERS.items() if layer.is_activation]


@dataclass(frozen=True)
class Inhabitant:
    """An example, and what else it is checked for besides its gradients.

    Attributes
    ----------
    blocks : bool
        Cut what is worked on at a time so small that there are many blocks.
    points : bool
        Convolve by points whatever the size and the type, and in small pieces.
    mean_loss : bool
        Also check `Model.loss_and_gradients` against a loss written down independently. It needs images
        without ties: complex products round otherwise than real ones, and another tied pixel might win.
    workers : bool
        Also compare two workers' sums with one worker's.
    steps : bool
        Also train, and compare every update with the gradients.
    """

    example: Example
    blocks: bool = False
    points: bool = False
    mean_loss: bool = True
    workers: bool = False
    steps: bool = False

    @property
    def types(self) -> set[str]:
        """The types of its layers."""
        layers = self.example.model["layers"]
        return {layer if isinstance(layer, str) else layer["type"] for layer in layers if "share" not in layer}


def conv(filters: int = 4, kernel_size: Any = 3, padding: Any = "same", **fields: Any) -> dict[str, Any]:
    return {"type": "conv2d", "filters": filters, "kernel_size": kernel_size, "padding": padding, **fields}


def dense(units: int, **fields: Any) -> dict[str, Any]:
    return {"type": "dense", "units": units, **fields}


def example(layers: Layers, *, image: tuple[int, ...] = (2, 7, 6), head: str = "softmax", **fields: Any) -> Example:
    loss = fields.pop("loss", {"softmax": "cross_entropy", "sigmoid": "binary_cross_entropy", "none": "mse"}[head])
    train = {"loss": loss, **fields.pop("train", {})}
    return Example({"input": list(image), "head": head, "layers": layers}, train, seed=1, **fields)


def alone(layers: Layers, **fields: Any) -> Inhabitant:
    """Put layers before a flatten and a dense layer."""
    checks = {key: fields.pop(key) for key in ("blocks", "points", "mean_loss", "workers", "steps") if key in fields}
    return Inhabitant(example([*layers, "flatten", dense(3)], **fields), **checks)


SGD = {"optimizer": {"type": "sgd", "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.1}}
RUN = {"batch_size": 4, "epochs": 2, "workers": 1, **SGD}

ZOO: dict[str, Inhabitant] = {
    "conv": alone([conv(padding=[0, 2])]),
    "conv-strided": alone([conv(stride=[2, 3], padding=1)]),
    "conv-four-sides": alone([conv(stride=2, padding=[1, 0, 0, 2])]),
    "conv-far-border": alone([conv(3, 2, padding=[3, 4])]),
    "conv-dilated": alone([conv(kernel_size=[2, 3], dilation=[3, 2], padding=[1, 2])]),
    "conv-all": alone([conv(6, [2, 3], stride=2, dilation=[1, 2], padding="same", groups=2)]),
    "conv-depthwise": alone([conv(4, groups=2), "tanh", conv(4, groups=4), conv(2, 1, "valid")]),
    "conv-depthwise-strided": alone([conv(2, [3, 2], stride=2, dilation=[1, 2], padding=[1, 2], groups=2)]),
    "conv-groups": alone([conv(12, 1), conv(6, groups=2), "tanh", conv(4, [3, 2], groups=2, padding=1)]),
    "conv-gaps": alone([conv(3, [2, 1], "valid", stride=[3, 2])], image=(2, 9, 6)),
    "conv-blocks": alone(
        [conv(4, 2, groups=2), "tanh", conv(2, [2, 3], "valid", stride=2)], image=(2, 23, 4), blocks=True
    ),
    "conv-points": alone(
        [
            conv(6),
            "tanh",
            conv(4, padding=[1, 0]),
            "tanh",
            conv(4, [2, 3], padding=[0, 1], dilation=[1, 2], groups=2),
            "tanh",
            conv(2, [4, 2], padding=[3, 2]),
        ],
        image=(2, 7, 8),
        points=True,
    ),
    "conv-transpose": alone(
        [
            {"type": "conv_transpose2d", "filters": 3, "kernel_size": [3, 2], "stride": 2, "padding": [1, 0]}
            | {"output_padding": 1}
        ],
        image=(2, 4, 3),
    ),
    "conv-transpose-same": alone(
        [
            {"type": "conv_transpose2d", "filters": 3, "kernel_size": 3, "stride": [2, 1], "padding": "same"},
            "tanh",
            {"type": "conv_transpose2d", "filters": 2, "kernel_size": 1, "stride": 2, "bias": False},
        ],
        image=(2, 4, 3),
    ),
    "conv-transpose-groups": alone(
        [
            {"type": "conv_transpose2d", "filters": 6, "kernel_size": [3, 2], "stride": 2, "padding": [1, 0]}
            | {"groups": 2, "dilation": [1, 2]}
        ],
        image=(4, 4, 3),
    ),
    "conv-transpose-blocks": alone(
        [{"type": "conv_transpose2d", "filters": 3, "kernel_size": 2, "stride": 2}], image=(2, 12, 3), blocks=True
    ),
    "max-pool": alone([conv(), {"type": "max_pool2d", "pool_size": 2}]),
    "max-pool-overlap": alone([conv(), {"type": "max_pool2d", "pool_size": 3, "stride": [2, 1], "padding": [1, 0]}]),
    "max-pool-ceil": alone([conv(), {"type": "max_pool2d", "pool_size": 3, "stride": 2, "ceil_mode": True}]),
    "max-pool-gaps": alone([conv(), {"type": "max_pool2d", "pool_size": 2, "stride": 3}]),
    "max-pool-ties": alone(
        [
            {"type": "max_pool2d", "pool_size": 3, "stride": 1, "padding": "same"},
            {"type": "max_pool2d", "pool_size": 2},
        ],
        images="levels",
        mean_loss=False,
    ),
    "avg-pool": alone([conv(), {"type": "avg_pool2d", "pool_size": [2, 3]}]),
    "avg-pool-padded": alone([conv(), {"type": "avg_pool2d", "pool_size": 3, "stride": 2, "padding": [1, 2]}]),
    "avg-pool-counted": alone(
        [conv(), {"type": "avg_pool2d", "pool_size": 3, "stride": 2, "padding": 1, "count_include_pad": True}]
    ),
    "avg-pool-ceil": alone(
        [
            conv(),
            {"type": "avg_pool2d", "pool_size": 2, "padding": [1, 0], "ceil_mode": True} | {"count_include_pad": True},
        ]
    ),
    "global-avg-pool": Inhabitant(example([conv(), "global_avg_pool2d", dense(3)])),
    "global-max-pool": Inhabitant(
        example(["global_max_pool2d", dense(3)], images="levels", image=(4, 3, 4)), mean_loss=False
    ),
    "batch-norm": alone([conv(), "batch_norm", "tanh", conv(2), {"type": "batch_norm", "affine": False}]),
    "batch-norm-far": alone([conv(init={"type": "normal", "std": 0.02}), "sigmoid", "batch_norm", "tanh"]),
    "channel-blocks": alone(
        [conv(), "batch_norm", {"type": "max_pool2d", "pool_size": 3, "stride": 2}], count=5, blocks=True
    ),
    "batch-norm-vector": alone(["flatten", dense(5), {"type": "batch_norm", "epsilon": 0.1}, "tanh"]),
    "layer-norm": alone([conv(), "layer_norm", "tanh", {"type": "layer_norm", "affine": False}]),
    "layer-norm-vector": alone(["flatten", dense(5), "layer_norm", "tanh"]),
    "group-norm": alone([conv(6), {"type": "group_norm", "groups": 2}, "tanh", {"type": "group_norm", "groups": 3}]),
    "dropout": alone([conv(), {"type": "dropout", "rate": 0.4}, "tanh", {"type": "dropout", "rate": 0.1}]),
    "layer-norm-channels": alone([conv(), {"type": "layer_norm", "over": "channels"}, "tanh"]),
    "local-response-norm": alone([conv(), {"type": "local_response_norm", "size": 3, "alpha": 0.5, "beta": 0.8}]),
    "adaptive-avg-pool": alone([conv(), {"type": "adaptive_avg_pool2d", "output_size": [3, 4]}]),
    "upsample": alone([conv(), {"type": "upsample", "scale": [1, 2]}, conv(3), {"type": "upsample", "size": 5}]),
    "upsample-bilinear": alone(
        [
            conv(),
            {"type": "upsample", "size": [5, 8], "mode": "bilinear"},
            "tanh",
            {"type": "upsample", "size": [9, 3], "mode": "bilinear", "align_corners": True},
        ]
    ),
    "borders": alone(
        [
            conv(),
            {"type": "pad", "padding": [1, 0, 2, 1], "value": 0.5},
            "tanh",
            {"type": "pad", "padding": [2, 1, 0, 3], "mode": "reflect"},
            {"type": "pad", "padding": [0, 1, 2, 1], "mode": "replicate"},
            conv(),
            {"type": "crop", "cropping": [1, 0, 2, 1]},
        ]
    ),
    "pixel-shuffle": alone([conv(8), {"type": "pixel_shuffle", "factor": 2}]),
    "slice-channels": alone([conv(6), {"type": "slice_channels", "start": 1, "stop": 4}, conv()]),
    "channel-shuffle": alone([conv(6), {"type": "channel_shuffle", "groups": 3}, conv(groups=3, filters=3)]),
    "prelu-shared": alone([conv(), {"type": "prelu", "shared": True}]),
    "gelu-exact": alone([conv(), {"type": "gelu", "approximate": "none"}]),
    "bends": alone([conv(init={"type": "normal", "std": 3}), "relu6", conv(), "hard_swish", conv(), "hard_sigmoid"]),
    "relu": alone([conv(), "relu", conv(), "relu"], dead=0.3),
    "relu-zeros": alone([conv(), "relu", conv(), "relu"], images="levels", weights="quarters", mean_loss=False),
    "leaky-relu": alone([conv(), {"type": "leaky_relu", "slope": 0.2}]),
    "kinks": alone(
        [
            {"type": "leaky_relu", "slope": 0.2, "name": "l"},
            {"type": "elu", "alpha": 0.7, "name": "e", "inputs": ["input"]},
            {"type": "add", "inputs": ["l", "e"]},
        ],
        images="levels",
        mean_loss=False,
    ),
    "elu": alone([conv(), {"type": "elu", "alpha": 0.7}]),
    **{kind: alone([conv(), kind]) for kind in ACTIVATIONS if kind not in ("relu", "leaky_relu", "elu")},
    "softmax-vector": alone(["flatten", dense(5), "softmax"]),
    "residual": alone(
        [
            conv(name="a"),
            {"type": "relu", "name": "r"},
            conv(name="b"),
            {"type": "add", "inputs": ["b", "a"], "name": "sum"},
            {"type": "add", "inputs": ["sum", "r", "sum"]},
        ]
    ),
    "siblings": alone(  # the gradient that `add` hands to both is added to at one of them
        [
            conv(name="a"),
            {"type": "tanh", "name": "b", "inputs": ["a"]},
            {"type": "identity", "name": "c", "inputs": ["a"]},
            {"type": "add", "name": "sum", "inputs": ["b", "c"]},
            {"type": "multiply", "inputs": ["sum", "c", "b"]},
        ]
    ),
    "concat": alone(
        [
            conv(3, name="a"),
            {"type": "tanh", "name": "b"},
            {"type": "concat", "inputs": ["b", "input", "a"]},
            "sigmoid",
        ]
    ),
    "concat-vector": alone(
        ["flatten", dense(3, name="a"), {"type": "tanh", "name": "b"}, {"type": "concat", "inputs": ["a", "b"]}, "tanh"]
    ),
    "multiply": alone([conv(name="a"), {"type": "tanh", "name": "b"}, {"type": "multiply", "inputs": ["b", "a", "a"]}]),
    "squeeze-and-excitation": alone(
        [
            conv(3, name="a"),
            {"type": "global_avg_pool2d", "name": "squeezed"},
            dense(3),
            {"type": "sigmoid", "name": "gates"},
            {"type": "multiply", "name": "gated", "inputs": ["a", "gates"]},
            conv(1, 1, name="gray", inputs=["a"]),
            {"type": "add", "inputs": ["gates", "gated", "gray"]},
        ]
    ),
    "unread": alone(
        [conv(name="a"), conv(name="unread"), {"type": "dropout", "rate": 0.2}, {"type": "tanh", "inputs": ["a"]}]
    ),
    "backwards": Inhabitant(
        example(
            [
                {"type": "tanh", "name": "t", "inputs": ["a"]},
                {"type": "flatten", "name": "f", "inputs": ["t"]},
                conv(name="a", inputs=["input"]),
                {"type": "sigmoid", "name": "unread", "inputs": ["f"]},
                {"type": "sigmoid", "name": "computed_last", "inputs": ["unread"]},
                dense(3, inputs=["f"]),
            ]
        )
    ),
    "losses": Inhabitant(
        example(
            [
                conv(name="a"),
                {"type": "tanh", "name": "t"},
                "flatten",
                dense(3, name="side"),
                conv(2, name="b", inputs=["t"]),
                {"type": "global_avg_pool2d"},
                dense(3, name="deep"),
                {"type": "sigmoid", "name": "s"},
                dense(3, name="end"),
            ],
            train={
                "losses": [
                    {"layer": "side", "weight": 0.3},
                    {"layer": "end"},
                    {"layer": "deep", "loss": "mse", "weight": 2},
                ]
            },
        )
    ),
    "shared": alone(
        [
            conv(name="a", bias=False),
            {"type": "batch_norm", "name": "n"},
            {"type": "prelu", "name": "p"},
            {"type": "tanh", "name": "t", "inputs": ["input"]},
            {"share": "a", "inputs": ["t"]},
            {"share": "n"},
            {"share": "p"},
            {"type": "add", "name": "s", "inputs": ["p", "p_2"]},
            conv(name="b"),
            "relu",
            {"share": "b"},
            {"type": "add", "inputs": ["b_2", "s"]},
        ],
        workers=True,
    ),
    "shared-before": alone(  # the layer that owns the parameters is computed after another use
        [
            conv(2, name="owner", inputs=["bent"]),
            {"type": "tanh", "name": "bent", "inputs": ["first"]},
            {"share": "owner", "name": "first", "inputs": ["input"]},
            {"type": "multiply", "inputs": ["owner", "input"]},
            {"share": "owner"},
        ]
    ),
    "dense-square": alone(["flatten", dense(5), "tanh", dense(5), "tanh"]),
    "dense-without-bias": alone(["flatten", dense(5, bias=False), "tanh"]),
    "smoothing": alone([], train={"label_smoothing": 0.2}),
    "soft-labels": alone([], labels="numbers"),
    "softmax-mse": alone([], loss="mse"),
    "sigmoid-bce": alone([], head="sigmoid"),
    "sigmoid-one": Inhabitant(example(["flatten", dense(1)], head="sigmoid")),
    "sigmoid-mse": alone([], head="sigmoid", loss="mse", labels="numbers"),
    "regression": alone([], head="none", labels="numbers"),
    "autoencoder": Inhabitant(
        example(
            [
                conv(3, 3, stride=2),
                "relu",
                {"type": "conv_transpose2d", "filters": 2, "kernel_size": 3, "stride": 2, "padding": "same"},
            ],
            head="none",
            target="image",
            image=(2, 4, 6),
        )
    ),
    "workers": alone(
        [conv(bias=False), "batch_norm", "tanh", {"type": "dropout", "rate": 0.3}, conv(2)],
        count=5,
        mean_loss=False,
        workers=True,
    ),
    "steps": alone([conv(), "batch_norm", "tanh", conv(2, 3, "valid")], train=RUN, mean_loss=False, steps=True),
    "steps-weighted": alone(
        [conv(2, 3, "valid"), "tanh"], train=RUN | {"class_weights": [1, 3, 0.5]}, mean_loss=False, steps=True
    ),
    "steps-shared": alone(
        [
            *(conv(2, name="a", bias=False), {"type": "batch_norm", "name": "n"}, "relu"),
            *({"share": "a"}, {"share": "n"}, "tanh", {"share": "a"}, "flatten", dense(5), "tanh"),
            *(dense(5, name="d"), "tanh", {"share": "d"}, "tanh", {"share": "d"}),
        ],
        train=RUN,
        mean_loss=False,
        steps=True,
    ),
    "steps-losses": alone(
        [conv(2, 3, "valid"), "tanh", "flatten", dense(3, name="side"), dense(4, inputs=["flatten_1"]), "tanh"],
        train=RUN | {"losses": [{"layer": "dense_3"}, {"layer": "side", "weight": 0.3}], "class_weights": [1, 3, 0.5]},
        mean_loss=False,
        steps=True,
    ),
    "steps-fused": Inhabitant(
        example(
            [
                conv(),
                "relu",
                {"type": "max_pool2d", "pool_size": 2, "name": "pooled"},
                conv(),
                "batch_norm",
                "relu",
                conv(),
                {"type": "add", "inputs": ["conv2d_3", "pooled"]},
                "relu",
                "global_avg_pool2d",
                dense(3),
            ],
            train=RUN,
        ),
        mean_loss=False,
        steps=True,
    ),
    "steps-branches": alone(
        [
            conv(4, name="a"),
            {"type": "batch_norm", "name": "b"},
            conv(4, name="c"),
            {"type": "batch_norm", "name": "d"},
            {"type": "batch_norm", "name": "e", "inputs": ["a"]},
            {"type": "add", "inputs": ["d", "e", "b"]},
            conv(2),
        ],
        train=RUN,
        mean_loss=False,
        steps=True,
    ),
    "steps-on-two-workers": alone(
        [conv(), "batch_norm", "tanh"], train=RUN | {"workers": 2}, mean_loss=False, steps=True
    ),
    "steps-image": Inhabitant(example([conv(2)], head="none", target="image", train=RUN), mean_loss=False, steps=True),
}
