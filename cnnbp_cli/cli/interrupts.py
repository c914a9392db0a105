"""What Ctrl-C does: exit code 130 at any time, and never a traceback.

While the program starts or ends there is nothing to put in order, and it leaves at once. A command is interrupted by an
exception, which lets it remove what is half done; a burst of Ctrl-C counts as one.

Ctrl-C, SIGTERM and SIGHUP ask a long computation to save a checkpoint and stop; a second Ctrl-C stops it at once. A
second SIGTERM does not: some programs send it both to the process and to its group. SIGHUP comes when the terminal is
gone, as with a lost connection. What is written there from then on goes nowhere, so that it cannot fail. A program
that was started to outlive its terminal, as by `nohup`, ignores the signal.
"""

from __future__ import annotations

import os
import signal
import sys
from time import monotonic
from types import FrameType, TracebackType

HANGUP = getattr(signal, "SIGHUP", None)  # not on Windows

INTERRUPTED = 130

BURST_SECONDS = 1.0
"""How long more of Ctrl-C is no news: what is half done is being removed."""


def take_over() -> None:
    """Let Ctrl-C end the program at once, from now on."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a background job ignores it
        signal.signal(signal.SIGINT, _leave)
        sys.unraisablehook = _leave_or_show


def ignore_from_now_on() -> None:
    """Let the program, which is over, keep its exit code: Python puts the system's handling back before it is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _leave(number: int, frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)


def _leave_or_show(unraisable: sys.UnraisableHookArgs) -> None:
    """Leave where the interrupt came at a moment, in a destructor for one, that no exception gets out of."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        os._exit(INTERRUPTED)
    sys.__unraisablehook__(unraisable)


class Interruptible:
    """While the block runs, Ctrl-C raises `KeyboardInterrupt`, once; only where `take_over` was called before."""

    def __enter__(self) -> None:
        self._raised_at: float | None = None
        if signal.getsignal(signal.SIGINT) is _leave:
            signal.signal(signal.SIGINT, self._interrupt)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if signal.getsignal(signal.SIGINT) == self._interrupt and self._raised_at is None:
            signal.signal(signal.SIGINT, _leave)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._raised_at is None and not _imports(frame):
            self._raised_at = monotonic()
            raise KeyboardInterrupt
        if self._raised_at is None or monotonic() - self._raised_at > BURST_SECONDS:
            os._exit(INTERRUPTED)


def _imports(frame: FrameType | None) -> bool:
    """Tell whether a module is being loaded: some turn an interrupt into an error of their own."""
    while frame is not None and frame.f_code.co_filename != "<frozen importlib._bootstrap>":
        frame = frame.f_back
    return frame is not None


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
            before = self._before[signal.SIGINT]
            if number == signal.SIGINT and callable(before):
                before(number, frame)
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
