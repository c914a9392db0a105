"""A command on a terminal, for what only a terminal gets."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

ROOT = Path(__file__).parents[2]


def on_terminal(*arguments: str, folder: Path, columns: int = 80, **environment: str) -> tuple[int, str]:
    """Call `cnnbp` with its streams on a terminal, and return its exit code and all that it wrote there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR", "FORCE_COLOR")}
    call = subprocess.Popen(
        [sys.executable, "-m", "cnnbp_cli", *arguments],
        cwd=folder,
        env=kept | {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color"} | environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    text = bytearray()
    while True:
        try:
            text += os.read(ours, 65536)
        except OSError:  # the last one who could write there is gone
            break
    os.close(ours)
    return call.wait(timeout=60), text.decode().replace("\r\n", "\n")
