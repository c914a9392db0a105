"""A Dask cluster that does the runs of a sweep: wherever its workers are, as Slurm, Kubernetes or ssh started them.

Dask gives a run whose worker is lost to another one, which goes on from the last checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from cnnbp_cli.sweep.plan import SweepError
from cnnbp_cli.sweep.remote import RemoteTeam, SharedFolder

CONNECT_SECONDS = 10
WORKER_SECONDS = 60


class DaskTeam(NamedTuple):
    """A team of a cluster, and how many runs its workers can do at the same time."""

    team: RemoteTeam
    jobs: int


@contextmanager
def dask_team(address: str, folder: Path, layers: Sequence[Path] = ()) -> Iterator[DaskTeam]:
    """Connect with a scheduler, and check that its workers can do the runs.

    Raises
    ------
    SweepError
        When Dask is not installed, nothing answers at the address, there are no workers, or one does not have this
        program or does not see the folder.
    """
    try:
        import distributed
    except ImportError:
        raise SweepError("--dask needs Dask, which is not installed: pip install 'cnnbp[dask]'") from None
    try:
        make: Any = distributed.Client  # has no types
        client = make(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise SweepError(
            f"no Dask scheduler answers at {address} ({type(error).__name__}); start one with `dask scheduler`"
        ) from None
    with client:
        try:
            client.wait_for_workers(1, timeout=WORKER_SECONDS)
        except TimeoutError:
            raise SweepError(
                f"the scheduler at {address} has no workers after {WORKER_SECONDS} s; start some with "
                f"`dask worker {address} --nthreads 1`"
            ) from None
        shared = SharedFolder.make(folder)
        _check(client, shared)
        threads = sum(worker["nthreads"] for worker in client.scheduler_info(n_workers=-1)["workers"].values())
        yield DaskTeam(RemoteTeam(_submit_with(client), shared, layers), threads)


def _submit_with(client: Any) -> Any:
    def submit(function: Any, *arguments: Any) -> Any:
        # not pure: equal arguments may be another attempt at a run that was stopped
        return client.submit(function, *arguments, pure=False)

    return submit


def _check(client: Any, folder: SharedFolder) -> None:
    """Complain about the first worker that cannot do runs."""
    for worker, seen in client.run(folder.is_seen, on_error="return").items():
        if isinstance(seen, Exception):
            raise SweepError(
                f"the worker {worker} cannot run this program ({type(seen).__name__}: {seen}); install the same "
                "version of cnnbp there"
            )
        if not seen:
            raise SweepError(folder.unseen(f"the worker {worker}"))
