"""`cnnbp gradcheck`: the verdict on every parameter tensor, and the one on all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnbp_cli.report.records import write_csv, write_json
from cnnbp_cli.report.text import count, power, shape

if TYPE_CHECKING:
    from cnnbp_cli.inspect.gradcheck import GradcheckReport, ParameterCheck

FIELDS = (
    *("name", "status", "relative_error", "checked", "size", "shape", "worst_index"),
    *("analytic", "numeric", "mode"),
)
STYLES = {"ok": "green", "noise": "cyan", "kink": "yellow", "wrong": "bold red"}
MEANINGS = {
    "noise": "noise: true gradient zero, both sides are rounding errors",
    "kink": "kink: the loss has no derivative there",
    "wrong": "wrong: the gradient is not the derivative of the loss",
}


def render(report: GradcheckReport, format: str) -> None:
    """Write a report to standard output."""
    if format == "json":
        write_json(report.to_dict())
    elif format == "csv":
        write_csv(FIELDS, [[getattr(check, name) for name in FIELDS] for check in report.parameters])
    else:
        _table(report)


def _table(report: GradcheckReport) -> None:
    from cnnbp_cli.report.table import Column, line, show

    columns = [
        Column("gradient to", text=True),
        Column("status", text=True, leaves=1),
        Column("relative\nerror", leaves=2),
        Column("checked", leaves=3),
        Column("shape", text=True, leaves=4),
        Column("worst\nelement", text=True, leaves=5),
    ]
    rows = [_row(check) for check in report.parameters]
    if any(check.status != "ok" for check in report.parameters):
        columns += [Column("analytic", leaves=6), Column("numeric", leaves=7)]
        for row, check in zip(rows, report.parameters, strict=True):
            row += [f"{check.analytic:.6e}", f"{check.numeric:.6e}"]
    show(columns, rows)
    line()
    for status in dict.fromkeys(check.status for check in report.parameters):
        if status in MEANINGS:
            line(MEANINGS[status])
    wrong = sum(check.status == "wrong" for check in report.parameters)
    figures = f"largest relative error {power(report.max_relative_error)}, tolerance {power(report.tolerance)}"
    tensors = count(len(report.parameters), "gradient")
    if report.ok:
        line(f"ok: {tensors} proven by complex steps, {figures}", "green")
    else:
        line(f"WRONG: {wrong} of {tensors}, {figures}", "bold red")


def _row(check: ParameterCheck) -> list[str | tuple[str, str]]:
    index = "" if check.worst_index is None else "[" + ", ".join(map(str, check.worst_index)) + "]"
    return [
        check.name,
        (check.status, STYLES[check.status]),
        power(check.relative_error),
        count(check.checked),
        shape(check.shape),
        index,
    ]
