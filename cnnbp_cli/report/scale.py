"""Colors for magnitudes, over the range that was seen: what is small in a table and what is large in it."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf, isfinite, log10

from rich.text import Text

from cnnbp_cli.report.text import decimal

STYLES = ("magenta", "blue", "cyan", "green", "yellow", "red")
"""From the least to the largest."""

LEAST_RANGE = 0.3
"""Powers of ten that the scale spans at least: what differs by less than a factor of two is not told apart by color."""


class Scale:
    """A logarithmic scale over all magnitudes seen so far."""

    def __init__(self) -> None:
        self._low, self._high = inf, -inf

    def see(self, values: Iterable[float]) -> None:
        """Widen the range, if need be."""
        powers = [log10(abs(value)) for value in values if value and isfinite(value)]
        self._low, self._high = min([self._low, *powers]), max([self._high, *powers])

    def style(self, value: float) -> str:
        """Return the style of a number."""
        if not isfinite(value):
            return "bold red"
        if value == 0 or self._low > self._high:
            return STYLES[0]
        low, high = self._limits()
        share = (log10(abs(value)) - low) / (high - low)
        return STYLES[min(max(int(share * len(STYLES)), 0), len(STYLES) - 1)]

    def legend(self) -> Text:
        """Return what the colors mean, as a line; empty where nothing was seen."""
        text = Text()
        if self._low > self._high:
            return text
        low, high = self._limits()
        text.append("colors: ")
        for k, style in enumerate(STYLES, start=1):
            limit = 10 ** (low + (high - low) * k / len(STYLES))
            text.append(f"<{limit:.2g}  " if k < len(STYLES) else "larger", style)
        return text

    def _limits(self) -> tuple[float, float]:
        spare = max(LEAST_RANGE - (self._high - self._low), 0.0) / 2
        return self._low - spare, self._high + spare


def colored(value: float, scale: Scale) -> tuple[str, str]:
    """Return a magnitude as a cell."""
    return decimal(value), scale.style(value)
