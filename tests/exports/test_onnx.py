"""ONNX files are valid and compute what the model computes, by two independent runtimes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from exports.models import make_model, one_layer, pixels, shuffle
from laws.cases import ALL_CASES

import cnnbp_cli as cnnbp
from cnnbp_cli.core.layers import LAYERS, Dense, Flatten, Multiply, Relu
from cnnbp_cli.core.traits import OnnxOperator
from cnnbp_cli.core.types import Array, Context, Params, Shape
from cnnbp_cli.exports.export import ExportError
from cnnbp_cli.model import Model

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
reference = pytest.importorskip("onnx.reference")

CONFIGS = [*sorted((Path(__file__).parents[2] / "configs").glob("*.yaml")), Path(__file__).parents[1] / "shared.yaml"]


def exported(model: Model, path: Path) -> Any:
    """Export a model, and return the file's content after the checker has passed it."""
    cnnbp.export(model, path / "model.onnx")
    proto = onnx.load(path / "model.onnx")
    onnx.checker.check_model(proto, full_check=True)
    return proto


def run(proto: Any, images: np.ndarray) -> np.ndarray:
    """Run a model in ONNX Runtime; in ONNX's own reference where that has no float64."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        if "NOT_IMPLEMENTED" not in str(error) or images.dtype != np.float64:
            raise
        if any(node.op_type == "ConvTranspose" and _groups(node) > 1 for node in proto.graph.node):
            pytest.skip("onnx's reference takes all channels for one group, and ONNX Runtime has this in float32 alone")
        session = reference.ReferenceEvaluator(proto)
    (outputs,) = session.run(["output"], {"input": images})
    return outputs


def _groups(node: Any) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)


def assert_same(proto: Any, model: Model, images: np.ndarray, expected: np.ndarray) -> None:
    actual = run(proto, images.astype(model.dtype))
    assert actual.dtype == expected.dtype == model.dtype
    assert actual.shape == expected.shape
    scale = max(1.0, float(np.abs(expected).max()))
    tolerance = 1e-5 if model.dtype == np.float32 else 1e-7  # ONNX has float32 for epsilon, slope and alpha
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale)


def test_every_layer_is_in_the_table() -> None:
    assert {case.layer.type for case in ALL_CASES} == set(LAYERS)


UNJUDGED = ("local_response_norm", "float64")
"""ONNX Runtime has it in float32 only, and ONNX's reference takes the number of images for that of channels (1.23)."""


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", [case for case in ALL_CASES if case.dtype == "float64"], ids=str)
def test_one_layer(case: Any, dtype: str, tmp_path: Path) -> None:
    model = one_layer(case, dtype)
    if (case.layer.type, dtype) == UNJUDGED:
        exported(model, tmp_path)
        return
    images = np.random.default_rng(3).normal(size=(3, *model.config.model.input))
    assert_same(exported(model, tmp_path), model, images, model.predict(images))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config(config: Path, tmp_path: Path) -> None:
    model = cnnbp.load(config)
    shuffle(model)
    images = pixels(model, 5)
    proto = exported(model, tmp_path)
    for count in (1, 5):  # any number of images
        assert_same(proto, model, images[:count], model.predict(images[:count]))


def test_parameters_that_layers_share_are_one_constant(tmp_path: Path) -> None:
    model = cnnbp.load(CONFIGS[-1])
    proto = exported(model, tmp_path)
    names = [tensor.name for tensor in proto.graph.initializer]
    assert [name for name in names if "constant" not in name] == list(model.parameters())
    users = [node.name for node in proto.graph.node if "step.weight" in node.input]
    assert users == ["step", "step_2", "step_3"]


@pytest.mark.parametrize("head", ["softmax", "sigmoid", "none"])
def test_the_head_is_part_of_the_model(head: str, tmp_path: Path) -> None:
    model = make_model((1, 3, 2), [("f", Flatten(), ("input",)), ("d", Dense(4), ("f",))], head=head)
    images = np.random.default_rng(3).normal(size=(3, 1, 3, 2))
    assert_same(exported(model, tmp_path), model, images, model.predict(images))


def test_a_trained_model_takes_raw_pixels_and_one_from_a_config_normalized_images(tmp_path: Path) -> None:
    model = make_model((2, 3, 2), [("f", Flatten(), ("input",)), ("d", Dense(4), ("f",))])
    floats = np.random.default_rng(3).normal(size=(3, 2, 3, 2))
    without = exported(model, tmp_path)
    assert_same(without, model, floats, model.predict(floats))
    raw = pixels(model, 3)
    proto = exported(model, tmp_path)
    assert_same(proto, model, raw, model.predict(raw))
    notes = [{item.key: item.value for item in one.metadata_props} for one in (without, proto)]
    assert notes[0]["input"] == "normalized images"
    assert "normalization" not in notes[0]
    assert notes[1]["input"] == "raw pixels"
    assert json.loads(notes[1]["normalization"]) == model.normalization.to_dict()
    assert notes[1]["config"].startswith("name: one-layer\n")


def test_names_are_the_configs(tmp_path: Path) -> None:
    layers = [("flat", Flatten(), ("input",)), ("output", Dense(4), ("flat",)), ("last", Relu(), ("output",))]
    proto = exported(make_model((1, 3, 2), layers), tmp_path)
    assert [node.name for node in proto.graph.node] == ["flat", "output", "last", "model.head"]
    assert [constant.name for constant in proto.graph.initializer] == ["output.weight", "output.bias"]
    assert [value.name for value in (*proto.graph.input, *proto.graph.output)] == ["input", "output"]
    dims = [value.type.tensor_type.shape.dim for value in (*proto.graph.input, *proto.graph.output)]
    assert [[dim.dim_param or dim.dim_value for dim in one] for one in dims] == [["N", 1, 3, 2], ["N", 4]]


def test_branches_that_are_read_twice(tmp_path: Path) -> None:
    layers = [
        ("flat", Flatten(), ("input",)),
        ("product", Multiply(), ("flat", "flat", "flat", "flat")),
        ("last", Multiply(), ("product", "flat")),
    ]
    model = make_model((1, 3, 2), layers)
    images = np.random.default_rng(3).normal(size=(3, 1, 3, 2))
    assert_same(exported(model, tmp_path), model, images, model.predict(images))


@dataclass(frozen=True)
class Own(Relu):
    """Something else than its parent, whose operator it inherits."""

    type: Literal["own"] = "own"  # type: ignore[assignment]

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Array]:
        return x + 1, x


@dataclass(frozen=True)
class Stranger(Own):
    """What it says that it is in ONNX is not what ONNX knows."""

    said: ClassVar[tuple[OnnxOperator, ...]] = ()
    forward = Own.forward

    def onnx(self, in_shape: Shape) -> tuple[OnnxOperator, ...]:
        return self.said


@pytest.mark.parametrize(
    ("layer", "said", "message"),
    [
        (
            Own,
            (),
            r"layer mine: own does not say what it is in ONNX; give its class a method onnx \(docs/custom-layer\.md\)",
        ),
        (Stranger, (), r"layer mine: own does not say what it is in ONNX; .*"),
        (
            Stranger,
            (OnnxOperator("Relu", output="y"), OnnxOperator("Add", ("y", "z"))),
            r"layer mine: own reads 'z' in ONNX, expected one of: x, y",
        ),
        (Stranger, (OnnxOperator("Rectify"),), r".*\.onnx: not valid ONNX: No Op registered for Rectify .*"),
        (Stranger, (OnnxOperator("Add"),), r".*\.onnx: not valid ONNX: .*mine.*"),
    ],
    ids=["inherited", "nothing", "unknown input", "unknown operator", "too few inputs"],
)
def test_a_layer_that_is_nothing_in_onnx_is_refused(
    layer: type[Own],
    said: tuple[OnnxOperator, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Stranger, "said", said)
    model = make_model((1, 3, 2), [("flat", Flatten(), ("input",)), ("mine", layer(), ("flat",))])
    with pytest.raises(ExportError, match=rf"^{message}$"):
        cnnbp.export(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_a_model_that_no_file_can_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model((1, 3, 2), [("flat", Flatten(), ("input",)), ("last", Dense(4), ("flat",))])
    monkeypatch.setattr("cnnbp_cli.exports.onnx.MAX_PARAMETER_BYTES", model.vector.nbytes)
    cnnbp.export(model, tmp_path / "fits.onnx")
    monkeypatch.setattr("cnnbp_cli.exports.onnx.MAX_PARAMETER_BYTES", model.vector.nbytes - 1)
    with pytest.raises(
        ExportError, match=r"large\.onnx: the model is larger than the 2 GiB that an ONNX file can hold$"
    ):
        cnnbp.export(model, tmp_path / "large.onnx")


def test_a_branch_that_nobody_reads_does_no_harm(tmp_path: Path) -> None:
    layers = [("flat", Flatten(), ("input",)), ("unread", Dense(2), ("flat",)), ("last", Dense(4), ("flat",))]
    model = make_model((1, 3, 2), layers)
    images = np.random.default_rng(3).normal(size=(3, 1, 3, 2))
    assert_same(exported(model, tmp_path), model, images, model.predict(images))
