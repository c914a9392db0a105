"""One line on a terminal's standard error that says how far something is, and is gone when it is done.

It appears only on a terminal, and only for what takes longer than half a second. It never wraps, and a terminal that
was resized meanwhile, which may have folded it, is left clean.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from time import perf_counter

from rich.cells import cell_len

from cnnbp_cli.core.types import Tick
from cnnbp_cli.data.progress import Reading, listening
from cnnbp_cli.report.terminal import is_unicode, plain, width
from cnnbp_cli.report.text import duration

PATIENCE = 0.5
"""Seconds that something may take without a word."""

EVERY = 0.2  # seconds between two updates
BAR, WIDEST_BAR = 10, 40  # columns of a bar
ERASURE = "\r\x1b[K\x1b[J"
"""From the beginning of the line, where the cursor rests: a terminal that folds the line as it becomes narrower, even
before it tells its new width, keeps the cursor there, so that all of the line goes. The line itself goes first: what
tmux erases from the top of its screen down, it would keep among the lines above."""
NO_WRAP, WRAP = "\x1b[?7l", "\x1b[?7h"
"""Cut what does not fit, as a terminal may be narrower already than it has told; and fold it again."""


def is_live() -> bool:
    """Return whether standard error is a terminal where a line can be drawn again."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


class Line:
    """The line itself: words beside a bar."""

    def __init__(self) -> None:
        self._stream = sys.stderr
        self._drawn = False

    def draw(self, words: str, share: float | None = None) -> None:
        """Write words, and a bar where a share from 0 to 1 is known, over what was written before."""
        room = width() - 1  # the last column would fold it
        words = plain(words, self._stream)
        words = words if cell_len(words) <= room else words[: max(room - 1, 0)]
        across = min(room - cell_len(words) - 2, WIDEST_BAR)
        bar = ""
        if share is not None and across >= BAR:
            full, rest = ("━", "─") if is_unicode(self._stream) else ("#", "-")
            done = round(across * min(max(share, 0.0), 1.0))
            bar = _styled(full * done, "36") + _styled(rest * (across - done), "2") + "  "
        self._stream.write(f"{ERASURE}{NO_WRAP}{bar}{words}{WRAP}\r")
        self._stream.flush()
        self._drawn = True

    def erase(self) -> None:
        """Leave the line as it was before."""
        if self._drawn:
            self._stream.write(ERASURE)
            self._stream.flush()
            self._drawn = False


def _styled(text: str, code: str) -> str:
    return text if os.environ.get("NO_COLOR") or not text else f"\x1b[{code}m{text}\x1b[0m"


@contextmanager
def working(text: str) -> Iterator[Tick]:
    """Show how far the block is, with the time left, as often as it calls what it gets."""
    if not is_live():
        yield lambda done, total: None
        return
    line, started = Line(), perf_counter()
    due = started + PATIENCE

    def tick(done: int, total: int) -> None:
        nonlocal due
        now = perf_counter()
        if now >= due:
            due = now + EVERY
            line.draw(*said(text, done, total, now - started))

    try:
        yield tick
    finally:
        line.erase()


def said(text: str, done: int, total: int, seconds: float) -> tuple[str, float | None]:
    """Return what a line says of work that is partly done, and the share that is."""
    if not total:
        return f"{text}  {duration(seconds)}", None
    left = f"  {duration(seconds * (total - done) / done)} left" if done else ""
    return f"{text}  {done:,}/{total:,}{left}", done / total


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """Show that something goes on, and for how long it does; how far it is, as far as parts of it tell."""
    if not is_live():
        yield
        return
    line, started, over = Line(), perf_counter(), Event()
    part, begun = Reading("", 0, 0), started

    def hear(reading: Reading) -> None:
        nonlocal part, begun
        if (reading.origin, reading.total) != (part.origin, part.total) or reading.done < part.done:
            begun = perf_counter()
        part = reading

    def state() -> tuple[str, float | None]:
        if part.done < part.total:
            return said(text, part.done, part.total, perf_counter() - begun)
        return said(text, 0, 0, perf_counter() - started)

    def watch() -> None:
        if over.wait(PATIENCE):
            return
        while True:
            line.draw(*state())
            if over.wait(EVERY):
                return

    thread = Thread(target=watch, daemon=True)
    thread.start()
    try:
        with listening(hear):
            yield
    finally:
        over.set()
        thread.join()
        line.erase()
