"""How far the reading of a folder of pictures is, on standard error, where it takes long enough to be asked about."""

from __future__ import annotations

import os
import sys
from time import perf_counter
from typing import TYPE_CHECKING

from cnnbp_cli.report.terminal import console, note
from cnnbp_cli.report.text import count

if TYPE_CHECKING:
    from rich.progress import Progress

    from cnnbp_cli.data.progress import Reading

PATIENCE = 0.7  # seconds without a word
LINE_EVERY = 10.0  # seconds between two lines of a log


class ReadingProgress:
    """A bar on a terminal, a line every ten seconds elsewhere."""

    def __init__(self) -> None:
        self._started: float | None = None
        self._next_line = 0.0
        self._bar: Progress | None = None

    def __call__(self, reading: Reading) -> None:
        """Show an event."""
        if reading.what != "pictures":  # those have a line of their command's
            return
        now = perf_counter()
        if self._started is None:
            self._started, self._next_line = now, now + LINE_EVERY
        if reading.done == reading.total:
            self.close()
        elif sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            if self._bar is None and now > self._started + PATIENCE:
                self._bar = _bar()
                self._bar.add_task("pictures")
                self._bar.start()
            if self._bar is not None:
                self._bar.update(self._bar.task_ids[0], completed=reading.done, total=reading.total)
        elif now > self._next_line:
            self._next_line = now + LINE_EVERY
            note(f"{reading.origin}: {count(reading.done)} of {count(reading.total)} pictures read")

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()
        self._bar = self._started = None


def _bar() -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    out = console(sys.stderr)
    out.soft_wrap = False
    return Progress(*columns, console=out, transient=True, redirect_stdout=False, redirect_stderr=False)
