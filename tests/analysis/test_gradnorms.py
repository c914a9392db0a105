"""Norms for each layer and step: each statistic as its definition says, from training and from recorded runs."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import get_args

import numpy as np
import pytest

from cnnbp_cli.analysis.gradnorms import NoSuchStatisticError, recorded_norms, watch_norms
from cnnbp_cli.build import build
from cnnbp_cli.config.load import parse_config
from cnnbp_cli.loading import load_data
from cnnbp_cli.train.events import StepDone
from cnnbp_cli.train.fit import fit
from cnnbp_cli.train.run_directory import RunError
from cnnbp_cli.train.statistics import DEFINITIONS, LayerStatistics, Statistic

CONFIG = """
dtype: float64
data: {source: synthetic, kind: bars, train: 30, test: 0}
model:
  input: [1, 6, 6]
  layers:
    - {type: conv2d, name: conv, filters: 3, kernel_size: 3}
    - batch_norm
    - relu
    - flatten
    - {type: dense, name: last, units: 2}
train: {batch_size: 10, epochs: 1, optimizer: {type: sgd, learning_rate: 0.1}, workers: 1}
"""


def setup(*overrides):
    model = build(parse_config(CONFIG, overrides))
    return model, load_data(model)


def l2(*arrays):
    return float(np.sqrt(sum((array * array).sum() for array in arrays)))


def by_hand(statistic, steps):
    """Train step by step and measure from outside."""
    model, data = setup(f"train.max_steps={steps}")
    layers = {"conv": ["conv"], "batch_norm_1": ["batch_norm_1"], "last": ["last"]}
    trainable = [entry.name for entry in model.layout.entries]
    rows, before = [], model.parameters()
    for event in fit(model, data):
        if not isinstance(event, StepDone):
            continue
        after = model.parameters()
        change = {name: after[name] - before[name] for name in trainable}
        row = {}
        for layer in layers:
            own = [name for name in trainable if name.rpartition(".")[0] == layer]
            moved, start = l2(*(change[name] for name in own)), l2(*(before[name] for name in own))
            row[layer] = {
                "gradient": moved / 0.1,
                "update": moved,
                "weight": l2(*(after[name] for name in own)),
                "ratio": moved / start,
            }[statistic]
        rows.append(row)
        before = after
    return rows


@pytest.mark.parametrize("statistic", ["gradient", "update", "weight", "ratio"])
def test_each_statistic_is_what_its_definition_says(statistic):
    rows = list(watch_norms(*setup(), steps=3, of=statistic))
    assert [row.step for row in rows] == [1, 2, 3]
    for row, expected in zip(rows, by_hand(statistic, 3), strict=True):
        assert list(row.norms) == list(expected)  # in network order
        assert row.norms == pytest.approx(expected, rel=1e-9)


def test_gradient_norms_make_up_the_whole():
    for row in watch_norms(*setup(), steps=3):
        assert row.total == pytest.approx(l2(np.array(list(row.norms.values()))), rel=1e-12)


def test_gradient_norms_are_those_before_clipping():
    plain, clipped = (next(watch_norms(*setup(*o), steps=1)) for o in ((), ("train.clip_norm=0.001",)))
    assert clipped == plain


def test_activations_are_root_mean_squares():
    model, data = setup()
    row = next(watch_norms(model, data, steps=1, of="activation"))
    assert list(row.norms) == ["conv", "batch_norm_1", "relu_1", "flatten_1", "last"]
    assert row.norms["batch_norm_1"] == pytest.approx(1, rel=1e-4)
    assert row.norms["relu_1"] == pytest.approx(row.norms["flatten_1"], rel=1e-12)


def test_every_statistic_has_a_definition():
    assert tuple(DEFINITIONS) == get_args(Statistic) == tuple(f.name for f in fields(LayerStatistics))


def test_a_statistic_that_no_layer_has():
    with pytest.raises(NoSuchStatisticError) as caught:
        list(watch_norms(*setup(), steps=2, of="saturated"))
    assert str(caught.value) == f"no layer has this statistic; saturated: {DEFINITIONS['saturated']}"


def test_a_layer_of_zeros_has_the_ratio_zero():
    model, data = setup("model.init={type: constant, value: 0}")
    assert next(watch_norms(model, data, steps=1, of="ratio")).norms["conv"] == 0


@pytest.mark.parametrize(("steps", "every", "shown"), [(5, 1, [1, 2, 3, 4, 5]), (7, 3, [3, 6]), (2, 3, [])])
def test_steps_and_every(steps, every, shown):
    """More steps than the config's one epoch has are made nonetheless."""
    model, data = setup()
    config = model.config
    assert [row.step for row in watch_norms(model, data, steps=steps, every=every)] == shown
    assert model.config == config


def test_measuring_does_not_change_the_training():
    vectors = []
    for every in (0, 1, 3):
        model, data = setup("train.epochs=2")
        list(fit(model, data, watch_every=every))
        vectors.append(model.vector)
    for vector in vectors[1:]:
        np.testing.assert_array_equal(vector, vectors[0])


def test_rows_as_json():
    row = next(watch_norms(*setup(), steps=1))
    record = json.loads(json.dumps(row.to_dict(), allow_nan=False))
    assert list(record) == ["step", "loss", "total", "of", "definition", "norms"]
    assert (record["of"], record["definition"]) == ("gradient", DEFINITIONS["gradient"])
    assert list(record["norms"]) == ["conv", "batch_norm_1", "last"]


def test_it_ends_where_values_go_bad():
    model, data = setup("train.optimizer.learning_rate=1e200")
    rows = list(watch_norms(model, data, steps=5))
    assert 1 <= len(rows) < 5
    assert all(np.isfinite(row.loss) for row in rows)


def test_recorded_norms_are_those_of_the_run(tmp_path):
    model, data = setup("train.epochs=2")
    list(fit(model, data, run=tmp_path / "run", watch_every=1))
    for statistic in ("gradient", "ratio", "zeros", "dead", "signal"):
        assert list(recorded_norms(tmp_path / "run", of=statistic)) == list(
            watch_norms(*setup(), steps=6, of=statistic)
        )
    assert [row.step for row in recorded_norms(tmp_path / "run", every=4)] == [4]


def test_any_run_has_some(tmp_path):
    model, data = setup("train.epochs=10")
    list(fit(model, data, run=tmp_path / "run"))
    assert [row.step for row in recorded_norms(tmp_path / "run")] == [1, 25]
    with pytest.raises(RunError) as caught:
        list(recorded_norms(tmp_path / "run", every=3))
    assert str(caught.value) == f"{tmp_path / 'run'}: watched no multiple of 3, but steps 1, 25"


def test_a_run_without_norms(tmp_path):
    model, data = setup()
    list(fit(model, data, run=tmp_path / "run", watch_every=0))
    with pytest.raises(RunError) as caught:
        list(recorded_norms(tmp_path / "run"))
    assert str(caught.value) == f"{tmp_path / 'run'}: watched no step; train with --watch-every 1 or more"
