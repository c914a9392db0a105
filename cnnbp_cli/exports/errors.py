"""The error of all exports."""

from __future__ import annotations

from cnnbp_cli.errors import UserError


class ExportError(UserError):
    """A model or a run that cannot be exported."""
