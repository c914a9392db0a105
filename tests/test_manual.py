"""`cnnbp docs`: every page is in the index and can be shown; the manual page is one that groff reads without a word."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from cli.registered import commands
from typer.testing import CliRunner

from cnnbp_cli.cli.app import app
from cnnbp_cli.diagnosis.registry import RULES
from cnnbp_cli.diagnosis.rules import load_rules
from cnnbp_cli.manual import page, rules, topics

ROOT = Path(__file__).parents[1]


def docs(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["docs", *arguments], env={"COLUMNS": "80"}, prog_name="cnnbp")
    return done.exit_code, done.stdout, done.stderr


def test_the_index_is_complete() -> None:
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"} | {"rules/README.md"}
    assert {topic.path for topic in topics()} == pages
    assert len(topics()) == len(pages)
    assert all(topic.name == Path(topic.path).stem for topic in topics() if topic.name != "rules")
    load_rules()
    assert set(rules()) == set(RULES)
    assert not {topic.name for topic in topics()} & {*rules()}


def test_the_list_has_every_topic() -> None:
    code, text, errors = docs()
    assert (code, errors) == (0, "")
    assert all(any(line.split()[:1] == [topic.name] for line in text.splitlines()) for topic in topics())


@pytest.mark.parametrize("word", ["runs", "runs.md", "docs/runs.md", "Runs"])
def test_a_pipe_gets_the_markdown(word: str) -> None:
    assert docs(word) == (0, (ROOT / "docs" / "runs.md").read_text(encoding="utf-8"), "")


def test_every_topic_and_every_rule_has_its_page() -> None:
    for topic in topics():
        assert page(topic.name) == (ROOT / "docs" / topic.path).read_text(encoding="utf-8")
    for rule in rules():
        assert page(rule) == (ROOT / "docs" / "rules" / f"{rule}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("run", "there is no page on 'run', did you mean 'runs'?"),
        ("dead_rely", "there is no page on 'dead_rely', did you mean 'dead-relu'?"),
        ("qqq", "there is no page on 'qqq'; `cnnbp docs` lists them"),
        ("gradcheck", "there is no page on 'gradcheck'; `cnnbp help gradcheck` explains the command"),
    ],
)
def test_a_word_without_a_page_names_the_nearest(word: str, message: str) -> None:
    assert docs(word) == (2, "", f"error: {message}\n")


def on_a_terminal(*arguments: str, lines: int = 30, columns: int = 80, **environment: str) -> str:
    """Call `cnnbp docs` on a terminal of a size, and return what it writes there."""
    pty = pytest.importorskip("pty")
    import fcntl
    import struct
    import termios

    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    unset = ("NO_COLOR", "COLUMNS", "LINES", "PAGER", "MANPAGER")
    inherited = {name: value for name, value in os.environ.items() if name not in unset}
    inherited |= {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color"} | environment
    program = [sys.executable, "-m", "cnnbp_cli", "docs", *arguments]
    with subprocess.Popen(program, stdin=child, stdout=child, stderr=child, env=inherited, close_fds=True) as done:
        os.close(child)
        text = b""
        while True:
            try:
                part = os.read(parent, 65536)
            except OSError:  # nobody has the terminal any more
                break
            if not part:
                break
            text += part
    os.close(parent)
    assert done.returncode == 0
    return text.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("columns", [80, 120])
def test_a_terminal_gets_it_laid_out(columns: int) -> None:
    plain = on_a_terminal("runs", columns=columns, PAGER="", NO_COLOR="1")
    assert "\x1b[3" not in plain
    assert "](" not in plain
    assert "```" not in plain
    assert max(map(len, plain.splitlines())) <= min(columns, 100)
    assert "What a run keeps" in plain
    assert "\x1b[" in on_a_terminal("runs", columns=columns, PAGER="")


def test_a_pager_shows_what_is_longer_than_the_screen(tmp_path: Path) -> None:
    pager = tmp_path / "pager"
    pager.write_text("#!/bin/sh\necho PAGED\ncat >/dev/null\n", encoding="utf-8")
    pager.chmod(0o755)
    assert "PAGED" in on_a_terminal("runs", PAGER=str(pager))
    assert "PAGED" not in on_a_terminal("runs", lines=1000, PAGER=str(pager))
    assert "PAGED" not in on_a_terminal("runs", PAGER=str(pager), TERM="dumb")


def test_the_manual_page_has_every_command_and_option() -> None:
    code, text, errors = docs("--man")
    assert (code, errors) == (0, "")
    assert text.isascii()
    for name, command in commands().items():
        assert f'.SS "cnnbp {name}"'.replace("-", "\\-") in text
        for param in command.params:
            word = param.opts[0] if param.param_type_name == "option" else str(param.metavar)
            assert word.replace("-", "\\-").replace("…", "\\[u2026]") in text
    assert docs("--man", "runs")[0] == 2


def test_the_page_that_is_installed_is_up_to_date() -> None:
    (kept,) = (ROOT / "man").iterdir()
    assert kept.read_text(encoding="utf-8") == docs("--man")[1], f"cnnbp docs --man > man/{kept.name} renews it"
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = settings["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["shared-data"] == {f"man/{kept.name}": f"share/man/man1/{kept.name}"}


@pytest.mark.skipif(not shutil.which("groff"), reason="needs groff")
def test_groff_reads_the_manual_page_without_a_warning() -> None:
    program = ["groff", "-man", "-Tutf8", "-ww", "-rLL=80n"]
    done = subprocess.run(program, input=docs("--man")[1], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "cnnbp train" in done.stdout
