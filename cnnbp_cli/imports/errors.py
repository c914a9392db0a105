"""The error of all imports."""

from __future__ import annotations

from cnnbp_cli.errors import UserError


class ImportProblem(UserError):
    """A model that cannot be imported."""


class NoLayer(Exception):
    """An operator that is no layer here; its text says why."""
