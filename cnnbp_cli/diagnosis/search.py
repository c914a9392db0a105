"""The search for what helps a network that does badly: trainings with remedies, alone and together, and other rates."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from cnnbp_cli.config.errors import ConfigError
from cnnbp_cli.data.dataset import Dataset
from cnnbp_cli.data.errors import DataError
from cnnbp_cli.diagnosis.collect.training import (
    VariantFactory,
    overfit_batch,
    planned_steps,
    probe_cost,
    probe_steps,
    train,
)
from cnnbp_cli.diagnosis.evidence import Evidence, is_rate
from cnnbp_cli.diagnosis.facts import TrainingRecord
from cnnbp_cli.diagnosis.plan import SPLITS_DIFFER, UNLEARNABLE, conflict, in_order
from cnnbp_cli.diagnosis.registry import RULES
from cnnbp_cli.diagnosis.remedies import lower_rates
from cnnbp_cli.diagnosis.rules.data import NO_AUGMENTATION
from cnnbp_cli.diagnosis.rules.progress import next_rates
from cnnbp_cli.model import Model, quiet

REMEDIES, PAIRED_RATES = 6, 2
"""Remedies that are tried, and lower learning rates that are tried together with them."""

MOST, MOST_COSTLY = 14, 10
"""Trainings that are tried in all, also of a network whose trials are costly."""

COSTLY = 50e9
"""Multiply-accumulates of a trial from which on no more remedies are tried once one of them is enough."""


@quiet
def with_trials(evidence: Evidence, variants: VariantFactory, steps: int) -> Evidence:
    """Return the evidence with what was tried; as it is where the network has nothing to gain, or data are to blame."""
    if (evidence.well and not evidence.mediocre) or _data_explain_it(evidence):
        return evidence
    assert evidence.data is not None
    if not evidence.well:
        evidence = replace(evidence, overfit=overfit_batch(*variants(), evidence.data))
    search = Search(evidence, variants, steps)
    search.try_remedies()
    if not evidence.fits:
        search.try_together()
    if evidence.well or not evidence.fits:
        search.try_rates()
    return search.evidence


def _data_explain_it(evidence: Evidence) -> bool:
    """Return whether no remedy can show what it is worth on such data."""
    errors = {f.rule for rule in RULES.values() for f in rule.findings(evidence) if f.severity == "error"}
    return bool(errors & UNLEARNABLE) or (evidence.fits and bool(errors & SPLITS_DIFFER))


def proposals(evidence: Evidence) -> list[tuple[str, ...]]:
    """Return the remedies to try, those of causes first."""
    searching = replace(evidence, searching=True)
    found = in_order([finding for rule in RULES.values() for finding in rule.findings(searching)])
    proposed = list(dict.fromkeys(finding.overrides for finding in found if finding.overrides))
    if evidence.config.data.augment is not None:  # whether it destroys the images, only a training without it can tell
        proposed.insert(0, NO_AUGMENTATION)
    return proposed[:REMEDIES]


def steps_of_trial(evidence: Evidence, model: Model, data: Dataset, steps: int) -> int:
    """Return how many steps to train a variant: those of the probe, and more where its config plans more."""
    longer = planned_steps(model, data) > evidence.record.planned
    return max(steps, probe_steps(model, data)) if longer else steps


class Search:
    """Trainings that differ from the probe by overrides alone.

    Attributes
    ----------
    evidence : Evidence
        Its trials grow.
    """

    def __init__(self, evidence: Evidence, variants: VariantFactory, steps: int) -> None:
        self.trials: dict[tuple[str, ...], TrainingRecord] = {}
        self.evidence = replace(evidence, trials=self.trials)
        self._variants, self._steps = variants, steps
        self._costly = probe_cost(*variants(), steps) > COSTLY
        self._proposed = proposals(evidence)

    def attempt(self, overrides: tuple[str, ...]) -> bool:
        """Train with overrides, and return whether that was possible."""
        facts = self.evidence.data
        assert facts is not None
        if overrides and overrides not in self.trials and len(self.trials) < (MOST_COSTLY if self._costly else MOST):
            with suppress(ConfigError, DataError):
                model, data = self._variants(overrides)
                steps = steps_of_trial(self.evidence, model, data, self._steps)
                self.trials[overrides] = train(model, data, steps, facts, watch=False)
        return overrides in self.trials

    def try_remedies(self) -> None:
        """Try each remedy by itself."""
        for overrides in self._proposed:
            if not (self._costly and self.evidence.solved):
                self.attempt(overrides)

    def try_together(self) -> None:
        """Try the remedies together, and with lower rates: what fixes the network may need smaller steps."""
        changes = [overrides for overrides in self._proposed if not is_rate(overrides)]
        if self.evidence.solved or not changes:
            return
        together: tuple[str, ...] = ()
        for overrides in changes:
            if not conflict(together, overrides):
                together += tuple(part for part in overrides if part not in together)
        self.attempt(together)
        best = max(changes, key=lambda overrides: self.trials[overrides].net_skill if overrides in self.trials else 0.0)
        for rate in lower_rates(self.evidence)[:PAIRED_RATES]:
            for overrides in dict.fromkeys((best, together)):
                if not self.evidence.solved_together and not conflict(overrides, rate):
                    self.attempt((*overrides, *rate))
                    self.attempt(rate)  # to tell what the rate does by itself

    def try_rates(self) -> None:
        """Search the learning rate over decades."""
        while (overrides := next_rates(self.evidence)) and self.attempt(overrides):
            pass
