"""What commands say of a network with several losses."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from train.three_losses import LAYERS, THREE

from cnnbp_cli.analysis.summary import summary
from cnnbp_cli.config.load import parse_config


@pytest.fixture
def three(cnnbp):
    Path("three.yaml").write_text(THREE)
    return cnnbp


def test_train_has_a_column_of_each_loss(three):
    found = three("train", "three.yaml", "--format", "csv", "--quiet")
    assert found.code == 0
    header, *rows = csv.reader(found.stdout.splitlines())
    assert header[-3:] == [f"train_loss.{layer}" for layer in LAYERS]
    assert len(rows) == 2
    assert all(map(float, rows[0][-3:]))


def test_train_ends_with_each_loss(three):
    lines = three("train", "three.yaml", "--out", "run", "--quiet").stdout.splitlines()
    *_, last = (json.loads(line) for line in Path("run/events.jsonl").read_text().splitlines() if '"epoch",' in line)
    said = ", ".join(f"{layer} {last['train_losses'][layer]:.4f}" for layer in LAYERS)
    assert lines[-3] == f"train losses: {said}"


def test_summary_names_the_losses(three):
    found = summary(parse_config(THREE))
    macs = {layer.name: layer.macs for layer in found.layers}
    assert found.total_macs - found.inference_macs == macs["low_logits"] + macs["middle_logits"] > 0
    assert three("summary", "three.yaml", columns=120).stdout.endswith(
        f"one image takes {found.total_macs:,} multiply-accumulate operations (MACs) forward\n"
        f"{found.inference_macs:,} of them lead to classifier, the output\n"
        "loss: 1 · cross_entropy at classifier + 0.3 · cross_entropy at low_logits + 0.5 · mse at middle_logits\n"
    )
    alone = three("summary", "three.yaml", "--set", "train.losses=[{layer: classifier, weight: 2}]")
    assert alone.stdout.endswith("\nloss: 2 · cross_entropy at classifier\n")
    document = json.loads(three("summary", "three.yaml", "--format", "json").stdout)
    assert document["losses"][1] == {"layer": "low_logits", "weight": 0.3, "loss": "cross_entropy"}
    assert (
        'label="low_logits\\ndense\\n2, 98 parameters\\nloss × 0.3"'
        in three("summary", "three.yaml", "--graph", "dot").stdout
    )


def test_trace_names_the_losses(three):
    found = three("trace", "three.yaml", "--cell", "low_logits[0]")
    assert found.code == 0
    _, _, parts, _, cell, *_ = found.stdout.splitlines()
    assert parts.startswith("its parts: 1 · ")
    assert parts.count(" (") == 3
    assert cell.startswith("d low_logits[0] = ")
    assert "w · (p − y)" in found.stdout
    assert "from low_logits.prediction[0], low_logits.target[0]" in found.stdout
    found = three("trace", "three.yaml", "--cell", "low_logits.prediction[0]", "--of", "gradient")
    assert (found.code, found.stderr) == (
        2,
        "error: low_logits.prediction: has no gradient of its own; see the gradient of low_logits\n",
    )


@pytest.mark.parametrize(
    "command", ["gradcheck", "gradnorms --steps 2", "profile --steps 2", "validate --data", "config", "config --expand"]
)
def test_commands_take_it(three, command):
    name, *options = command.split()
    found = three(name, "three.yaml", *options)
    assert (found.code, found.stderr) == (0, ""), found


def test_config_writes_each_loss(three):
    assert (
        "  losses: [{layer: low_logits, weight: 0.3, loss: cross_entropy}, "
        "{layer: classifier, weight: 1.0, loss: cross_entropy}, {layer: middle_logits, weight: 0.5, loss: mse}]\n"
    ) in three("config", "three.yaml").stdout
    assert (
        "layer: low_logits, weight: 0.1," in three("config", "three.yaml", "--set", "train.losses.0.weight=0.1").stdout
    )
