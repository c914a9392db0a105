"""`cnnbp config`: complete, and a fixed point."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from cli.bars import Command

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_it_reads_back_as_the_same_text(cnnbp: Command, path: Path) -> None:
    done = cnnbp("config", path)
    assert (done.code, done.stderr) == (0, "")
    assert cnnbp("config", "-", stdin=done.stdout).stdout == done.stdout
    found = cnnbp("config", path, "--format", "json").stdout
    assert cnnbp("config", "-", stdin=found).stdout == done.stdout
    assert json.loads(found).keys() == yaml.safe_load(done.stdout).keys()


def test_overrides_and_their_files(cnnbp: Command) -> None:
    Path("fast.yaml").write_text("train: {epochs: 1, optimizer: {learning_rate: 0.5}}\nseed: 3", encoding="utf-8")
    more = ("--set", "seed=4", "--set", "model.layers.edges.filters=5", "--set-file", "fast.yaml")
    found = json.loads(cnnbp("config", "bars.yaml", *more, "--format", "json").stdout)
    assert (found["train"]["epochs"], found["train"]["batch_size"], found["seed"]) == (
        1,
        12,
        4,
    )  # --set has the last word
    assert (found["train"]["optimizer"]["type"], found["train"]["optimizer"]["learning_rate"]) == ("adam", 0.5)
    assert found["model"]["layers"][0]["filters"] == 5


def test_a_mistake_in_a_file_of_overrides(cnnbp: Command) -> None:
    Path("fast.yaml").write_text("train:\n  epoch: 1\n", encoding="utf-8")
    done = cnnbp("summary", "bars.yaml", "--set-file", "fast.yaml")
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr == (
        "fast.yaml:2:3: unknown key 'epoch' of train, did you mean 'epochs'?\n  2 |   epoch: 1\n    |   ^^^^^\n"
    )


def test_it_is_what_a_run_keeps(cnnbp: Command, bars_run: Path) -> None:
    kept = bars_run / "config.yaml"
    assert cnnbp("config", kept).stdout == kept.read_text(encoding="utf-8")
