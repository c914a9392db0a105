"""The documents are true: every snippet runs, every command is described, every link leads somewhere."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "examples" / "README.md"]
PAGES = [page for page in PAGES if page.exists()]
NEEDS = {"export.md": ("onnx", "onnxruntime", "safetensors", "tensorboard", "torch")}
"""Packages without which a page's snippets cannot run."""

RUNNABLE = [
    pytest.param(
        page, marks=pytest.mark.skipif(not all(map(find_spec, NEEDS.get(page.name, ()))), reason="needs extras")
    )
    for page in PAGES
    if page.name != "custom-layer.md"  # tests/inspect/test_custom_layer.py runs that
]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def snippets(page: Path, language: str) -> list[str]:
    return [body for kind, body in FENCE.findall(page.read_text(encoding="utf-8")) if kind == language]


def cnnbp(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cnnbp_cli", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("configs", "examples"):
        if (ROOT / name).exists():
            shutil.copytree(ROOT / name, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.name)
def test_every_snippet_runs_after_those_above_it(page: Path, folder: Path) -> None:
    for kind, body in FENCE.findall(page.read_text(encoding="utf-8")):
        if kind == "console":
            for command in re.findall(r"^\$ (.*)$", body, re.MULTILINE):
                program, *arguments = shlex.split(command)
                assert program == "cnnbp", f"{command}: a console snippet runs cnnbp"
                done = cnnbp(*arguments, cwd=folder)
                assert done.returncode == 0, f"{command}\n{done.stderr}"
        elif kind == "python":
            program = [sys.executable, "-W", "error", "-c", body]
            done = subprocess.run(program, cwd=folder, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{body}\n{done.stderr}"


@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.name)
def test_every_yaml_snippet_is_a_config(page: Path, folder: Path) -> None:
    for body in snippets(page, "yaml"):
        (folder / "snippet.yaml").write_text(body, encoding="utf-8")
        done = cnnbp("validate", "snippet.yaml", cwd=folder)
        assert done.returncode == 0, f"{body}\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def commands() -> list[str]:
    """Return every command there is, subcommands as `data info`."""
    import typer

    from cnnbp_cli.cli.app import app

    group = typer.main.get_command(app)
    names: list[str] = []
    for name, command in sorted(group.commands.items()):
        inner = getattr(command, "commands", {})
        names += [f"{name} {sub}" for sub in sorted(inner)] or [name]
    return names


def test_every_command_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    missing = [name for name in commands() if f"| `cnnbp {name}" not in readme]
    assert not missing


def test_the_readme_opens_with_the_two_commands() -> None:
    assert snippets(ROOT / "README.md", "sh")[0].splitlines()[0].startswith("make demo")
    assert snippets(ROOT / "README.md", "sh")[1].splitlines() == ["pip install .", "cnnbp train configs/lenet5.yaml"]


def test_the_complaint_in_the_readme_is_the_real_one(folder: Path) -> None:
    good = snippets(ROOT / "README.md", "yaml")[0]
    shown = next(text for text in snippets(ROOT / "README.md", "text") if text.startswith("my.yaml:"))
    (folder / "my.yaml").write_text(good.replace("conv2d", "conv2"), encoding="utf-8")
    done = cnnbp("validate", "my.yaml", cwd=folder)
    assert done.returncode == 2
    assert done.stderr == shown
