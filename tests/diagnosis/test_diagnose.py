"""Whole diagnoses: of configs, of models made in Python, of runs that are over, and of runs that crashed."""

from __future__ import annotations

import json

import numpy as np
import pytest
from diagnosis_campaign.corpus import FAULTS, HEALTHY, read_case
from diagnosis_campaign.law import contradictions
from diagnosis_campaign.wrong_losses import Flipped

import cnnbp_cli as cnnbp
from cnnbp_cli.config.errors import ConfigError
from cnnbp_cli.errors import UserError
from cnnbp_cli.train.run_directory import RunError

pytestmark = pytest.mark.slow


CONFIG = """
data: {source: synthetic, kind: bars, image: [1, 8, 8], classes: 4, train: 240, test: 60}
model:
  input: [1, 8, 8]
  layers:
    - {type: conv2d, filters: 6, kernel_size: 3}
    - relu
    - flatten
    - {type: dense, units: 4}
  head: softmax
train: {epochs: 8, batch_size: 24, workers: 1, optimizer: {type: adam, learning_rate: 0.01}}
"""
DIVERGES = ("train.optimizer={type: sgd, learning_rate: 1e6}",)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(CONFIG, encoding="utf-8")
    return path


@pytest.fixture
def train(config, tmp_path):
    """Train with overrides into a folder, and return it."""

    def run(*overrides, watch_every=5):
        model = cnnbp.load(config, overrides)
        for _ in cnnbp.fit(model, cnnbp.load_data(model), run=tmp_path / "run", watch_every=watch_every):
            pass
        return tmp_path / "run"

    return run


def rules(report):
    return [finding.rule for finding in report.findings if finding.severity != "info"]


def test_a_sound_config_is_told_nothing(config):
    report = cnnbp.diagnose(config)
    assert rules(report) == []
    assert report.ok
    assert report.source == str(config)
    assert report.evidence["skill"] > 0.9


@pytest.mark.parametrize(
    ("rule", "overrides"),
    [
        ("learning-rate-too-low", ["train.optimizer.learning_rate=1e-7"]),
        ("frozen-layer", ["train.optimizer.learning_rate=0"]),
        ("symmetric-init", ["model.init=zeros"]),
        ("redundant-softmax", ["model.layers=[flatten, {type: dense, units: 4}, softmax]"]),
        ("absurd-epsilon", ["train.optimizer.epsilon=1000"]),
        ("normalised-twice", ["data.normalize=unit", "data.limit.train=200"]),
        ("over-regularised", ["train.optimizer.weight_decay=3"]),
        ("non-finite", DIVERGES),
    ],
)
def test_a_fault_is_found(config, rule, overrides):
    if rule == "normalised-twice":
        model = cnnbp.load(config)
        data = cnnbp.load_data(model)
        data.train.images[...] = data.train.images // 60
        model = cnnbp.load(config, overrides)
        data = type(data)(data.train, None, None, cnnbp.load_data(model).normalization, data.classes, data.name)
        assert rules(cnnbp.diagnose_model(model, data))[0] == rule
        return
    report = cnnbp.diagnose(config, overrides=overrides)
    assert rule in rules(report)
    assert not report.ok


def test_a_remedy_is_confirmed_by_a_training_with_it(config):
    report = cnnbp.diagnose(
        config, overrides=["train.optimizer.learning_rate=1e-6"], select=["learning-rate-too-low"], confirm=True
    )
    assert [finding.confirmed for finding in report.findings] == [True]
    again = cnnbp.diagnose(config, overrides=report.findings[0].overrides)
    assert "learning-rate-too-low" not in rules(again)


def test_a_sentence_is_no_remedy_that_could_be_tried(config):
    model = cnnbp.load(config)
    model.loss_function = Flipped(model.loss_function)
    report = cnnbp.diagnose_model(model, cnnbp.load_data(model), select=["diverging-loss"], confirm=True)
    assert [(finding.rule, finding.confirmed) for finding in report.findings] == [("diverging-loss", None)]


def test_an_activation_that_is_missing_is_put_in(config):
    report = cnnbp.diagnose(
        config,
        overrides=["model.layers=[flatten, {type: dense, name: one, units: 8, init: zeros}, {type: dense, units: 4}]"],
        select=["no-activation"],
    )
    assert report.findings[0].overrides == (
        "model.layers=[flatten, {type: dense, name: one, units: 8, init: zeros}, relu, {type: dense, units: 4}]",
    )
    cnnbp.load(config, report.findings[0].overrides)


def test_a_remedy_that_does_not_help_is_withdrawn(config):
    report = cnnbp.diagnose(
        config,
        overrides=["train.optimizer.learning_rate=0", "model.init={type: normal, std: 50}"],
        select=["badly-scaled-init"],
        confirm=True,
    )
    assert [(finding.confirmed, finding.remedy) for finding in report.findings] == [(False, None)]
    assert report.findings[0].tried == ("model.init=he_normal",)


def test_rules_can_be_chosen(config):
    wrong = ["train.optimizer.learning_rate=0"]
    assert rules(cnnbp.diagnose(config, overrides=wrong, select=["data"])) == []
    assert "frozen-layer" not in rules(cnnbp.diagnose(config, overrides=wrong, ignore=["flow"]))
    with pytest.raises(UserError, match="unknown rule or family"):
        cnnbp.diagnose(config, select=["nonsense"])


def test_a_config_that_is_wrong_is_an_error_as_everywhere(config):
    with pytest.raises(ConfigError):
        cnnbp.diagnose(config, overrides=["train.epochs=none"])


def test_a_model_made_in_python_is_left_as_it_is(config):
    model = cnnbp.load(config)
    model.loss_function = Flipped(model.loss_function)
    before, settings = model.parameters(), model.config
    report = cnnbp.diagnose_model(model, cnnbp.load_data(model))
    assert report.findings[0].rule == "diverging-loss"
    assert "sign" in report.findings[0].remedy
    assert model.config == settings
    for name, values in model.parameters().items():
        assert np.array_equal(values, before[name])


def test_layers_of_ones_own_are_diagnosed_and_not_replaced():
    case = read_case(FAULTS / "frozen_detached_layer.py")
    report = cnnbp.diagnose_model(*case.broken(), steps=60)
    assert "frozen-layer" in rules(report)


def test_the_report_is_plain_values(config):
    report = cnnbp.diagnose(config, overrides=["model.init=zeros"], steps=30)
    record = json.loads(json.dumps(report.to_dict()))
    assert record["ok"] is False
    assert {"rule", "severity", "layer", "step", "evidence", "threshold", "why", "remedy", "confirmed"} <= set(
        record["findings"][0]
    )


def test_the_same_config_gives_the_same_report(config):
    one = cnnbp.diagnose(config, overrides=["model.init=zeros"], steps=30)
    assert one == cnnbp.diagnose(config, overrides=["model.init=zeros"], steps=30)


def test_a_sound_example_of_the_corpus_is_told_nothing():
    case = read_case(HEALTHY / "bars-easy.yaml")
    assert cnnbp.diagnose_model(*case.broken()).ok


# ---------------------------------------------------------------------- runs


def test_a_run_that_went_well_is_told_nothing(train):
    report = cnnbp.diagnose(train())
    assert rules(report) == []
    assert report.evidence["steps"] == 80
    assert report.notes == ()


def test_a_run_that_crashed_on_nan_is_read(train):
    report = cnnbp.diagnose(train(*DIVERGES))
    assert "non-finite" in rules(report)
    assert report.evidence["steps"] < 80


def test_a_run_with_too_small_steps_is_read_without_training(train):
    report = cnnbp.diagnose(train("train.optimizer.learning_rate=1e-7"))
    assert "learning-rate-too-low" in rules(report)
    assert "update-ratio" in rules(report)


def test_a_run_that_was_killed_is_judged_by_what_it_wrote(train):
    run = train()
    lines = (run / "events.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (run / "events.jsonl").write_text("".join(lines[: len(lines) // 2]) + lines[len(lines) // 2][:20], encoding="utf-8")
    for checkpoint in (run / "checkpoints").iterdir():
        checkpoint.unlink()
    report = cnnbp.diagnose(run)
    assert any("has not finished" in note for note in report.notes)
    assert any("no checkpoint" in note for note in report.notes)
    assert report.ok


def test_a_run_of_a_few_steps_is_not_blamed_for_it(train):
    report = cnnbp.diagnose(train("train.max_steps=3"))
    assert any("too few" in note for note in report.notes)
    assert not {"loss-not-falling", "learning-rate-too-low"} & set(rules(report))


def test_a_run_whose_layers_were_not_watched_is_read_all_the_same(train):
    report = cnnbp.diagnose(train("train.optimizer.learning_rate=0", watch_every=0))
    assert any("nothing about its layers" in note for note in report.notes)


def test_what_is_no_run_is_an_error(tmp_path, train):
    with pytest.raises(RunError, match="is not a run directory"):
        cnnbp.diagnose(tmp_path)
    run = train("train.max_steps=3")
    (run / "events.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(RunError, match="no step yet"):
        cnnbp.diagnose(run)
    (run / "events.jsonl").write_text('{"event": "step"}\n{"event": "step"}\n', encoding="utf-8")
    with pytest.raises(RunError, match=r"events.jsonl:1: is not an event"):
        cnnbp.diagnose(run)


def test_a_run_whose_data_are_gone_is_read_without_them(train, tmp_path, config):
    rng = np.random.default_rng(0)
    path = tmp_path / "data.npz"
    np.savez(path, x_train=rng.integers(0, 256, (96, 1, 8, 8), np.uint8), y_train=np.arange(96) % 4)
    run = train(f"data={{source: npz, path: {path}}}")
    path.unlink()
    report = cnnbp.diagnose(run)
    assert any("data cannot be looked at" in note for note in report.notes)


@pytest.mark.parametrize(
    "wrong",
    [
        "train.optimizer.learning_rate=1e-7",
        "train.optimizer={type: sgd, learning_rate: 1e30}",
        "train.optimizer={type: sgd, learning_rate: 0.1, momentum: 0.999}",
        "train.optimizer.epsilon=1000",
        "model.init=zeros",
    ],
)
def test_a_config_and_its_run_get_the_same_plan(config, train, wrong):
    """What comes first and what to do about it agree, and no report contradicts itself."""
    of_config, of_run = cnnbp.diagnose(config, overrides=[wrong]), cnnbp.diagnose(train(wrong))
    assert of_run.findings[0].rule == of_config.findings[0].rule
    assert of_run.findings[0].remedy == of_config.findings[0].remedy
    assert contradictions(of_run.findings) == contradictions(of_config.findings) == []


def test_the_rate_that_is_advised_for_an_absurd_one_trains(config):
    report = cnnbp.diagnose(config, overrides=["train.optimizer={type: sgd, learning_rate: 1e30}"])
    advised = [finding for finding in report.findings if finding.rule == "learning-rate-too-high"]
    assert advised
    again = cnnbp.diagnose(config, overrides=["train.optimizer={type: sgd}", *advised[0].overrides])
    assert again.evidence["skill"] > 0.5
