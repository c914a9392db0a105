"""Rounded terms add up to the rounded total; a network in eighths has short decimals."""

from __future__ import annotations

from decimal import Decimal
from math import fsum

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cnnbp_cli as cnnbp
from cnnbp_cli.tracing.digits import addition, snapped

terms = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30)


@given(terms, st.sampled_from([1.0, 1e-9, 1e12]))
def test_rounded_terms_add_up_to_the_rounded_total(numbers, scale):
    numbers = [number * scale for number in numbers]
    total = fsum(numbers)
    written = addition(numbers, total)
    assert sum(map(Decimal, written.terms)) == Decimal(written.total)
    places = -Decimal(written.total).as_tuple().exponent
    for text, number in zip((*written.terms, written.total), (*numbers, total), strict=True):
        exact = number / 10.0**written.exponent
        assert abs(float(text) - exact) <= 2 * 10.0**-places + 1e-9 * abs(exact)


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([0.125, -0.5, 2.0], (("0.125", "-0.500", "2.000"), "1.625")),
        ([1.0, 2.0], (("1", "2"), "3")),
        ([1 / 3, 1 / 3, 1 / 3], (("0.334", "0.333", "0.333"), "1.000")),
        ([0.12344, 0.12344], (("0.12344", "0.12344"), "0.24688")),
        ([0.0, 0.0], (("0", "0"), "0")),
    ],
)
def test_as_few_digits_as_will_do(numbers, expected):
    written = addition(numbers, fsum(numbers))
    assert (written.terms, written.total) == expected


def test_tiny_numbers_share_a_power_of_ten():
    written = addition([1.25e-7, 2.5e-8], 1.5e-7)
    assert written.exponent == -7
    assert [float(text) for text in (*written.terms, written.total)] == [1.25, 0.25, 1.5]


def test_what_is_not_finite_is_written_as_it_is():
    assert addition([1.0, float("inf")], float("nan")).terms == ("1", "inf")


def test_a_network_in_eighths_has_finite_decimals_up_to_the_sigmoid():
    model = cnnbp.load("configs/toy.yaml")
    image = cnnbp.load_data(model).normalization.apply(cnnbp.load_data(model).test.images[:1], "float64")
    before = model.parameters()
    copy, pixels = snapped(model, image)
    for array in (*copy.parameters().values(), pixels):
        np.testing.assert_array_equal(array * 8, np.rint(array * 8))
    for name, value in model.parameters().items():
        np.testing.assert_array_equal(value, before[name])
        assert np.abs(copy.parameters()[name] - value).max() <= 1 / 16
    trace = cnnbp.trace(model, image[0], 0, exact=True)
    logit = trace.value("dense_1[0]")
    assert logit * 8**4 == round(logit * 8**4)
    found = trace.terms("conv2d_1[0,1,1]", "value")
    written = addition([term.product for term in found.terms], found.value)
    assert [float(text) for text in written.terms] == [term.product for term in found.terms]
