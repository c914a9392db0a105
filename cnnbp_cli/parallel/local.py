"""Workers as processes of this machine, which add up their arrays in shared memory.

The parent is worker 0. The others are forked where that is possible, and so share the data set with it
at no cost; else they are spawned, and get it once, through shared memory. Nothing of it has a name in
the file system, so nothing is left behind whatever happens to a process.

Workers meet at barriers. A parent that waits there looks after the others meanwhile: what one of them raised
it raises itself, and when one has gone without a word it raises `WorkerDiedError`; either way it ends the
rest. A worker ends itself soon after its parent has gone.
"""

from __future__ import annotations

import atexit
import mmap
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from multiprocessing.connection import Connection
from multiprocessing.context import ForkContext, SpawnContext
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any

import numpy as np

from cnnbp_cli.core.types import Array, Shape
from cnnbp_cli.errors import UserError
from cnnbp_cli.parallel.blas import blas_threads, set_blas_threads

SMALL = 1 << 16
"""The values that `all_reduce` adds up at a time: batch statistics, sums, confusion counts are seldom more."""

SPINS = 3000
"""How often to look for the others before going to sleep: about as long as a wake-up takes."""

LOOK_AFTER = 0.2  # seconds between two looks at the other processes

give_way: Callable[[], None] = getattr(os, "sched_yield", lambda: None)
"""Let others have the core: where there are fewer cores than processes, it is they who are waited for."""

Context = ForkContext | SpawnContext


class WorkerDiedError(UserError):
    """A worker process ended before the run did."""


class Shared:
    """What all workers of one run hold: shared arrays and the semaphores of the barrier.

    Parameters
    ----------
    context : multiprocessing context
        Says how workers will be started.
    size : int
        Workers, the parent included.
    values : int
        The length of the parameter vector.
    dtype : float32 or float64
    """

    def __init__(self, context: Context, size: int, values: int, dtype: np.dtype[Any]) -> None:
        self.size = size
        self.dtype = dtype
        self._vector = shared_bytes(context, values * dtype.itemsize)
        self._gradients = shared_bytes(context, size * values * dtype.itemsize)
        self._small = shared_bytes(context, 2 * size * SMALL * 16)
        self.semaphores = [[context.Semaphore(0) for _ in range(size)] for _ in range(2)]

    @property
    def vector(self) -> Array:
        """The parameters, shape (values,)."""
        return np.frombuffer(self._vector, self.dtype)

    @property
    def gradients(self) -> Array:
        """Each worker's gradient, shape (size, values)."""
        return np.frombuffer(self._gradients, self.dtype).reshape(self.size, -1)

    @property
    def small(self) -> Array:
        """Where `all_reduce` adds up, bytes of shape (2, size, SMALL * 16): two, to be used in turns."""
        return np.frombuffer(self._small, np.uint8).reshape(2, self.size, -1)


def shared_bytes(context: Context, count: int) -> Any:
    """Return zeroed memory that workers of this context share with the parent."""
    if context.get_start_method() == "fork":
        return mmap.mmap(-1, max(1, count))  # takes nothing of /dev/shm, which containers keep small
    return context.RawArray("B", max(1, count))


class LocalWorkers:
    """One worker's communicator.

    Attributes
    ----------
    rank, size : int
    vector : Array, shape (values,)
        The parameters, the same memory for all workers.
    gradient : Array, shape (values,)
        This worker's own gradient, which the others can read.
    """

    def __init__(self, shared: Shared, rank: int, look_after: Callable[[], None]) -> None:
        self.rank, self.size = rank, shared.size
        self.vector = shared.vector
        self._gradients = shared.gradients
        self.gradient = self._gradients[rank]
        self._small = shared.small
        self._semaphores = shared.semaphores
        self._look_after = look_after
        self._turn = self._small_turn = 0
        self._spins = SPINS if shared.size <= available_cores() else 1

    def barrier(self) -> None:
        """Wait until all workers are here.

        Two sets of semaphores are used in turns: a worker may already stand at the next barrier while
        another has yet to leave this one.
        """
        semaphores = self._semaphores[self._turn]
        self._turn ^= 1
        for other in range(self.size):
            if other != self.rank:
                semaphores[other].release()
        for _ in range(self.size - 1):
            self._acquire(semaphores[self.rank])

    def _acquire(self, semaphore: Any) -> None:
        for _ in range(self._spins):
            if semaphore.acquire(False):
                return
            give_way()
        while not semaphore.acquire(True, LOOK_AFTER):
            self._look_after()

    def all_reduce(self, array: Array) -> Array:
        """Return the sum of all workers' arrays, added up in the order of their ranks.

        One barrier is enough, as the memory of the call before is still to be read by others, but that
        of the call before it is not.
        """
        if array.size > SMALL:
            flat = array.reshape(-1)
            parts = [self.all_reduce(flat[start : start + SMALL]) for start in range(0, flat.size, SMALL)]
            return np.concatenate(parts).reshape(array.shape)
        slots = self._small[self._small_turn, :, : array.nbytes]
        self._small_turn ^= 1
        slices = slots.view(array.dtype).reshape(self.size, *array.shape)
        slices[self.rank] = array
        self.barrier()
        total: Array = slices[0].copy()
        for part in slices[1:]:
            total += part
        return total

    def share(self, count: int) -> slice:
        """Return the part of `count` values that is this worker's."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def reduce_share(self) -> Array:
        """Return the sum of all workers' gradients over this worker's share of them."""
        self.barrier()
        mine = self.share(self.gradient.size)
        total = self._gradients[0, mine] + self._gradients[1, mine]
        for gradient in self._gradients[2:]:
            total += gradient[mine]
        return total

    def gather(self, part: Array) -> Array:
        """Return all workers' shares of a vector as one, in the order of their ranks."""
        whole = self._gradients[0]
        whole[self.share(whole.size)] = part
        self.barrier()
        gathered = whole.copy()
        self.barrier()
        return gathered


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def start_context() -> Context:
    """Return `fork` where it is safe, which it is not on macOS, nor in a process with threads; else `spawn`."""
    forking = hasattr(os, "sched_getaffinity") and threading.active_count() == 1
    return multiprocessing.get_context("fork") if forking else multiprocessing.get_context("spawn")


Program = Callable[[LocalWorkers, Any], None]
"""What a worker runs: called with its communicator and the payload."""


@contextmanager
def local_workers(
    size: int,
    values: int,
    dtype: np.dtype[Any],
    program: Program,
    payload: Callable[[Context], Any],
    *,
    script: bool = True,
) -> Iterator[LocalWorkers]:
    """Start `size - 1` workers that run `program`, and be worker 0 meanwhile.

    Parameters
    ----------
    size : int
    values, dtype
        The length and the type of the parameter vector.
    program : callable
        A function of a module, so that it can be spawned.
    payload : callable
        Given the context, returns what the program needs; arrays in it should be `SharedArray`.
    script : bool
        Whether the payload has objects of classes that the user's script defines. If not, workers that are
        spawned do not run it once more, and it may do without an ``if __name__ == "__main__"``.

    Raises
    ------
    WorkerDiedError
        When a worker is killed.
    Exception
        Whatever a worker raises.
    """
    context = start_context()
    shared = Shared(context, size, values, dtype)
    content = payload(context)
    team: list[tuple[BaseProcess, Connection]] = []

    def look_after() -> None:
        for rank, (process, failures) in enumerate(team, 1):
            if failures.poll():
                try:
                    error = failures.recv()
                except EOFError:  # it has gone without a word
                    process.join()
                    error = WorkerDiedError(_obituary(rank, process.exitcode))
                raise error

    def kill() -> None:
        for process, _ in team:
            if process.is_alive():
                process.kill()

    atexit.register(kill)  # multiprocessing would send SIGTERM, which may be held back, and wait
    try:
        with interrupts_held_back(), nullcontext() if script else without_script():
            for rank in range(1, size):
                failures, tell = context.Pipe(duplex=False)
                process: BaseProcess = context.Process(
                    target=_work, args=(shared, rank, os.getpid(), program, content, tell), daemon=True
                )
                process.start()
                tell.close()
                team.append((process, failures))
        with blas_threads(1):
            yield LocalWorkers(shared, 0, look_after)
        for process, _ in team:
            process.join(timeout=5)
    finally:
        atexit.unregister(kill)
        kill()
        for process, failures in team:
            process.join()
            process.close()
            failures.close()


@contextmanager
def interrupts_held_back() -> Iterator[None]:
    """Keep Ctrl-C from workers that do not ignore it yet; they inherit what is held back."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    handled = signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, None)
    held = {signal.SIGINT, signal.SIGTERM} if handled else {signal.SIGINT}  # whoever handles it asks the parent to stop
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def without_script() -> Iterator[None]:
    """Let processes start without the user's script, which `multiprocessing` looks for in this module."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _work(shared: Shared, rank: int, parent: int, program: Program, payload: Any, tell: Connection) -> None:
    """Be one of the other workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides, and tells between two steps
    threading.Thread(target=end_with, args=(parent,), daemon=True).start()
    set_blas_threads(1)
    try:
        program(LocalWorkers(shared, rank, lambda: None), payload)
    except Exception as error:
        tell.send(_portable(error, rank))


def end_with(parent: int) -> None:
    """End this process soon after its parent, whatever it is doing at the time."""
    while os.getppid() == parent:
        time.sleep(LOOK_AFTER)
    os._exit(1)


def _portable(error: Exception, rank: int) -> Exception:
    """Return the error as one that gets through a pipe, with a note where it comes from."""
    note = f"raised in worker {rank}:\n{''.join(traceback.format_exception(error))}"
    try:
        whole: Exception = pickle.loads(pickle.dumps(error))
    except Exception:
        whole = RuntimeError(f"{type(error).__name__}: {error}")
    whole.add_note(note)
    return whole


def cause_of_end(exitcode: int | None) -> str:
    """Say how a process ended that did not say it itself."""
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        return f"was killed by {name}" + (", perhaps for lack of memory" if name == "SIGKILL" else "")
    return f"ended with exit code {exitcode}"


def _obituary(rank: int, exitcode: int | None) -> str:
    cause = cause_of_end(exitcode)
    return f"worker {rank} {cause}; the last checkpoint is intact: continue with --resume, or with --workers 1"


class SharedArray:
    """An array that is pickled as a place in shared memory instead of a copy."""

    def __init__(self, context: Context, array: Array) -> None:
        self._memory = shared_bytes(context, array.nbytes)
        self._shape: Shape = array.shape
        self._dtype = array.dtype
        self.array[...] = array

    @property
    def array(self) -> Array:
        count = int(np.prod(self._shape))
        return np.frombuffer(self._memory, self._dtype, count).reshape(self._shape)
