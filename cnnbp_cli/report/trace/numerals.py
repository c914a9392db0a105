"""Numbers of a trace as text: so many significant digits, a real minus, and whole decimals where they are short."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from math import floor, isfinite, log10

from cnnbp_cli.core.types import Array
from cnnbp_cli.tracing.digits import decimals

MINUS = "−"


@dataclass(frozen=True, slots=True)
class Numerals:
    """How numbers are written.

    Attributes
    ----------
    digits : int
        Significant ones.
    exact : bool
        Write a number that has few decimals in full, whatever `digits` says.
    """

    digits: int
    exact: bool = False

    def more(self, digits: int) -> Numerals:
        return replace(self, digits=self.digits + digits)

    def short(self, number: float) -> str:
        """Write one number: ``−0.2646``."""
        return minus(self.plain(number))

    def plain(self, number: float) -> str:
        """Write one number with the minus that programs read."""
        if self.exact and isfinite(number) and (places := decimals([number])) is not None:
            return f"{Decimal(number):.{places}f}"
        return f"{number + 0.0:.{self.digits}g}"

    def column(self, array: Array) -> tuple[list[str], str]:
        """Write all numbers to the same decimal place; also return the power of ten to multiply them by, or ``""``."""
        numbers = [float(number) for number in array.ravel().tolist()]
        finite = [abs(number) for number in numbers if isfinite(number) and number]
        magnitude = floor(log10(max(finite))) if finite else 0
        exponent = 0 if -4 <= magnitude < 6 else magnitude
        places = max(0, self.digits - 1 - magnitude + exponent)
        if self.exact and len(finite) == sum(map(bool, numbers)) and (whole := decimals(finite)) is not None:
            exponent, places = 0, whole
        unit = minus(f"1e{exponent}") if exponent else ""
        return [self._fixed(number / 10**exponent, places) for number in numbers], unit

    @staticmethod
    def _fixed(number: float, places: int) -> str:
        if not isfinite(number):
            return minus(str(number))
        return "0" if number == 0 else minus(f"{number:.{places}f}")


def minus(text: str) -> str:
    return text.replace("-", MINUS)


def parenthesized(text: str) -> str:
    """Write a number as it stands behind a sign."""
    return f"({text})" if text.startswith(MINUS) else text
