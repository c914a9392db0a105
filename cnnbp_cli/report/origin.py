"""Which checkpoint a result rests on, on standard error."""

from __future__ import annotations

from cnnbp_cli.origin import Origin
from cnnbp_cli.report.terminal import note


def name_origin(origin: Origin | None) -> None:
    """Name the checkpoint, and warn of one that should not pass for a trained model."""
    if origin is None:
        return
    note(f"checkpoint: {origin}")
    for warning in origin.warnings():
        note(f"warning: {warning}")
