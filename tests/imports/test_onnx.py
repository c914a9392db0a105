"""ONNX files of other programs, and our own, compute here what they compute in ONNX Runtime."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exports.models import one_layer, pixels, shuffle
from laws.cases import ALL_CASES
from typer.testing import CliRunner

import cnnbp_cli as cnnbp
from cnnbp_cli.analysis.predict import predict_files
from cnnbp_cli.build import build
from cnnbp_cli.cli.app import app
from cnnbp_cli.config.load import load_config
from cnnbp_cli.config.write import to_dict
from cnnbp_cli.data.dataset import check_labels
from cnnbp_cli.imports.errors import ImportProblem
from cnnbp_cli.imports.onnx import import_onnx, read_onnx
from cnnbp_cli.loading import load_data
from cnnbp_cli.model import class_count
from cnnbp_cli.weights import WeightsFrom, use_weights

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402 (it may be missing)

CONFIGS = [*sorted((Path(__file__).parents[2] / "configs").glob("*.yaml")), Path(__file__).parents[1] / "shared.yaml"]
PUBLISHED = ["resnet18", "mobilenet-v2", "squeezenet", "vgg11-bn", "densenet", "u-net"]
PUBLISHED += ["mobilenet-v3", "convnext", "odds"]
MORE = ["efficientnet", "shufflenet", "regnet", "inception-v3", "googlenet", "mnasnet", "decoder"]
PUBLISHED += MORE
QUICK = [(name, False) for name in PUBLISHED if name not in ("efficientnet", "regnet", "mnasnet")]
QUICK += [("mobilenet-v3", True), ("decoder", True)]
"""Those that are tried in every run, and whether with the newer exporter; the others are in the long ones."""


def run(path: Path, images: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (outputs,) = session.run(None, {session.get_inputs()[0].name: images})
    return outputs


def assert_computes_the_same(path: Path, folder: Path, images: np.ndarray, expected: np.ndarray | None = None) -> Any:
    """Import a file, read what was written, and compare outputs."""
    report = import_onnx(path, folder / "imported.yaml")
    model = build(load_config(report.config), any_target=True)
    use_weights(model, WeightsFrom(report.weights))
    expected = run(path, images) if expected is None else expected
    actual = model.predict(model.normalization.apply(images, model.dtype) if model.normalization else images)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * max(1.0, float(np.abs(expected).max())))
    return model


# ---------------------------------------------------------------- PyTorch


@pytest.mark.parametrize(
    ("name", "newer"),
    [
        case if case in QUICK else pytest.param(*case, marks=pytest.mark.slow)
        for case in ((name, newer) for newer in (False, True) for name in PUBLISHED)
    ],
)
def test_published_networks_from_pytorch(name: str, newer: bool, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    if newer:
        pytest.importorskip("onnxscript")
    from imports.networks import NETWORKS, make

    assert NETWORKS.keys() == set(PUBLISHED)
    network, image = make(name)
    path = tmp_path / "published.onnx"
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        sizes = {} if newer else {"dynamic_axes": {"image": {0: "N"}}}
        torch.onnx.export(network, (image,), path, dynamo=newer, input_names=["image"], **sizes)
    with torch.no_grad():
        theirs = network(image).numpy()
    np.testing.assert_allclose(run(path, image.numpy()), theirs, rtol=0, atol=1e-5)
    assert np.abs(theirs).max() > 0.01  # there is something to compare
    model = assert_computes_the_same(path, tmp_path, image.numpy(), np.exp(theirs) if name == "googlenet" else theirs)
    if name == "resnet18":
        names = [spec.name for spec in model.config.model.layers]
        assert names[:6] == ["conv1", "relu", "maxpool", "layer1_0_conv1", "layer1_0_relu", "layer1_0_conv2"]
        assert names[-2:] == ["avgpool", "fc"]


# ---------------------------------------------------------------- our own


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_export_and_import_are_the_identity(config: Path, tmp_path: Path) -> None:
    model = cnnbp.load(config)
    shuffle(model)
    pixels(model, 1)
    cnnbp.export(model, tmp_path / "model.onnx")
    again, _, _ = read_onnx(tmp_path / "model.onnx", config.stem)
    assert to_dict(again.config) == to_dict(model.config)
    assert again.normalization == model.normalization
    ours, theirs = model.parameters(), again.parameters()
    assert list(ours) == list(theirs)
    for name, value in ours.items():
        assert theirs[name].dtype == value.dtype
        np.testing.assert_array_equal(theirs[name], value)
    report = import_onnx(tmp_path / "model.onnx", tmp_path / f"{config.stem}.yaml")
    written = to_dict(load_config(report.config))
    assert written | {"data": None} == to_dict(model.config) | {"data": None}


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_a_file_whose_config_is_lost_computes_the_same(config: Path, tmp_path: Path) -> None:
    model = cnnbp.load(config)
    shuffle(model)
    images = pixels(model, 3)
    cnnbp.export(model, tmp_path / "model.onnx")
    proto = onnx.load(tmp_path / "model.onnx")
    del proto.metadata_props[:]
    proto.producer_name = ""
    onnx.save(proto, tmp_path / "bare.onnx")
    assert_computes_the_same(tmp_path / "bare.onnx", tmp_path, images, model.predict(images))


@pytest.mark.parametrize("case", [case for case in ALL_CASES if case.dtype == "float64"], ids=str)
def test_one_layer(case: Any, tmp_path: Path) -> None:
    """Whatever a layer is in ONNX is read again as layers that compute the same."""
    model = one_layer(case, "float64")
    cnnbp.export(model, tmp_path / "model.onnx")
    proto = onnx.load(tmp_path / "model.onnx")
    del proto.metadata_props[:]
    onnx.save(proto, tmp_path / "model.onnx")
    again, _, _ = read_onnx(tmp_path / "model.onnx", "again")
    images = np.random.default_rng(3).normal(size=(2, *model.config.model.input))
    expected = model.predict(images)
    assert again.dtype == np.float64
    np.testing.assert_allclose(again.predict(images), expected, rtol=0, atol=1e-6 * max(1.0, np.abs(expected).max()))


# ---------------------------------------------------------------- other ways of writing


def save(
    path: Path,
    nodes: Sequence[Any],
    shape: Sequence[int | str],
    constants: dict[str, np.ndarray] | None = None,
    opset: int = 17,
    outputs: Sequence[str] = ("y",),
) -> Path:
    """Write a file with the input x and the output y."""
    values = [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    wanted = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    graph = helper.make_graph(nodes, "other", given, wanted, values)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9), path)
    return path


def test_channels_last_as_keras_has_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    f = np.float32
    constants = {
        "w": rng.normal(size=(4, 2, 3, 3)).astype(f),
        "d": rng.normal(size=(4 * 2 * 3, 5)).astype(f),
        "b": rng.normal(size=5).astype(f),
        "shape": np.array([-1, 24]),
    }
    nodes = [
        helper.make_node("Transpose", ["x"], ["first"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["first", "w"], ["c"], "model/conv2d/Conv2D", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "model/conv2d/Relu"),
        helper.make_node("MaxPool", ["r"], ["p"], "model/max_pooling2d/MaxPool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Transpose", ["p"], ["last"], perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", ["last", "shape"], ["flat"], "model/flatten/Reshape"),
        helper.make_node("MatMul", ["flat", "d"], ["m"], "model/dense/MatMul"),
        helper.make_node("Add", ["m", "b"], ["a"], "model/dense/BiasAdd"),
        helper.make_node("Softmax", ["a"], ["y"], "model/dense/Softmax"),
    ]
    path = save(tmp_path / "keras.onnx", nodes, ["N", 4, 6, 2], constants)
    images = rng.normal(size=(3, 2, 4, 6)).astype(f)
    expected = run(path, np.ascontiguousarray(images.transpose(0, 2, 3, 1)))
    model = assert_computes_the_same(path, tmp_path, images, expected)
    assert model.config.model.head == "softmax"
    assert [spec.name for spec in model.config.model.layers][-1] == "dense"


ERF = [
    helper.make_node("Div", ["c", "root"], ["u"]),
    helper.make_node("Erf", ["u"], ["e"]),
    helper.make_node("Add", ["e", "one"], ["s"]),
    helper.make_node("Mul", ["c", "s"], ["m"]),
    helper.make_node("Mul", ["m", "half"], ["y"]),
]
CLIPPED = [
    helper.make_node("Add", ["c", "three"], ["u"]),
    helper.make_node("Clip", ["u", "zero", "six"], ["k"]),
    helper.make_node("Div", ["k", "six"], ["g"]),
]
WRITTEN = {
    "gelu": ERF,
    "hard_sigmoid": [*CLIPPED[:2], helper.make_node("Div", ["k", "six"], ["y"])],
    "hard_swish": [*CLIPPED, helper.make_node("Mul", ["g", "c"], ["y"])],
    "silu": [helper.make_node("Sigmoid", ["c"], ["g"]), helper.make_node("Mul", ["g", "c"], ["y"])],
    "relu6": [helper.make_node("Relu", ["c"], ["k"]), helper.make_node("Min", ["k", "six"], ["y"])],
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_activations_are_known_by_what_they_compute(kind: str, tmp_path: Path) -> None:
    f = np.float32
    constants = {"root": f(2**0.5), "one": f(1), "half": f(0.5), "three": f(3), "zero": f(0), "six": f(6)}
    constants["w"] = 4 * np.random.default_rng(0).normal(size=(2, 1, 1, 1)).astype(f)
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), *WRITTEN[kind]]
    images = np.random.default_rng(0).normal(size=(2, 1, 9, 9)).astype(f)
    model = assert_computes_the_same(save(tmp_path / "a.onnx", nodes, [2, 1, 9, 9], constants), tmp_path, images)
    assert [spec.layer.type for spec in model.config.model.layers] == ["conv2d", kind]


def test_a_tensor_that_others_read_too_stays(tmp_path: Path) -> None:
    nodes = [
        *WRITTEN["silu"][:1],
        helper.make_node("Mul", ["g", "c"], ["s"]),
        helper.make_node("Add", ["s", "g"], ["y"]),
    ]
    weight = np.ones((2, 1, 1, 1), np.float32)
    path = save(tmp_path / "a.onnx", [helper.make_node("Conv", ["x", "w"], ["c"]), *nodes], [1, 1, 8, 8], {"w": weight})
    images = np.random.default_rng(0).normal(size=(1, 1, 8, 8)).astype(np.float32)
    model = assert_computes_the_same(path, tmp_path, images)
    assert [spec.layer.type for spec in model.config.model.layers] == ["conv2d", "sigmoid", "multiply", "add"]


def test_what_normalizes_the_input_becomes_the_normalization(tmp_path: Path) -> None:
    f = np.float32
    mean, std = np.array([0.5, 0.4, 0.3], f).reshape(1, 3, 1, 1), np.array([0.2, 0.3, 0.4], f).reshape(1, 3, 1, 1)
    nodes = [
        helper.make_node("Sub", ["x", "mean"], ["u"]),
        helper.make_node("Div", ["u", "std"], ["v"]),
        helper.make_node("Conv", ["v", "w"], ["y"]),
    ]
    constants = {"mean": mean, "std": std, "w": np.ones((2, 3, 2, 2), f)}
    model, _, _ = read_onnx(save(tmp_path / "n.onnx", nodes, [1, 3, 8, 8], constants), "n")
    assert [spec.layer.type for spec in model.config.model.layers] == ["conv2d"]
    np.testing.assert_allclose(model.normalization.mean, mean.ravel())
    np.testing.assert_allclose(model.normalization.std, std.ravel())


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        (
            [helper.make_node("Gather", ["c", "list"], ["y"], "pick", axis=1)],
            "node 'pick' (Gather): takes the channels [2, 0], expected some that lie together",
        ),
        (
            [helper.make_node("Split", ["c"], ["y", "z"], "cut", axis=2)],
            "node 'cut' (Split): splits axis 2, expected that of the channels",
        ),
        (
            [helper.make_node("Slice", ["c", "zero", "three", "one", "two"], ["y"], "skip")],
            "node 'skip' (Slice): takes every so many-th only",
        ),
        (
            [helper.make_node("Reshape", ["c", "deal"], ["v"], "deal"), helper.make_node("Relu", ["v"], ["y"])],
            "node 'deal' (Reshape): makes [1, 2, 2, 8, 8] of [1, 4, 8, 8]",
        ),
    ],
)
def test_parts_that_no_layer_takes(nodes: Sequence[Any], expected: str, tmp_path: Path) -> None:
    constants = {name: np.array([value]) for name, value in {"zero": 0, "one": 1, "two": 2, "three": 3}.items()}
    constants |= {"list": np.array([2, 0]), "deal": np.array([1, 2, 2, 8, 8]), "w": np.ones((4, 1, 1, 1), np.float32)}
    conv = helper.make_node("Conv", ["x", "w"], ["c"], "conv")
    path = save(tmp_path / "parts.onnx", [conv, *nodes], [1, 1, 8, 8], constants)
    assert complaint(path, tmp_path) == f"{path}: cannot be imported:\n  {expected}"


def test_parts_of_images_with_their_channels_last(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    constants = {"sizes": np.array([1, 2, 1]), "w": rng.normal(size=(4, 1, 3, 3)).astype(np.float32)}
    constants |= {"places": np.array([-2, -1]), "from": np.array([0, 1, 1]), "to": np.array([1, 5, 2])}
    constants |= {"axes": np.array([0, 2, 3])}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Transpose", ["c"], ["last"], perm=[0, 2, 3, 1]),
        helper.make_node("Split", ["last", "sizes"], ["a", "b", "unread"], axis=3),
        helper.make_node("Gather", ["last", "places"], ["g"], axis=-1),
        helper.make_node("Sub", ["b", "g"], ["d"]),
        helper.make_node("Concat", ["a", "d"], ["e"], axis=-1),
        helper.make_node("Slice", ["e", "from", "to", "axes"], ["s"]),
        helper.make_node("Transpose", ["s"], ["y"], perm=[0, 3, 1, 2]),
    ]
    path = save(tmp_path / "last.onnx", nodes, [1, 1, 8, 8], constants)
    model = assert_computes_the_same(path, tmp_path, rng.normal(size=(1, 1, 8, 8)).astype(np.float32))
    kinds = [spec.layer.type for spec in model.config.model.layers]
    assert kinds == ["conv2d", *["slice_channels"] * 3, "conv2d", "add", "concat", "slice_channels", "crop"]


@pytest.mark.parametrize(("factors", "kinds"), [((2, 3, 0.5), ["conv2d"]), ((2, -3, 0.5), None)])
def test_channels_that_are_moved_one_by_one_are_a_normalization(
    factors: Sequence[float], kinds: list[str] | None, tmp_path: Path
) -> None:
    """As in torchvision's Inception; a factor below 0 is none."""
    f = np.float32
    constants: dict[str, np.ndarray] = {"w": np.ones((2, 3, 2, 2), f), "one": np.array([1])}
    nodes = []
    for k, factor in enumerate(factors):
        constants |= {f"k{k}": np.array(k), f"f{k}": f(factor), f"o{k}": f(0.1 * k)}
        nodes += [
            helper.make_node("Gather", ["x", f"k{k}"], [f"g{k}"], axis=1),
            helper.make_node("Unsqueeze", [f"g{k}", "one"], [f"u{k}"]),
            helper.make_node("Mul", [f"u{k}", f"f{k}"], [f"m{k}"]),
            helper.make_node("Add", [f"m{k}", f"o{k}"], [f"a{k}"]),
        ]
    nodes += [
        helper.make_node("Concat", ["a0", "a1", "a2"], ["v"], axis=1),
        helper.make_node("Conv", ["v", "w"], ["y"]),
    ]
    path = save(tmp_path / "n.onnx", nodes, [1, 3, 8, 8], constants)
    if kinds is None:
        assert "(Gather)" in complaint(path, tmp_path)
        return
    model = assert_computes_the_same(path, tmp_path, np.random.default_rng(1).normal(size=(2, 3, 8, 8)).astype(f)[:1])
    assert [spec.layer.type for spec in model.config.model.layers] == kinds
    np.testing.assert_allclose(model.normalization.std, 1 / np.array(factors), rtol=1e-6)
    np.testing.assert_allclose(model.normalization.mean, -0.1 * np.arange(3) / factors, rtol=1e-5, atol=1e-7)


PUBLISHED_MEANS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.mark.parametrize("within", [False, True])
def test_pictures_get_the_preprocessing_that_was_published(within: bool, tmp_path: Path) -> None:
    """By --mean and --std, also before what the file itself does to its input."""
    image = pytest.importorskip("PIL.Image")
    rng, f = np.random.default_rng(2), np.float32
    pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
    image.fromarray(pixels).save(tmp_path / "cat.png")
    mean, std = (np.array(values, f).reshape(1, 3, 1, 1) for values in PUBLISHED_MEANS)
    constants = {"w": rng.normal(size=(5, 3, 8, 8)).astype(f), "half": f(0.5), "two": f(2)}
    nodes = (
        [helper.make_node("Sub", ["x", "half"], ["a"]), helper.make_node("Mul", ["a", "two"], ["b"])] if within else []
    )
    nodes += [helper.make_node("Conv", ["b" if within else "x", "w"], ["c"]), helper.make_node("Flatten", ["c"], ["f"])]
    nodes.append(helper.make_node("Softmax", ["f"], ["y"]))
    path = save(tmp_path / "net.onnx", nodes, [1, 3, 8, 8], constants)
    given = ["--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225"]
    done = CliRunner().invoke(app, ["import", str(path), str(tmp_path / "net.yaml"), *given])
    assert done.exit_code == 0, done.stderr
    assert "--mean" not in done.stderr
    expected = run(path, ((pixels.transpose(2, 0, 1)[None] / f(255) - mean) / std).astype(f))
    (weights,) = [file for file in tmp_path.iterdir() if file.stem == "net" and file.suffix in (".safetensors", ".npz")]
    model = cnnbp.load(tmp_path / "net.yaml", weights=weights)
    (found,) = predict_files(model, [tmp_path / "cat.png"])
    np.testing.assert_allclose(found.probabilities, expected[0], atol=1e-5)
    trained = load_data(model).normalization  # of other images, with the same numbers
    scale = 255 / trained.white
    np.testing.assert_allclose(np.array(trained.mean) * scale, np.array(model.normalization.mean) * 255, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--mean", "0.5"], "error: --mean: goes with --std, which says the rest"),
        (
            ["--mean", "0.5,a", "--std", "1"],
            "error: --mean: expected numbers such as 0.5,0.5,0.5, got '0.5,a'",
        ),
        (["--mean", "0.5", "--std", "0"], "error: --std: expected numbers above 0, got [0.0]"),
        (["--mean", "1,2", "--std", "1"], "error: --std: expected as many numbers as mean has, 2, got 1"),
        (["--mean", "1,2", "--std", "1,1"], "net.onnx: takes images of 1 channel, but --mean has 2 numbers"),
    ],
)
def test_means_that_cannot_be(options: list[str], expected: str, tmp_path: Path) -> None:
    path = save(tmp_path / "net.onnx", [helper.make_node("Relu", ["x"], ["y"])], [1, 1, 8, 8])
    done = CliRunner().invoke(app, ["import", str(path), str(tmp_path / "net.yaml"), *options])
    assert done.exit_code == 2
    assert expected in " ".join(done.stderr.split())
    assert [file.name for file in tmp_path.iterdir()] == ["net.onnx"]


def test_tensors_of_several_operators_are_shared_layers(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    constants = {"conv.weight": draw(2, 2, 3, 3), "conv.bias": draw(2), "other": draw(2), "fc.weight": draw(72, 72)}
    constants |= {f"bn.{k}": np.abs(draw(2)) for k in ("weight", "bias", "mean", "var")}
    convs = ["conv.weight", "conv.bias"], ["conv.weight", "conv.bias"], ["conv.weight", "other"]
    nodes, x = [], "x"
    for k, conv in enumerate(convs):
        nodes.append(helper.make_node("Conv", [x, *conv], [f"c{k}"], pads=[1, 1, 1, 1]))
        norm = [f"bn.{key}" for key in ("weight", "bias", "mean", "var")]
        nodes.append(helper.make_node("BatchNormalization", [f"c{k}", *norm], [f"n{k}"]))
        nodes.append(helper.make_node("Tanh", [f"n{k}"], [x := f"t{k}"]))
    nodes.append(helper.make_node("Flatten", [x], ["flat"]))
    nodes += [helper.make_node("MatMul", [a, "fc.weight"], [b]) for a, b in (("flat", "m"), ("m", "y"))]
    path = save(tmp_path / "s.onnx", nodes, [2, 2, 6, 6], constants)
    model = assert_computes_the_same(path, tmp_path, draw(2, 2, 6, 6))
    shares = {
        spec.name: spec.shares
        for spec in model.config.model.layers
        if model.graph.param_shapes[spec.shares or spec.name]
    }
    assert shares == {
        **{"conv": "", "bn": "", "conv_2": "conv", "bn_2": "bn"},
        **{"conv_3": "", "bn_3": "bn", "fc": "", "fc_2": "fc"},
    }
    _, _, notes = read_onnx(path, "s")
    assert notes[-1] == "the layers conv, conv_3 have one weight in the file, conv.weight; here each has its own"


def test_equal_numbers_alone_make_no_shared_layer(tmp_path: Path) -> None:
    """Exporters write equal tensors once: the fresh batch norms of a network have all theirs in common."""
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], "a"), helper.make_node("Conv", ["c", "w"], ["y"], "b")]
    path = save(tmp_path / "s.onnx", nodes, [1, 1, 8, 8], {"w": np.ones((1, 1, 3, 3), np.float32)})
    model, _, notes = read_onnx(path, "s")
    assert not any(spec.shares for spec in model.config.model.layers)
    assert notes[0] == "the layers a, b have one weight in the file, w; here each has its own"


# ---------------------------------------------------------------- what cannot be imported


def complaint(path: Path, folder: Path, **options: Any) -> str:
    """Return the message, after making sure that nothing was written."""
    before = set(folder.iterdir())
    with pytest.raises(ImportProblem) as caught:
        import_onnx(path, folder / "never.yaml", **options)
    assert set(folder.iterdir()) == before
    return str(caught.value)


def test_each_operator_without_a_layer_is_named_with_the_reason(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "conv"),
        helper.make_node("Sin", ["c"], ["s"], "wave"),
        helper.make_node("MaxPool", ["c"], ["p"], "pool", kernel_shape=[2, 2], dilations=[2, 2]),
        helper.make_node("Add", ["s", "p"], ["y"], "sum"),
    ]
    path = save(tmp_path / "odd.onnx", nodes, [1, 1, 8, 8], {"w": np.ones((1, 1, 1, 1), np.float32)})
    assert complaint(path, tmp_path) == (
        f"{path}: cannot be imported:\n"
        "  node 'wave' (Sin): there is no layer for this operator\n"
        "  node 'pool' (MaxPool): has a dilation or works on other axes than those of images"
    )


def test_sizes_that_are_open_have_to_be_said(tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], "conv")]
    weight = {"w": np.ones((1, 3, 1, 1), np.float32)}
    path = save(tmp_path / "open.onnx", nodes, ["N", 3, "H", "W"], weight)
    message = complaint(path, tmp_path)
    assert message == f"{path}: leaves the size of its input open; say it: --input 3,224,224"
    gray = save(tmp_path / "gray.onnx", [helper.make_node("Relu", ["x"], ["y"])], ["N", 1, "H", 28])
    assert complaint(gray, tmp_path).endswith("say it: --input 1,224,28")
    model, _, _ = read_onnx(path, "open", size=(3, 9, 8))
    assert model.config.model.input == (3, 9, 8)
    assert complaint(path, tmp_path, size=(1, 9, 8)) == f"{path}: takes images of [3, None, None], not of [1, 9, 8]"


@pytest.mark.parametrize("units", [1, 4, 12])
@pytest.mark.parametrize("head", [None, "softmax", "sigmoid"])
def test_the_stand_in_can_be_learned(units: int, head: Any, tmp_path: Path) -> None:
    nodes = [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["y"], "fc")]
    weight = {"w": np.ones((64, units), np.float32)}
    path = save(tmp_path / "net.onnx", nodes, [1, 1, 8, 8], weight)
    model, _, _ = read_onnx(path, "net", head=head)
    if (units, head) in ((1, None), (1, "softmax")):  # a regression, and what is no choice
        return
    data = load_data(model)
    check_labels(data, class_count((units,)))
    assert data.train.labels.max() + 1 == min(10, class_count((units,)))


def test_a_size_that_the_weights_do_not_have(tmp_path: Path) -> None:
    nodes = [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["y"], "fc")]
    path = save(tmp_path / "net.onnx", nodes, [1, 1, "H", "W"], {"w": np.ones((64, 4), np.float32)})
    assert complaint(path, tmp_path, size=(1, 9, 8)).endswith(
        "expected shape (4, 72), got (4, 64); --input 1,9,8 is not the size that it was made for"
    )


def test_files_that_are_no_networks_of_one_image(tmp_path: Path) -> None:
    path = tmp_path / "text.onnx"
    path.write_text("name: text")
    assert complaint(path, tmp_path).startswith(f"{path}: is no ONNX file, or ")
    assert (
        complaint(tmp_path / "gone.onnx", tmp_path)
        == f"{tmp_path}/gone.onnx: cannot be read: No such file or directory"
    )
    two = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Relu", ["x"], ["z"])]
    path = save(tmp_path / "two.onnx", two, [1, 1, 8, 8], outputs=("y", "z"))
    assert complaint(path, tmp_path) == f"{path}: has 2 outputs (y, z), expected one"
    path = save(tmp_path / "cube.onnx", two[:1], [1, 1, 8, 8, 8])
    assert complaint(path, tmp_path) == f"{path}: the input x has 5 axes, expected images (N, C, H, W)"


def test_files_that_exist_stay(tmp_path: Path) -> None:
    path = save(tmp_path / "relu.onnx", [helper.make_node("Relu", ["x"], ["y"])], [1, 1, 8, 8])
    (tmp_path / "never.yaml").write_text("mine")
    assert complaint(path, tmp_path).endswith(
        "never.yaml: exists already; name another file, or replace it with --force"
    )
    assert complaint(path, tmp_path, weights=tmp_path / "w.bin").endswith("ends in .safetensors or .npz")
    with pytest.raises(ImportProblem, match=r"expected one for the config, such as relu\.yaml"):
        import_onnx(path, path, force=True)
    import_onnx(path, tmp_path / "never.yaml", force=True)
    assert (tmp_path / "never.yaml").read_text().startswith("# relu.onnx, imported; its weights: --weights never.")
