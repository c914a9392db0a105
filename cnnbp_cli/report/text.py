"""Numbers as people read them."""

from __future__ import annotations

import math


def count(number: int, noun: str = "") -> str:
    """Write a whole number in full, ``61,706``, and what it counts, if that is said."""
    return f"{number:,} {noun}{'s' * (number != 1)}" if noun else f"{number:,}"


def figure(number: float | None) -> str:
    """Write a loss or the like in eight characters at most: four decimals, fewer, or powers of ten."""
    if number is None:
        return "-"
    if number and math.isfinite(number) and not 0.001 <= abs(number) < 100_000:
        return f"{number:.2e}"
    return f"{number:.4f}" if abs(number) < 100 else f"{number:,.1f}"


def decimal(number: float) -> str:
    """Write a norm in eight characters at most: plainly, with three digits that count or more, where they suffice."""
    if not math.isfinite(number) or number == 0:
        return f"{number:g}"
    if not 0.001 <= abs(number) < 99_999.95:
        return f"{number:.2e}"
    return f"{number:.5f}" if abs(number) < 10 else f"{number:.4f}" if abs(number) < 100 else f"{number:,.1f}"


def percent(share: float | None) -> str:
    """Write a share between 0 and 1: ``98.97%``."""
    return "-" if share is None else f"{100 * share:.2f}%"


def power(number: float) -> str:
    """Write a magnitude: ``1.2e-14``."""
    return f"{number:.1e}" if number else "0"


def duration(seconds: float) -> str:
    """Write a time span: ``17 ms``, ``4.2 s``, ``3:05`` or ``1:02:03``."""
    if not math.isfinite(seconds):
        return "-"
    if seconds < 0.1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
