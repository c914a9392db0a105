"""Who was started by an MPI launcher is known from the environment, and never by mistake."""

from __future__ import annotations

import subprocess
import sys

import pytest
from parallel.launching import needs_mpi, plain_environment

from cnnbp_cli.parallel.launcher import Launch, mpi_launch

JOB = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8", "SLURM_NPROCS": "8", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"PMI_RANK": "1", "PMI_SIZE": "4", "PMI_FD": "9"}, Launch(1, 4)),
        ({"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "4", "PMIX_RANK": "3"}, Launch(3, 4)),
        (JOB | {"SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5"}, Launch(5, 8)),
        (JOB | {"SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5", "PMIX_RANK": "5"}, Launch(5, 8)),
        (JOB, None),  # a plain program in the script of sbatch, or in the shell of salloc
        (JOB | {"SLURM_STEP_NUM_TASKS": "1"}, None),  # salloc whose shell is a step of its own
        (JOB | {"PMI_RANK": "0", "PMI_SIZE": "2"}, Launch(0, 2)),  # mpiexec there
        ({"PMI_RANK": "0", "PMI_SIZE": "1"}, None),
        ({"PMI_RANK": "", "PMI_SIZE": ""}, None),
        ({"PMI_SIZE": "4"}, None),
    ],
)
def test_the_environment_tells(environment, expected):
    assert mpi_launch(environment) == expected


def train(arguments=("train", "toy"), **environment):
    command = [sys.executable, "-m", "cnnbp_cli", *arguments]
    return subprocess.run(
        command, env=plain_environment(**environment), capture_output=True, text=True, timeout=60, check=False
    )


def test_without_mpi4py_the_first_process_says_what_is_missing(tmp_path):
    """Instead of as many identical runs as processes."""
    (tmp_path / "mpi4py.py").write_text("raise ImportError(\"No module named 'mpi4py'\")")
    paths = {"PYTHONPATH": f"{tmp_path}:{plain_environment()['PYTHONPATH']}"}
    done = [train(PMI_RANK=rank, PMI_SIZE="2", **paths) for rank in "01"]
    assert [(one.returncode, one.stdout) for one in done] == [(2, ""), (2, "")]
    assert done[0].stderr == (
        "error: 2 processes were started, which need mpi4py to work together (No module named 'mpi4py'): "
        "pip install 'cnnbp[mpi]', or start one process\n"
    )
    assert done[1].stderr == ""


@needs_mpi
def test_an_mpi_that_is_not_the_launchers(tmp_path):
    done = train(OMPI_COMM_WORLD_RANK="0", OMPI_COMM_WORLD_SIZE="2")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: 2 processes were started, but mpi4py sees 1: its MPI is ")


def test_other_commands_are_done_by_one_process():
    first, second = (train(("summary", "toy"), PMI_RANK=rank, PMI_SIZE="2") for rank in "01")
    assert (first.returncode, second.returncode) == (0, 0)
    assert "conv2d" in first.stdout
    assert first.stderr.startswith("note: one of 2 processes does this; only cnnbp train and sweep use all of them\n")
    assert second.stdout + second.stderr == ""


def test_help_needs_no_launcher():
    first, second = (train(("train", "--help"), PMI_RANK=rank, PMI_SIZE="2") for rank in "01")
    assert first.stdout.startswith("Usage: ")
    assert first.stderr + second.stdout + second.stderr == ""
