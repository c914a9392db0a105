"""Writes `docs/rules`: a page for each rule, with its texts and what `cnnbp diagnose` says of a broken config."""

from __future__ import annotations

import io
import os
import runpy
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

from diagnosis_campaign.corpus import FAULTS, Case, faults

import cnnbp_cli as cnnbp
from cnnbp_cli.diagnosis.registry import RULES, Rule
from cnnbp_cli.diagnosis.rules import load_rules
from cnnbp_cli.report.diagnose import render

FOLDER = Path(__file__).parents[2] / "docs" / "rules"
EXAMPLE = "## Example\n"


def texts(rule: Rule) -> str:
    """Return the page up to its example."""
    return "\n\n".join(
        [
            f"# {rule.name}",
            f"{rule.definition} *Family: {rule.family}.*",
            f"## When\n\n{rule.formula[0].upper()}{rule.formula[1:]}.",
            f"## What to do\n\n{rule.advice}",
            f"## Source\n\n{rule.source}.",
            EXAMPLE,
        ]
    )


def example(rule: Rule, case: Case) -> str | None:
    """Return what a person sees, and what the command says about it; None where it says nothing."""
    model, data = case.broken()
    name = f"tests/faults/{case.path.name}"
    diagnosis = cnnbp.diagnose_model(model, data, select=[rule.name], source=name)
    if not diagnosis.findings:
        return None
    out = io.StringIO()
    with redirect_stdout(out):
        render(diagnosis, "table", rules=1)
    return f"{case.comment}\n\n```text\n{out.getvalue().rstrip()}\n```\n"


def index() -> str:
    """Return the page that lists all rules."""
    rows = [f"| [{rule.name}]({rule.name}.md) | {rule.family} | {rule.definition} |" for rule in RULES.values()]
    return "\n".join(["# Rules of `cnnbp diagnose`", "", "| rule | family | finds |", "|---|---|---|", *rows, ""])


def write(names: Sequence[str] = ()) -> None:
    """Write all pages anew; with names, only these rules' examples, and the texts of all."""
    os.environ["COLUMNS"] = "100"
    load_rules()
    runpy.run_path(str(FAULTS / "make_data.py"))["make"]()
    cases = faults()
    FOLDER.mkdir(exist_ok=True)
    for rule in RULES.values():
        page = FOLDER / f"{rule.name}.md"
        if names and rule.name not in names:
            page.write_text(texts(rule) + page.read_text(encoding="utf-8").split(EXAMPLE)[1], encoding="utf-8")
            continue
        own = [case for case in cases if case.expects == rule.name]
        own.sort(key=lambda case: case.path.suffix == ".py")  # a config shows more
        shown = next(filter(None, (example(rule, case) for case in own)))
        page.write_text(texts(rule) + "\n" + shown, encoding="utf-8")
        print(rule.name, flush=True)
    (FOLDER / "README.md").write_text(index(), encoding="utf-8")
