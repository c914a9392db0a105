"""How training scales over processes: measured here, and predicted for machines and networks that are not here.

What a worker computes and what a message costs (latency and time per byte) is measured on the spot, and
`scaling_model.py` puts it together. Its predictions for the numbers of processes that were measured are shown beside
what they took. Processes of one machine share its memory, and its cores if there are more of them: by how much each is
slower than one alone is measured without any messages, and taken into account.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from math import ceil, log2
from pathlib import Path
from shutil import which
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from processes import ROOT, clean_environment, show_table, write_json
from scaling_model import (
    MOST_PROCESSES,
    NETWORKS,
    Network,
    Workload,
    counts,
    exchange_seconds,
    needed_batch,
    step_seconds,
    useful_processes,
)

from cnnbp_cli.parallel.launcher import mpi_launch

CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("*.yaml"))
IMAGES = (1, 2, 4, 8, 16, 32, 64)
"""Images of one worker for which a step is timed; between them it is interpolated."""
SECONDS, STEPS = 0.4, 20  # for one figure, at most
PROBE_VALUES = 1 << 20


def timed(run: Callable[[], Any], agree: Callable[[float], float]) -> float:
    """Return the seconds of a call, the lower quartile: what else the machine does makes it slower, never faster."""
    run()
    started = perf_counter()
    run()
    calls = max(3, min(STEPS, int(SECONDS / max(1e-6, agree(perf_counter() - started)))))
    times = []
    for _ in range(calls):
        started = perf_counter()
        run()
        times.append(perf_counter() - started)
    return float(np.quantile(times, 0.25))


class Bench:
    """One process, alone or one of a launcher's, with a config to make steps of.

    Parameters
    ----------
    name : str
        The config's.
    """

    def __init__(self, name: str) -> None:
        from cnnbp_cli.build import build
        from cnnbp_cli.config.load import load_config
        from cnnbp_cli.loading import load_data
        from cnnbp_cli.parallel.blas import set_blas_threads

        set_blas_threads(1)
        self.config = load_config(str(ROOT / "configs" / f"{name}.yaml"))
        self.model, self.data = build(self.config), load_data(self.config)

    def alone(self) -> Any:
        """Return a worker that knows of no others."""
        from cnnbp_cli.parallel.solo import SoloWorker

        return SoloWorker(self.model.layout.size, self.model.dtype)

    def together(self) -> Any:
        """Return one of all workers."""
        from mpi4py import MPI

        from cnnbp_cli.parallel.mpi import MpiWorker

        return MpiWorker(MPI.COMM_WORLD, self.model.layout.size, self.model.dtype)

    def step(self, worker: Any, batch: int) -> Callable[[], Any]:
        """Return what makes a step."""
        from cnnbp_cli.build import build
        from cnnbp_cli.train.step import TrainingStep

        step, order = TrainingStep(build(self.config), self.data, self.config, worker, 0), np.arange(batch)

        def make() -> None:
            worker.all_reduce(np.zeros(2, np.int64))  # as the trainer does before each
            step(order % len(self.data.train), 0, 1e-5)

        return make

    def workload(self) -> dict[str, Any]:
        """Return what the model needs to know of the config, measured in this process alone."""
        from cnnbp_cli.core.optim import Step
        from cnnbp_cli.train.step import TrainingStep

        model = self.model
        seconds = [timed(self.step(self.alone(), batch), float) for batch in IMAGES]
        updater = TrainingStep(model, self.data, self.config, self.alone(), 0).updater
        vector, gradient = np.ones((2, model.layout.size), model.dtype)
        return {
            "seconds": seconds,
            "update": timed(lambda: updater.update(vector, gradient, Step(1, 1e-5, 1.0)), float),
            "values": model.layout.size,
            "itemsize": model.dtype.itemsize,
            "channels": [model.graph.shapes[n.name][0] for n in model.graph.nodes if n.layer.type == "batch_norm"],
        }

    def team(self, batch: int, rounds: int) -> dict[str, Any]:
        """Return what a step, and its messages, take with all processes of the launcher; the median of some rounds.

        Returns
        -------
        dict
            `step`, with all of them; `apart`, where each makes its part of the batch without knowing of the others;
            `sum`, of two numbers; `exchange`, of `PROBE_VALUES` gradients.
        """
        from mpi4py import MPI

        from cnnbp_cli.parallel.mpi import MpiWorker

        worker, probe = self.together(), MpiWorker(MPI.COMM_WORLD, PROBE_VALUES, np.dtype(np.float32))
        probe.gradient[...] = 1

        def agree(seconds: float) -> float:
            return float(probe.all_reduce(np.array([seconds]))[0]) / probe.size

        def exchange() -> None:
            probe.reduce_share()
            probe.publish()

        runs = {
            "step": self.step(worker, batch),
            "apart": self.step(self.alone(), ceil(batch / worker.size)),
            "sum": lambda: probe.all_reduce(np.zeros(2)),
            "exchange": exchange,
        }
        found = [{name: timed(run, agree) for name, run in runs.items()} for _ in range(rounds)]
        return {name: median(one[name] for one in found) for name in runs}


def ask(config: str, processes: int = 0, **arguments: Any) -> dict[str, Any]:
    """Measure in so many processes of a launcher, or in one alone."""
    launcher = [_mpiexec(), "-n", str(processes)] if processes else []
    text = json.dumps({"config": config, "arguments": arguments})
    command = [*launcher, sys.executable, __file__, "--measure", text]
    done = subprocess.run(command, env=clean_environment(), stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[0])


def answer(text: str) -> None:
    """Do what `ask` wants."""
    request = json.loads(text)
    bench, launch = Bench(request["config"]), mpi_launch()
    found = bench.team(**request["arguments"]) if request["arguments"] else bench.workload()
    if launch is None or launch.rank == 0:
        print(json.dumps(found), flush=True)


def _mpiexec() -> str:
    found = which("mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if found is None:
        raise SystemExit("there is no mpiexec; try: pip install mpi4py mpich")
    return found


def workload(name: str) -> Workload:
    """Measure a step of one worker alone, and return what the model needs to know of it."""
    found = ask(name)
    return Workload(IMAGES, found.pop("seconds"), **found)


def compared(name: str, load: Workload, processes: int, batch: int, rounds: int) -> dict[str, Any]:
    """Return what a step takes here and what is predicted, from the messages and the slowness that were measured."""
    found, size = ask(name, processes, batch=batch, rounds=rounds), 4 * PROBE_VALUES
    network = Network("here", 0.0, 0.0)
    if processes > 1:
        latency = found["sum"] / ceil(log2(processes))
        rest = max(0.0, found["exchange"] - exchange_seconds(Network("", latency, 0.0), processes, size))
        network = Network("here", latency, rest / exchange_seconds(Network("", 0.0, 1.0), processes, size))
    cores = len(os.sched_getaffinity(0))  # of which more processes have to take turns
    slower = max(found["apart"] / load.compute(ceil(batch / processes)), processes / cores)
    predicted = step_seconds(load, network, processes, batch, slower)
    return {
        "config": name,
        "processes": processes,
        "latency": network.latency,
        "per_byte": network.per_byte,
        "slower": slower,
        "measured": found["step"],
        "predicted": predicted,
    }


def ms(seconds: float) -> str:
    return f"{1e3 * seconds:.2f}"


def draw(
    path: str, loads: dict[str, Workload], rows: list[dict[str, Any]], networks: list[Network], batch: int
) -> None:
    """Draw the time of a step over the processes: lines are predictions, points were measured."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    across = min(3, len(loads))
    down = ceil(len(loads) / across)
    figure, grid = pyplot.subplots(down, across, figsize=(4 * across, 3 * down), squeeze=False, layout="constrained")
    for place in grid.flat[len(loads) :]:
        place.set_axis_off()
    numbers = counts()
    for place, (name, load) in zip(grid.flat, loads.items(), strict=False):
        for network in networks:
            times = [1e3 * step_seconds(load, network, n, batch) for n in numbers]
            place.plot(numbers, times, label=network.name)
        place.plot(
            numbers, [1e3 * load.compute(batch) / min(n, batch) for n in numbers], ":", color="gray", label="ideal"
        )
        own = [row for row in rows if row["config"] == name]
        place.plot(
            [row["processes"] for row in own], [1e3 * row["measured"] for row in own], "o", label="measured here"
        )
        place.set(xscale="log", yscale="log", title=name, xlabel="processes", ylabel="ms for each step")
    grid.flat[0].legend(fontsize="small")
    figure.suptitle(f"batch {batch}")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", nargs="+", default=CONFIGS, choices=CONFIGS)
    parser.add_argument("--measured", nargs="+", default=["lenet5"], choices=CONFIGS, help="those to run on several")
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3, help="measure so often, and take the median")
    parser.add_argument(
        "--network", action="append", metavar="NAME:MICROSECONDS:GIGABITS", help="predict for this one, too"
    )
    parser.add_argument("--plot", metavar="FILE", help="needs matplotlib")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        answer(options.measure)
        return
    given = [text.rsplit(":", 2) for text in options.network or ()]
    networks = [*NETWORKS, *(Network.rated(name, float(latency), float(rate)) for name, latency, rate in given)]
    loads = {name: workload(name) for name in dict.fromkeys([*options.configs, *options.measured])}
    rows = [
        compared(name, loads[name], processes, options.batch, options.rounds)
        for name in options.measured
        for processes in options.processes
    ]
    print(f"{len(os.sched_getaffinity(0))} cores, batch {options.batch}\n")
    table = []
    for row in rows:
        costs = [f"{1e6 * row['latency']:.1f}", f"{8e-9 / row['per_byte']:.1f}"] if row["per_byte"] else ["", ""]
        ratio = f"{row['predicted'] / row['measured']:.2f}"
        figures = [f"{row['slower']:.2f}", ms(row["measured"]), ms(row["predicted"]), ratio]
        table.append([row["config"], str(row["processes"]), *costs, *figures])
    header = ["config", "processes", "µs/message", "Gbit/s", "slower", "measured ms", "predicted ms", "ratio"]
    show_table(header, table)
    print()
    table = []
    for name, load in loads.items():
        for network in networks:
            useful = useful_processes(load, network, options.batch)
            gain = load.compute(options.batch) / step_seconds(load, network, useful, options.batch)
            needed = [needed_batch(load, network, n) for n in (8, 64, MOST_PROCESSES)]
            table.append([name, network.name, str(useful), f"{gain:.1f}", *(f"{n:,}" if n else "none" for n in needed)])
    header = ["config", "network", f"stops at, batch {options.batch}", "speedup"]
    show_table([*header, *(f"batch for {n:,}" for n in (8, 64, MOST_PROCESSES))], table)
    if options.plot:
        draw(options.plot, loads, rows, networks, options.batch)
    write_json(options.json, {"loads": {name: asdict(load) for name, load in loads.items()}, "rows": rows})


if __name__ == "__main__":
    main()
