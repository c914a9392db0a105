"""Numbers in the sentences of findings."""

from __future__ import annotations


def number(value: float) -> str:
    """Write a number as YAML reads it back, with three digits."""
    return f"{value:.3g}"


def percent(share: float) -> str:
    """Write a share: ``98.8%``, ``12%``."""
    return f"{100 * share:.1f}".removesuffix(".0") + "%"


def share_of(share: float, count: int) -> str:
    """Write a share of some things: ``all 16``, ``62.5% of the 16``."""
    return f"all {count}" if share == 1 else f"{percent(share)} of the {count}"
