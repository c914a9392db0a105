"""One plan per report: the law over all reports, on evidence drawn at random, and the law itself on reports that "
"break it."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from diagnosis.test_rules import FAST, GOOD, NAN, STEPS, SWINGING, begin, evidence, labels, layer, trial, watched
from diagnosis_campaign.law import contradictions

from cnnbp_cli.diagnosis.engine import _judge
from cnnbp_cli.diagnosis.facts import OverfitTest
from cnnbp_cli.diagnosis.findings import Finding
from cnnbp_cli.diagnosis.plan import conflict
from cnnbp_cli.diagnosis.registry import RULES
from cnnbp_cli.diagnosis.remedies import better_rate, higher_rates, lower_rates
from cnnbp_cli.diagnosis.rules import load_rules
from cnnbp_cli.diagnosis.rules.progress import next_rates
from cnnbp_cli.diagnosis.search import proposals

load_rules()
ALL = list(RULES.values())

pytestmark = pytest.mark.slow


SETTINGS = (
    "train.optimizer={type: sgd, learning_rate: 1e30}",
    "train.optimizer={type: sgd, learning_rate: 0.01, momentum: 0.999}",
    "train.optimizer.learning_rate=1e-9",
    "train.optimizer.epsilon=10",
    "train.optimizer.weight_decay=1",
    "train.schedule={type: exponential, gamma: 0.01}",
    "train.schedule={type: one_cycle, max_learning_rate: 10}",
    "train.clip_norm=0.001",
    "train.batch_size=2",
    "train.batch_size=200",
    "train={loss: mse, optimizer: {type: adam, learning_rate: 0.01}}",
    "train.label_smoothing=0.9",
    "data.augment={shift: 8}",
    "model.init=zeros",
    "model.init={type: normal, std: 3}",
    "model.layers.6.rate=0.95",
)
RECORDS = (
    {"losses": SWINGING},
    {"losses": (2.0,) * STEPS},
    {"losses": tuple(1.4 + 0.1 * step for step in range(STEPS))},
    {"bad": NAN},
    {"rates": (0.0,) * STEPS},
    {"planned": 5},
    {"planned_rates": 1e-9},
    {"watched": watched(relu_1=layer(dead=0.9), tanh_1=layer(saturated=0.9))},
    {"watched": watched(conv2d_1=layer(signal=1e-6), conv2d_2=layer(ratio=1e-8))},
    {"watched": watched(conv2d_1=layer(ratio=2.0), dense_1=layer(gradient=5000.0))},
    {"train": GOOD},
)
FACTS = (
    {"deviation": 50.0},
    {"deviation": 0.001},
    {"constant": 0.8},
    {"labels": labels(0.01)},
    {"leaked": 0.5},
    {"class_counts": (150, 10, 40, 0)},
)
STARTS = (
    {"layers": {"conv2d_2": begin(twins=1.0)}},
    {"layers": {"dense_1": begin(scale=900.0), "conv2d_1": begin(scale=0.001)}},
    {"loss": 400.0},
    {"slope": -1.0},
)


def drawn(seed):
    """Return evidence with several faults at once, of which remedies were tried with one outcome or another."""
    stream = random.Random(seed)
    settings = {one.split("=")[0][:14]: one for one in stream.sample(SETTINGS, stream.randrange(4))}
    if any("mse" in one for one in settings.values()):
        settings = {key: one for key, one in settings.items() if "mse" in one or "train" not in one}
    record = {key: value for one in stream.sample(RECORDS, stream.randrange(3)) for key, value in one.items()}
    data = {key: value for one in stream.sample(FACTS, stream.randrange(2)) for key, value in one.items()}
    start = dict(stream.choice(STARTS)) if stream.random() < 0.3 else None
    one = evidence(*settings.values(), data=data, start=start, **record)
    one = replace(one, overfit=OverfitTest(images=16, steps=100, first=1.4, last=1.3, skill=stream.random()))
    if stream.random() < 0.8:
        tried = [overrides for overrides in proposals(one) if stream.random() < 0.8]
        tried += [overrides for overrides in (*lower_rates(one), *higher_rates(one)) if stream.random() < 0.5]
        for overrides in tried:
            one = trial(one, overrides, stream.choice((0.0, 0.0, 0.3, 0.9)))
    return replace(one, is_run=stream.random() < 0.3)


@pytest.mark.parametrize("seed", range(200))
def test_no_report_contradicts_itself(seed):
    assert contradictions(_judge(drawn(seed), ALL)) == []


def test_what_is_drawn_finds_every_rule_that_depends_on_more_than_one_config():
    found = {finding.rule for seed in range(200) for finding in _judge(drawn(seed), ALL)}
    assert len(found) >= len(RULES) - 10
    assert any(finding.cause for seed in range(50) for finding in _judge(drawn(seed), ALL))


def finding(rule, remedy=None, **values):
    return Finding(
        **{"rule": rule, "severity": "error", "evidence": "1", "threshold": "0", "why": "It is.", "remedy": remedy}
        | values
    )


@pytest.mark.parametrize(
    ("report", "wrong"),
    [
        ((finding("learning-rate-too-high"), finding("learning-rate-too-low")), "both learning-rate-too-high"),
        ((finding("absurd-epsilon", "--set a=1"), finding("capacity", "--set a=2")), "a: 1 and 2"),
        ((finding("absurd-epsilon", "--set a.b=1"), finding("capacity", "--set a=2")), "a and a.b"),
        (
            (finding("absurd-epsilon", "--set a=1"), finding("dead-relu", "--set b=2", cause="absurd-epsilon")),
            "dead-relu follows from absurd-epsilon",
        ),
        ((finding("dead-relu"), finding("absurd-epsilon")), "a symptom before its cause"),
        (
            (finding("absurd-epsilon", "--set a=1"), finding("cannot-overfit-batch", "Run `cnnbp gradcheck`.")),
            "doubts the gradients",
        ),
    ],
)
def test_the_law_can_be_broken(report, wrong):
    assert any(wrong in text for text in contradictions(report))


def test_a_symptom_follows_from_its_cause_and_has_its_remedy():
    one = trial(evidence("train.optimizer.epsilon=10", losses=(2.0,) * STEPS), ("train.optimizer.epsilon=1e-08",), 0.9)
    plan = {found.rule: found for found in _judge(one, ALL)}
    assert plan["absurd-epsilon"].cause is None
    assert plan["loss-not-falling"].cause == "absurd-epsilon"
    assert plan["loss-not-falling"].remedy == plan["absurd-epsilon"].remedy


def test_steps_that_are_too_small_do_not_explain_a_loss_that_jumps():
    one = trial(evidence(losses=SWINGING), FAST, 0.9)
    one = replace(one, trials={FAST: replace(one.trials[FAST], rates=(1.0,) * STEPS)})
    causes = {found.rule: found.cause for found in _judge(one, ALL)}
    assert causes["learning-rate-too-low"] is None
    assert causes["oscillating-loss"] is None


def test_what_was_left_out_explains_nothing():
    one = trial(evidence("train.optimizer.epsilon=10", losses=(2.0,) * STEPS), ("train.optimizer.epsilon=1e-08",), 0.9)
    alone = _judge(one, [RULES["loss-not-falling"]])
    assert [(found.rule, found.cause) for found in alone] == [("loss-not-falling", None)]


def test_an_absurd_rate_is_searched_from_useful_ones_on():
    one = evidence("train.optimizer={type: sgd, learning_rate: 1e30}", bad=NAN)
    assert lower_rates(one)[:2] == [("train.optimizer.learning_rate=1",), ("train.optimizer.learning_rate=0.1",)]
    one = evidence("train.optimizer.learning_rate=1e-12")
    assert higher_rates(one)[0] == ("train.optimizer.learning_rate=1e-05",)


def test_a_rate_that_was_tried_without_success_is_not_advised():
    one = evidence()
    while overrides := next_rates(one):
        one = trial(one, overrides, 0.05)
    assert len(one.trials) == 7
    assert better_rate(one) == ()
    assert not {"learning-rate-too-high", "learning-rate-too-low"} & {found.rule for found in _judge(one, ALL)}


def test_the_rate_that_learns_most_is_the_only_one_advised():
    one = evidence()
    for skill, overrides in zip((0.3, 0.8), (lower_rates(one)[0], higher_rates(one)[1]), strict=True):
        one = trial(one, overrides, skill)
    one = replace(one, trials={key: replace(record, rates=(1.0,) * STEPS) for key, record in one.trials.items()})
    assert better_rate(one) == higher_rates(one)[1]


def test_a_key_and_a_part_of_it_conflict():
    assert conflict(["a=1"], ["a=2"])
    assert conflict(["a={b: 1}"], ["a.b=1"])
    assert not conflict(["a=1", "b=2"], ["b=2", "ab=3"])
