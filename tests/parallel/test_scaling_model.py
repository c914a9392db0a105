"""The model of a step on many processes does its arithmetic, and says where scaling ends."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from scaling_model import Network, Workload, needed_batch, step_seconds, sum_seconds, useful_processes

LOAD = Workload((1, 2, 4), (0.003, 0.004, 0.006), update=0.001, values=1000, itemsize=4, channels=())
FREE, SLOW = Network("free", 0.0, 0.0), Network.rated("slow", 1e4, 1)


def test_between_and_beyond_what_was_measured_a_step_is_linear():
    assert [LOAD.compute(images) for images in (1, 3, 4, 10)] == pytest.approx([0.003, 0.005, 0.006, 0.012])


def test_without_messages_only_work_remains():
    assert step_seconds(LOAD, FREE, 1, 8) == pytest.approx(0.010)
    assert step_seconds(LOAD, FREE, 4, 8) == pytest.approx(0.004 - 0.00075)


def test_messages_of_a_step_by_hand():
    """Three small sums of two rounds each on four processes; one bucket down, and the parameters gathered."""
    network = Network("", 1.0, 1e-3)
    small = 3 * 2 + 3 * (16 + 24 + 8) * 1e-3
    exchange = 2 + 2 + 2 * 4000 * 0.75 * 1e-3
    assert step_seconds(LOAD, network, 4, 4) == pytest.approx(0.003 - 0.00075 + small + exchange)


def test_large_sums_are_made_in_two_passes():
    assert sum_seconds(Network("", 1.0, 1e-6), 4, 1 << 20) == pytest.approx(4 + 2 * 0.75 * (1 << 20) * 1e-6)


def test_a_network_without_cost_lets_any_number_help_and_a_slow_one_none():
    linear = Workload((1, 2), (1.0, 2.0), update=0.0, values=8, itemsize=4, channels=())
    assert useful_processes(linear, FREE, 64) == 64
    assert useful_processes(LOAD, SLOW, 64) == 1
    assert needed_batch(linear, FREE, 16) == 16
    assert needed_batch(LOAD, SLOW, 1024) is None or needed_batch(LOAD, SLOW, 1024) > 1024
