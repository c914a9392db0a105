"""The known mistakes in backward passes, recognized by their numbers: a factor, a sign, a transpose, a missing row.

Each pattern is a hypothesis about how the analytic gradient came out of the true one, tested on all elements that
were compared. The first that explains every one of them is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from cnnbp_cli.core.types import Array
from cnnbp_cli.gradient_check.course_mistakes import Mistake

SIGNIFICANT = 100.0  # times the tolerance: elements that a hypothesis can be tested on
FEW = 3  # elements below which any number is a factor of all of them
LONGEST = 512  # entries of an axis that are tried in each other's place
SHOWN = 3
MATCHES = 1e-6  # relative to the largest element: the gradient is that of a mistake
TINY = np.finfo(np.float64).tiny


@dataclass(frozen=True, slots=True)
class KnownFactor:
    """A factor by which gradients are often too large or too small."""

    value: int
    symbol: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Mismatch:
    """An analytic gradient, and the numeric one at some of its elements.

    Attributes
    ----------
    analytic : Array
        The whole tensor.
    indices : Array of int, shape (compared, ndim)
    numeric, tolerance : Array, shape (compared,)
        The numeric gradient, and by how much the analytic one may differ from it.
    axes : tuple of str
        What each axis of the tensor counts.
    numbers : sequence of KnownFactor
    values : Array or None
        The parameter's own values.
    parts : mapping of str to Array (compared, parts)
        The terms whose sum the numeric gradient is, such as one for each image of the batch.
    has_ties : bool
        Whether some elements lie on kinks, where several numbers are right.
    mistakes : callable
        Yields gradients that well-known mistakes would give, with what they are.
    agrees_outside : callable
        Tells whether the gradient is right but for the elements of a mask.
    """

    analytic: Array
    indices: Array
    numeric: Array
    tolerance: Array
    axes: tuple[str, ...]
    numbers: Sequence[KnownFactor]
    values: Array | None
    parts: Mapping[str, Array]
    has_ties: bool
    mistakes: Callable[[], Iterable[Mistake]]
    agrees_outside: Callable[[Array], bool]

    @property
    def a(self) -> Array:
        """The analytic gradient at the elements that were compared."""
        return self.analytic[tuple(self.indices.T)]

    @property
    def wrong(self) -> Array:
        return ~(np.abs(self.a - self.numeric) <= self.tolerance)

    @property
    def significant(self) -> Array:
        return np.abs(self.numeric) > SIGNIFICANT * self.tolerance

    def fits(self, predicted: Array) -> bool:
        """Whether a prediction of the analytic gradient is right at every element."""
        larger = np.abs(predicted) / np.maximum(np.abs(self.numeric), np.maximum(self.tolerance, TINY))
        slack = self.tolerance * np.maximum(1, larger)
        return bool(np.all(np.abs(self.a - predicted) <= slack))

    def inside(self, mask: Array) -> Mismatch:
        """The part of the mismatch that lies in a mask of the whole tensor."""
        chosen = mask[tuple(self.indices.T)]
        return replace(
            self,
            indices=self.indices[chosen],
            numeric=self.numeric[chosen],
            tolerance=self.tolerance[chosen],
            parts={name: part[chosen] for name, part in self.parts.items()},
        )


def describe(mismatch: Mismatch) -> str:
    """Return the first pattern that explains a mismatch, in one line."""
    for pattern in (
        not_finite,
        unseen,
        zero,
        factor,
        parts,
        decay,
        constant,
        moved,
        permuted,
        course_mistake,
        somewhere,
        constants,
        factors,
    ):
        if text := pattern(mismatch):
            return text
    count = int(mismatch.wrong.sum())
    return f"{count:,} of the {len(mismatch.numeric):,} elements compared are wrong, in no known pattern"


def not_finite(e: Mismatch) -> str | None:
    bad = np.argwhere(~np.isfinite(e.analytic))
    if not len(bad):
        return None
    verb = "is" if len(bad) == 1 else "are"
    return f"{len(bad):,} of {e.analytic.size:,} elements {verb} infinite or NaN, first {_element(bad[0], e.axes)}"


def unseen(e: Mismatch) -> str | None:
    if np.any(e.wrong):
        return None
    if e.has_ties:
        return (
            "each element by itself may be right, but not all of them together: does the gradient go to all of several "
            "equal values? Give it to one of them, or share it"
        )
    return f"wrong along random directions, but at none of the {len(e.numeric):,} elements compared"


def zero(e: Mismatch) -> str | None:
    return None if np.any(e.a) else "analytic is 0: is the gradient computed and returned?"


def factor(e: Mismatch) -> str | None:
    """One number times the true gradient."""
    squares = float((e.numeric * e.numeric).sum())
    if not squares:
        return None
    ratio = float((e.a * e.numeric).sum()) / squares
    if not e.fits(ratio * e.numeric):
        return None
    reasons = list(_reasons(ratio, e.numbers))
    if not reasons and e.significant.sum() < FEW:
        return None
    return f"analytic is {_times(ratio)}: {' or '.join(reasons) or 'a constant factor'}"


def _reasons(ratio: float, numbers: Sequence[KnownFactor]) -> Iterator[str]:
    sign, size = ("" if ratio > 0 else ", and wrong sign"), abs(ratio)
    if _same(ratio, -1):
        yield "wrong sign"
    if _same(size, 2):
        yield "an extra factor of 2" + sign
    if _same(size, 0.5):
        yield "a missing factor of 2" + sign
    for number in numbers:
        if number.value > 1 and _same(size, number.value):
            yield f"{number.meaning}, missing 1/{number.symbol}?" + sign
        elif number.value > 1 and _same(size, 1 / number.value):
            yield f"{number.meaning}, divided by {number.symbol} once too often?" + sign


def _times(ratio: float) -> str:
    inverse = 1 / ratio if ratio else 0.0
    if abs(inverse) > 1.5 and _same(inverse, round(inverse)):
        return f"numeric / {round(inverse)}".replace("-", "−")
    shown = f"{round(ratio)}" if _same(ratio, round(ratio)) else f"{ratio:.6g}"
    return f"{shown.replace('-', '−')} × numeric"


def _plus(number: float) -> str:
    return f"{'−' if number < 0 else '+'} {abs(number):.6g}"


def _same(a: float, b: float) -> bool:
    return abs(a - b) <= 1e-5 * abs(b)


def parts(e: Mismatch) -> str | None:
    """One image, or one row of the output, alone or left out."""
    for name, terms in e.parts.items():
        count = terms.shape[1]
        if count < 2:
            continue
        for k in range(count):
            if e.fits(terms[:, k]):
                return f"only {name} {_place(k, count)} contributes: is the sum over all {count} missing?"
        for k in range(count):
            if e.fits(e.numeric - terms[:, k]):
                return f"{name} {_place(k, count)} is left out of the sum"
    return None


def decay(e: Mismatch) -> str | None:
    """A multiple of the parameter itself on top."""
    if e.values is None:
        return None
    own, difference = e.values[tuple(e.indices.T)], e.a - e.numeric
    squares = float((own * own).sum())
    rate = float((difference * own).sum()) / squares if squares else 0.0
    if e.significant.sum() < FEW or not e.fits(e.numeric + rate * own):
        return None
    return f"analytic is numeric {_plus(rate)} × the parameter: weight decay inside the gradient?"


def constant(e: Mismatch) -> str | None:
    """One number on top."""
    difference = e.a - e.numeric
    if len(difference) >= FEW and e.fits(e.numeric + difference.mean()):
        return f"analytic is numeric {_plus(difference.mean())}: an extra or missing constant term"
    return None


def constants(e: Mismatch) -> str | None:
    """A number on top for each entry of an axis."""
    for axis, name in enumerate(e.axes):
        means = _by_entry(e, axis, e.a - e.numeric)
        if means is not None and e.fits(e.numeric + means):
            return f"analytic is numeric + a different number for each {name}: an extra or missing term"
    return None


def factors(e: Mismatch) -> str | None:
    """A factor for each entry of an axis."""
    for axis, name in enumerate(e.axes):
        products, squares = (_by_entry(e, axis, values) for values in (e.a * e.numeric, e.numeric * e.numeric))
        if products is None or squares is None or not np.all(squares):
            continue
        ratios = products / squares
        if e.fits(ratios * e.numeric):
            return f"each {name} is off by a different factor, from {ratios.min():.4g} to {ratios.max():.4g}"
    return None


def _by_entry(e: Mismatch, axis: int, values: Array) -> Array | None:
    """Return for each element the mean over those with the same entry of an axis; None where there are too few."""
    length = e.analytic.shape[axis]
    if length < 2 or len(values) < FEW * length:
        return None
    entry = e.indices[:, axis]
    counts = np.bincount(entry, minlength=length)
    return (np.bincount(entry, values, length) / np.maximum(counts, 1))[entry]


def moved(e: Mismatch) -> str | None:
    """The right numbers in other places: swapped axes, flips, shifts, another order in memory."""
    true = e.numeric
    for text, back in _moves(e.analytic, e.axes):
        if bool(np.all(np.abs(back[tuple(e.indices.T)] - true) <= e.tolerance)):
            return text
    return None


def _moves(analytic: Array, axes: tuple[str, ...]) -> Iterator[tuple[str, Array]]:
    """Yield what may have happened, and the gradient with that undone."""
    shape = analytic.shape
    for one, other in combinations(range(analytic.ndim), 2):
        if shape[one] == shape[other] > 1:
            words = "transposed" if analytic.ndim == 2 else f"transposed: {axes[one]} and {axes[other]} are swapped"
            yield words, analytic.swapaxes(one, other)
    long = [axis for axis in range(analytic.ndim) if shape[axis] > 1]
    for one, other in combinations(long, 2):
        if (axes[one], axes[other]) == ("kernel row", "kernel column"):
            yield (
                "the kernel is flipped in space, by 180°: a convolution in place of a cross-correlation?",
                np.flip(analytic, (one, other)),
            )
        else:
            yield f"reversed along {axes[one]} and {axes[other]}", np.flip(analytic, (one, other))
    for axis in long:
        yield f"reversed along {axes[axis]}", np.flip(analytic, axis)
        yield f"shifted by one along {axes[axis]}", np.roll(analytic, -1, axis)
        yield f"shifted by one back along {axes[axis]}", np.roll(analytic, 1, axis)
    if len(long) > 1:
        matrix = (shape[0], analytic.size // shape[0])
        reordered = "in a different memory order: a reshape where a transpose is needed?"
        yield reordered, analytic.reshape(matrix[::-1]).T.reshape(shape)
        yield reordered, analytic.reshape(matrix).T.reshape(shape)


def permuted(e: Mismatch) -> str | None:
    """Entries of an axis in each other's place."""
    for axis, name in enumerate(e.axes):
        length = e.analytic.shape[axis]
        if not 2 <= length <= LONGEST or len(e.numeric) < 2 * length:
            continue
        instead = np.moveaxis(e.analytic, axis, -1)[tuple(np.delete(e.indices, axis, 1).T)]  # (compared, length)
        misses = np.abs(instead - e.numeric[:, None]) > e.tolerance[:, None]
        entry = e.indices[:, axis]
        # Entry k of the true gradient stands at m where no element of k misses.
        at = np.zeros((length, length), int)
        np.add.at(at, entry, misses)
        found = (at == 0).any(1)
        known = np.bincount(entry, e.significant, length) > 0
        if not found.all() or not known.any():
            continue
        places = np.where(at.diagonal() == 0, np.arange(length), (at == 0).argmax(1))
        pairs = [f"{k} is at {m}" for k, m in enumerate(places) if k != m and known[k]]
        more = ", …" if len(pairs) > SHOWN else ""
        return f"{name}s are in the wrong order: {', '.join(pairs[:SHOWN])}{more}"
    return None


def course_mistake(e: Mismatch) -> str | None:
    """What a well-known mistake gives, number for number."""
    for text, wrong in e.mistakes():
        largest = np.abs(wrong).max(initial=0)
        if largest and wrong.shape == e.analytic.shape and np.abs(wrong - e.analytic).max() <= MATCHES * largest:
            return text
    return None


def somewhere(e: Mismatch) -> str | None:
    """Wrong in some places only: one element, one entry of an axis, the border."""
    wrong = e.indices[e.wrong]
    if not len(wrong):
        return None
    for text, mask in _places(e, wrong):
        if mask.mean() < 0.7 and e.agrees_outside(mask):
            if mask.sum() == 1:
                at = tuple(np.argwhere(mask)[0])
                here = int(np.flatnonzero((e.indices == at).all(1))[0])
                numbers = f"analytic {e.a[here]:.6g}, numeric {e.numeric[here]:.6g}"
                return f"only one element is wrong, {_element(at, e.axes)}: {numbers}"
            inner = e.inside(mask)
            kind = zero(inner) or factor(inner) or constant(inner)
            return f"only {text} {'is' if ' and ' not in text else 'are'} wrong" + (f": there {kind}" if kind else "")
    return None


def _places(e: Mismatch, wrong: Array) -> Iterator[tuple[str, Array]]:
    """Yield sets of elements that hold all wrong ones: the entries of axes where there are any, the border."""
    shape = e.analytic.shape
    grid = np.indices(shape, sparse=True)
    mask, texts = np.ones(shape, bool), []
    for axis, name in enumerate(e.axes):
        entries = np.unique(wrong[:, axis])
        if len(entries) <= max(1, shape[axis] // 3) and shape[axis] > 1:
            mask = mask & np.isin(grid[axis], entries)
            shown = " and ".join(_place(int(k), shape[axis]) for k in entries[: SHOWN + 1])
            texts.append(f"{name} {shown}{', …' if len(entries) > SHOWN + 1 else ''}")
    if texts:
        yield ", ".join(texts), mask
    for rows, columns in combinations(range(len(shape)), 2):
        if e.axes[rows].endswith("row") and e.axes[columns].endswith("column") and min(shape[rows], shape[columns]) > 2:
            on_border = [(grid[axis] == 0) | (grid[axis] == shape[axis] - 1) for axis in (rows, columns)]
            yield "the border", np.broadcast_to(on_border[0] | on_border[1], shape)


def _place(k: int, count: int) -> str:
    if k == count - 1 > 0:
        return f"{k} (the last)"
    return f"{k} (the first)" if k == 0 and count > 2 else str(k)


def _element(index: Sequence[int] | Array, axes: Sequence[str]) -> str:
    """Name an element: a parameter's by its index, that of a batch by what its axes count."""
    if axes[-1:] != ("image",):
        return _index(index)
    return ", ".join(f"{axis} {int(k)}" for axis, k in zip(axes, index, strict=True))


def _index(index: Sequence[int] | Array) -> str:
    return "[" + ", ".join(str(int(k)) for k in index) + "]"
