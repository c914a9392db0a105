"""The documents are true: every snippet runs, every command is described, every link leads somewhere."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from cli.registered import commands

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "examples" / "README.md"]
PAGES = [page for page in PAGES if page.exists()]
NEEDS = {"export.md": ("onnx", "onnxruntime", "safetensors", "tensorboard", "torch")}
"""Packages without which a page's snippets cannot run."""

RUNNABLE = [
    pytest.param(
        page,
        marks=[
            pytest.mark.skipif(not all(map(find_spec, NEEDS.get(page.name, ()))), reason="needs extras"),
            *([] if page.name in ("README.md", "lesson.md") else [pytest.mark.slow]),
        ],
    )
    for page in PAGES
    if page.name != "custom-layer.md"  # tests/gradient_check/test_custom_layer.py runs that
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


def test_every_command_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    missing = [name for name in commands() if f"| `cnnbp {name}" not in readme]
    assert not missing


EXACT = {"summary", "validate", "export"}
"""Commands whose output is the same on every machine."""


def test_the_readme_shows_the_output_of_every_command(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    for body in snippets(ROOT / "README.md", "console"):
        for shown in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
            command, _, output = shown.partition("\n")
            assert output.strip(), command
            _, *arguments = shlex.split(command)
            if arguments[0] in EXACT and (folder / arguments[1]).exists():
                assert cnnbp(*arguments, cwd=folder).stdout == output


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


def test_the_overrides_in_the_document_are_real(folder: Path) -> None:
    page = ROOT / "docs" / "shell.md"
    overrides, complaint = (text for text in snippets(page, "text") if "fast.yaml" in text)
    lenet5 = "configs/lenet5.yaml"
    (folder / "fast.yaml").write_text(overrides, encoding="utf-8")
    done = cnnbp("config", lenet5, "--set-file", "fast.yaml", "--set", "seed=1", "--format", "json", cwd=folder)
    assert done.returncode == 0, done.stderr
    config = json.loads(done.stdout)
    assert (config["seed"], config["train"]["epochs"], config["train"]["optimizer"]["momentum"]) == (1, 1, 0.9)
    (folder / "fast.yaml").write_text(overrides.replace("epochs:", "epoch:"), encoding="utf-8")
    assert cnnbp("config", lenet5, "--set-file", "fast.yaml", cwd=folder).stderr == complaint


def test_the_completions_in_the_document_are_real() -> None:
    from cnnbp_cli.config.keys import complete_override, read_tree

    shown = next(text for text in snippets(ROOT / "docs" / "shell.md", "text") if "⇥" in text)
    root = read_tree(ROOT / "configs" / "lenet5.yaml")
    found = re.findall(r"--set (\S+)⇥\n(.*)", shown)
    assert found
    for typed, answers in found:
        assert sorted(text for text, _ in complete_override(typed, root) if text.startswith(typed)) == answers.split()
