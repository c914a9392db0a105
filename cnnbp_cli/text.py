"""Quantities as people read them, for messages and reports alike."""

from __future__ import annotations


def show_bytes(number: float) -> str:
    """Write a number of bytes in binary units: ``18.4 KiB``."""
    value, unit = float(number), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB"):
        if value < 1000:
            break
        value, unit = value / 1024, larger
    return f"{number} B" if unit == "B" else f"{value:,.1f} {unit}"
