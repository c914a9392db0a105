"""What may stand where a command wants a config or a run: a path, a template, a run's name, `last`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from cli.bars import BARS, Command
from cli.registered import commands

import cnnbp_cli
from cnnbp_cli.cli.sources import ROLES
from cnnbp_cli.config.load import load_config
from cnnbp_cli.config.sources import last_run, located, runs_under
from cnnbp_cli.config.templates import names, template

TEMPLATE = "toy: the template; `cnnbp init toy` copies it for changes\n"


@pytest.fixture
def runs(cnnbp: Command, bars_run: Path) -> Path:
    """A folder with `runs/bars-9` and `runs/bars-10`, of which the former is the newer."""
    for number, time in (("bars-10", 1000), ("bars-9", 2000)):
        shutil.copytree(bars_run, Path("runs") / number)
        os.utime(Path("runs") / number / "events.jsonl", (time, time))
    return Path("runs")


CALLS = {
    "data convert": ["data.npz"],
    "train": ["--epochs", "1"],
    "sweep": ["--set", "train.epochs=1", "--set", "train.batch_size=50,100", "--jobs", "1"],
    "diagnose": ["--select", "symmetric-init", "--steps", "5"],
    "gradnorms": ["--steps", "1"],
    "gradcheck": ["--directions", "1", "--elements", "1"],
    "profile": ["--steps", "2"],
    "export": ["weights.npz"],
}
"""What else the commands want that take a config."""

ALONE = {"evaluate"}  # whose config is an option

WITH_CONFIG = [
    name
    for name, command in commands().items()
    if any("CONFIG" in str(p.metavar).split("|") for p in command.params) and name not in ALONE
]


@pytest.mark.parametrize("name", WITH_CONFIG)
def test_every_config_may_be_a_template_or_the_last_run(cnnbp: Command, runs: Path, name: str) -> None:
    rest = CALLS.get(name, [])
    done = cnnbp(*name.split(), "toy", *rest)
    assert done.code == 0
    assert done.stderr.startswith(TEMPLATE)
    if name == "gradnorms":  # which reads a run
        rest = []
    elif name == "diagnose":
        rest = ["--select", "symmetric-init"]
    shutil.rmtree("runs/toy-1", ignore_errors=True)
    done = cnnbp(*name.split(), "last", *rest)
    assert done.code == 0
    assert done.stderr.startswith("last: runs/bars-9\n")
    assert cnnbp(*name.split(), "bars-10", *rest).stderr.startswith("bars-10: runs/bars-10\n")


@pytest.mark.parametrize("call", ["evaluate {}", "predict {} two.npy", "plot {}", "compare {} runs/bars-10"])
@pytest.mark.parametrize("word", ["last", "bars-9"])
def test_a_run_may_be_the_last_or_a_name(cnnbp: Command, runs: Path, call: str, word: str) -> None:
    import numpy as np

    np.save("two.npy", np.zeros((2, 1, 6, 6), np.uint8))
    by_path = cnnbp(*call.format("runs/bars-9").split())
    done = cnnbp(*call.format(word).split())
    assert (done.code, done.stdout) == (0, by_path.stdout)
    assert done.stderr == f"{word}: runs/bars-9\n{by_path.stderr}"


def test_other_data_may_be_those_of_a_template(cnnbp: Command, runs: Path) -> None:
    done = cnnbp("evaluate", "last", "--data", "toy")
    assert done.code == 0
    assert done.stderr.startswith(f"last: runs/bars-9\n{TEMPLATE}")


def test_what_lies_on_disk_wins(cnnbp: Command, runs: Path) -> None:
    for word in ("toy", "last", "bars-9"):
        Path(word).write_text(BARS.replace("name: bars", "name: mine"), encoding="utf-8")
        done = cnnbp("summary", word, "--format", "json")
        assert (done.code, done.stderr) == (0, "")
        assert '"name": "mine"' in done.stdout
        assert cnnbp("evaluate", word).code == 2  # a file of that name is no run


def test_a_template_wins_over_the_name_of_a_run_where_both_would_do(cnnbp: Command, runs: Path) -> None:
    (runs / "bars-9").rename(runs / "toy")
    assert cnnbp("summary", "toy").stderr == TEMPLATE
    assert cnnbp("evaluate", "toy").stderr.startswith("toy: runs/toy\n")


def test_a_run_is_trained_anew(cnnbp: Command, runs: Path) -> None:
    done = cnnbp("train", "runs/bars-9", "--epochs", "1")
    assert done.code == 0
    assert "a new run with the config of runs/bars-9; add --resume to continue that run instead\n" in done.stderr
    assert Path("runs/bars-1/config.yaml").exists()
    assert cnnbp("train", "last", "--resume", "--epochs", "3").lines[-1] == "run: runs/bars-1"


def test_quiet_says_nothing_about_it(cnnbp: Command, runs: Path) -> None:
    for word in ("toy", "last"):
        assert cnnbp("train", word, "--epochs", "1", "--quiet").stderr == ""


def test_overrides_and_mistakes_of_a_template(cnnbp: Command) -> None:
    done = cnnbp("summary", "toy", "--set", "model.layers.conv2d_1.kernel_size=9")
    assert done.code == 2
    assert "kernel" in done.stderr
    Path("data").mkdir()
    done = cnnbp("config", "toy", "--set", "data={source: npz, path: data/mine.npz}", "--format", "json")
    assert f'"path": "{Path("data/mine.npz").resolve()}"' in done.stdout


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            "train mnist",
            "mnist: no such file, did you mean the template 'keras-mnist' or the template 'pytorch-mnist'?",
        ),
        ("train lenet5.yaml", "lenet5.yaml: no such file, did you mean the template 'lenet5'?"),
        ("summary bar.yaml", "bar.yaml: no such file, did you mean 'bars.yaml'?"),
        ("summary bars", "bars: no such file, did you mean 'bars.yaml'?"),
        ("summary runs/bars-8", "runs/bars-8: no such file, did you mean 'runs/bars-9'?"),
        ("summary xyz", "xyz: no such file; `cnnbp init` lists the templates"),
        ("summary xyz.yaml", "xyz.yaml: no such file"),
        ("evaluate runs/bar-9", "runs/bar-9: does not exist, did you mean 'runs/bars-9'?"),
        ("evaluate bars-11", "bars-11: does not exist, did you mean 'runs/bars-10'?"),
        ("evaluate lenet5", "lenet5: does not exist; expected a run directory or a checkpoint"),
        ("plot runs/bars9", "runs/bars9: is not a run directory, did you mean 'runs/bars-9'?"),
        ("compare last bar-9", "bar-9: is not a run directory, did you mean 'runs/bars-9'?"),
        ("train toy --set-file bar", "bar: no such file, did you mean 'bars.yaml'?"),
    ],
)
def test_a_missing_file_names_the_nearest(cnnbp: Command, runs: Path, call: str, message: str) -> None:
    done = cnnbp(*call.split())
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == f"error: {message}"


@pytest.mark.parametrize("call", ["summary last", "evaluate last", "plot last", "diagnose last"])
def test_last_where_there_is_no_run(cnnbp: Command, call: str) -> None:
    done = cnnbp(*call.split())
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr.startswith("error: last: ")
    assert done.stderr.endswith("; there is no run under runs yet\n")


def test_python_takes_the_same_words(cnnbp: Command, runs: Path) -> None:
    assert cnnbp_cli.load("toy").config == load_config("toy")
    assert cnnbp_cli.load("last").config.name == "bars"
    assert len(cnnbp_cli.load_data("last").train) == 48
    assert cnnbp_cli.diagnose("bars-9").source == "runs/bars-9"
    assert load_config("runs/bars-9").name == "bars"


def test_templates_are_what_init_copies() -> None:
    assert names()
    for name in names():
        assert load_config(name).name == name or "name:" in template(name).text


def test_runs_are_found_in_the_order_of_their_numbers(runs: Path) -> None:
    (runs / "sweep" / "01").mkdir(parents=True)
    (runs / "sweep" / "01" / "events.jsonl").touch()
    (runs / ".hidden").mkdir()
    (runs / ".hidden" / "events.jsonl").touch()
    assert [run.as_posix() for run in runs_under(runs)] == ["runs/bars-9", "runs/bars-10", "runs/sweep/01"]
    assert last_run() == runs / "sweep" / "01"
    assert located("runs/bars-9") == runs / "bars-9"


def test_every_argument_for_a_config_or_a_run_is_settled() -> None:
    """What help calls a parameter is what it may be: a new word in a metavar would be left out."""
    for command in commands().values():
        for param in command.params:
            words = set(str(param.metavar).split("|"))
            assert words <= ROLES or not words & ROLES
