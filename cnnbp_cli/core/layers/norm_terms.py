"""The terms that all normalizations share: they differ in which cells lie under one mean, and which weight each has."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import product

from cnnbp_cli.core.terms import OUTPUT, Index, LayerPass, Ref, Term, Terms


@dataclass(frozen=True, slots=True)
class NormalizedCell:
    """One value that a layer normalizes, among those with which it shares its mean and its variance.

    Attributes
    ----------
    index : Index
        Of the cell, in x and in y.
    axes : tuple of range
        The cells under the mean are the product of these, this one among them; empty where statistics are constants.
    mean, r : float
    parameter : callable
        The index of a cell's weight and bias.
    """

    index: Index
    axes: tuple[range, ...]
    mean: float
    r: float
    parameter: Callable[[Index], Index]

    def together(self) -> list[Index]:
        """Return all cells under the mean."""
        return list(product(*self.axes)) if self.axes else []

    def xhat(self, at: LayerPass, index: Index | None = None) -> float:
        return (float(at.x[self.index if index is None else index]) - self.mean) * self.r

    def weight(self, at: LayerPass, index: Index) -> tuple[Ref, ...]:
        """Return what multiplies x̂: a cell of the weight, or nothing."""
        return (Ref("weight", self.parameter(index)),) if "weight" in at.params else ()

    def y_terms(self, at: LayerPass, statistics: tuple[Ref, ...] = ()) -> Terms:
        """Explain y = weight · (x - mean) · r + bias; `statistics` are the mean and the variance, where they are kept.

        The mean and r are numbers here: that they change with x, too, is told by dx.
        """
        weight, x = self.weight(at, self.index), Ref(0, self.index)
        mean = Term(-self.r * (1 if statistics else self.mean), (*weight, *statistics[:1]))
        bias = Ref("bias", self.parameter(self.index))
        others = tuple(Ref(0, index) for index in self.together() if index != self.index)
        numbers = {"x": at[x], "mean": self.mean, "r": self.r, "y": at[Ref(OUTPUT, self.index)]}
        numbers |= {"weight": at[weight[0]], "bias": at[bias]} if weight else {}
        return Terms(
            "{y} = {weight} · ({x} − {mean}) · {r} + {bias}" if weight else "{y} = ({x} − {mean}) · {r}",
            (Term(self.r, (*weight, x)), mean, *((Term(1, (bias,)),) if weight else ())),
            (*others, *statistics[1:]),
            numbers,
        )

    def dx_terms(self, at: LayerPass) -> Terms:
        """Explain dx = r · (dx̂ - mean(dx̂) - x̂ · mean(dx̂ · x̂)): its own dy, then every dy under the mean twice."""
        together = self.together()
        dys = {index: Ref(OUTPUT, index, "gradient") for index in together or [self.index]}
        weights = {index: self.weight(at, index) for index in dys}
        if not together:
            numbers = {"dy": at[dys[self.index]], "r": self.r}
            numbers |= {"weight": at[weights[self.index][0]]} if weights[self.index] else {}
            formula = "dx = {dy} · {weight} · {r}" if weights[self.index] else "dx = {dy} · {r}"
            return Terms(formula, (Term(self.r, (*weights[self.index], dys[self.index])),), (), numbers)
        m, own = len(together), self.xhat(at)
        xhats = {index: self.xhat(at, index) for index in together}
        dxhats = {index: at[dys[index]] * (at[weights[index][0]] if weights[index] else 1) for index in together}
        sources = {index: (*weights[index], dys[index]) for index in together}
        through_mean = (Term(-self.r / m, sources[index]) for index in together)
        through_variance = (Term(-self.r * own * xhats[index] / m, sources[index]) for index in together)
        return Terms(
            "dx = {r} · ({dx̂} − {mean dx̂} − {x̂} · {mean dx̂·x̂}), where dx̂ = weight · dy",
            (Term(self.r, sources[self.index]), *through_mean, *through_variance),
            tuple(Ref(0, index) for index in together),
            {
                "r": self.r,
                "x̂": own,
                "dx̂": dxhats[self.index],
                "mean dx̂": sum(dxhats.values()) / m,
                "mean dx̂·x̂": sum(dxhats[index] * xhats[index] for index in together) / m,
            },
        )


def affine_terms(at: LayerPass, key: str, cells: Iterable[NormalizedCell]) -> Terms:
    """Explain the gradient to a weight, Σ dy · x̂, or to a bias, Σ dy, over the cells that it acts on."""
    if key == "bias":
        return Terms("dbias = Σ dy", tuple(Term(1, (Ref(OUTPUT, cell.index, "gradient"),)) for cell in cells))
    cells = list(cells)
    terms = (Term(cell.xhat(at), (Ref(OUTPUT, cell.index, "gradient"),)) for cell in cells)
    return Terms("dweight = Σ dy · x̂, where x̂ = (x − mean) · r", tuple(terms), tuple(Ref(0, c.index) for c in cells))
