"""A run trained from a small config, and a way to call the command line in this process."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli.bars import BARS, Command, Outcome
from typer.testing import CliRunner

from cnnbp_cli.cli.app import app


@pytest.fixture
def cnnbp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Call `cnnbp` in an empty folder that has `bars.yaml`."""
    monkeypatch.chdir(tmp_path)
    Path("bars.yaml").write_text(BARS, encoding="utf-8")

    def call(*arguments: str | Path, columns: int = 100, stdin: str | None = None) -> Outcome:
        environment = {"COLUMNS": str(columns), "NO_COLOR": ""}
        result = CliRunner().invoke(app, [*map(str, arguments)], input=stdin, env=environment, prog_name="cnnbp")
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return call


@pytest.fixture(scope="session")
def bars_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with two epochs of `bars.yaml`, gradient norms recorded."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "bars.yaml").write_text(BARS, encoding="utf-8")
    arguments = ["train", str(folder / "bars.yaml"), "--out", str(folder / "run"), "--quiet", "--grad-norms"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    return folder / "run"
