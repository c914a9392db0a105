"""Run the proof at full length and say what came out."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from time import perf_counter
from typing import Any
from unittest.mock import patch

import numpy as np
from hypothesis import HealthCheck, given, settings
from proof.example import Example
from proof.faults import FAULTS
from proof.mutants import LostSnippetError, Mutant, first_complaint, verdict
from proof.networks import networks
from proof.systematic import SPOILT, Spoilt

from cnnbp_cli.gradient_check.check import gradcheck

Fault = Mutant | Spoilt


def main() -> int:
    """Return the exit code: 1 when a fault passes unseen, or a right gradient is called wrong."""
    parser = argparse.ArgumentParser(prog="python tests/proof", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    mutants = commands.add_parser("mutants", help="seed faults, and count those that pass unseen")
    mutants.add_argument("--only", default="", metavar="TEXT", help="only faults whose description has this text")
    mutants.add_argument("--jobs", type=int, default=2)
    for name, described in (("networks", "check random networks"), ("torch", "compare them with PyTorch")):
        command = commands.add_parser(name, help=described)
        command.add_argument("--examples", type=int, default=500)
        command.add_argument("--seed", type=int, default=0, help="draw other networks")
    given_ = parser.parse_args()
    started = perf_counter()
    if given_.command == "mutants":
        code = run_mutants(given_.only, given_.jobs)
    elif given_.command == "networks":
        code = run_networks(given_.examples, given_.seed)
    else:
        from proof.against_torch import run_torch

        code = run_torch(given_.examples, given_.seed)
    print(f"{perf_counter() - started:.0f} s")
    return code


# ---------------------------------------------------------------- faults


def judged(fault: Fault) -> str | None:
    """Return what complains about a fault, or None."""
    return fault.verdict() if isinstance(fault, Spoilt) else verdict(fault)


def run_mutants(only: str, jobs: int) -> int:
    if complaint := first_complaint():
        print(f"without any fault: {complaint}")
        return 1
    lost = [message for fault in FAULTS if (message := _lost(fault))]
    if lost:
        print("\n".join(lost))
        return 1
    faults: list[Fault] = [fault for fault in (*FAULTS, *SPOILT) if only in str(fault)]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        verdicts = dict(zip(faults, pool.map(judged, faults), strict=True))
    killed = {fault: found for fault, found in verdicts.items() if found}
    width = max(len(_file(fault)) for fault in faults)
    print(f"{'file':{width}}  faults  killed")
    totals, kills = Counter(map(_file, faults)), Counter(map(_file, killed))
    for file, total in totals.items():
        print(f"{file:{width}}  {total:6}  {kills[file]:6}")
    by_check = sum(": gradcheck:" in found for found in killed.values())
    survivors = [fault for fault in faults if fault not in killed]
    unexplained = [fault for fault in survivors if not _explanation(fault)]
    stale = [fault for fault in killed if _explanation(fault)]
    for fault in survivors:
        print(f"survives: {fault}; {_explanation(fault) or 'NOT EXPLAINED'}")
    for fault in stale:
        print(f"killed, though explained as a survivor: {fault}; {killed[fault]}")
    print(f"{len(killed)} killed of {len(faults)}, {by_check} of them by gradcheck itself; ", end="")
    print(f"{len(survivors)} survive, {len(unexplained)} of them unexplained")
    return 1 if unexplained or stale else 0


def _lost(fault: Mutant) -> str | None:
    try:
        fault.source()
    except LostSnippetError as error:
        return str(error)
    return None


def _file(fault: Fault) -> str:
    return fault.file if isinstance(fault, Mutant) else "every gradient, four ways"


def _explanation(fault: Fault) -> str:
    return fault.survives if isinstance(fault, Mutant) else ""


# ---------------------------------------------------------------- random networks


def at_length(examples: int, seed: int) -> Callable[[Callable[..., None]], Callable[[], None]]:
    """Decorate a test of a random network to run it that often."""
    from hypothesis import seed as seeded

    def decorate(test: Callable[..., None]) -> Callable[[], None]:
        long = settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        return seeded(seed)(long(given(networks())(test)))

    return decorate


def run_networks(examples: int, seed: int) -> int:
    """Check the gradients of random networks; a failure is shrunk and shown."""
    statuses: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    worst = 0.0

    @at_length(examples, seed)
    def check(example: Example) -> None:
        nonlocal worst
        model, images, labels = example.build()
        report = gradcheck(model, images, labels)
        statuses.update(parameter.status for parameter in report.parameters)
        statuses["networks"] += 1
        kinds.update(node.layer.type for node in model.graph.nodes)
        assert report.ok, f"{example}\n{[parameter for parameter in report.parameters if parameter.status == 'wrong']}"
        worst = max(worst, report.max_relative_error)
        statuses[f"spoilt: {spoilt_by_a_thousandth(example)}"] += 1

    check()
    print(", ".join(f"{kind} {count}" for kind, count in kinds.most_common()))
    tensors = sum(count for status, count in statuses.items() if status != "networks")
    print(
        f"{statuses['networks']} networks, {tensors} tensors: {statuses['wrong']} wrong, {statuses['noise']} noise; ",
        end="",
    )
    print(f"largest relative error {worst:.1e}")
    print("one gradient of each, 0.1% too large: ", end="")
    print(", ".join(f"{statuses[f'spoilt: {what}']} {what}" for what in ("seen", "unseen", "zero")))
    return 0


def spoilt_by_a_thousandth(example: Example) -> str:
    """Make one gradient of a right network 0.1% too large: is it ``seen`` or ``unseen``, or was it ``zero``?

    A gradient that is all rounding, such as that of a bias before a normalization, is rightly unseen.
    """
    model, images, labels = example.build()
    names = [entry.name for entry in model.layout.entries]
    if not names:
        return "zero"
    node, _, key = names[example.seed % len(names)].rpartition(".")
    backward, largest = model.graph.backward, 0.0

    def spoilt(*args: Any) -> Any:
        nonlocal largest
        dx, grads = backward(*args)
        grads[node][key] = 1.001 * grads[node][key]
        largest = max(largest, float(np.abs(grads[node][key]).max()))
        return dx, grads

    with patch.object(model.graph, "backward", spoilt):
        report = gradcheck(model, images, labels, parameter=f"{node}.{key}")
    return "zero" if largest == 0 else "unseen" if report.ok else "seen"
