"""An ONNX file as a list of operators on tensors of known shapes, with everything constant computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cnnbp_cli.core.types import Array, Shape
from cnnbp_cli.imports.errors import ImportProblem

SAME_SHAPE = {"GroupNormalization", "Gelu", "HardSwish", "Mish", "Softplus"}
"""Operators whose output has the shape of their input, which onnx does not infer in all of its versions."""

LARGEST_FOLDED = 1 << 24
"""The most numbers that a computed constant may have: shapes and masks have few."""


LARGEST_READ = 4096
"""The most numbers of a constant that shapes may depend on."""


@dataclass(eq=False)
class Op:
    """One operator: what it reads and writes by name, `""` for an input that is left out."""

    kind: str
    name: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any]
    scopes: tuple[str, ...] = ()

    @property
    def output(self) -> str:
        return self.outputs[0]

    def get(self, name: str, default: Any = None) -> Any:
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value


@dataclass
class OnnxGraph:
    """What is left of a file when its constants are known.

    Attributes
    ----------
    ops : list of Op
        In the order of computation.
    constants : dict of str to Array
    shapes : dict of str to Shape
        Of every tensor, the batch among them.
    input, output : str
    metadata : dict of str to str
    producer : str
    double : bool
        Whether it computes in float64.
    """

    ops: list[Op]
    constants: dict[str, Array]
    shapes: dict[str, Shape]
    input: str
    output: str
    opset: int = 21
    metadata: dict[str, str] = field(default_factory=dict[str, str])
    producer: str = ""
    double: bool = False

    def __post_init__(self) -> None:
        self.index()

    def index(self) -> None:
        """Find out anew who writes and who reads which tensor."""
        self.producer_of = {name: op for op in self.ops for name in op.outputs if name}
        self.readers: dict[str, list[Op]] = {}
        for op in self.ops:
            for name in dict.fromkeys(op.inputs):
                self.readers.setdefault(name, []).append(op)

    def constant(self, name: str) -> Array | None:
        return self.constants.get(name)

    def only_reader(self, name: str) -> Op | None:
        """Return the operator that alone reads a tensor, if it is no output of the model."""
        readers = self.readers.get(name, [])
        return readers[0] if len(readers) == 1 and name != self.output else None


def read_graph(path: Path, size: Shape | None = None) -> OnnxGraph:
    """Read an ONNX file.

    Parameters
    ----------
    path : Path
    size : Shape, optional
        One image's (c, h, w), where the file leaves them open.

    Raises
    ------
    ImportProblem
        When onnx is not installed, or the file is missing, damaged, or no network from one tensor to one.
    """
    try:
        import onnx
        from onnx import inliner
    except ImportError:
        raise ImportProblem(f"{path}: needs onnx, which is not installed: pip install 'cnnbp[onnx]'") from None
    try:
        proto = onnx.load(path)
    except OSError as error:
        raise ImportProblem(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # protobuf's own errors have no common base
        raise ImportProblem(f"{path}: is no ONNX file, or is damaged: {_first_line(error)}") from None
    if not proto.graph.node:
        raise ImportProblem(f"{path}: is no ONNX file, or has no operators")
    try:
        if proto.functions:
            proto = inliner.inline_local_functions(proto)
        constants = _initializers(proto.graph)
        ops = [_op(node) for node in proto.graph.node]
    except Exception as error:  # of several kinds, for a file that is damaged within
        raise ImportProblem(f"{path}: is not valid ONNX: {_first_line(error)}") from None
    given, image = _only_input(path, proto.graph, constants)
    if len(proto.graph.output) != 1:
        names = ", ".join(value.name for value in proto.graph.output)
        raise ImportProblem(f"{path}: has {len(proto.graph.output)} outputs ({names}), expected one")
    _fix_input(path, given, size, image)
    graph = OnnxGraph(
        ops,
        constants,
        {},
        given.name,
        proto.graph.output[0].name,
        next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), 21),
        {entry.key: entry.value for entry in proto.metadata_props},
        proto.producer_name,
        given.type.tensor_type.elem_type == onnx.TensorProto.DOUBLE,
    )
    _Folding(path, proto, graph).run()
    return graph


def _only_input(path: Path, graph: Any, constants: dict[str, Array]) -> tuple[Any, list[int | None]]:
    """Return the model's input and its shape, None for an open size."""
    inputs = [value for value in graph.input if value.name not in constants]
    if len(inputs) != 1:
        raise ImportProblem(
            f"{path}: has {len(inputs)} inputs ({', '.join(value.name for value in inputs)}), expected one image"
        )
    dims = [dim.dim_value or None for dim in inputs[0].type.tensor_type.shape.dim]
    if len(dims) not in (2, 4):
        raise ImportProblem(f"{path}: the input {inputs[0].name} has {len(dims)} axes, expected images (N, C, H, W)")
    return inputs[0], dims


def _fix_input(path: Path, value: Any, size: Shape | None, dims: list[int | None]) -> None:
    """Make the input's sizes known: one image where the number is open, height and width as given."""
    dims[0] = dims[0] or 1
    if size is not None and len(dims) == 4:
        wanted = [dims[0], *size]
        if any(has not in (None, want) for has, want in zip(dims[1:], size, strict=True)):
            raise ImportProblem(f"{path}: takes images of {dims[1:]}, not of {list(size)}")
        dims = list(wanted)
    if any(size is not None and size < 1 for size in dims):
        raise ImportProblem(f"{path}: takes images of {dims[1:]}, which cannot be")
    if None in dims:
        example = ",".join(str(has or usual) for has, usual in zip(dims[1:], (3, 224, 224), strict=False))
        raise ImportProblem(f"{path}: leaves the size of its input open; say it: --input {example}")
    for dim, known in zip(value.type.tensor_type.shape.dim, dims, strict=True):
        dim.Clear()
        dim.dim_value = known


def _op(node: Any) -> Op:
    from onnx import helper

    words = (node.op_type, node.name, *node.input, *node.output, *(attribute.name for attribute in node.attribute))
    if not all(isinstance(word, str) for word in words):  # protobuf gives what is no UTF-8 as bytes
        raise ValueError("a name is not UTF-8")
    scopes = next((entry.value for entry in node.metadata_props if entry.key.endswith("name_scopes")), "")
    return Op(
        node.op_type,
        node.name,
        list(node.input),
        list(node.output),
        {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute},
        tuple(part.strip().strip("'\"") for part in scopes.strip("[]").split(",")) if scopes else (),
    )


def _initializers(graph: Any) -> dict[str, Array]:
    from onnx import numpy_helper

    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def _in_place(branch: Any, outputs: Sequence[str]) -> list[Any]:
    """Return the operators of a branch, so that they write what the `If` around it writes."""
    from onnx import helper

    names = dict(zip([value.name for value in branch.output], outputs, strict=True))
    written = {name for node in branch.node for name in node.output}
    for node in branch.node:
        for list_of in (node.input, node.output):
            for k, name in enumerate(list_of):
                if name in written:
                    list_of[k] = names.get(name, name)
    passed = [helper.make_node("Identity", [name], [to]) for name, to in names.items() if name not in written]
    return [*branch.node, *passed]


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


class _Folding:
    """Computes shapes and constants in turns, until nothing new is known."""

    def __init__(self, path: Path, proto: Any, graph: OnnxGraph) -> None:
        self.path, self.proto, self.graph = path, proto, graph
        self.told: list[Any] = []

    def run(self) -> None:
        while True:
            goes_on = self._infer()
            if not self._fold() and not self._tell() and not self._choose() and not goes_on:
                break
        self._skip_gathers()
        self._drop_unread()
        for op in self.graph.ops:
            for name in op.outputs:
                if name and 0 in self.graph.shapes.get(name, (0,)):
                    raise ImportProblem(f"{self.path}: the shape of {name!r}, which {op.kind} writes, depends on data")
        self.graph.index()

    def _infer(self) -> bool:
        """Let onnx infer shapes, from operators and the constants that are known; return whether it can go on.

        Its inference of `Slice` ends the process where a size is negative, as behind a kernel that is larger than the
        image. So each waits until the sizes of its input are known, and found to be sizes.
        """
        import onnx
        from onnx import helper, numpy_helper

        graph, proto = self.graph, self.proto
        kept = [node for node in proto.graph.node if not all(not o or o in graph.constants for o in node.output)]
        waiting = [node for node in kept if node.op_type == "Slice" and not self._is_known(node.input)]
        small = {name: value for name, value in graph.constants.items() if value.size <= LARGEST_READ}
        large = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
            for name, value in graph.constants.items()
            if name not in small
        ]
        outline = helper.make_graph(
            [node for node in kept if node not in waiting],
            "outline",
            proto.graph.input,
            [helper.make_empty_tensor_value_info(value.name) for value in proto.graph.output],
            [numpy_helper.from_array(value, name) for name, value in small.items()],
            value_info=[*self.told, *large],  # an exporter may have written sizes of its own, which are left out
        )
        model = helper.make_model(outline, opset_imports=proto.opset_import, ir_version=proto.ir_version)
        try:
            inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
        except Exception as error:
            raise ImportProblem(f"{self.path}: its shapes contradict each other: {_first_line(error)}") from None
        for value in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
            shape = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
            if min(shape, default=0) < 0:
                raise ImportProblem(
                    f"{self.path}: the image is too small: {value.name!r} would have the shape {list(shape)}"
                )
            graph.shapes[value.name] = shape
        graph.shapes |= {name: value.shape for name, value in graph.constants.items()}
        return any(self._is_known(node.input) for node in waiting)

    def _is_known(self, inputs: Sequence[str]) -> bool:
        """Return whether the sizes of the first of some inputs are known."""
        return bool(inputs) and 0 not in self.graph.shapes.get(inputs[0], (0,))

    def _fold(self) -> bool:
        """Compute every operator whose inputs are known; return whether there was any."""
        graph, left = self.graph, list[Op]()
        for op in graph.ops:
            values = self._known_outputs(op)
            if values is None:
                left.append(op)
            else:
                graph.constants |= dict(zip(op.outputs, values, strict=True))
        found = len(left) < len(graph.ops)
        graph.ops = left
        return found

    def _tell(self) -> bool:
        """Tell onnx shapes that it does not infer; return whether there was any."""
        from onnx import TensorProto, helper

        graph, kind = self.graph, TensorProto.DOUBLE if self.graph.double else TensorProto.FLOAT
        known = {value.name for value in self.told}
        for op in graph.ops:
            shape = graph.shapes.get(op.inputs[0], (0,)) if op.kind in SAME_SHAPE else (0,)
            if 0 not in shape and op.output not in known and 0 in (graph.shapes.get(op.output) or (0,)):
                self.told.append(helper.make_tensor_value_info(op.output, kind, shape))
                return True
        return False

    def _choose(self) -> bool:
        """Put the branch of an `If` whose condition is known in its place; return whether there was any."""
        graph, given = self.graph, self.proto.graph
        nodes, found = list[Any](), False
        for node in given.node:
            condition = graph.constant(node.input[0]) if node.op_type == "If" else None
            if condition is None:
                nodes.append(node)
                continue
            found, wanted = True, "then_branch" if condition.any() else "else_branch"
            branch = next((attribute.g for attribute in node.attribute if attribute.name == wanted), None)
            if branch is None or len(branch.output) != len(node.output):
                raise ImportProblem(f"{self.path}: is not valid ONNX: node {node.name!r} (If) has no {wanted}")
            given.initializer.extend(branch.initializer)
            try:
                nodes.extend(_in_place(branch, node.output))
            except ValueError as error:  # names that are no text, or others than were announced
                raise ImportProblem(f"{self.path}: is not valid ONNX: {_first_line(error)}") from None
        if not found:
            return False
        nodes = [type(node).FromString(node.SerializeToString()) for node in nodes]  # out of the list that is emptied
        del given.node[:]
        given.node.extend(nodes)
        try:
            graph.constants |= _initializers(given)
            graph.ops = [_op(node) for node in nodes if not all(name in graph.constants for name in node.output)]
        except Exception as error:
            raise ImportProblem(f"{self.path}: is not valid ONNX: {_first_line(error)}") from None
        return True

    def _known_outputs(self, op: Op) -> Sequence[Array] | None:
        graph = self.graph
        if op.kind == "Shape":
            shape = graph.shapes.get(op.inputs[0], (0,))
            if 0 in shape:
                return None
            return [np.array(shape[op.get("start", 0) : op.get("end", len(shape))], np.int64)]
        if not all(not name or name in graph.constants for name in op.inputs) or op.kind in ("RandomNormal", "If"):
            return None
        if sum(graph.constants[name].size for name in op.inputs if name) > LARGEST_FOLDED:
            return None
        return evaluate([op], {name: graph.constants[name] for name in op.inputs if name}, op.outputs, graph.opset)

    def _skip_gathers(self) -> None:
        """Write `Gather(Reshape(x, [-1]), 0, 1, 2, …)`, as PyTorch writes a view, as the reshape that it is."""
        graph = self.graph
        graph.index()
        for op in graph.ops:
            indices = graph.constant(op.inputs[1]) if op.kind == "Gather" else None
            flat = graph.producer_of.get(op.inputs[0])
            if indices is None or flat is None or flat.kind != "Reshape" or len(graph.shapes[flat.output]) != 1:
                continue
            if np.array_equal(indices.ravel(), np.arange(graph.shapes[flat.output][0])):
                op.kind, op.inputs = "Reshape", [flat.inputs[0], f"{op.output}.shape"]
                graph.constants[op.inputs[1]] = np.array(indices.shape)

    def _drop_unread(self) -> None:
        """Leave out what the output does not depend on."""
        needed, kept = {self.graph.output}, list[Op]()
        for op in reversed(self.graph.ops):
            if needed.intersection(op.outputs):
                needed.update(op.inputs)
                kept.append(op)
        self.graph.ops = kept[::-1]


def evaluate(ops: Sequence[Op], values: dict[str, Array], outputs: Sequence[str], opset: int) -> list[Array]:
    """Return what operators make of some tensors, by onnx's reference implementation.

    Raises
    ------
    ImportProblem
        When it has none.
    """
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    try:
        nodes = [helper.make_node(op.kind, op.inputs, op.outputs, **op.attributes) for op in ops]
        inputs = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), None)
            for name, value in values.items()
        ]
        wanted = [helper.make_empty_tensor_value_info(name) for name in outputs]
        model = helper.make_model(
            helper.make_graph(nodes, "part", inputs, wanted), opset_imports=[helper.make_opsetid("", opset)]
        )
        return [np.asarray(value) for value in ReferenceEvaluator(model).run(None, values)]
    except Exception as error:
        raise ImportProblem(f"cannot compute {ops[-1].kind} {ops[-1].name}: {_first_line(error)}") from None
