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
"""Multiply-accumulates: about 0.05 s of work on one core, several times what it takes to start a worker."""

R = TypeVar("R")
Program = Callable[[Communicator], R]


def on_all_cores(program: Program[R], macs: int) -> R:
    """Run a program that shares `macs` multiply-accumulates among its workers, and return what the first one returns.

    One worker does it all where there is too little to do, where workers take long to start, in a process that is
    one of several already, and where another worker was killed or could not be started: alone it needs less memory.
    """
    fast = forks(start_method()) and not current_process().daemon
    count = available_cores() if fast and macs >= WORTHWHILE else 1
    if count > 1:
        try:
            with local_workers(count, 1, np.dtype(np.float64), _work, lambda method: program) as workers:
                return program(workers)
        except (WorkerDiedError, WorkersError):
            pass
    return program(Solo())


def _work(workers: LocalWorker, program: Program[Any]) -> None:
    """Run the program of a worker other than the first."""
    program(workers)
