"""From a config, a run or a model to a diagnosis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from cnnbp_cli.build import build
from cnnbp_cli.config.errors import ConfigError
from cnnbp_cli.data.dataset import Dataset, check_labels
from cnnbp_cli.data.errors import DataError
from cnnbp_cli.diagnosis.collect.data import data_facts
from cnnbp_cli.diagnosis.collect.run import evidence_of_run
from cnnbp_cli.diagnosis.collect.start import start_facts
from cnnbp_cli.diagnosis.collect.training import (
    VariantFactory,
    overfit_batch,
    planned_steps,
    probe_cost,
    probe_steps,
    train,
)
from cnnbp_cli.diagnosis.confirm import confirmed
from cnnbp_cli.diagnosis.evidence import Evidence, is_rate
from cnnbp_cli.diagnosis.facts import TrainingRecord
from cnnbp_cli.diagnosis.findings import Diagnosis, Finding
from cnnbp_cli.diagnosis.plan import SPLITS_DIFFER, UNLEARNABLE, conflict, in_order, one_plan
from cnnbp_cli.diagnosis.registry import RULES, Rule, chosen_rules
from cnnbp_cli.diagnosis.remedies import as_remedy, lower_rates
from cnnbp_cli.diagnosis.rules import load_rules
from cnnbp_cli.diagnosis.rules.data import NO_AUGMENTATION
from cnnbp_cli.diagnosis.rules.progress import next_rates
from cnnbp_cli.loading import load, load_data
from cnnbp_cli.model import Model, quiet

TRIALS, PAIRED_TRIALS = 6, 2
"""Remedies that are tried while the network does not do well, and how many of them with a lower learning rate, too."""

MOST, MOST_COSTLY = 14, 10
"""Trainings that are tried in all, also of a network whose trials are costly."""

COSTLY = 50e9
"""Multiply-accumulates of a trial from which on no more remedies are tried once one of them is enough."""


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
        evidence, data, notes = evidence_of_run(Path(source))
        if data is not None and evidence.can_be_judged:
            model = build(evidence.config)
            evidence = _with_trials(evidence, VariantFactory(model, data), steps or probe_steps(model, data))
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
    return _with_trials(evidence, variants, steps)


@quiet
def _with_trials(evidence: Evidence, variants: VariantFactory, steps: int) -> Evidence:
    """Train with the remedies of what is found, alone and together, and search the learning rate over decades.

    Nothing is tried with a network that does well and has nothing to gain.
    """
    facts = evidence.data
    assert facts is not None
    if evidence.well and not evidence.mediocre:
        return evidence
    first = _judge(evidence, list(RULES.values()))
    if any(finding.rule in (UNLEARNABLE | SPLITS_DIFFER) and finding.severity == "error" for finding in first):
        return evidence  # no remedy can show what it is worth on such data
    if not evidence.well:
        evidence = replace(evidence, overfit=overfit_batch(variants()[0], variants()[1], facts))
    trials: dict[tuple[str, ...], TrainingRecord] = {}
    evidence = replace(evidence, trials=trials)  # which grow
    costly = probe_cost(*variants(), steps) > COSTLY

    def attempt(overrides: tuple[str, ...]) -> None:
        if overrides and overrides not in trials and len(trials) < (MOST_COSTLY if costly else MOST):
            with suppress(ConfigError, DataError):
                model, data = variants(overrides)
                longer = planned_steps(model, data) > evidence.record.planned
                count = max(steps, probe_steps(model, data)) if longer else steps
                trials[overrides] = train(model, data, count, facts, watch=False)

    proposed = _proposals(evidence)
    for overrides in proposed:
        if not (costly and evidence.solved):
            attempt(overrides)
    changes = [overrides for overrides in proposed if not is_rate(overrides)]
    if not evidence.solved and not evidence.fits:
        together: tuple[str, ...] = ()
        for overrides in changes:
            if not conflict(together, overrides):
                together += tuple(part for part in overrides if part not in together)
        attempt(together)
        best = max(changes, key=lambda overrides: _skill(trials, overrides), default=())
        for rate in lower_rates(evidence)[:PAIRED_TRIALS]:  # what fixes the network may need smaller steps than it had
            for overrides in dict.fromkeys((best, together)):
                if overrides and not evidence.solved and not conflict(overrides, rate):
                    attempt((*overrides, *rate))
                    attempt(rate)
    while not (evidence.fits and not evidence.well) and (overrides := next_rates(evidence)):
        attempt(overrides)
        if overrides not in trials:
            break
    return replace(evidence, trials=dict(trials))


def _proposals(evidence: Evidence) -> list[tuple[str, ...]]:
    """Return the remedies to try, those of causes first."""
    searching = replace(evidence, searching=True)
    found = in_order([finding for rule in RULES.values() for finding in rule.findings(searching)])
    proposed = list(dict.fromkeys(finding.overrides for finding in found if finding.overrides))
    if evidence.config.data.augment is not None:  # whether it destroys the images, only a training without it can tell
        proposed.insert(0, NO_AUGMENTATION)
    return proposed[:TRIALS]


def _skill(trials: Mapping[tuple[str, ...], TrainingRecord], overrides: tuple[str, ...]) -> float:
    return trials[overrides].net_skill if overrides in trials else 0.0


def _variant(variants: VariantFactory, overrides: tuple[str, ...], steps: int) -> Evidence:
    """Collect the evidence of a variant, without further trials."""
    model, data = variants(overrides)
    facts = data_facts(model, data)
    start = start_facts(model, data)
    record = train(model, data, steps, facts)
    return Evidence(config=model.config, graph=model.graph, data=facts, start=start, record=record)


# ---------------------------------------------------------------------- judgement


def _judge(evidence: Evidence, rules: Sequence[Rule]) -> tuple[Finding, ...]:
    """Return what the rules find, as one plan.

    The plan is made from what all rules find, so that to leave some out changes nothing in what the others advise.
    """
    found = [_with_best_trial(evidence, finding) for rule in RULES.values() for finding in rule.findings(evidence)]
    names = {rule.name for rule in rules}
    plan = [finding for finding in one_plan(evidence, found) if finding.rule in names]
    return tuple(finding if finding.cause in names else replace(finding, cause=None) for finding in plan)


def _with_best_trial(evidence: Evidence, finding: Finding) -> Finding:
    """Return a finding whose remedy changes more in addition, where only both together helped."""
    own = finding.overrides
    known = [
        key for key in evidence.trials if own and set(own) <= set(key) and evidence.is_better(evidence.trials[key])
    ]
    if not known or own in known or not evidence.helps(own):
        return finding
    best = max(known, key=lambda key: (evidence.does_well(evidence.trials[key]), -len(key)))
    return replace(finding, remedy=as_remedy(best))


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
