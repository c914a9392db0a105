"""Help and usage errors come before any heavy import; every command and option has its sentence."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from cli.registered import commands

from cnnbp_cli import __version__

WATCHED = ("numpy", "pydantic", "yaml", "typer.rich_utils")

PROGRAM = f"""
import sys
from cnnbp_cli.cli.main import main
try:
    main()
finally:
    print([name for name in {WATCHED} if name in sys.modules], file=sys.stderr)
"""


def start(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Call the command line in a fresh interpreter; the last line of its errors lists the heavy imports."""
    return subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["train", "--help"], 0),
        (["data", "info", "--help"], 0),
        ([], 2),
        (["trian"], 2),
        (["train", "toy.yaml", "--epoch", "3"], 2),
    ],
)
def test_help_and_usage_errors_import_nothing_heavy(arguments: list[str], code: int) -> None:
    done = start(*arguments)
    assert done.returncode == code
    assert done.stderr.splitlines()[-1] == "[]"


def test_missing_argument_imports_neither_numpy_nor_yaml() -> None:
    done = start("train")  # Typer itself converts what is missing with pydantic
    assert done.returncode == 2
    assert "missing CONFIG" in done.stderr
    assert done.stderr.splitlines()[-1] in ("[]", "['pydantic']")


def test_version() -> None:
    assert start("--version").stdout == f"cnnbp {__version__}\n"


def test_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "cnnbp_cli", "--version"], capture_output=True, text=True, timeout=60)
    assert done.stdout == f"cnnbp {__version__}\n"


def test_all_commands_are_there() -> None:
    assert set(commands()) >= {
        *("train", "evaluate", "predict", "summary", "gradcheck", "gradnorms"),
        *("validate", "init", "schema", "data info"),
    }


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_command_and_option_is_explained(name: str) -> None:
    command = commands()[name]
    assert command.help
    assert command.help.endswith(".")
    assert f"cnnbp {name}" in command.epilog
    for parameter in command.params:
        assert parameter.help, f"{name}: {parameter.name} has no help"
        assert parameter.help.rstrip()[-1] in ".", f"{name}: the help of {parameter.name} is no sentence"


def test_a_mistyped_command_gets_a_suggestion() -> None:
    assert "did you mean 'train'" in start("trian").stderr


def test_a_mistyped_option_gets_a_suggestion() -> None:
    assert "--epochs" in start("train", "toy.yaml", "--epoch", "3").stderr


@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize(("name", "command"), commands().items(), ids=commands())
def test_help_is_plain_text_that_fits(
    name: str, command: Any, columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit) as exit:
        command.main(["--help"], prog_name=f"cnnbp {name}")
    assert exit.value.code == 0
    text, _, samples = capsys.readouterr().out.partition("\n\nExamples:\n")
    assert text.startswith(f"Usage: cnnbp {name} [OPTIONS]")
    assert samples.startswith(f"  cnnbp {name}") or name in samples
    assert all(len(line) <= columns for line in text.splitlines())
    assert not any(noise in text for noise in ("None", "<bool>", "{", "╭"))
    for parameter in command.params:
        assert (parameter.opts[0] if parameter.param_type_name == "option" else parameter.metavar) in text
