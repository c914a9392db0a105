"""How far the reading of a folder of pictures is, on standard error, where it takes long enough to be asked about."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

from cnnbp_cli.report.live import EVERY, Line, is_live, said
from cnnbp_cli.report.terminal import note
from cnnbp_cli.report.text import count

if TYPE_CHECKING:
    from cnnbp_cli.data.progress import Reading

PATIENCE = 0.7  # seconds without a word
LINE_EVERY = 10.0  # seconds between two lines of a log


class ReadingProgress:
    """A line with a bar on a terminal, a line every ten seconds elsewhere."""

    def __init__(self) -> None:
        self._started: float | None = None
        self._due = 0.0
        self._line = Line()

    def __call__(self, reading: Reading) -> None:
        """Show an event."""
        if reading.what != "pictures":  # for the line of a command that has one
            return
        now = perf_counter()
        if self._started is None:
            self._started, self._due = now, now + (PATIENCE if is_live() else LINE_EVERY)
        if reading.done == reading.total:
            self._line.erase()
            self._started = None
        elif now >= self._due and is_live():
            self._due = now + EVERY
            self._line.draw(*said("pictures", reading.done, reading.total, now - self._started))
        elif now >= self._due:
            self._due = now + LINE_EVERY
            note(f"{reading.origin}: {count(reading.done)} of {count(reading.total)} pictures read")

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._line.erase()
