"""The law of terms: the terms that a layer states for a cell add up to it, over the whole table of cases."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import fsum

import numpy as np
import pytest
from laws.cases import ALL_CASES, IMAGE, Case
from laws.passes import EVALUATION, TRAINING, Problem, passes, problem, smooth, tied

from cnnbp_cli.core.layers import Conv2d, Relu
from cnnbp_cli.core.terms import OUTPUT, Index, LayerPass, Ref, Term, Terms, products, why_zero
from cnnbp_cli.core.types import Array, Context

CELLS = 12
"""Of each tensor; all of a smaller one."""

every_case = pytest.mark.parametrize("case", ALL_CASES, ids=str)
both_modes = pytest.mark.parametrize("ctx", [TRAINING, EVALUATION], ids=["training", "evaluation"])
all_values = pytest.mark.parametrize("draw", [smooth, tied])


def told(numbers: Problem, ctx: Context) -> tuple[LayerPass, dict[str, Array]]:
    """Run both passes; return what terms are stated about, and the tensors that they explain."""
    y, residuals = numbers.layer.node_forward(numbers.params, numbers.xs, ctx)
    return LayerPass(numbers.params, numbers.xs, y, numbers.dy, residuals), passes(numbers, ctx).arrays


def terms_of(numbers: Problem, at: LayerPass, tensor: str, index: Index) -> Terms:
    if tensor == "y":
        return numbers.layer.y_terms(at, index)
    if tensor.startswith("dx"):
        return numbers.layer.dx_terms(at, int(tensor[2:]), index)
    return numbers.layer.grad_terms(at, tensor, index)


def some_cells(array: Array) -> list[Index]:
    """Return the first and the last index and a few in between, drawn from a seed."""
    chosen = np.random.default_rng(5).permutation(array.size)[: CELLS - 2]
    flat = sorted({0, array.size - 1, *chosen.tolist()})
    return [tuple(map(int, np.unravel_index(k, array.shape))) for k in flat]


def explained(numbers: Problem, ctx: Context) -> Iterator[tuple[str, Index, float, Terms, LayerPass]]:
    at, arrays = told(numbers, ctx)
    for tensor, array in arrays.items():
        for index in some_cells(array):
            yield tensor, index, float(array[index]), terms_of(numbers, at, tensor, index), at


def error(value: float, terms: Terms, at: LayerPass) -> float:
    """Return how far the terms' sum is from the cell, relative to Σ |term|."""
    summands = products(at.__getitem__, terms.terms)
    return abs(fsum(summands) - value) / max(fsum(map(abs, summands)), 1e-300)


@every_case
@both_modes
@all_values
def test_the_terms_of_a_cell_add_up_to_it(case, ctx, draw):
    seen = set()
    for tensor, index, value, terms, at in explained(problem(case, draw), ctx):
        assert terms.stated
        assert error(value, terms, at) <= case.tolerance, (tensor, index, value, terms)
        seen.add(tensor)
    assert seen == passes(problem(case, draw), ctx).arrays.keys()


@every_case
def test_a_coefficient_that_is_off_by_a_millionth_is_rejected(case):
    found = 0
    for *_, value, terms, at in explained(problem(case), TRAINING):
        sizes = np.abs(products(at.__getitem__, terms.terms))
        if sizes.size and sizes.max() > 0:
            k = int(sizes.argmax())
            wrong = [
                term._replace(coefficient=term.coefficient * (1 + 1e-6 * (j == k)))
                for j, term in enumerate(terms.terms)
            ]
            assert error(value, replace(terms, terms=tuple(wrong)), at) > (1e-10 if case.dtype == "float64" else 0)
            found += 1
    assert found


@every_case
def test_a_factor_from_the_cell_beside_it_is_rejected(case):
    found = 0
    for *_, value, terms, at in explained(problem(case), TRAINING):
        summands = products(at.__getitem__, terms.terms)
        for k, term in enumerate(terms.terms):
            for j, ref in enumerate(term.factors):
                home = at.params if isinstance(ref.tensor, str) else {0: at.x, OUTPUT: at.y}
                if ref.tensor in home and (last := home[ref.tensor].shape[0] - 1):
                    beside = ref._replace(where=((ref.where[0] or last) - 1, *ref.where[1:]))
                    factors = (*term.factors[:j], beside, *term.factors[j + 1 :])
                    (moved,) = products(at.__getitem__, [Term(term.coefficient, factors)])
                    wrong = [*summands[:k], moved, *summands[k + 1 :]]
                    if abs(moved - summands[k]) > 1e-3 * max(map(abs, wrong)):
                        assert abs(fsum(wrong) - value) > 1e-5 * max(map(abs, wrong))
                        found += 1
    assert found or case.out_shape[0] == 1


@every_case
@both_modes
def test_a_value_depends_on_no_cell_but_those_that_its_terms_name(case, ctx):
    """All other cells change; the value must not."""
    numbers = problem(case, tied)
    at, arrays = told(numbers, ctx)
    rng = np.random.default_rng(2)
    for index in some_cells(arrays["y"])[::3]:
        terms = numbers.layer.y_terms(at, index)
        named = {*terms.reads, *(ref for term in terms.terms for ref in term.factors)}
        xs = [rng.normal(size=x.shape).astype(x.dtype) for x in numbers.xs]
        params = {key: rng.uniform(1, 2, value.shape).astype(value.dtype) for key, value in numbers.params.items()}
        for ref in named:
            home, source = (params, numbers.params) if isinstance(ref.tensor, str) else (xs, numbers.xs)
            home[ref.tensor][ref.where] = source[ref.tensor][ref.where]
        y, _ = numbers.layer.node_forward(params, xs, ctx)
        assert abs(y[index] - at.y[index]) <= case.tolerance * max(1, abs(at.y[index]))
    assert at.y.size


@every_case
def test_a_gradient_is_linear_in_the_incoming_gradients_that_its_terms_name(case):
    """All other cells of dy change; the gradient must not."""
    numbers = problem(case)
    at, arrays = told(numbers, TRAINING)
    rng = np.random.default_rng(2)
    for tensor in arrays.keys() - {"y"}:
        index = some_cells(arrays[tensor])[-1]
        terms = terms_of(numbers, at, tensor, index)
        named = [ref.where for term in terms.terms for ref in term.factors if ref.of == "gradient"]
        dy = rng.normal(size=numbers.dy.shape).astype(numbers.dy.dtype)
        for where in named:
            dy[where] = numbers.dy[where]
        changed = passes(replace(numbers, dy=dy), TRAINING).arrays[tensor]
        assert abs(changed[index] - arrays[tensor][index]) <= 10 * case.tolerance * max(1, np.abs(dy).sum())


@every_case
@both_modes
@all_values
def test_a_zero_has_a_reason_and_nothing_else_has_one(case, ctx, draw):
    for tensor, index, value, terms, at in explained(problem(case, draw), ctx):
        summands = products(at.__getitem__, terms.terms)
        reason = why_zero(value, terms, summands, at.__getitem__, float(np.finfo(case.dtype).eps))
        if value != 0:
            assert reason in (None, "canceled"), (tensor, index, value)
        elif tensor != "y":
            assert reason is not None, (tensor, index, terms)


@every_case
def test_formulas_are_readable_with_letters_and_with_numbers(case):
    for *_, terms, _at in explained(problem(case), TRAINING):
        for text in (terms.symbols(), terms.filled()):
            assert "{" not in text
            assert "=" in text


def test_convolution_tells_dx_two_ways():
    numbers = problem(Case(Conv2d(1, 2), ((1, 3, 3),)), n=1)
    at, _ = told(numbers, TRAINING)
    terms = numbers.layer.dx_terms(at, 0, (0, 1, 1, 0))
    assert terms.formula == "dx[0, 1, 1] = Σ weight[f, 0, i, j] · dy[f, 1−i, 1−j]"
    assert terms.retold == (
        "each dy[f, p, q] stamps dy[f, p, q] · weight[f, 0] on the input; "
        "dx[0, 1, 1] is the sum of what 4 of the stamps leave there"
    )
    flipped = [
        (Ref("weight", (0, 0, i, j)), Ref(OUTPUT, (0, 1 - i, 1 - j, 0), "gradient")) for i in (0, 1) for j in (0, 1)
    ]
    assert terms.terms == tuple(Term(1, factors) for factors in flipped)


def test_what_a_subclass_computes_otherwise_it_has_to_state_itself():
    class Doubled(Relu):
        __slots__ = ()

        def forward(self, params, x, ctx):
            return 2 * np.maximum(x, 0), x

    numbers = problem(Case(Relu(), (IMAGE,)))
    at, _ = told(numbers, TRAINING)
    assert Relu().y_terms(at, (0, 0, 0, 0)).stated
    for terms in (Doubled().y_terms(at, (0, 0, 0, 0)), Doubled().dx_terms(at, 0, (0, 0, 0, 0))):
        assert (terms.stated, terms.terms) == (False, ())
    assert Doubled().y_terms(at, (0, 0, 0, 0)).symbols() == "computed by Doubled.forward, terms not stated"
