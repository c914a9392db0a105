"""Training steps per second, ours and PyTorch's, on the four reference networks and three larger ones.

Every contender lives in a process of its own for as long as its network is measured, and they take turns, so
that whatever else the machine does hits all of them alike. Initial weights, images and their order are the
same for all; where a network has no dropout the losses are compared, too. A step is everything from choosing
the images to the updated parameters: ours are the steps of `cnnbp_cli.fit`. The memory is the peak of what all
processes of a contender hold together, in steps of their own after those that are timed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from processes import ROOT, Child, PeakMemory, serve, show_table, write_json

SHIPPED = ("lenet5", "keras-mnist", "pytorch-mnist", "vgg-bn")
NETS = (*SHIPPED, "keras-cifar", "resnet20", "mobilenet")
DROPOUT = ("keras-mnist", "pytorch-mnist", "keras-cifar")  # draws its own numbers, so losses cannot be compared
WARM_UP = 10
LEARNING_RATE, MOMENTUM = 0.01, 0.9
COMPARED = 5  # steps whose losses are compared
SAME_LOSS = 1e-3

TORCH = {"torch": "contiguous", "torch channels_last": "channels_last", "torch.compile": "compile"}


def config(net: str) -> Path:
    """Return where the network's config is."""
    return ROOT / "configs" / f"{net}.yaml" if net in SHIPPED else Path(__file__).parent / "nets" / f"{net}.yaml"


def settings(batch: int, workers: str) -> list[str]:
    """Return what both sides change in the config."""
    optimizer = f"{{type: sgd, learning_rate: {LEARNING_RATE}, momentum: {MOMENTUM}}}"
    return [
        *(f"train.batch_size={batch}", f"train.workers={workers}", f"train.optimizer={optimizer}"),
        *("train.schedule=constant", "train.epochs=100000", "data.validation=0", "data.augment=null"),
    ]


def our_steps(net: str, batch: int, workers: str) -> Any:
    """Yield (seconds, loss) of one step after the other."""
    import cnnbp_cli as cnnbp
    from cnnbp_cli.train.events import StepDone

    model = cnnbp.load(config(net), settings(batch, workers))
    started = perf_counter()
    for event in cnnbp.fit(model, cnnbp.load_data(model)):
        if isinstance(event, StepDone):
            now = perf_counter()
            yield now - started, event.loss
            started = perf_counter()


def torch_steps(net: str, batch: int, kind: str, inputs: str, cores: int) -> Any:
    """Yield (seconds, loss) of one step after the other."""
    import torch
    from torch_nets import NETS as MAKERS

    torch.set_num_threads(cores)
    arrays = np.load(inputs)
    model = MAKERS[net]()
    with torch.no_grad():
        for place, value in zip(model.parameters(), (arrays[key] for key in arrays if "." in key), strict=True):
            place.copy_(torch.from_numpy(value))
    images, labels = torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["labels"])
    if kind == "channels_last":
        model = model.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    step_model = torch.compile(model) if kind == "compile" else model
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, MOMENTUM)
    loss_of = torch.nn.CrossEntropyLoss()
    model.train()
    while True:
        for visit in torch.from_numpy(arrays["orders"]):
            for chosen in visit.split(batch):
                if len(chosen) < batch and kind == "compile":
                    continue  # another shape would be compiled anew
                started = perf_counter()
                optimizer.zero_grad()
                loss = loss_of(step_model(images[chosen]), labels[chosen])
                loss.backward()
                optimizer.step()
                value = loss.item()
                yield perf_counter() - started, value


def child(arguments: list[str]) -> None:
    """Be one contender: answer a number of steps with their times and losses."""
    contender, net, batch, inputs, cores = arguments
    if contender == "ours":
        steps = our_steps(net, int(batch), cores)
    else:
        steps = torch_steps(net, int(batch), TORCH[contender], inputs, int(cores))
    serve(lambda count: [next(steps) for _ in range(count)])


def write_inputs(net: str, batch: int, path: Path) -> None:
    """Save the initial weights, the normalized images and the order of the first epochs."""
    import cnnbp_cli as cnnbp
    from cnnbp_cli.data.batches import order

    model = cnnbp.load(config(net), settings(batch, "1"))
    data = cnnbp.load_data(model)
    weights = {name: value for name, value in model.parameters().items() if "running" not in name}
    images = data.normalization.apply(data.train.images, "float32")
    orders = np.stack([order(model.config.seed, epoch, len(images)) for epoch in range(20)])
    np.savez(path, images=images, labels=data.train.labels, orders=orders, **weights)


def measure(net: str, batch: int, contenders: list[str], rounds: int, steps: int, cores: int) -> dict[str, Any]:
    """Return the contenders' times by name, in milliseconds, and their memory."""
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "inputs.npz"
        write_inputs(net, batch, inputs)
        children = {
            name: Child(__file__, "--child", name, net, str(batch), str(inputs), str(cores)) for name in contenders
        }
        losses: dict[str, list[float]] = {}
        for name in contenders:
            answer = children[name].ask(WARM_UP)
            if answer is None:
                print(f"{name} does not run here", file=sys.stderr)
                children.pop(name).end()
            else:
                losses[name] = [loss for _, loss in answer[:COMPARED]]
        times: dict[str, list[list[float]]] = {name: [] for name in children}
        for _ in range(rounds):
            for name, process in children.items():
                times[name].append([1e3 * seconds for seconds, _ in process.ask(steps)])
        memory: dict[str, float] = {}
        for name, process in children.items():
            with PeakMemory(process.pid, every=0.005) as held:
                process.ask(steps)
            memory[name] = held.mebibytes
            process.end()
    if net not in DROPOUT:
        for name, values in losses.items():
            if not np.allclose(values, losses["ours"], rtol=SAME_LOSS):
                raise SystemExit(f"{net}: the losses of {name} are {values}, ours {losses['ours']}")
    return {
        name: {
            "median_ms": median(time for turn in turns for time in turn),
            "best_tenth_ms": float(np.quantile(np.concatenate(turns), 0.1)),
            "round_medians_ms": [median(turn) for turn in turns],
            "mebibytes": memory[name],
        }
        for name, turns in times.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", default=NETS, choices=NETS)
    parser.add_argument("--batches", nargs="+", type=int, default=[64, 256])
    parser.add_argument("--rounds", type=int, default=7, help="turns of every contender")
    parser.add_argument("--steps", type=int, default=30, help="steps in a turn")
    parser.add_argument("--compile", action="store_true", help="let torch.compile take part")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    contenders = ["ours", *(name for name, kind in TORCH.items() if kind != "compile" or options.compile)]
    results: list[dict[str, Any]] = []
    rows: list[list[str]] = []
    for net in options.nets:
        for batch in options.batches:
            found = measure(net, batch, contenders, options.rounds, options.steps, cores)
            results.append({"net": net, "batch": batch, "cores": cores, "contenders": found})
            ours = found["ours"]
            row = [f"{net}, batch {batch}"]
            for name in contenders:
                theirs = found.get(name)
                row += [f"{theirs['median_ms']:.2f}" if theirs else "-"]
                if name != "ours":
                    row += [f"{theirs['median_ms'] / ours['median_ms']:.2f}" if theirs else "-"]
                row += [f"{theirs['mebibytes']:.0f}" if theirs else "-"]
            rows.append(row)
            print(json.dumps(results[-1]), file=sys.stderr, flush=True)
    header = ["median ms per step"]
    for name in contenders:
        header += [name, "MiB"] if name == "ours" else [name, "ratio", "MiB"]
    show_table(header, rows)
    print(f"{cores} cores; a ratio above 1: ours is faster")
    write_json(options.json, results)


if __name__ == "__main__":
    child(sys.argv[2:]) if sys.argv[1:2] == ["--child"] else main()
