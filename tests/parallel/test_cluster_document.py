"""What docs/cluster.md tells people to type works, as far as one machine goes."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from shutil import which

import pytest
from parallel.launching import MPIEXEC, is_open_mpi, needs_mpi, plain_environment
from parallel.processes import wait_until

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "cluster.md").read_text("utf-8")
SCRIPTS = re.findall(r"^```bash\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
SLURM = next(script for script in SCRIPTS if "srun" in script)
SSH = next(script for script in SCRIPTS if "mpiexec -f hosts" in script)
DASK = next(script for script in SCRIPTS if "dask scheduler" in script)
LINE = re.search(r"^mpiexec -n 8 cnnbp .*$", PAGE, re.MULTILINE)

SSHD = which("sshd", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))
needs_sshd = pytest.mark.skipif(
    SSHD is None or which("ssh") is None or (os.geteuid() == 0 and not Path("/run/sshd").is_dir()),
    reason="needs ssh and its server",
)
needs_dask = pytest.mark.skipif(find_spec("distributed") is None, reason="needs Dask")
needs_bash = pytest.mark.skipif(which("bash") is None, reason="needs bash")


@needs_bash
@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_sound(script):
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


def test_options_of_the_batch_script_are_options_of_sbatch():
    """Those that sbatch has in all versions since 2014."""
    found = re.findall(r"^#SBATCH --([a-z-]+)", SLURM, re.MULTILINE)
    assert set(found) == {"job-name", "ntasks", "cpus-per-task", "time", "signal", "requeue"}


@pytest.fixture
def folder(tmp_path):
    """Return a folder with the config, and with stand-ins for what a cluster has: a batch system, and a home."""
    shutil.copy(ROOT / "configs" / "lenet5.yaml", tmp_path)
    (tmp_path / "hosts").write_text("localhost:2\n")
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "activate").write_text("")
    programs = {
        "cnnbp": f'exec {sys.executable} -m cnnbp_cli "$@" --max-steps 3 --set "data.limit={{train: 1000, test: 20}}"',
        "srun": f'while [ "${{1#--}}" != "$1" ]; do shift; done; exec {MPIEXEC} -n 2 "$@"',
    }
    for name, program in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{program}\n")
        (tmp_path / name).chmod(0o755)
    return tmp_path


@needs_mpi
@needs_bash
@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "run"),
    [(LINE.group() if LINE else "", "runs/eight"), (SSH, "runs/ssh"), (SLURM, "runs/lenet5")],
    ids=["line", "ssh", "slurm"],
)
def test_what_is_typed_trains_on_two_processes(folder, script, run):
    here = plain_environment(HOME=str(folder))
    here["PATH"] = os.pathsep.join([str(folder), here["PATH"]])
    script = re.sub(r"-n (8|16) ", "-n 2 ", script)
    for _ in range(2 if "--resume" in script else 1):  # a job may be submitted again
        done = subprocess.run(
            ["bash", "-c", script], cwd=folder, env=here, capture_output=True, text=True, timeout=100, check=False
        )
        assert done.returncode == 0, done.stderr
        assert f"run: {run}" in done.stdout
    assert '"workers": 2' in (folder / run / "events.jsonl").read_text()


@pytest.fixture
def other_machine(folder):
    """Let ssh reach this machine under the address 127.0.0.2, by a server of its own; return the server's log."""
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    with socket.create_server(("127.0.0.2", 0)) as free:
        port = free.getsockname()[1]
    lines = {"Port": port, "ListenAddress": "127.0.0.2", "HostKey": folder / "host", "StrictModes": "no"}
    lines |= {"AuthorizedKeysFile": folder / "user.pub", "UsePAM": "no", "PidFile": "none"}
    (folder / "sshd").write_text("".join(f"{key} {value}\n" for key, value in lines.items()))
    options = (
        f"-p {port} -i {folder}/user -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
    )
    (folder / "ssh").write_text(f'#!/bin/sh\nexec {which("ssh")} {options} "$@"\n')
    (folder / "ssh").chmod(0o755)
    (folder / "hosts").write_text("127.0.0.1:1\n127.0.0.2:1\n")
    log = folder / "sshd.log"
    with subprocess.Popen([str(SSHD), "-D", "-E", log, "-f", folder / "sshd"]) as server:
        try:
            assert wait_until(lambda: "listening" in (log.read_text() if log.exists() else ""), seconds=10)
            yield log
        finally:
            server.terminate()


@needs_mpi
@needs_bash
@needs_sshd
@pytest.mark.slow
def test_the_ssh_script_trains_on_two_machines(folder, other_machine):
    """Of which the second is this one, reached by ssh all the same."""
    if is_open_mpi():
        pytest.skip("Open MPI has another option for the list of machines")
    here = plain_environment(HOME=str(folder), HYDRA_LAUNCHER="ssh", HYDRA_LAUNCHER_EXEC=str(folder / "ssh"))
    here["PATH"] = os.pathsep.join([str(folder), here["PATH"]])
    script = SSH.replace("-n 16 ", "-n 2 ")
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=here, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert '"workers": 2' in (folder / "runs" / "ssh" / "events.jsonl").read_text()
    assert other_machine.read_text().count("Accepted publickey") == 1


@needs_dask
@needs_bash
@pytest.mark.slow
def test_the_dask_script_sweeps_and_leaves_nothing_behind(folder):
    """A scheduler, and a worker on each of two machines, which are this one: ssh is a stand-in."""
    (folder / "ssh").write_text(f'#!/bin/sh\necho "$1" >> {folder}/machines\nshift\nexec "$@"\n')
    (folder / "ssh").chmod(0o755)
    (folder / "cnnbp").write_text(
        f'#!/bin/sh\nexec {sys.executable} -m cnnbp_cli "$@" --set train.max_steps=3 '
        '--set "data.limit={train: 1000, test: 20}"\n'
    )
    here = plain_environment(HOME=str(folder), DASK_DISTRIBUTED__SCHEDULER__DASHBOARD__ENABLED="False")
    here["PATH"] = os.pathsep.join([str(folder), here["PATH"]])
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    script = DASK.replace("node0", "127.0.0.1").replace("8786", port).replace("/shared", str(folder))
    script = script.replace("--nworkers 8", "--nworkers 1").replace("0,1,2", "0")
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=here, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert sorted((folder / "machines").read_text().split()) == ["node1", "node2"]
    assert len(list((folder / "sweeps" / "batch").glob("*/events.jsonl"))) == 3
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert port not in running
