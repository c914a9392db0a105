"""Each rule on evidence made by hand: it speaks just beyond its threshold, and is silent just within."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cnnbp_cli.build import build
from cnnbp_cli.config.load import parse_config
from cnnbp_cli.diagnosis.engine import _judge
from cnnbp_cli.diagnosis.evidence import Evidence
from cnnbp_cli.diagnosis.facts import (
    FAILED,
    DataFacts,
    Labels,
    LayerStart,
    OverfitTest,
    Score,
    SplitMatch,
    StartFacts,
    TrainingRecord,
)
from cnnbp_cli.diagnosis.registry import RULES
from cnnbp_cli.diagnosis.remedies import with_layers
from cnnbp_cli.diagnosis.rules import load_rules
from cnnbp_cli.train.events import LayersWatched, NonFinite
from cnnbp_cli.train.statistics import LayerStatistics

load_rules()
CONFIG = """
data: {source: synthetic, kind: bars, image: [1, 8, 8], classes: 4, train: 200, test: 50}
model:
  input: [1, 8, 8]
  layers:
    - {type: conv2d, filters: 8, kernel_size: 3}
    - batch_norm
    - relu
    - {type: conv2d, filters: 8, kernel_size: 3}
    - tanh
    - flatten
    - {type: dropout, rate: 0.1}
    - {type: dense, units: 4}
  head: softmax
train: {batch_size: 32, optimizer: {type: adam, learning_rate: 0.01}}
"""
STEPS = 100
POOR = Score(loss=1.4, accuracy=0.25, skill=0.0)
GOOD = Score(loss=0.1, accuracy=0.97, skill=0.96)
STEADY = tuple(1.5 - 0.012 * step for step in range(STEPS))
DATA = DataFacts(
    count=200,
    held_count=50,
    classes=4,
    class_counts=(50, 50, 50, 50),
    labels=Labels(count=500, agreement=0.9, confident=1.0),
    held_labels=Labels(count=500, agreement=0.9, confident=1.0),
    across=Labels(count=500, agreement=0.9, confident=1.0),
    uniform_loss=1.386,
    constant_loss=1.386,
    constant_output_loss=1.386,
)


def layer(**values):
    """Return the statistics of a sound layer with parameters, but for `values`."""
    sound = {"gradient": 0.5, "weight": 5.0, "update": 0.01, "ratio": 0.002, "signal": 0.1}
    shown = {"activation": 1.0, "mean": 0.0, "deviation": 1.0, "zeros": 0.0, "dead": None, "saturated": None}
    return LayerStatistics(**sound | shown | values)


def watched(**layers):
    """Return two watched steps, each layer of them sound but for those given; a name with two underscores is a key."""
    usual = {"conv2d_1": layer(), "conv2d_2": layer(), "dense_1": layer(), "relu_1": layer(dead=0.1)}
    usual |= {"tanh_1": layer(saturated=0.1), **layers}
    return tuple(LayersWatched(step=step, layers=usual) for step in (1, STEPS))


def evidence(*overrides, data=None, start=None, **record):
    """Return a case of a network that does not learn, and has nothing else to show."""
    model = build(parse_config(CONFIG, overrides))
    usual = {
        "losses": STEADY,
        "norms": (1.0,) * STEPS,
        "rates": (0.01,) * STEPS,
        "planned": STEPS,
        "planned_rates": 0.01 * STEPS,
        "watched": watched(),
        "train": POOR,
        "held": POOR,
    }
    facts = StartFacts(
        loss=1.4,
        layers={node.name: LayerStart(scale_in=1.0, scale=1.0) for node in model.graph.nodes},
    )
    return Evidence(
        config=model.config,
        graph=model.graph,
        data=replace(DATA, **data or {}),
        start=replace(facts, layers={**facts.layers, **start.pop("layers", {})}, **start) if start else facts,
        record=TrainingRecord(**usual | record),
    )


def trial(one, overrides, skill):
    record = replace(one.record, train=Score(loss=1, skill=skill), held=None)
    return replace(one, trials={**one.trials, tuple(overrides): record})


def begin(**values):
    return LayerStart(**{"scale_in": 1.0, "scale": 1.0} | values)


def overfit(skill):
    return OverfitTest(images=16, steps=100, first=1.4, last=1.0, skill=skill)


def labels(agreement, confident=1.0):
    return Labels(count=500, agreement=agreement, confident=confident)


def match(**values):
    return SplitMatch(
        **{"mean": (50.0, 50.0), "deviation": (80.0, 80.0), "likeness": 1.0, "own_likeness": 1.0} | values
    )


LONGER = ("train.epochs=43",)
WIDER = ("model.layers.conv2d_1.filters=32", "model.layers.conv2d_2.filters=32")
SLOW, FAST = ("train.optimizer.learning_rate=0.001",), ("train.optimizer.learning_rate=0.1",)
NAN = NonFinite(step=30, layer="conv2d_2", where="output", loss=float("nan"), checkpoint=None)
SWINGING = tuple(1.5 + 0.5 * (-1) ** step for step in range(STEPS))
CALM = tuple(1.5 + 0.3 * (-1) ** step for step in range(STEPS))

TABLE = {
    "unnormalised-input": (
        evidence(data={"mean": 5.0, "deviation": 1.0}),
        evidence(data={"mean": 4.8, "deviation": 1.0}),
    ),
    "normalised-twice": (evidence(data={"deviation": 0.04}), evidence(data={"deviation": 0.06})),
    "shuffled-labels": (
        evidence(data={"labels": labels(0.09), "across": labels(0.05)}),
        evidence(data={"labels": labels(0.5), "across": labels(0.5)}),
    ),
    "unbalanced-classes": (
        evidence(data={"class_counts": (51, 10, 30, 30)}),
        evidence(data={"class_counts": (50, 10, 30, 30)}),
    ),
    "destructive-augmentation": (
        evidence("data.augment={shift: 3}"),
        trial(evidence("data.augment={shift: 2}"), ["data.augment=null"], 0.05),
    ),
    "data-leak": (evidence(data={"leaked": 0.02}), evidence(data={"leaked": 0.01})),
    "symmetric-init": (
        evidence(start={"layers": {"conv2d_2": begin(twins=0.6)}}),
        evidence(start={"layers": {"conv2d_2": begin(twins=0.4)}}),
    ),
    "badly-scaled-init": (
        evidence(start={"layers": {"dense_1": begin(scale=7.0)}}),
        evidence(start={"layers": {"dense_1": begin(scale=5.0)}}),
    ),
    "bad-initial-loss": (evidence(start={"loss": 4.2}), evidence(start={"loss": 4.1})),
    "cannot-overfit-batch": (replace(evidence(), overfit=overfit(0.4)), replace(evidence(), overfit=overfit(0.6))),
    "redundant-softmax": (evidence("model.layers.4=softmax"), evidence()),
    "loss-head-mismatch": (evidence("train.loss=mse"), evidence()),
    "no-activation": (
        evidence("model.layers.2=identity", "model.layers.4=identity"),
        evidence("model.layers.2=identity"),
    ),
    "batch-norm-small-batch": (evidence("train.batch_size=7"), evidence("train.batch_size=8")),
    "batch-norm-train-eval-gap": (
        evidence(batch_mode=replace(POOR, skill=0.16)),
        evidence(batch_mode=replace(POOR, skill=0.14)),
    ),
    "over-regularised": (evidence("train.optimizer.weight_decay=0.02"), evidence("train.optimizer.weight_decay=0.005")),
    "overfitting": (
        evidence(train=GOOD, held=replace(GOOD, skill=0.85), data={"across": labels(0.97)}),
        evidence(train=GOOD, held=replace(GOOD, skill=0.87), data={"across": labels(0.97)}),
    ),
    "loss-not-falling": (evidence(losses=(2.0,) * 50 + (1.95,) * 50), evidence(losses=(2.0,) * 50 + (1.85,) * 50)),
    "diverging-loss": (
        evidence(losses=tuple(1.4 + 0.02 * step for step in range(STEPS))),
        evidence(losses=tuple(1.4 + 0.01 * step for step in range(STEPS))),
    ),
    "oscillating-loss": (evidence(losses=SWINGING), evidence(losses=CALM)),
    "learning-rate-too-high": (trial(evidence(), SLOW, 0.2), trial(evidence(), SLOW, 0.05)),
    "learning-rate-too-low": (trial(evidence(), FAST, 0.2), trial(evidence(planned_rates=20 * STEPS), FAST, 0.2)),
    "absurd-epsilon": (evidence("train.optimizer.epsilon=0.1"), evidence("train.optimizer.epsilon=0.01")),
    "vanishing-gradient": (
        evidence(watched=watched(conv2d_1=layer(signal=1e-5), relu_1=layer(dead=0.0))),
        evidence(watched=watched(conv2d_1=layer(signal=1e-3), relu_1=layer(dead=0.0))),
    ),
    "exploding-gradient": (
        evidence(watched=watched(conv2d_1=layer(gradient=501.0))),
        evidence(watched=watched(conv2d_1=layer(gradient=499.0))),
    ),
    "non-finite": (evidence(bad=NAN, train=FAILED, held=FAILED), evidence()),
    "dead-relu": (
        evidence(watched=watched(relu_1=layer(dead=0.51))),
        evidence(watched=watched(relu_1=layer(dead=0.5))),
    ),
    "saturated-activation": (
        evidence(watched=watched(tanh_1=layer(saturated=0.51))),
        evidence(watched=watched(tanh_1=layer(saturated=0.5))),
    ),
    "frozen-layer": (
        evidence(watched=watched(conv2d_1=layer(update=0.0))),
        evidence(watched=watched(conv2d_1=layer(update=1e-9))),
    ),
    "update-ratio": (
        evidence(watched=watched(conv2d_1=layer(ratio=1.9e-4))),
        evidence(watched=watched(conv2d_1=layer(ratio=2.1e-4))),
    ),
    "constant-images": (
        evidence(data={"constant": 0.02}),
        evidence(data={"constant": 0.01, "identical": 0.5}),
    ),
    "missing-class": (
        evidence(data={"class_counts": (70, 70, 60, 0)}),
        evidence(data={"held_counts": (13, 13, 14, 0)}),
    ),
    "test-preprocessed-differently": (
        evidence(data={"match": match(mean=(50.0, 75.0))}),
        evidence(data={"match": match(mean=(50.0, 73.0), deviation=(80.0, 115.0))}),
    ),
    "momentum-too-high": (
        evidence("train.optimizer.betas=[0.98, 0.999]"),
        evidence("train.optimizer.betas=[0.97, 0.999]"),
    ),
    "too-few-steps": (trial(evidence(planned=49), LONGER, 0.2), trial(evidence(planned=50), LONGER, 0.2)),
    "capacity": (
        trial(evidence(), WIDER, 0.2),
        trial(evidence(), WIDER, 0.05),
    ),
    "clipping-always-active": (
        evidence("train.clip_norm=0.5"),
        evidence("train.clip_norm=0.5", norms=(1.0,) * 50 + (1.0, 0.4) * 25),
    ),
}


def told(name, one):
    return [finding for finding in RULES[name].findings(one) if finding.severity != "info"]


def test_the_table_has_every_rule():
    assert set(TABLE) == set(RULES)


@pytest.mark.parametrize("name", TABLE)
def test_a_rule_speaks_beyond_its_threshold_and_only_there(name):
    beyond, within = TABLE[name]
    findings = told(name, beyond)
    assert len(findings) == 1
    assert not told(name, within)
    finding = findings[0]
    assert finding.rule == name
    assert finding.layer is None or finding.layer in beyond.graph.shapes
    assert any(character.isdigit() for character in finding.evidence + finding.threshold) or name in (
        "loss-head-mismatch",
        "non-finite",
    )
    assert finding.why.endswith(".")
    assert finding.remedy
    parse_config(CONFIG, finding.overrides)


@pytest.mark.parametrize(
    "name",
    sorted(
        set(TABLE)
        - {
            "data-leak",
            "constant-images",
            "missing-class",
            "shuffled-labels",
            "redundant-softmax",
            "no-activation",
            "symmetric-init",
            "non-finite",
            "overfitting",
            "batch-norm-train-eval-gap",
        }
    ),
)
def test_no_error_where_the_network_does_well(name):
    beyond, _ = TABLE[name]
    fine = replace(beyond, record=replace(beyond.record, train=GOOD, held=GOOD))
    assert all(finding.severity != "error" for finding in RULES[name].findings(fine))


def test_a_sound_network_that_does_well_is_told_nothing():
    assert _judge(evidence(train=GOOD, held=GOOD), list(RULES.values())) == ()


def test_the_most_severe_finding_comes_first_and_causes_before_symptoms():
    one = trial(evidence(losses=SWINGING, data={"leaked": 0.5}, start={"loss": 4.2}), SLOW, 0.9)
    assert [finding.rule for finding in _judge(one, list(RULES.values()))] == [
        "data-leak",
        "learning-rate-too-high",
        "oscillating-loss",
        "bad-initial-loss",
        "loss-not-falling",
    ]


def test_a_remedy_with_a_lower_rate_counts_only_where_it_beats_the_rate_alone():
    both = ("model.init=he_normal", *SLOW)
    assert trial(evidence(), both, 0.5).helps(both[:1])
    assert not trial(trial(evidence(), both, 0.5), SLOW, 0.5).helps(both[:1])
    assert evidence().helps(both[:1]) is None


def test_a_loss_that_rises_down_its_gradient_or_falls_below_zero_has_the_wrong_sign():
    assert "slope" in told("diverging-loss", evidence(start={"slope": -0.9}))[0].threshold
    falling = evidence(losses=tuple(-0.1 * step for step in range(STEPS)))
    assert "sign" in told("diverging-loss", falling)[0].remedy


def test_a_loss_that_leaps_and_comes_back_diverged():
    leap = (1.5, 1.6, 16.0, 17.0, 18.0) + (1.5,) * (STEPS - 5)
    assert "leaps to 17" in told("diverging-loss", evidence(losses=leap))[0].evidence
    assert not told("diverging-loss", evidence(losses=leap, train=GOOD, held=GOOD))
    assert not told("diverging-loss", evidence(losses=(1.5, 18.0, 1.5, 1.5) + (1.5,) * (STEPS - 4)))


def test_a_frozen_layer_says_why():
    still = evidence(
        "train.optimizer.learning_rate=0",
        rates=(0.0,) * STEPS,
        watched=watched(conv2d_1=layer(update=0.0), conv2d_2=layer(update=0.0), dense_1=layer(update=0.0)),
    )
    assert "the learning rate is 0" in told("frozen-layer", still)[0].evidence
    assert "no gradient comes back" in told("frozen-layer", TABLE["frozen-layer"][0])[0].evidence


def test_a_class_whose_unit_is_never_on_is_told_even_where_the_rest_is_well():
    one = evidence(
        "model.layers=[flatten, {type: dense, units: 4}, relu]",
        train=GOOD,
        held=GOOD,
        watched=watched(relu_1=layer(dead=0.25)),
    )
    assert [finding.severity for finding in RULES["dead-relu"].findings(one)] == ["warning"]


def test_images_that_are_known_to_be_bad_are_left_out_by_one_override():
    both = evidence(data={"leaked": 0.5, "leaking": 0.1, "constant": 0.3})
    remedies = {told(name, both)[0].overrides for name in ("data-leak", "constant-images")}
    assert remedies == {("data.leave_out=[blank, leaked]",)}
    only = evidence("data.leave_out=[leaked]", data={"constant": 0.3})
    assert told("constant-images", only)[0].overrides == ("data.leave_out=[blank, leaked]",)


def test_where_hardly_an_image_would_remain_the_data_have_to_be_repaired():
    most = evidence(data={"leaked": 1.0, "leaking": 0.8, "constant": 0.8})
    for name in ("data-leak", "constant-images"):
        assert not told(name, most)[0].overrides
    near = evidence(data={"near_leaked": 0.5})
    assert "every image and its copies on one side" in told("data-leak", near)[0].remedy


RARE = {"class_counts": (180, 100, 60, 6)}
PASSED_OVER = replace(POOR, recalls=(1.0, 1.0, 0.9, 0.1))
BALANCED = "train.class_weights=balanced"


def test_rare_classes_that_are_passed_over_get_the_remedy_with_which_a_trial_sees_them():
    one = evidence(data=RARE, held=PASSED_OVER)
    assert told("unbalanced-classes", one)[0].overrides == (BALANCED,)
    useless = trial(one, [BALANCED], 0.05)
    assert "more images of class 3" in told("unbalanced-classes", useless)[0].remedy
    seen = replace(GOOD, recalls=(1.0, 0.9, 0.9, 0.9))
    other = ("model.init=glorot_normal",)
    cured = replace(useless, trials={**useless.trials, other: replace(one.record, train=GOOD, held=seen)})
    assert told("unbalanced-classes", cured)[0].overrides == other
    assert "with the remedy 90% and" in told("unbalanced-classes", cured)[0].evidence


def test_weights_make_up_for_rare_classes_and_are_not_advised_twice():
    assert not told("unbalanced-classes", evidence(BALANCED, data=RARE))
    still = told("unbalanced-classes", evidence(BALANCED, data=RARE, held=PASSED_OVER))[0]
    assert (still.severity, still.overrides) == ("error", ())


def test_labels_from_one_are_counted_from_one():
    read = "data={source: mnist-subset}"
    one = evidence(read, data={"class_counts": (0, 70, 70, 60), "held_counts": (0, 20, 20, 10)})
    assert told("missing-class", one)[0].overrides == ("data.first_label=1", "model.layers.dense_1.units=3")
    tested = evidence(read, data={"class_counts": (0, 70, 70, 60), "held_counts": (10, 20, 20, 10)})
    assert not told("missing-class", tested)[0].overrides
    declared = evidence(read, "data.first_label=1", data={"class_counts": (0, 70, 70, 60)})
    assert not told("missing-class", declared)[0].overrides


STRIDES = ("model.layers.conv2d_1.stride=4", "model.layers.conv2d_2.kernel_size=1")


def test_a_stride_beyond_the_kernel_is_named_where_most_pixels_are_unread():
    flat = {"losses": (2.0,) * STEPS}
    one = told("loss-not-falling", evidence(*STRIDES, start={"unseen": 0.9}, **flat))[0]
    assert (one.layer, one.overrides) == ("conv2d_1", ("model.layers.conv2d_1.stride=3",))
    assert "90% of the pixels unread" in one.evidence
    assert not told("loss-not-falling", evidence(*STRIDES, start={"unseen": 0.4}, **flat))[0].overrides
    useless = trial(evidence(*STRIDES, start={"unseen": 0.9}, **flat), ["model.layers.conv2d_1.stride=3"], 0.05)
    assert not told("loss-not-falling", useless)[0].overrides


def test_a_head_that_reads_large_values_starts_small():
    layers = {"dense_1": begin(scale_in=4.0, scale=160.0)}
    one = evidence("model.layers.dense_1.init={type: normal, std: 5}", start={"loss": 300.0, "layers": layers})
    small = ("model.layers.dense_1.init={type: normal, std: 0.01}",)
    assert told("badly-scaled-init", one)[0].overrides == told("bad-initial-loss", one)[0].overrides == small
    layers = {"dense_1": begin(scale_in=1.0, scale=40.0)}
    usual = evidence("model.layers.dense_1.init={type: normal, std: 5}", start={"loss": 300.0, "layers": layers})
    assert told("badly-scaled-init", usual)[0].overrides == ("model.layers.dense_1.init=glorot_normal",)


def test_what_is_changed_in_a_layer_that_others_share_can_be_set():
    """Also where it has no parameters."""
    shared = (
        "model.layers.4={share: relu_1}",
        "model.layers.5={share: dropout_1, name: again}",
        "model.layers.6=flatten",
        "model.layers.2={type: dropout, rate: 0.1}",
        "model.layers.1=relu",
    )
    one = evidence(*shared)
    names = [node.name for node in one.graph.nodes]
    assert names[1:6] == ["relu_1", "dropout_1", "conv2d_2", "relu_1_2", "again"]
    bent = with_layers(one, [("relu_1", "=tanh"), ("again", ".rate=0.2")])
    assert bent == ("model.layers.1={type: tanh, name: relu_1}", "model.layers.dropout_1.rate=0.2")
    layers = build(parse_config(CONFIG, [*shared, *bent])).graph.nodes
    assert [layers[k].layer.type for k in (1, 4)] == ["tanh", "tanh"]
    assert [layers[k].layer.rate for k in (2, 5)] == [0.2, 0.2]


HEADS = "model.layers=[flatten, {type: dense, name: aux, units: 4}, relu, {type: dense, name: top, units: 4}]"


def test_remedies_fit_networks_with_several_losses():
    """Each of them gives a config that can be read."""
    alike = (HEADS, "train.losses=[{layer: aux}, {layer: top}]")
    mixed = (HEADS, "train.losses=[{layer: aux, loss: mse}, {layer: top}]")
    assert told("unbalanced-classes", evidence(*alike, data=RARE))[0].overrides == (BALANCED,)
    assert told("unbalanced-classes", evidence(*mixed, data=RARE))[0].overrides == ()
    headless = (HEADS, "model.head=none", "train.losses=[{layer: aux, loss: mse}, {layer: top, loss: mse}]")
    (found,) = told("loss-head-mismatch", evidence(*headless))
    fixed = parse_config(CONFIG, [*headless, *found.overrides])
    assert [one.loss for one in fixed.losses] == ["cross_entropy"] * 2
    counts = {"class_counts": (0, 70, 70, 60), "held_counts": (0, 20, 20, 10)}
    assert told("missing-class", evidence("data={source: mnist-subset}", *mixed, data=counts))[0].overrides == ()
