"""The processes of an MPI launcher as a team: the first leads the sweep, the others do its runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cnnbp_cli.sweep.plan import SweepError
from cnnbp_cli.sweep.remote import RemoteTeam, SharedFolder


@contextmanager
def mpi_processes(size: int) -> Iterator[Any | None]:
    """Yield an executor of `size` - 1 processes to the first process; None to the others, once they have served it.

    When the first process leaves the block, in whatever way, the others are free.

    Raises
    ------
    SweepError
        When mpi4py is not installed, or does not see what the launcher started.
    """
    try:
        from mpi4py import MPI
        from mpi4py.futures import MPICommExecutor
    except (ImportError, RuntimeError) as error:
        raise SweepError(
            f"an MPI launcher started {size} processes, which needs mpi4py ({error}): pip install 'cnnbp[mpi]'"
        ) from None
    if MPI.COMM_WORLD.size != size:
        raise SweepError(
            f"the launcher started {size} processes, but mpi4py sees {MPI.COMM_WORLD.size}: it is for another MPI "
            "than the launcher's"
        )
    with MPICommExecutor(MPI.COMM_WORLD, root=0) as executor:
        yield executor


def mpi_team(executor: Any, folder: Path, layers: Sequence[Path] = ()) -> RemoteTeam:
    """Return the team of the first process."""
    return RemoteTeam(executor.submit, SharedFolder.make(folder), layers)
