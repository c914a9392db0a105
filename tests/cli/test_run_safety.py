"""A disk that fills up, a second process, data that have gone: one message each, and nothing is lost."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from parallel.config import CONFIG
from parallel.processes import start, wait_until

from cnnbp_cli.train.checkpoint import Checkpoint
from cnnbp_cli.train.run_directory import RunDirectory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sets limits as Linux has them")


def train(folder: Path, *arguments: str, limit: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run `cnnbp train` to its end; `limit` is the size that no file may exceed."""

    def prepare() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.run(
        [sys.executable, "-m", "cnnbp_cli", "train", "net.yaml", "--quiet", "--out", "run", "--resume", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=prepare,
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_a_disk_that_fills_up_during_a_checkpoint(tmp_path: Path, workers: int) -> None:
    (tmp_path / "net.yaml").write_text(CONFIG)
    settings = ["--set", f"train.workers={workers}", "--watch-every", "0"]
    assert train(tmp_path, *settings, "--epochs", "1").returncode == 0
    run = RunDirectory(tmp_path / "run")
    before = {path.name: path.read_bytes() for path in run.checkpoints()}
    done = train(tmp_path, *settings, "--epochs", "3", limit=run.checkpoints()[0].stat().st_size - 100)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "cannot be written: File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert {path.name: path.read_bytes() for path in run.checkpoints()} == before
    for path in run.checkpoints():
        Checkpoint.read(path)
    assert train(tmp_path, *settings, "--epochs", "3").returncode == 0


def test_a_run_directory_that_another_process_uses(tmp_path: Path) -> None:
    (tmp_path / "net.yaml").write_text(CONFIG)
    run = tmp_path / "run"
    arguments = ["train", str(tmp_path / "net.yaml"), "--quiet", "--out", str(run), "--epochs", "100000"]
    with start("-m", "cnnbp_cli", *arguments) as first:
        try:
            assert wait_until(lambda: (run / "checkpoints" / "step-00000000.npz").exists(), seconds=20)
            second = train(tmp_path)
            assert second.returncode == 2
            assert second.stderr.startswith("error: run: ")
            assert str(first.pid) in second.stderr
            assert first.poll() is None
        finally:
            first.kill()
            first.communicate()
    assert train(tmp_path, "--epochs", "1").returncode == 0


def test_data_that_have_gone(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 255, (40, 10, 10), np.uint8), np.arange(40) % 4
    np.savez(tmp_path / "set.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    data = CONFIG[CONFIG.index("data:") : CONFIG.index("model:")]
    (tmp_path / "net.yaml").write_text(CONFIG.replace(data, "data: {source: npz, path: set.npz}\n"))
    assert train(tmp_path, "--epochs", "1").returncode == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "run" / "checkpoints").iterdir()}
    (tmp_path / "set.npz").unlink()
    done = train(tmp_path, "--epochs", "2")
    assert (done.returncode, done.stdout) == (2, "")
    assert "set.npz" in done.stderr
    assert "does not exist" in done.stderr
    assert {path.name: path.read_bytes() for path in (tmp_path / "run" / "checkpoints").iterdir()} == before


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """A mount that is read-only even for root, seen by this one process."""
    (tmp_path / "net.yaml").write_text(CONFIG)
    assert train(tmp_path, "--epochs", "1").returncode == 0
    sealed = "mount --bind run run && mount -o remount,bind,ro run"
    if (
        shutil.which("unshare") is None
        or subprocess.run(["unshare", "-m", "sh", "-c", sealed], cwd=tmp_path, capture_output=True).returncode
    ):
        pytest.skip("needs the right to mount")
    command = f"{sealed} && exec {sys.executable} -m cnnbp_cli train net.yaml --quiet --out run --resume --epochs 2"
    before = {path.name: path.read_bytes() for path in (tmp_path / "run" / "checkpoints").iterdir()}
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: run: the run directory cannot be written: Read-only file system\n"
    assert {path.name: path.read_bytes() for path in (tmp_path / "run" / "checkpoints").iterdir()} == before
