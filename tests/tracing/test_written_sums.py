"""What `cnnbp trace` writes adds up as it is written, and factors multiply to their products."""

from __future__ import annotations

import re
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from proof.networks import networks
from tracing.test_random_networks import modes, questions, traced

import cnnbp_cli as cnnbp
from cnnbp_cli.build import build
from cnnbp_cli.config.load import config_from_dict
from cnnbp_cli.report.trace import render
from cnnbp_cli.report.trace.numerals import Numerals
from cnnbp_cli.report.trace.sums import chained, product_of, worked, written_sum

TERM = re.compile(r"(?:^|([+−])\s)(\S+)")


def number(text: str) -> Decimal:
    return Decimal(text.strip("()").replace("−", "-"))


def summands(text: str) -> list[Decimal]:
    """Read ``a − b·(−c) + d`` as numbers; products are multiplied."""
    found = []
    for sign, term in TERM.findall(text.replace("\N{NO-BREAK SPACE}", " ")):
        product = Decimal(1)
        for factor in term.split("·"):
            product *= number(factor)
        found.append(-product if sign == "−" else product)
    return found


def check(written, found) -> None:
    """Hold a written sum to its law, and to the numbers of the model."""
    total = number(written.total)
    assert sum(map(number, written.products)) == total
    assert summands(chained(written.products)) == [number(text) for text in written.products]
    places = Decimal(1).scaleb(total.as_tuple().exponent)
    assert abs(total - Decimal(found.value)) <= places
    for term, product, factors in zip(written.terms, written.products, written.factors, strict=False):
        assert abs(number(product) - Decimal(term.product)) <= 2 * places
        (made,) = summands(product_of(factors))
        assert abs(made - number(product)) <= 2 * places, (factors, product)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(example=networks(), mode=modes)
def test_written_sums_add_up_on_random_networks(example, mode):
    trace = traced(example, mode)
    for cell, of in questions(trace, np.random.default_rng(example.seed), 20):
        found = trace.terms(cell, of)
        if not found.stated or not found.terms or not np.isfinite(found.value):
            continue
        for top in (None, 3):
            check(written_sum(found, Numerals(4), top), found)
        for _, text in worked(found, Numerals(4), 16):
            assert "nan" not in text


@pytest.mark.parametrize("name", ["toy", "lenet5", "resnet-mini", "vgg-bn", "depthwise", "autoencoder", "allconv"])
def test_the_factors_of_shipped_networks_multiply_to_the_products(name):
    model = cnnbp.load(f"configs/{name}.yaml", overrides=["dtype=float64"])
    data = cnnbp.load_data(model)
    images = data.normalization.apply(data.test.images[:1], "float64")
    trace = cnnbp.trace(model, images, None if model.target == "image" else data.test.labels[:1])
    sums = missed = 0
    for cell, of in questions(trace, np.random.default_rng(0), 60):
        found = trace.terms(cell, of)
        if not found.terms:
            continue
        written = written_sum(found, Numerals(4), 10)
        check(written, found)
        products = [number(text) for text in written.products[: len(written.terms)]]
        rounded = [
            Decimal(term.product).quantize(product) for term, product in zip(written.terms, products, strict=True)
        ]
        if products == rounded:  # else one of them was corrected by its last digit
            sums += 1
            for product, factors in zip(products, written.factors, strict=True):
                (made,) = summands(product_of(factors))
                missed += made.quantize(product) != product  # where a product lies between two roundings
    assert sums > 20
    assert missed <= sums // 20


def test_the_others_are_exact():
    """The terms that are not shown are one number, with which the sum still adds up."""
    model = cnnbp.load("configs/lenet5.yaml", overrides=["dtype=float64"])
    data = cnnbp.load_data(model)
    trace = cnnbp.trace(model, data.normalization.apply(data.test.images[:1], "float64"), data.test.labels[:1])
    found = trace.terms("conv1.weight[0,0,2,2]")
    written = written_sum(found, Numerals(4), 5)
    shown = sorted(map(abs, found.told[0].products), reverse=True)
    assert [abs(term.product) for term in written.terms] == shown[:5]
    assert len(written.products) == 6
    assert written.others + written.zeros + 5 == len(found.terms) == 784
    rest = found.value - sum(term.product for term in written.terms)
    assert abs(number(written.products[-1]) - Decimal(rest)) <= 2 * Decimal(1).scaleb(
        number(written.total).as_tuple().exponent
    )


def test_numbers_that_are_not_finite_are_shown_as_such(capsys):
    model = build(
        config_from_dict(
            {
                "data": {"source": "synthetic", "kind": "bars", "image": [1, 4, 4], "train": 4, "test": 2},
                "model": {
                    "input": [1, 4, 4],
                    "layers": [
                        {"type": "conv2d", "filters": 1, "kernel_size": 3},
                        "flatten",
                        {"type": "dense", "units": 2},
                    ],
                },
            }
        )
    )
    weight = model.parameters()["conv2d_1.weight"]
    weight[0, 0, 1, 1] = np.nan
    weight[0, 0, 0, 1] = np.inf
    model.set_parameters({"conv2d_1.weight": weight})
    image = np.ones((1, 4, 4))
    image[0, 0, 0] = -np.inf
    trace = cnnbp.trace(model, image, 1)
    render(trace, "table")
    whole = capsys.readouterr().out
    assert "nan" in whole
    assert "inf" in whole
    for cell, of in [("conv2d_1[0,1,1]", "value"), ("input[0,1,1]", "gradient"), ("loss", "value")]:
        render(trace, "table", cell=cell, of=of)
        assert "nan" in capsys.readouterr().out


def test_indices_formulas_and_signs_are_written_as_in_a_book():
    assert chained(["−0.5", "1", "−0.25"]).replace("\N{NO-BREAK SPACE}", " ") == "−0.5 + 1 − 0.25"
    assert product_of(["−0.5", "−2", "3"]) == "−0.5·(−2)·3"
    assert Numerals(4).short(-0.0) == "0"
    assert Numerals(3).column(np.array([1.25e-7, -2.5e-8])) == (["1.25", "−0.25"], "1e−7")
    assert Numerals(2, exact=True).short(0.140625) == "0.140625"
    assert Numerals(2, exact=True).short(1 / 3) == "0.33"
