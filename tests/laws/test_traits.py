"""What layers say about themselves is true of their passes, for every case of the table."""

from __future__ import annotations

from dataclasses import replace
from math import isfinite, prod

import numpy as np
import pytest
from laws.cases import ALL_CASES, CASES, Case
from laws.passes import EVALUATION, TRAINING, passes, problem

from cnnbp_cli.core.types import Array

EXACT = [case for case in ALL_CASES if case.dtype == "float64"]
FAR = 40.0


def having(trait: str) -> pytest.MarkDecorator:
    """Run a test for the cases whose layers say this of themselves."""
    chosen = [case for case in EXACT if getattr(case.layer, trait)]
    assert chosen
    return pytest.mark.parametrize("case", chosen, ids=str)


def curve(case: Case, values: Array) -> tuple[Array, Array]:
    """Return y and the slope of a layer that takes every number by itself."""
    x = np.broadcast_to(values, (*case.in_shapes[0], len(values))).copy()
    numbers = replace(problem(case), xs=[x], dy=np.ones_like(x))
    result = passes(numbers, EVALUATION)
    return result.arrays["y"], result.arrays["dx0"]


def bends(case: Case) -> bool:
    """Return whether a case is no linear function plus a constant."""
    parts = [problem(case, seed=seed) for seed in range(3)]
    params = parts[0].params
    a, b, c = (part.xs for part in parts)
    together = [x + y - z for x, y, z in zip(a, b, c, strict=True)]
    ya, yb, yc, y = (case.layer.node_forward(params, xs, EVALUATION)[0].copy() for xs in (a, b, c, together))
    return not np.allclose(y, ya + yb - yc, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", CASES)
def test_linear_layers_and_no_others_are_linear(kind: str) -> None:
    cases = [case for case in CASES[kind] if case.dtype == "float64"]
    assert any(map(bends, cases)) != cases[0].layer.is_linear


@having("is_activation")
def test_activations_keep_shapes(case: Case) -> None:
    assert (case.out_shape,) == case.in_shapes
    assert not case.layer.is_linear


@pytest.mark.parametrize("case", EXACT, ids=str)
def test_outputs_stay_in_their_range(case: Case) -> None:
    low, high = case.layer.output_range()
    for scale in (0.3, 1.0, 10.0):
        numbers = problem(case, n=20)
        y = passes(replace(numbers, xs=[scale * x for x in numbers.xs]), EVALUATION).y
        assert low <= y.min() <= y.max() <= high


@pytest.mark.parametrize("case", [c for c in EXACT if isfinite(sum(map(abs, c.layer.output_range())))], ids=str)
def test_a_bounded_output_saturates_or_is_a_distribution_or_a_rectifiers(case: Case) -> None:
    layer = case.layer
    assert layer.saturates + layer.is_distribution + layer.rectifies == 1  # half of a rectifier's units are at its end


@having("saturates")
def test_saturation_is_flat_and_at_the_ends(case: Case) -> None:
    y, slope = curve(case, np.array([-FAR, FAR]))
    low, high = case.layer.output_range()
    np.testing.assert_allclose(y[..., 0], low, atol=0.01 * (high - low))
    np.testing.assert_allclose(y[..., 1], high, atol=0.01 * (high - low))
    assert np.abs(slope).max() < 1e-9


@having("rectifies")
def test_rectifiers_are_active_above_0_and_steeper_there(case: Case) -> None:
    y, slope = curve(case, np.array([-FAR, min(FAR, case.layer.output_range()[1] / 2)]))
    assert (y[..., 1] > 0).all()
    assert (np.abs(slope[..., 0]) < slope[..., 1]).all()


@having("can_die")
def test_dead_units_get_no_gradient(case: Case) -> None:
    assert case.layer.rectifies
    y, slope = curve(case, np.array([-FAR]))
    assert y.max() <= 0
    assert np.abs(slope).max() < 1e-9


@having("is_distribution")
def test_distributions_add_up_to_1(case: Case) -> None:
    y = passes(problem(case), EVALUATION).y
    assert y.min() >= 0
    np.testing.assert_allclose(y.sum(0), 1)


@having("selects")
def test_what_selects_makes_no_new_values(case: Case) -> None:
    numbers = problem(case)
    assert np.isin(passes(numbers, EVALUATION).y, numbers.xs[0]).all()


@having("normalizes")
def test_the_scale_before_a_normalization_makes_no_difference(case: Case) -> None:
    numbers = problem(case, n=5)
    outputs = [passes(replace(numbers, xs=[scale * x for x in numbers.xs]), TRAINING).y for scale in (1e4, 1e6)]
    np.testing.assert_allclose(*outputs, atol=1e-6)


@pytest.mark.parametrize("case", EXACT, ids=str)
def test_samples_mix_where_that_is_said_and_only_in_training(case: Case) -> None:
    numbers = problem(case, n=4)
    others = [np.concatenate([x[..., :1], 2 * x[..., 1:] + 1], -1) for x in numbers.xs]
    for ctx in (TRAINING, EVALUATION):
        first = passes(numbers, ctx).y[..., 0]
        changed = not np.allclose(first, passes(replace(numbers, xs=others), ctx).y[..., 0], rtol=0, atol=1e-12)
        assert changed == (case.layer.mixes_samples and ctx.training)


@pytest.mark.parametrize("case", EXACT, ids=str)
def test_without_noise_a_seed_makes_no_difference(case: Case) -> None:
    def differs(layer: object) -> bool:
        numbers = problem(replace(case, layer=layer), n=20)
        first, second = (passes(numbers, replace(TRAINING, seed=seed)).y for seed in (1, 2))
        return not np.array_equal(first, second)

    still = case.layer.without_noise()
    assert not differs(still)
    assert differs(case.layer) == (still != case.layer)


@pytest.mark.parametrize("case", EXACT, ids=str)
def test_units_lie_along_the_axis_that_is_said(case: Case) -> None:
    if not case.layer.normalizes:
        weight = case.layer.param_shapes(case.in_shapes[0]).get("weight")
        groups = case.layer.groups if case.layer.transposed else 1  # of which each has units of its own
        assert weight is None or weight == (1,) or weight[case.layer.unit_axis] * groups == case.out_shape[0]


@pytest.mark.parametrize("case", EXACT, ids=str)
def test_a_layer_holds_its_output_or_hands_on_its_input(case: Case) -> None:
    numbers = problem(case)
    held = case.layer.node_memory(case.in_shapes)
    y = case.layer.node_forward(numbers.params, numbers.xs, TRAINING)[0]
    assert isinstance(held, int)
    assert held >= prod(case.out_shape) or (held == 0 and y is numbers.xs[0])
