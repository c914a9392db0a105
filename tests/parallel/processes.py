"""A look at processes and at what they share, from outside."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from cnnbp_cli.core.types import Array


def shared_files() -> set[str]:
    """Return the names under which this process shares memory or a dead one did; others are left to the living."""
    names = {path.name for pattern in ("pym-*", "psm_*", "sem.*") for path in Path("/dev/shm").glob(pattern)}
    if names:
        for other in Path("/proc").glob("[0-9]*/maps"):
            with suppress(OSError):  # ended meanwhile, or somebody else's
                if other.parent.name != str(os.getpid()):
                    names -= set(re.findall(r"/dev/shm/(\S+)", other.read_text()))
    return names


def distance(one: Array, other: Array) -> float:
    """Return the L2 norm of the difference, relative to that of the first vector."""
    return float(np.linalg.norm(one - other) / np.linalg.norm(one))


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait for a condition; return whether it came true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def is_running(pid: int) -> bool:
    """Tell whether a process is there and not merely waiting to be buried."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def children_of(pid: int) -> list[int]:
    """Return the processes that `pid` has started, on Linux."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def start(*arguments: str, **options: object) -> subprocess.Popen[str]:
    """Start a Python program that finds the package, in a process group of its own."""
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    return subprocess.Popen(
        [sys.executable, *arguments],
        env=environment,
        start_new_session=True,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,  # type: ignore[call-overload]
    )
