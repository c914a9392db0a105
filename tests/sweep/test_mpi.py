"""A sweep under an MPI launcher: one process leads, the others do its runs."""

from __future__ import annotations

import csv
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from parallel.launching import plain_environment

from cnnbp_cli.parallel.launcher import Launch, mpi_launch

pytest.importorskip("mpi4py")
MPIEXEC = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
needs_launcher = pytest.mark.skipif(MPIEXEC is None, reason="needs mpiexec")

OPTIONS = ("--set", "train.epochs=3", "--set", "train.optimizer.learning_rate=0.01,0.03", "--seeds", "0,1")


def sweep(folder, *options, processes=0):
    launcher = [MPIEXEC, "-n", str(processes)] if processes else []
    command = [*launcher, sys.executable, "-m", "cnnbp_cli", "sweep", *options, "--format", "csv", "--quiet"]
    return subprocess.run(
        command, cwd=folder, env=plain_environment(), capture_output=True, text=True, timeout=120, check=False
    )


def figures(text):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(io.StringIO(text))]


@needs_launcher
@pytest.mark.slow
def test_three_processes_give_what_one_machine_gives(tmp_path):
    here = sweep(tmp_path, "toy", *OPTIONS, "--out", "here")
    there = sweep(tmp_path, "toy", *OPTIONS, "--out", "there", processes=3)
    assert here.returncode == there.returncode == 0, there.stderr
    assert len(figures(there.stdout)) == 4
    assert figures(there.stdout) == figures(here.stdout)


@needs_launcher
@pytest.mark.slow
def test_a_sweep_that_cannot_begin_frees_the_others(tmp_path):
    found = sweep(tmp_path, "toy", "--set", "train.batch_size=32,nonsense", processes=3)
    assert found.returncode == 2
    assert "nonsense" in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize(
    ("environment", "launch"),
    [
        ({}, None),
        ({"PMI_RANK": "1", "PMI_SIZE": "3"}, Launch(1, 3)),
        ({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"}, Launch(0, 2)),
        ({"PMI_RANK": "0", "PMI_SIZE": "1"}, None),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, None),
        ({"PMIX_RANK": "5", "SLURM_STEP_NUM_TASKS": "8"}, Launch(5, 8)),
    ],
)
def test_what_launchers_put_into_the_environment(environment, launch):
    assert mpi_launch(environment) == launch
