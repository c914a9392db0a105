"""Words that are no commands and no options: each gets the hint that it deserves, in one line."""

from __future__ import annotations

import re

import pytest
from cli.bars import Command
from cli.registered import commands

from cnnbp_cli import __version__
from cnnbp_cli.cli.words import HINTS, options_meant


def test_a_word_gets_its_hint_in_one_line(cnnbp: Command) -> None:
    assert not HINTS.keys() & commands().keys(), "the command is there now: remove the hint"
    calls = [[word] for word in HINTS] + [["explain", "toy", "--lr", "3"], ["help", "explain"]]
    for call in calls:
        done = cnnbp(*call)
        assert (done.code, done.stdout) == (2, "")
        word = "explain" if "explain" in call else call[0]
        assert done.stderr == f"error: there is no command '{word}': {HINTS[word]}\n"


@pytest.mark.parametrize("hint", sorted(set(HINTS.values())))
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
        ("trian toy", "no such command 'trian', did you mean 'train', 'trace'?"),
        ("data fetsh", "no such command 'fetsh', did you mean 'fetch'?"),
        ("diagnose", "missing argument 'CONFIG|RUN'; `cnnbp diagnose --help` says what there is"),
        ("--bogus", "no such option: --bogus; `cnnbp --help` says what there is"),
        ("train toy --lr", "option '--lr' requires an argument"),
        ("train toy --workers", "option '--workers' requires an argument"),
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
