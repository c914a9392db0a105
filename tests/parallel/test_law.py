"""The law of workers: one config and one seed give the same parameters on any number of them, up to rounding."""

from __future__ import annotations

import math
import multiprocessing
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from by_type import OPTIMIZERS
from parallel.config import CONFIG, SEVERAL_LOSSES, SHARED
from parallel.processes import distance, start

from cnnbp_cli.config.custom_layers import load_layers
from cnnbp_cli.config.write import to_yaml
from cnnbp_cli.core.layers import LAYERS
from cnnbp_cli.train import saver
from cnnbp_cli.train.checkpoint import Checkpoint
from cnnbp_cli.train.events import (
    CheckpointSaved,
    EpochDone,
    Interrupted,
    LayersWatched,
    NonFinite,
    RunStarted,
    StepDone,
    StoppedEarly,
)
from cnnbp_cli.train.fit import fit, planned_workers
from cnnbp_cli.train.run_directory import RunDirectory

COUNTS = (2, 3, 4)


def trained(setup, workers, *overrides, **options):
    model, data = setup(f"train.workers={workers}", *overrides)
    return model, list(fit(model, data, **options))


def figures(events, kind, *names):
    return np.array([[getattr(event, name) for name in names] for event in events if isinstance(event, kind)])


def assert_same_run(one, other, tolerance):
    (model, events), (other_model, other_events) = one, other
    assert [event.event for event in events] == [event.event for event in other_events]
    everything = [np.concatenate([v.ravel() for v in m.parameters().values()]) for m in (model, other_model)]
    assert distance(*everything) < tolerance
    for kind, names in (
        (StepDone, ("loss", "accuracy", "grad_norm", "learning_rate", "samples")),
        (EpochDone, ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")),
    ):
        ours, theirs = figures(events, kind, *names), figures(other_events, kind, *names)
        np.testing.assert_allclose(ours, theirs, rtol=100 * tolerance)
    np.testing.assert_allclose(
        [events[-1].test_loss, events[-1].test_accuracy],
        [other_events[-1].test_loss, other_events[-1].test_accuracy],
        rtol=100 * tolerance,
    )


@pytest.mark.parametrize("workers", COUNTS)
def test_float64_agrees_to_rounding(setup, workers):
    """Batch norm, dropout, augmentation, clipping, momentum, and a last batch that does not divide evenly."""
    events = trained(setup, workers)
    assert_same_run(trained(setup, 1), events, 1e-12)
    assert next(event.workers for event in events[1] if isinstance(event, RunStarted)) == workers


@pytest.mark.parametrize("workers", COUNTS)
def test_float32_agrees_after_an_epoch(setup, workers):
    settings = ("dtype=float32", "train.epochs=1", "data.train=200")
    one, other = (trained(setup, n, *settings)[0].vector for n in (1, workers))
    assert distance(one, other) < 1e-5


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_updates_its_shares(setup, optimizer):
    """Optimizers that divide by the size of a gradient magnify the rounding of gradients near zero."""
    settings = (f"train.optimizer={{type: {optimizer}, learning_rate: 0.001}}", "model.layers.conv.bias=false")
    one, other = (trained(setup, n, *settings)[0].vector for n in (1, 3))
    assert distance(one, other) < 1e-9


@pytest.mark.parametrize("workers", COUNTS)
def test_shared_layers_are_one_layer_on_any_number_of_workers(setup, workers):
    assert_same_run(trained(setup, 1, SHARED), trained(setup, workers, SHARED), 1e-12)


@pytest.mark.parametrize("workers", COUNTS)
def test_several_losses_have_one_sum_on_any_number_of_workers(setup, workers):
    runs = [trained(setup, count, *SEVERAL_LOSSES) for count in (1, workers)]
    assert_same_run(*runs, 1e-12)
    one, other = ([event.train_losses for event in run[1] if isinstance(event, EpochDone)] for run in runs)
    for ours, theirs in zip(one, other, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-10)


def test_shared_layers_give_the_same_bits_again(setup):
    np.testing.assert_array_equal(trained(setup, 3, SHARED)[0].vector, trained(setup, 3, SHARED)[0].vector)


def test_the_same_number_gives_the_same_bits(setup):
    np.testing.assert_array_equal(trained(setup, 3)[0].vector, trained(setup, 3)[0].vector)


@pytest.mark.parametrize("rest", [1, 2, 3])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_batches_smaller_than_the_workers(setup, rest, loss):
    """The last batch leaves some of four workers without a sample."""
    settings = (f"data.train={8 + 16 + rest}", f"train.loss={loss}")
    assert_same_run(trained(setup, 1, *settings), trained(setup, 4, *settings), 1e-12)


def test_splits_smaller_than_the_workers(setup):
    settings = ("data.validation=1", "data.test=2")
    assert_same_run(trained(setup, 1, *settings), trained(setup, 4, *settings), 1e-12)


def test_a_model_that_learns_its_own_input(setup):
    settings = (
        "data.target=image",
        "model.head=none",
        "model.layers=[{type: conv2d, filters: 3, kernel_size: 3, stride: 2, padding: same}, relu, "
        "{type: conv_transpose2d, filters: 1, kernel_size: 2, stride: 2}]",
    )
    (one, _), (other, _) = (trained(setup, n, *settings) for n in (1, 3))
    assert distance(one.vector, other.vector) < 1e-12


def test_early_stopping_is_everybodys(setup):
    settings = (
        "train.early_stopping={monitor: validation_accuracy, patience: 2}",
        "train.epochs=40",
        "train.optimizer.learning_rate=0.3",
    )
    one, other = (trained(setup, n, *settings) for n in (1, 3))
    assert any(isinstance(event, StoppedEarly) for event in other[1])
    assert_same_run(one, other, 1e-8)


def test_statistics_are_those_of_the_whole_batch(setup):
    """Also after a batch that leaves workers without a sample."""
    events = [trained(setup, n, "data.train=25", watch_every=2)[1] for n in (1, 4)]
    one, other = ([event for event in own if isinstance(event, LayersWatched)] for own in events)
    assert [event.step for event in one] == [event.step for event in other] == [1, 2, 4]
    for ours, theirs in zip(one, other, strict=True):
        for name, statistics in ours.layers.items():
            for key, value in statistics.to_dict().items():
                assert theirs.layers[name].to_dict()[key] == pytest.approx(value, rel=1e-8, abs=1e-12), (name, key)


OWN_LAYER = """
from dataclasses import dataclass
from typing import Literal
import cnnbp_cli as cnnbp
from cnnbp_cli.core.types import Layer

@cnnbp.register
@dataclass(frozen=True, slots=True)
class Half(Layer):
    type: Literal["half"] = "half"

    def forward(self, params, x, ctx):
        return x / 2, None

    def backward(self, params, residuals, dy, ctx):
        return dy / 2, {}
"""


def test_layers_of_a_file_reach_every_worker(setup, start_method, tmp_path):
    file = tmp_path / "half.py"
    file.write_text(OWN_LAYER)
    load_layers(file)
    try:
        one, other = (trained(setup, n, "model.layers.2=half") for n in (1, 2))
    finally:
        del LAYERS["half"]
        del sys.modules[str(file).replace(".", "_")]
    assert_same_run(one, other, 1e-12)


TRAINING = """
import threading, time
import cnnbp_cli as cnnbp

def main(*settings):
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()  # so that workers are spawned
    model = cnnbp.load("team.yaml", settings)
    for event in cnnbp.fit(model, cnnbp.load_data(model)):
        pass
    print(event.event)
"""


@pytest.mark.parametrize(
    "code",
    [
        TRAINING + "main()",
        OWN_LAYER + TRAINING + "if __name__ == '__main__': main('model.layers.2=half')",
    ],
    ids=["without a guard", "with a layer and a guard"],
)
def test_scripts_may_spawn(tmp_path, code):
    """Workers that are spawned run the script once more only where it defines a layer of the model."""
    (tmp_path / "team.yaml").write_text(CONFIG)
    (tmp_path / "script.py").write_text(code)
    with start("script.py", cwd=tmp_path) as process:
        assert process.communicate(timeout=40) == ("finished\n", "")


@pytest.mark.parametrize("image", [0, 8, 15])
def test_the_bad_value_is_found_in_anybodys_slice(setup, image, monkeypatch):
    """One image of the second batch gives an overflow; workers that never saw it name the same layer."""
    monkeypatch.setattr("cnnbp_cli.train.trainer.order", lambda seed, epoch, count, shuffle: np.arange(count))
    layers = "[{type: conv2d, name: one, filters: 2, kernel_size: 3}, {type: conv2d, name: two, filters: 2, "
    layers += "kernel_size: 3}, relu, flatten, {type: dense, units: 4}]"

    def last_event(workers):
        model, data = setup(
            f"train.workers={workers}", "data.augment=null", "data.normalize=none", f"model.layers={layers}"
        )
        model.set_parameters({"one.weight": np.full((2, 1, 3, 3), 1e200), "two.weight": np.full((2, 2, 3, 3), 1e108)})
        images = np.zeros_like(data.train.images)
        images[16 + image] = 255
        data = replace(data, train=replace(data.train, images=images))
        return list(fit(model, data))[-1]

    for workers in (1, 4):
        event = last_event(workers)
        assert isinstance(event, NonFinite)
        assert (event.step, event.layer, event.where) == (2, "two", "output")


def test_a_spoilt_update_is_found_in_anybodys_share(setup):
    settings = ("train.optimizer={type: sgd, learning_rate: 1e308}", "dtype=float64")
    events = [trained(setup, n, *settings)[1][-1] for n in (1, 3)]
    assert all(isinstance(event, NonFinite) for event in events)
    assert len({(event.step, event.layer, event.where) for event in events}) == 1


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (2, 4)])
def test_a_run_goes_on_with_other_workers(setup, tmp_path, before, after):
    stops = iter([False] * 5 + [True])
    whole = trained(setup, 1, run=tmp_path / "whole")
    _, first = trained(setup, before, run=tmp_path / "run", stop=lambda: next(stops))
    assert isinstance(first[-1], Interrupted)
    assert first[-1].step == 5
    model, events = trained(setup, after, run=tmp_path / "run", resume=True)
    assert events[0].step == 5
    assert distance(whole[0].vector, model.vector) < 1e-12
    assert events[-1].test_loss == pytest.approx(whole[1][-1].test_loss, rel=1e-10)


def test_checkpoints_hold_the_whole_optimizer(setup, tmp_path):
    names = []
    for workers in (1, 3):
        _, events = trained(setup, workers, run=tmp_path / str(workers))
        found = RunDirectory(tmp_path / str(workers)).last_good()
        names.append([Path(event.path).name for event in events if isinstance(event, CheckpointSaved)])
        assert found is not None
        if workers == 1:
            alone = found[1]
    assert names[0] == names[1]
    assert distance(alone.optimizer["momentum"], found[1].optimizer["momentum"]) < 1e-12
    assert alone.progress["step"] == found[1].progress["step"] == 8


@pytest.mark.parametrize("workers", [2, 3])
def test_either_way_of_starting_gives_the_same(setup, start_method, workers):
    assert_same_run(trained(setup, 1), trained(setup, workers), 1e-12)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this platform only spawns")
def test_a_process_with_threads_is_not_forked(setup, monkeypatch):
    used = []
    original = multiprocessing.get_context

    def spy(method=None):
        used.append(method)
        return original(method)

    monkeypatch.setattr("cnnbp_cli.parallel.processes.multiprocessing.get_context", spy)
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        model, _ = trained(setup, 2)
    finally:
        done.set()
        thread.join()
    assert used == ["spawn"]
    assert distance(trained(setup, 1)[0].vector, model.vector) < 1e-12
    assert math.isfinite(model.vector.sum())


def test_training_again_goes_on_from_what_was_learnt(setup):
    vectors = []
    for workers in (1, 2):
        model, data = setup(f"train.workers={workers}")
        for _ in range(2):
            list(fit(model, data))
        vectors.append(model.vector.copy())
    assert distance(*vectors) < 1e-12


def test_two_runs_at_a_time(setup):
    """Each has workers of its own, also when their events are taken in turns."""
    (one, data), (two, _) = setup("seed=1"), setup("seed=2")
    for _ in zip(fit(one, data), fit(two, data), strict=True):
        pass
    for seed, model in ((1, one), (2, two)):
        alone, _ = setup("train.workers=1", f"seed={seed}")
        list(fit(alone, data))
        assert distance(alone.vector, model.vector) < 1e-12


LENET = (
    "model.input=[1, 28, 28]",
    "data.image=[1, 28, 28]",
    "model.layers=[{type: conv2d, filters: 6, kernel_size: 5, padding: same}, relu, {type: max_pool2d, pool_size: 2}, "
    "{type: conv2d, filters: 16, kernel_size: 5}, flatten, {type: dense, units: 4}]",
)


@pytest.mark.parametrize(
    ("cores", "batch", "steps", "method", "expected"),
    [
        (4, 64, 1000, "fork", 4),
        (1, 64, 1000, "fork", 1),
        (16, 64, 1000, "fork", 8),  # eight images each
        (64, 1000, 1000, "fork", 64),
        (4, 7, 1000, "fork", 1),
        (4, 64, 20, "fork", 1),  # a tenth of a second
        (4, 64, 200, "fork", 4),
        (4, 64, 200, "spawn", 1),  # one second
        (4, 64, 2000, "spawn", 4),
    ],
)
def test_as_many_workers_as_pay(setup, monkeypatch, cores, batch, steps, method, expected):
    monkeypatch.setattr("cnnbp_cli.train.fit.available_cores", lambda: cores)
    monkeypatch.setattr("cnnbp_cli.train.fit.start_method", lambda: multiprocessing.get_context(method))
    model, _ = setup(
        *LENET, "train.workers=auto", f"train.batch_size={batch}", f"train.max_steps={steps}", "train.epochs=9999"
    )
    assert planned_workers(model, 60_000) == expected


def test_a_network_of_a_few_parameters_is_left_to_one_worker(setup, monkeypatch):
    monkeypatch.setattr("cnnbp_cli.train.fit.available_cores", lambda: 4)
    model, _ = setup("train.workers=auto", "train.epochs=9999", "train.batch_size=32")
    assert planned_workers(model, 60_000) == 1


def test_more_workers_than_a_batch_has_samples(setup):
    model, data = setup("train.workers=9", "train.batch_size=3")
    assert planned_workers(model, len(data.train)) == 3


def test_the_last_checkpoint_has_the_last_parameters_not_the_best(setup, tmp_path, monkeypatch):
    def slowly(config):  # called by the worker that saves, right before it reads the parameters
        time.sleep(0.2)
        return to_yaml(config)

    monkeypatch.setattr(saver, "to_yaml", slowly)
    for _ in fit(*setup("train.epochs=8", "train.optimizer.learning_rate=10.0"), run=tmp_path / "run"):
        pass
    checkpoint = Checkpoint.read(RunDirectory(tmp_path / "run").checkpoints()[0])
    assert checkpoint.progress["best_step"] < checkpoint.progress["step"]
    for name, value in checkpoint.parameters.items():
        assert not np.array_equal(value, checkpoint.best[name])
