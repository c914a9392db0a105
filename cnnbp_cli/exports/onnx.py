"""A model as ONNX: one operator for each layer, as near to the format's own words as possible.

Layers keep their names: the node `conv1` takes `conv1.weight` and gives `conv1.output`. The file takes images
(N, C, H, W), any N, and gives what `Model.predict` gives. Layers that its output does not depend on, such as auxiliary
classifiers, are left out.

References
----------
The operators' definitions: https://onnx.ai/onnx/operators
"""

from __future__ import annotations

from collections.abc import Sequence
from inspect import unwrap
from pathlib import Path
from typing import Any

import numpy as np

from cnnbp_cli import __version__
from cnnbp_cli.core.graph import INPUT, Node
from cnnbp_cli.core.layers.merge import onnx_inputs
from cnnbp_cli.core.traits import OnnxOperator
from cnnbp_cli.core.types import Array, Operation, Shape
from cnnbp_cli.exports.errors import ExportError
from cnnbp_cli.files import replace_file
from cnnbp_cli.model import Model
from cnnbp_cli.weights import describe

OPSET, IR_VERSION = 21, 10
"""Of ONNX 1.16 (2024): the first with `Gelu` in its tanh form and `GroupNormalization` with a weight per channel."""

OUTPUT = "output"
BATCH = "N"

HAVE_STASH_TYPE, DOUBLE = ("LayerNormalization", "GroupNormalization"), 11
"""Operators that compute statistics in float32 unless told otherwise, and how ONNX calls float64."""

MAX_PARAMETER_BYTES = (1 << 31) - (1 << 26)
"""The most bytes of parameters: a Protocol Buffers message ends at 2 GiB, and something is around them."""


def save_onnx(model: Model, path: Path) -> None:
    """Write a model as ONNX.

    Raises
    ------
    ExportError
        When onnx is not installed, a layer does not say what it is in ONNX, or the model is too large.
    WriteError
        When the file cannot be written.
    """
    try:
        import onnx
    except ImportError:
        raise ExportError(f"{path}: needs onnx, which is not installed: pip install 'cnnbp[onnx]'") from None
    if model.vector.nbytes > MAX_PARAMETER_BYTES:
        raise ExportError(f"{path}: the model is larger than the 2 GiB that an ONNX file can hold")
    proto = to_onnx(model)
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as error:  # a layer of the user's own may say anything
        raise ExportError(f"{path}: not valid ONNX: {' '.join(str(error).split())}") from None
    replace_file(path, proto.SerializeToString())


def to_onnx(model: Model) -> Any:
    """Return a model as an `onnx.ModelProto`.

    Raises
    ------
    ExportError
        When a layer does not say what it is in ONNX, or says what ONNX does not know.
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
        self.shared: set[str] = set()
        self.tensors = {INPUT: INPUT}

    def whole(self) -> Any:
        model, helper = self.model, self.helper
        shapes = model.graph.shapes
        self._normalize()
        for node in model.graph.leading:
            xs = [self.tensors[name] for name in node.inputs]
            self.tensors[node.name] = self._layer(node, xs)
        head = {"softmax": "Softmax", "sigmoid": "Sigmoid", "none": "Identity"}[model.config.model.head]
        axis = {"axis": 1} if head == "Softmax" else {}
        self._operator("model.head", head, [self.tensors[model.graph.output]], OUTPUT, **axis)
        graph = helper.make_graph(
            self.operators,
            model.config.name,
            [self._value(INPUT, shapes[INPUT])],
            [self._value(OUTPUT, model.output_shape)],
            self.constants,
            value_info=[self._value(self.tensors[node.name], shapes[node.name]) for node in model.graph.leading],
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
        centered = self._operator(f"{name}.center", "Sub", [INPUT, mean], f"{name}.centered")
        self.tensors[INPUT] = self._operator(f"{name}.scale", "Div", [centered, std], f"{name}.output")

    def _layer(self, node: Node, xs: list[str]) -> str:
        """Translate one layer and return the name of its output."""
        operators = _operators(node.layer, [self.model.graph.shapes[name] for name in node.inputs])
        if not operators:
            raise ExportError(
                f"layer {node.name}: {node.layer.type} does not say what it is in ONNX; "
                "give its class a method onnx (docs/custom-layer.md)"
            )
        params = self.model.params.get(node.owner, {})
        known = dict(zip(onnx_inputs(xs) if node.layer.several_inputs else ["x"], xs, strict=True))

        def tensor(given: str | Array) -> str:
            if isinstance(given, str) and not given:
                return ""  # an input that is optional
            if not isinstance(given, str):
                return self._constant(f"{node.name}.constant{len(self.constants)}", np.asarray(given))
            if given not in known and given in params:
                known[given] = self._parameter(f"{node.owner}.{given}", params[given])
            if given not in known:
                expected = ", ".join([*known, *(key for key in params if key not in known)])
                raise ExportError(
                    f"layer {node.name}: {node.layer.type} reads {given!r} in ONNX, expected one of: {expected}"
                )
            return known[given]

        def add(operator: OnnxOperator, name: str, output: str) -> str:
            precise = self.model.dtype == np.float64 and operator.operator in HAVE_STASH_TYPE
            attributes = dict(operator.attributes) | ({"stash_type": DOUBLE} if precise else {})
            inputs = [tensor(given) for given in operator.inputs]
            return self._operator(name, operator.operator, inputs, output, **attributes)

        *inner, last = operators
        fixed = set(params)  # what depends on parameters alone is there once for all layers that share them
        for operator in inner:
            is_fixed = all(not isinstance(given, str) or given in fixed for given in operator.inputs)
            name = f"{node.owner if is_fixed else node.name}.{operator.output}"
            known[operator.output] = name
            if not is_fixed or self._is_new(name):
                add(operator, name, name)
            fixed |= {operator.output} if is_fixed else set()
        return add(last, node.name, f"{node.name}.{OUTPUT}")

    def _operator(self, name: str, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.operators.append(self.helper.make_node(operator, inputs, [output], name=name, **attributes))
        return output

    def _parameter(self, name: str, value: Array) -> str:
        """Return the constant that a parameter is, one for all layers that share it."""
        return self._constant(name, value) if self._is_new(name) else name

    def _is_new(self, name: str) -> bool:
        """Tell whether it is the first time that something which layers may share is needed."""
        seen = name in self.shared
        self.shared.add(name)
        return not seen

    def _constant(self, name: str, value: Array) -> str:
        array = np.asarray(value, self.model.dtype if value.dtype.kind == "f" else None, order="C")
        self.constants.append(self.numpy_helper.from_array(array, name))
        return name

    def _value(self, name: str, shape: Shape) -> Any:
        kind = self.helper.np_dtype_to_tensor_dtype(self.model.dtype)
        return self.helper.make_tensor_value_info(name, kind, [BATCH, *shape])


def _operators(layer: Operation[Any], in_shapes: Sequence[Shape]) -> Sequence[OnnxOperator]:
    """Return what a layer says that it is in ONNX; nothing where that was said of another forward pass."""
    said_by = next(base for base in type(layer).__mro__ if "onnx" in vars(base))
    if unwrap(said_by.forward) is not unwrap(type(layer).forward):  # type: ignore[attr-defined]
        return ()
    return layer.node_onnx(in_shapes)
