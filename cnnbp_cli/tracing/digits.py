"""Numbers for people who add them up: rounded terms that add up to the rounded total, and networks in eighths.

What is rounded here is only shown; nothing is computed with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import floor, isfinite, log10

import numpy as np

from cnnbp_cli.core.types import Array
from cnnbp_cli.model import Model

SIGNIFICANT = 4
"""Digits of the largest number in a sum, at the least."""
EXTRA = 6
"""More digits than that are tried before a rounding is corrected."""
EXACT = 12
"""Decimals that a person with a pencil can still write down."""
STEPS = 8
"""`snapped` rounds to multiples of one part in so many."""


@dataclass(frozen=True, slots=True)
class Addition:
    """A sum as it is written, with all numbers to the same place: ``terms`` add up to ``total``, exactly.

    Attributes
    ----------
    terms : tuple of str
    total : str
    exponent : int
        All numbers are to be multiplied by 10 to this power; 0 for numbers of a usual size.
    """

    terms: tuple[str, ...]
    total: str
    exponent: int = 0


def addition(terms: Sequence[float], total: float, digits: int = SIGNIFICANT) -> Addition:
    """Write a sum with the fewest digits, from `digits` significant ones of the largest, for which it adds up.

    Where no such number of digits is found, as in a sum of very many terms, the terms whose rounding went furthest
    astray are rounded the other way.
    """
    numbers = [float(number) for number in (*terms, total)]
    if not all(map(isfinite, numbers)):
        return Addition(tuple(f"{number:g}" for number in numbers[:-1]), f"{numbers[-1]:g}")
    largest = max(map(abs, numbers))
    magnitude = floor(log10(largest)) if largest else 0
    exponent = 0 if -4 <= magnitude < 6 else magnitude
    exact = [Fraction(number) / Fraction(10) ** exponent for number in numbers]
    fewest = max(0, digits - 1 - magnitude + exponent)
    places_to_try = [*range(fewest, fewest + EXTRA)]
    if exponent == 0 and (finite := decimals(numbers)) is not None:
        places_to_try = [finite, *places_to_try]  # whole, where that is short: 0.125, not 0.1250
    for places in places_to_try:
        units = [round(number * 10**places) for number in exact]
        if sum(units[:-1]) == units[-1]:
            return _written(units, places, exponent)
    return _written(_corrected(exact, fewest), fewest, exponent)


def _corrected(exact: Sequence[Fraction], places: int) -> list[int]:
    """Round numbers, the last of which is the sum of the others, so that it is so of the rounded ones, too."""
    scaled = [number * 10**places for number in exact]
    units = [round(number) for number in scaled]
    while missing := units[-1] - sum(units[:-1]):
        step = 1 if missing > 0 else -1
        astray = sorted(range(len(units) - 1), key=lambda k: step * (units[k] - scaled[k]))
        for k in astray[: abs(missing)]:
            units[k] += step
    return units


def _written(units: Sequence[int], places: int, exponent: int) -> Addition:
    texts = [f"{Decimal(unit).scaleb(-places):.{places}f}" for unit in units]
    return Addition(tuple(texts[:-1]), texts[-1], exponent)


def decimals(numbers: Sequence[float]) -> int | None:
    """Return how many decimals it takes to write all numbers exactly; None where that is no use."""
    most = 0
    for number in numbers:
        places = -min(0, int(Decimal(number).normalize().as_tuple().exponent))
        if places > EXACT:
            return None
        most = max(most, places)
    return most


def snapped(model: Model, images: Array) -> tuple[Model, Array]:
    """Return a copy of the model and images, all weights and pixels rounded to eighths.

    Pixels are rounded as the network sees them, normalized. Variances stay above 0.
    """
    known = (model.normalization, model.class_names)
    copy = Model(model.config, model.graph, model.losses, model.params, model.dtype, *known)
    parameters = {name: np.rint(value * STEPS) / STEPS for name, value in model.parameters().items()}
    for name, value in parameters.items():
        if name.endswith(".running_var"):
            np.maximum(value, 1 / STEPS, out=value)
    copy.set_parameters({name: value.astype(model.dtype) for name, value in parameters.items()})
    pixels = np.moveaxis(model.images_in(images), -1, 0)
    return copy, np.rint(pixels * STEPS) / STEPS
