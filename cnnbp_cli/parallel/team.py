"""Work on many images that all cores share, where it pays: evaluation and prediction."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing import current_process
from typing import Any, TypeVar

import numpy as np

from cnnbp_cli.core.types import Communicator, Solo
from cnnbp_cli.parallel.local import LocalWorker, WorkerDiedError, local_workers
from cnnbp_cli.parallel.processes import WorkersError, available_cores, forks, start_method

WORTHWHILE = 4_000_000_000
"""Multiply-accumulates: about 0.05 s of work on one core, several times what it takes to fork a worker."""

WORTHWHILE_SPAWNED = 200_000_000_000
"""The same for workers that are spawned, which take about half a second to load what they need: 2.5 s of work."""

R = TypeVar("R")
Program = Callable[[Communicator], R]


def on_all_cores(program: Program[R], macs: int, *, others: Program[R] | None = None, portable: bool = True) -> R:
    """Run a program that shares `macs` multiply-accumulates among its workers, and return what the first one returns.

    One worker does it all where there is too little to do, in a process that is one of several already, and where
    another worker was killed or could not be started: alone it needs less memory.

    Parameters
    ----------
    program : callable
        Given its worker.
    macs : int
    others : callable, optional
        What the other workers run, by default the same. It is pickled where workers are spawned.
    portable : bool
        Whether all its classes are the package's own, so that a process that is spawned knows them; if not, workers
        are forked or not started.
    """
    forked = forks(start_method())
    worth_it = macs >= (WORTHWHILE if forked else WORTHWHILE_SPAWNED) and (forked or portable)
    count = available_cores() if worth_it and not current_process().daemon else 1
    if count > 1:
        try:
            with local_workers(
                count, 1, np.dtype(np.float64), _work, lambda method: others or program, script=False
            ) as workers:
                return program(workers)
        except (WorkerDiedError, WorkersError):
            pass
    return program(Solo())


def _work(workers: LocalWorker, program: Program[Any]) -> None:
    """Run the program of a worker other than the first."""
    program(workers)
