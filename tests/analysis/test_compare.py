"""Comparing runs: what differs in their configs, how far they came, and whose gradient flow changed."""

from __future__ import annotations

import json
import math
from statistics import median

import pytest

from cnnbp_cli.analysis.compare import FLOW, Comparison, LayerFlow, compare
from cnnbp_cli.build import build
from cnnbp_cli.config.differences import flat
from cnnbp_cli.config.errors import ConfigError
from cnnbp_cli.config.load import parse_config
from cnnbp_cli.loading import load_data
from cnnbp_cli.train.events import EpochDone, LayersWatched, StepDone
from cnnbp_cli.train.fit import fit
from cnnbp_cli.train.run_directory import RunError

CONFIG = """
name: compared
data: {source: synthetic, kind: bars, train: 30, test: 10, validation: 10}
model:
  input: [1, 6, 6]
  layers:
    - {type: conv2d, name: conv, filters: 3, kernel_size: 3}
    - relu
    - flatten
    - {type: dense, name: last, units: 2}
train: {batch_size: 10, epochs: 2, workers: 1}
"""


@pytest.fixture
def train(tmp_path):
    """Train with overrides into a folder, and return the folder and the events."""

    def run(name, *overrides, **options):
        model = build(parse_config(CONFIG, overrides))
        return tmp_path / name, list(fit(model, load_data(model), run=tmp_path / name, **options))

    return run


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


def test_configs_by_dotted_keys(train):
    one, _ = train("one")
    two, _ = train(
        "two",
        "train.optimizer={type: sgd, learning_rate: 0.001}",
        "model.layers.conv.filters=4",
        "train.schedule={type: step, step_size: 1}",
        "train.clip_norm=1",
    )
    found = {difference.key: difference.values for difference in compare([one, two]).differences}
    assert found == {
        "model.layers.conv.filters": [3, 4],
        "train.optimizer.type": ["adam", "sgd"],
        "train.optimizer.momentum": [None, 0.0],
        "train.optimizer.nesterov": [None, False],
        "train.optimizer.betas": [[0.9, 0.999], None],
        "train.optimizer.epsilon": [1e-8, None],
        "train.schedule.type": ["constant", "step"],
        "train.schedule.step_size": [None, 1],
        "train.schedule.gamma": [None, 0.1],
        "train.clip_norm": [None, 1.0],
    }


def test_keys_are_those_of_overrides():
    config = {"seed": 1, "layers": [{"name": "a", "units": 2}, {"name": "b"}], "sizes": [1, 2], "none": []}
    assert dict(flat(config)) == {"seed": 1, "layers.a.units": 2, "sizes": [1, 2], "none": []}


def test_outcomes_are_those_of_the_events(train):
    one, events = train("one")
    finished, steps = events[-1], of(StepDone, events)
    two, _ = train("two", "train.epochs=3")
    first, second = compare([one, two]).outcomes
    assert (first.run, first.finished, first.steps, first.epochs) == (str(one), True, 4, 2)
    assert first.figures == {
        name: getattr(finished, name)
        for name in (
            "train_loss",
            "train_accuracy",
            "validation_loss",
            "validation_accuracy",
            "test_loss",
            "test_accuracy",
        )
    }
    assert first.seconds == pytest.approx(sum(step.seconds for step in steps))
    assert second.steps == 6


def test_an_unfinished_run_has_the_figures_of_its_last_epoch(train):
    one, events = train("one")
    asked = iter([False] * 3 + [True])
    two, _ = train("two", stop=lambda: next(asked))
    outcome = compare([one, two]).outcomes[1]
    assert (outcome.finished, outcome.steps, outcome.epochs) == (False, 3, 1)
    assert outcome.figures["test_loss"] is None
    assert outcome.figures["train_loss"] == of(EpochDone, events)[0].train_loss


def test_losses_by_step(train):
    one, events = train("one")
    assert compare([one, one]).losses == [{step.step: step.loss for step in of(StepDone, events)}] * 2


def test_gradient_flow_is_the_median_over_common_steps(train):
    one, events = train("one", watch_every=1)
    two, others = train("two", "train.epochs=3", "train.optimizer.learning_rate=0.5", watch_every=2)
    found = compare([one, two])
    for flow in found.flows:
        norms = [event.layers[flow.layer].gradient for event in of(LayersWatched, events)]
        other = [event.layers[flow.layer].gradient for event in of(LayersWatched, others) if event.step <= 4]
        assert flow.norms == [median(norms), median(other)]
        assert flow.factors == [1.0, flow.norms[1] / flow.norms[0]]
        assert flow.change == abs(math.log10(flow.factors[1]))
    assert [flow.layer for flow in found.flows] == ["conv", "last"]
    assert found.most_changed == max(found.flows, key=lambda flow: flow.change)


def test_the_layer_that_changed_is_named(train):
    """Weights near 0 let nearly no gradient through to the layer before them."""
    one, _ = train("one")
    two, _ = train("two", "model.layers.last.init={type: normal, std: 1.0e-5}")
    changed = compare([one, two]).most_changed
    assert changed.layer == "conv"
    assert changed.factors[1] < 0.01


def test_the_same_run_twice_has_no_differences(train):
    one, _ = train("one")
    found = compare([one, one])
    assert found.differences == []
    assert found.most_changed is None


@pytest.mark.parametrize(
    ("factors", "change"),
    [
        ([1.0, 10.0], 1.0),
        ([1.0, 0.01], 2.0),
        ([1.0, None], 0.0),
        ([1.0, 0.0], math.inf),
        ([1.0, math.inf, 2.0], math.inf),
    ],
)
def test_the_size_of_a_change(factors, change):
    assert LayerFlow("a", [], factors).change == pytest.approx(change)


def test_layers_that_only_one_run_has(train):
    one, _ = train("one")
    two, _ = train("two", "model.layers.conv.name=other")
    found = {flow.layer: flow for flow in compare([one, two]).flows}
    assert list(found) == ["conv", "last", "other"]
    assert (found["conv"].norms[1], found["conv"].factors[1]) == (None, None)
    assert (found["other"].norms[0], found["other"].factors) == (None, [None, None])


def test_runs_that_watched_nothing_have_no_flow(train):
    one, _ = train("one", watch_every=0)
    found = compare([one, one])
    assert (found.flows, found.most_changed) == ([], None)


def test_as_json(train):
    one, _ = train("one")
    two, _ = train("two", "seed=3")
    record = json.loads(json.dumps(compare([one, two]).to_dict(), allow_nan=False))
    assert list(record) == [
        *("runs", "differences", "definition", "gradient_flow", "most_changed", "losses"),
    ]
    assert [run["run"] for run in record["runs"]] == [str(one), str(two)]
    assert record["differences"] == [{"key": "seed", "values": [0, 3]}]
    assert record["definition"] == FLOW
    assert record["most_changed"] in ("conv", "last")
    assert record["losses"][0]["step"] == [1, 2, 3, 4]


def test_what_is_no_run(train, tmp_path):
    one, _ = train("one")
    with pytest.raises(RunError) as caught:
        compare([one, tmp_path / "elsewhere"])
    assert (
        str(caught.value) == f"{tmp_path / 'elsewhere'}: is not a run directory; `cnnbp train` makes one from a config"
    )
    (one / "config.yaml").unlink()
    with pytest.raises(ConfigError) as lost:
        compare([one, one])
    assert str(lost.value) == f"{one / 'config.yaml'}: no such file"


def test_a_run_without_a_step(train):
    one, _ = train("one", stop=lambda: True)
    with pytest.raises(RunError) as caught:
        compare([one, one])
    assert str(caught.value) == f"{one}: has made no step yet"


def test_an_empty_comparison_has_no_most_changed_layer():
    assert Comparison([], [], [], [], []).most_changed is None
