"""The order of comparisons, a limit of time, and that a limited check can be repeated exactly."""

from itertools import islice
from math import prod
from time import sleep

import numpy as np
import pytest

from cnnbp_cli.gradient_check import check as checking
from cnnbp_cli.gradient_check.check import gradcheck
from cnnbp_cli.gradient_check.complex_step import ComplexStep
from cnnbp_cli.gradient_check.linear import LinearLayers
from cnnbp_cli.gradient_check.plan import Clock, Plan, Probe, costs, run
from cnnbp_cli.model import ModelInputError

SHAPES = {"a.weight": (3, 2), "a.bias": (3,), "input": (1, 2, 2, 4)}
LAYERS = [
    {"type": "conv2d", "name": "conv", "filters": 3, "kernel_size": 3},
    {"type": "batch_norm", "name": "norm"},
    "relu",
    "flatten",
    {"type": "dense", "name": "dense", "units": 2},
]


@pytest.fixture
def case(network):
    rng = np.random.default_rng(0)
    return network(*LAYERS), rng.random((3, 1, 6, 6)), np.array([0, 1, 1])


@pytest.mark.parametrize(("directions", "elements"), [(3, 5), (0, 2), (2, 0), (1, "all")])
def test_a_plan_has_every_comparison_once(directions, elements):
    plan = Plan(SHAPES, 2, directions, elements, 0)
    probes = list(plan)
    assert len(probes) == len(plan) == len(set(probes))
    for mode in (0, 1):
        for name, shape in SHAPES.items():
            kinds = [probe.kind for probe in probes if (probe.mode, probe.name) == (mode, name)]
            assert kinds.count("direction") == directions
            assert kinds.count("element") == (prod(shape) if elements == "all" else min(elements, prod(shape)))


def test_every_gradient_has_its_turn_in_every_mode_before_any_has_two():
    probes = list(Plan(SHAPES, 2, 3, 5, 0))
    rounds = [probes[start : start + 3] for start in range(0, 24, 3)]
    assert [{(probe.mode, probe.kind, probe.number) for probe in one} for one in rounds] == [
        {(mode, kind, number)} for number in (0, 1) for kind in ("direction", "element") for mode in (0, 1)
    ]
    assert all([probe.name for probe in one] == ["input", "a.weight", "a.bias"] for one in rounds)


def test_elements_are_different_ones_and_the_same_in_each_mode():
    plan = Plan(SHAPES, 2, 3, 5, 0)
    found = {
        mode: [plan.direction(p)[1] for p in plan if p.kind == "element" and p.name == "a.weight" and p.mode == mode]
        for mode in (0, 1)
    }
    assert found[0] == found[1]
    assert len(set(found[0])) == 5
    direction, index = plan.direction(Probe(0, "a.weight", "element", 0))
    assert direction[index] == direction.sum() == 1


def test_costs_are_those_of_the_layers_that_a_change_goes_through(network):
    graph = network(*LAYERS).graph
    found = costs(graph, ["conv.weight", "dense.weight", "input"])
    assert found["input"] == found["conv.weight"] == 1
    assert 0 < found["dense.weight"] < 0.2


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_order_and_stop_with_the_time(workers):
    probes = [Probe(0, str(number), "direction", number) for number in range(30)]

    def compare(probe):
        sleep(0.002 * (probe.number % 3))
        return probe.number

    assert list(run(iter(probes), compare, workers, Clock(None))) == [(probe, probe.number) for probe in probes]
    first = [number for _, number in run(iter(probes), compare, workers, Clock(1e-9))]
    assert first == list(range(len(first)))
    assert 1 <= len(first) <= workers + 1


def test_an_error_in_a_thread_is_raised():
    def compare(probe):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(run(iter([Probe(0, "a", "direction", 0)] * 5), compare, 2, Clock(None)))


def test_a_limited_check_makes_the_first_comparisons_and_can_be_repeated(case, monkeypatch):
    whole = gradcheck(*case)
    assert whole.comparisons == whole.planned == sum(check.checked for check in whole.parameters)
    compare = ComplexStep.compare

    def slowly(self, *arguments):
        sleep(0.004)
        return compare(self, *arguments)

    monkeypatch.setattr(ComplexStep, "compare", slowly)
    limited = gradcheck(*case, time=0.1)
    assert 1 <= limited.comparisons < limited.planned == whole.planned
    assert limited.seconds < 5
    monkeypatch.undo()
    assert gradcheck(*case, comparisons=limited.comparisons) == limited


def test_what_was_not_looked_at_is_said_to_be_unchecked(case):
    report = gradcheck(*case, comparisons=2)
    checks = {check.name: check for check in report.parameters}
    assert checks["input"].status == checks["conv.weight"].status == "ok"
    assert (checks["input"].directions, checks["input"].by_mode) == (1, {"training": 1})
    rest = [check for name, check in checks.items() if name not in ("input", "conv.weight")]
    assert {(check.status, check.relative_error, check.checked, check.coverage) for check in rest} == {
        ("unchecked", None, 0, 0.0)
    }
    assert report.ok
    assert report.modes == ["training", "evaluation"]


def test_threads_change_nothing(case, monkeypatch):
    alone = gradcheck(*case)
    monkeypatch.setattr(checking, "WORTH_THREADS", 0.0)
    monkeypatch.setattr(checking, "available_cores", lambda: 3)
    assert gradcheck(*case) == alone


def test_a_fault_is_found_and_located_when_time_is_over(case, monkeypatch):
    model, *data = case
    backward = type(model.graph.nodes[0].layer).backward

    def wrong(self, params, residuals, dy, ctx):
        dx, grads = backward(self, params, residuals, dy, ctx)
        return dx, grads | {"weight": 1.001 * grads["weight"]}

    monkeypatch.setattr(type(model.graph.nodes[0].layer), "backward", wrong)
    monkeypatch.setattr(checking.Clock, "is_over", lambda clock: len(told) > 1)
    told = []
    report = gradcheck(model, *data, time=60, progress=lambda done, total: told.append(done))
    assert report.comparisons == 2
    (bad,) = [check for check in report.parameters if check.status == "wrong"]
    assert bad.name == "conv.weight"
    assert bad.worst_index is not None
    assert not report.ok


def test_what_it_will_take_is_announced(case):
    told = []
    gradcheck(*case, announce=lambda comparisons, seconds: told.append((comparisons, seconds)))
    ((comparisons, seconds),) = told
    assert comparisons == gradcheck(*case).planned
    assert 0 < seconds < 60


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"time": 0.0}, "expected a time above 0 seconds, got 0"),
        ({"time": float("nan")}, "expected a time above 0 seconds, got nan"),
        ({"comparisons": 0}, "expected 1 comparison or more, got 0"),
    ],
)
def test_limits_that_are_none(case, options, message):
    with pytest.raises(ModelInputError, match=message):
        gradcheck(*case, **options)


class TestLinearLayers:
    def layers(self, case, **changed):
        model, images, labels = case
        reference = checking.ReferencePass(model, *model.batch_in(images, labels), "training")
        return reference, LinearLayers(reference.params, reference.values, reference.ctx)

    def test_agree_with_the_complex_step(self, case):
        reference, linear = self.layers(case)
        carried = 0
        for node in reference.graph.nodes:
            x = reference.values[node.inputs[0]]
            change = 2.0**-100 * np.random.default_rng(0).normal(size=x.shape)
            found = linear.carry(node, [change], {})
            if found is not None:
                expected = reference.compute(node, reference.params[node.name], [x + 1j * change])[0].imag
                np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12 * np.abs(expected).max())
                carried += 1
        assert carried == 3  # convolution, flatten and dense; batch norm has other statistics

    def test_a_parameter_that_moves(self, case):
        reference, linear = self.layers(case)
        node = reference.nodes["conv"]
        step = np.random.default_rng(0).normal(size=(3, 1, 3, 3))
        params = reference.params["conv"]
        moved = params | {"weight": params["weight"] + 1j * 2.0**-100 * step}
        expected = reference.compute(node, moved, [reference.values["input"]])[0].imag
        found = linear.carry(node, [None], {"weight": step})
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12 * np.abs(expected).max())
        assert linear.carry(node, [None], {"bias": np.ones(3)}) is None

    def test_a_layer_that_is_not_what_it_says_is_not_believed(self, case, monkeypatch):
        reference, linear = self.layers(case)
        relu = reference.nodes["relu_1"]
        monkeypatch.setattr(type(relu.layer), "is_linear", True)
        change = np.ones(reference.values["norm"].shape)
        assert linear.carry(relu, [change], {}) is None


def test_the_plan_of_a_large_tensor_is_not_written_out():
    plan = Plan({"w": (10**6, 10**3)}, 2, 1, "all", 0)
    assert len(plan) == 2 + 2 * 10**9
    assert [probe.number for probe in islice(plan, 2, 6)] == [0, 0, 1, 1]
