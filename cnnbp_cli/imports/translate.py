"""From operators to layers, with the way in which each tensor lies.

Most tensors of an ONNX file are images (N, C, H, W) or vectors (N, F). Others are the same values seen otherwise, and
are followed here until they are images or vectors again: channels last, as Keras has them and as PyTorch's layer norm
wants them; an image of one pixel that is a vector to us.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, Literal

import numpy as np

from cnnbp_cli.config.wiring import bad_name
from cnnbp_cli.core.layers import LAYERS
from cnnbp_cli.core.layers.resample import AdaptiveAvgPool2d
from cnnbp_cli.core.types import Array, FieldErrors, Operation, Shape, ShapeError
from cnnbp_cli.imports.activations import OURS
from cnnbp_cli.imports.errors import NoLayer
from cnnbp_cli.imports.graph import OnnxGraph, Op
from cnnbp_cli.imports.names import Names

Layout = Literal["image", "last", "vector", "last vector", "pixel", "groups"]

CHANNELS_LAST, CHANNELS_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]


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
    """One layer: its place in the network, and its parameters."""

    name: str
    layer: Operation[Any]
    inputs: tuple[str, ...]
    parameters: dict[str, Array] = field(default_factory=dict[str, Array])
    weight_names: tuple[str, ...] = ()


class Translation:
    """Walks through the operators and collects layers.

    Attributes
    ----------
    layers : list of Imported
    problems : list of str
        Of each operator that is no layer, its name and the reason.
    head : {"softmax", "sigmoid", "none"}
    normalization : (mean, std) or None
        What the file does to raw pixels before its first layer.
    """

    def __init__(self, graph: OnnxGraph) -> None:
        self.graph = graph
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
            except (TypeError, ValueError, KeyError, IndexError):  # of a file that may say anything
                self.problems.append(f"node {op.name or op.output!r} ({op.kind}): is not as its definition wants it")
        output = self.values.get(graph.output)
        if output is None and not self.problems:
            self.problems.append(f"the output {graph.output!r} does not depend on the input")
        if output is None or self.problems:
            return
        if output.layout not in ("image", "vector", "pixel"):
            self.problems.append(f"the output {graph.output!r} has its channels last, expected them first")
        elif not self.layers or output.source != self.layers[-1].name:
            self._emit("identity", [output], Op("Identity", "", [], [graph.output], {}))

    def _flattened_input(self) -> Value:
        flat = self._emit("flatten", [self.values[self.graph.input]], Op("Flatten", "", [], [], {}))
        return replace(flat, layout="vector")

    # ------------------------------------------------------------ what handlers use

    def _translate(self, op: Op) -> None:
        if op.kind.startswith(OURS):
            layer = op.attributes["layer"]
            if layer.type == "sigmoid" and op.output == self.graph.output:
                self.head = "sigmoid"
                self._same(op, self.value(op))
            elif layer.type == "identity":
                self._same(op, self.value(op))
            else:
                self._write(op, self._emit_layer(layer, [self.value(op)], op))
            return
        handler = HANDLERS.get(op.kind)
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

    def _same(self, op: Op, value: Value) -> None:
        self.values[op.output] = value

    def _write(self, op: Op, value: Value, output: str = "") -> None:
        self.values[output or op.output] = value

    def _emit(
        self,
        kind: str,
        inputs: Sequence[Value],
        op: Op,
        fields: dict[str, Any] | None = None,
        parameters: dict[str, Array] | None = None,
        weights: Sequence[str] = (),
    ) -> Value:
        layer = LAYERS[kind](**(fields or {}))
        return self._emit_layer(layer, inputs, op, parameters, weights)

    def _emit_layer(
        self,
        layer: Operation[Any],
        inputs: Sequence[Value],
        op: Op,
        parameters: dict[str, Array] | None = None,
        weights: Sequence[str] = (),
    ) -> Value:
        shape = layer.node_out_shape([value.shape for value in inputs])
        if self.graph.producer == "cnnbp" and op.name and not bad_name(op.name):
            name = self.names.keep(op.name)
        else:
            name = self.names.choose(layer.type, op, [w for w in weights if w and len(self.graph.readers[w]) == 1])
        sources = tuple(value.source for value in inputs)
        self.layers.append(Imported(name, layer, sources, parameters or {}, tuple(filter(None, weights))))
        return replace(inputs[0], source=name, shape=shape)

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


# ---------------------------------------------------------------- operators


def pads_of(op: Op, windows: int = 2) -> Any:
    pads = op.get("pads", [0] * 2 * windows)
    if len(pads) != 4:
        raise NoLayer(f"works on {len(pads) // 2} axes, expected images")
    return [pads[0], pads[2], pads[1], pads[3]]  # top, bottom, left, right


def border(amounts: Sequence[int]) -> Any:
    """Write (top, bottom, left, right) as shortly as the format can."""
    top, bottom, left, right = (int(amount) for amount in amounts)
    if (top, left) == (bottom, right):
        return top if top == left else (top, left)
    return top, bottom, left, right


def size_of(pair: Sequence[int]) -> Any:
    """Write a pair as one number where both are equal."""
    first, second = (int(size) for size in pair)
    return first if first == second else (first, second)


def two(op: Op, name: str) -> list[int]:
    value = op.get(name, [1, 1])
    if len(value) != 2:
        raise NoLayer(f"works on {len(value)} axes, expected images")
    return list(value)


def windowed(t: Translation, op: Op, kernel: Sequence[int], *, transposed: bool = False) -> dict[str, Any]:
    """Return stride and padding of an operator on windows, those that are not the defaults."""
    auto, stride, dilation = op.get("auto_pad", "NOTSET"), two(op, "strides"), two(op, "dilations")
    fields: dict[str, Any] = {}
    if auto in ("NOTSET", "VALID"):
        amounts = pads_of(op) if auto == "NOTSET" else [0] * 4
        if any(amounts):
            fields["padding"] = border(amounts)
    elif auto == "SAME_UPPER":
        fields["padding"] = "same"
    elif transposed:
        raise NoLayer(f"pads by {auto}")
    else:  # SAME_LOWER: the odd pixel is before the image
        amounts = []
        for size, k, s, d in zip(t.image(op).shape[1:], kernel, stride, dilation, strict=True):
            total = max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0)
            amounts += [total - total // 2, total // 2]
        fields["padding"] = border(amounts)
    if stride != [1, 1]:
        fields["stride"] = size_of(stride)
    return fields


def conv(t: Translation, op: Op) -> None:
    x, weight = t.image(op), t.constant(op, 1, "kernel")
    if weight.ndim != 4:
        raise NoLayer(f"works on {weight.ndim - 2} axes, expected images")
    fields = {"filters": len(weight), "kernel_size": size_of(weight.shape[2:])}
    fields |= windowed(t, op, weight.shape[2:])
    if (dilation := two(op, "dilations")) != [1, 1]:
        fields["dilation"] = size_of(dilation)
    if (groups := op.get("group", 1)) != 1:
        fields["groups"] = groups
    _with_bias(t, op, "conv2d", x, fields, weight, len(weight))


def conv_transpose(t: Translation, op: Op) -> None:
    x, weight = t.image(op), t.constant(op, 1, "kernel")
    if weight.ndim != 4:
        raise NoLayer(f"works on {weight.ndim - 2} axes, expected images")
    if op.get("group", 1) != 1 or two(op, "dilations") != [1, 1]:
        raise NoLayer("has groups or a dilation, which conv_transpose2d has not")
    if "output_shape" in op.attributes:
        raise NoLayer("is told its output_shape, expected pads")
    fields = {"filters": weight.shape[1], "kernel_size": size_of(weight.shape[2:])}
    fields |= windowed(t, op, weight.shape[2:], transposed=True)
    if any(extra := op.get("output_padding", [0, 0])):
        fields["output_padding"] = size_of(extra)
    _with_bias(t, op, "conv_transpose2d", x, fields, weight, weight.shape[1])


def _with_bias(t: Translation, op: Op, kind: str, x: Value, fields: dict[str, Any], weight: Array, count: int) -> None:
    """Emit a layer with a kernel, and with its bias, which may be added by the next operator."""
    output, names = op.output, op.inputs[1:2]
    bias = t.constant(op, 2, "bias") if len(op.inputs) > 2 and op.inputs[2] else None
    if bias is None and (found := t.follow(op, ("Add",))) is not None:
        added = t.per_channel(found[1], replace(x, shape=(count,)))
        if added is not None and found[1].size == count:
            bias, output = added, found[0].output
            t.take(found[0])
    parameters = {"weight": weight} | ({"bias": bias} if bias is not None else {})
    y = t._emit(kind, [x], op, fields | ({} if bias is not None else {"bias": False}), parameters, names)
    t._write(op, y, output)


def dense(t: Translation, op: Op) -> None:
    """Translate `Gemm`, or `MatMul` and the `Add` behind it."""
    if t.graph.constant(op.inputs[0]) is not None and _averages(t, op):
        return
    x = t.value(op)
    weight = t.constant(op, 1, "matrix")
    if weight.ndim != 2:
        raise NoLayer(f"multiplies with {list(weight.shape)}, expected a matrix")
    bias, output = None, op.output
    if op.kind == "Gemm":
        if op.get("transA", 0) or op.get("alpha", 1.0) != 1 or (op.get("beta", 1.0) != 1 and len(op.inputs) > 2):
            raise NoLayer("has alpha, beta or transA, which dense has not")
        weight = weight if op.get("transB", 0) else weight.T
        bias = t.constant(op, 2, "bias") if len(op.inputs) > 2 and op.inputs[2] else None
    else:
        weight = weight.T
    if bias is None and (found := t.follow(op, ("Add",))) is not None and found[1].size == len(weight):
        bias, output = found[1], found[0].output
        t.take(found[0])
    bias = None if bias is None else np.broadcast_to(bias.reshape(-1), (len(weight),)).copy()
    fields: dict[str, Any] = {} if bias is not None else {"bias": False}
    names = op.inputs[1:2]
    if x.layout == "last":  # the same matrix for each pixel
        kernel = {"weight": weight[:, :, None, None]} | ({"bias": bias} if bias is not None else {})
        t._write(
            op, t._emit("conv2d", [x], op, {"filters": len(weight), "kernel_size": 1} | fields, kernel, names), output
        )
        return
    if x.layout == "last vector":
        c, h, w = x.image
        weight = weight.reshape(-1, h, w, c).transpose(0, 3, 1, 2).reshape(len(weight), -1)
    elif x.layout != "vector":
        raise NoLayer(f"multiplies a tensor of {list(t.graph.shapes[op.inputs[0]])}, expected vectors")
    parameters = {"weight": np.ascontiguousarray(weight)} | ({"bias": bias} if bias is not None else {})
    y = t._emit("dense", [x], op, {"units": len(weight)} | fields, parameters, names)
    t._write(op, replace(y, layout="vector"), output)


def _averages(t: Translation, op: Op) -> bool:
    """Translate rows · x · columns, where the two matrices take means of windows of all kinds of sizes."""
    found = t.follow(op, ("MatMul",))
    x = t.values.get(op.inputs[1])
    if found is None or x is None or x.layout != "image" or found[0].inputs[0] != op.output:
        return False
    rows, columns = t.constant(op, 0, "rows"), found[1].T
    layer = AdaptiveAvgPool2d((len(rows), len(columns)))
    wanted = layer.weights(x.shape, np.float64)
    if rows.shape != wanted.rows.shape or columns.shape != wanted.columns.shape:
        return False
    if not (np.allclose(rows, wanted.rows) and np.allclose(columns, wanted.columns)):
        return False
    t.take(found[0])
    t._write(
        op,
        t._emit("adaptive_avg_pool2d", [x], found[0], {"output_size": size_of((len(rows), len(columns)))}),
        found[0].output,
    )
    return True


def pool(t: Translation, op: Op) -> None:
    x, kernel = t.image(op), op.get("kernel_shape")
    if len(kernel) != 2 or two(op, "dilations") != [1, 1]:
        raise NoLayer("has a dilation or works on other axes than those of images")
    fields = {"pool_size": size_of(kernel)} | windowed(t, op, kernel)
    if two(op, "strides") == list(kernel):
        fields.pop("stride", None)
    else:
        fields.setdefault("stride", 1)
    if op.get("ceil_mode", 0):
        fields["ceil_mode"] = True
    if op.kind == "MaxPool":
        if len([name for name in op.outputs if name]) > 1:
            raise NoLayer("also gives the places of its maxima")
        t._write(op, t._emit("max_pool2d", [x], op, fields))
        return
    if op.get("count_include_pad", 0) and "padding" in fields:
        fields["count_include_pad"] = True
    t._write(op, t._emit("avg_pool2d", [x], op, fields))


def global_pool(t: Translation, op: Op) -> None:
    """Translate a mean or a maximum of each channel, as a vector where nothing needs an image of one pixel."""
    if op.kind.startswith("Reduce"):
        axes, keep = t.optional(op, 1, "axes"), op.get("keepdims", 1)
        x = t.value(op)
        wanted = {"image": [2, 3], "last": [1, 2]}.get(x.layout)
        if axes is None or wanted is None or sorted(int(axis) % 4 for axis in axes) != wanted:
            raise NoLayer("reduces other axes than height and width")
    else:
        x, keep = t.image(op), 1
    maximum = op.kind in ("GlobalMaxPool", "ReduceMax")
    kind = "global_max_pool2d" if maximum else "global_avg_pool2d"
    flat = _flattened(t, op) if keep else op
    if flat is not None:
        if flat is not op:
            t.take(flat)
        named = flat if t.graph.producer == "cnnbp" else op
        t._write(op, replace(t._emit(kind, [x], named), layout="vector"), flat.output)
    elif maximum:
        t._write(op, t._emit("max_pool2d", [x], op, {"pool_size": size_of(x.shape[1:])}))
    else:
        t._write(op, t._emit("adaptive_avg_pool2d", [x], op, {"output_size": 1}))


def _flattened(t: Translation, op: Op) -> Op | None:
    """Return the operator that makes (N, C, 1, 1) a vector, where that is all that happens to it."""
    reader = t.graph.only_reader(op.output)
    if reader is None or reader.kind not in ("Flatten", "Reshape", "Squeeze"):
        return None
    shape = t.graph.shapes[reader.output]
    return reader if len(shape) == 2 and shape[0] == t.graph.shapes[op.output][0] else None


def reshape(t: Translation, op: Op) -> None:
    """Translate what only changes the shape: flattening, and views of the same values."""
    x, before, after = t.value(op), t.graph.shapes[op.inputs[0]], t.graph.shapes[op.output]
    batch = before[0]
    if before == after:
        return t._same(op, x)
    if after[:1] != (batch,):
        raise NoLayer(f"mixes samples: {list(before)} becomes {list(after)}")
    if len(after) == 2 and x.layout == "image":
        return t._write(op, replace(t._emit("flatten", [x], op), layout="vector", image=x.shape))
    if len(after) == 2 and x.layout == "last":
        one = x.shape[0] == 1 or x.shape[1:] == (1, 1)
        flat = t._emit("flatten", [x], op)
        return t._write(op, replace(flat, layout="vector" if one else "last vector", image=x.shape))
    if after == (batch, *x.shape, 1, 1) and x.layout == "vector":
        return t._same(op, replace(x, layout="pixel"))
    if after == (batch, 1, 1, *x.shape) and x.layout == "vector":
        return t._same(op, replace(x, layout="pixel"))
    if len(after) == 2 and x.layout == "pixel":
        return t._same(op, replace(x, layout="vector"))
    if x.layout == "vector" and len(after) == 4 and x.source == "input":
        raise NoLayer("makes images of vectors")
    if x.layout == "image" and len(after) == 3 and prod(after) == prod(before):
        return t._same(op, replace(x, layout="groups", image=after[1:]))
    if x.layout == "groups" and after == (batch, *x.shape):
        return t._same(op, replace(x, layout="image"))
    if x.layout == "image" and _shuffles(t, op, x):
        return None
    raise NoLayer(f"makes {list(after)} of {list(before)}")


def _shuffles(t: Translation, op: Op, x: Value) -> bool:
    """Translate the three operators that may be written for a pixel shuffle."""
    middle = t.graph.only_reader(op.output)
    last = t.graph.only_reader(middle.output) if middle is not None else None
    if middle is None or last is None or (middle.kind, last.kind) != ("Transpose", "Reshape"):
        return False
    (c, h, w), parts = x.shape, t.graph.shapes[op.output][1:]
    r = parts[1] if len(parts) == 5 else 0
    if parts != (c // max(1, r * r), r, r, h, w) or middle.get("perm") != [0, 1, 4, 2, 5, 3]:
        return False
    t.take(middle)
    t.take(last)
    t._write(op, t._emit("pixel_shuffle", [x], op, {"factor": r}), last.output)
    return True


def transpose(t: Translation, op: Op) -> None:
    x, perm = t.value(op), list(op.get("perm", []))
    if perm == sorted(perm):
        return t._same(op, x)
    if x.layout == "image" and perm == CHANNELS_LAST:
        return t._same(op, replace(x, layout="last"))
    if x.layout == "last" and perm == CHANNELS_FIRST:
        return t._same(op, replace(x, layout="image"))
    if x.layout == "image" and x.source == "input" and perm == CHANNELS_FIRST:
        c, h, w = x.shape  # the file takes images with their channels last
        t.input_shape = (w, c, h)
        t.notes.append("the file takes images (N, H, W, C); here, as everywhere, they are (N, C, H, W)")
        return t._same(op, replace(x, shape=t.input_shape))
    raise NoLayer(f"moves axes by {perm}")


def batch_norm(t: Translation, op: Op) -> None:
    x = t.value(op)
    if x.layout not in ("image", "vector"):
        raise NoLayer("expected images or vectors")
    if op.get("training_mode", 0):
        raise NoLayer("is in training mode; export the model in evaluation mode")
    weight, bias, mean, var = (t.constant(op, k, "parameters") for k in range(1, 5))
    fields = numbers(op, epsilon=1e-5, momentum=0.9)
    parameters = {"weight": weight, "bias": bias, "running_mean": mean, "running_var": var}
    t._write(op, t._emit("batch_norm", [x], op, fields, parameters, op.inputs[1:2]))


def numbers(op: Op, **defaults: float) -> dict[str, float]:
    """Return attributes that are not the defaults, which ONNX rounds to float32."""
    found = {name: op.get(name, default) for name, default in defaults.items()}
    return {name: short(value) for name, value in found.items() if short(value) != defaults[name]}


def short(value: float) -> float:
    """Return the shortest decimal that is this float32."""
    return float(str(np.float32(value)))


def instance_norm(t: Translation, op: Op) -> None:
    """Translate a normalization of each channel; of groups, as `Reshape`, this, `Reshape` and an affine."""
    x = t.value(op)
    weight, bias = t.constant(op, 1, "scale"), t.constant(op, 2, "bias")
    if x.layout == "image":
        parameters = {"weight": weight, "bias": bias}
        fields = {"groups": x.shape[0], **numbers(op, epsilon=1e-5)}
        return t._write(op, t._emit("group_norm", [x], op, fields, parameters, op.inputs[1:2]))
    back = t.graph.only_reader(op.output)
    whole = x.layout == "groups" and back is not None and back.kind == "Reshape" and (weight == 1).all()
    if not whole or back is None or bias.any() or t.graph.shapes[back.output][1:] != x.shape:
        raise NoLayer("normalizes neither channels nor groups of them")
    t.take(back)
    fields = {"groups": len(weight), **numbers(op, epsilon=1e-5)}
    _with_affine(t, back, "group_norm", replace(x, layout="image"), fields, x.shape[:1])


def _with_affine(
    t: Translation, op: Op, kind: str, x: Value, fields: dict[str, Any], shape: Shape, given: Sequence[str] = ()
) -> None:
    """Emit a normalization with the factor and the offset that the next operators apply."""

    def fitting(constant: Array) -> Array | None:
        if shape == x.shape and len(shape) == 3:
            return constant.reshape(shape) if constant.shape in (shape, (1, *shape)) else None
        return t.per_channel(constant, x)

    output, weight, bias = op.output, None, None
    names = list(given)
    if (found := t.follow(op, ("Mul",))) is not None and (weight := fitting(found[1])) is not None:
        output = found[0].output
        names.append(found[2])
        t.take(found[0])
    if (found := t.follow(op, ("Add",), output)) is not None and (bias := fitting(found[1])) is not None:
        output = found[0].output
        t.take(found[0])
    if weight is None and bias is None:
        return t._write(op, t._emit(kind, [x], op, fields | {"affine": False}), output)
    parameters = {
        "weight": np.ones(shape, np.float32) if weight is None else weight,
        "bias": np.zeros(shape, np.float32) if bias is None else bias,
    }
    return t._write(op, t._emit(kind, [x], op, fields, parameters, names), output)


def group_norm(t: Translation, op: Op) -> None:
    x, groups = t.value(op), op.get("num_groups")
    weight, bias = (t.constant(op, k, "parameters") for k in (1, 2))
    if len(weight) != x.shape[0]:  # before opset 21, one for each group
        weight, bias = (np.repeat(value, x.shape[0] // groups) for value in (weight, bias))
    fields = {"groups": groups, **numbers(op, epsilon=1e-5)}
    t._write(op, t._emit("group_norm", [x], op, fields, {"weight": weight, "bias": bias}, op.inputs[1:2]))


def layer_norm(t: Translation, op: Op) -> None:
    x, rank = t.value(op), len(t.graph.shapes[op.inputs[0]])
    axis = op.get("axis", -1) % rank
    weight = t.constant(op, 1, "scale")
    bias = t.constant(op, 2, "bias") if len(op.inputs) > 2 and op.inputs[2] else np.zeros_like(weight)
    fields: dict[str, Any] = numbers(op, epsilon=1e-5)
    if x.layout == "last" and axis == rank - 1:
        fields["over"] = "channels"
    elif not (axis == 1 and x.layout in ("image", "vector")):
        raise NoLayer("normalizes neither samples nor the channels of each pixel")
    if (weight == 1).all() and not bias.any() and weight.size == 1:
        return _with_affine(t, op, "layer_norm", x, fields, x.shape)
    return t._write(op, t._emit("layer_norm", [x], op, fields, {"weight": weight, "bias": bias}, op.inputs[1:2]))


def local_response_norm(t: Translation, op: Op) -> None:
    fields = {"size": op.get("size"), **numbers(op, alpha=1e-4, beta=0.75)}
    if (k := short(op.get("bias", 1.0))) != 1:
        fields["k"] = k
    x = t.value(op)
    t._write(op, t._emit("local_response_norm", [x if x.layout == "pixel" else t.image(op)], op, fields))


def merge(t: Translation, op: Op) -> None:
    """Translate a sum or a product, of layers or of a layer and constants."""
    constants = [name for name in op.inputs if t.graph.constant(name) is not None]
    if constants:
        return arithmetic(t, op)
    kind = {"Add": "add", "Sum": "add", "Mul": "multiply"}[op.kind]
    values = _aligned([t.value(op, k) for k in range(len(op.inputs))])
    if len(values) == 1:
        return t._same(op, values[0])
    y = t._emit(kind, values, op)
    return t._write(op, replace(y, layout=max(values, key=lambda value: len(value.shape)).layout))


def _aligned(values: list[Value]) -> list[Value]:
    """Return tensors that lie alike; an image of one pixel that is a vector here goes with images."""
    layouts = {value.layout for value in values}
    if len(layouts - {"pixel"}) > 1:
        raise NoLayer("its inputs have their axes in different orders")
    return values


def concat(t: Translation, op: Op) -> None:
    values = _aligned([t.value(op, k) for k in range(len(op.inputs))])
    axis = op.get("axis") % len(t.graph.shapes[op.output])
    if axis != {"image": 1, "vector": 1, "pixel": 1, "last": 3}.get(values[0].layout):
        raise NoLayer(f"joins along axis {axis}, expected that of the channels")
    t._write(op, values[0] if len(values) == 1 else t._emit("concat", values, op))


def arithmetic(t: Translation, op: Op) -> None:
    """Translate arithmetic with constants: a normalization of the input, or a depthwise convolution of one pixel."""
    at = [k for k, name in enumerate(op.inputs) if t.graph.constant(name) is None]
    if len(at) != 1 or len(op.inputs) != 2:
        raise NoLayer("works on constants and more")
    x, constant = t.value(op, at[0]), t.constant(op, 1 - at[0], "number")
    amount = t.per_channel(constant, x)
    if amount is None:
        raise NoLayer("has another number for each pixel")
    if op.kind in ("Div", "Sub") and at[0] == 1:
        raise NoLayer("divides, or subtracts from, a constant")
    if op.kind == "Div":
        scale, shift = 1 / amount, np.zeros_like(amount)
    elif op.kind == "Mul":
        scale, shift = amount, np.zeros_like(amount)
    else:
        scale, shift = np.ones_like(amount), amount if op.kind == "Add" else -amount
    if (scale == 1).all() and not shift.any():
        return t._same(op, x)
    if x.source == "input" and len(t.graph.readers[op.inputs[at[0]]]) == 1 and _normalizes(t, op, amount):
        return t._same(op, x)
    if x.layout not in ("image", "last"):
        raise NoLayer("there is no layer that does arithmetic with constants on vectors")
    bias = {"bias": shift} if shift.any() else {}
    fields = {"filters": len(scale), "kernel_size": 1, "groups": len(scale)} | ({} if bias else {"bias": False})
    parameters = {"weight": scale.reshape(-1, 1, 1, 1)} | bias
    name = op.inputs[1 - at[0]]
    return t._write(op, t._emit("conv2d", [x], op, fields, parameters, [name]))


def _normalizes(t: Translation, op: Op, amount: Array) -> bool:
    """Take an operator on the input for its normalization, (x − mean) / std, where it goes on that way."""
    mean, std = t.normalization or (np.zeros_like(amount), np.ones_like(amount))
    if op.kind in ("Sub", "Add"):
        mean = mean + std * (amount if op.kind == "Sub" else -amount)
    else:
        std = std * (amount if op.kind == "Div" else 1 / amount)
    if not (np.isfinite(std).all() and (std > 0).all()):
        return False
    t.normalization = mean, std
    return True


def pad(t: Translation, op: Op) -> None:
    x = t.value(op)
    pads = [int(k) for k in t.optional(op, 1, "pads")]
    axes = t.constant(op, 3, "axes").tolist() if len(op.inputs) > 3 and op.inputs[3] else list(range(len(pads) // 2))
    both = {axis % 4: (pads[k], pads[k + len(axes)]) for k, axis in enumerate(axes)}
    rows, columns = {"image": (2, 3), "last": (1, 2)}.get(x.layout, (None, None))
    if rows is None or any(any(amounts) for axis, amounts in both.items() if axis not in (rows, columns)):
        raise NoLayer("pads other axes than height and width")
    amounts = [*both.get(rows, (0, 0)), *both.get(columns, (0, 0))]
    value = t.optional(op, 2, "value", 0.0)
    mode, constant = op.get("mode", "constant"), float(np.asarray(value).item())
    if mode not in ("constant", "reflect", "edge"):
        raise NoLayer(f"pads by {mode}")
    cut = [max(0, -amount) for amount in amounts]
    if any(cut):
        x = t._emit("crop", [x], op, {"cropping": border(cut)})
    if any(amount > 0 for amount in amounts):
        fields: dict[str, Any] = {"padding": border([max(0, amount) for amount in amounts])}
        fields |= {} if mode == "constant" else {"mode": {"edge": "replicate"}.get(mode, mode)}
        fields |= {"value": constant} if mode == "constant" and constant else {}
        x = t._emit("pad", [x], op, fields)
    t._same(op, x)


def slice_(t: Translation, op: Op) -> None:
    """Translate what cuts a border off; other slices are no layer."""
    x, shape = t.image(op), t.graph.shapes[op.inputs[0]]
    starts, ends = (list(map(int, t.optional(op, k, name))) for k, name in ((1, "starts"), (2, "ends")))
    axes = t.optional(op, 3, "axes")
    steps = t.optional(op, 4, "steps")
    axes = list(range(len(starts))) if axes is None else [int(axis) % 4 for axis in axes]
    if steps is not None and any(int(step) != 1 for step in steps):
        raise NoLayer("takes every so many-th only")
    cut = [(0, 0)] * 4
    for axis, start, end in zip(axes, starts, ends, strict=True):
        first, last, _ = slice(start, end).indices(shape[axis])
        cut[axis] = (first, shape[axis] - last)
    if any(cut[0] + cut[1]):
        raise NoLayer("takes some of the channels only")
    t._write(op, t._emit("crop", [x], op, {"cropping": border([*cut[2], *cut[3]])}) if any(cut[2] + cut[3]) else x)


def resize(t: Translation, op: Op) -> None:
    x = t.value(op)
    if x.layout not in ("image", "last"):
        raise NoLayer("resizes no image")
    mode, place = op.get("mode", "nearest"), op.get("coordinate_transformation_mode", "half_pixel")
    after = t.graph.shapes[op.output]
    size = after[2:] if x.layout == "image" else after[1:3]
    scales = [out / of for out, of in zip(size, x.shape[1:], strict=True)]
    whole = all(out % of == 0 for out, of in zip(size, x.shape[1:], strict=True))
    fields: dict[str, Any] = {"scale": size_of([round(s) for s in scales])} if whole else {"size": size_of(size)}
    if op.get("antialias", 0):
        raise NoLayer("resizes with antialias")
    if mode == "nearest":
        floors = place == "asymmetric" and op.get("nearest_mode", "round_prefer_floor") == "floor"
        halves = whole and place in ("half_pixel", "pytorch_half_pixel")  # each pixel is repeated, however it rounds
        if not floors and not halves and op.kind != "Upsample":
            raise NoLayer(f"takes the nearest pixel by {place} and {op.get('nearest_mode')}")
    elif mode == "linear" and place in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        if place == "pytorch_half_pixel" and 1 in size:
            raise NoLayer("resizes to one pixel by pytorch_half_pixel")
        fields |= {"mode": "bilinear"} | ({"align_corners": True} if place == "align_corners" else {})
    else:
        raise NoLayer(f"resizes by {mode} and {place}")
    t._write(op, t._emit("upsample", [x], op, fields))


def depth_to_space(t: Translation, op: Op) -> None:
    if op.get("mode", "DCR") != "CRD":
        raise NoLayer("orders channels by DCR, expected CRD, as PyTorch's pixel_shuffle does")
    t._write(op, t._emit("pixel_shuffle", [t.image(op)], op, {"factor": op.get("blocksize")}))


def softmax(t: Translation, op: Op) -> None:
    x, rank = t.value(op), len(t.graph.shapes[op.output])
    axis = op.get("axis", -1 if t.graph.opset >= 13 else 1) % rank
    if axis != {"image": 1, "vector": 1, "last": 3}.get(x.layout):
        raise NoLayer(f"works along axis {axis}, expected that of the channels")
    if op.output == t.graph.output:
        t.head = "softmax"
        if op.kind == "LogSoftmax":
            t.notes.append("the file gives logarithms of probabilities; here, the head gives probabilities")
        return t._same(op, x)
    if op.kind == "LogSoftmax":
        raise NoLayer("is within the network, expected it at the end")
    return t._write(op, t._emit("softmax", [x], op))


def pointwise(kind: str, **attributes: tuple[str, float]) -> Callable[[Translation, Op], None]:
    """Return a handler of an activation whose attributes have these names and defaults in ONNX."""

    def handler(t: Translation, op: Op) -> None:
        fields = {name: short(op.get(attribute, default)) for name, (attribute, default) in attributes.items()}
        t._write(op, t._emit(kind, [t.value(op)], op, fields))

    return handler


def prelu(t: Translation, op: Op) -> None:
    x, slope = t.value(op), t.constant(op, 1, "slope")
    weight = slope.reshape(1) if slope.size == 1 else t.per_channel(slope, x)
    if weight is None:
        raise NoLayer("has another slope for each pixel")
    fields = {"shared": True} if slope.size == 1 and x.shape[0] > 1 else {}
    t._write(op, t._emit("prelu", [x], op, fields, {"weight": weight}, op.inputs[1:2]))


def dropout(t: Translation, op: Op) -> None:
    rate = short(float(np.asarray(t.optional(op, 1, "ratio", 0.5)).item()))
    t._write(op, t._emit("dropout", [t.value(op)], op, {"rate": rate}))


def identity(t: Translation, op: Op) -> None:
    """Pass a tensor on; in a file of our own, it is a layer that does nothing in evaluation."""
    if t.graph.producer == "cnnbp" and op.output != t.graph.output:
        return t._write(op, t._emit("identity", [t.value(op)], op))
    return t._same(op, t.value(op))


def cast(t: Translation, op: Op) -> None:
    if op.get("to") not in (1, 10, 11, 16):  # the kinds of floats
        raise NoLayer("converts to other numbers than floats")
    t._same(op, t.value(op))


HANDLERS: dict[str, Callable[[Translation, Op], None]] = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Gemm": dense,
    "MatMul": dense,
    "MaxPool": pool,
    "AveragePool": pool,
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax"), global_pool),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), reshape),
    "Transpose": transpose,
    "BatchNormalization": batch_norm,
    "InstanceNormalization": instance_norm,
    "GroupNormalization": group_norm,
    "LayerNormalization": layer_norm,
    "LRN": local_response_norm,
    **dict.fromkeys(("Add", "Sum", "Mul"), merge),
    **dict.fromkeys(("Sub", "Div"), arithmetic),
    "Concat": concat,
    "Pad": pad,
    "Slice": slice_,
    **dict.fromkeys(("Resize", "Upsample"), resize),
    "DepthToSpace": depth_to_space,
    **dict.fromkeys(("Softmax", "LogSoftmax"), softmax),
    "LeakyRelu": pointwise("leaky_relu", slope=("alpha", 0.01)),
    "Elu": pointwise("elu", alpha=("alpha", 1.0)),
    "PRelu": prelu,
    "Dropout": dropout,
    "Identity": identity,
    "Cast": cast,
}
"""What becomes of each operator; activations are recognized before, by what they compute."""
