"""The corpora and the rules belong together: each rule has its faults, each fault's comment can be read."""

from __future__ import annotations

from dataclasses import replace

import pytest
from diagnosis_campaign.campaign import Result, goals_met, report_on
from diagnosis_campaign.corpus import HALVES, HEALTHY, HeaderError, faults, healthy, read_case

from cnnbp_cli.diagnosis.plan import CAUSES_FIRST, LEVELS, STANDALONE, UNLEARNABLE
from cnnbp_cli.diagnosis.registry import FAMILIES, RULES, UnknownRuleError, chosen_rules, rule_named
from cnnbp_cli.diagnosis.rules import load_rules

load_rules()
CONTRACT = {
    "flow": "vanishing-gradient exploding-gradient non-finite dead-relu saturated-activation frozen-layer update-ratio "
    "clipping-always-active",
    "start": "symmetric-init badly-scaled-init bad-initial-loss cannot-overfit-batch",
    "progress": "loss-not-falling diverging-loss oscillating-loss learning-rate-too-low learning-rate-too-high "
    "absurd-epsilon momentum-too-high too-few-steps",
    "network": "redundant-softmax loss-head-mismatch no-activation batch-norm-small-batch batch-norm-train-eval-gap",
    "generalisation": "over-regularised overfitting capacity",
    "data": "unnormalised-input normalised-twice shuffled-labels unbalanced-classes destructive-augmentation data-leak "
    "constant-images missing-class test-preprocessed-differently",
}


def test_every_rule_of_the_contract_is_there():
    assert {family: {rule.name for rule in RULES.values() if rule.family == family} for family in FAMILIES} == {
        family: set(names.split()) for family, names in CONTRACT.items()
    }


@pytest.mark.parametrize("name", RULES)
def test_a_rule_explains_itself(name):
    rule = RULES[name]
    for text in (rule.definition, rule.formula, rule.source, rule.advice):
        assert len(text) > 15
        assert text == text.strip()
    assert rule.definition.endswith(".")
    assert rule.advice.endswith(".")


def test_each_rule_has_one_place_among_causes_and_symptoms():
    assert sorted(CAUSES_FIRST) == sorted(RULES)
    assert set(RULES) >= {*LEVELS, *STANDALONE, *UNLEARNABLE}
    assert not STANDALONE & (UNLEARNABLE | set(LEVELS))


def test_american_spellings_of_names_are_understood():
    assert rule_named("over-regularized").name == "over-regularised"
    assert [rule.name for rule in chosen_rules(["generalization"])] == ["over-regularised", "overfitting", "capacity"]


def test_rules_are_chosen_by_name_and_by_family():
    assert {rule.name for rule in chosen_rules(["data", "dead-relu"], ["data-leak"])} == {
        *CONTRACT["data"].split(),
        "dead-relu",
    } - {"data-leak"}
    with pytest.raises(UnknownRuleError, match=r"unknown rule or family 'dead-rel'.*dead-relu"):
        chosen_rules(["dead-rel"])
    with pytest.raises(UnknownRuleError, match="unknown rule 'data'"):
        rule_named("data")


def test_there_are_enough_cases_in_both_halves():
    cases, sound = faults(), healthy()
    assert len(cases) >= 60
    assert len(sound) >= 25
    for half in HALVES:
        assert sum(case.half == half for case in cases) >= 40
    assert len({case.name for case in (*cases, *sound)}) == len(cases) + len(sound)


def test_every_rule_has_a_fault_and_every_fault_a_rule():
    assert {case.expects for case in faults()} == set(RULES)
    assert {rule for case in faults() for rule in case.right} == set(RULES)


@pytest.mark.parametrize(
    ("comment", "message"),
    [
        ("# expects: dead-relu\n", "does not say what a person sees"),
        ("# A person sees nothing.\n", "one line"),
        ("# expects: dead-relu\n# also-right: non-finite\n# Text.\n", "needs a reason"),
        ("# expects: dead-relu\n# Text.\n", "neither"),
        ("# reaches: much\n# Text.\n", "expected one line"),
    ],
)
def test_a_comment_that_cannot_be_read_is_an_error(tmp_path, comment, message):
    (tmp_path / "case.yaml").write_text(comment + "data: {}\n", encoding="utf-8")
    with pytest.raises(HeaderError, match=message):
        read_case(tmp_path / "case.yaml")


def test_a_sound_config_says_what_it_reaches():
    assert read_case(HEALTHY / "mlp-sgd.yaml").reaches is not None


FOUND = Result(
    name="a",
    half="test",
    expects="dead-relu",
    right=("dead-relu",),
    findings=[("dead-relu", "error")],
    cured=True,
    seconds=1.0,
)
SOUND = replace(FOUND, name="b", expects=None, right=(), findings=[("dead-relu", "info")], cured=None)


def test_the_figures_count_what_they_say():
    text = report_on([FOUND, replace(FOUND, name="c", findings=[("non-finite", "error")], cured=False), SOUND])
    assert "the expected rule is among the findings    50.0%" in text
    assert "missed: c (dead-relu)" in text
    assert "false errors: none" in text


def test_goals_are_missed_by_a_false_error_a_miss_or_a_remedy_that_does_not_help():
    assert goals_met([FOUND, SOUND], confirm=True)
    assert not goals_met([FOUND, replace(SOUND, findings=[("overfitting", "error")])])
    assert not goals_met([replace(FOUND, findings=[("dead-relu", "info")]), SOUND])
    assert not goals_met([replace(FOUND, cured=False), SOUND], confirm=True)
    assert not goals_met([FOUND, replace(SOUND, findings=[("overfitting", "warning")])])
    assert not goals_met([replace(FOUND, contradictions=["both"]), SOUND])
