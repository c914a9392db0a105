"""Who does the runs of a sweep: processes of this machine, a Dask cluster, or what an MPI launcher started."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from cnnbp_cli.parallel.launcher import mpi_launch
from cnnbp_cli.parallel.processes import available_cores
from cnnbp_cli.sweep.local import LocalTeam
from cnnbp_cli.sweep.plan import SweepError
from cnnbp_cli.sweep.team import Team


class Processes(NamedTuple):
    """The processes that a launcher started together: one that leads, and the others, which serve it.

    Attributes
    ----------
    executor : executor or None
        What the leader gives its work to; None without a launcher.
    others : int
        The processes that serve.
    served : bool
        Whether this is one of them, and is no longer needed.
    """

    executor: Any = None
    others: int = 0
    served: bool = False


@contextmanager
def everyone() -> Iterator[Processes]:
    """Let all processes but the first serve it, as long as its block takes."""
    launch = mpi_launch()
    if launch is None:
        yield Processes()
        return
    from cnnbp_cli.sweep.mpi import mpi_processes

    with mpi_processes(launch.size) as executor:
        yield Processes(executor, launch.size - 1, served=executor is None)


@contextmanager
def chosen_team(
    processes: Processes, folder: Path, layers: Sequence[Path] = (), *, dask: str | None = None
) -> Iterator[tuple[Team, int]]:
    """Yield what does the runs, and how many it does at the same time.

    Raises
    ------
    SweepError
        When two are wanted, or the one that is cannot be had.
    """
    if dask is not None and processes.executor is not None:
        raise SweepError("--dask: an MPI launcher started this sweep; use one of the two")
    if dask is not None:
        from cnnbp_cli.sweep.dask import dask_team

        with dask_team(dask, folder, layers) as found:
            yield found
    elif processes.executor is not None:
        from cnnbp_cli.sweep.mpi import mpi_team

        yield mpi_team(processes.executor, folder, layers), processes.others
    else:
        yield LocalTeam(layers), available_cores()
