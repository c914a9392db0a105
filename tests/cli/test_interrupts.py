"""Ctrl-C at any moment: code 130, no traceback. Real programs are interrupted, at moments that they tell themselves."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import pytest
from parallel.config import CONFIG
from parallel.processes import children_of, is_running, start, wait_until

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="needs small pipes and /proc"),
    pytest.mark.slow,
]

MOMENTS = 12
"""How many moments of a start-up are tried, from the first line of the program's own on."""

PAGE = 4096
"""The size of a pipe that keeps a program from running ahead of the reader of its messages."""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)


def starting(call: str) -> tuple[subprocess.Popen[str], IO[str]]:
    """Start a command that tells every module it loads, and wait for its entry point."""
    import fcntl

    process = start("-X", "importtime", "-m", "cnnbp_cli", *call.split())
    told = process.stderr
    assert told is not None
    fcntl.fcntl(told, fcntl.F_SETPIPE_SZ, PAGE)
    assert any(line.endswith("cnnbp_cli.cli.main\n") for line in iter(told.readline, ""))
    return process, told


@pytest.mark.parametrize("call", ["train net.yaml --quiet", "trian"])
def test_ctrl_c_while_the_program_starts(call: str) -> None:
    process, told = starting(call)
    with process:
        count = sum(line.startswith("import time:") for line in told)
    assert count > 50
    for moment in range(1, count, count // MOMENTS):
        process, told = starting(call)
        with process:
            for _ in range(moment):
                told.readline()
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        rest = [line for line in err.splitlines() if not line.startswith("import time:")]
        if process.returncode == 130:
            assert not rest or rest == ["interrupted"] or rest[1].startswith("stopping after this step; ")
            assert not any(word in err for word in ("Traceback", "Exception", "Error"))
        else:  # it was over before the signal came
            assert moment > count // 2, rest


@pytest.mark.parametrize(
    "call",
    [
        "train net.yaml --quiet --epochs 100000 --out run --workers 1",
        "train net.yaml --quiet --epochs 100000 --out run --workers 2",
        "sweep net.yaml --quiet --seeds 1,2 --set train.epochs=100000 --out run",
        "gradcheck net.yaml --batch 8 --directions 100000",
    ],
)
def test_a_burst_of_ctrl_c(call: str) -> None:
    """Eight within a few milliseconds, as from a key held down."""
    with start("-m", "cnnbp_cli", *call.split()) as process:
        pid = process.pid
        assert wait_until(lambda: is_at_work(pid, Path("run")), seconds=60)
        workers = children_of(pid)
        for _ in range(8):
            process.send_signal(signal.SIGINT)
            time.sleep(0.002)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "Exception" not in err
    assert wait_until(lambda: not any(map(is_running, workers)), seconds=20)
    assert not list(Path().rglob("*.tmp"))


def is_at_work(pid: int, run: Path) -> bool:
    """Tell whether a program has saved something, or, where it saves nothing, has been computing for a second."""
    ticks = sum(int(field) for field in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13])
    return any(run.rglob("step-*.npz")) or (ticks > 300 and not run.exists())
