"""Commands on a network whose layers stand at several places: what there is once is shown, counted and kept once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from cli.bars import Command

CONFIG = Path(__file__).parents[1] / "shared.yaml"
PARAMETERS = [
    *("stem.weight", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var", "slope.weight"),
    *("step.weight", "step.bias", "wide.weight", "wide.bias", "answer.weight", "answer.bias"),
]
SMALL = """\
data: {source: synthetic, kind: bars}
model:
  input: [1, 6, 6]
  layers:
    - {type: conv2d, name: conv, filters: 1, kernel_size: 3, padding: same}
    - relu
    - share: conv
    - {type: max_pool2d, pool_size: 3}
    - flatten
    - {type: dense, units: 1}
  head: sigmoid
"""


@pytest.fixture
def shared(cnnbp: Command) -> Command:
    shutil.copy(CONFIG, "shared.yaml")
    return cnnbp


def test_summary_counts_parameters_once_and_operations_at_each_use(shared: Command) -> None:
    found = json.loads(shared("summary", "shared.yaml", "--format", "json").stdout)
    layers = {layer["name"]: layer for layer in found["layers"]}
    assert (layers["step"]["shares"], layers["step_2"]["shares"], layers["step_3"]["shares"]) == (None, "step", "step")
    assert (layers["step"]["parameters"], layers["step_3"]["parameters"]) == (4 * 4 * 9 + 4, 0)
    assert layers["step"]["macs"] == layers["step_3"]["macs"] == 4 * 4 * 9 * 16
    assert found["trainable_parameters"] == 36 + 8 + 4 + 148 + 64 * 64 + 64 + 64 * 10 + 10
    lines = shared("summary", "shared.yaml").lines
    assert [line.split()[-4:-1] for line in lines if line.startswith("step_2")] == [["shared", "with", "step"]]
    assert (
        "step_2<br/>conv2d 3×3<br/>4×4×4, shared with step"
        in shared("summary", "shared.yaml", "--graph", "mermaid").stdout
    )


def test_a_run_keeps_one_of_each_and_goes_on_to_the_same_bits(shared: Command) -> None:
    assert shared("train", "shared.yaml", "--out", "whole", "--epochs", "4", "--quiet", "--workers", "1").code == 0
    assert shared("train", "shared.yaml", "--out", "run", "--quiet", "--workers", "1").code == 0
    resumed = shared("train", "run", "--resume", "--epochs", "4", "--quiet", "--workers", "1")
    assert resumed.code == 0, resumed.stderr
    for folder in ("run", "whole"):
        assert shared("export", folder, f"{folder}.npz").code == 0
    with np.load("run.npz") as ours, np.load("whole.npz") as theirs:
        assert [*ours] == [*theirs] == PARAMETERS
        for name in PARAMETERS:
            np.testing.assert_array_equal(ours[name], theirs[name])
    assert "{share: step, name: step_3, inputs: [relu_2]}" in Path("run/config.yaml").read_text()
    norms = [json.loads(line)["norms"] for line in shared("gradnorms", "run", "--format", "json").lines]
    assert {name for name in norms[0] if "_" in name} == set()
    other = shared("train", "shared.yaml", "--weights", "whole.npz", "--map", "auto", "--epochs", "1", "--quiet")
    assert other.code == 0, other.stderr


def test_checks_and_diagnosis_see_one_layer(shared: Command) -> None:
    found = json.loads(shared("gradcheck", "shared.yaml", "--format", "json").stdout)
    assert found["ok"]
    names = [parameter["name"] for parameter in found["parameters"]]
    assert names == [*(name for name in PARAMETERS if "running" not in name), "input"]
    done = shared("diagnose", "shared.yaml", "--set", "model.layers.step.init=zeros", "--format", "json")
    remedies = [finding["remedy"] for finding in json.loads(done.stdout)["findings"]]
    assert any("model.layers.step.init=" in (remedy or "") for remedy in remedies)
    assert not any("step_2" in (remedy or "") or "step_3" in (remedy or "") for remedy in remedies)


def test_a_trace_adds_up_what_comes_through_each_use(cnnbp: Command) -> None:
    Path("small.yaml").write_text(SMALL)
    lines = cnnbp("trace", "small.yaml", "--cell", "conv.weight[0,0,1,1]").lines
    parts = [line for line in lines if "through" in line]
    assert parts[0] == "  = what comes through conv and conv_2, added"
    assert parts[1].startswith("  through conv: Σ dy[0,p,q] · x[0,p,q] = ")
    assert parts[2].startswith("  through conv_2: Σ dy[0,p,q] · x[0,p,q] = ")
    numbers = [float(part.rpartition(" = ")[2].replace("−", "-")) for part in parts[1:]]
    total = float(next(line for line in lines if line.startswith("d conv")).rpartition(" = ")[2].replace("−", "-"))
    assert sum(numbers) == pytest.approx(total, abs=1e-4)
    whole = cnnbp("trace", "small.yaml").stdout
    assert "conv_2 = conv2d(relu_1)  1×6×6, with the parameters of conv\n" in whole


def test_expansion_and_validation(shared: Command) -> None:
    assert shared("validate", "shared.yaml").code == 0
    written = shared("config", "shared.yaml").stdout
    Path("written.yaml").write_text(written)
    assert shared("config", "written.yaml").stdout == written
    assert "- {share: wide, name: wide_2, inputs: [soft]}" in written
