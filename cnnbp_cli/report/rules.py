"""`cnnbp diagnose --list-rules` and `--explain`: what the rules are about, without a network."""

from __future__ import annotations

from collections.abc import Sequence

from cnnbp_cli.diagnosis.registry import Rule
from cnnbp_cli.report.diagnose import field
from cnnbp_cli.report.records import write_csv, write_json
from cnnbp_cli.report.table import Column, line, show

FIELDS = ("name", "family", "definition", "formula", "source", "advice")


def render_list(rules: Sequence[Rule], format: str) -> None:
    """Write all rules, family by family."""
    if format == "json":
        write_json([rule.to_dict() for rule in rules])
    elif format == "csv":
        write_csv(FIELDS, [[getattr(rule, name) for name in FIELDS] for rule in rules])
    else:
        columns = [Column("rule", text=True, width=len(max((rule.name for rule in rules), key=len)))]
        columns += [Column("family", text=True), Column("finds", text=True)]
        show(columns, [[rule.name, rule.family, rule.definition] for rule in rules])


def render_rule(rule: Rule, format: str) -> None:
    """Write what a rule says, when, on whose authority, and what to do."""
    if format == "json":
        write_json(rule.to_dict())
    elif format == "csv":
        write_csv(FIELDS, [[getattr(rule, name) for name in FIELDS]])
    else:
        line(f"{rule.name} ({rule.family})", "bold")
        for name in FIELDS[2:]:
            field(name, getattr(rule, name))
