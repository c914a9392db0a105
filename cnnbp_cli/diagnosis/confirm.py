"""Confirmation: train again with each remedy, and see whether the symptom is gone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from cnnbp_cli.config.errors import ConfigError
from cnnbp_cli.data.errors import DataError
from cnnbp_cli.diagnosis.evidence import CLEAR_GAIN, Evidence
from cnnbp_cli.diagnosis.findings import Finding
from cnnbp_cli.diagnosis.registry import RULES

Variant = Callable[[tuple[str, ...]], Evidence]
"""Collects the evidence of a evidence with overrides."""


def confirmed(evidence: Evidence, findings: Sequence[Finding], variant: Variant) -> tuple[Finding, ...]:
    """Return the findings, each with whether its remedy takes its symptom away.

    Parameters
    ----------
    evidence : Evidence
    findings : sequence of Finding
        Those whose remedy is a sentence, and mere information, are left as they are.
    variant : callable
        Called once for each remedy.
    """
    variants: dict[tuple[str, ...], Evidence | None] = {(): None}

    def tried(overrides: tuple[str, ...]) -> Evidence | None:
        if overrides not in variants:
            try:
                variants[overrides] = variant(overrides)
            except (ConfigError, DataError):
                variants[overrides] = None
        return variants[overrides]

    def judged(finding: Finding) -> Finding:
        fixed = tried(finding.overrides) if finding.severity != "info" else None
        if fixed is None:
            return finding
        if cures(evidence, fixed, finding):
            return replace(finding, confirmed=True)
        return replace(finding, confirmed=False, refuted=finding.remedy, remedy=None)

    return tuple(judged(finding) for finding in findings)


def cures(evidence: Evidence, fixed: Evidence, finding: Finding) -> bool:
    """Return whether a finding is gone, and the network learns more for it, or as much as can be asked."""
    again = [one for one in RULES[finding.rule].findings(fixed) if one.severity != "info"]
    if any(one.layer == finding.layer for one in again) and not fixed.well:
        return False
    if evidence.well:
        return not again and fixed.record.skill >= evidence.record.skill - CLEAR_GAIN
    return fixed.well or evidence.is_better(fixed.record)
