"""A terminal that goes away, as with a lost connection, costs a run nothing: it saves a checkpoint and ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from cli.bars import BARS
from parallel.processes import children_of, is_running, wait_until

from cnnbp_cli.train.event_log import read_events
from cnnbp_cli.train.run_directory import RunDirectory

pty = pytest.importorskip("pty")

pytestmark = pytest.mark.slow


def train(folder: Path, *options: str, before: str = "", **streams: object) -> subprocess.Popen[bytes]:
    """Start a long training, after some code of its process."""
    (folder / "bars.yaml").write_text(BARS.replace("epochs: 2", "epochs: 100000"), encoding="utf-8")
    code = f"{before}\nfrom cnnbp_cli.cli.main import main\nmain()"
    arguments = [sys.executable, "-c", code, "train", "bars.yaml", "--out", "run", *options]
    return subprocess.Popen(arguments, cwd=folder, **streams)  # type: ignore[call-overload,no-any-return]


def has_begun(folder: Path) -> bool:
    return (folder / "run" / "checkpoints" / "best.npz").exists()


def assert_saved(run: Path) -> None:
    last = read_events(run)[-1]
    assert last["event"] == "interrupted"
    found = RunDirectory(run).last_good()
    assert found is not None
    assert found[1].progress["step"] == last["step"]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_lost_terminal(tmp_path: Path, workers: str) -> None:
    ours, theirs = pty.openpty()
    take_terminal = "import fcntl, os, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0)"
    process = train(tmp_path, "--workers", workers, before=take_terminal, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    gone: list[bool] = []

    def read() -> None:
        while not gone:
            os.read(ours, 65536)
            time.sleep(0.01)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        assert wait_until(lambda: has_begun(tmp_path), seconds=60)
        family = children_of(process.pid)
    finally:
        gone.append(True)
        reader.join()
        os.close(ours)
    assert process.wait(timeout=30) == 130
    assert_saved(tmp_path / "run")
    assert wait_until(lambda: not any(map(is_running, family)), seconds=10)


def test_a_run_that_is_to_outlive_its_terminal(tmp_path: Path) -> None:
    ignore = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)"  # what nohup does
    process = train(tmp_path, "--quiet", before=ignore, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert wait_until(lambda: has_begun(tmp_path), seconds=60)
        process.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        assert process.poll() is None
    finally:
        process.terminate()
    assert process.wait(timeout=30) == 130
    assert_saved(tmp_path / "run")
