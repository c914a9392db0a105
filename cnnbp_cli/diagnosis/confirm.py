"""Confirmation: train again with each remedy, and see whether the symptom is gone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from cnnbp_cli.config.errors import ConfigError
from cnnbp_cli.data.errors import DataError
from cnnbp_cli.diagnosis.case import HELPS, Case
from cnnbp_cli.diagnosis.findings import Finding
from cnnbp_cli.diagnosis.registry import RULES

Variant = Callable[[tuple[str, ...]], Case]
"""Collects the evidence of a case with overrides."""


def confirmed(case: Case, findings: Sequence[Finding], variant: Variant) -> tuple[Finding, ...]:
    """Return the findings, each with whether its remedy takes its symptom away.

    Parameters
    ----------
    case : Case
    findings : sequence of Finding
        Those whose remedy is a sentence, and mere information, are left as they are.
    variant : callable
        Called once for each remedy.
    """
    variants: dict[tuple[str, ...], Case | None] = {(): None}

    def tried(overrides: tuple[str, ...]) -> Case | None:
        if overrides not in variants:
            try:
                variants[overrides] = variant(overrides)
            except (ConfigError, DataError):
                variants[overrides] = None
        return variants[overrides]

    def judged(finding: Finding) -> Finding:
        mended = tried(finding.overrides) if finding.severity != "info" else None
        return finding if mended is None else replace(finding, confirmed=cures(case, mended, finding))

    return tuple(judged(finding) for finding in findings)


def cures(case: Case, mended: Case, finding: Finding) -> bool:
    """Return whether a finding is gone, and the network learns more for it, or as much as can be asked."""
    again = [one for one in RULES[finding.rule].check(mended) if one.severity != "info"]
    if any(one.layer == finding.layer for one in again) and not mended.well:
        return False
    if case.well:
        return not again and mended.record.skill >= case.record.skill - HELPS
    return mended.well or mended.record.skill >= case.record.skill + HELPS
