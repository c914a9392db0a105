"""How the cost of a training step grows: with the batch, the image, the channels, the workers, the data set.

Each row is the median step of `cnnbp_cli.fit` in one process with one thread, unless the row says otherwise,
after a warm-up. `growth` compares the time with the row above, next to what the work grew by: where the first
number is the larger one, something does not scale.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from statistics import median
from time import perf_counter
from typing import Any

from processes import Child, serve, show_table, write_json

CONFIG = """
name: growth
data: {{source: synthetic, kind: digits, image: [1, {image}, {image}], train: {train}, test: 0}}
model:
  input: [1, {image}, {image}]
  layers:
    - {{type: conv2d, filters: {channels}, kernel_size: 3, padding: same}}
    - batch_norm
    - relu
    - {{type: conv2d, filters: {channels}, kernel_size: 3, padding: same}}
    - relu
    - {{type: max_pool2d, pool_size: 2}}
    - global_avg_pool2d
    - {{type: dense, units: 10}}
train: {{batch_size: {batch}, workers: {workers}, epochs: 1000000, optimizer: sgd}}
"""

DEFAULTS = {"image": 28, "channels": 16, "batch": 64, "workers": 1, "train": 2048}

SERIES: dict[str, list[int]] = {
    "batch": [16, 32, 64, 128, 256, 512, 1024],
    "image": [28, 56, 112, 224],
    "channels": [8, 16, 32, 64, 128],
    "workers": [1, 2, 4],
    "train": [1024, 8192, 65536, 262144],
}

WARM_UP, STEPS, SECONDS = 3, 40, 4.0  # at least two steps, at most so many, in at most so long


def work(sizes: dict[str, int]) -> int:
    """Return what the multiply-accumulates of a step are proportional to."""
    c = sizes["channels"]
    return sizes["batch"] * sizes["image"] ** 2 * (9 * c + 9 * c * c)


def measure(sizes: dict[str, int]) -> dict[str, float]:
    """Return the median step in milliseconds, and the seconds from the call of `fit` to the first step."""
    from cnnbp_cli.build import build
    from cnnbp_cli.config.load import parse_config
    from cnnbp_cli.loading import load_data
    from cnnbp_cli.train.events import StepDone
    from cnnbp_cli.train.fit import fit

    model = build(parse_config(CONFIG.format(**sizes)))
    data = load_data(model)
    started = perf_counter()
    times: list[float] = []
    start_up = 0.0
    for event in fit(model, data, watch_every=0):
        if isinstance(event, StepDone):
            start_up = start_up or perf_counter() - started - event.seconds
            times.append(event.seconds)
            if len(times) > WARM_UP + 1 and (len(times) == WARM_UP + STEPS or perf_counter() - started > SECONDS):
                break
    return {"ms": 1e3 * median(times[WARM_UP:]), "start_up_ms": 1e3 * start_up}


def rows(name: str, found: list[dict[str, Any]]) -> Iterator[list[str]]:
    """Yield the lines of one series."""
    before = None
    for row in found:
        growth = grown = ""
        if before is not None:
            growth = f"{row['ms'] / before['ms']:.2f}"
            grown = f"{work(row['sizes']) / work(before['sizes']):.2f}"
        per_image = 1e3 * row["ms"] / row["sizes"]["batch"]
        label = f"{name} {row['sizes'][name]}"
        yield [label, f"{row['ms']:.2f}", f"{per_image:.1f}", growth, grown, f"{row['start_up_ms']:.0f}"]
        before = row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", nargs="+", default=list(SERIES), choices=list(SERIES))
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(measure)
        return
    results: dict[str, list[dict[str, Any]]] = {}
    for name in options.series:
        results[name] = []
        for size in SERIES[name]:
            sizes = DEFAULTS | {name: size}
            child = Child(__file__, "--serve")  # a fresh process: no buffers are left from the size before
            results[name].append({"sizes": sizes, **child.ask(sizes)})
            child.end()
        show_table(["series", "ms", "µs/image", "growth", "of work", "start-up ms"], list(rows(name, results[name])))
        print()
    print(f"{os.cpu_count()} cores")
    write_json(options.json, results)


if __name__ == "__main__":
    main()
