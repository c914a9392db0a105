"""What the benchmarks share: children with a clean environment, and the memory of all processes of a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # this repository's package, installed or not
TUNING = ("OPENBLAS_", "OMP_", "MKL_", "GOTO_", "KMP_", "TORCH", "ATEN_")


def clean_environment() -> dict[str, str]:
    """Return the environment without what tunes a numeric library, and with this repository's package."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(TUNING)}
    return kept | {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), kept.get("PYTHONPATH", "")]))}


class Child:
    """A long-lived process that answers every line with a line of JSON.

    Parameters
    ----------
    arguments : str
        A Python program and its arguments.
    """

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            env=clean_environment(),
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, request: Any) -> Any:
        """Send a request and return the answer; None when the child has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return None
        line = self._process.stdout.readline()
        return json.loads(line) if line else None

    def end(self) -> None:
        """Close its input, at which it leaves."""
        self._process.communicate()


def serve(answer: Any) -> None:
    """Answer every line of standard input, as `Child` expects it."""
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


class PeakMemory:
    """Watches how much memory a process and all its descendants hold together, on Linux.

    Pages that several processes share count once in all (the proportional set size).

    Attributes
    ----------
    mebibytes : float
        The peak so far; NaN where it cannot be read.
    """

    def __init__(self, pid: int, every: float = 0.05) -> None:
        self.mebibytes = 0.0 if Path("/proc/self/smaps_rollup").exists() else float("nan")
        self._pid, self._every = pid, every
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(self._every):
            self.mebibytes = max(self.mebibytes, sum(map(_pss, _family(self._pid))))


def _family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(member for child in children for member in _family(int(child)))]


def _pss(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)


def show_table(header: list[str], rows: list[list[str]]) -> None:
    """Print rows under a header, the first column at the left, the others at the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, ["-" * width for width in widths], *rows):
        first, *rest = (
            cell.ljust(w) if k == 0 else cell.rjust(w) for k, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join([first, *rest]).rstrip(), flush=True)


def write_json(path: str | None, document: Any) -> None:
    """Write a document where the user asked for it."""
    if path is not None:
        Path(path).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
