"""ONNX files from outside: small networks, one of whose numbers, names, tensors or connections is hostile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from fuzz.mutations import NUMBERS, WORDS, contents, places
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from cnnbp_cli.build import build
from cnnbp_cli.config.load import load_config
from cnnbp_cli.errors import UserError
from cnnbp_cli.imports.onnx import import_onnx
from cnnbp_cli.weights import use_weights

SIZES = (-1, 0, 1, 2, 3, 6, 100_000, 1 << 31, 1 << 40, (1 << 63) - 1)
PLACES = ("../secret", "/etc/passwd", "/dev/zero", "model.onnx", "", "a\0b", "../" * 40 + "etc/passwd", "x" * 300)
KINDS = (
    "Conv",
    "If",
    "Loop",
    "Scan",
    "Constant",
    "ConstantOfShape",
    "Range",
    "Expand",
    "Tile",
    "Einsum",
    "RandomNormal",
)
KINDS += ("Pad", "Resize", "Reshape", "Transpose", "Slice", "Split", "Gather", "LRN", "Gemm", "Softmax")
KINDS += ("Nonsense", "")


def models() -> list[Any]:
    """Return valid files that between them have most of what is read."""
    from onnx import TensorProto, helper, numpy_helper

    rng, make = np.random.default_rng(0), helper.make_node

    def model(nodes: list[Any], shape: list[Any], constants: dict[str, Any]) -> Any:
        values = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
        given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
        wanted = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
        graph = helper.make_graph(nodes, "graph", given, wanted, values)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)

    def draw(*shape: int) -> Any:
        return rng.normal(size=shape).astype(np.float32)

    branches = {}
    for name, kind in (("then_branch", "Relu"), ("else_branch", "Tanh")):
        out = f"{name}.out"
        branches[name] = helper.make_graph(
            [make(kind, ["c"], [out])], name, [], [helper.make_empty_tensor_value_info(out)]
        )
    cnn = [
        make("Sub", ["x", "mean"], ["a"], "center"),
        make("Div", ["a", "std"], ["b"], "scale"),
        make("Conv", ["b", "w", "bias"], ["c"], "conv", pads=[1, 1, 1, 1], strides=[1, 1], group=1),
        make("BatchNormalization", ["c", "one", "bias", "bias", "one"], ["d"], "norm", epsilon=1e-3),
        make("Sigmoid", ["d"], ["e"], "gate"),
        make("Mul", ["d", "e"], ["f"], "silu"),
        make("MaxPool", ["f"], ["g"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        make("Reshape", ["g", "shape"], ["h"], "flat"),
        make("Gemm", ["h", "m", "v"], ["i"], "fc", transB=1),
        make("Softmax", ["i"], ["y"], "head", axis=1),
    ]
    numbers = {"mean": draw(1, 2, 1, 1), "std": np.full((1, 2, 1, 1), 0.5, np.float32), "w": draw(4, 2, 3, 3)}
    numbers |= {"bias": draw(4), "one": np.abs(draw(4)) + 1, "shape": np.array([1, -1]), "m": draw(3, 36), "v": draw(3)}
    floors = {"nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
    parts = [
        make("Conv", ["x", "w"], ["c"], "conv", dilations=[1, 1], kernel_shape=[3, 3]),
        make("Shape", ["c"], ["s"], "shape"),
        make("Gather", ["s", "one"], ["n"], "count"),
        make("Equal", ["n", "four"], ["is"], "equal"),
        make("If", ["is"], ["r"], "choice", **branches),
        make("Split", ["r", "sizes"], ["p", "q"], "split", axis=1),
        make("Slice", ["q", "zero", "two", "axes"], ["k"], "slice"),
        make("Pad", ["k", "pads"], ["l"], "pad", mode="constant"),
        make("ConvTranspose", ["p", "t"], ["u"], "up", strides=[2, 2], group=1),
        make("Resize", ["l", "", "", "size"], ["z"], "resize", mode="nearest", **floors),
        make("Concat", ["u", "z"], ["o"], "concat", axis=1),
        make("LRN", ["o"], ["y"], "lrn", size=3),
    ]
    wired: dict[str, Any] = {
        "w": draw(4, 1, 3, 3),
        "t": draw(2, 3, 2, 2),
        "sizes": np.array([2, 2]),
        "one": np.array(1),
    }
    wired |= {"four": np.array(4), "zero": np.array([0]), "two": np.array([2]), "axes": np.array([2])}
    wired |= {"pads": np.array([0, 0, 1, 0, 0, 0, 1, 0]), "size": np.array([1, 2, 8, 8])}
    return [model(cnn, ["N", 2, 6, 6], numbers), model(parts, [1, 1, 6, 6], wired)]


def edited(proto: Any, edits: list[tuple[str, int, int, Any]]) -> bytes:
    """Return a file after some edits, each of a kind, at a place, with a number and a word."""
    copy = type(proto)()
    copy.CopyFrom(proto)
    graph = copy.graph
    for kind, place, number, word in edits:
        node = graph.node[place % len(graph.node)] if graph.node else None
        tensor = graph.initializer[place % len(graph.initializer)]
        if node is None:
            break
        if kind == "operator":
            node.op_type = KINDS[place // 64 % len(KINDS)]
        elif kind == "input" and node.input:
            names = [name for other in graph.node for name in (*other.output, *other.input)]
            node.input[place // 64 % len(node.input)] = names[number % len(names)]  # of a later one: a cycle
        elif kind == "output":
            node.output[0] = graph.node[number % len(graph.node)].output[0]
        elif kind == "drop":
            del graph.node[place % len(graph.node)]
        elif kind == "repeat":
            graph.node.append(node)
        elif kind == "attribute" and node.attribute:
            attribute = node.attribute[place // 64 % len(node.attribute)]
            attribute.i = number
            for k in range(len(attribute.ints)):
                attribute.ints[k] = number if place >> k & 1 else attribute.ints[k]
            attribute.type = number % 15 if place & 4096 else attribute.type
        elif kind == "name":
            node.name = str(word)[:4000].replace("\ud800", "?")
        elif kind == "tensor name":
            _rename(graph, tensor.name, str(word)[:4000].replace("\ud800", "?"))
        elif kind == "dims":
            tensor.dims[:] = [SIZES[(place >> k) % len(SIZES)] for k in range(place % 5)]
        elif kind == "data":
            tensor.raw_data = tensor.raw_data[: number % (len(tensor.raw_data) + 1)]
        elif kind == "type":
            tensor.data_type = number % 25
        elif kind == "numbers" and len(tensor.raw_data) >= 8:
            tensor.raw_data = np.int64(number).tobytes() * (len(tensor.raw_data) // 8)
        elif kind == "outside":
            tensor.ClearField("raw_data")
            tensor.data_location = 1
            for key, value in (("location", PLACES[place % len(PLACES)]), ("length", str(number))):
                entry = tensor.external_data.add()
                entry.key, entry.value = key, value
        elif kind == "input size":
            dims = graph.input[0].type.tensor_type.shape.dim
            dims[place % len(dims)].dim_value = number
        elif kind == "opset":
            copy.opset_import[0].version = number
        elif kind == "metadata":
            entry = copy.metadata_props.add()
            entry.key, entry.value = ("config", "normalization")[place % 2], str(word)[:4000].replace("\ud800", "?")
            copy.producer_name = "cnnbp"
    return copy.SerializeToString()


def _rename(graph: Any, before: str, after: str) -> None:
    for tensor in graph.initializer:
        tensor.name = after if tensor.name == before else tensor.name
    for node in graph.node:
        for k, name in enumerate(node.input):
            node.input[k] = after if name == before else name


EDITS = (
    "operator",
    "input",
    "output",
    "drop",
    "repeat",
    "attribute",
    "attribute",
    "name",
    "tensor name",
    "dims",
    "data",
)
EDITS += ("type", "numbers", "outside", "input size", "opset", "metadata")


def onnx_files() -> SearchStrategy[bytes]:
    """Return files that were right, changed in what they mean or byte by byte."""
    bases = models()
    numbers = st.sampled_from([number for number in (*NUMBERS, *SIZES) if -(1 << 63) <= number < 1 << 63])
    edits = st.lists(st.tuples(st.sampled_from(EDITS), places, numbers, st.sampled_from(WORDS)), min_size=1, max_size=3)
    meant = st.builds(edited, st.sampled_from(bases), edits)
    return st.one_of(meant, meant, meant, contents([base.SerializeToString() for base in bases]))


def read_model(folder: Path, content: bytes) -> None:
    """Import a file; after a refusal nothing is there that was not there before."""
    path = folder / "model.onnx"
    path.write_bytes(content)
    try:
        import_onnx(path, folder / "model.yaml", weights=folder / "model.npz")
    except UserError:
        assert [file.name for file in folder.iterdir()] == [path.name]
        assert path.read_bytes() == content
        raise
    use_weights(build(load_config(folder / "model.yaml"), any_target=True), folder / "model.npz")
