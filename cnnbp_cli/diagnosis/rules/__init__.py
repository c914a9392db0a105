"""The rules, a file for each family."""

from __future__ import annotations

from importlib import import_module

from cnnbp_cli.diagnosis.registry import FAMILIES


def load_rules() -> None:
    """Declare all rules."""
    for family in FAMILIES:
        import_module(f"{__name__}.{family}")
