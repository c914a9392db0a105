"""`cnnbp import`: the files that were written, and what to know about them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnbp_cli.report.table import line
from cnnbp_cli.report.terminal import note
from cnnbp_cli.report.text import count

if TYPE_CHECKING:
    from cnnbp_cli.imports.onnx import ImportReport


def render(report: ImportReport) -> None:
    """Write the files to standard output, notes to standard error."""
    line(f"config: {report.config}, {count(report.layers, 'layer')}")
    line(f"weights: {report.weights}, {count(report.parameters, 'parameter')}")
    for text in report.notes:
        note(text)
    note(f"next: cnnbp summary {report.config}; cnnbp train {report.config} --weights {report.weights}")
