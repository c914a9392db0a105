"""The random networks of the proof, and the zoo, against PyTorch; `make proof` compares more of them."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from proof.faults import ALIKE, FAULTS
from proof.mutants import planted
from proof.networks import networks
from proof.zoo import ZOO

torch = pytest.importorskip("torch")

from oracles.torch_model import one_thread  # noqa: E402
from proof.against_torch import disagreement  # noqa: E402


@pytest.fixture(autouse=True, scope="module")
def single_threaded():
    with one_thread():
        yield


@pytest.mark.parametrize("name", ZOO)
def test_the_zoo(name):
    found = disagreement(ZOO[name].example)
    assert {key: error for key, error in found.errors.items() if error > 1e-11} == {}


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(example=networks())
def test_random_networks(example):
    found = disagreement(example)
    assert {key: error for key, error in found.errors.items() if error > 1e-9} == {}


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault.survives == ALIKE], ids=str)
def test_what_a_gradient_check_cannot_see_is_seen_here(fault):
    """A layer that computes something else, with the right gradient of that."""
    with planted(fault):
        assert any(_differs(inhabitant.example) for inhabitant in ZOO.values())


def _differs(example):
    try:
        return disagreement(example).worst > 1e-9
    except AssertionError:  # another shape
        return True
