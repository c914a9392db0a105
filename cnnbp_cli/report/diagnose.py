"""`cnnbp diagnose`: each finding with its evidence and its remedy, the likeliest cause first."""

from __future__ import annotations

import shlex
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from cnnbp_cli.diagnosis.findings import SEVERITIES, Diagnosis, Finding, Severity
from cnnbp_cli.diagnosis.text import percent
from cnnbp_cli.report.records import write_csv, write_json
from cnnbp_cli.report.table import line
from cnnbp_cli.report.terminal import console, plain
from cnnbp_cli.report.text import count, figure

FIELDS = (
    "rule",
    "severity",
    "layer",
    "step",
    "evidence",
    "threshold",
    "why",
    "remedy",
    "confirmed",
    "cause",
    "refuted",
)
STYLES = {"error": "bold red", "warning": "yellow", "info": "cyan"}
LABEL = 10  # columns that the name of a field takes
NARROWEST = 20  # columns that its text keeps at least


def render(
    report: Diagnosis,
    format: str,
    *,
    fail_on: Severity = "error",
    rules: int,
    overrides: Sequence[str] = (),
    layers: Sequence[str] = (),
) -> None:
    """Write a diagnosis to standard output.

    Parameters
    ----------
    report : Diagnosis
    format : {"table", "json", "csv"}
    fail_on : {"error", "warning", "info"}
        From which severity on a finding makes the report not `ok`.
    rules : int
        How many were asked.
    overrides, layers : sequence of str
        What `--set` and `--layers` were given, so that remedies can be tried with them.
    """
    if format == "json":
        write_json(report.to_dict() | {"ok": not report.at_least(fail_on)})
    elif format == "csv":
        write_csv(FIELDS, [[getattr(finding, name) for name in FIELDS] for finding in report.findings])
    else:
        for finding in report.findings:
            if finding.cause is None:
                _finding(finding, _command(report.source, finding.tried, overrides, layers))
                for follower in report.findings:
                    if follower.cause == finding.rule:
                        field("hence", f"{follower.rule}: {follower.evidence}")
                line()
        for remark in report.notes:
            line(f"note: {remark}", "dim")
        _verdict(report, rules)
        _seen(report)
        if report.findings:
            field("more", f"cnnbp diagnose --explain {report.findings[0].rule}")


def _command(source: str, remedy: Sequence[str], overrides: Sequence[str], layers: Sequence[str]) -> list[str]:
    """Return the command that trains with a remedy, in the parts that stay on one line."""
    config = str(Path(source) / "config.yaml") if Path(source).is_dir() else source
    fixed = {override.partition("=")[0] for override in remedy}
    kept = [override for override in overrides if override.partition("=")[0] not in fixed]
    parts = [f"cnnbp train {shlex.quote(config)}"]
    parts += [f"--layers {shlex.quote(file)}" for file in layers]
    return parts + [f"--set {shlex.quote(override)}" for override in [*kept, *remedy]]


def _finding(finding: Finding, command: Sequence[str]) -> None:
    where = finding.layer or ""
    if finding.step is not None:
        where += f"{', ' * bool(where)}step {count(finding.step)}"
    out = console()
    title = Text(f"{finding.severity}: ", STYLES[finding.severity]).append(finding.rule, "bold")
    if where and len(title) + 2 + len(where) > out.width:
        title.append("\n")
    title.append(f"  {where}" if where else "")
    title.plain = plain(title.plain, sys.stdout)
    out.print(title)
    field("evidence", finding.evidence)
    field("threshold", finding.threshold)
    field("why", finding.why)
    if finding.tried:
        _remedy("remedy" if finding.overrides else "tried", command)
    elif finding.remedy is not None:
        field("remedy", finding.remedy)
    if finding.confirmed is not None:
        gone = "yes: with it the symptom goes away" if finding.confirmed else "no: with it the symptom stays"
        field("confirmed", gone, "green" if finding.confirmed else "yellow")


def field(name: str, text: str, style: str = "") -> None:
    """Write a named text, folded between words beside its name."""
    room = max(console().width - LABEL - 2, NARROWEST)
    lines = textwrap.wrap(plain(text, sys.stdout), room, break_long_words=False, break_on_hyphens=False)
    _beside(name, lines, style)


def _remedy(name: str, parts: Sequence[str]) -> None:
    """Write a command as a shell reads it, with a backslash where it does not fit on one line."""
    room = console().width - LABEL - 2
    if len(" ".join(parts)) <= room:
        _beside(name, [" ".join(parts)], "green")
        return
    lines = [parts[0]]
    for part in parts[1:]:
        if len(f"{lines[-1]} {part} \\") <= room:
            lines[-1] += f" {part}"
        else:
            lines[-1] += " \\"
            lines.append(f"  {part}")
    _beside(name, lines, "green")


def _beside(name: str, lines: Sequence[str], style: str) -> None:
    out = console()
    for number, text in enumerate(lines):
        label = f"{'' if number else name:>{LABEL}}  "
        out.print(Text.assemble((label, "dim"), (text, style)))


def _verdict(report: Diagnosis, rules: int) -> None:
    counts = {kind: sum(finding.severity == kind for finding in report.findings) for kind in SEVERITIES}
    told = [count(n, kind) if kind != "info" else f"{n} info" for kind, n in counts.items() if n]
    asked = count(rules, "rule")
    if told:
        worst = next(kind for kind in SEVERITIES if counts[kind])
        line(f"{report.source}: {', '.join(told)}, by {asked}", STYLES[worst])
    else:
        line(f"{report.source}: ok, nothing found by {asked}", "green")


def _seen(report: Diagnosis) -> None:
    """Write what the findings are based on: steps, losses, and how much was learned of what the data allow."""
    seen = report.evidence
    planned = seen.get("planned_steps")
    steps = count(seen["steps"], "step")
    field("looked at", f"{seen['steps']:,} of {count(planned, 'planned step')}" if planned else steps)
    guess = seen.get("uniform_loss")
    told = f"; a uniform guess has {figure(guess)}" if guess else ""
    field("loss", f"from {figure(seen['first_loss'])} to {figure(seen['last_loss'])}{told}")
    if seen.get("train_accuracy") is not None:
        held = seen.get("held_out_accuracy")
        told = f", {percent(held)} on held-out ones" if held is not None else ""
        field("accuracy", f"{percent(seen['train_accuracy'])} on training images{told}")
    field(
        "skill",
        f"{percent(seen['skill'])}, where guessing has 0% and knowing 100%; {percent(seen['expected_skill'])} expected",
    )
