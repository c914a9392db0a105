"""Where each number of a pass comes from: a cell of a tensor as a sum of terms over other cells.

Each layer states its terms beside its two passes, straight from its definition:

    y[i]       = Σ coefficient · Π factors        `y_terms`
    dx_k[i]    = Σ coefficient · Π factors        `dx_terms`, the gradient to the k-th input
    grads[key] = Σ coefficient · Π factors        `grad_terms`

Most terms are products of cells: `weight[f, c, i, j] · x[c, p, q]`. Where a cell is not linear in what it reads, as in
`tanh`, one term without factors has the function's value as its coefficient, and `reads` lists the cells.

A cell's index is the one into the arrays of `core`, with the image last: `(c, h, w, n)`, `(features, n)`. One call
explains one cell, and costs as much as that cell has terms. Tensors have the names that a layer knows, see `Ref`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from string import Formatter
from typing import Any, Literal, NamedTuple

from numpy.typing import NDArray

Index = tuple[int, ...]

OUTPUT = -1
"""The tensor that an operation writes."""

Reason = Literal[
    "gate closed",  # a ReLU's input was not above 0
    "saturated",  # the activation is so flat here that its slope is 0
    "not the winner",  # of any window of a max pool
    "dropped",  # by dropout, in this step
    "padding",  # this tap of the kernel meets nothing but padding
    "not read",  # no window covers this pixel
    "nothing arrived",  # every gradient that the cell multiplies is 0
    "multiplied by 0",  # gradients arrive, and meet a 0, such as a black pixel
    "canceled",  # terms that are not 0 add up to 0, but for rounding
    "detached",  # nothing that leads to the loss reads it
]
"""Why a cell is 0."""


class Ref(NamedTuple):
    """One cell, by the names that are known where the terms are stated.

    Attributes
    ----------
    tensor : int or str
        The number of an input, `OUTPUT`, or the key of a parameter.
    where : tuple of int
        The index into the tensor's array: of inputs and outputs, the last number is the image.
    of : {"value", "gradient"} or str
        What of it; for the update of a parameter also the optimizer's vector, such as `momentum`.
    """

    tensor: int | str
    where: Index
    of: str = "value"


class Term(NamedTuple):
    """One summand: the coefficient times the numbers at `factors`."""

    coefficient: float
    factors: tuple[Ref, ...] = ()


@dataclass(frozen=True, slots=True)
class Terms:
    """Everything that one cell is made of.

    Attributes
    ----------
    formula : str
        The rule, with each name that has a number in braces: ``{y} = tanh({x})``. See `symbols` and `filled`.
    terms : tuple of Term
        Their sum is the cell. Terms that a gate, a maximum or a mask leaves out are not among them.
    reads : tuple of Ref
        Further cells that the cell depends on, through coefficients or decisions.
    numbers : mapping of str to float
        For the names in the formula.
    reason : Reason or None
        Why the layer makes this cell 0; `why_zero` finds the reasons that lie in the numbers.
    retold : str
        The same terms, told another way: convolution's dx is a correlation with the flipped kernel, and also what
        the stamps of the kernel leave at this pixel.
    stated : bool
        False for a layer of somebody's own that does not state its terms; it has none here.
    """

    formula: str
    terms: tuple[Term, ...] = ()
    reads: tuple[Ref, ...] = ()
    numbers: Mapping[str, float] = field(default_factory=dict[str, float])
    reason: Reason | None = None
    retold: str = ""
    stated: bool = True

    def symbols(self) -> str:
        """Return the formula in letters: ``y = tanh(x)``."""
        return "".join(literal + (name or "") for literal, name, *_ in Formatter().parse(self.formula))

    def filled(self, show: Callable[[float], str] = "{:.6g}".format) -> str:
        """Return the formula with its numbers: ``0.462117 = tanh(0.5)``; names without a number stay."""
        text = ""
        for literal, name, *_ in Formatter().parse(self.formula):
            text += literal
            if name is not None and name in self.numbers:
                number = show(self.numbers[name] + 0.0)  # no −0
                signed = number.startswith("-") and not text.endswith(("= ", "(", ", ", "where ")) and text
                text += (f"({number})" if signed else number).replace("-", "−")
            else:
                text += name or ""
        return text


@dataclass(frozen=True, slots=True)
class LayerPass:
    """One operation's numbers in one pass, forward and backward: what its terms are stated about."""

    params: Mapping[str, NDArray[Any]]
    xs: Sequence[NDArray[Any]]
    y: NDArray[Any]
    dy: NDArray[Any]
    residuals: Any

    @property
    def x(self) -> NDArray[Any]:
        return self.xs[0]

    @property
    def images(self) -> range:
        return range(self.y.shape[-1])

    def __getitem__(self, ref: Ref) -> float:
        """Return the number at a cell."""
        if isinstance(ref.tensor, str):
            return float(self.params[ref.tensor][ref.where])
        if ref.tensor == OUTPUT:
            return float((self.y if ref.of == "value" else self.dy)[ref.where])
        return float(self.xs[ref.tensor][ref.where])


TARGET = "target"
"""The tensor that a loss compares predictions with: its input is the logits, its output the predictions."""


@dataclass(frozen=True, slots=True)
class LossPass:
    """The numbers of a head and its loss: logits, predictions and targets (…, n), and what the sum is divided by."""

    z: NDArray[Any]
    p: NDArray[Any]
    target: NDArray[Any]
    count: int

    def __getitem__(self, ref: Ref) -> float:
        """Return the number at a cell."""
        home = self.target if ref.tensor == TARGET else self.p if ref.tensor == OUTPUT else self.z
        return float(home[ref.where])


class Explained:
    """What every operation can be asked about its cells; one that states nothing is told as far as its numbers go."""

    __slots__ = ()

    def y_terms(self, at: LayerPass, index: Index) -> Terms:
        """Explain y[index]."""
        return unstated(type(self), "forward")

    def dx_terms(self, at: LayerPass, k: int, index: Index) -> Terms:
        """Explain the gradient to the k-th input at `index`."""
        return unstated(type(self), "backward")

    def grad_terms(self, at: LayerPass, key: str, index: Index) -> Terms:
        """Explain the gradient to the parameter `key` at `index`."""
        return unstated(type(self), "backward")

    def winning_pixels(self, residuals: Any) -> NDArray[Any] | None:
        """Return (row, column) of the pixel that won each maximum, (c, oh, ow, 2, n) or (c, 2, n); else None."""
        return None

    def drawn_mask(self, residuals: Any) -> NDArray[Any] | None:
        """Return the factors, drawn at random, by which each cell of the input was multiplied; else None."""
        return None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Take back what a subclass would inherit about passes that are no longer its own."""
        super().__init_subclass__(**kwargs)
        own = vars(cls)
        if own.keys() & _COMPUTING and not own.keys() & _TELLING:
            for name in ("y_terms", "dx_terms", "grad_terms"):
                setattr(cls, name, getattr(Explained, name))


_COMPUTING = {"forward", "backward", "node_forward", "node_backward"}
_TELLING = {"y_terms", "dx_terms", "grad_terms", "formulas"}


def unstated(of: type, method: str) -> Terms:
    """Return what can be said of a cell when its layer says nothing."""
    return Terms(f"computed by {of.__name__}.{method}, terms not stated", stated=False)


def scaled(terms: Terms, factor: float) -> Terms:
    """Return the terms of a cell that is `factor` times the one of these."""
    if factor == 1:
        return terms
    left, is_rule, right = terms.formula.partition(" = ")
    right, and_where, where = right.partition(", where ")
    return replace(
        terms,
        formula=f"{left} = {{w}} · ({right}){and_where}{where}" if is_rule else terms.formula,
        terms=tuple(Term(factor * coefficient, factors) for coefficient, factors in terms.terms),
        numbers={**terms.numbers, "w": factor},
    )


def products(at: Callable[[Ref], float], terms: Sequence[Term]) -> list[float]:
    """Return each term's number, in float64."""
    return [prod((at(ref) for ref in term.factors), start=term.coefficient) for term in terms]


def why_zero(
    value: float, terms: Terms, summands: Sequence[float], at: Callable[[Ref], float], epsilon: float
) -> Reason | None:
    """Return why a cell is 0, and None where it is not.

    Parameters
    ----------
    value : float
        The cell's number.
    summands : sequence of float
        The terms' `products`.
    at : callable
        The number at a `Ref`.
    epsilon : float
        The rounding of the numbers, `numpy.finfo(dtype).eps`: a sum that is smaller than its rounding canceled.
    """
    size = sum(map(abs, summands))
    if abs(value) > 4 * epsilon * len(summands) ** 0.5 * size:
        return None
    if size:
        return "canceled"
    gradients = [ref for term in terms.terms for ref in term.factors if ref.of == "gradient"]
    arriving = gradients or [ref for ref in terms.reads if ref.of == "gradient"]
    if arriving and not any(map(at, arriving)):
        return "nothing arrived"
    return terms.reason or ("multiplied by 0" if gradients else None)


def spelled(symbol: str, factor: int, offset: int) -> str:
    """Write `factor · symbol + offset` as people do: ``2i−1``, ``i+3``, ``i``."""
    return f"{factor if factor > 1 else ''}{symbol}" + (f"+{offset}" if offset > 0 else f"−{-offset}" if offset else "")


def listed(index: Index) -> str:
    """Write the index of an output's cell without its image: ``2, 5, 7``."""
    return ", ".join(map(str, index[:-1]))


def over_images(at: LayerPass, otherwise: str = "") -> str:
    """Write the sign of a sum over the images, where there are several."""
    return "Σ " if len(at.images) > 1 else otherwise
