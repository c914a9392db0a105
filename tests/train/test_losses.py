"""Several losses: what is trained, recorded and resumed, and what the network's output alone is asked about."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest
from train.three_losses import LAYERS, THREE, WEIGHTS

import cnnbp_cli as cnnbp
from cnnbp_cli.build import build, build_graph
from cnnbp_cli.config.differences import differences
from cnnbp_cli.config.errors import ConfigError
from cnnbp_cli.config.load import parse_config
from cnnbp_cli.config.write import to_yaml
from cnnbp_cli.core.schedules import Constant
from cnnbp_cli.core.types import Context
from cnnbp_cli.gradient_check.check import gradcheck
from cnnbp_cli.loading import load_data
from cnnbp_cli.train.evaluate import evaluate
from cnnbp_cli.train.event_log import metrics, run_events
from cnnbp_cli.train.events import EpochDone, StepDone
from cnnbp_cli.train.fit import fit
from cnnbp_cli.train.state import RunState


def setup(*overrides):
    model = build(parse_config(THREE, overrides, label="three.yaml"))
    return model, load_data(model)


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


# ---------------------------------------------------------------- what it is


def test_the_output_s_loss_is_the_first():
    model, _ = setup()
    assert [one.layer for one in model.losses] == LAYERS == list(model.graph.outputs)
    assert {one.layer: one.weight for one in model.losses} == WEIGHTS
    assert [type(one.loss).__name__ for one in model.losses] == [
        *("SoftmaxCrossEntropy", "SoftmaxCrossEntropy", "MeanSquaredError")
    ]
    assert model.loss_function is model.losses[0].loss


def test_label_smoothing_is_that_of_all_losses():
    model, _ = setup("train.losses.2.loss=cross_entropy", "train.label_smoothing=0.1")
    assert [one.loss.label_smoothing for one in model.losses] == [0.1] * 3


def test_without_losses_there_is_one_at_the_last_layer():
    model, data = setup("train.losses=[]")
    assert [(one.layer, one.weight) for one in model.losses] == [("classifier", 1.0)]
    named, _ = setup("train.losses=[{layer: classifier}]")
    for one in (model, named):
        list(fit(one, data))
    np.testing.assert_array_equal(model.vector, named.vector)


def test_a_complete_config_reads_back():
    config, _ = setup()[0].config, None
    again = parse_config(to_yaml(config))
    assert again == config
    assert [one.loss for one in again.train.losses] == ["cross_entropy", "cross_entropy", "mse"]


def test_configs_differ_by_single_weights():
    first, second = (setup(f"train.losses.0.weight={weight}")[0].config for weight in (0.3, 0.2))
    assert [(one.key, one.values) for one in differences([first, second])] == [("train.losses.0.weight", [0.3, 0.2])]


def test_a_shape_that_the_targets_do_not_have():
    with pytest.raises(ConfigError) as caught:
        build_graph(parse_config(THREE.replace("layer: low_logits", "layer: relu1"), label="three.yaml"))
    assert str(caught.value).splitlines()[0] == (
        "three.yaml:32:15: layer relu1 gives 3×4×4, but has the same targets as classifier, which gives 2"
    )


# ---------------------------------------------------------------- the sum


def test_the_loss_is_the_weighted_sum_and_its_gradients_are_proven():
    model, data = setup()
    images, labels = data.normalization.apply(data.train.images[:6], np.float64), data.train.labels[:6]
    x, target = model.batch_in(images, labels)
    total, _ = model.loss_and_gradients(images, labels)
    zs, _ = model.graph.forward(model.params, x, Context(training=True, seed=2))
    own = {
        one.layer: float(one.loss.forward(z, target)[0]) / one.loss.count(z)
        for one, z in zip(model.losses, zs, strict=True)
    }
    assert total == pytest.approx(sum(WEIGHTS[layer] * loss for layer, loss in own.items()), rel=1e-14)
    for method in ("complex", "central"):
        report = gradcheck(model, images, labels, method=method)
        assert report.ok, report
        assert {check.name for check in report.parameters} == {*model.parameters(), "input"} - {
            *("norm.running_mean", "norm.running_var")
        }


def test_gradcheck_names_the_loss_that_is_wrong():
    from diagnosis_campaign.wrong_losses import Flipped

    model, data = setup()
    wrong = replace(model.losses[1], loss=Flipped(model.losses[1].loss))
    model.losses = (model.losses[0], wrong, model.losses[2])
    images = data.normalization.apply(data.train.images[:6], np.float64)
    report = gradcheck(model, images, data.train.labels[:6])
    checks = {check.name: check for check in report.parameters}
    assert "dz of the loss of low_logits" in checks["conv1.weight"].explanation
    assert checks["conv2.weight"].status == "ok"


@pytest.mark.parametrize("weights", ["null", "balanced"])
def test_two_and_three_workers_agree_with_one(weights):
    overrides = ["train.losses.2.loss=cross_entropy", f"train.class_weights={weights}"]
    results = []
    for workers in (1, 2, 3):
        model, data = setup(*overrides, f"train.workers={workers}")
        epochs = of(EpochDone, fit(model, data))
        results.append((model.vector.copy(), [epoch.train_losses for epoch in epochs]))
    for vector, losses in results[1:]:
        np.testing.assert_allclose(vector, results[0][0], rtol=1e-9, atol=1e-11)
        for mine, theirs in zip(losses, results[0][1], strict=True):
            assert mine == pytest.approx(theirs, rel=1e-10)


def test_watched_and_fused_steps_are_the_same():
    vectors = []
    for every in (0, 1):
        model, data = setup("dtype=float32")
        list(fit(model, data, watch_every=every))
        vectors.append(model.vector.copy())
    np.testing.assert_array_equal(*vectors)


# ---------------------------------------------------------------- the record


def test_an_epoch_tells_each_loss(tmp_path):
    model, data = setup()
    events = list(fit(model, data, run=tmp_path / "run"))
    steps, epochs = of(StepDone, events), of(EpochDone, events)
    for epoch in epochs:
        assert list(epoch.train_losses) == LAYERS
        assert epoch.train_loss == pytest.approx(sum(WEIGHTS[k] * v for k, v in epoch.train_losses.items()), rel=1e-14)
    first = [step for step in steps if step.epoch == 1]
    mean = sum(step.loss * step.samples for step in first) / sum(step.samples for step in first)
    assert epochs[0].train_loss == pytest.approx(mean, rel=1e-12)
    assert of(EpochDone, run_events(tmp_path / "run")) == epochs
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == metrics(model.config)
    assert list(rows[0])[-3:] == [f"train_loss.{layer}" for layer in LAYERS]
    assert float(rows[1]["train_loss.low_logits"]) == epochs[1].train_losses["low_logits"]


def test_a_run_with_one_loss_has_the_columns_that_it_always_had(tmp_path):
    model, data = setup("train.losses=[]")
    events = list(fit(model, data, run=tmp_path / "run"))
    assert [epoch.train_losses for epoch in of(EpochDone, events)] == [None, None]
    assert "train_loss." not in (tmp_path / "run" / "metrics.csv").read_text()


def test_resuming_in_the_middle_of_an_epoch_changes_nothing(tmp_path, after):
    model, data = setup()
    whole = list(fit(model, data, run=tmp_path / "whole"))
    other, _ = setup()
    list(fit(other, data, run=tmp_path / "halves", stop=after(3)))
    other, _ = setup()
    rest = list(fit(other, data, run=tmp_path / "halves", resume=True))
    np.testing.assert_array_equal(other.vector, model.vector)
    figures = [[(epoch.train_loss, epoch.train_losses) for epoch in of(EpochDone, run)] for run in (whole, rest)]
    assert figures[0] == figures[1]
    assert (tmp_path / "halves" / "metrics.csv").read_text().count("\n") == 3


def test_other_losses_in_the_middle_of_an_epoch_begin_their_sums_anew(tmp_path, after):
    model, data = setup()
    list(fit(model, data, run=tmp_path / "run", stop=after(3)))
    model, _ = setup("train.losses=[{layer: classifier}, {layer: low_logits, weight: 0.3}]")
    events = list(fit(model, data, run=tmp_path / "run", resume=True, allow_changes=True))
    rest = [step for step in of(StepDone, events) if step.epoch == 1]
    assert [step.step for step in rest] == [4, 5, 6]
    mean = sum(step.loss * step.samples for step in rest) / sum(step.samples for step in rest)
    assert of(EpochDone, events)[0].train_loss == pytest.approx(mean, rel=1e-12)


def test_a_checkpoint_that_knows_of_one_loss_is_read():
    state = RunState.from_dict({"step": 3, "loss_sum": 2.5, "loss_count": 24.0, "seen": 24}, Constant())
    assert (state.loss_sums, state.loss_counts) == ([2.5], [24.0])


# ---------------------------------------------------------------- the output alone


def test_evaluation_and_prediction_know_the_output_alone():
    model, data = setup()
    list(fit(model, data))
    found, images = evaluate(model, data.test), data.test.images
    predicted = model.predict(images)
    for name, value in model.parameters().items():
        if name.startswith(("low", "middle")):
            model.set_parameters({name: np.full_like(value, np.nan)})
    assert evaluate(model, data.test) == found
    np.testing.assert_array_equal(model.predict(images), predicted)
    chosen = predicted[np.arange(len(images)), data.test.labels]
    assert found.loss == pytest.approx(-np.log(chosen).mean(), rel=1e-12)
    assert model.loss(images, data.test.labels) == pytest.approx(found.loss, rel=1e-12)
    assert found.accuracy == np.mean(predicted.argmax(1) == data.test.labels)


def test_onnx_has_no_auxiliary_layers(tmp_path):
    onnx = pytest.importorskip("onnx")
    reference = pytest.importorskip("onnx.reference")
    from cnnbp_cli.exports.onnx import to_onnx
    from cnnbp_cli.imports.onnx import import_onnx

    model, data = setup("dtype=float32")
    list(fit(model, data))
    proto = to_onnx(model)
    onnx.checker.check_model(proto)
    names = [node.name for node in proto.graph.node] + [constant.name for constant in proto.graph.initializer]
    assert "conv2.weight" in names
    assert not [name for name in names if name.startswith(("low", "middle"))]
    raw = data.test.images.astype(np.float32)
    (given,) = reference.ReferenceEvaluator(proto).run(None, {"input": raw})
    np.testing.assert_allclose(given, model.predict(data.test.images), atol=1e-5)
    (tmp_path / "three.onnx").write_bytes(proto.SerializeToString())
    import_onnx(tmp_path / "three.onnx", tmp_path / "again.yaml")
    again = cnnbp.load(tmp_path / "again.yaml")
    assert [(one.layer, one.weight) for one in again.losses] == [("classifier", 1.0)]
    assert again.config.train.optimizer == model.config.train.optimizer


def test_diagnose_compares_the_sum_with_the_sum_of_guesses():
    report = cnnbp.diagnose_model(*setup())
    guess = np.log(2) * (1 + 0.3) + 0.5 * 0.25  # mse of (0.5, 0.5) is 0.25
    assert report.evidence["uniform_loss"] == pytest.approx(guess, rel=1e-6)
    assert not [finding for finding in report.findings if finding.rule in ("bad-initial-loss", "frozen-layer")]


def test_the_trace_adds_up():
    model, data = setup()
    image = data.normalization.apply(data.test.images[:1], np.float64)[0]
    trace = cnnbp.trace(model, image, data.test.labels[0])
    document = trace.document()
    assert [one["layer"] for one in document["losses"]] == LAYERS
    assert document["loss"] == pytest.approx(sum(one["weight"] * one["loss"] for one in document["losses"]))
    found = trace.terms("low_logits[1]")
    assert found.formula == "dz = w · (p − y)"
    assert [str(factor.cell) for term in found.terms for factor in term.factors] == [
        *("low_logits.prediction[1]", "low_logits.target[1]")
    ]
    assert found.value == pytest.approx(sum(term.product for term in found.terms), rel=1e-14)
    assert [(term.coefficient, str(term.factors[0].cell)) for term in trace.terms("loss", "value")] == [
        *((1.0, "classifier.loss"), (0.3, "low_logits.loss"), (0.5, "middle_logits.loss"))
    ]
    assert [str(cell) for cell in trace.used_by("low_logits.loss", "value")] == ["loss"]
    assert trace.gradient("low_logits.loss") == 0.3


def test_a_remedy_changes_the_loss_of_the_output():
    losses = "train.losses=[{layer: low_logits, loss: cross_entropy}, {layer: classifier, loss: mse}]"
    report = cnnbp.diagnose_model(*setup(losses), select=["loss-head-mismatch"])
    (finding,) = report.findings
    assert "train.losses.1.loss=cross_entropy" in finding.remedy
