"""The error function, which NumPy lacks: of arrays, and of complex numbers near the real line.

    erf(x) = (2/√π) ∫₀ˣ exp(−t²) dt

References
----------
Stephen L. Moshier's Cephes library, `ndtr.c`: x · T(x²)/U(x²) up to 1, and 1 − exp(−x²) · P(x)/Q(x) beyond it. Both
are analytic, so that the gradient check can take imaginary steps through them. From 8 on, where Cephes takes a third
pair, erf is 1 in float64.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cnnbp_cli.core.types import Array


def _polynomial(*coefficients: float) -> Callable[[Array], Array]:
    """Return the function Σ coefficients · powers of x, by Horner's rule."""

    def of(x: Array) -> Array:
        total = np.full_like(x, coefficients[0])
        for coefficient in coefficients[1:]:
            total *= x
            total += coefficient
        return total

    return of


# Coefficients from the highest power to the lowest; those of a divisor begin with 1.
T = _polynomial(
    *(9.60497373987051638749e0, 9.00260197203842689217e1, 2.23200534594684319226e3),
    *(7.00332514112805075473e3, 5.55923013010394962768e4),
)
U = _polynomial(
    *(1.0, 3.35617141647503099647e1, 5.21357949780152679795e2, 4.59432382970980127987e3),
    *(2.26290000613890934246e4, 4.92673942608635921086e4),
)
P = _polynomial(
    *(2.46196981473530512524e-10, 5.64189564831068821977e-1, 7.46321056442269912687e0),
    *(4.86371970985681366614e1, 1.96520832956077098242e2, 5.26445194995477358631e2),
    *(9.34528527171957607540e2, 1.02755188689515710272e3, 5.57535335369399327526e2),
)
Q = _polynomial(
    *(1.0, 1.32281951154744992508e1, 8.67072140885989742329e1, 3.54937778887819891062e2),
    *(9.75708501743205489753e2, 1.82390916687909736289e3, 2.24633760818710981792e3),
    *(1.65666309194161350182e3, 5.57535340817727675546e2),
)

ONE = 8.0
"""From here on it is 1."""


def erf(x: Array) -> Array:
    """Return erf(x) to about 2e-16, in the dtype of x; to the first order in an imaginary part."""
    negative = x.real < 0
    size = np.where(negative, -x, x)
    near = size.real <= 1
    small, large = np.where(near, x, 0), np.where(near, 1, np.where(size.real > ONE, ONE, size))
    square = small * small
    inside = small * T(square) / U(square)
    beyond = 1 - np.exp(-large * large) * P(large) / Q(large)
    return np.where(near, inside, np.where(negative, -beyond, beyond)).astype(x.dtype, copy=False)
