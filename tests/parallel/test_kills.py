"""A real run is killed again and again, parent or worker, and ends with the very weights of one left in peace.

`make crash` sets `CRASH_KILLS`, the number of kills for each number of workers.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from functools import partial

import pytest
from parallel.config import CONFIG
from parallel.processes import children_of, is_running, start, wait_until

from cnnbp_cli.train.checkpoint import Checkpoint
from cnnbp_cli.train.run_directory import RunDirectory

KILLS = int(os.environ.get("CRASH_KILLS", "3"))
SETTINGS = ("train.epochs=40", "train.checkpoint_every=1")

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
    pytest.mark.slow,
]


def train(config, run, workers):
    settings = [part for setting in (*SETTINGS, f"train.workers={workers}") for part in ("--set", setting)]
    return start("-m", "cnnbp_cli", "train", str(config), *settings, "--quiet", "--out", str(run), "--resume")


def has_come(process, run, before, writing):
    return process.poll() is not None or advanced(run, before, writing)


def all_gone(family):
    return not any(map(is_running, family))


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_runs_end_like_others(tmp_path, workers):
    config, rng = tmp_path / "team.yaml", random.Random(workers)
    config.write_text(CONFIG)
    with train(config, tmp_path / "peace", workers) as process:
        assert process.wait(50) == 0
    expected = RunDirectory(tmp_path / "peace").checkpoints()[0]
    kills, number, broken = 0, 0, RunDirectory(tmp_path / "run-0")
    while kills < KILLS:
        before = len(read_steps(broken))
        with train(config, broken.path, workers) as process:
            writing = rng.random() < 0.5  # while a checkpoint is being written
            ended_or_advanced = partial(has_come, process, broken, before, writing)
            assert wait_until(ended_or_advanced, seconds=30)
            if process.poll() is None:
                time.sleep(rng.uniform(0, 0.002 if writing else 0.1))
                family = children_of(process.pid)
                victim = rng.choice([process.pid, *family])
                os.kill(victim, signal.SIGKILL)
                kills += 1
                process.communicate(timeout=20)
                assert wait_until(partial(all_gone, family), seconds=5)
                for path in (*broken.checkpoints(), *broken.path.glob("checkpoints/best.npz")):
                    Checkpoint.read(path)
            else:
                check_end(broken, expected)
                number += 1
                broken = RunDirectory(tmp_path / f"run-{number}")
    with train(config, broken.path, workers) as process:
        assert process.wait(50) == 0
    check_end(broken, expected)


def read_steps(run):
    if not run.events.exists():
        return []
    events = [json.loads(line) for line in run.events.read_text().splitlines() if line.endswith("}")]
    return [event["step"] for event in events if event["event"] == "step"]


def advanced(run, before, writing):
    if writing:
        return any(run.path.glob("checkpoints/.*.tmp"))
    return len(read_steps(run)) > before


def check_end(run, expected):
    ended, peace = Checkpoint.read(run.checkpoints()[0]), Checkpoint.read(expected)
    assert read_steps(run) == list(range(1, 161))
    for group in ("parameters", "optimizer", "best"):
        one, two = getattr(ended, group), getattr(peace, group)
        assert one.keys() == two.keys()
        assert [name for name, value in one.items() if value.tobytes() != two[name].tobytes()] == []
    assert not list(run.path.rglob("*.tmp"))
