"""Workers as processes of any number of machines, started by an MPI launcher: `mpiexec -n 8 cnnbp train …`.

The first process runs the command. The others take no part in that: they load MPI and wait for programs, which the
first one sends them together with all they need. So nothing but the program itself has to lie on their machines.

The parameters are on every machine. Each worker updates its share and then all gather what the others did; gradients
are added up while the backward pass is still computing those of the layers before.
"""

from __future__ import annotations

import os
import pickle
import socket
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import Any, NamedTuple, NoReturn

import numpy as np

from cnnbp_cli.core.types import Array
from cnnbp_cli.errors import UserError
from cnnbp_cli.parallel.blas import blas_threads
from cnnbp_cli.parallel.launcher import Launch
from cnnbp_cli.parallel.lifeline import AFTERTHOUGHT_SECONDS, Lifeline, last_words

ORDERED_BYTES = 1 << 16
"""Sums of up to so many bytes, of all workers together, are added up in the order of their ranks by every worker: as
fast as MPI's own sums, which take as many messages, and the same bits everywhere, whichever MPI it is."""

BUCKET_BYTES = 1 << 20
"""Of the gradient, about how much is sent at a time while the backward pass runs: much less would cost messages."""

INTACT = "the last checkpoint is intact: continue with --resume, on as many processes as you like"

Receive = Callable[[], Any]
Program = Callable[["MpiWorker", Receive], None]
"""What the other workers run: called with their communicator, and with what receives the payload, part by part."""


class MpiError(UserError):
    """Processes of an MPI launcher that cannot work together."""


class MpiWorker:
    """One worker's communicator.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm
    values, dtype
        The length and the type of the parameter vector.

    Attributes
    ----------
    rank, size : int
    vector : Array, shape (values,)
        The parameters: a copy of each worker's own, equal after `publish`.
    gradient : Array, shape (values,)
        This worker's own gradient.
    """

    def __init__(self, comm: Any, values: int, dtype: np.dtype[Any]) -> None:
        from mpi4py import MPI

        self._mpi, self._comm = MPI, comm
        self.rank: int = comm.rank
        self.size: int = comm.size
        self.vector = np.empty(values, dtype)
        self.gradient = np.empty(values, dtype)
        self._cuts = [values * rank // self.size for rank in range(self.size + 1)]
        self._mine = self.share(values)
        self._sum = np.empty(self._mine.stop - self._mine.start, dtype)
        self._buckets = _buckets(self._cuts, max(1, BUCKET_BYTES // dtype.itemsize))
        self._to_send = list(self._buckets)
        self._requests: list[Any] = []

    def barrier(self) -> None:
        """Wait until all workers are here."""
        self._comm.Barrier()

    def all_reduce(self, array: Array) -> Array:
        """Return the sum of all workers' arrays."""
        array = np.ascontiguousarray(array)
        if array.nbytes * self.size > ORDERED_BYTES:
            total = np.empty_like(array)
            self._comm.Allreduce(array, total)
            return total
        parts = np.empty((self.size, *array.shape), array.dtype)
        self._comm.Allgather(array, parts)
        total = parts[0].copy()
        for part in parts[1:]:
            total += part
        return total

    def share(self, count: int) -> slice:
        """Return the part of `count` values that is this worker's."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def reduce_from(self, start: int) -> None:
        """Begin to add up gradients: those from `start` on are there."""
        while self._to_send and self._to_send[-1].start >= start:
            first, stop, counts = self._to_send.pop()
            own = slice(max(0, first - self._mine.start), max(0, stop - self._mine.start))
            self._requests.append(self._comm.Ireduce_scatter(self.gradient[first:stop], self._sum[own], counts))
        if self._requests:
            self._mpi.Request.Testall(self._requests)  # MPI gets on with its work only when it is called

    def reduce_share(self) -> Array:
        """Return the sum of all workers' gradients over this worker's share of them."""
        self.reduce_from(0)
        self._mpi.Request.Waitall(self._requests)
        self._requests.clear()
        self._to_send = list(self._buckets)
        return self._sum

    def publish(self) -> None:
        """Let all workers have what each of them did to its share of the parameters."""
        self._gather(self.vector)

    def gather(self, part: Array) -> Array:
        """Return all workers' shares of a vector as one, in the order of their ranks."""
        whole = np.empty(self._cuts[-1], part.dtype)
        whole[self._mine] = part
        self._gather(whole)
        return whole

    def _gather(self, vector: Array) -> None:
        counts = [stop - start for start, stop in pairwise(self._cuts)]
        self._comm.Allgatherv(self._mpi.IN_PLACE, [vector, counts, self._cuts[:-1], self._mpi_type(vector)])

    def _mpi_type(self, array: Array) -> Any:
        return self._mpi.Datatype.fromcode(array.dtype.char)


class Bucket(NamedTuple):
    """A part of the gradient, and how much of it is in each worker's share."""

    start: int
    stop: int
    counts: list[int]


def _buckets(cuts: list[int], size: int) -> list[Bucket]:
    """Cut a vector, of which worker k's share is from `cuts[k]` to `cuts[k + 1]`, into parts of about equal size."""
    count = -(-cuts[-1] // size)
    starts = [cuts[-1] * k // max(1, count) for k in range(count + 1)]
    return [
        Bucket(start, stop, [max(0, min(stop, end) - max(start, begin)) for begin, end in pairwise(cuts)])
        for start, stop in pairwise(starts)
    ]


class MpiTeam:
    """The processes that a launcher started, for as long as this one runs; made by each of them.

    Parameters
    ----------
    launch : Launch

    Attributes
    ----------
    rank, size : int

    Raises
    ------
    MpiError
        Without mpi4py, or where its MPI does not belong to the launcher.
    """

    def __init__(self, launch: Launch) -> None:
        self.rank, self.size = launch
        self._busy = False
        self._say = last_words() if self.rank == 0 else None  # before there is anything that a child must not have
        try:
            import mpi4py

            mpi4py.rc.thread_level = "funneled"
            warnings.filterwarnings("ignore", "suspicious MPI execution environment")  # an error says it
            from mpi4py import MPI
        except (ImportError, RuntimeError) as error:
            raise MpiError(
                f"{self.size} processes were started, which need mpi4py to work together ({error}): "
                "pip install 'cnnbp[mpi]', or start one process"
            ) from None
        self._mpi, self._comm = MPI, MPI.COMM_WORLD
        if self._comm.size != self.size:
            vendor, version = MPI.get_vendor()
            raise MpiError(
                f"{self.size} processes were started, but mpi4py sees {self._comm.size}: its MPI is {vendor} "
                f"{'.'.join(map(str, version))}, and the launcher belongs to another, or is to be told "
                "(srun --mpi=pmi2 or pmix)"
            )
        self._lifeline = Lifeline(self._lost)
        address = self._comm.bcast(self._lifeline.listen() if self.rank == 0 else None)
        reached: int = self._comm.allreduce(int(self.rank > 0 and self._lifeline.connect(address, self.rank)))
        self._all_reached = reached == self.size - 1
        self._places: list[str] = self._comm.gather(f"on {socket.gethostname()}, process {os.getpid()}") or []
        if self.rank == 0:
            self._lifeline.accept(reached)
            if not self._all_reached:
                import logging

                logging.getLogger("cnnbp").warning(
                    f"{self.size - 1 - reached} of {self.size} processes cannot reach the first one by TCP: only the "
                    "launcher can notice when they are gone"
                )

    # ------------------------------------------------------------------ programs

    @contextmanager
    def workers(
        self, values: int, dtype: np.dtype[Any], program: Program, payload: tuple[Any, ...]
    ) -> Iterator[MpiWorker]:
        """Let the others run a program, and be worker 0 meanwhile.

        Parameters
        ----------
        values, dtype
            The length and the type of the parameter vector.
        program : callable
            A function of a module.
        payload : tuple
            What it receives, part by part.
        """
        self._busy = True
        if self._say:
            self._say(f"one of the {self.size} processes was killed, and so all were; {INTACT}")
        self._broadcast((program, values, dtype))
        for part in payload:
            self._broadcast(part)
        with blas_threads(1):
            yield MpiWorker(self._comm, values, dtype)
        self._comm.Barrier()  # before anything that only this one does: the others may not be through
        if self._say:
            self._say("")
        self._busy = False

    def serve(self) -> None:
        """Be one of the others: run programs until there are no more."""
        try:
            while work := self._broadcast():
                self._busy = True
                program, values, dtype = work
                with blas_threads(1):
                    program(MpiWorker(self._comm, values, dtype), self._broadcast)
                self._comm.Barrier()
                self._busy = False
            self._lifeline.close()
        except (UserError, MemoryError) as error:
            print(f"process {self.rank} on {socket.gethostname()}: {error or 'out of memory'}", file=sys.stderr)
            self._fail(2)
        except Exception:
            text = f"process {self.rank} on {socket.gethostname()}:\n{traceback.format_exc()}"
            print(text, file=sys.stderr, end="", flush=True)
            self._fail(1)

    def dismiss(self, code: int) -> None:
        """Let the others go, as the command is over; where they are in the midst of a program, end them."""
        if self._say:
            self._say("")
        if self._busy:
            self._fail(code)
        self._broadcast(None)
        self._lifeline.close()

    def _broadcast(self, content: Any = None) -> Any:
        """Send what is picklable to the others, or receive it; arrays are not copied for it."""
        buffers: list[pickle.PickleBuffer] = []
        data = pickle.dumps(content, protocol=5, buffer_callback=buffers.append) if self.rank == 0 else b""
        data, sizes = self._comm.bcast((data, [buffer.raw().nbytes for buffer in buffers]))
        if self.rank == 0:
            for buffer in buffers:
                self._comm.Bcast([buffer.raw(), self._mpi.BYTE])
            return content
        arrays = [np.empty(size, np.uint8) for size in sizes]
        for array in arrays:
            self._comm.Bcast([array, self._mpi.BYTE])
        return pickle.loads(data, buffers=arrays)

    # ------------------------------------------------------------------ failures

    def _lost(self, rank: int, what: str, code: int | None) -> None:
        """End this process, as another one is gone; called from a thread."""
        if self.rank == 0:
            if self._say:
                self._say("")
            known = "its message is above" if code is not None else self._places[rank]
            self._cry(f"process {rank} of {self.size} {what} ({known}); {self._remedy}")
            self._lifeline.fail(2 if code is None else code)
        elif self.rank == 1 and code is None:
            self._cry(f"process 0 of {self.size}, which writes the checkpoints, {what}; {self._remedy}")
        os._exit(2 if code is None else code)

    @property
    def _remedy(self) -> str:
        return INTACT if self._busy else "nothing had begun: start again"

    @staticmethod
    def _cry(text: str) -> None:
        """Write a message without the buffers, which may be in use at this very moment."""
        with suppress(OSError):
            os.write(2, f"\n{text}\n".encode())

    def _fail(self, code: int) -> NoReturn:
        """End this process, which has said why, and by it all others."""
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        self._lifeline.fail(code)
        if not self._all_reached:
            self._comm.Abort(code)
        if self.rank > 0:  # the first one has the last word, if it still can; it ends this process by its own end
            time.sleep(AFTERTHOUGHT_SECONDS + 5)
        os._exit(code)
