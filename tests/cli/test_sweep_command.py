"""`cnnbp sweep`: ranked runs, failures that are rows, resuming, Ctrl-C, bad input before anything runs."""

from __future__ import annotations

import csv
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from cli.bars import BARS, Command
from parallel.processes import children_of, is_running, start, wait_until

from cnnbp_cli.loading import load

RATES = ("sweep", "bars.yaml", "--set", "train.optimizer.learning_rate=0.001,0.02,1e30")
on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at /proc")


def test_table_ranks_runs_and_tells_why_one_failed(cnnbp: Command) -> None:
    done = cnnbp(*RATES, "--jobs", "2")
    assert done.code == 0
    assert done.lines[1].split()[:4] == ["rank", "run", "rate", "accuracy"]
    rows = [line.split() for line in done.lines[3:6]]
    assert [row[:3] for row in rows] == [["1", "02", "0.02"], ["2", "01", "0.001"], ["-", "03", "1e+30"]]
    assert done.lines[7].startswith("03 failed: the output of ")
    assert " became infinite or NaN at step 2" in done.lines[7]
    assert done.lines[8].startswith("best validation accuracy: ")
    assert done.lines[9] == f"run: {Path('sweeps/bars-1/02')}"
    first, *others = done.stderr.splitlines()
    assert first == f"3 runs, 2 at a time, in {Path('sweeps/bars-1')}; ranked by validation accuracy"
    assert len(others) == 3


def test_each_run_is_what_train_would_have_made(cnnbp: Command) -> None:
    assert cnnbp(*RATES, "--out", "s", "--quiet").stderr == ""
    assert cnnbp("train", "bars.yaml", "--set", "train.optimizer.learning_rate=0.02", "--out", "t").code == 0
    assert (Path("s/02/config.yaml")).read_text() == (Path("t/config.yaml")).read_text()
    for name, value in load("t").parameters().items():
        np.testing.assert_array_equal(load("s/02").parameters()[name], value)
    assert cnnbp("compare", "s/01", "s/02").code == 0


def test_json_and_csv(cnnbp: Command) -> None:
    done = cnnbp(*RATES, "--out", "s", "--format", "json", "--by", "test_loss", "--quiet")
    found = json.loads(done.stdout)
    assert [found[key] for key in ("sweep", "by", "count", "best")] == ["s", "test_loss", 3, "02"]
    assert [run["rank"] for run in found["runs"]] == [1, 2, None]
    assert [run["status"] for run in found["runs"]] == ["finished", "finished", "failed"]
    assert found["runs"][0]["test_loss"] < found["runs"][1]["test_loss"]
    assert found["runs"][0]["set"] == {"train.optimizer.learning_rate": 0.02}
    done = cnnbp(*RATES, "--out", "s", "--format", "csv", "--by", "test_loss", "--quiet", "--resume")
    rows = list(csv.DictReader(done.lines))
    assert [row["run"] for row in rows] == ["02", "01", "03"]
    assert float(rows[0]["test_loss"]) == found["runs"][0]["test_loss"]


def test_resume_repeats_nothing(cnnbp: Command) -> None:
    before = cnnbp(*RATES, "--out", "s", "--format", "csv")
    after = cnnbp(*RATES, "--out", "s", "--format", "csv", "--resume")
    assert after.stdout == before.stdout
    assert after.stderr.startswith("3 runs, 3 of them done already")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*RATES, "--out", "s"], "already contains a sweep; continue it with --resume"),
        ([*RATES, "--seeds", "0,1", "--out", "s", "--resume"], "s: contains another sweep: its set was "),
        ([*RATES, "--set", "train.epochs=3", "--out", "s", "--resume"], "s: contains another sweep: its set was "),
    ],
)
def test_another_sweep_is_refused(cnnbp: Command, arguments: list[str], message: str) -> None:
    assert cnnbp(*RATES, "--out", "s").code == 0
    done = cnnbp(*arguments)
    assert (done.code, done.stdout) == (2, "")
    assert message in done.stderr


def test_an_edited_config_is_refused(cnnbp: Command) -> None:
    assert cnnbp(*RATES, "--out", "s").code == 0
    Path("bars.yaml").write_text(BARS.replace("filters: 2", "filters: 3"), encoding="utf-8")
    done = cnnbp(*RATES, "--out", "s", "--resume")
    assert done.code == 2
    assert "was made by another config" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--set", "train.batch_size=32,x"],
            "--set train.batch_size=32,x:21: batch_size: expected an integer, got 'x'",
        ),
        (["--set", "model.layers.edges.kernel_size=3,9"], "; with model.layers.edges.kernel_size=9\n"),
        (["--set", "train.batch_size=32"], "nothing to sweep"),
        (["--seeds", "0,1", "--search", "optuna"], "optuna needs --samples N"),
        (["--seeds", "0,1", "--resume"], "names no sweep: add --out DIR"),
        (["--seeds", "0,1", "--by", "validation_loss", "--set", "data.validation=0"], "no images are held out"),
        (["--seeds", "0,1", "--by", "test_loss", "--set", "data.test=0"], "the data have no test split"),
    ],
)
def test_bad_input_before_anything_runs(cnnbp: Command, arguments: list[str], message: str) -> None:
    done = cnnbp("sweep", "bars.yaml", *arguments, "--format", "csv")
    assert (done.code, done.stdout) == (2, "")
    assert message in done.stderr
    assert not Path("sweeps").exists()


def test_without_validation_the_test_does_not_rank(cnnbp: Command) -> None:
    done = cnnbp("sweep", "bars.yaml", "--seeds", "0,1", "--set", "data.validation=0", "--format", "json")
    assert json.loads(done.stdout)["by"] == "train_loss"
    assert "ranked by train loss (no images are held out" in done.stderr


def test_nothing_finished_is_a_verdict(cnnbp: Command) -> None:
    done = cnnbp("sweep", "bars.yaml", "--set", "train.optimizer.learning_rate=1e30,2e30")
    assert done.code == 1
    assert done.lines[-2] == "no run finished"


def _started(folder: Path, **options: object):  # type: ignore[no-untyped-def]
    (folder / "bars.yaml").write_text(BARS.replace("epochs: 2", "epochs: 100000"), encoding="utf-8")
    arguments = ["-m", "cnnbp_cli", "sweep", "bars.yaml", "--seeds", "0,1,2", "--jobs", "2", "--out", "s"]
    process = start(*arguments, cwd=folder, **options)
    assert wait_until(lambda: all((folder / f"s/0{k}/checkpoints/best.npz").exists() for k in (1, 2)), 60)
    return process


@on_linux
def test_interrupt_saves_checkpoints_and_leaves_no_orphan(tmp_path: Path) -> None:
    process = _started(tmp_path)
    children = children_of(process.pid)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert stderr.splitlines()[-1] == "interrupted: 0 of 3 runs are over; resume with --out s --resume"
    assert stdout.count("interrupted") == 2
    assert not any(map(is_running, children))
    for run in ("01", "02"):
        last = json.loads((tmp_path / "s" / run / "events.jsonl").read_text().splitlines()[-1])
        assert last["event"] == "interrupted"


@on_linux
def test_a_killed_parent_leaves_no_orphan(tmp_path: Path) -> None:
    process = _started(tmp_path)
    children = children_of(process.pid)
    assert len(children) == 2
    process.kill()
    process.communicate()
    assert wait_until(lambda: not any(map(is_running, children)), 10)


@on_linux
def test_a_killed_run_is_a_row_and_is_tried_again(tmp_path: Path, cnnbp: Command) -> None:
    process = _started(tmp_path)
    os.kill(children_of(process.pid)[0], signal.SIGKILL)
    assert wait_until(lambda: (tmp_path / "s/03/checkpoints/best.npz").exists(), 60)
    os.killpg(process.pid, signal.SIGINT)
    stdout, _ = process.communicate(timeout=60)
    assert "01 failed: its process was killed by SIGKILL, perhaps for lack of memory" in stdout
