"""`cnnbp init` without arguments: the templates."""

from __future__ import annotations

from collections.abc import Sequence

from cnnbp_cli.analysis.summary import Summary
from cnnbp_cli.report.table import Column, show
from cnnbp_cli.report.text import count


def render(templates: Sequence[tuple[str, Summary, str]]) -> None:
    """List names, parameters and what they are about, the smallest first."""
    columns = [Column("template", text=True), Column("what it is", text=True)]
    ordered = sorted(templates, key=lambda entry: entry[1].trainable_parameters)
    show(
        columns,
        [[name, f"{about} ({count(found.trainable_parameters, 'parameter')})"] for name, found, about in ordered],
    )
