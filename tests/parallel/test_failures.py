"""Whatever happens to one of the workers or to their parent, the run ends at once and nothing is left behind."""

from __future__ import annotations

import errno
import gc
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from parallel.config import CONFIG
from parallel.processes import children_of, is_running, shared_files, start, wait_until

from cnnbp_cli.core.graph import Graph
from cnnbp_cli.core.types import Layer
from cnnbp_cli.parallel.local import LocalWorker, WorkerDiedError, local_workers
from cnnbp_cli.parallel.processes import StoppedProcesses, WorkersError
from cnnbp_cli.train.events import StepDone
from cnnbp_cli.train.fit import fit, planned_workers
from cnnbp_cli.train.run_directory import RunDirectory

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

pytestmark = pytest.mark.slow


BAD_ENDING = "; the last checkpoint is intact: continue with --resume, or with --workers 1"


@dataclass(frozen=True, slots=True)
class Mishap(Layer[None]):
    """The identity, until `step`: then `what` happens in the worker that has the batch's last sample."""

    what: str
    step: int = 2
    type: Literal["mishap"] = "mishap"

    def forward(self, params, x, ctx):
        if ctx.training and ctx.step == self.step and ctx.workers.rank == ctx.workers.size - 1:
            if self.what == "raise":
                raise ZeroDivisionError("seven by nothing")
            if self.what == "memory":
                raise MemoryError("Unable to allocate 7.00 TiB")
            if self.what == "strange":
                raise Strange("one and two")
            if self.what == "exit":
                os._exit(7)
            os.kill(os.getpid(), getattr(signal, self.what))
        return x, None

    def backward(self, params, residuals, dy, ctx):
        return dy, {}


class Strange(Exception):
    """Refuses to be pickled, whatever other libraries have taught pickle about exceptions."""

    def __reduce__(self):
        raise TypeError("not to be sent")


def with_mishap(model, what):
    """Put a mishap in the place of the first ReLU."""
    nodes = [replace(node, layer=Mishap(what)) if node.name == "relu_1" else node for node in model.graph.nodes]
    model.graph = Graph(model.graph.shapes["input"], nodes)
    return model


def run_with(setup, what, workers=3, **options):
    model, data = setup(f"train.workers={workers}")
    steps = 0
    try:
        for event in fit(with_mishap(model, what), data, **options):
            steps += isinstance(event, StepDone)
    finally:
        assert steps == 2
        assert multiprocessing.active_children() == []


@pytest.mark.parametrize(
    ("what", "cause"),
    [
        ("SIGKILL", "was killed by SIGKILL, perhaps for lack of memory"),
        ("SIGUSR1", "was killed by SIGUSR1"),
        ("SIGTERM", "was killed by SIGTERM"),
        ("exit", "ended with exit code 7"),
    ],
)
def test_a_worker_that_dies_ends_the_run(setup, tmp_path, what, cause):
    with pytest.raises(WorkerDiedError) as caught:
        run_with(setup, what, run=tmp_path / "run")
    assert str(caught.value) == f"worker 2 {cause}{BAD_ENDING}"
    found = RunDirectory(tmp_path / "run").last_good()
    assert found is not None
    assert found[1].progress["step"] == 0
    model, data = setup("train.workers=2")
    assert list(fit(model, data, run=tmp_path / "run", resume=True))[-1].step == 8


def test_a_worker_that_dies_whichever_way_it_started(setup, start_method):
    with pytest.raises(WorkerDiedError, match="worker 2 was killed by SIGKILL"):
        run_with(setup, "SIGKILL")


def test_what_a_worker_raises_the_run_raises(setup, start_method, capfd):
    with pytest.raises(ZeroDivisionError) as caught:
        run_with(setup, "raise")
    assert str(caught.value) == "seven by nothing"
    assert caught.value.__notes__[0].startswith("raised in worker 2:\nTraceback")
    assert caught.value.__notes__[0].endswith("ZeroDivisionError: seven by nothing\n")
    assert capfd.readouterr() == ("", "")


def test_a_worker_without_memory(setup):
    with pytest.raises(MemoryError) as caught:
        run_with(setup, "memory")
    assert str(caught.value) == "Unable to allocate 7.00 TiB"


def test_an_error_that_cannot_be_sent(setup):
    with pytest.raises(RuntimeError) as caught:
        run_with(setup, "strange")
    assert str(caught.value) == "Strange: one and two"


def test_an_error_larger_than_a_pipe():
    """Its sender waits for the reader, and is alive as long."""
    with pytest.raises(ValueError, match="xxx") as caught, small_team(complain_at_length) as workers:
        workers.barrier()
    assert str(caught.value) == "x" * 300_000


def complain_at_length(workers, payload):
    raise ValueError("x" * 300_000)


def small_team(program, size=2):
    return local_workers(size, 8, np.dtype(np.float32), program, lambda context: None)


def test_leaving_early(setup, start_method):
    model, data = setup()
    events = fit(model, data)
    next(events)
    assert len(multiprocessing.active_children()) == 1
    events.close()
    assert multiprocessing.active_children() == []
    assert np.isfinite(model.predict(data.test.images)).all()


def test_forgetting_the_generator(setup):
    model, data = setup()
    events = fit(model, data)
    next(events)
    del events
    gc.collect()
    assert multiprocessing.active_children() == []


def test_an_exception_in_the_consumer(setup):
    model, data = setup()

    def consume():
        for event in fit(model, data):
            if event.event == "step":
                raise LookupError("the consumer's own")

    with pytest.raises(LookupError) as caught:
        consume()
    caught.value.__traceback__ = None  # which holds the generator
    gc.collect()
    assert multiprocessing.active_children() == []


def test_sums_larger_than_their_place():
    with small_team(sum_much) as workers:
        sum_much(workers, None)


def sum_much(workers, payload):
    own = np.arange(150_000.0).reshape(3, -1)
    np.testing.assert_array_equal(workers.all_reduce(own + workers.rank), 2 * own + 1)


def test_sums_are_added_in_the_order_of_ranks():
    """The same bits on every worker, call after call, whoever comes first."""
    with small_team(sum_in_turns, 4) as workers:
        assert isinstance(workers, LocalWorker)
        sum_in_turns(workers, None)


def sum_in_turns(workers, payload):
    for turn in range(200):
        parts = [np.float64(10.0) ** (rank * 5) / (turn + 3) for rank in range(workers.size)]
        if turn % 7 == workers.rank:
            time.sleep(0.001)
        total = workers.all_reduce(np.array([parts[workers.rank]]))
        assert total[0] == parts[0] + parts[1] + parts[2] + parts[3]


def test_a_process_of_a_pool_starts_no_workers(setup, monkeypatch):
    model, data = setup("train.workers=2")
    assert planned_workers(model, len(data.train)) == 2
    monkeypatch.setattr("cnnbp_cli.train.fit.current_process", lambda: type("P", (), {"daemon": True}))
    assert planned_workers(model, len(data.train)) == 1


SCRIPT = """
import sys, threading, time
import cnnbp_cli as cnnbp
from cnnbp_cli.parallel import local
if "{method}" == "spawn":
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
model = cnnbp.load({config!r}, {settings!r})
data = cnnbp.load_data(model)
for event in cnnbp.fit(model, data, run={run!r}):
    print(event.event, flush=True)
"""

HARD = ["dtype=float32", "train.epochs=100000", "train.batch_size=48", "data.augment=null"]


def script(config_file, method="fork", run=None, settings=()):
    return SCRIPT.format(config=str(config_file), settings=[*HARD, *settings], run=run, method=method)


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "team.yaml"
    path.write_text(CONFIG)
    return path


def until_step(process):
    """Wait for the run's first step, and return the workers."""
    for line in process.stdout:
        if line.startswith("step"):
            return children_of(process.pid)
    raise AssertionError(process.stderr.read())


@linux
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_do_not_outlive_their_parent(config_file, method):
    before = shared_files()
    with start("-c", script(config_file, method, settings=["train.workers=3"])) as process:
        workers = until_step(process)
        assert len(workers) >= 2
        process.kill()
        assert wait_until(lambda: not any(map(is_running, workers)), seconds=2)
    assert wait_until(lambda: shared_files() <= before, seconds=2)


@linux
def test_workers_in_a_long_step_do_not_outlive_their_parent(config_file):
    """One that does not come to a barrier for a while."""
    code = """
import time, numpy as np
from cnnbp_cli.parallel.local import local_workers

def work(workers, payload):
    time.sleep(600)

with local_workers(3, 8, np.dtype(np.float32), work, lambda context: None) as workers:
    print("step", flush=True)
    time.sleep(600)
"""
    with start("-c", code) as process:
        workers = until_step(process)
        assert len(workers) == 2
        process.kill()
        assert wait_until(lambda: not any(map(is_running, workers)), seconds=2)


@linux
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_parent_that_is_told_to_end(config_file, number):
    with start("-c", script(config_file)) as process:
        workers = until_step(process)
        process.send_signal(number)
        assert process.wait(5) == -number
        assert wait_until(lambda: not any(map(is_running, workers)), seconds=2)


@linux
def test_a_worker_killed_from_outside(config_file, tmp_path):
    """As the kernel does when memory is short: one message, and a checkpoint to go on from."""
    with start(*cnnbp_train(config_file, tmp_path / "run")) as process:
        (worker,) = until_event(process, tmp_path / "run")
        os.kill(worker, signal.SIGKILL)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 2
    assert err == f"error: worker 1 was killed by SIGKILL, perhaps for lack of memory{BAD_ENDING}\n"
    assert RunDirectory(tmp_path / "run").last_good() is not None


def cnnbp_train(config_file, run, *more):
    settings = [part for setting in HARD for part in ("--set", setting)]
    return ["-m", "cnnbp_cli", "train", str(config_file), *settings, "--quiet", "--out", str(run), *more]


def until_event(process, run):
    """Wait for the run's first epoch, and return the workers."""
    log = run / "events.jsonl"
    assert wait_until(lambda: log.exists() and '"epoch"' in log.read_text(), seconds=30), process.poll()
    return children_of(process.pid)


@linux
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_goes_to_everybody_and_the_first_worker_decides(config_file, tmp_path, number):
    run = tmp_path / "run"
    with start(*cnnbp_train(config_file, run)) as process:
        workers = until_event(process, run)
        assert len(workers) == 1
        os.killpg(process.pid, number)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err.count("stopping") == 1
    assert re.sub(r"\s+", " ", err).strip().startswith("stopping after this step")
    assert "Traceback" not in err
    assert wait_until(lambda: not any(map(is_running, workers)), seconds=2)
    last = json.loads((run / "events.jsonl").read_text().splitlines()[-1])
    found = RunDirectory(run).last_good()
    assert found is not None
    assert (last["event"], last["step"]) == ("interrupted", found[1].progress["step"])


@linux
def test_a_worker_that_somebody_stops(config_file, tmp_path):
    """The parent says so, and still ends in good order when it is told to."""
    run = tmp_path / "run"
    with start(*cnnbp_train(config_file, run)) as process:
        (worker,) = until_event(process, run)
        os.kill(worker, signal.SIGSTOP)
        assert process.stderr.readline() == (
            f"worker 1 (process {worker}) is stopped, and the others wait for it: continue it with "
            f"`kill -CONT {worker}`, or end all with `kill {process.pid}`\n"
        )
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert not is_running(worker)
    last = json.loads((run / "events.jsonl").read_text().splitlines()[-1])
    found = RunDirectory(run).last_good()
    assert found is not None
    assert (last["event"], last["step"]) == ("interrupted", found[1].progress["step"])


@linux
def test_a_worker_that_is_stopped_does_not_outlive_its_parent(config_file):
    with start("-c", script(config_file)) as process:
        (worker,) = until_step(process)
        os.kill(worker, signal.SIGSTOP)
        process.kill()
        assert wait_until(lambda: not is_running(worker), seconds=20)


@pytest.mark.parametrize("what", ["semaphores", "memory", "process"])
def test_a_system_that_has_no_room_for_workers(setup, start_method, monkeypatch, what):
    """A container's /dev/shm that is full, or a limit of processes: the message names it and the remedy."""
    method = multiprocessing.get_context(start_method)

    def refuse(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    if what == "memory" and start_method == "fork":
        pytest.skip("takes nothing of /dev/shm")
    place = {"semaphores": "Semaphore", "memory": "RawArray", "process": "Pipe"}[what]
    monkeypatch.setattr(type(method), place, refuse)
    model, data = setup()
    with pytest.raises(WorkersError) as caught:
        next(fit(model, data))
    named = "no process can be started" if what == "process" else "shared memory (/dev/shm) cannot be had"
    assert str(caught.value) == f"{named}: No space left on device; make room, or set train.workers=1"


@linux
@pytest.mark.parametrize("options", ["size=4k", "ro"])
def test_shared_memory_that_is_full_or_cannot_be_written(config_file, tmp_path, options):
    """A mount of its own, seen by this one process."""
    sealed = f"mount -t tmpfs -o {options} none /dev/shm"
    fill = "{ cat /dev/zero > /dev/shm/filler; } 2> /dev/null"
    if subprocess.run(["unshare", "-m", "sh", "-c", sealed], capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    command = [sys.executable, *cnnbp_train(config_file, tmp_path / "run")]
    shell = ["unshare", "-m", "sh", "-c", f'{sealed}; {fill}; exec "$@"', "sh", *command]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(shell, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("error: shared memory (/dev/shm) cannot be had: ")
    assert done.stderr.endswith("; make room, or set train.workers=1\n")
    shell[-len(command) :] = [*command, "--set", "train.workers=1", "--set", "train.epochs=1", "--resume"]
    assert subprocess.run(shell, env=environment, timeout=60).returncode == 0


@linux
def test_a_run_of_a_sweep_that_somebody_stops(config_file, tmp_path):
    sweep = ["sweep", str(config_file), "--quiet", "--seeds", "1,2", "--set", "train.epochs=100000"]
    with start("-m", "cnnbp_cli", *sweep, "--out", str(tmp_path / "runs"), "--jobs", "2") as process:
        assert wait_until(lambda: len(list(tmp_path.rglob("events.jsonl"))) == 2, seconds=30)
        runs = children_of(process.pid)
        os.kill(runs[0], signal.SIGSTOP)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    assert process.returncode == 130
    assert not any(map(is_running, runs))


def test_stopped_processes_are_told_of_once(monkeypatch, caplog):
    now, seen = [100.0], StoppedProcesses()
    monkeypatch.setattr("cnnbp_cli.parallel.processes.time.monotonic", lambda: now[0])
    monkeypatch.setattr("cnnbp_cli.parallel.processes._is_stopped", lambda pid: pid == 7)

    def wait(seconds):
        for _ in range(seconds):
            seen.look([("worker 1", 6), ("worker 2", 7)])
            now[0] += 1

    wait(10)
    now[0] += 100  # Ctrl-Z: the parent was stopped, too
    wait(10)
    assert caplog.messages == []
    wait(30)
    assert [message[:25] for message in caplog.messages] == ["worker 2 (process 7) is s"]


@linux
@pytest.mark.parametrize("delay", [0.0, 0.3, 0.8])
def test_ctrl_c_at_any_time_leaves_no_traceback(config_file, tmp_path, delay):
    """Also while workers start: whatever the moment, the run ends in good order."""
    with start(
        "-c", script(config_file, "spawn").replace("import cnnbp", "print('step', flush=True)\nimport cnnbp")
    ) as p:
        p.stdout.readline()
        time.sleep(delay)
        os.killpg(p.pid, signal.SIGINT)
        _, err = p.communicate(timeout=20)
    assert err.count("Traceback") <= 1  # the script's own KeyboardInterrupt
    assert "Process SpawnProcess" not in err


@linux
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_the_data_set_is_there_once(config_file, method):
    """Shared pages count in parts: all processes together hold the images once, give or take."""
    megabytes = 192  # many times what a process needs by itself
    code = f"""
import threading, time, sys
from dataclasses import replace
import numpy as np
import cnnbp_cli as cnnbp
from cnnbp_cli.parallel import local
if "{method}" == "spawn":
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
settings = ["train.workers=3", "train.epochs=1", "data.augment=null", "data.validation=0", "train.batch_size=48"]
model = cnnbp.load(sys.argv[1], settings)
data = cnnbp.load_data(model)
images = np.zeros(({megabytes} * 1024 * 1024 // 100, 1, 10, 10), np.uint8)
images[:] = data.train.images[0]
labels = np.zeros(len(images), data.train.labels.dtype)
data = replace(data, train=replace(data.train, images=images, labels=labels))
for event in cnnbp.fit(model, data):
    if event.event == "step":
        print("step", flush=True)
        sys.stdin.readline()
        break
"""
    with start("-c", code, str(config_file), stdin=subprocess.PIPE) as process:
        workers = until_step(process)
        try:
            shares = [private_memory(pid) for pid in workers]
        finally:
            process.communicate("\n", timeout=20)
    assert len(shares) >= 2
    assert max(shares) < megabytes / 2


def private_memory(pid):
    """Return the megabytes that belong to this process alone."""
    fields = dict(re.findall(r"^(\w+):\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M))
    return (int(fields["Private_Clean"]) + int(fields["Private_Dirty"])) / 1024
