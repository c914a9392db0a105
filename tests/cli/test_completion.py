"""Completion: what is offered, without NumPy; and that bash, zsh and fish put it into the command line."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path

import pytest
from by_type import OPTIMIZERS
from cli.bars import BARS

from cnnbp_cli.config import templates
from cnnbp_cli.config.jsonschema import json_schema
from cnnbp_cli.config.keys import complete_override, names_of_layers, read_tree

ROOT = Path(__file__).parents[2]
ASKED = {"_CNNBP_COMPLETE": "complete_fish", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bars.yaml").write_text(BARS, encoding="utf-8")
    (tmp_path / "notes.txt").touch()
    (tmp_path / "own.py").touch()
    (tmp_path / "runs/bars-1/checkpoints").mkdir(parents=True)
    (tmp_path / "runs/bars-1/events.jsonl").touch()
    (tmp_path / "runs/bars-1/config.yaml").write_text(BARS, encoding="utf-8")
    return tmp_path


def test_the_format_is_up_to_date() -> None:
    kept = files("cnnbp_cli.config").joinpath("schema.json").read_text(encoding="utf-8")
    assert json.loads(kept) == json.loads(json.dumps(json_schema())), "run `make schema`"


class TestOverrides:
    """What may follow `--set`."""

    @pytest.mark.parametrize(
        ("typed", "expected"),
        [
            ("d", ["dtype=", "data."]),
            ("dtype=", ["dtype=float32", "dtype=float64"]),
            ("data.sour", ["data.source="]),
            (
                "data.source=",
                [f"data.source={word}" for word in ("mnist-subset", "idx", "npz", "npy", "csv", "folder", "synthetic")],
            ),
            ("data.kind=", ["data.kind=digits", "data.kind=bars"]),
            (
                "data.augment.",
                [*(f"data.augment.{key}=" for key in ("shift", "rotate", "scale", "flip")), "data.augment.crop."],
            ),
            ("train.optimizer.e", ["train.optimizer.epsilon="]),
            (
                "train.optim",
                [
                    *(
                        f"train.optimizer.{key}="
                        for key in ("type", "learning_rate", "betas", "epsilon", "weight_decay")
                    ),
                    "train.optimizer=",
                ],
            ),
            (
                "train.optimizer.type=",
                [f"train.optimizer.type={word}" for word in OPTIMIZERS],
            ),
            (
                "model.layers.",
                [f"model.layers.{name}." for name in ("edges", "relu_1", "max_pool2d_1", "flatten_1", "dense_1")],
            ),
            ("model.layers.edges.k", ["model.layers.edges.kernel_size="]),
            ("model.layers.0.k", ["model.layers.0.kernel_size="]),
            ("model.layers.edges.padding=", ["model.layers.edges.padding=valid", "model.layers.edges.padding=same"]),
            ("model.layers.dense_1.bias=", ["model.layers.dense_1.bias=true", "model.layers.dense_1.bias=false"]),
            ("train.schedule.monitor=", []),  # the default, constant, has no such key
            ("train.epochs=", []),
            ("nonsense.", []),
            ("train.epochs.more.", []),
            ("model.layers.no.", []),
        ],
    )
    def test_candidates(self, folder: Path, typed: str, expected: list[str]) -> None:
        assert [text for text, _ in complete_override(typed, read_tree(folder / "bars.yaml"))] == expected

    def test_what_was_set_before_counts(self, folder: Path) -> None:
        root = read_tree(folder / "bars.yaml", ["train.optimizer=sgd", "model.layers.edges.name=first"])
        assert "train.optimizer.momentum=" in [text for text, _ in complete_override("train.optimizer.", root)]
        assert names_of_layers(root)[0] == "first"

    @pytest.mark.parametrize("path", ["gone.yaml", "notes.txt", "own.py", ".", "-", "\0"])
    def test_without_a_config_the_format_still_helps(self, folder: Path, path: str) -> None:
        root = read_tree(folder / path)
        assert names_of_layers(root) == []
        assert ("train.batch_size=", "Number of images per update. (default 64)") in complete_override("train.b", root)

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
    def test_nothing_waits_for_a_pipe(self, folder: Path) -> None:
        os.mkfifo(folder / "pipe")
        assert names_of_layers(read_tree(folder / "pipe")) == []

    def test_every_key_of_a_config_is_offered(self) -> None:
        """Walk down from each candidate that goes on: no key path of the format is missing or broken."""
        root = read_tree(ROOT / "configs" / "resnet-mini.yaml")
        seen: set[str] = set()
        ahead = [""]
        while ahead:
            for text, _ in complete_override(ahead.pop(), root):
                if text not in seen:
                    seen.add(text)
                    ahead.append(text)
        assert len(seen) > 300
        assert {"train.early_stopping.monitor=train_loss", "model.head=sigmoid", "train.workers=auto"} <= seen


def answer(line: str, folder: Path) -> tuple[list[str], list[str]]:
    """Return what the program offers for a command line, and whether that took NumPy."""
    program = (
        "import sys, atexit\n"
        "atexit.register(lambda: print('numpy' in sys.modules, file=sys.stderr))\n"
        "from cnnbp_cli.cli.main import main\nmain()"
    )
    environment = {**os.environ, **ASKED, "_TYPER_COMPLETE_ARGS": line}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )
    return done.stdout.splitlines(), done.stderr.splitlines()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("cnnbp gr", ["gradcheck", "gradnorms"]),
        ("cnnbp data ", ["info", "fetch", "convert"]),
        ("cnnbp train ", ["bars.yaml", "runs/", *templates.names(), "last"]),
        ("cnnbp train le", ["lenet5", "lenet5-1998"]),
        ("cnnbp gradnorms la", ["last"]),
        ("cnnbp train ba", ["bars.yaml"]),
        ("cnnbp train bars-", ["bars-1"]),
        ("cnnbp summary bars-", ["bars-1"]),
        ("cnnbp trace lenet5-", ["lenet5-1998"]),
        ("cnnbp evaluate ", ["runs/", "bars-1", "last"]),
        ("cnnbp compare ba", ["bars-1"]),
        ("cnnbp summary lenet5 --set model.layers.conv1.f", ["model.layers.conv1.filters="]),
        ("cnnbp gradcheck last --layer e", ["edges"]),
        ("cnnbp train bars.yaml --set-file ", ["bars.yaml", "runs/"]),
        ("cnnbp gradnorms runs/", ["runs/bars-1"]),
        ("cnnbp evaluate runs/b", ["runs/bars-1"]),
        ("cnnbp train bars.yaml --layers ", ["own.py", "runs/"]),
        ("cnnbp train bars.yaml --ep", ["--epochs"]),
        ("cnnbp summary bars.yaml --format ", ["table", "json", "csv", "markdown", "latex"]),
        ("cnnbp init le", ["lenet5", "lenet5-1998"]),
        ("cnnbp completion ", ["bash", "zsh", "fish"]),
        ("cnnbp gradcheck bars.yaml --layer e", ["edges"]),
        ("cnnbp gradcheck bars.yaml --parameter in", ["input"]),
        ("cnnbp train bars.yaml --set train.optimizer=sgd --set train.optimizer.m", ["train.optimizer.momentum="]),
        ("cnnbp train bars.yaml --set=model.layers.dense_1.u", ["model.layers.dense_1.units="]),
        ("cnnbp gradcheck runs/bars-1 --set model.layers.edges.f", ["model.layers.edges.filters="]),
        ("cnnbp train bars.yaml --set 'model.init=ze", ["model.init=zeros"]),
    ],
)
def test_answers_without_numpy(folder: Path, line: str, offered: list[str]) -> None:
    answers, heavy = answer(line, folder)
    found = [text.split("\t")[0] for text in answers]
    assert found == offered
    assert heavy == ["False"]


def start_up(shell: str) -> list[str]:
    return {
        "bash": ["bash", "--norc", "--noprofile", "-i"],
        "zsh": ["zsh", "-f", "-i"],
        "fish": ["fish", "--no-config", "-i"],
    }[shell]


SWITCH_ON = {
    "bash": "bind 'set enable-bracketed-paste off'; source <(cnnbp completion bash)",
    "zsh": "autoload -U compinit && compinit -D -u; source <(cnnbp completion zsh)",
    "fish": "cnnbp completion fish | source",
}

TYPED = [
    ("cnnbp summ\tx", ["summary", "x"]),
    ("cnnbp train ba\tx", ["train", "bars.yaml", "x"]),
    ("cnnbp train bars.yaml --max\t3", ["train", "bars.yaml", "--max-steps", "3"]),
    ("cnnbp train bars.yaml --set train.optimizer.le\t3", [..., "--set", "train.optimizer.learning_rate=3"]),
    ("cnnbp train bars.yaml --set train.optimizer.type=adam\tw\t", [..., "--set", "train.optimizer.type=adamw"]),
    ("cnnbp train bars.yaml --set train.optimizer.type=r\tx", [..., "--set", "train.optimizer.type=rmsprop", "x"]),
    ("cnnbp train bars.yaml --set=dtype=float6\tx", [..., "--set=dtype=float64", "x"]),
    ("cnnbp summary bars.yaml --set model.layers.ed\tfil\t8", [..., "--set", "model.layers.edges.filters=8"]),
    ("cnnbp init pytor\tx", ["init", "pytorch-mnist", "x"]),
    ("cnnbp evaluate ru\tb\tx", ["evaluate", "runs/bars-1", "x"]),
    ("cnnbp train bars.yaml --out not\tx", [..., "--out", "notes.txt", "x"]),
]


@pytest.fixture
def typing(folder: Path) -> Iterator[Callable[[str, str], list[str]]]:
    """Type into an interactive shell on a terminal, and return the arguments that `cnnbp` then gets."""
    pty = pytest.importorskip("pty")
    (folder / "bin").mkdir()
    program = folder / "bin" / "cnnbp"
    program.write_text(
        '#!/bin/sh\nif [ -n "$_CNNBP_COMPLETE" ] || [ "$1" = completion ]; then\n'
        f'exec "{sys.executable}" -m cnnbp_cli "$@"\nfi\n'
        "printf '<<'; printf '%s|' \"$@\"; printf '>>\\n'\n",
        encoding="utf-8",
    )
    program.chmod(0o755)
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "TERM": "dumb", "HOME": str(folder)}
    started: dict[str, tuple[int, int]] = {}

    def read_until(terminal: int, mark: str, seconds: float = 30) -> str:
        text, end = "", time.monotonic() + seconds
        while mark not in text and time.monotonic() < end:
            if select.select([terminal], [], [], 0.1)[0]:
                text += os.read(terminal, 65536).decode("utf-8", "replace")
        assert mark in text, text
        return text

    def type_in(shell: str, keys: str) -> list[str]:
        if shell not in started:
            pid, terminal = pty.fork()
            if pid == 0:
                os.chdir(folder)
                os.execvpe(start_up(shell)[0], start_up(shell), environment)
            started[shell] = pid, terminal
            os.write(terminal, f"{SWITCH_ON[shell]}; cnnbp ready\r".encode())
            read_until(terminal, "<<ready|>>")
        _, terminal = started[shell]
        for part in keys.split("\t")[:-1]:
            os.write(terminal, f"{part}\t".encode())
            time.sleep(0.05)
        os.write(terminal, f"{keys.split(chr(9))[-1]}\r".encode())
        return read_until(terminal, "|>>").rpartition("<<")[2].partition("|>>")[0].split("|")

    yield type_in
    for pid, terminal in started.values():
        os.close(terminal)
        os.kill(pid, 9)
        os.waitpid(pid, 0)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells(typing: Callable[[str, str], list[str]], shell: str) -> None:
    if not shutil.which(shell):
        pytest.skip(f"needs {shell}")
    for keys, expected in TYPED:
        found = typing(shell, keys)
        assert found == ([*keys.split()[1:3], *expected[1:]] if expected[0] is ... else expected), (keys, found)
