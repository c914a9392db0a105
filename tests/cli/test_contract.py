"""What scripts may rely on, as laws over all commands: streams, formats, keys, widths, encodings, exit codes.

One table has a valid call of every command. A command that is registered but missing here fails.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import typer
from cli.bars import BARS, Command
from cli.registered import commands
from typer.testing import CliRunner

import cnnbp_cli.analysis.profile
from cnnbp_cli import export, load
from cnnbp_cli.cli.app import app
from cnnbp_cli.core.layers.dense import Dense
from cnnbp_cli.train.events import Event

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "shell.md").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Case:
    """A valid call: its arguments, and what is special about it."""

    arguments: str
    raw: bool = False
    """Whether the result is a text for a program, which no width folds."""
    notes: bool = False
    """Whether it says something on standard error, too."""
    missing: str = "gone.yaml"
    """Arguments that name what does not exist."""


CASES = {
    "train": Case("bars.yaml --epochs 1", notes=True),
    "evaluate": Case("RUN", missing="gone", notes=True),
    "predict": Case("RUN two.npy", missing="RUN gone.npy", notes=True),
    "summary": Case("bars.yaml"),
    "trace": Case("bars.yaml"),
    "gradcheck": Case("bars.yaml --directions 1 --elements 1"),
    "gradnorms": Case("bars.yaml --steps 2"),
    "compare": Case("RUN copy", missing="RUN gone"),
    "plot": Case("RUN", missing="gone"),
    "runs": Case("RUN", missing="gone"),
    "profile": Case("bars.yaml --steps 2"),
    "validate": Case("bars.yaml"),
    "config": Case("bars.yaml", raw=True),
    "init": Case("", missing="gone"),
    "schema": Case("", raw=True, missing="gone"),
    "docs": Case("", missing="gone"),
    "completion": Case("bash", raw=True, missing="gone"),
    "data info": Case("bars.yaml"),
    "data convert": Case("bars.yaml bars.npz", missing="gone.yaml bars.npz"),
    "diagnose": Case(
        "bars.yaml --steps 5 --select batch-norm-small-batch --set train.batch_size=6 "
        "--set model.layers.relu_1=batch_norm"
    ),
    "sweep": Case("bars.yaml --set train.optimizer.learning_rate=0.01,0.1 --jobs 1", notes=True),
    "export": Case("bars.yaml weights.npz", missing="gone.yaml weights.npz"),
    "import": Case("bars.onnx bars-again.yaml --weights again.npz --force", missing="gone.onnx again.yaml", notes=True),
}

ELSEWHERE = {"data fetch"}
"""Needs a server: `test_fetch_command.py` has one."""

ONNX = find_spec("onnx") is not None
"""What `import` needs: without it, nothing is said about that command here."""

if not ONNX:
    del CASES["import"]
    ELSEWHERE.add("import")

NAMES = sorted(set(commands()) - ELSEWHERE)
WIDTHS = (40, 60, 80, 100, 120, 160, 200)


def formats(name: str) -> list[str]:
    """Return what may follow `--format`."""
    command = commands()[name]
    options = [param for param in command.params if "--format" in param.opts]
    return [item.value for option in options for item in option.shell_complete(typer.Context(command), "")]


def of_format(word: str) -> list[str]:
    return [name for name in NAMES if word in formats(name)]


@pytest.fixture(autouse=True)
def ready(cnnbp: Command, bars_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put what the calls need into the empty folder."""
    shutil.copytree(bars_run, "copy")
    np.save("two.npy", np.zeros((2, 1, 6, 6), np.uint8))
    if ONNX:
        export(load(bars_run), "bars.onnx")
    monkeypatch.setattr(cnnbp_cli.analysis.profile, "PEAK_SIZE", 64)


@pytest.fixture
def words(bars_run: Path):  # type: ignore[no-untyped-def]
    """Return a function from a command's name to its whole call."""

    def call(name: str, arguments: str | None = None) -> list[str]:
        given = CASES[name].arguments if arguments is None else arguments
        return [*name.split(), *given.replace("RUN", str(bars_run)).split()]

    return call


def test_every_command_is_in_the_table() -> None:
    assert sorted(CASES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_results_and_progress_keep_to_their_streams(cnnbp: Command, words, name: str) -> None:
    for format in formats(name) or [None]:
        done = cnnbp(*words(name), *(["--format", format] if format else []))
        assert done.code == 0
        assert done.stdout.endswith("\n")
        assert bool(done.stderr) == CASES[name].notes
        assert "\x1b" not in done.stdout + done.stderr
        assert not any(line.endswith(" ") for line in done.lines)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if not CASES[name].raw])
def test_no_line_is_wider_than_the_terminal(cnnbp: Command, words, bars_run: Path, name: str) -> None:
    for columns in WIDTHS:
        done = cnnbp(*words(name), columns=columns)
        assert done.code == 0
        wide = [line for line in done.lines if len(line) > columns]
        assert all(str(bars_run) in line or line.lstrip().startswith("--set") for line in wide)  # they stay whole


@pytest.mark.parametrize("name", NAMES)
def test_help_fits_every_terminal(cnnbp: Command, name: str) -> None:
    for columns in WIDTHS:
        done = cnnbp(*name.split(), "--help", columns=columns)
        assert (done.code, done.stderr) == (0, "")
        assert max(map(len, done.lines)) <= columns


def documented(name: str, event: str = "") -> set[str]:
    """Return the keys that the document lists."""
    title = f"`{name}`, `{event}`" if event else f"`{name}`"
    (keys,) = re.findall(rf"^\| {title} \| (.*) \|$", PAGE, re.MULTILINE)
    return set(re.findall(r"`(\w+)`", keys))


@pytest.mark.parametrize("name", of_format("json"))
def test_json_has_the_documented_keys(cnnbp: Command, words, name: str) -> None:
    done = cnnbp(*words(name), "--format", "json")
    for text in done.lines if name in ("train", "gradnorms") else [done.stdout]:
        document = json.loads(text)
        assert set(document) == documented(name, document.get("event", ""))


def test_every_event_is_documented() -> None:
    for kind in get_args(Event):
        assert documented("train", kind.event) == {"event", *(field.name for field in fields(kind))}


NEGATIVE = [
    ("train", "bars.yaml --set train.optimizer.type=sgd --set train.optimizer.learning_rate=1e30", 1),
    ("evaluate", "RUN --split train --min-accuracy 1", 1),
    ("gradcheck", "bars.yaml", 1),
    ("validate", "bars.yaml gone.yaml bad.yaml", 2),
]


@pytest.mark.parametrize(("name", "arguments", "code"), NEGATIVE)
def test_a_negative_verdict_is_whole_json_and_csv_too(
    cnnbp: Command, words, name, arguments, code, monkeypatch
) -> None:  # type: ignore[no-untyped-def]
    Path("bad.yaml").write_text("data: [", encoding="utf-8")
    right = Dense.backward
    monkeypatch.setattr(Dense, "backward", lambda *given: (right(*given)[0], {**right(*given)[1], "bias": np.ones(2)}))
    done = cnnbp(*words(name, arguments), "--format", "json")
    assert done.code in (code, 0 if name == "evaluate" else code)  # where training has learnt everything
    for document in done.lines if name == "train" else [done.stdout]:
        assert isinstance(json.loads(document), dict)
    done = cnnbp(*words(name, arguments), "--format", "csv")
    assert len({len(row) for row in csv.reader(done.lines)}) == 1


@pytest.mark.parametrize("name", of_format("csv"))
def test_csv_is_a_header_and_rows_of_its_length(cnnbp: Command, words, name: str) -> None:
    header, *rows = csv.reader(cnnbp(*words(name), "--format", "csv").lines)
    assert rows
    assert {len(row) for row in rows} == {len(header)}
    assert len(set(header)) == len(header)


@pytest.mark.parametrize("name", NAMES)
def test_bad_input_is_a_message_and_code_2(cnnbp: Command, words, name: str) -> None:
    calls = [words(name, CASES[name].missing), [*words(name), "--nonsense"]]
    if "json" in formats(name):
        if name != "validate":  # whose JSON lists the problems
            calls.append([*words(name, CASES[name].missing), "--format", "json"])
        calls.append([*words(name), "--format", "nonsense"])
    for call in calls:
        done = cnnbp(*call)
        assert (done.code, done.stdout) == (2, ""), call
        assert done.stderr
        assert "Traceback" not in done.stderr


CONFIG_COMMANDS = [name for name in NAMES if any("CONFIG" in str(p.metavar) for p in commands()[name].params)]


@pytest.mark.parametrize("name", CONFIG_COMMANDS)
def test_a_config_may_come_from_standard_input(cnnbp: Command, words, name: str) -> None:
    if name == "evaluate":
        call = words(name, "RUN --data -")
    else:
        call = ["-" if word == "bars.yaml" else word for word in words(name)]
    done = cnnbp(*call, stdin=BARS)
    assert done.code == 0
    done = cnnbp(*call, stdin="data: nonsense")
    assert done.code == 2
    assert "<stdin>:1:7: unknown data source 'nonsense'" in done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_an_ascii_terminal_gets_stand_ins(cnnbp: Command, words, name: str) -> None:
    for options in ([], ["--help"]):
        done = CliRunner(charset="ascii").invoke(app, [*words(name), *options], prog_name="cnnbp")
        assert done.exit_code == 0
        assert done.stdout_bytes.isascii()
        if not CASES[name].raw:  # JSON has escapes of its own
            assert not re.search(rb"\\(u[0-9a-f]{4}|x[0-9a-f]{2})", done.stdout_bytes + done.stderr_bytes)


@pytest.mark.parametrize("name", NAMES)
def test_no_color_wins(cnnbp: Command, words, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    done = CliRunner().invoke(app, words(name), env={"NO_COLOR": "1", "TERM": "xterm-256color"}, prog_name="cnnbp")
    assert done.exit_code == 0
    assert "\x1b" not in done.stdout + done.stderr


def test_quiet_is_silent(cnnbp: Command, words) -> None:
    quiet = [name for name in NAMES if any("--quiet" in param.opts for param in commands()[name].params)]
    assert "train" in quiet
    for name in quiet:
        done = cnnbp(*words(name), "--quiet")
        assert (done.code, done.stderr) == (0, "")
        assert done.stdout


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="pipes break differently there")
@pytest.mark.parametrize("name", NAMES)
def test_nobody_listening(words, name: str) -> None:
    """A pipe that is closed already: no traceback, and the code of a shell."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "cnnbp_cli", *words(name)]
    for options, code in ([], 141), (["--help"], -signal.SIGPIPE):  # which shells call 141, too
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(
            [*command, *options], stdout=writer, stderr=subprocess.PIPE, env=environment, timeout=60, text=True
        )
        os.close(writer)
        assert done.returncode == code
        assert "Traceback" not in done.stderr
        assert "Exception" not in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("name", NAMES)
def test_an_output_that_is_full(words, name: str) -> None:  # type: ignore[no-untyped-def]
    """The result cannot be written: one message, also for help, and nothing more when the program ends."""
    command = [sys.executable, "-m", "cnnbp_cli", *words(name)]
    for options in ([], ["--help"]):
        with Path("/dev/full").open("wb") as full:
            done = subprocess.run([*command, *options], stdout=full, stderr=subprocess.PIPE, timeout=60, text=True)
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1] == "error: cannot write: No space left on device"
        assert (options == [] and CASES[name].notes) or done.stderr.count("\n") == 1
    for call in (["trian"], [*words(name), "--nonsense"]):  # the message itself cannot be written
        with Path("/dev/full").open("wb") as full:
            assert subprocess.run([*command[:3], *call], stderr=full, timeout=60).returncode == 2


@pytest.mark.skipif(not shutil.which("sh"), reason="needs a shell that closes streams")
@pytest.mark.parametrize(("call", "code"), [("train bars.yaml --epochs 1", 0), ("summary gone.yaml", 2), ("init -", 2)])
def test_no_standard_streams_at_all(call: str, code: int) -> None:
    command = [sys.executable, "-m", "cnnbp_cli", *call.split()]
    for closed in ("<&- >&- 2>&-", "<&- >&-"):
        shell = ["sh", "-c", f'exec "$@" {closed}', "sh", *command]
        done = subprocess.run(shell, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60, stderr=subprocess.PIPE)
        assert done.returncode == code
        assert b"Traceback" not in done.stderr
    if call.startswith("train"):  # whose files must not have become standard output
        events = Path("runs/bars-1/events.jsonl").read_text(encoding="utf-8").splitlines()
        assert all(isinstance(json.loads(event), dict) for event in events)
