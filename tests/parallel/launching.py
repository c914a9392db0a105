"""Starting a program under an MPI launcher, as far as one machine goes."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from shutil import which

import pytest

MPIEXEC = which("mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))

needs_mpi = pytest.mark.skipif(MPIEXEC is None or find_spec("mpi4py") is None, reason="needs mpi4py and an MPI")

LAUNCHERS = ("PMI", "PMIX", "OMPI", "SLURM", "MV2", "MPI", "HYDI")


OPEN_MPI = {  # which refuses the administrator, and more processes than cores, unless it is told
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",  # up to 4
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",  # from 5 on
}


def plain_environment(**more: str) -> dict[str, str]:
    """Return an environment in which no launcher has started this program, and which finds the package."""
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    kept = {name: value for name, value in os.environ.items() if name.partition("_")[0] not in LAUNCHERS}
    scripts = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    ours = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PATH": scripts, "OMP_NUM_THREADS": "1"}
    return kept | OPEN_MPI | ours | more


@cache
def is_open_mpi() -> bool:
    """Return whether the launcher is Open MPI's, which has exit codes of its own."""
    said = subprocess.run([str(MPIEXEC), "--version"], env=plain_environment(), capture_output=True, check=False).stdout
    return b"Open MPI" in said or b"OpenRTE" in said


def launch(size: int, *arguments: str, **options: object) -> subprocess.Popen[str]:
    """Start a Python program in so many processes."""
    return subprocess.Popen(
        [str(MPIEXEC), "-n", str(size), sys.executable, *arguments],
        env=plain_environment(),
        start_new_session=True,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,  # type: ignore[call-overload]
    )
