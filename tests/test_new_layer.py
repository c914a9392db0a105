"""One class is a whole new layer: everything that looks at layers asks the class, and no list of types is left.

The class below stands for one in `core/layers/activation.py`, and for one in a user's file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from laws import test_laws as laws
from laws import test_traits as traits
from laws.cases import Case
from laws.passes import EVALUATION, TRAINING, smooth, tied

import cnnbp_cli as cnnbp
from cnnbp_cli.build import build
from cnnbp_cli.config import keys
from cnnbp_cli.config.jsonschema import json_schema
from cnnbp_cli.config.load import parse_config
from cnnbp_cli.config.nodes import YamlMapping
from cnnbp_cli.core.layers import LAYERS
from cnnbp_cli.core.layers.activation import logistic
from cnnbp_cli.core.traits import OnnxOperator
from cnnbp_cli.core.types import Array, Context, Layer, Params, Shape
from cnnbp_cli.diagnosis.collect.start import start_facts
from cnnbp_cli.diagnosis.evidence import Evidence
from cnnbp_cli.diagnosis.facts import Score, TrainingRecord
from cnnbp_cli.diagnosis.registry import RULES
from cnnbp_cli.diagnosis.remedies import activation_behind, suitable_init
from cnnbp_cli.diagnosis.rules import load_rules
from cnnbp_cli.train.events import LayersWatched
from cnnbp_cli.train.statistics import LayerStatistics

load_rules()

CONFIG = """
data: {source: synthetic, kind: bars, image: [1, 6, 6], classes: 2, train: 40, test: 10}
model:
  input: [1, 6, 6]
  layers:
    - {type: conv2d, filters: 4, kernel_size: 3}
    - mish
    - flatten
    - {type: dense, units: 2}
train: {epochs: 1, batch_size: 10, workers: 1}
"""


@dataclass(frozen=True, slots=True)
class Mish(Layer[tuple[Array, Array, Array]]):
    """y = x · t with t = tanh(log(1 + exp(x))); dx = dy · (t + x · (1 - t²) / (1 + exp(-x))).

    References
    ----------
    Misra 2019, arXiv:1908.08681.
    """

    type: Literal["mish"] = "mish"
    is_activation = True
    rectifies = True
    can_die = True

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, tuple[Array, Array, Array]]:
        s = logistic(x)
        t = np.tanh(np.where(x.real > 0, x - np.log(logistic(np.where(x.real > 0, x, 0))), -np.log(logistic(-x))))
        return x * t, (x, s, t)

    def backward(
        self, params: Params, residuals: tuple[Array, Array, Array], dy: Array, ctx: Context
    ) -> tuple[Array, Params]:
        x, s, t = residuals
        return dy * (t + x * (1 - t * t) * s), {}

    def output_range(self) -> tuple[float, float]:
        return -0.3089, np.inf

    def onnx(self, in_shape: Shape) -> list[OnnxOperator]:
        return [OnnxOperator("Mish")]


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    cnnbp.register(Mish)
    yield
    del LAYERS["mish"]


def evidence(config: str = CONFIG, **figures: float) -> Evidence:
    """Return what a diagnosis sees of a network whose layer watched has these figures."""
    model = build(parse_config(config))
    usual = dict.fromkeys((field for field in LayerStatistics.__dataclass_fields__), None)
    usual |= {"activation": 1.0, "mean": 0.0, "deviation": 1.0, "zeros": 0.0}
    watched = tuple(LayersWatched(step=step, layers={"mish_1": LayerStatistics(**usual | figures)}) for step in (1, 10))
    poor = Score(loss=1.4, accuracy=0.5, skill=0.0)
    record = TrainingRecord(losses=(1.0,) * 10, planned=10, watched=watched, train=poor, held=poor)
    return Evidence(config=model.config, graph=model.graph, data=None, start=None, record=record)


def found(rule: str, seen: Evidence) -> list[Any]:
    return list(RULES[rule].check(seen))


@pytest.mark.parametrize("shape", [(4, 6, 5), (7,)], ids=str)
def test_the_laws_hold(shape: Shape) -> None:
    case = Case(Mish(), (shape,))
    for ctx in (TRAINING, EVALUATION):
        laws.test_shapes_are_what_they_are_said_to_be(case, ctx)
        laws.test_an_imaginary_part_does_not_disturb_the_real_one(case, ctx)
        laws.test_inputs_are_not_modified_and_residuals_survive(case, ctx)
        laws.test_complex_numbers_stay_complex(case, ctx)
        for draw in (smooth, tied):
            laws.test_backward_is_the_derivative_of_forward(case, ctx, draw)
    laws.test_a_layer_is_its_hyper_parameters(case)
    assert traits.bends(case)
    traits.test_activations_keep_shapes(case)
    traits.test_outputs_stay_in_their_range(case)
    traits.test_rectifiers_are_active_above_0_and_steeper_there(case)
    traits.test_dead_units_get_no_gradient(case)
    traits.test_a_layer_holds_its_output_or_hands_on_its_input(case)


def test_statistics_count_dead_units(tmp_path: Path) -> None:
    model = build(parse_config(CONFIG))
    events = list(cnnbp.fit(model, cnnbp.load_data(model), run=tmp_path / "run", watch_every=1))
    seen = [event.layers["mish_1"] for event in events if isinstance(event, LayersWatched)]
    assert seen
    assert all(one.dead is not None and 0 <= one.dead <= 1 for one in seen)
    assert {one.saturated for one in seen} == {None}
    start = start_facts(build(parse_config(CONFIG)), cnnbp.load_data(model)).layers["mish_1"]
    assert 0 <= start.dead < 1


def test_the_diagnosis_knows_that_it_bends_and_can_die() -> None:
    assert not found("no-activation", evidence())
    assert found("no-activation", evidence(CONFIG.replace("- mish", "- identity")))
    (dead,) = found("dead-relu", evidence(dead=0.9))
    assert dead.layer == "mish_1"
    assert not found("dead-relu", evidence(dead=0.2))
    (mismatch,) = found("loss-head-mismatch", evidence(CONFIG.replace("units: 2}", "units: 2}\n    - mish")))
    assert mismatch.layer == "mish_2"


@pytest.mark.parametrize(
    ("activation", "init"),
    [
        *(("mish", "he_normal"), ("silu", "he_normal"), ("leaky_relu", "he_normal"), ("relu", "he_normal")),
        *(("sigmoid", "glorot_normal"), ("tanh", "glorot_normal"), ("identity", "glorot_normal")),
    ],
)
def test_remedies_look_at_the_activation_behind_a_layer(activation: str, init: str) -> None:
    seen = evidence(CONFIG.replace("- mish", f"- batch_norm\n    - {activation}"))
    node = seen.nodes["conv2d_1"]
    behind = activation_behind(seen, node)
    assert (behind and behind.type) == (None if activation == "identity" else activation)
    assert suitable_init(seen, node) == init


def test_its_gradient_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(4, 1, 6, 6)), rng.integers(0, 2, 4)
    report = cnnbp.gradcheck(build(parse_config(CONFIG)), images, labels)
    assert report.ok
    assert report.max_relative_error < 1e-10

    def wrong_in_evaluation(self: Mish, params: Params, residuals: Any, dy: Array, ctx: Context) -> Any:
        return (1.0 if ctx.training else 1.01) * right(self, params, residuals, dy, ctx)[0], {}

    right = Mish.backward
    monkeypatch.setattr(Mish, "backward", wrong_in_evaluation)
    report = cnnbp.gradcheck(build(parse_config(CONFIG)), images, labels)
    assert report.modes == ["training", "evaluation"]
    wrong = {check.name for check in report.parameters if check.status == "wrong"}
    assert wrong == {"conv2d_1.weight", "conv2d_1.bias", "input"}


def test_it_goes_to_onnx(tmp_path: Path) -> None:
    onnx_tests = pytest.importorskip("exports.test_onnx")
    model = build(parse_config(CONFIG))
    images = np.random.default_rng(0).normal(size=(5, 1, 6, 6))
    proto = onnx_tests.exported(model, tmp_path)
    assert "Mish" in {node.op_type for node in proto.graph.node}
    onnx_tests.assert_same(proto, model, images, model.predict(images))


def test_the_format_and_completion_know_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Completion reads what `make schema` writes."""
    schema = json.dumps(json_schema())
    (tmp_path / "schema.json").write_text(schema, encoding="utf-8")
    monkeypatch.setattr(keys, "files", lambda _: tmp_path)
    words = dict(keys.complete_override("model.layers.0.type=", YamlMapping()))
    assert words["model.layers.0.type=mish"].startswith("y = x · t")


def test_summary_and_memory_know_it() -> None:
    model = build(parse_config(CONFIG))
    (row,) = [layer for layer in cnnbp.summary(model).layers if layer.type == "mish"]
    assert row.output_shape == [4, 4, 4]
    assert row.activation_bytes == 4 * 4 * 4 * 4
    assert Mish().memory((4, 4, 4)) == 64
