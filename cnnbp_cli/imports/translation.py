"""The walk from operators to layers, with the way in which each tensor lies.

Most tensors of an ONNX file are images (N, C, H, W) or vectors (N, F). Others are the same values seen otherwise, and
are followed here until they are images or vectors again: channels last, as Keras has them and as PyTorch's layer norm
wants them; an image of one pixel that is a vector to us.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from cnnbp_cli.config.wiring import bad_name
from cnnbp_cli.core.layers import LAYERS
from cnnbp_cli.core.types import Array, FieldErrors, Operation, Shape, ShapeError
from cnnbp_cli.imports.activations import OURS
from cnnbp_cli.imports.errors import NoLayer
from cnnbp_cli.imports.graph import OnnxGraph, Op
from cnnbp_cli.imports.names import Names

Layout = Literal["image", "last", "vector", "last vector", "pixel", "groups"]


@dataclass(frozen=True)
class Value:
    """What a tensor of the file is here.

    Attributes
    ----------
    source : str
        The layer that writes it, or ``input``.
    shape : Shape
        One sample, as the layer has it: (c, h, w) or (f,).
    layout : Layout
        How the file's tensor lies: `last` is (N, H, W, C), `last vector` that as one vector, `pixel` a vector as
        (N, F, 1, 1), `groups` (N, G, …) for a normalization of groups.
    image : Shape
        The (c, h, w) that became a vector.
    """

    source: str
    shape: Shape
    layout: Layout
    image: Shape = ()


@dataclass
class Imported:
    """One layer: its place in the network, and its parameters, unless it `shares` those of another.

    `tensors` are what the file calls the parameters, the weight first.
    """

    name: str
    layer: Operation[Any]
    inputs: tuple[str, ...]
    parameters: dict[str, Array] = field(default_factory=dict[str, Array])
    tensors: tuple[str, ...] = ()
    shares: str = ""


class Translation:
    """Walks through the operators and collects layers.

    Parameters
    ----------
    graph : OnnxGraph
    handlers : mapping of str to callable
        By kind of operator, what translates it.

    Attributes
    ----------
    layers : list of Imported
    problems : list of str
        Of each operator that is no layer, its name and the reason.
    head : {"softmax", "sigmoid", "none"}
    normalization : (mean, std) or None
        What the file does to raw pixels before its first layer.
    """

    def __init__(self, graph: OnnxGraph, handlers: Mapping[str, Handler]) -> None:
        self.graph, self._handlers = graph, handlers
        self.names = Names(graph.ops)
        self.layers: list[Imported] = []
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.head: Literal["softmax", "sigmoid", "none"] = "none"
        self.normalization: tuple[Array, Array] | None = None
        self.values: dict[str, Value] = {}
        self._done: set[int] = set()
        _, *size = graph.shapes[graph.input]
        self.input_shape: Shape = (size[0], size[1], size[2]) if len(size) == 3 else (size[0], 1, 1)
        self.values[graph.input] = Value("input", self.input_shape, "image" if len(size) == 3 else "pixel")

    def run(self) -> None:
        """Translate every operator that the output depends on; those behind one that is no layer are left out."""
        graph = self.graph
        if graph.shapes[graph.input][2:] == ():
            self.values[graph.input] = self._flattened_input()
        for op in graph.ops:
            if id(op) in self._done or not all(
                name in self.values or name in graph.constants for name in op.inputs if name
            ):
                continue
            try:
                self._translate(op)
            except (NoLayer, ShapeError, FieldErrors) as error:
                self.problems.append(f"node {op.name or op.output!r} ({op.kind}): {error}")
            except (
                TypeError,
                ValueError,
                LookupError,
                ArithmeticError,
                AttributeError,
            ):  # it may say anything
                self.problems.append(f"node {op.name or op.output!r} ({op.kind}): is not as its definition wants it")
        output = self.values.get(graph.output)
        if output is None and not self.problems:
            self.problems.append(f"the output {graph.output!r} does not depend on the input")
        if output is None or self.problems:
            return
        if output.layout not in ("image", "vector", "pixel"):
            self.problems.append(f"the output {graph.output!r} has its channels last, expected them first")
        elif not self.layers or output.source != self.layers[-1].name:
            self.emit("identity", [output], Op("Identity", "", [], [graph.output], {}))

    def _flattened_input(self) -> Value:
        flat = self.emit("flatten", [self.values[self.graph.input]], Op("Flatten", "", [], [], {}))
        return replace(flat, layout="vector")

    # ------------------------------------------------------------ what handlers use

    def _translate(self, op: Op) -> None:
        if op.kind.startswith(OURS):
            layer = op.attributes["layer"]
            if layer.type == "sigmoid" and op.output == self.graph.output:
                self.head = "sigmoid"
                self.same(op, self.value(op))
            elif layer.type == "identity":
                self.same(op, self.value(op))
            else:
                self.write(op, self.emit_layer(layer, [self.value(op)], op))
            return
        handler = self._handlers.get(op.kind)
        if handler is None:
            raise NoLayer("there is no layer for this operator")
        handler(self, op)

    def value(self, op: Op, k: int = 0) -> Value:
        """Return the k-th input, which has to depend on the image."""
        value = self.values.get(op.inputs[k])
        if value is None:
            raise NoLayer("works on a constant")
        return value

    def constant(self, op: Op, k: int, what: str) -> Array:
        """Return the k-th input, which has to be known."""
        value = self.graph.constant(op.inputs[k]) if k < len(op.inputs) and op.inputs[k] else None
        if value is None:
            raise NoLayer(f"its {what} depends on the image")
        return value

    def optional(self, op: Op, k: int, attribute: str, default: Any = None) -> Any:
        """Return what newer operators have as their k-th input and older ones as an attribute."""
        if k < len(op.inputs) and op.inputs[k]:
            return self.constant(op, k, attribute)
        return op.get(attribute, default)

    def image(self, op: Op, k: int = 0) -> Value:
        value = self.value(op, k)
        if value.layout != "image":
            raise NoLayer(f"expected images (N, C, H, W), got a tensor of {list(self.graph.shapes[op.inputs[k]])}")
        return value

    def same(self, op: Op, value: Value) -> None:
        self.values[op.output] = value

    def write(self, op: Op, value: Value, output: str = "") -> None:
        self.values[output or op.output] = value

    def emit(
        self,
        kind: str,
        inputs: Sequence[Value],
        op: Op,
        fields: dict[str, Any] | None = None,
        parameters: dict[str, Array] | None = None,
        tensors: Sequence[str] = (),
    ) -> Value:
        layer = LAYERS[kind](**(fields or {}))
        return self.emit_layer(layer, inputs, op, parameters, tensors)

    def emit_layer(
        self,
        layer: Operation[Any],
        inputs: Sequence[Value],
        op: Op,
        parameters: dict[str, Array] | None = None,
        tensors: Sequence[str] = (),
    ) -> Value:
        shape = layer.node_out_shape([value.shape for value in inputs])
        sources, tensors = tuple(value.source for value in inputs), tuple(filter(None, tensors))
        new = Imported("", layer, sources, parameters or {}, tensors)
        owner = next((one.name for one in self.layers if _is_same(one, new)), "")
        if self.graph.producer == "cnnbp" and op.name and not bad_name(op.name):
            new.name = self.names.keep(op.name)
        elif owner:
            new.name = self.names.keep(owner)
        else:
            is_its_own = tensors and (len(self.graph.readers[tensors[0]]) == 1 or _is_certain(new))
            new.name = self.names.choose(layer.type, op, tensors[:1] if is_its_own else ())
        if owner:
            new.shares, new.parameters = owner, {}
        self.layers.append(new)
        return replace(inputs[0], source=new.name, shape=shape)

    def follow(self, op: Op, kinds: Sequence[str], output: str = "") -> tuple[Op, Array, str] | None:
        """Return the only reader, its constant and the constant's name, where it is of some kinds and has one."""
        reader = self.graph.only_reader(output or op.output)
        if reader is None or reader.kind not in kinds or len(reader.inputs) != 2:
            return None
        for name in reader.inputs:
            if (constant := self.graph.constant(name)) is not None:
                return reader, constant, name
        return None

    def take(self, op: Op) -> None:
        """Leave out an operator that another one has done the work of."""
        self._done.add(id(op))

    def per_channel(self, constant: Array, value: Value) -> Array | None:
        """Return a constant as one number for each channel (or feature), None where it differs between pixels."""
        shape = (1,) * (4 - constant.ndim) + constant.shape if value.layout in ("image", "last", "pixel") else None
        count = value.shape[0]
        if constant.size == 1:
            return np.full(count, constant.item(), constant.dtype)
        if shape is None:
            return constant.reshape(-1) if constant.shape in ((count,), (1, count)) else None
        axis = 3 if value.layout == "last" else 1
        if constant.size != count or len(shape) != 4 or shape[axis] != count:
            return None
        return constant.reshape(count)


def _is_same(one: Imported, other: Imported) -> bool:
    """Tell whether two layers are one layer, used twice: all their parameters are the same tensors of the file."""
    return (
        one.tensors == other.tensors
        and one.layer == other.layer
        and _is_certain(one)
        and all(np.array_equal(value, other.parameters[key]) for key, value in one.parameters.items())
    )


def _is_certain(one: Imported) -> bool:
    """Tell whether the values of a parameter differ: exporters write equal zeros or ones once, whosever they are."""
    return any(value.size > 1 and (value != value.flat[0]).any() for value in one.parameters.values())


Handler = Callable[[Translation, Op], None]
"""Translates one operator: emits layers, and writes what its output is."""
