"""Whether an MPI launcher started this process, by what launchers put into the environment.

mpi4py is not imported to find out: it initializes MPI, which takes a while, and is an extra.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

VARIABLES = (
    ("PMI_RANK", "PMI_SIZE"),  # MPICH, Intel MPI, `srun --mpi=pmi2`
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),  # Open MPI
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),  # MVAPICH2
    ("PMIX_RANK", "SLURM_STEP_NUM_TASKS"),  # `srun --mpi=pmix`; a shell in a Slurm job has no PMIX_RANK
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),  # `srun`; the shell of `salloc` and `sbatch` is no step of several
)
"""What holds a process's number, and how many there are."""


class Launch(NamedTuple):
    """A process's number among those that a launcher started together, and how many they are."""

    rank: int
    size: int


def mpi_launch(environment: Mapping[str, str] = os.environ) -> Launch | None:
    """Return this process's place among several that an MPI launcher started, or None if it is alone."""
    for rank, size in VARIABLES:
        found = environment.get(rank, ""), environment.get(size, "")
        if all(word.isdigit() for word in found) and int(found[1]) > 1:
            return Launch(int(found[0]), int(found[1]))
    return None
