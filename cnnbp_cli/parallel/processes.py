"""Processes of one program: how they are started, share memory, and end with their parent.

They are forked where that is safe, and so share everything with the parent at no cost; else they are spawned, and get
what they need through pipes and shared memory. Nothing of it has a name in the file system, so nothing is left behind
whatever happens to a process.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from multiprocessing.connection import Connection
from multiprocessing.context import ForkContext, SpawnContext
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from cnnbp_cli.core.types import Array, Shape
from cnnbp_cli.errors import UserError
from cnnbp_cli.parallel.blas import set_blas_threads

POLL_SECONDS = 0.2
"""The time between two looks at other processes."""

StartMethod = ForkContext | SpawnContext
"""How `multiprocessing` starts processes and shares memory with them."""


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def start_method() -> StartMethod:
    """Return `fork` where it is safe, which it is not on macOS, nor in a process with threads; else `spawn`."""
    forking = hasattr(os, "sched_getaffinity") and threading.active_count() == 1
    return multiprocessing.get_context("fork") if forking else multiprocessing.get_context("spawn")


def forks(method: StartMethod) -> bool:
    """Return whether processes begin with all that the parent has."""
    return method.get_start_method() == "fork"


class WorkersError(UserError):
    """Worker processes that the system does not let start."""


class Child(NamedTuple):
    """A process that was started, and what it sends; that is at its end once the process has ended."""

    process: BaseProcess
    messages: Connection


def start_process(
    method: StartMethod,
    adopt: Callable[[Child], None],
    program: Callable[..., None],
    *args: Any,
    script: bool = False,
) -> None:
    """Start a process that runs `program` with a connection to send messages to the parent, and the arguments.

    The process leaves Ctrl-C to the parent, uses one thread for matrix products, and ends soon after the parent.

    Parameters
    ----------
    method : StartMethod
    adopt : callable
        Called with the process before Ctrl-C can interrupt anything, so that whoever ends processes knows it.
    program : callable
        A function of a module, so that it can be spawned.
    args
        What it needs besides; arrays should be `SharedArray`.
    script : bool
        Whether they have objects of classes that the user's script defines. If not, a process that is spawned does
        not run it once more, and it may do without an ``if __name__ == "__main__"``.
    """
    with _had("no process can be started"):
        messages, sender = method.Pipe(duplex=False)
    with (
        _interrupts_held_back(),
        nullcontext() if script else _without_script(),
        _had("no process can be started"),
    ):
        arguments = (os.getpid(), forks(method), program, sender, *args)
        process: BaseProcess = method.Process(target=_begin, args=arguments, daemon=True)
        process.start()
        sender.close()
        adopt(Child(process, messages))


def _begin(parent: int, forked: bool, program: Callable[..., None], sender: Connection, *args: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides, and says so
    if forked and sys.platform == "linux":
        # At once, and even while it is stopped. A process that was spawned would end with its parent's thread.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=exit_with_parent, args=(parent,), daemon=True).start()
    set_blas_threads(1)
    program(sender, *args)


def exit_with_parent(parent: int) -> None:
    """End this process soon after its parent, whatever it is doing at the time."""
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    os._exit(1)


PR_SET_PDEATHSIG = 1
"""Linux's number of the request to be sent a signal when the parent ends."""

STOPPED_SECONDS = 10.0
"""How long a process may be stopped (Ctrl-Z, SIGSTOP, a debugger) before the parent says that it waits for it."""


class StoppedProcesses:
    """Looks after processes that somebody has stopped: what waits for them would wait for ever, without a word."""

    def __init__(self) -> None:
        self._since: dict[int, float] = {}
        self._looked = 0.0

    def look(self, processes: Iterable[tuple[str, int]], *, go_on: bool = False) -> None:
        """Say it once, by the log of the package, where a process has been stopped for `STOPPED_SECONDS`.

        Parameters
        ----------
        processes : iterable of (str, int)
            What each is called, and its number.
        go_on : bool
            Continue them, without a word: they are to end in good order.
        """
        now = time.monotonic()
        if now - self._looked > 10 * POLL_SECONDS:  # this process did not run either, or did not wait
            self._since.clear()
        self._looked = now
        for name, pid in processes:
            if not _is_stopped(pid):
                self._since.pop(pid, None)
            elif go_on:
                os.kill(pid, signal.SIGCONT)
            elif now - self._since.setdefault(pid, now) > STOPPED_SECONDS:
                self._since[pid] = math.inf
                import logging

                logging.getLogger("cnnbp").warning(
                    f"{name} (process {pid}) is stopped, and the others wait for it: continue it with "
                    f"`kill -CONT {pid}`, or end all with `kill {os.getpid()}`"
                )


def _is_stopped(pid: int) -> bool:
    """Tell whether a process has been stopped; false where the system does not say."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] in (b"T", b"t")
    except OSError:
        return False


def cause_of_death(exitcode: int | None) -> str:
    """Say how a process ended that did not say it itself."""
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        return f"was killed by {name}" + (", perhaps for lack of memory" if name == "SIGKILL" else "")
    return f"ended with exit code {exitcode}"


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Keep from processes what the parent decides about, until they ignore it; they inherit what is held back."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # Whoever handles the others asks the parent to stop, which tells its workers.
    handled = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) not in (signal.SIG_DFL, None)]
    held = {signal.SIGINT, *handled}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _without_script() -> Iterator[None]:
    """Let processes start without the user's script, which `multiprocessing` looks for in this module."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def shared_bytes(method: StartMethod, count: int) -> Any:
    """Return zeroed memory that processes started like this share with the parent."""
    if forks(method):
        return mmap.mmap(-1, max(1, count))  # takes nothing of /dev/shm, which containers keep small
    with _had(SHARED_MEMORY):
        return method.RawArray("B", max(1, count))


def semaphore(method: StartMethod) -> Any:
    """Return a semaphore that nobody has released yet."""
    with _had(SHARED_MEMORY):
        return method.Semaphore(0)


SHARED_MEMORY = "shared memory (/dev/shm) cannot be had"


@contextmanager
def _had(what: str) -> Iterator[None]:
    """Say what the system refuses, where it has no room, or a limit, or no right to it."""
    try:
        yield
    except OSError as error:
        raise WorkersError(f"{what}: {error.strerror or error}; make room, or set train.workers=1") from None


class SharedArray:
    """An array that is pickled as a place in shared memory instead of a copy."""

    def __init__(self, method: StartMethod, array: Array) -> None:
        self._memory = shared_bytes(method, array.nbytes)
        self._shape: Shape = array.shape
        self._dtype = array.dtype
        self.array[...] = array

    @property
    def array(self) -> Array:
        count = int(np.prod(self._shape))
        return np.frombuffer(self._memory, self._dtype, count).reshape(self._shape)
