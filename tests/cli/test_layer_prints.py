"""What a custom layer prints goes to standard error, in every command: standard output belongs to the report."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow


LAYER = """\
import sys
from dataclasses import dataclass
from sys import stdout
from typing import Literal
import numpy as np
import cnnbp_cli as cnnbp
from cnnbp_cli.core.types import Layer

SAY = {say}

def say(text):
    if SAY:
        print(text)
        print(text, file=stdout)
        sys.stdout.write(text + "\\n")

say("import")

@cnnbp.register
@dataclass(frozen=True, slots=True)
class Loud(Layer):
    type: Literal["loud"] = "loud"

    def __post_init__(self):
        say("construct")

    def out_shape(self, in_shape):
        say("shape")
        return in_shape

    def init_params(self, rng, in_shape):
        say("init")
        return {{"gain": np.ones(1)}}

    def macs(self, in_shape):
        say("macs")
        return 0

    def forward(self, params, x, ctx):
        say("forward")
        return params["gain"] * x, x

    def backward(self, params, residuals, dy, ctx):
        say("backward")
        return params["gain"] * dy, {{"gain": (dy * residuals).sum(keepdims=True).reshape(1)}}
"""
CONFIG = """\
data: {source: synthetic, kind: bars, train: 40, test: 8}
model:
  input: [1, 6, 6]
  layers: [{type: conv2d, name: conv, filters: 2, kernel_size: 3}, loud, flatten, {type: dense, units: 2}]
train: {epochs: 1, workers: 1, batch_size: 20}
"""
COMMANDS = {
    "gradcheck": "gradcheck loud.yaml --format json",
    "summary": "summary loud.yaml --format json",
    "validate": "validate loud.yaml",
    "gradnorms": "gradnorms loud.yaml --steps 2 --format json",
    "diagnose": "diagnose loud.yaml --format json",
    "evaluate": "evaluate run --format json",
    "predict": "predict run images.npy --format json",
    "export": "export run --to npz weights.npz",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with a network that has a layer that prints, the same one that does not, and a trained run."""
    path = tmp_path_factory.mktemp("loud")
    (path / "loud.yaml").write_text(CONFIG, encoding="utf-8")
    (path / "loud.py").write_text(LAYER.format(say=True), encoding="utf-8")
    (path / "quiet.py").write_text(LAYER.format(say=False), encoding="utf-8")
    np.save(path / "images.npy", np.zeros((2, 1, 6, 6)))
    assert run(path, "train loud.yaml --out run --quiet", "quiet.py").returncode == 0
    return path


def run(path: Path, command: str, layers: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cnnbp_cli", *command.split(), "--layers", layers],
        cwd=path,
        capture_output=True,
        text=True,
        check=False,
    )


def without_time(text: str) -> str:
    """Return a report without the seconds that it took, which differ."""
    return re.sub(r'"seconds": [0-9.e-]+', '"seconds": _', text)


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_nothing_reaches_standard_output(folder, command):
    loud, quiet = (run(folder, command, file) for file in ("loud.py", "quiet.py"))
    assert quiet.returncode == loud.returncode < 2, loud.stderr
    assert without_time(loud.stdout) == without_time(quiet.stdout)
    assert {"import", "construct"} <= set(loud.stderr.split())


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stream_of_events_stays_one(folder, tmp_path, workers):
    command = f"train loud.yaml --out {tmp_path / 'run'} --set train.workers={workers} --format json"
    done = run(folder, command, "loud.py")
    assert done.returncode == 0, done.stderr
    events = [json.loads(line)["event"] for line in done.stdout.splitlines()]
    assert events[-1] == "finished"
    assert {"import", "construct", "shape", "init", "forward", "backward"} <= set(done.stderr.split())
