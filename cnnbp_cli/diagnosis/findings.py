"""What a diagnosis says: findings, the most likely cause first, and the facts they rest on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Severity = Literal["error", "warning", "info"]

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")
"""The most severe first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong, or worth knowing.

    Attributes
    ----------
    rule : str
        Filled in by the engine.
    severity : {"error", "warning", "info"}
        error: it keeps the network from learning what it could; warning: it costs something, or will;
        info: unusual, without harm that shows.
    layer : str or None
        The layer it is about; None for the whole network, the data or the training.
    step : int or None
        The step it was seen at first, counted from 1; None where it is no matter of a step.
    evidence : str
        What was seen, with its number: one sentence.
    threshold : str
        What the number was held against.
    why : str
        Why it matters: one sentence.
    remedy : str or None
        Overrides as the command line takes them, ``--set key=value``, several with a blank between them; or
        what to do, as a sentence, where no override can.
    confirmed : bool or None
        Whether the symptom went away and the network learned better with the remedy; None when it was not tried.
    cause : str or None
        The rule of the finding that this one follows from; its remedy is the remedy of both.
    refuted : str or None
        A remedy that was tried and did not help; `remedy` is None then.
    """

    rule: str = ""
    severity: Severity
    layer: str | None = None
    step: int | None = None
    evidence: str
    threshold: str
    why: str
    remedy: str | None = None
    confirmed: bool | None = None
    cause: str | None = None
    refuted: str | None = None

    @property
    def overrides(self) -> tuple[str, ...]:
        """The remedy as a sequence of overrides; empty where it is none, or a sentence."""
        return _overrides(self.remedy or "")

    @property
    def tried(self) -> tuple[str, ...]:
        """The remedy, or the one that was refuted, as a sequence of overrides."""
        return self.overrides or _overrides(self.refuted or "")


def _overrides(remedy: str) -> tuple[str, ...]:
    if not remedy.startswith("--set "):
        return ()
    return tuple(part.strip().strip('"') for part in remedy.removeprefix("--set ").split(" --set "))


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """All findings, the most likely cause first.

    Attributes
    ----------
    source : str
        The config or the run.
    findings : tuple of Finding
    evidence : dict of str to number or text
        The facts that the findings share, such as the loss of a uniform guess and that at the end of the probe.
    notes : tuple of str
        What could not be judged, and why.
    """

    source: str
    findings: tuple[Finding, ...]
    evidence: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether there is no error among the findings."""
        return not self.at_least("error")

    def at_least(self, severity: Severity) -> tuple[Finding, ...]:
        """Return the findings of this severity or a worse one."""
        severe = SEVERITIES[: SEVERITIES.index(severity) + 1]
        return tuple(finding for finding in self.findings if finding.severity in severe)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            "ok": self.ok,
            "source": self.source,
            "findings": [asdict(finding) for finding in self.findings],
            "evidence": dict(self.evidence),
            "notes": list(self.notes),
        }
