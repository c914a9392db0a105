"""`cnnbp runs`: the state of every kind of run, its figures, what differs; sorted, filtered, and never a crash."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli.bars import BARS, Command

from cnnbp_cli.analysis.runs import ORDERS, STATES
from cnnbp_cli.cli.runs import By
from cnnbp_cli.files import holder, locked

Make = Callable[..., Path]


@pytest.fixture
def make(cnnbp: Command, bars_run: Path) -> Make:
    """Return a function that makes a run `runs/NAME`, its events edited."""

    def run(name: str, edit: Callable[[list[dict[str, Any]]], object] = lambda events: None, age: float = 0) -> Path:
        path = Path("runs") / name
        shutil.copytree(bars_run, path)
        events = [json.loads(line) for line in (path / "events.jsonl").read_text(encoding="utf-8").splitlines()]
        edit(events)
        (path / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")
        os.utime(path / "events.jsonl", (time.time() - age,) * 2)
        return path

    return run


def rows(cnnbp: Command, *arguments: str) -> dict[str, dict[str, Any]]:
    done = cnnbp("runs", *arguments, "--format", "json")
    assert (done.code, done.stderr) == (0, "")
    return {Path(row["run"]).name: row for row in json.loads(done.stdout)["runs"]}


def end_with(**event: Any) -> Callable[[list[dict[str, Any]]], None]:
    def edit(events: list[dict[str, Any]]) -> None:
        events[-1] = event

    return edit


def test_every_state(cnnbp: Command, make: Make) -> None:
    stopped = {
        "event": "stopped_early",
        "epoch": 2,
        "step": 8,
        "monitor": "validation_loss",
        "best": 0.1,
        "patience": 1,
    }
    nan = {"event": "non_finite", "step": 8, "layer": "loss", "where": "loss", "loss": None, "checkpoint": None}
    make("finished")
    make("stopped-early", lambda events: events.insert(-1, stopped))
    make("diverged", lambda events: events[-1].update(diverged=True))
    make("non-finite", end_with(**nan))
    make("interrupted", end_with(event="interrupted", step=8, checkpoint=None))
    make("killed", lambda events: events.pop())
    (make("damaged") / "events.jsonl").write_text("nonsense\n{}\n", encoding="utf-8")
    make("running", lambda events: events.pop())
    program = "import sys, time; from pathlib import Path; from cnnbp_cli.files import locked\n"
    program += "with locked(Path('runs/running/.lock')): print(flush=True); sys.stdin.read()"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    other = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    )
    with other:
        assert other.stdout
        other.stdout.readline()
        assert {name: row["state"] for name, row in rows(cnnbp).items()} == {state: state for state in STATES}
        other.kill()  # the lock file stays
    assert Path("runs/running/.lock").exists()
    assert rows(cnnbp)["running"]["state"] == "killed"
    table = cnnbp("runs")
    assert table.code == 0
    assert "is not an event of a run" in " ".join(table.stdout.split())


def test_a_lock_of_this_process_is_kept(tmp_path: Path) -> None:
    with locked(tmp_path / ".lock"):
        assert holder(tmp_path / ".lock") == str(os.getpid())
    assert holder(tmp_path / ".lock") is None


def test_a_real_run(cnnbp: Command, bars_run: Path) -> None:
    events = [json.loads(line) for line in (bars_run / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    epochs = [event for event in events if event["event"] == "epoch"]
    best = min(epochs, key=lambda epoch: epoch["validation_loss"])
    (row,) = rows(cnnbp, str(bars_run)).values()
    assert (row["state"], row["name"], row["epoch"], row["epochs"]) == ("finished", "bars", 2, 2)
    assert (row["step"], row["total_steps"]) == (8, 8)
    assert row["best_epoch"] == best["epoch"]
    for name in ("validation_loss", "validation_accuracy", "train_loss"):
        assert row[name] == best[name]
    assert row["test_loss"] == events[-1]["test_loss"]


def test_a_killed_run_counts_its_steps(cnnbp: Command, make: Make) -> None:
    def kill(events: list[dict[str, Any]]) -> None:
        del events[next(k for k, event in enumerate(events) if event.get("step") == 7) + 1 :]

    make("killed", kill)
    row = rows(cnnbp)["killed"]
    assert (row["state"], row["epoch"], row["step"], row["total_steps"]) == ("killed", 1, 7, 8)


def test_what_differs(cnnbp: Command) -> None:
    for number, options in enumerate((["--lr", "0.5"], ["--set", "train.optimizer=sgd"], [])):
        cnnbp("train", "toy", "--epochs", "1", "--quiet", "--out", f"runs/toy{number}", *options)
        cnnbp("train", "bars.yaml", "--quiet", "--epochs", "1", "--out", f"runs/bars{number}", *options)
    found = rows(cnnbp)
    assert found["toy0"]["differs_from"] == "template"
    assert found["toy0"]["differences"] == {"train.epochs": 1, "train.optimizer.learning_rate": 0.5}
    assert found["toy2"]["differences"] == {"train.epochs": 1}
    assert found["toy1"]["differences"]["train.optimizer.type"] == "sgd"
    assert found["bars0"]["differs_from"] == "runs"
    assert found["bars0"]["differences"]["train.optimizer.learning_rate"] == 0.5
    assert found["bars2"]["differences"]["train.optimizer.learning_rate"] == 0.02
    assert "train.epochs" not in found["bars2"]["differences"]
    assert "epochs=1, learning_rate=0.5" in cnnbp("runs", columns=140).stdout


def test_a_run_without_a_config_or_with_nothing(cnnbp: Command, make: Make) -> None:
    (make("lost") / "config.yaml").unlink()
    (make("broken") / "config.yaml").write_text("data: [", encoding="utf-8")
    (make("empty") / "events.jsonl").write_text("", encoding="utf-8")
    found = rows(cnnbp)
    assert found["lost"]["state"] == "finished"
    assert "config.yaml: no such file" in found["lost"]["problem"]
    assert found["broken"]["problem"]
    assert (found["empty"]["state"], found["empty"]["step"], found["empty"]["best_epoch"]) == ("killed", 0, None)
    assert cnnbp("runs").code == cnnbp("runs", "--format", "csv").code == 0


@pytest.fixture
def several(make: Make) -> None:
    for name, accuracy, loss, age in (("b-2", 0.9, 0.3, 7200), ("b-10", 0.99, 0.2, 60), ("a-1", 0.5, 0.9, 200_000)):

        def edit(events: list[dict[str, Any]], accuracy: float = accuracy, loss: float = loss) -> None:
            for event in events:
                if event["event"] == "epoch":
                    event.update(validation_accuracy=accuracy, validation_loss=loss)

        make(name, edit, age)


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("age", ["b-10", "b-2", "a-1"]),
        ("run", ["a-1", "b-2", "b-10"]),
        ("accuracy", ["b-10", "b-2", "a-1"]),
        ("validation_loss", ["b-10", "b-2", "a-1"]),
        ("loss", ["b-10", "b-2", "a-1"]),
    ],
)
@pytest.mark.usefixtures("several")
def test_sort(cnnbp: Command, by: str, expected: list[str]) -> None:
    assert [*rows(cnnbp, "--sort", by)] == expected


def test_what_can_be_sorted_by_is_the_same_in_both_places() -> None:
    assert [*By] == [*ORDERS]


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        (["accuracy>0.6"], {"b-2", "b-10"}),
        (["accuracy >= 90%"], {"b-2", "b-10"}),
        (["loss<=0.2"], {"b-10"}),
        (["age<1h"], {"b-10"}),
        (["age>1d"], {"a-1"}),
        (["run=*/b-*", "age<1d", "accuracy!=0.9"], {"b-10"}),
        (["state=finished"], {"a-1", "b-2", "b-10"}),
        (["state!=finished"], set()),
        (["train.batch_size=12", "train.optimizer.type=ada*"], {"a-1", "b-2", "b-10"}),
        (["train.batch_size>12"], set()),
    ],
)
@pytest.mark.usefixtures("several")
def test_filter(cnnbp: Command, conditions: list[str], expected: set[str]) -> None:
    options = [word for condition in conditions for word in ("--filter", condition)]
    assert set(rows(cnnbp, *options)) == expected


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("nonsense", "expected KEY=VALUE, or another of != < > <= >= in between"),
        ("acuracy>1", "unknown key 'acuracy', did you mean 'accuracy'?"),
        ("train.batchsize=1", "unknown key 'train.batchsize', did you mean 'train.batch_size'?"),
        ("state=done", "unknown state 'done', expected one of: " + ", ".join(STATES)),
        ("accuracy>high", "expected a number, got 'high'"),
        ("age<1x", "expected an age, such as 12h or 7d, got '1x'"),
    ],
)
@pytest.mark.usefixtures("several")
def test_bad_filters(cnnbp: Command, condition: str, message: str) -> None:
    done = cnnbp("runs", "--filter", condition)
    assert (done.code, done.stdout, done.stderr) == (2, "", f"error: --filter {condition}: {message}\n")


def test_no_runs_and_no_folder(cnnbp: Command, make: Make) -> None:
    done = cnnbp("runs")
    assert (done.code, done.stdout, done.stderr) == (0, "", "there is no run in runs yet\n")
    assert json.loads(cnnbp("runs", "--format", "json").stdout) == {"folder": "runs", "runs": []}
    make("one")
    done = cnnbp("runs", "elsewhere")
    assert (done.code, done.stderr) == (2, "error: elsewhere: no such folder\n")
    Path("lenet5.yaml").write_text("name: lenet5")
    done = cnnbp("runs", "lenet5.yaml")
    assert (done.code, done.stderr) == (2, "error: lenet5.yaml: is a file; name a folder of runs\n")
    assert cnnbp("runs", "--filter", "state=killed").stderr == "none of 1 run in runs meets the filters\n"


def test_sweeps_are_looked_into(cnnbp: Command) -> None:
    Path("bars.yaml").write_text(BARS, encoding="utf-8")
    cnnbp("sweep", "bars.yaml", "--lr", "0.01,0.1", "--epochs", "1", "--jobs", "1", "--quiet")
    found = rows(cnnbp, "sweeps")
    assert {name: row["differences"] for name, row in found.items()} == {
        "01": {"train.optimizer.learning_rate": 0.01},
        "02": {"train.optimizer.learning_rate": 0.1},
    }
    header, *records = csv.reader(cnnbp("runs", "sweeps", "--format", "csv").lines)
    assert json.loads(dict(zip(header, records[0], strict=True))["differences"])
