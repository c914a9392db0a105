"""Commands on a network made of blocks: its layers have plain names wherever layers are called by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from cli.bars import Command

CONFIG = """\
name: blocks
data: {source: synthetic, kind: bars, train: 36, test: 12}
model:
  input: [1, 6, 6]
  blocks:
    unit:
      parameters: {filters: null, project: false}
      layers:
        - {type: conv2d, name: conv, filters: $filters, kernel_size: 3, padding: 1}
        - {type: batch_norm, name: norm}
        - {type: conv2d, name: projection, inputs: [$input], filters: $filters, kernel_size: 1, when: $project}
        - {type: add, name: add, inputs: [norm, projection]}
        - {type: relu, name: relu}
  layers:
    - {block: unit, name: stage, filters: 2, repeat: 2, first: {project: true}}
    - {type: global_avg_pool2d, name: pool}
    - {type: dense, name: classes, units: 2}
train: {epochs: 1, batch_size: 12, workers: 1}
"""
LAYERS = [f"stage_{k}_{name}" for k in (1, 2) for name in ("conv", "norm", "projection", "add", "relu")]
LAYERS.remove("stage_2_projection")
LAYERS += ["pool", "classes"]


@pytest.fixture
def run(cnnbp: Command) -> Path:
    Path("blocks.yaml").write_text(CONFIG, encoding="utf-8")
    done = cnnbp("train", "blocks.yaml", "--out", "run", "--quiet", "--grad-norms")
    assert done.code == 0, done.stderr
    return Path("run")


def test_a_run_and_what_reads_it(cnnbp: Command, run: Path) -> None:
    kept = (run / "config.yaml").read_text(encoding="utf-8")
    assert "block:" not in kept
    assert [layer["name"] for layer in yaml.safe_load(kept)["model"]["layers"]] == LAYERS
    assert kept == cnnbp("config", "blocks.yaml", "--expand").stdout

    with np.load(max((run / "checkpoints").glob("*.npz"))) as arrays:
        assert any("stage_2_conv.weight" in name for name in arrays)
    assert cnnbp("evaluate", run).code == 0
    found = [json.loads(line) for line in cnnbp("gradnorms", run, "--format", "json").lines]
    assert "stage_1_projection" in found[0]["norms"]
    assert cnnbp("train", "blocks.yaml", "--out", run, "--resume", "--epochs", "2", "--quiet").code == 0

    assert cnnbp("export", run, "weights.npz").code == 0
    with np.load("weights.npz") as weights:
        assert weights["stage_2_conv.weight"].shape == (2, 2, 3, 3)
    assert cnnbp("evaluate", "blocks.yaml", "--weights", "weights.npz").code == 0


def test_names_of_layers_as_arguments(cnnbp: Command, run: Path) -> None:
    found = json.loads(cnnbp("summary", "blocks.yaml", "--format", "json").stdout)
    assert [layer["name"] for layer in found["layers"]] == LAYERS
    done = cnnbp("gradcheck", "blocks.yaml", "--layer", "stage_2_conv", "--format", "json")
    assert [check["name"] for check in json.loads(done.stdout)["parameters"]] == [
        "stage_2_conv.weight",
        "stage_2_conv.bias",
    ]
    assert cnnbp("trace", "blocks.yaml", "--cell", "stage_1_conv.weight[0,0,1,1]").code == 0
    frozen = cnnbp("summary", "blocks.yaml", "--set", 'model.freeze=["stage_1_*"]', "--format", "json")
    assert json.loads(frozen.stdout)["trainable_parameters"] < found["trainable_parameters"]
    wider = cnnbp("summary", "blocks.yaml", "--set", "model.layers.stage.filters=5", "--format", "json")
    assert json.loads(wider.stdout)["layers"][0]["output_shape"] == [5, 6, 6]


def test_onnx_has_the_same_names(cnnbp: Command, run: Path) -> None:
    onnx = pytest.importorskip("onnx")
    assert cnnbp("export", run, "model.onnx").code == 0
    names = {tensor.name for tensor in onnx.load("model.onnx").graph.initializer}
    assert "stage_2_conv.weight" in names


def test_config_keeps_blocks_and_expands_them_when_asked(cnnbp: Command) -> None:
    Path("blocks.yaml").write_text(CONFIG, encoding="utf-8")
    kept, expanded = cnnbp("config", "blocks.yaml").stdout, cnnbp("config", "blocks.yaml", "--expand").stdout
    assert "    - {block: unit, name: stage, filters: 2, repeat: 2, first: {project: true}}" in kept.splitlines()
    assert "block" not in expanded.replace("name: blocks", "")
    assert cnnbp("config", "-", "--expand", stdin=kept).stdout == expanded
    assert cnnbp("config", "-", stdin=expanded).stdout == expanded
    assert cnnbp("config", "-", stdin=kept).stdout == kept
    as_json = cnnbp("config", "blocks.yaml", "--format", "json").stdout
    assert cnnbp("config", "-", stdin=as_json).stdout == kept


def test_a_change_of_a_single_layer_cannot_be_written_with_blocks(cnnbp: Command) -> None:
    Path("blocks.yaml").write_text(CONFIG, encoding="utf-8")
    change = ("--set", "model.layers.stage_2_conv.padding=same")
    done = cnnbp("config", "blocks.yaml", *change)
    assert done.stderr == "written without blocks, as overrides change single layers of them\n"
    assert done.stdout == cnnbp("config", "blocks.yaml", "--expand", *change).stdout


def test_validate_tells_both_places(cnnbp: Command) -> None:
    Path("blocks.yaml").write_text(CONFIG.replace("kernel_size: 3", "kernel_size: 0"), encoding="utf-8")
    done = cnnbp("validate", "blocks.yaml", "--format", "json")
    assert done.code == 2
    (problem,) = json.loads(done.stdout)["configs"][0]["problems"]
    assert (problem["line"], problem["used_at"]) == (9, [{"file": "blocks.yaml", "line": 15, "column": 15}])


def test_validate_names_a_block_without_use(cnnbp: Command) -> None:
    text = CONFIG.replace("  layers:\n    - {block", "    other: {layers: [relu]}\n  layers:\n    - {block")
    Path("blocks.yaml").write_text(text, encoding="utf-8")
    done = cnnbp("validate", "blocks.yaml")
    assert done.code == 0
    assert "model.blocks.other has no effect: no layer uses this block" in done.stdout + done.stderr


def test_a_limited_gradient_check_says_what_it_left_out(cnnbp: Command) -> None:
    Path("blocks.yaml").write_text(CONFIG, encoding="utf-8")
    done = cnnbp("gradcheck", "blocks.yaml", "--comparisons", "5", columns=140)
    assert done.code == 0
    text = " ".join(done.stdout.split())
    assert "5 of 152 comparisons were made, in" in text
    assert "--comparisons 5 repeats exactly these" in text
    assert "in training mode, 5 of 13 gradients were checked" in text
    assert "in evaluation mode, 0 of 13 gradients were checked" in text
    assert "ok: 5 of 13 gradients proven by complex steps, in training mode, largest" in text
    assert sum(" unchecked " in line for line in done.lines) == 8
    found = json.loads(cnnbp("gradcheck", "blocks.yaml", "--comparisons", "5", "--format", "json").stdout)
    assert found["comparisons"] == 5 < found["planned"]
    assert [check["by_mode"] for check in found["parameters"]].count({}) == 8
    assert cnnbp("gradcheck", "blocks.yaml", "--time", "0").code == 2
