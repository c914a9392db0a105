"""What lies in a run directory and is no file of the run: it is neither read, nor written to, nor removed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli.bars import Command
from cli.registered import commands

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes and links")

FILES = ("config.yaml", "events.jsonl", "metrics.csv", "checkpoints/best.npz", "checkpoints/step-00000099.npz")

READERS = {
    "evaluate": "{run}",
    "predict": "{run} image.npy",
    "gradnorms": "{run}",
    "plot": "{run}",
    "compare": "{run} {run}",
    "diagnose": "{run}",
    "export": "{run} out.npz",
    "export --to tensorboard": "{run} board",
    "trace": "{run}",
    "train --resume": "{run}",
    "train bars.yaml --resume": "--out {run}",
}


@pytest.fixture
def run(cnnbp: Command, bars_run: Path) -> Path:
    import numpy as np

    np.save("image.npy", np.zeros((1, 1, 6, 6), np.uint8))
    return Path(shutil.copytree(bars_run, "run"))


def put(kind: str, path: Path) -> str:
    """Put something that is no file in a place; return what it is called."""
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
        return "a named pipe"
    if kind == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(os.path.relpath(path))
        return "a socket"
    path.symlink_to("/dev/zero")
    return "a device"


@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
@pytest.mark.parametrize("call", READERS)
def test_no_command_reads_what_is_no_file(cnnbp: Command, run: Path, call: str, kind: str) -> None:
    for name in FILES:
        path = run / name
        kept = path.read_bytes() if path.exists() else None
        what = put(kind, path)
        done = cnnbp(*call.split(), *READERS[call].format(run=run).split())
        if call.startswith("train bars") and kind == "device":
            what = "a symbolic link"  # it is not even looked where it leads
        assert (done.code, done.stdout, done.stderr) == (
            2,
            "",
            f"error: {path}: is {what}; a run consists of regular files: remove it\n",
        )
        path.unlink()
        if kept is not None:
            path.write_bytes(kept)


@pytest.mark.parametrize("name", [".lock", *FILES, "checkpoints", "config-history"])
def test_a_run_is_not_written_through_links(cnnbp: Command, run: Path, name: str) -> None:
    victim = Path("victim")
    if Path(name).suffix or name == ".lock":
        victim.write_text("mine")
    else:
        victim.mkdir()
        (victim / "step-00000001.npz").write_text("mine")
    shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(victim.absolute())
    for call in (
        ["train", "bars.yaml", "--epochs", "3", "--out", run, "--resume"],
        ["train", "bars.yaml", "--out", run],
    ):
        done = cnnbp(*call)
        assert done.code == 2
        assert done.stderr.startswith(f"error: {run / name}: is a symbolic link; ")
    texts = [path.read_text() for path in ([victim] if victim.is_file() else victim.iterdir())]
    assert texts == ["mine"]


def test_a_link_put_in_place_at_the_last_moment(tmp_path: Path) -> None:
    """Between the look and the opening: the opening itself follows no link, and no pipe keeps it waiting."""
    from cnnbp_cli.files import appending, replacing

    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "link").symlink_to(victim)
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "/dev/null"):
        with pytest.raises(OSError):  # noqa: PT011
            appending(tmp_path / name)
    (tmp_path / f".new.cnnbp-{os.getpid()}.tmp").symlink_to(victim)
    with replacing(tmp_path / "new") as file:
        file.write(b"new")
    assert ((tmp_path / "new").read_bytes(), victim.read_text()) == (b"new", "mine")


def test_an_output_does_not_take_the_place_of_a_socket(cnnbp: Command, bars_run: Path) -> None:
    """Renaming would put a file there."""
    path = Path("out.npz")
    what = put("socket", path)
    done = cnnbp("export", bars_run, path)
    assert (done.code, done.stderr) == (2, f"error: out.npz: cannot be written: it is {what}\n")
    assert path.is_socket()


def test_a_folder_of_somebody_else_keeps_its_files(cnnbp: Command) -> None:
    theirs = [".notes.tmp", ".config.yaml.1.tmp", ".other.cnnbp-1.tmp", ".config.yaml.cnnbp-x.tmp", "notes.txt"]
    for name in theirs:
        Path(name).write_text("mine")
    assert cnnbp("train", "bars.yaml", "--quiet", "--out", ".").code == 0
    assert [Path(name).read_text() for name in theirs] == ["mine"] * len(theirs)


@pytest.mark.parametrize("name", ["config.yaml", "metrics.csv", "checkpoints/best.npz", ".lock"])
@pytest.mark.parametrize("resume", [True, False])
def test_files_of_the_same_name_are_not_replaced(cnnbp: Command, name: str, resume: bool) -> None:
    Path("theirs/checkpoints").mkdir(parents=True)
    path = Path("theirs", name)
    path.write_text("mine")
    done = cnnbp("train", "bars.yaml", "--quiet", "--out", "theirs", *(["--resume"] if resume else []))
    assert done.code == 2
    assert done.stderr in (
        f"error: theirs: contains no run, but another {path.name}; choose another folder with --out\n",
        "error: theirs: the run directory cannot be written: .lock is a file of something else\n",
    )
    assert path.read_text() == "mine"


def test_what_living_processes_write_is_left_alone(cnnbp: Command, run: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        leftover, alive = (run / f".config.yaml.cnnbp-{pid}.tmp" for pid in (dead(), other.pid))
        for path in (leftover, alive):
            path.write_text("half")
        assert cnnbp("train", "bars.yaml", "--epochs", "3", "--quiet", "--out", run, "--resume").code == 0
        assert (leftover.exists(), alive.exists()) == (False, True)
        other.communicate(b"\n")


def dead() -> int:
    """Return the number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def takers_of_values() -> list[Any]:
    """Return every parameter of every command that takes a text."""
    return [
        pytest.param(name, parameter, id=f"{name}-{parameter.name}")
        for name, command in sorted(commands().items())
        for parameter in command.params
        if not getattr(parameter, "is_flag", False)
    ]


@pytest.mark.parametrize(("name", "parameter"), takers_of_values())
def test_an_empty_value_is_an_error(cnnbp: Command, name: str, parameter: Any) -> None:
    """An empty path, as of a variable that is not set, would be the current folder."""
    if parameter.param_type_name == "option":
        call = [parameter.opts[0], ""]
        needed = [one for one in commands()[name].params if one.param_type_name == "argument" and one.required]
        call += ["bars.yaml"] * len(needed)
    else:
        call = [""] * (1 + [one.name for one in commands()[name].params].index(parameter.name))
    done = cnnbp(*name.split(), *call)
    assert done.code == 2
    assert "is empty" in done.stderr
    assert sorted(os.listdir()) == ["bars.yaml"]
