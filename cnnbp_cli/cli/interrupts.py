"""Ctrl-C, SIGTERM and SIGHUP ask a long computation to save a checkpoint and stop; a second Ctrl-C stops it at once.

A second SIGTERM does not: some programs send it both to the process and to its group. SIGHUP comes when the terminal is
gone, as with a lost connection. What is written there from then on goes nowhere, so that it cannot fail. A program
that was started to outlive its terminal, as by `nohup`, ignores the signal.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType, TracebackType

HANGUP = getattr(signal, "SIGHUP", None)  # not on Windows


class Interrupts:
    """Catches the signals while the block runs; calling it tells whether there was one."""

    def __init__(self) -> None:
        self._asked = False

    def __call__(self) -> bool:
        return self._asked

    def __enter__(self) -> Interrupts:
        numbers = [signal.SIGINT, signal.SIGTERM]
        if HANGUP is not None and signal.getsignal(HANGUP) != signal.SIG_IGN:
            numbers.append(HANGUP)
        streams = [stream for stream in (sys.__stdout__, sys.__stderr__) if stream is not None]
        self._terminals = [stream.fileno() for stream in streams if stream.isatty()]  # a lost one is none any more
        self._before = {number: signal.signal(number, self._ask) for number in numbers}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if number == HANGUP:
            self._leave_terminal()
        if self._asked:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        self._asked = True
        if sys.__stderr__ is not None:  # not through a buffer, which may be in use at this very moment
            os.write(sys.__stderr__.fileno(), b"\nstopping after this step; press Ctrl-C again to stop at once\n")

    def _leave_terminal(self) -> None:
        """Let what is still written to the terminal go nowhere."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for terminal in self._terminals:
            os.dup2(nowhere, terminal)
        os.close(nowhere)
