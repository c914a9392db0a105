"""`cnnbp init` without arguments: the templates."""

from __future__ import annotations

from collections.abc import Sequence

from cnnbp_cli.analysis.summary import Summary
from cnnbp_cli.config.templates import Template
from cnnbp_cli.report.table import Column, line, show
from cnnbp_cli.report.text import count


def render(templates: Sequence[tuple[Template, Summary]]) -> None:
    """List names, parameters and what they are about, the smallest first; networks of the literature by themselves."""
    for title, published in (("template", False), ("published\nnetwork", True)):
        columns = [Column(title, text=True), Column("parameters", leaves=1), Column("what it is", text=True)]
        chosen = [(one, found.trainable_parameters) for one, found in templates if one.published == published]
        chosen.sort(key=lambda entry: entry[1])
        show(columns, [[one.name, count(total), one.about] for one, total in chosen])
        if not published:
            line()
