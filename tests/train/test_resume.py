"""Run directories: what a run leaves, and that an interrupted one goes on as if nothing had happened."""

from __future__ import annotations

import csv
import json
import os

import numpy as np
import pytest

from cnnbp_cli.config.load import load_config
from cnnbp_cli.data.dataset import Normalization
from cnnbp_cli.loading import load
from cnnbp_cli.train.checkpoint import Checkpoint, CheckpointError
from cnnbp_cli.train.event_log import METRICS, read_events
from cnnbp_cli.train.events import (
    CheckpointSaved,
    EpochDone,
    Interrupted,
    RunFinished,
    RunStarted,
    StepDone,
    StoppedEarly,
)
from cnnbp_cli.train.fit import fit
from cnnbp_cli.train.run_directory import RunDirectory, RunError

EVERYTHING = (
    "train.epochs=4",
    "data.augment={shift: 1, rotate: 10, scale: 0.1}",
    "train.schedule={type: reduce_on_plateau, patience: 0, factor: 0.5, threshold: 0.2}",
    "train.clip_norm=1",
)


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


def lines(run):
    return [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]


def without_times(record):
    return {key: value for key, value in record.items() if key not in ("seconds", "images_per_second", "run", "path")}


def rows(run):
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def assert_same_parameters(one, two):
    assert one.keys() == two.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, two[name])


def test_what_a_run_directory_holds(setup, run):
    model, data = setup("train.epochs=5")
    events = list(fit(model, data, run=run))
    assert sorted(path.name for path in run.iterdir()) == ["checkpoints", "config.yaml", "events.jsonl", "metrics.csv"]
    assert load_config(run / "config.yaml") == model.config
    numbered = [f"step-{step:08d}.npz" for step in (18, 24, 30)]
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["best.npz", *numbered]
    assert len(numbered) == model.config.train.keep_checkpoints
    assert [event["event"] for event in lines(run)] == [event.event for event in events]
    assert lines(run)[1:] == read_events(run)[1:]
    assert [event.path for event in of(CheckpointSaved, events)][-1] == str(run / "checkpoints" / numbered[-1])
    assert [event.step for event in of(CheckpointSaved, events)] == [0, 6, 12, 18, 24, 30]
    epochs = of(EpochDone, events)
    assert tuple(rows(run)[0]) == METRICS
    assert [
        (int(r["epoch"]), int(r["step"]), float(r["train_loss"]), float(r["validation_accuracy"])) for r in rows(run)
    ] == [(e.epoch, e.step, e.train_loss, e.validation_accuracy) for e in epochs]
    assert events[0].run == events[-1].run == str(run)


def test_best_checkpoint_is_that_of_the_best_epoch(setup, run):
    model, data = setup("train.epochs=5", "train.optimizer={type: sgd, learning_rate: 5}")
    events = list(fit(model, data, run=run))
    losses = [event.validation_loss for event in of(EpochDone, events)]
    improved = [min(losses[: k + 1]) == losses[k] for k in range(5)]
    assert [event.best for event in of(CheckpointSaved, events)] == [False, *improved]
    assert losses[-1] != min(losses)
    assert Checkpoint.read(run / "checkpoints" / "best.npz").progress["step"] == 6 * (losses.index(min(losses)) + 1)
    assert_same_parameters(load(run).parameters(), model.parameters())
    assert RunDirectory(run).chosen().name == "best.npz"


def test_without_validation_the_last_checkpoint_counts(setup, run):
    model, data = setup("data.validation=0")
    events = list(fit(model, data, run=run))
    assert not (run / "checkpoints" / "best.npz").exists()
    assert not any(event.best for event in of(CheckpointSaved, events))
    assert_same_parameters(load(run).parameters(), model.parameters())


@pytest.mark.parametrize(
    "overrides",
    [
        ("train.epochs=4",),
        ("train.epochs=4", "train.checkpoint_every=2"),
        (*EVERYTHING, "train.optimizer={type: adam, learning_rate: 0.01}"),
        (*EVERYTHING, "train.optimizer={type: sgd, learning_rate: 0.1, momentum: 0.9, nesterov: true}"),
        (*EVERYTHING, "train.optimizer={type: rmsprop, momentum: 0.9, centered: true}", "dtype=float64"),
        (*EVERYTHING, "train.schedule={type: one_cycle, max_learning_rate: 0.1}", "data.validation=0"),
        (*EVERYTHING, "train.max_steps=21"),
    ],
)
@pytest.mark.parametrize("steps", [0, 4, 6, 15])
def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(setup, after, tmp_path, overrides, steps):
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    model, data = setup(*overrides)
    expected = list(fit(model, data, run=straight))

    halted, _ = setup(*overrides)
    first = list(fit(halted, data, run=broken, stop=after(steps)))
    path = broken / "checkpoints" / f"step-{steps:08d}.npz"
    assert first[-1] == Interrupted(step=steps, checkpoint=str(path))
    assert isinstance(first[-2], CheckpointSaved)
    assert len(of(StepDone, first)) == steps

    resumed, _ = setup(*overrides)
    second = list(fit(resumed, data, run=broken, resume=True))
    assert isinstance(second[0], RunStarted)
    assert second[0].step == steps
    assert_same_parameters(resumed.parameters(), model.parameters())
    joined = of(StepDone, first) + of(StepDone, second)
    assert [without_times(vars_of(e)) for e in joined] == [without_times(vars_of(e)) for e in of(StepDone, expected)]
    epochs = of(EpochDone, first) + of(EpochDone, second)
    assert [without_times(vars_of(e)) for e in epochs] == [without_times(vars_of(e)) for e in of(EpochDone, expected)]
    assert without_times(vars_of(second[-1])) == without_times(vars_of(expected[-1]))

    ends = [Checkpoint.read(RunDirectory(path).checkpoints()[0]) for path in (straight, broken)]
    assert_same_parameters(ends[0].parameters, ends[1].parameters)
    assert_same_parameters(ends[0].optimizer, ends[1].optimizer)
    assert without_times(ends[0].progress) == without_times(ends[1].progress)
    recorded = [event["step"] for event in lines(broken) if event["event"] == "step"]
    assert recorded == list(range(1, len(of(StepDone, expected)) + 1))
    assert [without_times(row) for row in rows(broken)] == [without_times(row) for row in rows(straight)]


def vars_of(event):
    return {name: getattr(event, name) for name in event.__dataclass_fields__}


def test_early_stopping_goes_on_counting_after_an_interruption(setup, after, tmp_path):
    still = ("train.early_stopping={patience: 3}", "train.optimizer.learning_rate=0", "model.layers.norm.momentum=1")
    overrides = (*still, "train.epochs=9")
    model, data = setup(*overrides)
    list(fit(model, data, run=tmp_path / "run", stop=after(15)))
    model, _ = setup(*overrides)
    second = list(fit(model, data, run=tmp_path / "run", resume=True))
    assert [event.epoch for event in of(StoppedEarly, second)] == [4]
    third = list(fit(setup(*overrides)[0], data, run=tmp_path / "run", resume=True))
    assert [event.event for event in third] == ["started", "finished"]
    assert without_times(vars_of(third[-1])) == without_times(vars_of(second[-1]))


def test_a_finished_run_is_only_tested_again(setup, run):
    model, data = setup()
    first = list(fit(model, data, run=run))
    model, _ = setup()
    second = list(fit(model, data, run=run, resume=True))
    assert [event.event for event in second] == ["started", "finished"]
    assert without_times(vars_of(second[-1])) == without_times(vars_of(first[-1]))
    assert [event["event"] for event in lines(run)] == [e.event for e in first[:-1]] + ["started", "finished"]
    assert len(rows(run)) == 2


def test_a_finished_run_goes_on_with_more_epochs(setup, run):
    model, data = setup("train.epochs=1")
    list(fit(model, data, run=run))
    longer, _ = setup("train.epochs=3")
    events = list(fit(longer, data, run=run, resume=True))
    assert [event.step for event in of(StepDone, events)] == list(range(7, 19))
    assert load_config(run / "config.yaml").train.epochs == 3
    whole, _ = setup("train.epochs=3")
    list(fit(whole, data))
    assert_same_parameters(longer.parameters(), whole.parameters())


def test_resuming_an_empty_folder_starts_afresh(setup, run):
    run.mkdir()
    model, data = setup()
    resumed = list(fit(model, data, run=run, resume=True))
    fresh, _ = setup()
    list(fit(fresh, data))
    assert resumed[0].step == 0
    assert_same_parameters(model.parameters(), fresh.parameters())


def test_resuming_a_folder_that_does_not_exist_starts_afresh(setup, run):
    model, data = setup("train.max_steps=1")
    started, *_ = fit(model, data, run=run / "deep", resume=True)
    assert started.step == 0
    assert (run / "deep" / "config.yaml").exists()


def test_a_folder_with_a_run_is_refused_without_resume(setup, run):
    model, data = setup()
    list(fit(model, data, run=run))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(RunError) as caught:
        next(fit(setup()[0], data, run=run))
    assert str(caught.value) == (
        f"{run}: already contains a run; continue it with --resume, or choose another folder with --out"
    )
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_run_directory_that_cannot_be_made(setup, tmp_path):
    (tmp_path / "file").write_text("")
    model, data = setup()
    with pytest.raises(RunError) as caught:
        next(fit(model, data, run=tmp_path / "file"))
    assert str(caught.value) == f"{tmp_path / 'file'}: the run directory cannot be written: Not a directory"


def test_a_damaged_last_checkpoint_falls_back_to_the_one_before(setup, after, run):
    model, data = setup("train.epochs=3")
    list(fit(model, data, run=run, stop=after(15)))
    last = run / "checkpoints" / "step-00000015.npz"
    last.write_bytes(last.read_bytes()[:-100])
    resumed, _ = setup("train.epochs=3")
    events = list(fit(resumed, data, run=run, resume=True))
    assert events[0].step == 12
    assert [event.step for event in of(StepDone, events)] == [13, 14, 15, 16, 17, 18]
    straight, _ = setup("train.epochs=3")
    list(fit(straight, data))
    assert_same_parameters(resumed.parameters(), straight.parameters())
    assert [event["step"] for event in lines(run) if event["event"] == "step"] == list(range(1, 19))


def test_no_checkpoint_is_whole(setup, after, run):
    model, data = setup()
    list(fit(model, data, run=run, stop=after(3)))
    paths = RunDirectory(run).checkpoints()
    for path in paths:
        path.write_bytes(b"garbage")
    with pytest.raises(CheckpointError) as caught:
        list(fit(setup()[0], data, run=run, resume=True))
    assert str(caught.value) == f"{paths[-1]}: is not an npz archive, or a damaged one"


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (
            ["model.layers.conv.filters=4"],
            "parameter conv.weight: expected shape (4, 1, 3, 3), got (3, 1, 3, 3)",
        ),
        (["dtype=float64"], "parameter conv.weight: expected float64, got float32"),
        (
            ["model.layers.last.name=other"],
            "there is no parameter 'last.weight'; the model has conv.weight, conv.bias, norm.weight, norm.bias, "
            "norm.running_mean, norm.running_var, other.weight, other.bias",
        ),
        (["model.layers.2={type: layer_norm, name: extra}"], "parameter extra.weight is missing"),
        (
            ["train.optimizer={type: sgd, momentum: 0.9}"],
            "optimizer state: expected momentum (62,) float32, got mean (62,) float32, square (62,) float32",
        ),
    ],
)
def test_another_network_cannot_go_on(setup, after, run, overrides, reason):
    model, data = setup()
    list(fit(model, data, run=run, stop=after(3)))
    config = (run / "config.yaml").read_text()
    other, _ = setup(*overrides)
    with pytest.raises(RunError) as caught:
        list(fit(other, data, run=run, resume=True, allow_changes=True))
    path = run / "checkpoints" / "step-00000003.npz"
    assert str(caught.value) == f"{path}: does not fit the config ({reason}); resume with the config it was made by"
    assert (run / "config.yaml").read_text() == config
    assert [event["step"] for event in lines(run) if event["event"] == "step"] == [1, 2, 3]


def test_a_network_with_fewer_parameters_cannot_go_on(setup, after, run):
    """Plain gradient descent has no state of its own that would tell."""
    plain = "train.optimizer={type: sgd}"
    model, data = setup(plain)
    list(fit(model, data, run=run, stop=after(3)))
    larger, _ = setup(plain, "model.layers.2={type: layer_norm, name: extra}")
    with pytest.raises(RunError, match=r"parameter extra\.weight is missing"):
        list(fit(larger, data, run=run, resume=True, allow_changes=True))


def test_a_crash_in_the_middle_of_a_line_is_no_obstacle(setup, after, run):
    model, data = setup()
    list(fit(model, data, run=run, stop=after(8)))
    text = (run / "events.jsonl").read_text()
    (run / "events.jsonl").write_text(text + '{"event": "step", "ste')
    (run / "metrics.csv").write_text((run / "metrics.csv").read_text() + "2,1")
    list(fit(setup()[0], data, run=run, resume=True))
    assert [event["step"] for event in lines(run) if event["event"] == "step"] == list(range(1, 13))
    assert [row["epoch"] for row in rows(run)] == ["1", "2"]


def test_events_that_cannot_be_read(setup, after, run):
    with pytest.raises(RunError) as caught:
        read_events(run)
    assert str(caught.value) == f"{run / 'events.jsonl'}: cannot be read; expected the events of a run"
    model, data = setup()
    list(fit(model, data, run=run, stop=after(2)))
    text = (run / "events.jsonl").read_text().splitlines()
    (run / "events.jsonl").write_text("\n".join([text[0], "[1, 2]", *text[1:]]))
    with pytest.raises(RunError) as caught:
        read_events(run)
    assert str(caught.value) == f"{run / 'events.jsonl'}:2: is not an event of a run"


def test_a_generator_closed_early_leaves_whole_files(setup, run):
    model, data = setup()
    events = fit(model, data, run=run)
    for _ in range(6):
        next(events)
    events.close()
    assert [event["event"] for event in lines(run)] == ["started", "checkpoint", "step", "watched", "step", "step"]
    resumed = list(fit(setup()[0], data, run=run, resume=True))
    assert isinstance(resumed[-1], RunFinished)
    assert [event["step"] for event in lines(run) if event["event"] == "step"] == list(range(1, 13))


def test_names_of_new_runs_count_up(tmp_path):
    assert RunDirectory.next_under(tmp_path, "toy") == tmp_path / "toy-1"
    (tmp_path / "toy-1").mkdir()
    (tmp_path / "toy-2").mkdir()
    assert RunDirectory.next_under(tmp_path, "toy") == tmp_path / "toy-3"


def test_a_run_without_checkpoints_cannot_be_loaded(tmp_path):
    with pytest.raises(RunError) as caught:
        load(tmp_path)
    assert str(caught.value) == f"{tmp_path}: contains no checkpoint; train it first"


def test_loading_a_run_and_a_checkpoint(setup, run):
    model, data = setup()
    list(fit(model, data, run=run))
    path = RunDirectory(run).chosen()
    for source in (run, str(run), path, str(path)):
        again = load(source)
        assert_same_parameters(again.parameters(), model.parameters())
        assert again.normalization == data.normalization
        np.testing.assert_array_equal(again.predict(data.test.images), model.predict(data.test.images))
    double = load(run, overrides=["dtype=float64"])
    assert double.dtype == np.float64
    np.testing.assert_allclose(double.predict(data.test.images), model.predict(data.test.images), rtol=1e-4, atol=1e-6)
    with pytest.raises(CheckpointError) as caught:
        load(path, overrides=["model.layers.conv.filters=4"])
    assert str(caught.value) == (
        f"{path}: does not fit the model: parameter conv.weight: expected shape (4, 1, 3, 3), got (3, 1, 3, 3)"
    )
    with pytest.raises(CheckpointError) as caught:
        load(path, overrides=["model.layers.relu_1={type: layer_norm, name: relu_1}"])
    assert str(caught.value) == f"{path}: does not fit the model: parameter relu_1.weight is missing"


def test_the_checkpoint_says_where_the_run_stands(setup, after, run):
    model, data = setup()
    events = list(fit(model, data, run=run, stop=after(8)))
    checkpoint = Checkpoint.read(RunDirectory(run).checkpoints()[0])
    steps = of(StepDone, events)
    progress = checkpoint.progress
    assert progress["step"] == 8
    assert progress["seen"] == 16
    assert progress["loss_sums"] == [pytest.approx(sum(s.loss * s.samples for s in steps[6:]))]
    assert progress["loss_counts"] == [16]
    assert (progress["epochs"], progress["figures"]["train_loss"]) == (1, of(EpochDone, events)[-1].train_loss)
    assert progress["first_loss"] == steps[0].loss
    assert Normalization.from_dict(checkpoint.normalization) == data.normalization
    assert_same_parameters(checkpoint.parameters, model.parameters())


def test_checkpoints_within_an_epoch(setup, run):
    model, data = setup("train.checkpoint_every=2", "train.keep_checkpoints=2")
    events = list(fit(model, data, run=run))
    assert [event.step for event in of(CheckpointSaved, events)] == [0, 2, 4, 6, 8, 10, 12]
    assert [path.name for path in RunDirectory(run).checkpoints()] == ["step-00000012.npz", "step-00000010.npz"]


def test_a_run_directory_in_use_is_refused(setup, run):
    model, data = setup()
    events = fit(model, data, run=run)
    next(events)
    with pytest.raises(RunError) as caught:
        next(fit(setup()[0], data, run=run, resume=True))
    assert str(caught.value) == (
        f"{run}: is in use by process {os.getpid()}; wait for its end, or choose another with --out"
    )
    events.close()
    assert list(fit(setup()[0], data, run=run, resume=True))[-1].event == "finished"
    assert not (run / ".lock").exists()


def test_a_damaged_best_checkpoint_is_made_again(setup, after, run):
    model, data = setup()
    list(fit(model, data, run=run, stop=after(8)))
    best = RunDirectory(run).best
    whole = best.read_bytes()
    best.write_bytes(b"garbage")
    (run / "checkpoints" / f".step-00000009.npz.cnnbp-{2**22 + 1}.tmp").write_bytes(
        b"half"
    )  # no process has this number
    next(fit(setup()[0], data, run=run, resume=True))
    assert Checkpoint.read(best).progress == {"step": 6, "epochs": 1}
    assert len(best.read_bytes()) == len(whole)
    assert not list((run / "checkpoints").glob(".*"))
