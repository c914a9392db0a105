"""`cnnbp validate`: a line for each config that is right, the problems of the others."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from cnnbp_cli.report.records import write_csv, write_json
from cnnbp_cli.report.terminal import complaint, note, plain
from cnnbp_cli.report.text import count

if TYPE_CHECKING:
    from cnnbp_cli.analysis.validate import Verdict


def render(verdicts: Sequence[Verdict], format: str) -> None:
    """Write the verdicts to standard output; in a table's place the problems go to standard error."""
    if format == "json":
        write_json({"ok": all(v.ok for v in verdicts), "configs": [v.to_dict() for v in verdicts]})
    elif format == "csv":
        write_csv(("config", "ok", "layers", "parameters", "line", "column", "message"), _rows(verdicts))
    else:
        told: set[str] = set()
        for verdict in verdicts:
            _lines(verdict, told)


def _rows(verdicts: Sequence[Verdict]) -> Iterator[list[object]]:
    """Yield a row for each config that is right, and one for each problem of the others."""
    for verdict in verdicts:
        if verdict.ok:
            yield [verdict.config, "true", verdict.layers, verdict.parameters, None, None, None]
        for problem in verdict.to_dict()["problems"]:
            yield [verdict.config, "false", None, None, problem["line"], problem["column"], problem["message"]]


def _lines(verdict: Verdict, told: set[str]) -> None:
    """Write a verdict; what is wrong with an option is said once, and not for each config."""
    if verdict.error:
        if (text := complaint(verdict.error)) not in told:
            note(text)
        told.add(text)
        return
    for remark in verdict.remarks:
        note(f"{verdict.config}: {remark}")
    counts = f"{count(verdict.layers or 0, 'layer')}, {count(verdict.parameters or 0, 'parameter')}"
    print(plain(f"{verdict.config}: ok, {counts}", sys.stdout))
