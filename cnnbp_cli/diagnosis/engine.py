"""From a config, a run or a model to a diagnosis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cnnbp_cli.config.errors import ConfigError
from cnnbp_cli.data.dataset import Dataset, check_labels
from cnnbp_cli.data.errors import DataError
from cnnbp_cli.diagnosis.collect.data import data_facts
from cnnbp_cli.diagnosis.collect.run import evidence_of_run
from cnnbp_cli.diagnosis.collect.start import start_facts
from cnnbp_cli.diagnosis.collect.training import VariantFactory, overfit_batch, probe_steps, train
from cnnbp_cli.diagnosis.confirm import confirmed
from cnnbp_cli.diagnosis.evidence import CLEAR_GAIN, Evidence, is_rate
from cnnbp_cli.diagnosis.facts import TrainingRecord
from cnnbp_cli.diagnosis.findings import SEVERITIES, Diagnosis, Finding
from cnnbp_cli.diagnosis.registry import RULES, Rule, chosen_rules
from cnnbp_cli.diagnosis.remedies import as_remedy, with_rate
from cnnbp_cli.diagnosis.rules import CAUSES_FIRST, load_rules
from cnnbp_cli.diagnosis.rules.data import NO_AUGMENTATION
from cnnbp_cli.diagnosis.rules.progress import next_rates
from cnnbp_cli.loading import load, load_data
from cnnbp_cli.model import Model, quiet

TRIALS, PAIRED_TRIALS = 6, 2
"""Remedies that are tried while the network does not do well, and how many of them with a lower learning rate, too."""


def diagnose(
    source: str | Path,
    *,
    overrides: Sequence[str] = (),
    select: Sequence[str] | None = None,
    ignore: Sequence[str] = (),
    steps: int | None = None,
    confirm: bool = False,
) -> Diagnosis:
    """Diagnose a config, which is trained briefly, or a run, which is read.

    Parameters
    ----------
    source : str or Path
        A config, ``-`` for standard input, or a run directory.
    overrides : sequence of str
        As after `--set` on the command line; for a config only.
    select, ignore : sequence of str
        Names of rules or families; all rules by default.
    steps : int, optional
        Steps of the probe; by default as many as its budget allows.
    confirm : bool
        Train again with the remedies, and say whether they help.

    Raises
    ------
    UnknownRuleError
        When a name is neither a rule's nor a family's.
    ConfigError, DataError, RunError
        When config, data or run cannot be used.
    """
    rules = _rules(select, ignore)
    if Path(source).is_dir():
        evidence, notes = evidence_of_run(Path(source))
        return _report(str(source), evidence, _judge(evidence, rules), notes)
    model = load(source, overrides)
    return diagnose_model(
        model, load_data(model), select=select, ignore=ignore, steps=steps, confirm=confirm, source=str(source)
    )


def diagnose_model(
    model: Model,
    data: Dataset,
    *,
    select: Sequence[str] | None = None,
    ignore: Sequence[str] = (),
    steps: int | None = None,
    confirm: bool = False,
    source: str = "model",
) -> Diagnosis:
    """Diagnose a model on its data; the model itself is not changed.

    Parameters and errors are those of `diagnose`.
    """
    rules = _rules(select, ignore)
    if model.classifies:
        check_labels(data, model.classes)
    steps = steps or probe_steps(model, data)
    variants = VariantFactory(model, data)
    evidence = _collect(model, data, variants, steps)
    findings = _judge(evidence, rules)
    if confirm:
        findings = confirmed(evidence, findings, lambda overrides: _variant(variants, overrides, steps))
    return _report(str(source), evidence, findings, ())


def _rules(select: Sequence[str] | None, ignore: Sequence[str]) -> list[Rule]:
    load_rules()
    return chosen_rules(select, ignore)


# ---------------------------------------------------------------------- evidence


@quiet
def _collect(model: Model, data: Dataset, variants: VariantFactory, steps: int) -> Evidence:
    """Look at the data and the fresh network, train briefly, and, if that goes badly, try what may fix it."""
    facts = data_facts(model, data)
    start = start_facts(model, data)
    record = train(*variants(), steps, facts)
    evidence = Evidence(config=model.config, graph=model.graph, data=facts, start=start, record=record)
    if evidence.well:
        return evidence
    evidence = replace(evidence, overfit=overfit_batch(variants()[0], data, facts))
    trials: dict[tuple[str, ...], TrainingRecord] = {}

    def attempt(overrides: tuple[str, ...]) -> bool:
        if overrides and overrides not in trials:
            try:
                trials[overrides] = train(*variants(overrides), steps, facts, watch=False)
            except (ConfigError, DataError):
                return False
        return bool(overrides)

    proposed = list(dict.fromkeys(one.overrides for one in _judge(evidence, list(RULES.values())) if one.overrides))
    if model.config.data.augment is not None:  # whether it destroys the images, only a training without it can tell
        proposed.insert(0, NO_AUGMENTATION)
    for overrides in proposed[:TRIALS]:
        attempt(overrides)
    evidence = replace(evidence, trials=dict(trials))
    if not evidence.solved:  # what fixes the network may need for shorter steps than it had
        for overrides in [one for one in proposed[:TRIALS] if not is_rate(one)][:PAIRED_TRIALS]:
            attempt((*overrides, *with_rate(evidence, 0.1)))
            attempt(with_rate(evidence, 0.1))
        evidence = replace(evidence, trials=dict(trials))
    while (overrides := next_rates(evidence)) and attempt(overrides):
        evidence = replace(evidence, trials=dict(trials))
    return evidence


def _variant(variants: VariantFactory, overrides: tuple[str, ...], steps: int) -> Evidence:
    """Collect the evidence of a variant, without further trials."""
    model, data = variants(overrides)
    facts = data_facts(model, data)
    start = start_facts(model, data)
    record = train(model, data, steps, facts)
    return Evidence(config=model.config, graph=model.graph, data=facts, start=start, record=record)


# ---------------------------------------------------------------------- judgement


def _judge(evidence: Evidence, rules: Sequence[Rule]) -> tuple[Finding, ...]:
    """Return what the rules find: the most severe first, and causes before what follows from them."""
    found = [_with_best_trial(evidence, finding) for rule in rules for finding in rule.findings(evidence)]
    return tuple(
        sorted(found, key=lambda finding: (SEVERITIES.index(finding.severity), CAUSES_FIRST.index(finding.rule)))
    )


def _with_best_trial(evidence: Evidence, finding: Finding) -> Finding:
    """Return a finding whose remedy has a lower learning rate in addition, where only both together helped."""
    own = finding.overrides
    known = [key for key in evidence.trials if own and key[: len(own)] == own]
    best = max(
        known,
        key=lambda key: (evidence.trials[key].skill >= evidence.record.skill + CLEAR_GAIN, -len(key)),
        default=own,
    )
    return finding if best == own else replace(finding, remedy=as_remedy(best))


def _report(source: str, evidence: Evidence, findings: tuple[Finding, ...], notes: Sequence[str]) -> Diagnosis:
    record = evidence.record
    summary: dict[str, Any] = {
        "steps": record.steps,
        "planned_steps": record.planned or None,
        "uniform_loss": evidence.data.uniform_loss if evidence.data else None,
        "first_loss": record.first_loss,
        "last_loss": record.last_loss,
        "train_accuracy": record.train.accuracy if record.train else None,
        "held_out_accuracy": record.held.accuracy if record.held else None,
        "skill": record.skill,
        "expected_skill": evidence.expected,
    }
    return Diagnosis(source=source, findings=findings, evidence=summary, notes=tuple(notes))
