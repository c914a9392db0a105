"""The benchmarks run and say who takes how long; how long it is, is nobody's business here."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SUBSET = ROOT / "cnnbp_cli" / "data" / "mnist_subset"
needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="needs PyTorch")


def measured(tmp_path, script, *arguments):
    """Run a benchmark, and return its JSON."""
    out = tmp_path / "out.json"
    command = [sys.executable, str(ROOT / "benchmarks" / script), *arguments, "--json", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text("utf-8"))


@needs_torch
def test_a_step_of_ours_and_of_pytorch(tmp_path):
    """With the same losses from the same start, or the benchmark itself says so and fails."""
    arguments = ("--nets", "lenet5", "--batches", "32", "--rounds", "1", "--steps", "3")
    (found,) = measured(tmp_path, "versus_torch.py", *arguments)
    assert (found["net"], found["batch"]) == ("lenet5", 32)
    assert set(found["contenders"]) == {"ours", "torch", "torch channels_last"}
    assert all(figures["median_ms"] > 0 for figures in found["contenders"].values())


@needs_torch
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="measures memory in /proc")
def test_whole_processes_on_the_digits_of_the_package(tmp_path):
    found = measured(tmp_path, "mnist99.py", "--rounds", "1", "--data", str(SUBSET))
    assert set(found) == {"ours", "torch"}
    for ((seconds, mebibytes, accuracy),) in ([tuple(run.values()) for run in runs] for runs in found.values()):
        assert seconds > 0
        assert mebibytes > 10
        assert accuracy > 0.9


def test_how_the_step_grows_with_workers(tmp_path):
    (series,) = measured(tmp_path, "growth.py", "--series", "workers").values()
    assert [row["sizes"]["workers"] for row in series] == [1, 2, 4]
