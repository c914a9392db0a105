"""The law over all reports: no advice against another, and none for a symptom beside the advice for its cause."""

from __future__ import annotations

from collections.abc import Sequence

from cnnbp_cli.diagnosis.findings import SEVERITIES, Finding
from cnnbp_cli.diagnosis.plan import CAUSES_FIRST, OPPOSITES


def contradictions(findings: Sequence[Finding]) -> list[str]:
    """Return what is wrong with a report; nothing where it is one consistent plan."""
    wrong: list[str] = []
    own = [finding for finding in findings if finding.cause is None]
    named = {finding.rule for finding in own}
    wrong += [f"both {one} and {other}" for one, other in OPPOSITES if {one, other} <= named]
    values: dict[str, str] = {}
    for finding in own:
        for key, value in (part.split("=", 1) for part in finding.overrides):
            if values.setdefault(key, value) != value:
                wrong.append(f"{key}: {values[key]} and {value}")
    keys = sorted(values)
    wrong += [f"{key} and {other}" for key in keys for other in keys if other.startswith(f"{key}.")]
    for finding in findings:
        if finding.cause is not None:
            causes = [one for one in own if one.rule == finding.cause]
            if not any(one.remedy == finding.remedy or finding.confirmed is False for one in causes):
                wrong.append(f"{finding.rule} follows from {finding.cause}, and has another remedy")
    measured = ("diverging-loss", "frozen-layer")  # they have seen that the gradient is wrong, or does not arrive
    proved = [one.rule for one in own if "gradcheck" in (one.remedy or "") and one.rule not in measured]
    if proved and any(one.severity == "error" and one.overrides for one in own):
        wrong.append(f"{proved[0]} doubts the gradients although a cause is known")
    places = [(SEVERITIES.index(one.severity), CAUSES_FIRST.index(one.rule)) for one in findings]
    if places != sorted(places):
        wrong.append("a symptom before its cause")
    return wrong
