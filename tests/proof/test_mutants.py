"""A part of the mutation campaign; `make mutants` runs all of it."""

from __future__ import annotations

import sys

import pytest
from proof.faults import BY_POINTS, FAULTS, IN_PLACE
from proof.judge import complaint
from proof.mutants import LostSnippetError, Mutant, planted, verdict
from proof.systematic import SPOILT
from proof.zoo import ZOO

from cnnbp_cli.core import losses
from cnnbp_cli.core.layers import LAYERS
from cnnbp_cli.core.openblas import gemm

SEEN = [fault for fault in FAULTS if not fault.survives and not fault.file.startswith("parallel/")]


def test_the_zoo_has_every_layer_and_loss():
    assert set().union(*(inhabitant.types for inhabitant in ZOO.values())) == set(LAYERS)
    trained = {type(inhabitant.example.build()[0].loss_function) for inhabitant in ZOO.values()}
    assert trained == {losses.SoftmaxCrossEntropy, losses.SigmoidBinaryCrossEntropy, losses.MeanSquaredError}


@pytest.mark.parametrize("name", [name for name in ZOO if name != "steps-on-two-workers"])
def test_nothing_complains_without_a_fault(name):
    assert complaint(ZOO[name]) is None


def test_there_are_enough_faults():
    assert len(SEEN) > 150
    assert len({(fault.file, fault.where, fault.old, fault.new) for fault in FAULTS}) == len(FAULTS)


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_every_snippet_is_still_there(fault):
    assert fault.source() != ""


def test_a_snippet_that_is_lost_is_an_error():
    with pytest.raises(LostSnippetError) as caught:
        Mutant("core/layers/dense.py", "Dense.backward", "no such code", "", "nothing").source()
    assert str(caught.value) == "dense Dense.backward: nothing: 'no such code' stands there 0 times"


def test_a_fault_that_nothing_imports_is_an_error():
    with pytest.raises(AssertionError, match="nothing imports cnnbp_cli"), planted(SEEN[0]):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("fault", SEEN[::6], ids=str)
def test_faults_in_the_source_are_seen(fault):
    if fault.file in (BY_POINTS, IN_PLACE) and gemm("d") is None:
        pytest.skip("this NumPy has no OpenBLAS to call")
    assert verdict(fault) is not None


@pytest.mark.slow
@pytest.mark.parametrize("fault", SPOILT, ids=str)
def test_spoilt_gradients_are_seen(fault):
    assert ": gradcheck: " in (fault.verdict() or "")


def test_afterwards_everything_is_as_it_was():
    before = {name: module for name, module in sys.modules.items() if name.startswith("cnnbp_cli")}
    assert verdict(SEEN[0]) is not None
    assert {name: module for name, module in sys.modules.items() if name.startswith("cnnbp_cli")} == before
