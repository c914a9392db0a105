"""The training loop: what it computes, when it ends, and the events that it yields."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace

import numpy as np
import pytest
from by_type import OPTIMIZERS, SCHEDULES

from cnnbp_cli.core.types import Context
from cnnbp_cli.data.batches import make_batch, order
from cnnbp_cli.data.dataset import DataError
from cnnbp_cli.train.evaluate import evaluate
from cnnbp_cli.train.events import (
    CheckpointSaved,
    EpochDone,
    Interrupted,
    LayersWatched,
    NonFinite,
    RunFinished,
    RunStarted,
    StepDone,
    StoppedEarly,
    to_dict,
)
from cnnbp_cli.train.fit import fit
from cnnbp_cli.train.statistics import LayerStatistics

PLAIN = ("model.layers.dropout_1.rate=0", "train.optimizer={type: sgd, learning_rate: 0.1}")


def trained(setup, *overrides, **options):
    model, data = setup(*overrides)
    return model, data, list(fit(model, data, **options))


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


def test_order_and_fields_of_the_events(setup):
    model, data, events = trained(setup)
    started, *middle, finished = events
    assert [event.event for event in middle] == ["step", "watched"] + ["step"] * 5 + ["epoch"] + ["step"] * 6 + [
        "epoch"
    ]
    assert replace(started) == RunStarted(
        name="bars",
        step=0,
        total_steps=12,
        epochs=2,
        steps_per_epoch=6,
        batch_size=8,
        samples=44,
        parameters=27 + 3 + 6 + 24 + 2,
        workers=1,
        run=None,
    )
    steps, epochs = of(StepDone, events), of(EpochDone, events)
    assert [event.step for event in steps] == list(range(1, 13))
    assert [event.epoch for event in steps] == [1] * 6 + [2] * 6
    assert [event.samples for event in steps] == [8, 8, 8, 8, 8, 4] * 2
    assert [(event.epoch, event.step) for event in epochs] == [(1, 6), (2, 12)]
    for step in steps:
        assert math.isfinite(step.loss)
        assert step.accuracy * step.samples == pytest.approx(round(step.accuracy * step.samples))
        assert step.grad_norm > 0
        assert step.learning_rate == 0.01
        assert step.seconds > 0
    for number, epoch in enumerate(epochs):
        own = steps[6 * number : 6 * number + 6]
        assert epoch.train_loss == pytest.approx(sum(s.loss * s.samples for s in own) / 44)
        assert epoch.train_accuracy == pytest.approx(sum(s.accuracy * s.samples for s in own) / 44)
        assert epoch.learning_rate == 0.01
        assert epoch.seconds == pytest.approx(sum(s.seconds for s in own))
        assert epoch.images_per_second == pytest.approx(44 / epoch.seconds)
    assert (finished.step, finished.epochs, finished.run) == (12, 2, None)
    assert finished.train_loss == epochs[-1].train_loss
    assert finished.validation_loss == epochs[-1].validation_loss
    test = evaluate(model, data.test)
    assert (finished.test_loss, finished.test_accuracy) == (test.loss, test.accuracy)


def test_every_event_is_one_json_line():
    bad = float("nan")
    statistics = LayerStatistics(
        **dict.fromkeys(("gradient", "weight", "update", "ratio", "dead", "saturated")),
        **dict.fromkeys(("activation", "mean", "deviation", "zeros", "signal"), bad),
    )
    events = [
        StepDone(
            step=1, epoch=1, loss=bad, accuracy=None, learning_rate=0.1, grad_norm=math.inf, seconds=0.1, samples=8
        ),
        LayersWatched(step=1, layers={"a": statistics}),
        NonFinite(step=3, layer="conv", where="output", loss=bad, checkpoint=None),
        CheckpointSaved(step=3, path="a.npz", best=True),
        Interrupted(step=3, checkpoint="a.npz"),
        StoppedEarly(epoch=2, step=3, monitor="train_loss", best=0.5, patience=3),
    ]
    for event in events:
        record = json.loads(json.dumps(to_dict(event), allow_nan=False))
        assert list(record) == ["event", *(f.name for f in fields(event))]
        assert record["event"] == event.event
    assert to_dict(events[0])["loss"] is None
    assert to_dict(events[0])["grad_norm"] is None
    assert to_dict(events[1])["layers"] == {
        "a": {"activation": None, "mean": None, "deviation": None, "zeros": None, "signal": None}
    }
    assert to_dict(events[3]) == {"event": "checkpoint", "step": 3, "path": "a.npz", "best": True}


def test_same_seed_same_bits(setup):
    first, again, other = (trained(setup, f"seed={seed}")[0].parameters() for seed in (5, 5, 6))
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name])
    assert any((value != other[name]).any() for name, value in first.items())


def test_seed_draws_initial_weights_and_data(setup):
    (one, one_data), (two, two_data) = setup("seed=1"), setup("seed=2")
    assert (one.parameters()["conv.weight"] != two.parameters()["conv.weight"]).any()
    assert (one_data.train.images != two_data.train.images).any()


def test_one_step_is_what_the_formulas_say(setup):
    """The first update by hand: the batch in its shuffled order, the mean gradient, plain gradient descent."""
    model, data = setup(*PLAIN, "dtype=float64", "train.max_steps=1")
    model.normalization = data.normalization
    chosen = order(0, 0, 44)[:8]
    loss, gradients = model.loss_and_gradients(data.train.images[chosen], data.train.labels[chosen])
    step = of(StepDone, fit(model, data))[0]
    assert step.loss == pytest.approx(loss, rel=1e-14)
    squares = sum(float((g * g).sum()) for name, g in gradients.items() if name != "input")
    assert step.grad_norm == pytest.approx(math.sqrt(squares), rel=1e-14)


def test_last_parameters_without_a_validation_split(setup):
    """Twelve updates by hand, running statistics included."""
    model, data = setup(*PLAIN, "dtype=float64", "data.validation=0", "data.train=44")
    other, _ = setup(*PLAIN, "dtype=float64", "data.validation=0", "data.train=44")
    list(fit(model, data))
    for step in range(12):
        chosen = order(0, step // 6, 44)[step % 6 * 8 : step % 6 * 8 + 8]
        x, labels = make_batch(data.train, chosen, data.normalization, np.float64)
        ctx = Context(training=True, seed=0, step=step)
        (z,), tape = other.graph.forward(other.params, x, ctx)
        residuals = other.loss_function.forward(z, labels)[1]
        dz = other.loss_function.backward(residuals) / len(chosen)
        _, grads = other.graph.backward(other.params, tape, [dz], ctx)
        other.set_state(other.graph.next_state(other.params, tape))
        for node, own in grads.items():
            for key, gradient in own.items():
                other.params[node][key] -= 0.1 * gradient
    for name, value in other.parameters().items():
        np.testing.assert_allclose(model.parameters()[name], value, rtol=1e-11, atol=1e-13)


def test_every_epoch_visits_all_images_in_a_new_order(setup):
    one, two = order(0, 0, 44), order(0, 1, 44)
    assert sorted(one) == sorted(two) == list(range(44))
    assert one.tolist() != two.tolist() != list(range(44))
    assert order(1, 0, 44).tolist() != one.tolist()
    assert sum(event.samples for event in of(StepDone, trained(setup, "train.epochs=1")[2])) == 44


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_runs_with_every_schedule(setup, optimizer, schedule):
    needs = {
        "step": ", step_size: 1",
        "multi_step": ", milestones: [1]",
        "exponential": ", gamma: 0.5",
        "one_cycle": ", max_learning_rate: 0.01",
        "linear_warmup": ", steps: 12, then: cosine",
    }
    model, _, events = trained(
        setup,
        f"train.optimizer={{type: {optimizer}, learning_rate: 0.01}}",
        f"train.schedule={{type: {schedule}{needs.get(schedule, '')}}}",
        "data.train=26",
        "train.epochs=6",
    )
    steps = of(StepDone, events)
    assert len(steps) == 12
    assert all(math.isfinite(event.loss) and event.learning_rate > 0 for event in steps)
    assert np.isfinite(model.vector).all()
    changes = {event.learning_rate for event in steps}
    assert (len(changes) > 1) == (schedule not in ("constant", "reduce_on_plateau"))
    for epoch in of(EpochDone, events):
        assert epoch.learning_rate == steps[epoch.step - 1].learning_rate


def test_reduce_on_plateau_follows_the_validation_loss(setup):
    schedule = "train.schedule={type: reduce_on_plateau, patience: 0, factor: 0.5, threshold: 0.9}"
    steps = of(StepDone, trained(setup, schedule, "train.epochs=4")[2])
    assert [event.learning_rate for event in steps] == [0.01] * 12 + [0.005] * 6 + [0.0025] * 6


def test_warm_up_may_last_as_long_as_the_run(setup):
    _, _, events = trained(setup, "train.schedule={type: linear_warmup, steps: 12, then: cosine}")
    rates = [event.learning_rate for event in of(StepDone, events)]
    assert rates == pytest.approx([0.01 * (1 / 3 + 2 / 3 * k / 12) for k in range(12)])
    assert isinstance(events[-1], RunFinished)


def test_clipping_scales_the_update_and_reports_the_norm_before(setup):
    plain = (*PLAIN, "dtype=float64", "train.max_steps=1", "data.validation=0")
    model, _, events = trained(setup, *plain)
    start = setup(*plain)[0].vector
    norm = of(StepDone, events)[0].grad_norm
    clipped, _, clipped_events = trained(setup, *plain, f"train.clip_norm={norm / 4}")
    assert of(StepDone, clipped_events)[0].grad_norm == norm
    np.testing.assert_allclose(clipped.vector - start, (model.vector - start) / 4, rtol=1e-5, atol=1e-15)
    assert np.linalg.norm(clipped.vector - start) == pytest.approx(0.1 * norm / 4, rel=1e-5)
    same, _, _ = trained(setup, *plain, f"train.clip_norm={norm * 4}")
    np.testing.assert_array_equal(same.vector, model.vector)


def test_label_smoothing_raises_the_loss_of_certainty(setup):
    model, data = setup("train.label_smoothing=0.2")
    plain, _ = setup()
    images, labels = data.train.images[:8], data.train.labels[:8]
    for one in (model, plain):
        one.normalization = data.normalization
    p = plain.predict(images).astype(float)
    certain = -np.log(p[np.arange(8), labels]).mean()
    uniform = -np.log(p).mean()
    assert plain.loss(images, labels) == pytest.approx(certain, rel=1e-5)
    assert model.loss(images, labels) == pytest.approx(0.8 * certain + 0.2 * uniform, rel=1e-5)
    assert math.isfinite(list(fit(model, data))[-1].test_loss)


def test_validation_figures_are_those_of_the_held_out_images(setup):
    model, data, events = trained(setup, "train.epochs=1")
    held_out = evaluate(model, data.validation)
    epoch = of(EpochDone, events)[0]
    assert held_out.count == 10
    assert (epoch.validation_loss, epoch.validation_accuracy) == (held_out.loss, held_out.accuracy)


def test_without_validation_and_test_the_figures_are_none(setup):
    _, _, events = trained(setup, "data.validation=0", "data.test=0")
    assert {(event.validation_loss, event.validation_accuracy) for event in of(EpochDone, events)} == {(None, None)}
    assert (events[-1].test_loss, events[-1].test_accuracy, events[-1].validation_loss) == (None, None, None)


def test_the_best_parameters_are_restored_at_the_end(setup):
    """A learning rate that soon does harm: the last epoch is not the best."""
    model, data, events = trained(setup, "train.optimizer={type: sgd, learning_rate: 5}", "train.epochs=5")
    losses = [event.validation_loss for event in of(EpochDone, events)]
    assert min(losses) < losses[-1]
    assert evaluate(model, data.validation).loss == min(losses)
    assert events[-1].test_loss == evaluate(model, data.test).loss


@pytest.mark.parametrize(
    ("monitor", "patience"), [("validation_loss", 3), ("validation_accuracy", 2), ("train_loss", 1)]
)
def test_early_stopping(setup, monitor, patience):
    """With a learning rate of 0 nothing improves after the first epoch."""
    _, _, events = trained(
        setup,
        f"train.early_stopping={{monitor: {monitor}, patience: {patience}, min_delta: 0.01}}",
        "train.optimizer.learning_rate=0",
        "model.layers.dropout_1.rate=0",
        "model.layers.norm.momentum=1",
        "train.epochs=9",
        "train.batch_size=44",
    )
    epochs = of(EpochDone, events)
    assert len(epochs) == 1 + patience
    first = getattr(epochs[0], monitor)
    assert events[-2] == StoppedEarly(
        epoch=1 + patience, step=1 + patience, monitor=monitor, best=first, patience=patience
    )
    assert isinstance(events[-1], RunFinished)
    assert events[-1].epochs == 1 + patience


def test_early_stopping_keeps_the_best(setup):
    model, data, events = trained(
        setup,
        "train.early_stopping={monitor: validation_accuracy, patience: 2}",
        "train.optimizer={type: sgd, learning_rate: 0.2}",
        "train.epochs=30",
    )
    accuracies = [event.validation_accuracy for event in of(EpochDone, events)]
    stopped = of(StoppedEarly, events)[0]
    assert stopped.best == max(accuracies)
    assert accuracies.index(max(accuracies)) == len(accuracies) - 3
    assert evaluate(model, data.validation).accuracy == max(accuracies)


def test_a_figure_that_is_not_a_number_is_never_the_best(setup, monkeypatch):
    """The validation loss of the first epoch overflows; the second is the best, and the third is not."""
    model, data = setup("train.epochs=3", "train.early_stopping={patience: 2}")
    losses = iter([math.nan, 2.0, math.nan])
    real = evaluate

    def fake(*args, **options):
        found = real(*args, **options)
        return replace(found, loss=next(losses)) if found.count == 10 else found

    monkeypatch.setattr("cnnbp_cli.train.trainer.evaluate", fake)
    events = list(fit(model, data))
    assert len(of(EpochDone, events)) == 3
    assert not of(StoppedEarly, events)


@pytest.mark.parametrize(("epochs", "max_steps", "steps"), [(2, 100, 12), (2, 12, 12), (2, 7, 7), (5, 1, 1)])
def test_whichever_of_epochs_and_max_steps_ends_first(setup, epochs, max_steps, steps):
    _, _, events = trained(setup, f"train.epochs={epochs}", f"train.max_steps={max_steps}")
    assert events[0].total_steps == steps
    assert len(of(StepDone, events)) == steps
    assert events[-1].step == steps
    assert of(EpochDone, events)[-1].step == steps


@pytest.mark.parametrize("batch_size", [1, 43, 44, 1000])
def test_batches_of_any_size(setup, batch_size):
    _, _, events = trained(setup, f"train.batch_size={batch_size}", "train.epochs=1")
    sizes = [event.samples for event in of(StepDone, events)]
    assert sum(sizes) == 44
    assert set(sizes[:-1]) <= {batch_size}


def test_augmentation_is_random_but_repeats(setup):
    augment = "data.augment={shift: 1, rotate: 10, scale: 0.1}"
    first, again, plain = (trained(setup, *overrides)[0].vector for overrides in ((augment,), (augment,), ()))
    np.testing.assert_array_equal(first, again)
    assert (first != plain).any()


def test_dropout_differs_from_step_to_step(setup):
    """With the weights held still and one batch, only the masks change the loss."""
    still = ("train.optimizer.learning_rate=0", "train.batch_size=44", "train.epochs=4", "dtype=float64")
    losses = {event.loss for event in of(StepDone, trained(setup, *still)[2])}
    assert len(losses) == 4
    losses = [event.loss for event in of(StepDone, trained(setup, *still, "model.layers.dropout_1.rate=0")[2])]
    assert losses == pytest.approx([losses[0]] * 4, rel=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_everything_is_in_the_dtype_of_the_config(setup, dtype):
    model, _, events = trained(setup, f"dtype={dtype}")
    assert model.vector.dtype == dtype
    assert {value.dtype for value in model.parameters().values()} == {np.dtype(dtype)}
    assert type(of(StepDone, events)[0].loss) is float


def test_float32_and_float64_agree(setup):
    single, double = (trained(setup, f"dtype={dtype}", "train.max_steps=3")[2] for dtype in ("float32", "float64"))
    for one, two in zip(of(StepDone, single), of(StepDone, double), strict=True):
        assert one.loss == pytest.approx(two.loss, rel=1e-4)
        assert one.grad_norm == pytest.approx(two.grad_norm, rel=1e-3)


def test_labels_outside_the_classes_are_refused_before_anything_happens(setup, run):
    model, data = setup()
    data.train.labels[3] = 7
    with pytest.raises(DataError) as caught:
        next(fit(model, data, run=run))
    assert str(caught.value) == (
        "synthetic bars: label 7 of sample 3 in the train split is outside the model's 2 classes (0 to 1); "
        "give the last layer 8 units or more"
    )
    assert not run.exists()


def test_the_model_knows_its_normalization_afterwards(setup):
    model, data = setup()
    assert model.normalization is None
    list(fit(model, data))
    assert model.normalization == data.normalization


def test_leaving_early_keeps_the_steps_made(setup):
    model, data = setup()
    start = model.vector.copy()
    events = fit(model, data)
    for _ in range(5):
        event = next(events)
    events.close()
    assert event.step == 3
    assert (model.vector != start).any()
