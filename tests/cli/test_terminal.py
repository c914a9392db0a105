"""What every table keeps at every width, and what must never reach a pipe."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cli.bars import BARS, Command

COMMANDS = (
    ["summary", "bars.yaml"],
    ["gradcheck", "bars.yaml", "--directions", "1", "--elements", "1"],
    ["gradnorms", "bars.yaml", "--steps", "2"],
    ["data", "info", "bars.yaml"],
    ["init"],
)


def numbers(text: str) -> set[str]:
    """Return every number in a text, without those in its layers' names."""
    return set(re.findall(r"(?<![\w.])\d[\d,.]*(?:e[+-]\d+)?", text))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_every_width_shows_every_number(cnnbp: Command, command: list[str]) -> None:
    wide = cnnbp(*command, columns=200)
    assert wide.code == 0
    for columns in (40, 80, 120):
        narrow = cnnbp(*command, columns=columns)
        assert max(map(len, narrow.lines)) <= columns
        assert "…" not in narrow.stdout
        if command[0] != "init" and "no room for" not in narrow.stderr:  # whose sentences have numbers that may fold
            assert numbers(narrow.stdout) == numbers(wide.stdout)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_no_escape_codes_in_a_pipe(cnnbp: Command, command: list[str]) -> None:
    done = cnnbp(*command)
    assert "\x1b" not in done.stdout + done.stderr


def run(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    (folder / "bars.yaml").write_text(BARS, encoding="utf-8")
    root = str(Path(__file__).parents[2])
    everything = {**os.environ, "PYTHONPATH": root, "COLUMNS": "100", **environment}
    command = [sys.executable, "-m", "cnnbp_cli", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, env=everything, timeout=60)


def test_ascii_where_the_encoding_is_not_unicode(tmp_path: Path) -> None:
    done = run("summary", "bars.yaml", folder=tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert done.stdout.isascii()
    assert b"bars: input 1x6x6, float32" in done.stdout
    assert b"\\u" not in done.stdout


def test_ascii_messages_where_the_encoding_is_not_unicode(tmp_path: Path) -> None:
    arguments = ["validate", "bars.yaml", "--set", "model.layers.edges.kernel_size=9"]
    done = run(*arguments, folder=tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 2
    assert b"input 1x6x6 -> edges" in done.stderr


def test_names_in_any_script_do_not_break_an_ascii_terminal(tmp_path: Path) -> None:
    done = run("summary", "bars.yaml", "--set", "name=größe", folder=tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert done.stdout.startswith(b"gr\\xf6\\xdfe: input")


def test_colors_can_be_asked_for_and_declined(tmp_path: Path) -> None:
    norms = ["gradnorms", "bars.yaml", "--steps", "1"]
    asked = run(*norms, folder=tmp_path, FORCE_COLOR="1", TERM="xterm-256color")
    assert b"\x1b[" in asked.stdout
    declined = run(*norms, folder=tmp_path, FORCE_COLOR="1", NO_COLOR="1", TERM="xterm-256color")
    assert b"\x1b[" not in declined.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_a_message(tmp_path: Path) -> None:
    (tmp_path / "bars.yaml").write_text(BARS, encoding="utf-8")
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "cnnbp_cli", "summary", "bars.yaml"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=60,
        )
    assert done.returncode == 2
    assert done.stderr == b"error: cannot write: No space left on device\n"


@pytest.mark.skipif(os.name == "nt", reason="pipes break differently there")
def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "bars.yaml").write_text(BARS, encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, "-m", "cnnbp_cli", "train", "bars.yaml", "--format", "json", "--quiet", "--epochs", "200"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=60) == 141
    assert process.stderr.read() == b""
    process.stderr.close()


def test_a_keyboard_interrupt_leaves_with_130(cnnbp: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    import cnnbp_cli.analysis.summary

    def interrupted(model: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cnnbp_cli.analysis.summary, "summary", interrupted)
    done = cnnbp("summary", "bars.yaml")
    assert (done.code, done.stderr) == (130, "interrupted\n")


def test_a_lack_of_memory_is_a_message(cnnbp: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    import cnnbp_cli.analysis.summary

    def exhausted(model: object) -> None:
        raise MemoryError

    monkeypatch.setattr(cnnbp_cli.analysis.summary, "summary", exhausted)
    done = cnnbp("summary", "bars.yaml")
    assert done.code == 2
    assert done.stderr == (
        "error: out of memory; try a smaller train.batch_size or data.limit, and see the network with cnnbp summary\n"
    )


def test_a_defect_is_not_hidden(cnnbp: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    import cnnbp_cli.analysis.summary

    def broken(model: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(cnnbp_cli.analysis.summary, "summary", broken)
    with pytest.raises(ZeroDivisionError, match="a defect"):
        cnnbp("summary", "bars.yaml")
