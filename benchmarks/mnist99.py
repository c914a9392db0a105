"""From nothing to 99% on MNIST's test images: wall time and memory of whole processes, ours and PyTorch's.

Both read the files, train LeNet-5 for three epochs on the same schedule, test, and end. Both take turns. The
memory is the peak of what all processes of a side hold together, shared pages counted once.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from processes import ROOT, PeakMemory, clean_environment, show_table, write_json

HERE = Path(__file__).parent
GOAL = 0.99


def find_mnist(given: str | None) -> Path:
    """Return the folder with the four files."""
    path = Path(given or os.environ.get("CNNBP_MNIST") or ROOT.parent / "shared" / "data" / "mnist")
    if not path.is_dir():
        raise SystemExit(f"{path}: no such folder; name the one with MNIST's four files by --data or CNNBP_MNIST")
    return path.resolve()


def ours(mnist: Path, folder: str, workers: str) -> list[str]:
    settings = ["--set", f"data.path={mnist}", "--set", f"train.workers={workers}"]
    command = ["-m", "cnnbp_cli", "train", str(HERE / "mnist99.yaml"), *settings]
    return [*command, "--quiet", "--format", "json", "--out", str(Path(folder) / "run")]


def run(arguments: list[str]) -> dict[str, float]:
    """Return the seconds, the peak memory and the test accuracy of a Python program."""
    started = perf_counter()
    with (
        subprocess.Popen(
            [sys.executable, *arguments], env=clean_environment(), stdout=subprocess.PIPE, text=True
        ) as process,
        PeakMemory(process.pid) as memory,
    ):
        out, _ = process.communicate()
        seconds = perf_counter() - started
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with exit code {process.returncode}")
    accuracy = json.loads(out.splitlines()[-1])["test_accuracy"]
    return {"seconds": seconds, "mebibytes": memory.mebibytes, "accuracy": accuracy}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", metavar="FOLDER", help="MNIST's four files; by default $CNNBP_MNIST")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", default="auto", help="our processes")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    mnist = find_mnist(options.data)
    results: dict[str, list[dict[str, float]]] = {"ours": [], "torch": []}
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            results["ours"].append(run(ours(mnist, folder, options.workers)))
        results["torch"].append(run([str(HERE / "torch_mnist.py"), str(mnist)]))
    rows: list[list[str]] = []
    for name, runs in results.items():
        figures: dict[str, Any] = {key: median(each[key] for each in runs) for key in runs[0]}
        reached = sum(each["accuracy"] >= GOAL for each in runs)
        accuracy = f"{100 * figures['accuracy']:.2f}%"
        rows.append(
            [name, f"{figures['seconds']:.1f}", f"{figures['mebibytes']:.0f}", accuracy, f"{reached}/{len(runs)}"]
        )
    show_table(["medians", "seconds", "MiB", "test accuracy", "reached 99%"], rows)
    write_json(options.json, results)


if __name__ == "__main__":
    main()
