"""The scripts of `examples/`, each run as people run it, on a network that trains in no time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cli.bars import BARS

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "examples").glob("*.sh"))

pytestmark = pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")


@pytest.fixture
def script(tmp_path: Path):  # type: ignore[no-untyped-def]
    """Return a function that runs a script in a folder with `bars.yaml`; `cnnbp` is this interpreter's."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "cnnbp"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m cnnbp_cli "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    (tmp_path / "bars.yaml").write_text(BARS, encoding="utf-8")

    def run(name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
        everything = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), **environment}
        command = ["bash", str(ROOT / "examples" / name), *arguments]
        return subprocess.run(command, cwd=tmp_path, env=everything, capture_output=True, text=True, timeout=120)

    return run


def test_every_script_has_its_test() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    assert SCRIPTS
    assert [path.name for path in SCRIPTS if f'script("{path.name}"' not in text] == []
    assert all("\nset -euo pipefail\n" in path.read_text(encoding="utf-8") for path in SCRIPTS)
    assert all(os.access(path, os.X_OK) for path in SCRIPTS)


@pytest.mark.parametrize("path", [*SCRIPTS, ROOT / "cnnbp_cli/cli/shells/cnnbp.bash"], ids=lambda path: path.name)
def test_shellcheck_finds_nothing(path: Path) -> None:
    beside = Path(sys.executable).with_name("shellcheck")  # where pip puts it
    program = str(beside) if beside.exists() else shutil.which("shellcheck")
    if not program:
        pytest.skip("needs shellcheck")
    done = subprocess.run([program, str(path)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.slow
def test_sweep_lists_the_best_first(script, tmp_path: Path) -> None:
    if not shutil.which("jq"):
        pytest.skip("needs jq")
    done = script("sweep.sh", "bars.yaml", "0.0001", "0.05", "1e30", OUT="out", JOBS="2", EPOCHS="2")
    assert done.returncode == 0, done.stderr
    header, *rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert header == ["loss", "accuracy", "run"]
    assert [row[2] for row in rows][:2] == ["out/0.05", "out/0.0001"]
    assert float(rows[0][0]) < float(rows[1][0])
    assert "learning_rate: 0.05" in (tmp_path / "out/0.05/config.yaml").read_text(encoding="utf-8")
    again = script("sweep.sh", "bars.yaml", "0.0001", "0.05", OUT="out", EPOCHS="2")
    assert again.stdout.splitlines()[1:3] == done.stdout.splitlines()[1:3]


def test_sweep_stops_at_a_config_that_is_wrong(script) -> None:
    done = script("sweep.sh", "gone.yaml", "0.1", OUT="out")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "error: gone.yaml: no such file\n")


def test_pre_commit_lets_no_wrong_gradient_pass(script, tmp_path: Path) -> None:
    if not shutil.which("git"):
        pytest.skip("needs git")

    def git(*arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True, capture_output=True, timeout=60)

    git("init", "--quiet")
    (tmp_path / "configs").mkdir()
    shutil.move(tmp_path / "bars.yaml", tmp_path / "configs/a name.yaml")
    homework = (ROOT / "examples/homework_conv.yaml").read_text(encoding="utf-8")
    layers = str(ROOT / "examples/homework_conv.py")
    (tmp_path / "configs/wrong.yaml").write_text(
        homework.replace("type: homework_conv,", "type: homework_conv, mistake: last_row,"), encoding="utf-8"
    )
    git("add", "configs/a name.yaml")
    done = script("pre-commit.sh", LAYERS=layers)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    git("add", "configs/wrong.yaml")
    done = script("pre-commit.sh", LAYERS=layers)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("configs/wrong.yaml\n")
    assert "WRONG: " in done.stderr


def test_ci_gate_fails_below_the_limit(script, tmp_path: Path) -> None:
    done = script("ci-gate.sh", "bars.yaml", "0", EPOCHS="1")
    assert done.returncode == 0, done.stderr
    assert 0 <= json.loads(done.stdout)["accuracy"] <= 1
    (tmp_path / "poor.yaml").write_text(BARS.replace("learning_rate: 0.02", "learning_rate: 1e-9"), encoding="utf-8")
    done = script("ci-gate.sh", "poor.yaml", "0.9999", EPOCHS="1")
    assert done.returncode == 1
    assert "is below 99.99%" in done.stderr
    assert script("ci-gate.sh", "gone.yaml", "0").returncode == 2


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("timeout"), reason="needs timeout")
def test_nightly_goes_on_where_it_stopped(script, tmp_path: Path) -> None:
    for epochs in ("1", "2"):
        done = script("nightly.sh", "bars.yaml", "runs/long", EPOCHS=epochs)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert ", going on from step 4\n" in (tmp_path / "runs/long.log").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "runs/long.json").read_text(encoding="utf-8"))["count"] == 20
    done = script("nightly.sh", "bars.yaml", "runs/long", EPOCHS="1000000", LIMIT="2s")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = script("nightly.sh", "gone.yaml", "runs/none")
    assert (done.returncode, done.stderr) == (2, "error: gone.yaml: no such file\n")
