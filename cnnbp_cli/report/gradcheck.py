"""`cnnbp gradcheck`: the verdict on every parameter tensor, and the overall verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnbp_cli.core.types import show_shape
from cnnbp_cli.report.records import write_csv, write_json
from cnnbp_cli.report.text import count, duration, power

if TYPE_CHECKING:
    from cnnbp_cli.gradient_check.check import GradcheckReport, ParameterCheck

FIELDS = (
    *("name", "status", "relative_error", "checked", "size", "shape", "worst_index"),
    *("analytic", "numeric", "mode", "kinks", "noise", "coverage", "explanation", "directions", "elements"),
    "by_mode",
)
STYLES = {"unchecked": "yellow", "ok": "green", "noise": "cyan", "kink": "yellow", "wrong": "bold red"}
MEANINGS = {
    "kink": "kink: the loss has no derivative there, or the step crossed such a point",
    "wrong": "wrong: the gradient is not the derivative of the loss",
}
NOISE = {
    "complex": "noise: the true gradient is zero, and both numbers are rounding errors",
    "central": "noise: the two differ by less than the rounding of the loss divided by the step",
}
METHODS = {"complex": "proven by complex steps", "central": "confirmed by central differences"}
DIFFERENCES = (
    "forward loses complex numbers (as np.abs does) or decides ties by them (as np.maximum does), "
    "so differences were used there, with tolerance {}"
)


LONG = 10.0
"""Seconds from which on a check says how long it will take."""


def render(report: GradcheckReport, format: str) -> None:
    """Write a report to standard output."""
    if format == "json":
        write_json(report.to_dict())
    elif format == "csv":
        write_csv(FIELDS, [[getattr(check, name) for name in FIELDS] for check in report.parameters])
    else:
        _table(report)


def _table(report: GradcheckReport) -> None:
    from cnnbp_cli.gradient_check.complex_step import DIFFERENCE_TOLERANCE
    from cnnbp_cli.report.table import Column, line, show

    with_numbers = any(check.status not in ("ok", "unchecked") for check in report.parameters)
    shown = [
        (Column("gradient to", text=True), True),
        (Column("status", text=True, leaves=1), True),
        (Column("relative\nerror", leaves=2), True),
        (Column("directions", leaves=9, optional=True), _directions(report) is None),
        (Column("elements", leaves=8, optional=True), True),
        (Column("kinks", leaves=6, optional=True), report.kinks > 0),
        (Column("noise", leaves=7, optional=True), report.noise > 0),
        (Column("coverage", leaves=6, optional=True), report.kinks + report.noise > 0),
        (Column("shape", text=True, leaves=10, optional=True), True),
        (Column("worst\nelement", text=True, leaves=3), True),
        (Column("analytic", leaves=4), with_numbers),
        (Column("numeric", leaves=5), with_numbers),
    ]
    chosen = [k for k, (_, wanted) in enumerate(shown) if wanted]
    rows = [_row(check) for check in report.parameters]
    show([shown[k][0] for k in chosen], [[row[k] for k in chosen] for row in rows])
    line()
    _explanations(report)
    meanings = MEANINGS | {"noise": NOISE[report.method]}
    found = {"kink": report.kinks, "noise": report.noise, "wrong": not report.ok}
    for status in ("kink", "noise", "wrong"):
        if found[status]:
            line(meanings[status])
    if report.method == "central":
        line(
            f"central differences in {report.dtype}, step {report.step:g}; "
            "relative error = |analytic − numeric| / max(|analytic|, |numeric|)"
        )
    if report.kinks or report.noise:
        inconclusive = [count(report.kinks, "kink")] * (report.kinks > 0) + [f"{report.noise:,} × noise"] * (
            report.noise > 0
        )
        everything = sum(check.checked for check in report.parameters)
        line(
            f"coverage {report.coverage:.1f}%: of {everything:,} comparisons, {' and '.join(inconclusive)} "
            "are inconclusive"
        )
    if report.dtype == "float32":
        line("float32 has about 7 digits, and the difference of two losses loses most of them; float64 has 16")
    if report.by_differences and report.method == "complex":
        tolerance = power(max(report.tolerance, DIFFERENCE_TOLERANCE))
        line(f"{', '.join(report.by_differences)}: {DIFFERENCES.format(tolerance)}")
    if report.comparisons < report.planned:
        _budget(report)
    _verdict(report)


def _budget(report: GradcheckReport) -> None:
    """Say what was not looked at, and how to look at the same again."""
    from cnnbp_cli.report.table import line

    line(
        f"{report.comparisons:,} of {count(report.planned, 'comparison')} were made, in {duration(report.seconds)}; "
        f"--comparisons {report.comparisons} repeats exactly these"
    )
    total = len(report.parameters)
    for mode in report.modes:
        checked = [check.by_mode.get(mode, 0) for check in report.parameters]
        if not all(checked):
            line(f"in {mode} mode, {sum(map(bool, checked))} of {count(total, 'gradient')} were checked")


def announce(comparisons: int, seconds: float, limit: float | None) -> None:
    """Say on standard error how long a check will take, where that is long."""
    from cnnbp_cli.report.terminal import note

    takes = f"{count(comparisons, 'comparison')} will take about {duration(seconds)}"
    if limit is not None and seconds > limit:
        note(f"{takes}, of which {duration(limit)} are used: all gradients get the same share of them")
    elif limit is None and seconds > LONG:
        note(f"{takes}; --time SECONDS sets a limit")


def _explanations(report: GradcheckReport) -> None:
    """Write each explanation once, with all gradients that it applies to."""
    from cnnbp_cli.report.table import line

    names: dict[str, list[str]] = {}
    for check in report.parameters:
        if check.explanation is not None:
            names.setdefault(check.explanation, []).append(check.name)
    for explanation, of in names.items():
        line(f"{', '.join(of)}: {explanation}")
    if names:
        line()


def _verdict(report: GradcheckReport) -> None:
    from cnnbp_cli.report.table import line

    figures = f"largest relative error {power(report.max_relative_error)}, tolerance {power(report.tolerance)}"
    tensors = count(len(report.parameters), "gradient")
    modes = ""
    if len(report.modes) > 1:
        checked = [mode for mode in report.modes if any(check.by_mode.get(mode) for check in report.parameters)]
        modes = ", in " + " and in ".join(checked) + " mode"
    if not report.ok:
        wrong = sum(check.status == "wrong" for check in report.parameters)
        line(f"WRONG: {wrong} of {tensors}, {figures}", "bold red")
    elif not report.coverage:
        line(f"nothing confirmed: all comparisons of {tensors} are kinks or noise", "yellow")
    else:
        confirmed = sum(check.coverage > 0 for check in report.parameters)
        tensors = tensors if confirmed == len(report.parameters) else f"{confirmed} of {tensors}"
        how = METHODS[report.method]
        if report.by_differences and report.method == "complex":
            how = f"confirmed by complex steps, and by differences in {', '.join(report.by_differences)}"
        directions = _directions(report)
        how += f", {count(directions, 'direction')} each" if directions else ""
        line(f"ok: {tensors} {how}{modes}, {figures}", "green")


def _directions(report: GradcheckReport) -> int | None:
    """Return in how many directions each gradient was checked; None where that differs."""
    numbers = {check.directions for check in report.parameters}
    return numbers.pop() if len(numbers) == 1 else None


def _row(check: ParameterCheck) -> list[str | tuple[str, str]]:
    index = "" if check.worst_index is None else "[" + ", ".join(map(str, check.worst_index)) + "]"
    return [
        check.name,
        (check.status, STYLES[check.status]),
        "" if check.relative_error is None else power(check.relative_error),
        count(check.directions),
        f"{check.elements:,} of {check.size:,}",
        count(check.kinks),
        count(check.noise),
        f"{check.coverage:.0f}%",
        show_shape(check.shape),
        index,
        f"{check.analytic:.4e}",
        f"{check.numeric:.4e}",
    ]
