"""A model as ONNX: one operator for each layer, as near to the format's own words as possible.

Layers keep their names: the node `conv1` takes `conv1.weight` and gives `conv1.output`. The file takes images
(N, C, H, W), any N, and gives what `Model.predict` gives.

References
----------
The operators' definitions: https://onnx.ai/onnx/operators
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cnnbp_cli import __version__
from cnnbp_cli.core.graph import INPUT, Node
from cnnbp_cli.core.layers.pool import pool_windows
from cnnbp_cli.core.types import Array, Shape
from cnnbp_cli.core.windows import Windows
from cnnbp_cli.exports.export import ExportError
from cnnbp_cli.files import replace_file
from cnnbp_cli.model import Model
from cnnbp_cli.weights import describe

OPSET, IR_VERSION = 21, 10
"""Of ONNX 1.16 (2024): the first with `Gelu` in its tanh form and `GroupNormalization` with a weight per channel."""

OUTPUT = "output"
BATCH = "N"

LARGEST = (1 << 31) - (1 << 26)
"""The most bytes of parameters: a Protocol Buffers message ends at 2 GiB, and something is around them."""

PLAIN = {
    "relu": "Relu",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "softplus": "Softplus",
    "flatten": "Flatten",
    "identity": "Identity",
    "dropout": "Identity",  # as it is outside of training
    "add": "Sum",
}
"""Layers that are one operator without attributes."""


def save_onnx(model: Model, path: Path) -> None:
    """Write a model as ONNX.

    Raises
    ------
    ExportError
        When onnx is not installed, a layer is the user's own, or the model is too large.
    WriteError
        When the file cannot be written.
    """
    try:
        import onnx  # noqa: F401
    except ImportError:
        raise ExportError(f"{path}: needs onnx, which is not installed: pip install 'cnnbp[onnx]'") from None
    if model.vector.nbytes > LARGEST:
        raise ExportError(f"{path}: the model is larger than the 2 GiB that an ONNX file can hold")
    replace_file(path, to_onnx(model).SerializeToString())


def to_onnx(model: Model) -> Any:
    """Return a model as an `onnx.ModelProto`.

    Raises
    ------
    ExportError
        When a layer is the user's own.
    """
    return _Translation(model).whole()


class _Translation:
    """Collects operators and constants, in the order of computation.

    Attributes
    ----------
    tensors : dict of str to str
        What the output of each layer, and the input, is called.
    """

    def __init__(self, model: Model) -> None:
        from onnx import helper, numpy_helper

        self.helper, self.numpy_helper = helper, numpy_helper
        self.model = model
        self.operators: list[Any] = []
        self.constants: list[Any] = []
        self.tensors = {INPUT: INPUT}

    def whole(self) -> Any:
        model, helper = self.model, self.helper
        shapes = model.graph.shapes
        self._normalize()
        for node in model.graph.nodes:
            xs = [self.tensors[name] for name in node.inputs]
            self.tensors[node.name] = self._layer(node, node.layer, xs, model.graph.in_shape(node))
        head = {"softmax": "Softmax", "sigmoid": "Sigmoid", "none": "Identity"}[model.config.model.head]
        axis = {"axis": 1} if head == "Softmax" else {}
        self._operator("model.head", head, [self.tensors[model.graph.output]], OUTPUT, **axis)
        graph = helper.make_graph(
            self.operators,
            model.config.name,
            [self._value(INPUT, shapes[INPUT])],
            [self._value(OUTPUT, model.output_shape)],
            self.constants,
            value_info=[self._value(self.tensors[node.name], shapes[node.name]) for node in model.graph.nodes],
        )
        proto = helper.make_model(
            graph,
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET)],
            producer_name="cnnbp",
            producer_version=__version__,
        )
        takes = "normalized images" if model.normalization is None else "raw pixels"
        helper.set_model_props(proto, describe(model) | {"input": takes})
        return proto

    def _normalize(self) -> None:
        """Begin with (raw - mean) / std where they are known: what is trained then takes raw pixels."""
        normalization = self.model.normalization
        if normalization is None or normalization.kind == "none":
            return
        name = "data.normalize"
        mean = self._constant(f"{name}.mean", np.reshape(normalization.mean, (-1, 1, 1)))
        std = self._constant(f"{name}.std", np.reshape(normalization.std, (-1, 1, 1)))
        centred = self._operator(f"{name}.centre", "Sub", [INPUT, mean], f"{name}.centred")
        self.tensors[INPUT] = self._operator(f"{name}.scale", "Div", [centred, std], f"{name}.output")

    def _layer(self, node: Node, layer: Any, xs: list[str], in_shape: Shape) -> str:
        """Translate one layer and return the name of its output."""
        name, kind = node.name, layer.type
        own = {key: self._constant(f"{name}.{key}", value) for key, value in self.model.params.get(name, {}).items()}
        weights = [own[key] for key in ("weight", "bias") if key in own]
        epsilon = {"epsilon": getattr(layer, "epsilon", None)}
        precision = {"stash_type": 11 if self.model.dtype == np.float64 else 1}  # what statistics are computed in

        def one(operator: str, inputs: Sequence[str] = xs, **attributes: Any) -> str:
            return self._operator(name, operator, inputs, f"{name}.{OUTPUT}", **attributes)

        def ones(shape: Shape) -> list[str]:
            """Return weight and bias, or what stands for them in a layer that has none."""
            missing = {"weight": np.ones(shape), "bias": np.zeros(shape)}
            return weights or [self._constant(f"{name}.{key}", value) for key, value in missing.items()]

        match kind:
            case "conv2d":
                windows = layer.windows(in_shape)
                return one(
                    "Conv", [*xs, *weights], **_geometry(windows), dilations=windows.dilation, group=layer.groups
                )
            case "conv_transpose2d":
                return one("ConvTranspose", [*xs, *weights], **_transposed_geometry(layer.windows(in_shape), in_shape))
            case "max_pool2d":
                return one("MaxPool", **_geometry(pool_windows(layer, in_shape)))
            case "avg_pool2d":
                counted = int(layer.count_include_pad)
                return one("AveragePool", **_geometry(pool_windows(layer, in_shape)), count_include_pad=counted)
            case "global_avg_pool2d" | "global_max_pool2d":
                operator = "GlobalAveragePool" if kind == "global_avg_pool2d" else "GlobalMaxPool"
                return one("Flatten", [self._operator(f"{name}.pool", operator, xs, f"{name}.pooled")])
            case "dense":
                return one("Gemm", [*xs, *weights], transB=1)
            case "batch_norm":
                running = [own["running_mean"], own["running_var"]]
                return one("BatchNormalization", [*xs, *ones(in_shape[:1]), *running], **epsilon)
            case "layer_norm":
                return one("LayerNormalization", [*xs, *ones(in_shape)], axis=1, **epsilon, **precision)
            case "group_norm":
                inputs = [*xs, *ones(in_shape[:1])]
                return one("GroupNormalization", inputs, num_groups=layer.groups, **epsilon, **precision)
            case "leaky_relu":
                return one("LeakyRelu", alpha=layer.slope)
            case "elu":
                return one("Elu", alpha=layer.alpha)
            case "gelu":
                return one("Gelu", approximate="tanh")
            case "silu":
                return one("Mul", [*xs, self._operator(f"{name}.gate", "Sigmoid", xs, f"{name}.gates")])
            case "softmax":
                return one("Softmax", axis=1)
            case "multiply":
                product = xs[0]  # the operator takes two inputs
                for k, x in enumerate(xs[1:-1], 2):
                    product = self._operator(f"{name}.{k}", "Mul", [product, x], f"{name}.product.{k}")
                return one("Mul", [product, xs[-1]])
            case "concat":
                return one("Concat", axis=1)
            case _ if kind in PLAIN:
                return one(PLAIN[kind])
            case _:
                raise ExportError(f"layer {name}: ONNX has no operator for a layer of your own ({kind})")

    def _operator(self, name: str, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.operators.append(self.helper.make_node(operator, inputs, [output], name=name, **attributes))
        return output

    def _constant(self, name: str, value: Array) -> str:
        array = np.ascontiguousarray(value, self.model.dtype)
        self.constants.append(self.numpy_helper.from_array(array, name))
        return name

    def _value(self, name: str, shape: Shape) -> Any:
        kind = self.helper.np_dtype_to_tensor_dtype(self.model.dtype)
        return self.helper.make_tensor_value_info(name, kind, [BATCH, *shape])


def _geometry(windows: Windows) -> dict[str, Any]:
    """Return the attributes of an operator on windows; `same` is written as the pixels that it means."""
    return {
        "kernel_shape": windows.kernel,
        "strides": windows.stride,
        "pads": (*windows.before, *windows.after),
    }


def _transposed_geometry(windows: Windows, in_shape: Shape) -> dict[str, Any]:
    """Return the attributes of a transposed convolution, whose windows slide over its output."""
    smallest = (
        (size - 1) * s + k - before - after
        for size, s, k, before, after in zip(
            in_shape[1:], windows.stride, windows.kernel, windows.before, windows.after, strict=True
        )
    )
    extra = tuple(size - least for size, least in zip(windows.image, smallest, strict=True))
    return _geometry(windows) | {"output_padding": extra}
