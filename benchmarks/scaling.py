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
ROUNDS = 3  # in processes of their own
PROBE_VALUES = 1 << 20


def timed(run: Callable[[], Any], agree: Callable[[float], float]) -> float:
    """Return the median seconds of a call; all workers make as many."""
    run()
    started = perf_counter()
    run()
    calls = max(3, min(STEPS, int(SECONDS / max(1e-6, agree(perf_counter() - started)))))
    times = []
    for _ in range(calls):
        started = perf_counter()
        run()
        times.append(perf_counter() - started)
    return median(times)


def measure(request: dict[str, Any]) -> dict[str, Any]:
    """Return what this process, one of several or alone, takes for what is asked: a probe, or steps of a config."""
    from cnnbp_cli.parallel.blas import set_blas_threads
    from cnnbp_cli.parallel.mpi import MpiWorker
    from cnnbp_cli.parallel.solo import SoloWorker

    set_blas_threads(1)

    def worker(values: int, dtype: np.dtype[Any]) -> Any:
        if request["processes"] == 1 or request.get("apart"):
            return SoloWorker(values, dtype)
        from mpi4py import MPI

        return MpiWorker(MPI.COMM_WORLD, values, dtype)

    def agree(seconds: float) -> float:
        team = worker(1, np.dtype(float))
        return float(team.all_reduce(np.array([seconds]))[0]) / team.size

    if "probe" in request:
        team = worker(request["probe"], np.dtype(np.float32))
        team.gradient[...] = 1

        def exchange() -> None:
            team.reduce_share()
            team.publish()

        return {"sum": timed(lambda: team.all_reduce(np.zeros(2)), agree), "exchange": timed(exchange, agree)}
    return _steps(request["config"], request["batches"], worker, agree)


def _steps(
    name: str, batches: list[int], worker: Callable[..., Any], agree: Callable[[float], float]
) -> dict[str, Any]:
    from cnnbp_cli.build import build
    from cnnbp_cli.config.load import load_config
    from cnnbp_cli.core.optim import Step
    from cnnbp_cli.loading import load_data
    from cnnbp_cli.train.step import TrainingStep

    config = load_config(str(ROOT / "configs" / f"{name}.yaml"))
    model, data = build(config), load_data(config)
    norms = [node.name for node in model.graph.nodes if node.layer.type == "batch_norm"]
    found: dict[str, Any] = {
        "values": model.layout.size,
        "itemsize": model.dtype.itemsize,
        "channels": [model.graph.shapes[norm][0] for norm in norms],
        "seconds": [],
    }
    for batch in batches:
        team = worker(model.layout.size, model.dtype)
        step, order = TrainingStep(build(config), data, config, team, 0), np.arange(batch) % len(data.train)

        def whole(team: Any = team, step: TrainingStep = step, order: Any = order) -> None:
            team.all_reduce(np.zeros(2, np.int64))
            step(order, 0, 1e-5)

        found["seconds"].append(timed(whole, agree))
    size = step.share.stop - step.share.start
    mine, gradient, at = np.ones(size, model.dtype), np.ones(size, model.dtype), Step(1, 1e-5, 1.0)
    found["update"] = timed(lambda: step.updater.update(mine, gradient, at), agree)
    return found


def ask(processes: int, **request: Any) -> dict[str, Any]:
    """Measure with so many processes."""
    launcher = [str(_mpiexec()), "-n", str(processes)] if processes > 1 else []
    text = json.dumps({"processes": processes, **request})
    command = [*launcher, sys.executable, __file__, "--measure", text]
    done = subprocess.run(command, env=clean_environment(), stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[0])


def _mpiexec() -> str:
    found = which("mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if found is None:
        raise SystemExit("there is no mpiexec; try: pip install mpi4py mpich")
    return found


def local_network(processes: int) -> Network:
    """Return what messages cost between so many processes of this machine."""
    found, size = ask(processes, probe=PROBE_VALUES), 4 * PROBE_VALUES
    latency = found["sum"] / ceil(log2(processes))
    without = Network("", latency, 0.0)
    rest = max(0.0, found["exchange"] - exchange_seconds(without, processes, size))
    return Network(f"{processes} processes here", latency, rest / exchange_seconds(Network("", 0, 1), processes, size))


def workload(name: str) -> Workload:
    """Measure a step of one worker alone, and return what the model needs to know of it."""
    found = ask(1, config=name, batches=list(IMAGES))
    return Workload(IMAGES, found.pop("seconds"), **found)


def slower(load: Workload, name: str, processes: int, batch: int) -> float:
    """Return by what factor a worker is slower when so many of them compute at the same time, each by itself."""
    images = ceil(batch / processes)
    if processes == 1:
        return 1.0
    return ask(processes, config=name, batches=[images], apart=True)["seconds"][0] / load.compute(images)


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
    parser.add_argument(
        "--network", action="append", metavar="NAME:MICROSECONDS:GIGABITS", help="predict for this one, too"
    )
    parser.add_argument("--plot", metavar="FILE", help="needs matplotlib")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        found, launch = measure(json.loads(options.measure)), mpi_launch()
        if launch is None or launch.rank == 0:
            print(json.dumps(found), flush=True)
        return
    given = [text.rsplit(":", 2) for text in options.network or ()]
    networks = [*NETWORKS, *(Network.rated(name, float(latency), float(rate)) for name, latency, rate in given)]
    loads = {name: workload(name) for name in dict.fromkeys([*options.configs, *options.measured])}
    here = {n: local_network(n) for n in options.processes if n > 1}
    rows, cores = [], len(os.sched_getaffinity(0))
    for name in options.measured:
        for n in options.processes:
            network, found, predicted = here.get(n, NETWORKS[0]), [], []
            for _ in range(ROUNDS):
                found.append(ask(n, config=name, batches=[options.batch])["seconds"][0])
                factor = slower(loads[name], name, n, options.batch)
                predicted.append(step_seconds(loads[name], network, n, options.batch, factor))
            rows.append({"config": name, "processes": n, "measured": median(found), "predicted": median(predicted)})
    print(f"{cores} cores, batch {options.batch}\n")
    table = [[f"{n}", f"{1e6 * one.latency:.1f}", f"{8e-9 / max(one.per_byte, 1e-12):.1f}"] for n, one in here.items()]
    show_table(["processes", "µs/message", "Gbit/s"], table)
    print()
    table = []
    for row in rows:
        ratio = f"{row['predicted'] / row['measured']:.2f}"
        table.append([row["config"], str(row["processes"]), ms(row["measured"]), ms(row["predicted"]), ratio])
    show_table(["config", "processes", "measured ms", "predicted ms", "ratio"], table)
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
