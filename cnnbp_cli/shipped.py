"""Folders that come with the program, such as its configs: inside an installed package, beside it in a checkout."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path


def shipped(name: str) -> Traversable:
    """Return the folder of that name."""
    packaged = files("cnnbp_cli") / name
    return packaged if packaged.is_dir() else Path(__file__).parents[1] / name
