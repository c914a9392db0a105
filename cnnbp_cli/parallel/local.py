"""Workers as processes of this machine, which add up their arrays in shared memory.

The parent is worker 0. Workers meet at barriers. A parent that waits there polls the others meanwhile: what one of
them raised it raises itself, and when one has died without a message it raises `WorkerDiedError`; either way it ends
the rest.
"""

from __future__ import annotations

import atexit
import os
import pickle
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from cnnbp_cli.core.types import Array
from cnnbp_cli.errors import UserError
from cnnbp_cli.parallel.blas import blas_threads
from cnnbp_cli.parallel.processes import (
    POLL_SECONDS,
    Child,
    StartMethod,
    StoppedProcesses,
    available_cores,
    cause_of_death,
    semaphore,
    shared_bytes,
    start_method,
    start_process,
)

SMALL = 1 << 16
"""The values that `all_reduce` adds up at a time: batch statistics, sums, confusion counts are seldom more."""

SPINS = 3000
"""How often to look for the others before going to sleep: about as long as a wake-up takes."""

yield_core: Callable[[], None] = getattr(os, "sched_yield", lambda: None)
"""Let others have the core: where there are fewer cores than processes, it is they who are waited for."""


class WorkerDiedError(UserError):
    """A worker process ended before the run did."""


class Shared:
    """What all workers of one run hold: shared arrays and the semaphores of the barrier.

    Parameters
    ----------
    method : StartMethod
        How workers will be started.
    size : int
        Workers, the parent included.
    values : int
        The length of the parameter vector.
    dtype : float32 or float64
    """

    def __init__(self, method: StartMethod, size: int, values: int, dtype: np.dtype[Any]) -> None:
        self.size = size
        self.dtype = dtype
        self._vector = shared_bytes(method, values * dtype.itemsize)
        self._gradients = shared_bytes(method, size * values * dtype.itemsize)
        self._small = shared_bytes(method, 2 * size * SMALL * 16)
        self.semaphores = [[semaphore(method) for _ in range(size)] for _ in range(2)]

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


class LocalWorker:
    """One worker's communicator.

    Attributes
    ----------
    rank, size : int
    vector : Array, shape (values,)
        The parameters, the same memory for all workers.
    gradient : Array, shape (values,)
        This worker's own gradient, which the others can read.
    """

    def __init__(self, shared: Shared, rank: int, poll_children: Callable[[], None]) -> None:
        self.rank, self.size = rank, shared.size
        self.vector = shared.vector
        self._gradients = shared.gradients
        self.gradient = self._gradients[rank]
        self._small = shared.small
        self._semaphores = shared.semaphores
        self._poll_children = poll_children
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
            yield_core()
        while not semaphore.acquire(True, POLL_SECONDS):
            self._poll_children()

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

    def reduce_from(self, start: int) -> None:
        """Do nothing: the others read the gradient where it is, once all of it is there."""

    def reduce_share(self) -> Array:
        """Return the sum of all workers' gradients over this worker's share of them."""
        self.barrier()
        mine = self.share(self.gradient.size)
        total = self._gradients[0, mine] + self._gradients[1, mine]
        for gradient in self._gradients[2:]:
            total += gradient[mine]
        return total

    def publish(self) -> None:
        """Do nothing: all workers have the same parameters."""

    def gather(self, part: Array) -> Array:
        """Return all workers' shares of a vector as one, in the order of their ranks."""
        whole = self._gradients[0]
        whole[self.share(whole.size)] = part
        self.barrier()
        gathered = whole.copy()
        self.barrier()
        return gathered


Program = Callable[[LocalWorker, Any], None]
"""What a worker runs: called with its communicator and the payload."""


@contextmanager
def local_workers(
    size: int,
    values: int,
    dtype: np.dtype[Any],
    program: Program,
    payload: Callable[[StartMethod], Any],
    *,
    script: bool = True,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[LocalWorker]:
    """Start `size - 1` workers that run `program`, and be worker 0 meanwhile.

    Parameters
    ----------
    size : int
    values, dtype
        The length and the type of the parameter vector.
    program : callable
        A function of a module, so that it can be spawned.
    payload : callable
        Given the start method, returns what the program needs; arrays in it should be `SharedArray`.
    script : bool
        Whether the payload has objects of classes that the user's script defines; see `start_process`.
    stop : callable
        Whether the program is asked to stop: then a worker that is stopped itself is continued, so that it can.

    Raises
    ------
    WorkerDiedError
        When a worker is killed.
    Exception
        Whatever a worker raises.
    """
    method = start_method()
    shared = Shared(method, size, values, dtype)
    content = payload(method)
    team: list[Child] = []
    stopped = StoppedProcesses()

    def poll_children() -> None:
        for rank, (process, failures) in enumerate(team, 1):
            if failures.poll():
                try:
                    error = failures.recv()
                except EOFError:  # it died without a message
                    process.join()
                    error = WorkerDiedError(_death_message(rank, process.exitcode))
                raise error
        named = ((f"worker {rank}", process.pid or 0) for rank, (process, _) in enumerate(team, 1))
        stopped.look(named, go_on=stop())

    def kill() -> None:
        for process, _ in team:
            if process.is_alive():
                process.kill()

    atexit.register(kill)  # multiprocessing would send SIGTERM, which may be held back, and wait
    try:
        for rank in range(1, size):
            start_process(method, team.append, _work, shared, rank, program, content, script=script)
        with blas_threads(1):
            yield LocalWorker(shared, 0, poll_children)
        for process, _ in team:
            process.join(timeout=5)
    finally:
        atexit.unregister(kill)
        kill()
        for process, failures in team:
            process.join()
            process.close()
            failures.close()


def _work(failures: Connection, shared: Shared, rank: int, program: Program, payload: Any) -> None:
    """Be one of the other workers."""
    try:
        program(LocalWorker(shared, rank, lambda: None), payload)
    except Exception as error:
        failures.send(_portable(error, rank))


def _portable(error: Exception, rank: int) -> Exception:
    """Return the error as one that gets through a pipe, with a note where it comes from."""
    note = f"raised in worker {rank}:\n{''.join(traceback.format_exception(error))}"
    try:
        whole: Exception = pickle.loads(pickle.dumps(error))
    except Exception:
        whole = RuntimeError(f"{type(error).__name__}: {error}")
    whole.add_note(note)
    return whole


def _death_message(rank: int, exitcode: int | None) -> str:
    cause = cause_of_death(exitcode)
    return f"worker {rank} {cause}; the last checkpoint is intact: continue with --resume, or with --workers 1"
