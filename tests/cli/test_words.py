"""Words that are no commands and no options: each gets the hint that it deserves, in one line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cli.bars import Command
from cli.registered import commands

from cnnbp_cli import __version__
from cnnbp_cli.cli.words import ABSENT, HINTS, KEYS, options_meant
from cnnbp_cli.config.keys import complete_override, read_tree

CONFIGS = Path(__file__).parents[2] / "configs"


def test_a_word_gets_its_hint_in_one_line(cnnbp: Command) -> None:
    assert not HINTS.keys() & commands().keys(), "the command is there now: remove the hint"
    calls = [[word] for word in HINTS] + [["explain", "toy", "--lr", "3"], ["help", "explain"]]
    for call in calls:
        done = cnnbp(*call)
        assert (done.code, done.stdout) == (2, "")
        word = "explain" if "explain" in call else call[0]
        assert done.stderr == f"error: there is no command '{word}': {HINTS[word]}\n"


@pytest.mark.parametrize("hint", sorted({*HINTS.values(), *(hint for hint in ABSENT.values() if "`cnnbp" in hint)}))
def test_a_hint_names_commands_and_options_that_there_are(hint: str) -> None:
    calls = re.findall(r"`(cnnbp [^`]*)`", hint)
    assert calls
    for call in calls:
        words = call.split()[1:]
        name = next((" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in commands()), None)
        assert name, call
        options = {option for param in commands()[name].params for option in param.opts}
        assert {word for word in words if word.startswith("--")} <= options


def test_help_and_version_in_every_way(cnnbp: Command) -> None:
    for asked, option in (
        ("help", "--help"),
        ("help train", "train --help"),
        ("help data", "data --help"),
        ("help data fetch", "data fetch --help"),
        ("version", "--version"),
        ("-V", "--version"),
    ):
        done = cnnbp(*asked.split())
        assert (done.code, done.stdout, done.stderr) == (0, cnnbp(*option.split()).stdout, "")
    assert done.stdout == f"cnnbp {__version__}\n"
    assert "no such command 'nonsense'" in cnnbp("help", "nonsense").stderr


@pytest.mark.parametrize(
    ("call", "meant"),
    [
        ("train toy --bs 32", "--batch-size"),
        ("train toy --batch_size 32", "--batch-size"),
        ("train toy --learning_rate 1", "--learning-rate"),
        ("train toy --eta 1", "--learning-rate"),
        ("train toy --output x", "--out"),
        ("train toy --epoch 3", "--epochs"),
        ("train toy --continue", "--resume"),
    ],
)
def test_an_option_by_another_name_is_told(cnnbp: Command, call: str, meant: str) -> None:
    done = cnnbp(*call.split())
    assert done.code == 2
    assert done.stderr.splitlines()[-1] == f"error: no such option: {call.split()[2]}, did you mean {meant}?"


@pytest.mark.parametrize(
    ("call", "told"),
    [
        ("trian toy", "no such command 'trian', did you mean 'train' or 'trace'?"),
        ("data fetsh", "no such command 'fetsh', did you mean 'fetch'?"),
        ("diagnose", "missing CONFIG|RUN, as in `cnnbp diagnose lenet5`; `cnnbp diagnose --help` says what there is"),
        ("train", "missing CONFIG|RUN, as in `cnnbp train lenet5`; `cnnbp init` lists such templates"),
        ("evaluate", "missing RUN|CHECKPOINT; `cnnbp train lenet5` makes a run"),
        (
            "export toy",
            "missing FILE: cnnbp export RUN|CHECKPOINT|CONFIG FILE; `cnnbp export --help` says what there is",
        ),
        ("data fetch", "missing NAME, expected one of: mnist, fashion-mnist, kmnist, emnist, cifar10, svhn"),
        ("completion", "missing SHELL, expected one of: bash, zsh, fish"),
        (
            "lenet5",
            "'lenet5' is no command, but a template: `cnnbp train lenet5` trains it, `cnnbp summary lenet5` shows it",
        ),
        ("bars.yaml", "'bars.yaml' is no command, but a config: `cnnbp train bars.yaml` trains it"),
        ("data download mnist", "no such command 'download': `cnnbp data info CONFIG` shows a data set, and "),
        (
            "train --config toy",
            "no such option: --config: a config has no option before it, as in `cnnbp train lenet5`",
        ),
        ("train --model toy", "no such option: --model: a config has no option before it, as in `cnnbp train lenet5`"),
        ("train toy --gpu", "no such option: --gpu: cnnbp computes with NumPy, on the CPU; `--workers N` shares "),
        ("train toy --device cuda", "no such option: --device: cnnbp computes with NumPy, on the CPU; "),
        ("train toy --optimizer sgd", "no such option: --optimizer: `--set train.optimizer=VALUE` sets it"),
        ("train toy --dataset mnist", "no such option: --dataset: `--set data.source=VALUE` sets it"),
        ("train toy -v", "no such option: -v: `--quiet` shows less, and `--format json` shows all that happens"),
        ("train toy --dry-run", "no such option: --dry-run: `cnnbp validate CONFIG --data` checks a config"),
        ("--epochs 3 train toy", "no such option: --epochs: options come after the command, as in `cnnbp train "),
        ("train toy --set train.epochs 3", "unexpected argument 3: an override is one word, --set train.epochs=3"),
        ("train toy epochs=3", "unexpected argument epochs=3: an override has --set before it, as in --set "),
        ("train toy toy", "unexpected argument toy; `cnnbp train --help` says what there is"),
        ("gradcheck toy --tol 1", "no such option: --tol, did you mean --tolerance?"),
        ("gradcheck toy --eps 1", "no such option: --eps, did you mean --step?"),
        ("export toy --format onnx", "no such option: --format, did you mean --to?"),
        ("runs --limit 5", "no such option: --limit; `cnnbp runs --help` says what there is"),
        ("init mine.yaml", "TEMPLATE: name one before the file, as in `cnnbp init lenet5 mine.yaml`"),
        ("summary .", ".: a directory, expected a YAML file or a run, such as 'bars.yaml'"),
        ("--bogus", "no such option: --bogus; `cnnbp --help` says what there is"),
        ("train toy --lr", "--lr: expected a value after it"),
        ("train toy --workers", "--workers: expected a value after it"),
        ("compare a", "RUN: expected two runs or more"),
        ("summary toy --format xml", "--format: 'xml' is not one of "),
        ("sweep toy --jobs 0", "--jobs: "),
    ],
)
def test_a_usage_error_is_one_line(cnnbp: Command, call: str, told: str) -> None:
    done = cnnbp(*call.split())
    assert (done.code, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {told}")


def test_only_options_that_a_command_has_are_meant() -> None:
    assert options_meant("--bs", ["--batch-size"]) == ["--batch-size"]
    assert options_meant("--bs", ["--epochs"]) == []
    assert options_meant("--gpu", ["--map", "--out"]) == []
    assert options_meant("--epoch", ["--epochs", "--every"]) == ["--epochs"]


def test_keys_of_the_config_that_options_stand_for_exist() -> None:
    root = read_tree(CONFIGS / "lenet5.yaml", ["train.optimizer=sgd", "train.early_stopping={}", "data={source: idx}"])
    for key in set(KEYS.values()):
        assert any(text.startswith(f"{key}=") for text, _ in complete_override(key, root)), key


def test_folders_of_runs_and_options_by_the_wrong_name(cnnbp: Command, bars_run: Path) -> None:
    for command in ("evaluate", "trace", "gradnorms", "plot"):
        done = cnnbp(command, bars_run.parent)
        assert done.code == 2
        assert done.stderr.endswith(f", such as '{bars_run}'\n"), done.stderr
    assert cnnbp("validate", "toy", "lenet5", "--set", "sed=1").stderr.count("unknown key 'sed'") == 1


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("lr", "'train.optimizer.learning_rate'"),
        ("train.lr", "'train.optimizer.learning_rate'"),
        ("epochs", "'train.epochs'"),
        ("batch", "'train.batch_size'"),
        ("train.validation", "'data.validation'"),
        ("train.optimizer.epochs", "'train.epochs'"),
        ("patience", "'train.schedule.patience' or 'train.early_stopping.patience'"),
        ("train.epoch", "'epochs'"),
    ],
)
def test_a_key_of_another_section_is_told(cnnbp: Command, key: str, meant: str) -> None:
    done = cnnbp("validate", "bars.yaml", "--set", f"{key}=1")
    assert done.code == 2
    assert f", did you mean {meant}?\n" in done.stderr
