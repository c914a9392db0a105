"""One plan from all findings: causes first, what follows from a cause told under it, and no advice against another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from cnnbp_cli.diagnosis.evidence import Evidence
from cnnbp_cli.diagnosis.findings import SEVERITIES, Finding

CAUSES_FIRST = (
    # data and settings
    "constant-images",
    "shuffled-labels",
    "data-leak",
    "test-preprocessed-differently",
    "missing-class",
    "unbalanced-classes",
    "destructive-augmentation",
    "unnormalised-input",
    "normalised-twice",
    "symmetric-init",
    "redundant-softmax",
    "loss-head-mismatch",
    "no-activation",
    "badly-scaled-init",
    "absurd-epsilon",
    "batch-norm-small-batch",
    "batch-norm-train-eval-gap",
    "clipping-always-active",
    "momentum-too-high",
    "over-regularised",
    "too-few-steps",
    # the first step
    "vanishing-gradient",
    "bad-initial-loss",
    "exploding-gradient",
    "frozen-layer",
    # what a change would bring
    "learning-rate-too-high",
    "learning-rate-too-low",
    "capacity",
    "overfitting",
    # what the training looks like
    "diverging-loss",
    "non-finite",
    "oscillating-loss",
    "dead-relu",
    "saturated-activation",
    # that it fails
    "cannot-overfit-batch",
    "update-ratio",
    "loss-not-falling",
)
"""Among findings of the same severity: causes before what follows from them, the specific before the general."""

STANDALONE = frozenset(
    {
        "data-leak",
        "test-preprocessed-differently",
        "missing-class",
        "unbalanced-classes",
        "batch-norm-train-eval-gap",
    }
)
"""They tell nothing about how the loss goes: nothing follows from them, and they follow from nothing."""

UNLEARNABLE = frozenset({"constant-images", "shuffled-labels"})
"""Where these are errors there is nothing to learn, and everything else follows."""

SPLITS_DIFFER = frozenset({"test-preprocessed-differently", "missing-class"})
"""They explain why held-out images fare worse than training images."""

LEVELS: Mapping[str, int] = {
    **dict.fromkeys(("bad-initial-loss", "vanishing-gradient", "exploding-gradient", "frozen-layer"), 1),
    **dict.fromkeys(("learning-rate-too-high", "learning-rate-too-low", "capacity", "overfitting"), 2),
    **dict.fromkeys(("diverging-loss", "non-finite", "oscillating-loss", "dead-relu", "saturated-activation"), 3),
    **dict.fromkeys(("cannot-overfit-batch", "update-ratio", "loss-not-falling"), 4),
}
"""How far a rule is from what a person decided: 0, as for the rules not named, are settings and data; 1 follows from
them in the first step; 2 tells what a change would bring, 3 what the training looks like, and 4 only that it fails."""


TOO_LITTLE = frozenset({"learning-rate-too-low", "too-few-steps", "normalised-twice", "clipping-always-active"})
TOO_MUCH = frozenset({"diverging-loss", "non-finite", "oscillating-loss", "exploding-gradient"})
"""What makes steps too small or too few does not explain a loss that jumps or grows."""

OPPOSITES = (
    ("learning-rate-too-high", "learning-rate-too-low"),
    ("unnormalised-input", "normalised-twice"),
    ("over-regularised", "overfitting"),
    ("capacity", "overfitting"),
)
"""Rules whose advice pulls in opposite directions: what the one is, the other is only for as long as that lasts."""


def in_order(findings: Sequence[Finding]) -> list[Finding]:
    """Return the most severe findings first, and causes before what follows from them."""
    return sorted(findings, key=lambda one: (SEVERITIES.index(one.severity), CAUSES_FIRST.index(one.rule)))


def one_plan(evidence: Evidence, findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Order findings, tell what follows from which, and leave one value for each key that remedies set.

    A finding that follows from another has that one's remedy. Of two remedies that set a key to different values, or
    pull in opposite directions, that of the earlier finding stays, and the later finding follows from that one.
    """
    plan: list[Finding] = []
    for finding in in_order(findings):
        cause = _cause(evidence, finding, plan)
        if cause is None:
            cause = next((one for one in plan if one.cause is None and _is_against(one, finding)), None)
        plan.append(finding if cause is None else replace(finding, cause=cause.rule, remedy=cause.remedy))
    return tuple(plan)


def _cause(evidence: Evidence, finding: Finding, before: Sequence[Finding]) -> Finding | None:
    """Return the first finding that explains another one."""
    if finding.rule in STANDALONE:
        return None
    if finding.rule == "overfitting":
        reasons = SPLITS_DIFFER | {"unbalanced-classes"}
        if (reason := next((one for one in before if one.rule in reasons), None)) is not None:
            return reason
    return next((one for one in before if one.cause is None and _explains(evidence, one, finding)), None)


def _explains(evidence: Evidence, cause: Finding, finding: Finding) -> bool:
    if cause.severity != "error" or cause.rule in STANDALONE or cause.rule == finding.rule:
        return False
    if cause.rule in UNLEARNABLE:
        return True
    if cause.rule in TOO_LITTLE and finding.rule in TOO_MUCH:
        return False
    own, level = LEVELS.get(cause.rule, 0), LEVELS.get(finding.rule, 0)
    if own >= level:
        return False
    if level >= 3:
        return True
    # What has a remedy of its own that may be needed as well follows only where the cause's remedy brings as much.
    ours, theirs = evidence.trials.get(cause.overrides), evidence.trials.get(finding.overrides)
    if ours is None:
        return False
    return evidence.does_well(ours) or (theirs is not None and ours.net_skill >= theirs.net_skill)


def _is_against(one: Finding, other: Finding) -> bool:
    pair = {one.rule, other.rule}
    return conflict(one.overrides, other.overrides) or any(pair == set(opposites) for opposites in OPPOSITES)


def conflict(one: Sequence[str], other: Sequence[str]) -> bool:
    """Return whether two remedies set a key, or a key and a part of it, to different values."""
    ours, theirs = (dict(part.split("=", 1) for part in overrides) for overrides in (one, other))
    return any(
        (key == own and theirs[key] != value) or key.startswith(own + ".") or own.startswith(key + ".")
        for own, value in ours.items()
        for key in theirs
    )
