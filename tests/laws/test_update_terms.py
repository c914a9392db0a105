"""The law of terms for updates: what every optimizer does to one weight, in its first step and later ones."""

from __future__ import annotations

from dataclasses import replace
from math import fsum

import numpy as np
import pytest
from core.test_optim import CASES, every_case

from cnnbp_cli.core.optim import Sgd, Step, chain, clip_by_global_norm, update_terms
from cnnbp_cli.core.terms import Ref, Terms, products


def updates(optimizer, clip):
    """Yield (change, terms, numbers) of each element in three steps."""
    transform = optimizer.transform()
    if clip is not None:
        transform = chain(clip_by_global_norm(clip), transform)
    rng = np.random.default_rng(0)
    param, state = rng.normal(size=3), {name: np.full(3, value) for name, value in transform.slots.items()}
    for number in (1, 2, 3):
        grad = rng.normal(size=3)
        step = Step(number, optimizer.learning_rate, float(np.linalg.norm(grad)))
        decrease, after = transform(grad, param, state, step)
        for k in range(3):
            numbers = {"value": param[k], "gradient": grad[k], **{name: vector[k] for name, vector in state.items()}}
            yield -decrease[k], update_terms(transform, Ref("weight", (k,)), numbers, step), numbers
        param, state = param - decrease, state | after


def error(change: float, terms: Terms, numbers) -> float:
    summands = products(lambda ref: numbers[ref.of], terms.terms)
    return abs(fsum(summands) - change) / max(fsum(map(abs, summands)), 1e-300)


@every_case
@pytest.mark.parametrize("clip", [None, 0.5, 100.0])
def test_the_terms_of_an_update_add_up_to_it(optimizer, clip):
    for change, terms, numbers in updates(optimizer, clip):
        assert error(change, terms, numbers) <= 1e-12
        assert terms.numbers["change"] == pytest.approx(change, rel=1e-12)
        sizes = [abs(term.coefficient * numbers[term.factors[0].of]) for term in terms.terms]
        wrong = list(terms.terms)
        largest = sizes.index(max(sizes))
        wrong[largest] = wrong[largest]._replace(coefficient=wrong[largest].coefficient * (1 + 1e-6))
        assert error(change, replace(terms, terms=tuple(wrong)), numbers) > 1e-10


def test_plain_descent_is_the_rate_times_the_gradient():
    change, terms, numbers = next(updates(Sgd(0.1), None))
    assert change == -0.1 * numbers["gradient"]
    assert terms.symbols() == "change = −rate · gradient"
    assert terms.terms == ((-0.1, (Ref("weight", (0,), "gradient"),)),)


def test_formulas_have_their_numbers():
    for optimizer in CASES.values():
        for _, terms, _ in updates(optimizer, 0.5):
            assert not set("{}") & set(terms.symbols() + terms.filled())
            names = set(terms.symbols().translate(str.maketrans("()−", "   ")).split())
            assert {"change", "gradient", "rate"} <= names
