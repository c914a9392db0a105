"""A sweep on a Dask cluster: a scheduler and two workers, as processes of this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest
from cli.bars import BARS

from cnnbp_cli.config.load import ConfigText
from cnnbp_cli.loading import load
from cnnbp_cli.sweep.dask import dask_team
from cnnbp_cli.sweep.engine import PointDone, PointProgress, sweep
from cnnbp_cli.sweep.plan import SweepError, make_plan
from cnnbp_cli.sweep.points import read_space
from cnnbp_cli.train.event_log import read_events
from cnnbp_cli.train.events import EpochDone

pytest.importorskip("distributed")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # the workers' own

SECONDS = 60


@contextmanager
def process(*command, folder):
    """Run a program of Dask's until the end of the block."""
    with (
        (folder / "dask.log").open("ab") as log,
        subprocess.Popen([sys.executable, "-m", *command], stdout=log, stderr=log, cwd=folder) as running,
    ):
        try:
            yield running
        finally:
            running.kill()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with cluster(tmp_path_factory.mktemp("cluster")) as (address, _):
        yield address


@contextmanager
def cluster(tmp_path):
    """Start a scheduler and two workers; return its address and them."""
    with ExitStack() as stack:
        found = tmp_path / "scheduler.json"
        scheduler = ("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        stack.enter_context(process(*scheduler, "--scheduler-file", str(found), folder=tmp_path))
        end = time.monotonic() + SECONDS
        while not found.exists() and time.monotonic() < end:
            time.sleep(0.1)
        address = json.loads(found.read_text())["address"]
        worker = ("distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard")
        yield address, [stack.enter_context(process(*worker, folder=tmp_path)) for _ in range(2)]


def make_bars(folder, epochs=40, filters="1,2,3"):
    text = ConfigText(BARS.replace("epochs: 2", f"epochs: {epochs}"), "bars", folder, "bars")
    return make_plan(text, read_space([f"model.layers.edges.filters={filters}"], sampling=False))


def test_a_cluster_gives_what_one_machine_gives(shared, tmp_path):
    plan = make_bars(tmp_path)
    *_, here = sweep(plan, tmp_path / "here", jobs=1)
    with dask_team(shared, tmp_path / "there") as (team, threads):
        *events, there = sweep(plan, tmp_path / "there", jobs=threads, team=team)
    assert threads == 2
    assert [one.to_dict() | {"seconds": 0} for one in there.outcomes] == [
        one.to_dict() | {"seconds": 0} for one in here.outcomes
    ]
    epochs = [
        event.event for event in events if isinstance(event, PointProgress) and isinstance(event.event, EpochDone)
    ]
    assert len(epochs) == 3 * 40
    for run in ("01", "02", "03"):
        one, other = (load(tmp_path / name / run).parameters() for name in ("here", "there"))
        for name, value in one.items():
            np.testing.assert_array_equal(other[name], value)


def test_a_run_whose_worker_is_killed_goes_on_elsewhere_from_its_checkpoint(tmp_path):
    plan, killed = make_bars(tmp_path, epochs=600, filters="1,2"), []
    *_, straight = sweep(make_bars(tmp_path, epochs=600, filters="1,2"), tmp_path / "straight", jobs=2)
    with cluster(tmp_path) as (address, workers), dask_team(address, tmp_path / "broken") as (team, threads):
        for event in sweep(plan, tmp_path / "broken", jobs=threads, team=team):
            if (
                isinstance(event, PointProgress)
                and isinstance(event.event, EpochDone)
                and event.event.epoch > 50
                and not killed
            ):
                killed.append(event.run)
                os.kill(workers[0].pid, signal.SIGKILL)
    assert [one.status for one in event.outcomes] == ["finished"] * 2
    assert [one.figures for one in event.outcomes] == [one.figures for one in straight.outcomes]
    starts = [
        [record["step"] for record in read_events(tmp_path / "broken" / run) if record["event"] == "started"]
        for run in ("01", "02")
    ]
    again = [steps for steps in starts if len(steps) == 2]
    assert len(again) == 1
    assert again[0][1] > 0


def test_stopping_saves_checkpoints_and_a_later_sweep_goes_on(shared, tmp_path):
    plan = make_bars(tmp_path, epochs=600, filters="1,2,3")
    seen = []
    with dask_team(shared, tmp_path / "sweep") as (team, threads):
        for event in sweep(plan, tmp_path / "sweep", jobs=threads, team=team, stop=lambda: len(seen) > 2):
            if isinstance(event, PointProgress):
                seen.append(event)
    assert event.interrupted
    assert [one.status for one in event.outcomes] == ["interrupted"] * 2
    with dask_team(shared, tmp_path / "sweep") as (team, threads):
        *_, event = sweep(plan, tmp_path / "sweep", jobs=threads, team=team, resume=True)
    assert [one.status for one in event.outcomes] == ["finished"] * 3


def test_a_run_that_fails_says_why_and_the_others_go_on(shared, tmp_path):
    plan = make_bars(tmp_path, filters="1,2")
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "01").write_text("in the way")
    with dask_team(shared, tmp_path / "sweep") as (team, threads):
        *events, _ = sweep(plan, tmp_path / "sweep", jobs=threads, team=team)
    outcomes = {event.outcome.run: event.outcome for event in events if isinstance(event, PointDone)}
    assert outcomes["02"].status == "finished"
    assert outcomes["01"].status == "failed"
    assert "01" in outcomes["01"].reason


def test_a_worker_that_does_not_see_the_folder(shared, tmp_path, monkeypatch):
    from cnnbp_cli.sweep import dask
    from cnnbp_cli.sweep.remote import SharedFolder

    elsewhere = SharedFolder(tmp_path / "on another machine", "word")
    monkeypatch.setattr(dask.SharedFolder, "make", lambda path: elsewhere)
    with (
        pytest.raises(SweepError, match=r"the worker tcp://127.0.0.1:\d+ does not see .*choose one with --out"),
        dask_team(shared, tmp_path / "sweep"),
    ):
        pass


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense://"])
def test_no_scheduler(tmp_path, address):
    """In a process of its own: a client that has found nothing leaves a thread, and no test after it could fork."""
    program = f"""
from pathlib import Path
from cnnbp_cli.sweep import dask
dask.CONNECT_SECONDS = 0.5
with dask.dask_team({address!r}, Path("sweep")):
    pass
"""
    run = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert f"SweepError: no Dask scheduler answers at {address} (" in run.stderr
    assert list(tmp_path.iterdir()) == []
