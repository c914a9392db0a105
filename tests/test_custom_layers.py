"""A user's copy of every layer is treated like the built-in one: nothing asks for a type.

The copies are the files of `core/layers` under other types, loaded as `--layers FILE` loads them.
"""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cnnbp_cli as cnnbp
from cnnbp_cli.build import build
from cnnbp_cli.config.load import parse_config
from cnnbp_cli.core import layers
from cnnbp_cli.core.layers import LAYERS
from cnnbp_cli.diagnosis.collect.start import start_facts
from cnnbp_cli.diagnosis.collect.training import without_dropout
from cnnbp_cli.diagnosis.evidence import Evidence, weighted
from cnnbp_cli.diagnosis.facts import Score, TrainingRecord
from cnnbp_cli.diagnosis.registry import RULES
from cnnbp_cli.diagnosis.remedies import sounder_init, suitable_init
from cnnbp_cli.diagnosis.rules import flow, load_rules
from cnnbp_cli.model import Model
from cnnbp_cli.train.events import StepDone
from cnnbp_cli.train.statistics import saturated_ends

load_rules()
FAMILIES = sorted(
    path for path in Path(layers.__file__).parent.glob("*.py") if "\n@register\n" in path.read_text(encoding="utf-8")
)
TYPE = re.compile(r'type: Literal\["(\w+)"\] = "\1"')

NETWORKS = {
    "every activation": [
        "{type: conv2d, name: c, filters: 4, kernel_size: 3, padding: 1}",
        *(
            f"{{type: {kind}, name: {kind}}}"
            for kind in ("relu", "leaky_relu", "elu", "gelu", "silu", "sigmoid", "tanh", "softplus", "softmax")
        ),
        "{type: flatten, name: f}",
        "{type: dense, name: d, units: 2}",
        "{type: sigmoid, name: last}",
    ],
    "linear": [
        "{type: conv_transpose2d, name: t, filters: 4, kernel_size: 2, stride: 2, init: zeros}",
        "{type: identity, name: i}",
        "{type: avg_pool2d, name: a, pool_size: 2}",
        "{type: batch_norm, name: b}",
        "{type: conv2d, name: c, filters: 4, kernel_size: 3, padding: same}",
        "{type: add, name: sum, inputs: [b, c]}",
        "{type: max_pool2d, name: m, pool_size: 3, padding: 1}",
        "{type: dropout, name: drop, rate: 0.95}",
        "{type: concat, name: both, inputs: [drop, drop]}",
        "{type: global_avg_pool2d, name: g}",
        "{type: dense, name: d, units: 2}",
        "{type: softmax, name: last}",
    ],
    "gated": [
        "{type: conv2d, name: c, filters: 4, kernel_size: 3}",
        "{type: layer_norm, name: ln}",
        "{type: sigmoid, name: gate}",
        "{type: multiply, name: product, inputs: [ln, gate]}",
        "{type: group_norm, name: gn, groups: 2}",
        "{type: tanh, name: bend}",
        "{type: global_max_pool2d, name: g}",
        "{type: dense, name: d, units: 2}",
    ],
}


@pytest.fixture(autouse=True)
def _copies(tmp_path: Path, registered: object) -> None:
    before = dict(LAYERS)
    for path in FAMILIES:
        text = TYPE.sub(r'type: Literal["own_\1"] = "own_\1"', path.read_text(encoding="utf-8"))
        (tmp_path / path.name).write_text(text, encoding="utf-8")
        cnnbp.load_layers(tmp_path / path.name)
    assert {f"own_{kind}" for kind in before} | set(before) == set(LAYERS)


def both(network: str) -> tuple[Model, Model]:
    """Return a network of built-in layers, and the same of a user's copies."""
    lines = [f"    - {line}" for line in NETWORKS[network]]
    text = "data: {source: synthetic, kind: bars, image: [1, 6, 6], classes: 2, train: 40, test: 10}\n"
    text += "model:\n  input: [1, 6, 6]\n  layers:\n"
    end = "\ntrain: {batch_size: 3, workers: 1}\n"
    ours = text + "\n".join(lines) + end
    own = text + "\n".join(line.replace("{type: ", "{type: own_") for line in lines) + end
    return build(parse_config(ours)), build(parse_config(own))


def diagnosed(model: Model) -> Any:
    """Return what a diagnosis says of a network that does not learn, and what it would try."""
    poor = Score(loss=1.4, accuracy=0.5, skill=0.0)
    record = TrainingRecord(losses=(1.0,) * 10, planned=10, train=poor, held=poor, batch_mode=poor)
    start = start_facts(model, cnnbp.load_data(model))
    seen = Evidence(config=model.config, graph=model.graph, data=None, start=start, record=record)
    findings = [asdict(finding) for rule in RULES.values() for finding in rule.check(seen)]
    remedies = [flow._more_gradient(seen), flow._less_gradient(seen), sounder_init(seen)]
    inits = [suitable_init(seen, node) for node in seen.weighted]
    return repr((start, findings, remedies, inits, [node.name for node in weighted(model.graph)]))


@pytest.mark.parametrize("network", NETWORKS)
def test_reports_and_statistics_are_the_same(network: str) -> None:
    ours, own = both(network)
    assert repr(cnnbp.summary(own)).replace("own_", "") == repr(cnnbp.summary(ours))
    for one, other in zip(ours.graph.nodes, own.graph.nodes, strict=True):
        shapes = [ours.graph.shapes[name] for name in one.inputs]
        assert other.layer.node_memory(shapes) == one.layer.node_memory(shapes)
        assert saturated_ends(other.layer) == saturated_ends(one.layer)
        assert other.layer.rectifies == one.layer.rectifies


@pytest.mark.parametrize("network", NETWORKS)
def test_training_is_the_same(network: str) -> None:
    ours, own = both(network)
    data = cnnbp.load_data(ours)
    losses = [
        [event.loss for event in cnnbp.fit(model, data, watch_every=7) if isinstance(event, StepDone)]
        for model in (ours, own)
    ]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 5 * 14


@pytest.mark.parametrize("network", NETWORKS)
def test_the_diagnosis_is_the_same(network: str) -> None:
    ours, own = map(diagnosed, both(network))
    assert own.replace("own_", "") == ours
    assert ("'remedy': " in ours) == (network != "gated")


def test_noise_can_be_switched_off() -> None:
    rates = [without_dropout(model).graph.nodes[7].layer.rate for model in both("linear")]
    assert rates == [0, 0]


def told(entry: Any) -> tuple[Any, ...]:
    """Return what a check says of a parameter but for its error: built-in linear layers are carried in real numbers."""
    return entry.name, entry.status, entry.checked


@pytest.mark.parametrize("network", NETWORKS)
def test_the_gradient_check_is_the_same(network: str) -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(4, 1, 6, 6)), rng.integers(0, 2, 4)
    ours, own = (cnnbp.gradcheck(model, images, labels) for model in both(network))
    assert [told(entry) for entry in own.parameters] == [told(entry) for entry in ours.parameters]
    assert ours.ok
    assert own.ok
    assert ours.modes == (["training", "evaluation"] if network == "linear" else ["training"])


@pytest.mark.parametrize("network", NETWORKS)
def test_the_onnx_file_is_the_same(network: str) -> None:
    pytest.importorskip("onnx")
    from cnnbp_cli.exports.onnx import to_onnx

    ours, own = (to_onnx(model).graph.SerializeToString() for model in both(network))
    assert own == ours
