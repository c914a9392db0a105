"""`--epochs`, `--lr`, `--batch-size`, `--seed`, `--workers`: each is its `--set`, wherever it is offered."""

from __future__ import annotations

import json

import pytest
from cli.bars import Command
from cli.registered import commands

KEYS = {
    "--epochs": "train.epochs",
    "--max-steps": "train.max_steps",
    "--lr": "train.optimizer.learning_rate",
    "--learning-rate": "train.optimizer.learning_rate",
    "--batch-size": "train.batch_size",
    "--seed": "seed",
    "--workers": "train.workers",
}
OFFERED = {
    "train": set(KEYS),
    "config": set(KEYS),
    "gradnorms": set(KEYS) - {"--max-steps"},
    "diagnose": set(KEYS) - {"--max-steps", "--workers"},
    "sweep": set(KEYS) - {"--max-steps", "--workers"},
    "profile": {"--batch-size", "--workers"},
    "trace": {"--lr", "--learning-rate", "--seed"},
}
"""What makes a difference to each command; the seed of `gradcheck` is that of its directions."""


def test_they_are_offered_where_they_make_sense() -> None:
    for name, command in commands().items():
        if name != "gradcheck":
            names = {option for param in command.params for option in param.opts}
            assert names & set(KEYS) == OFFERED.get(name, set()), name


@pytest.mark.parametrize("option", KEYS)
@pytest.mark.parametrize("joined", [False, True])
def test_each_is_its_set(cnnbp: Command, option: str, joined: bool) -> None:
    typed = [f"{option}=3"] if joined else [option, "3"]
    asked = cnnbp("config", "bars.yaml", "--set", f"{KEYS[option]}=3", "--format", "json")
    done = cnnbp("config", "bars.yaml", *typed, "--format", "json")
    assert asked.code == done.code == 0
    assert json.loads(done.stdout) == json.loads(asked.stdout)
    assert done.stdout != cnnbp("config", "bars.yaml", "--format", "json").stdout


@pytest.mark.parametrize("name", sorted(OFFERED))
def test_they_reach_the_network_of_each_command(cnnbp: Command, name: str) -> None:
    """A value that cannot be is refused by all alike, under the name that was typed."""
    for option in sorted(OFFERED[name]):
        values = "train.clip_norm=1,2" if name == "sweep" else "train.clip_norm=1"
        done = cnnbp(name, "bars.yaml", option, "-1", "--set", values)
        assert (done.code, done.stdout) == (2, "")
        key = KEYS[option].rpartition(".")[2]
        assert done.stderr.startswith(f"{option} -1: {key}: expected ")
        assert done.stderr.endswith(f"\n  {option} -1\n  {' ' * len(option)} ^^\n")


@pytest.mark.parametrize(
    "setting", ["train.optimizer.learning_rate=0.2", "train.optimizer={type: sgd, learning_rate: 0.2}"]
)
def test_a_contradiction_names_both(cnnbp: Command, setting: str) -> None:
    done = cnnbp("train", "bars.yaml", "--lr", "0.1", "--set", setting)
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr == (f"--lr 0.1: contradicts --set {setting}; leave one of them out\n  --lr 0.1\n       ^^^\n")


def test_what_is_no_contradiction(cnnbp: Command) -> None:
    def rate(*options: str) -> float:
        done = cnnbp("config", "bars.yaml", *options, "--format", "json")
        assert done.code == 0, done.stderr
        return json.loads(done.stdout)["train"]["optimizer"]["learning_rate"]

    with open("fast.yaml", "w", encoding="utf-8") as file:
        file.write("train.optimizer.learning_rate: 0.5")
    assert rate("--lr", "0.1", "--set", "train.optimizer.learning_rate=0.1") == 0.1
    assert rate("--set", "train.optimizer=sgd", "--lr", "0.1") == 0.1
    assert rate("--lr", "0.1", "--set", "train.optimizer=sgd") == 0.1
    assert rate("--lr", "1e-1", "--set-file", "fast.yaml") == 0.1  # --set-file comes first
    assert rate("--lr", "0.1", "--lr", "0.3") == 0.3


@pytest.mark.parametrize(
    ("call", "warning"),
    [
        (
            "config lenet5 --lr 0.1",
            "--lr 0.1 (train.optimizer.learning_rate) has no effect: "
            "the schedule one_cycle follows train.schedule.max_learning_rate alone",
        ),
        ("config lenet5 --learning-rate 0.001", "--learning-rate 0.001 (train.optimizer.learning_rate) has no effect"),
        ("train bars.yaml --epochs 3 --max-steps 2", "--epochs 3 (train.epochs) has no effect: the run ends after 2"),
        ("train bars.yaml --max-steps 80", "--max-steps 80 (train.max_steps) has no effect: 2 epochs have 8 steps"),
        ("train bars.yaml --batch-size 50", "--batch-size 50 (train.batch_size) has no effect: there are only 48"),
        (
            "sweep bars.yaml --lr 0.1,0.2 --set train.schedule.type=one_cycle --epochs 1 --jobs 1 "
            "--set train.schedule.max_learning_rate=0.1",
            "--lr 0.1,0.2 (train.optimizer.learning_rate) has no effect",
        ),
    ],
)
def test_an_option_without_effect_is_named_as_typed(cnnbp: Command, call: str, warning: str) -> None:
    done = cnnbp(*call.split())
    assert done.code == 0
    found = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert any(warning in line for line in found)
    option = call.split()[2]
    assert all(line.startswith(f"warning: {option}") for line in found)


def test_a_sweep_takes_several_values(cnnbp: Command) -> None:
    for option, key in ("--lr", "train.optimizer.learning_rate"), ("--seed", "seed"), ("--seeds", "seed"):
        done = cnnbp("sweep", "bars.yaml", option, "1,2", "--epochs", "1", "--jobs", "1", "--format", "json", "--quiet")
        assert [run["set"] for run in sorted(json.loads(done.stdout)["runs"], key=lambda run: run["run"])] == [
            {key: 1},
            {key: 2},
        ]
    done = cnnbp("sweep", "bars.yaml", "--lr", "1,2", "--set", "train.optimizer.learning_rate=3")
    assert done.code == 2
    assert "--lr 1,2: train.optimizer.learning_rate is set twice; --set train.optimizer.learning_rate=3" in done.stderr


@pytest.mark.parametrize("name", ["gradnorms", "diagnose"])
def test_a_run_is_not_trained_anew(cnnbp: Command, bars_run, name: str) -> None:  # type: ignore[no-untyped-def]
    done = cnnbp(name, str(bars_run), "--lr", "0.1")
    assert done.code == 2
    assert "error: --lr" in done.stderr
