"""Ctrl-C and SIGTERM during a long computation ask it to stop in good order; a second Ctrl-C stops it at once.

A second SIGTERM does not: some programs send it both to the process and to its group.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType, TracebackType


class Interrupts:
    """Catches both signals while the block runs; calling it tells whether there was one."""

    def __init__(self) -> None:
        self._asked = False

    def __call__(self) -> bool:
        return self._asked

    def __enter__(self) -> Interrupts:
        self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        self._asked = True
        if sys.__stderr__ is not None:  # not through a buffer, which may be in use at this very moment
            os.write(sys.__stderr__.fileno(), b"\nstopping after this step; press Ctrl-C again to stop at once\n")
