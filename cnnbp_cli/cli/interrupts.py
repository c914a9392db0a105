"""Ctrl-C during a long computation: the first asks it to stop in good order, the second stops it at once."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType, TracebackType


class Interrupts:
    """Catches the interrupt signal while the block runs; calling it tells whether there was one."""

    def __init__(self) -> None:
        self._asked = False

    def __call__(self) -> bool:
        return self._asked

    def __enter__(self) -> Interrupts:
        self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        if sys.__stderr__ is not None:  # not through a buffer, which may be in use at this very moment
            os.write(sys.__stderr__.fileno(), b"\nstopping after this step; press Ctrl-C again to stop at once\n")
