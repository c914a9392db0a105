"""What a run may be resumed with: nothing that would make its record say something false, unless that is recorded."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cnnbp_cli.analysis.compare import compare
from cnnbp_cli.analysis.history import read_history
from cnnbp_cli.config.load import load_config
from cnnbp_cli.data.fingerprint import fingerprint
from cnnbp_cli.diagnosis.collect.run import evidence_of_run
from cnnbp_cli.train.checkpoint import Checkpoint
from cnnbp_cli.train.event_log import read_events
from cnnbp_cli.train.events import Change, ConfigChanged, RunFinished, StepDone
from cnnbp_cli.train.fit import fit
from cnnbp_cli.train.run_directory import RunDirectory, RunError


@pytest.fixture
def begun(setup, after, run):
    """A run that was stopped after eight of its twelve steps."""
    model, data = setup()
    list(fit(model, data, run=run, stop=after(8)))
    return run


def content(run):
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def changes(events):
    return [event for event in events if isinstance(event, ConfigChanged)]


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("train.optimizer.learning_rate=0.1", "train.optimizer.learning_rate: 0.01 → 0.1"),
        ("train.optimizer.betas=[0.8, 0.9]", "train.optimizer.betas: [0.9, 0.999] → [0.8, 0.9]"),
        ("seed=5", "seed: 0 → 5"),
        ("train.batch_size=4", "train.batch_size: 8 → 4"),
        ("data.normalize=unit", "data.normalize: standard → unit"),
        ("data.augment={shift: 1}", "data.augment.shift: null → 1"),
        ("train.schedule=cosine", "train.schedule.type: constant → cosine"),
        ("train.loss=mse", "train.loss: cross_entropy → mse"),
        ("train.label_smoothing=0.1", "train.label_smoothing: 0.0 → 0.1"),
        ("train.clip_norm=2", "train.clip_norm: null → 2.0"),
        ("train.early_stopping={patience: 2}", "train.early_stopping.patience: null → 2"),
        ("data.validation=8", "data.validation: 10 → 8"),
        ("data.limit={train: 40}", "data.limit.train: null → 40"),
        ("model.layers.norm.momentum=0.5", "model.layers.norm.momentum: 0.9 → 0.5"),
        ("model.layers.5.rate=0.5", "model.layers.dropout_1.rate: 0.2 → 0.5"),
        ("dtype=float64", "dtype: float32 → float64"),
    ],
)
def test_other_settings_are_refused_and_nothing_is_written(setup, begun, override, line):
    before = content(begun)
    model, data = setup(override)
    with pytest.raises(RunError) as caught:
        list(fit(model, data, run=begun, resume=True))
    first, *shown, advice = str(caught.value).splitlines()
    assert first == f"{begun}: the run so far was made with other settings:"
    assert f"  {line}" in shown
    assert advice.startswith(f"`cnnbp train {begun} --resume` keeps the run's own; --allow-changes resumes with these")
    assert content(begun) == before


def test_all_differences_are_shown_at_once(setup, begun):
    model, data = setup("seed=5", "train.batch_size=4", "train.epochs=9")
    with pytest.raises(RunError) as caught:
        list(fit(model, data, run=begun, resume=True))
    keys = [line.split(":")[0].strip() for line in str(caught.value).splitlines()[1:-1]]
    assert keys == ["seed", "train.batch_size", "training data", "validation data", "test data"]


@pytest.mark.parametrize(
    "override",
    [
        "train.epochs=3",
        "train.max_steps=10",
        "train.workers=2",
        "train.checkpoint_every=1",
        "train.checkpoint_minutes=1",
        "train.keep_checkpoints=1",
        "name=other",
    ],
)
def test_what_leaves_the_steps_alone_may_change(setup, begun, override):
    model, data = setup(override)
    events = list(fit(model, data, run=begun, resume=True))
    assert isinstance(events[-1], RunFinished)
    (changed,) = changes(events)
    assert changed.safe
    assert [change.key for change in changed.changes] == [override.partition("=")[0]]
    assert load_config(begun / "config.yaml") == model.config
    assert not read_history(begun).changes
    assert changes(fit(setup(override)[0], data, run=begun, resume=True)) == []


def test_allowed_changes_are_recorded_and_not_forgotten(setup, after, begun):
    original = (begun / "config.yaml").read_text()
    changed = ("train.optimizer.learning_rate=0.1", "data.normalize=unit")
    model, data = setup(*changed)
    list(fit(model, data, run=begun, resume=True, allow_changes=True, stop=after(2)))
    expected = ConfigChanged(
        step=8,
        changes=[Change("data.normalize", "standard", "unit"), Change("train.optimizer.learning_rate", 0.01, 0.1)],
        safe=False,
    )
    list(fit(setup(*changed)[0], data, run=begun, resume=True))  # it has been allowed
    assert (begun / "config-history" / "step-00000008.yaml").read_text() == original
    assert load_config(begun / "config.yaml") == model.config
    recorded = [record for record in read_events(begun) if record["event"] == "config_changed"]
    assert len(recorded) == 1
    assert read_history(begun).changes == [expected]
    text = "the config changed after step 8: data.normalize: standard → unit, train.optimizer.learning_rate: 0.01 → 0.1"
    assert str(expected) == text
    assert compare([begun, begun]).outcomes[0].changes == [expected]
    assert compare([begun, begun]).to_dict()["runs"][1]["changes"] == recorded
    assert text in evidence_of_run(begun)[-1]


def test_changed_steps_are_made_as_the_new_config_says(setup, begun):
    model, data = setup("train.optimizer.learning_rate=0.1")
    events = list(fit(model, data, run=begun, resume=True, allow_changes=True))
    assert {event.learning_rate for event in events if isinstance(event, StepDone)} == {0.1}


@pytest.mark.parametrize("part", ["train", "validation", "test"])
@pytest.mark.parametrize("what", ["images", "labels"])
def test_a_single_changed_value_of_the_data_is_noticed(setup, begun, part, what):
    model, data = setup()
    split = getattr(data, part)
    array = getattr(split, what).copy()
    array.reshape(-1)[-1] ^= 1
    other = replace(data, **{part: replace(split, **{what: array})})
    name = {"train": "training"}.get(part, part) + " data"
    count = f"{len(split)} images, sha256 "
    with pytest.raises(RunError, match=rf"\n  {name}: {count}[0-9a-f]{{32}} → {count}"):
        list(fit(model, other, run=begun, resume=True))
    events = list(fit(setup()[0], other, run=begun, resume=True, allow_changes=True))
    assert [change.key for change in changes(events)[0].changes] == [name]


def test_the_fingerprint_does_not_depend_on_how_the_arrays_lie(setup):
    _, data = setup()
    strided = np.ascontiguousarray(data.train.images.transpose(1, 2, 3, 0)).transpose(3, 0, 1, 2)
    assert fingerprint(replace(data, train=replace(data.train, images=strided))) == fingerprint(data)
    assert fingerprint(replace(data, test=None)).keys() == {"training data", "validation data"}


def test_data_may_move(setup, after, run, tmp_path):
    _, data = setup()
    arrays = {"x_train": data.train.images, "y_train": data.train.labels}
    for name in ("one.npz", "two.npz"):
        np.savez(tmp_path / name, x_test=data.test.images, y_test=data.test.labels, **arrays)
    for name in ("one.npz", "two.npz"):
        model, found = setup(f"data={{source: npz, path: {tmp_path / name}, validation: 10}}")
        events = list(fit(model, found, run=run, resume=True, stop=after(3)))
        assert not changes(events)


def test_a_checkpoint_of_another_run_is_noticed(setup, after, begun, tmp_path):
    other, data = setup("train.optimizer.learning_rate=0.5")
    list(fit(other, data, run=tmp_path / "other", stop=after(9)))
    shutil.copy(RunDirectory(tmp_path / "other").checkpoints()[0], begun / "checkpoints")
    with pytest.raises(RunError, match=r"\n  train\.optimizer\.learning_rate: 0\.5 → 0\.01\n"):
        list(fit(setup()[0], data, run=begun, resume=True))


@pytest.mark.parametrize(
    ("schedule", "safe"),
    [
        ("{type: one_cycle, max_learning_rate: 0.1}", False),
        ("cosine", False),
        ("{type: linear_warmup, steps: 2, then: cosine}", False),
        ("{type: linear_warmup, steps: 2}", True),
        ("{type: step, step_size: 1}", True),
        ("constant", True),
    ],
)
def test_more_epochs_change_the_rates_of_some_schedules(setup, after, run, schedule, safe):
    model, data = setup(f"train.schedule={schedule}")
    list(fit(model, data, run=run, stop=after(8)))
    longer, _ = setup(f"train.schedule={schedule}", "train.epochs=4")
    (changed,) = changes(fit(longer, data, run=run, resume=True))
    assert changed.safe == safe


def test_a_limit_beyond_the_epochs_changes_no_rates(setup, after, run):
    model, data = setup("train.schedule=cosine")
    list(fit(model, data, run=run, stop=after(8)))
    same, _ = setup("train.schedule=cosine", "train.max_steps=500")
    (changed,) = changes(fit(same, data, run=run, resume=True))
    assert changed.safe


# ---------------------------------------------------------------------- checkpoints


def sizes(run: Path) -> list[int]:
    return [path.stat().st_size for path in RunDirectory(run).checkpoints()]


def test_checkpoints_do_not_grow_with_the_run(setup, run):
    model, data = setup("train.epochs=60", "train.keep_checkpoints=100")
    list(fit(model, data, run=run))
    first, *_, last = sizes(run)[::-1][2:]
    assert abs(last - first) < 200  # digits of figures


SCHEDULE = "train.schedule={type: reduce_on_plateau, patience: 0, factor: 0.5, threshold: 0.2}"


def test_checkpoints_of_version_0_1_are_read(setup, after, tmp_path):
    """They listed the figures of all epochs, called some fields otherwise, and did not know their data."""
    model, data = setup("train.epochs=4", SCHEDULE)
    expected = list(fit(model, data, run=tmp_path / "straight"))
    epochs = [event.to_dict() if hasattr(event, "to_dict") else event for event in expected if event.event == "epoch"]
    halted, _ = setup("train.epochs=4", SCHEDULE)
    run = tmp_path / "old"
    list(fit(halted, data, run=run, stop=after(15)))
    path = RunDirectory(run).checkpoints()[0]
    checkpoint = Checkpoint.read(path)
    progress = dict(checkpoint.progress)
    assert progress["plateau"][2] > 0
    for name in ("epochs", "figures", "plateau", "first_loss"):
        del progress[name]
    progress["right"], progress["stale"] = progress.pop("correct"), progress.pop("epochs_since_best")
    figures = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")
    progress["history"] = [{name: getattr(epoch, name) for name in figures} for epoch in epochs[:2]]
    json.dumps(progress)
    replace(checkpoint, progress=progress, data={}).save(path)
    resumed, _ = setup("train.epochs=4", SCHEDULE)
    events = list(fit(resumed, data, run=run, resume=True))
    assert not changes(events)
    np.testing.assert_array_equal(resumed.vector, model.vector)
    assert replace(events[-1], seconds=0, run=None) == replace(expected[-1], seconds=0, run=None)


@pytest.mark.parametrize("workers", [1, 2])
def test_checkpoints_by_time(setup, run, monkeypatch, workers):
    """A clock that goes on by 20 s at every look: three steps and more make a minute."""
    clock = iter(range(0, 1_000_000, 20))
    monkeypatch.setattr("cnnbp_cli.train.saver.monotonic", lambda: next(clock))
    model, data = setup("train.epochs=1", "train.checkpoint_minutes=1", f"train.workers={workers}")
    events = list(fit(model, data, run=run))
    assert [event.step for event in events if event.event == "checkpoint"] == [0, 2, 5, 6]
    assert isinstance(events[-1], RunFinished)


def test_no_checkpoints_by_time(setup, run, monkeypatch):
    clock = iter(range(0, 1_000_000_000, 10_000))
    monkeypatch.setattr("cnnbp_cli.train.saver.monotonic", lambda: next(clock))
    model, data = setup("train.checkpoint_minutes=null")
    events = list(fit(model, data, run=run))
    assert [event.step for event in events if event.event == "checkpoint"] == [0, 6, 12]


# ---------------------------------------------------------------------- runs that diverge

PLAIN = "model.layers=[flatten, {type: dense, units: 2}]"


@pytest.mark.parametrize(
    ("overrides", "diverged"),
    [
        ((PLAIN, "train.optimizer={type: sgd, learning_rate: 1e4}"), True),
        ((PLAIN, "train.optimizer={type: sgd, learning_rate: 1e4}", "train.max_steps=9"), True),
        ((PLAIN, "model.head=none", "train.optimizer={type: sgd, learning_rate: 0.5}"), True),
        ((PLAIN, "train.optimizer={type: sgd, learning_rate: 0.01}"), False),
        ((PLAIN, "model.head=none", "train.optimizer={type: sgd, learning_rate: 0.01}"), False),
        ((), False),
        (("train.batch_size=1",), False),  # the loss of a single image can be small by chance
        (("train.max_steps=1",), False),
        (("train.optimizer={type: sgd, learning_rate: 0}", "model.layers.last.init={type: normal, std: 5}"), False),
    ],
)
def test_a_run_diverged_if_it_ends_worse_than_it_began_and_than_knowing_nothing(setup, overrides, diverged):
    model, data = setup(*overrides)
    *_, last = fit(model, data)
    assert isinstance(last, RunFinished)
    assert last.diverged == diverged
    assert last.train_loss > 10 if diverged else True
