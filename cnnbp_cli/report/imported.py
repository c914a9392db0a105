"""`cnnbp import`: the files that were written, and what to know about them."""

from __future__ import annotations

import shlex
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
    config, weights = shlex.quote(str(report.config)), shlex.quote(str(report.weights))
    note(f"next: `cnnbp summary {config}`, `cnnbp train {config} --weights {weights}`")
