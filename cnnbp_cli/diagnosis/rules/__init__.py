"""The rules, a file for each family."""

from __future__ import annotations

from importlib import import_module

from cnnbp_cli.diagnosis.registry import FAMILIES

CAUSES_FIRST = (
    "shuffled-labels",
    "data-leak",
    "unbalanced-classes",
    "destructive-augmentation",
    "unnormalised-input",
    "normalised-twice",
    "symmetric-init",
    "badly-scaled-init",
    "bad-initial-loss",
    "vanishing-gradient",
    "exploding-gradient",
    "absurd-epsilon",
    "frozen-layer",
    "redundant-softmax",
    "loss-head-mismatch",
    "no-activation",
    "batch-norm-small-batch",
    "batch-norm-train-eval-gap",
    "clipping-always-active",
    "over-regularised",
    "overfitting",
    "diverging-loss",
    "non-finite",
    "oscillating-loss",
    "dead-relu",
    "saturated-activation",
    "cannot-overfit-batch",
    "learning-rate-too-high",
    "learning-rate-too-low",
    "update-ratio",
    "loss-not-falling",
)
"""Among findings of the same severity: causes before what follows from them, the specific before the general."""


def load_rules() -> None:
    """Declare all rules."""
    for family in FAMILIES:
        import_module(f"{__name__}.{family}")
