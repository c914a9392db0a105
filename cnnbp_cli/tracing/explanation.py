"""A cell, explained: the terms that layers state, in the words of the whole network.

A layer states terms over what it knows: its inputs by number, its parameters by key (`core.terms`). A `Told` keeps
them with what they are about and translates a term when somebody looks at it, since a cell may have many thousands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from math import fsum, isfinite, nan
from typing import Literal

from cnnbp_cli.core.terms import Reason, Ref, Term, Terms, products, why_zero
from cnnbp_cli.tracing.cells import Cell


@dataclass(frozen=True, slots=True)
class Factor:
    """One cell in a sum: which, what of it, of which image of the batch (None of a parameter), and its number."""

    cell: Cell
    of: str
    image: int | None
    value: float


@dataclass(frozen=True, slots=True)
class Summand:
    """One term of a cell: coefficient · Π factors = product.

    `via` is the layer that states it; of a gradient, the layer that reads the output.
    """

    coefficient: float
    factors: tuple[Factor, ...]
    product: float
    via: str


@dataclass(frozen=True)
class Told:
    """What one layer, or the loss, states about a cell.

    Attributes
    ----------
    terms : Terms
    at : callable
        The number at a `Ref`.
    name : callable
        The cell that a `Ref` means, and its image.
    via : str
        Who states it.
    """

    terms: Terms
    at: Callable[[Ref], float]
    name: Callable[[Ref], tuple[Cell, int | None]]
    via: str

    @cached_property
    def products(self) -> list[float]:
        return products(self.at, self.terms.terms)

    def factor(self, ref: Ref) -> Factor:
        cell, image = self.name(ref)
        return Factor(cell, ref.of, image, self.at(ref))

    def summand(self, k: int) -> Summand:
        term = self.terms.terms[k]
        return Summand(float(term.coefficient), tuple(map(self.factor, term.factors)), self.products[k], self.via)

    def mentions(self) -> Iterator[Ref]:
        """Yield every cell in the terms and besides."""
        for term in self.terms.terms:
            yield from term.factors
        yield from self.terms.reads


def given(text: str, value: float | None = None) -> Told:
    """Return what there is to say of a number with nothing behind it; without `value`, of a 0."""

    def unnamed(ref: Ref) -> tuple[Cell, int | None]:
        raise LookupError(ref)

    terms = () if value is None else (Term(value),)
    return Told(Terms(text, terms), lambda ref: 0.0, unnamed, "")


@dataclass(frozen=True)
class Explanation:
    """One cell of a trace.

    Attributes
    ----------
    cell : Cell
    of : str
        ``value``, ``gradient`` or ``update``.
    value : float
        The cell's number, as the pass computed it.
    told : tuple of Told
        By each reader of an output, for its gradient, and by each use of a parameter; otherwise by one.
    epsilon : float
        The rounding of the pass.
    detached : bool
        Nothing that leads to the loss reads the tensor.
    tellers : {"readers", "uses"}
        What those are called who tell of it, if they are several.
    """

    cell: Cell
    of: str
    value: float
    told: tuple[Told, ...] = field(repr=False)
    epsilon: float = field(repr=False)
    detached: bool = False
    tellers: Literal["readers", "uses"] = "readers"

    def __iter__(self) -> Iterator[Summand]:
        return iter(self.terms)

    @cached_property
    def terms(self) -> tuple[Summand, ...]:
        """All terms, in the order of the formula."""
        return tuple(told.summand(k) for told in self.told for k in range(len(told.terms.terms)))

    @cached_property
    def reads(self) -> tuple[Factor, ...]:
        """Further cells that it depends on, through coefficients and decisions."""
        return tuple(dict.fromkeys(told.factor(ref) for told in self.told for ref in told.terms.reads))

    def reads_of(self, image: int) -> list[Cell]:
        """Return the cells of parameters and of one image among `reads`, each once."""
        places = (told.name(ref) for told in self.told for ref in told.terms.reads)
        return list(dict.fromkeys(cell for cell, where in places if where in (None, image)))

    @property
    def formula(self) -> str:
        """The rule in letters: ``dz = p − y``."""
        return self._joined(Terms.symbols)

    @property
    def filled(self) -> str:
        """The rule with its numbers, to six digits; where it has none, it is the formula."""
        return self.filled_with("{:.6g}".format)

    def filled_with(self, show: Callable[[float], str]) -> str:
        """Return the rule with its numbers as `show` writes them."""
        return self._joined(lambda terms: terms.filled(show))

    def _joined(self, text: Callable[[Terms], str]) -> str:
        if len(self.told) == 1:
            return text(self.told[0].terms)
        return f"the sum over its {self.tellers}: " + "; ".join(f"{told.via}: {text(told.terms)}" for told in self.told)

    @property
    def retold(self) -> str:
        """The same sum told another way; empty where there is none."""
        return "; ".join(told.terms.retold for told in self.told if told.terms.retold)

    @property
    def stated(self) -> bool:
        """False where a layer of the user's own, on either side, does not state its terms."""
        return all(told.terms.stated for told in self.told)

    @property
    def reason(self) -> Reason | None:
        """Why it is 0; None where it is not, or nobody can say."""
        if self.detached:
            return "detached"
        if len(self.told) > 1 and self.value == 0 and any(any(told.products) for told in self.told):
            return "canceled"  # one reader's gradients, or all of them together
        reasons = [why_zero(self.value, told.terms, told.products, told.at, self.epsilon) for told in self.told]
        return next((reason for reason in reasons if reason), None) if len(reasons) == 1 or self.value == 0 else None

    def largest(self, top: int | None) -> tuple[tuple[Summand, ...], int, float]:
        """Return the `top` largest terms, how many others there are, and their sum.

        All terms together are in the order of the formula; a choice of them begins with the largest. The sum of the
        others is what the value has beyond the terms shown; when all are shown, what rounding left.
        """
        places = [(told, k) for told in self.told for k in range(len(told.terms.terms))]
        count = len(places)
        if top is not None and count > top:
            places = sorted(places, key=lambda place: -abs(place[0].products[place[1]]))[:top]
        shown = tuple(told.summand(k) for told, k in places)
        rest = fsum([self.value, *(-term.product for term in shown)]) if self._finite else nan
        return shown, count - len(shown), rest

    @property
    def _finite(self) -> bool:
        return isfinite(self.value) and all(isfinite(product) for told in self.told for product in told.products)
