"""A model of a training step on many processes: from what one worker computes and what a message costs.

How many messages of which size a step takes is arithmetic about `cnnbp_cli/parallel/mpi.py`, with the usual trees and
rings (Thakur, Rabenseifner & Gropp 2005, *Optimization of collective communication operations in MPICH*). No message is
taken to be sent while something is computed, so the prediction is an upper bound there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, log2

import numpy as np

from cnnbp_cli.parallel.mpi import BUCKET_BYTES, ORDERED_BYTES

MOST_PROCESSES, MOST_IMAGES = 1024, 1 << 14
RING_BYTES = 1 << 19
"""MPICH gathers longer vectors in a ring."""


@dataclass(frozen=True)
class Network:
    """What a message costs: seconds before the first byte, and seconds for each byte."""

    name: str
    latency: float
    per_byte: float

    @classmethod
    def rated(cls, name: str, microseconds: float, gigabits: float) -> Network:
        """Return a network by what its vendor says."""
        return cls(name, microseconds * 1e-6, 8 / (gigabits * 1e9))


NETWORKS = (Network.rated("10 GbE", 25, 10), Network.rated("100 Gb InfiniBand", 1.5, 100))


@dataclass(frozen=True)
class Workload:
    """What a step of a config takes.

    Attributes
    ----------
    images, seconds : sequence of float
        The time of a step of one worker alone, by its number of images.
    update : float
        The seconds of it that go into the update of all parameters.
    values, itemsize : int
        Of the parameters.
    channels : sequence of int
        Of each batch norm.
    """

    images: Sequence[int]
    seconds: Sequence[float]
    update: float
    values: int
    itemsize: int
    channels: Sequence[int]

    def compute(self, images: int) -> float:
        """Return the seconds that one worker computes for so many images."""
        x, y = self.images, self.seconds
        if images <= x[-1]:
            return float(np.interp(images, x, y))
        return y[-1] + (images - x[-1]) * (y[-1] - y[-2]) / (x[-1] - x[-2])

    def sums(self, processes: int) -> list[int]:
        """Return the bytes of each array that a step sums over all workers, besides the gradient."""
        fixed = [16, 24, 8]  # is it to stop; loss, correct answers and norm; is everything finite
        forward = [processes * (2 * c + 1) * 8 for c in self.channels]
        return [*fixed, *forward, *(2 * c * self.itemsize for c in self.channels)]


def sum_seconds(network: Network, processes: int, size: int) -> float:
    """Return how long `MpiWorker.all_reduce` takes for an array of so many bytes."""
    rounds = ceil(log2(processes))
    if size * processes <= ORDERED_BYTES:
        return rounds * network.latency + (processes - 1) * size * network.per_byte
    return 2 * rounds * network.latency + 2 * size * (processes - 1) / processes * network.per_byte


def exchange_seconds(network: Network, processes: int, size: int) -> float:
    """Return how long it takes to sum a gradient of so many bytes, by shares, and to gather the parameters."""
    rounds, buckets = ceil(log2(processes)), ceil(size / BUCKET_BYTES)
    gather = (processes - 1 if size > RING_BYTES else rounds) * network.latency
    return rounds * buckets * network.latency + gather + 2 * size * (processes - 1) / processes * network.per_byte


def step_seconds(load: Workload, network: Network, processes: int, batch: int, slower: float = 1.0) -> float:
    """Return the predicted seconds of a step, where each of the processes is slower than one alone by a factor."""
    compute = load.compute(ceil(batch / processes)) - load.update * (1 - 1 / processes)
    if processes == 1:
        return compute
    sums = sum(sum_seconds(network, processes, size) for size in load.sums(processes))
    exchange = exchange_seconds(network, processes, load.values * load.itemsize)
    return compute * slower + sums + exchange


def counts(most: int = MOST_PROCESSES) -> list[int]:
    """Return the powers of two up to a number."""
    return [1 << k for k in range(most.bit_length()) if 1 << k <= most]


def useful_processes(load: Workload, network: Network, batch: int) -> int:
    """Return to how many processes it pays to double: until a doubling takes less than a tenth off the step."""
    for processes in counts(min(batch, MOST_PROCESSES) // 2):
        before, after = (step_seconds(load, network, n, batch) for n in (processes, 2 * processes))
        if after > 0.9 * before:
            return processes
    return counts(min(batch, MOST_PROCESSES))[-1]


def needed_batch(load: Workload, network: Network, processes: int) -> int | None:
    """Return the smallest batch, of powers of two, of which so many processes do half of what they could; or None."""
    for each in counts(MOST_IMAGES):
        batch = each * processes
        if load.compute(batch) / (processes * step_seconds(load, network, processes, batch)) >= 0.5:
            return batch
    return None
