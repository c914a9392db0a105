"""The law of workers holds for processes that an MPI launcher starts, and they end together."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from parallel.config import CONFIG, SEVERAL_LOSSES
from parallel.launching import is_open_mpi, launch, needs_mpi
from parallel.processes import distance, wait_until

from cnnbp_cli.parallel.mpi import INTACT
from cnnbp_cli.train.events import to_dict
from cnnbp_cli.train.fit import fit
from cnnbp_cli.train.run_directory import RunDirectory

pytestmark = needs_mpi

TRAP = Path(__file__).with_name("trap.py")

DOUBLE, SINGLE = ("dtype=float64",), ("dtype=float32", "train.epochs=1", "data.train=200")


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "team.yaml"
    path.write_text(CONFIG.replace("workers: 2", "workers: auto"))
    return path


def start(config, size, run, *settings, options=(), **popen):
    sets = [part for setting in settings for part in ("--set", setting)]
    arguments = ["-m", "cnnbp_cli", "train", str(config), *sets, "--out", str(run), *options]
    return launch(size, *arguments, **popen)


def trained(config, size, run, *settings, options=()):
    """Train in so many processes, and return the last checkpoint and the events."""
    with start(config, size, run, *settings, options=("--format", "json", "-q", *options)) as process:
        out, err = process.communicate(timeout=50)
    assert (process.returncode, err) == (0, "")
    return last(run), [json.loads(line) for line in out.splitlines()]


def last(run):
    found = RunDirectory(run).last_good()
    assert found is not None
    return found[1]


def values(checkpoint):
    return np.concatenate([value.ravel() for value in checkpoint.parameters.values()])


def alone(setup, run, *settings):
    model, data = setup("train.workers=1", *settings)
    list(fit(model, data, run=run))
    return last(run)


@pytest.mark.parametrize(
    ("size", "settings", "tolerance"),
    [
        pytest.param(2, DOUBLE, 1e-12, id="2, float64"),
        pytest.param(3, DOUBLE, 1e-12, id="3, float64"),
        pytest.param(4, DOUBLE, 1e-12, id="4, float64", marks=pytest.mark.slow),
        pytest.param(2, SINGLE, 1e-5, id="2, float32", marks=pytest.mark.slow),
        pytest.param(3, SINGLE, 1e-5, id="3, float32", marks=pytest.mark.slow),
        pytest.param(4, SINGLE, 1e-5, id="4, float32", marks=pytest.mark.slow),
    ],
)
def test_any_number_of_processes_trains_the_same_parameters(setup, config, tmp_path, size, settings, tolerance):
    """Batch norm, dropout, augmentation, clipping, momentum, and a last batch that does not divide evenly."""
    expected = alone(setup, tmp_path / "alone", *settings)
    found, events = trained(config, size, tmp_path / "run", *settings)
    assert distance(values(expected), values(found)) < tolerance
    assert distance(expected.optimizer["momentum"], found.optimizer["momentum"]) < 10 * tolerance
    assert expected.progress["step"] == found.progress["step"]
    assert (events[0]["event"], events[0]["workers"]) == ("started", size)
    assert [event["event"] for event in events].count("step") == found.progress["step"]


@pytest.mark.slow
def test_the_same_number_gives_the_same_bits(config, tmp_path):
    settings = ("dtype=float32", "train.optimizer=adam")
    (one, _), (other, _) = (trained(config, 3, tmp_path / name, *settings) for name in ("one", "other"))
    np.testing.assert_array_equal(values(one), values(other))


@pytest.mark.slow
def test_statistics_and_early_stopping_are_those_of_one_process(setup, config, tmp_path):
    stopping = ("train.early_stopping={monitor: validation_accuracy, patience: 2}", "train.epochs=30")
    model, data = setup("train.workers=1", *stopping)
    ours = [to_dict(event) for event in fit(model, data, watch_every=1)]
    _, theirs = trained(config, 3, tmp_path / "run", *stopping, options=("--grad-norms",))
    theirs = [event for event in theirs if event["event"] != "checkpoint"]
    assert [event["event"] for event in ours] == [event["event"] for event in theirs]
    assert {"stopped_early", "watched"} < {event["event"] for event in ours}
    for one, other in zip(ours, theirs, strict=True):
        if one["event"] == "watched":
            for name, figures in one["layers"].items():
                assert other["layers"][name] == pytest.approx(figures, rel=1e-7, abs=1e-11), name


@pytest.mark.slow
def test_batches_and_splits_smaller_than_the_team(setup, config, tmp_path):
    settings = (f"data.train={8 + 16 + 1}", "data.validation=1", "data.test=2")
    expected = alone(setup, tmp_path / "alone", *settings)
    found, _ = trained(config, 4, tmp_path / "run", *settings)
    assert distance(values(expected), values(found)) < 1e-12


@pytest.mark.slow
def test_several_losses(setup, config, tmp_path):
    expected = alone(setup, tmp_path / "alone", *SEVERAL_LOSSES)
    found, events = trained(config, 3, tmp_path / "run", *SEVERAL_LOSSES)
    assert distance(values(expected), values(found)) < 1e-12
    assert [list(event["train_losses"]) for event in events if event["event"] == "epoch"] == [
        ["end", "side", "deep"]
    ] * 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "layers",
    [
        "[flatten, {type: dense, units: 9000}, relu, {type: dense, units: 4}]",
        "[{type: conv2d, filters: 1, kernel_size: 1, bias: false}, global_avg_pool2d, identity]",
        "[flatten, {type: dense, units: 700}, relu, {type: dense, name: d, units: 700}, relu, {share: d}, relu, "
        "{type: dense, units: 4}]",
    ],
    ids=["many buckets", "one parameter", "a shared layer of many buckets"],
)
def test_shares_of_any_size(setup, config, tmp_path, layers):
    """A share of the gradient that is sent in parts, and a worker that has none."""
    settings = (f"model.layers={layers}", "train.epochs=1", "train.optimizer=sgd", "data.classes=2", "data.train=40")
    settings = (*settings, "model.head=sigmoid", "train.loss=mse") if "identity" in layers else settings
    expected = alone(setup, tmp_path / "alone", *settings)
    found, _ = trained(config, 2, tmp_path / "run", *settings)
    assert distance(values(expected), values(found)) < 1e-12


@pytest.mark.slow
def test_a_config_from_standard_input_and_layers_of_a_file(setup, config, tmp_path):
    """Which only the first process reads; the others get what it made of them."""
    command = ("--layers", str(TRAP), "--set", "model.layers.2={type: trap, rank: 9, how: kill}")
    with start("-", 2, tmp_path / "run", options=("-q", *command), stdin=subprocess.PIPE, cwd=tmp_path) as process:
        _, err = process.communicate(config.read_text(), timeout=50)
    assert (process.returncode, err) == (0, "")


def test_another_number_of_workers_is_refused(config, tmp_path):
    with start(config, 2, tmp_path / "run", options=("--workers", "3")) as process:
        out, err = process.communicate(timeout=50)
    assert (process.returncode, out) == (2, "")
    assert err == (
        "error: train.workers is 3, but the launcher has started 2 processes: start 3, or set train.workers=auto\n"
    )


@pytest.mark.parametrize(("arguments", "said"), [(["nowhere.yaml"], "nowhere.yaml"), ([], "missing CONFIG|RUN")])
def test_bad_input_is_said_once(tmp_path, arguments, said):
    with launch(3, "-m", "cnnbp_cli", "train", *arguments, cwd=tmp_path) as process:
        out, err = process.communicate(timeout=50)
    assert (process.returncode, out, err.count(said)) == (2, "", 1)


@pytest.mark.slow
def test_a_value_that_is_not_finite_ends_the_run(config, tmp_path):
    settings = ("train.optimizer={type: sgd, learning_rate: 1e308}",)
    with start(config, 2, tmp_path / "run", *settings, options=("-q", "--format", "json")) as process:
        out, _ = process.communicate(timeout=50)
    assert process.returncode == 1
    assert json.loads(out.splitlines()[-1])["event"] == "non_finite"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_saves_a_checkpoint(setup, config, tmp_path, number):
    """And any other number of processes goes on from it."""
    settings = ("train.epochs=2000",)
    with start(config, 2, tmp_path / "run", *settings, options=("-q",)) as process:
        events = RunDirectory(tmp_path / "run").events
        assert wait_until(lambda: events.exists() and b'"event": "step"' in events.read_bytes(), seconds=40)
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    if is_open_mpi():  # whose launcher says that it was interrupted, and passes on nothing more
        assert process.returncode == 1
    else:
        assert (process.returncode, err.count("stopping after this step")) == (130, 1)
    step = last(tmp_path / "run").progress["step"]
    assert step > 0
    longer = (f"train.epochs={step // 4 + 2}",)
    expected = alone(setup, tmp_path / "alone", *longer)
    found, _ = trained(config, 3, tmp_path / "run", *longer, options=("--resume",))
    assert distance(values(expected), values(found)) < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rank", "how", "code", "said"),
    [
        (0, "kill", 9, "one of the 3 processes was killed, and so all were; "),
        (1, "kill", 9, "one of the 3 processes was killed, and so all were; "),
        (2, "raise", 2, "process 2 of 3 failed (its message is above); "),
        pytest.param(2, "stop", 2, "process 2 of 3 has not been heard of for 15 s (on ", marks=pytest.mark.slow),
    ],
)
def test_a_process_that_is_lost_ends_the_run(setup, config, tmp_path, rank, how, code, said):
    settings = (f"model.layers.2={{type: trap, rank: {rank}, how: {how}}}", "train.checkpoint_every=1")
    options, began = ("--layers", str(TRAP), "-q"), time.monotonic()
    with start(config, 3, tmp_path / "run", *settings, options=options) as process:
        _, err = process.communicate(timeout=50)
    assert time.monotonic() - began < 30
    assert process.returncode in (code, 9, 128 + 9)  # the launcher kills the others, and may return that
    assert said in err or (how == "kill" and f"process {rank} of 3 has died (on " in err)  # whoever notices it first
    assert INTACT in err  # Open MPI's launcher has something to add
    assert err.count("the trap has shut") == (how == "raise")
    assert last(tmp_path / "run").progress["step"] == 5
    went_on, _ = trained(
        config,
        2,
        tmp_path / "run",
        f"model.layers.2={{type: trap, rank: {rank}, how: {how}}}",
        options=("--layers", str(TRAP), "--resume"),
    )
    assert went_on.progress["step"] == 8


PROGRAM = """
import sys
import numpy as np
from cnnbp_cli.parallel.launcher import mpi_launch
from cnnbp_cli.parallel.mpi import MpiTeam

def program(workers, receive):
    if workers.rank == 2:
        raise ZeroDivisionError("a defect")
    workers.barrier()

if __name__ == "__main__":
    import program
    team = MpiTeam(mpi_launch())
    if team.rank == 0:
        with team.workers(4, np.dtype(float), program.program, ()) as workers:
            workers.barrier()
    else:
        team.serve()
"""


def test_a_traceback_of_any_process_reaches_the_log(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    with launch(3, "program.py", cwd=tmp_path) as process:
        _, err = process.communicate(timeout=50)
    assert process.returncode in (1, 9, 128 + 9)  # the launcher kills the others, and may return that
    assert "process 2 on " in err
    assert 'program.py", line ' in err
    assert "ZeroDivisionError: a defect" in err
    assert INTACT in err  # Open MPI's launcher has something to add
