"""From a config, a run or a model to a diagnosis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cnnbp_cli.build import build
from cnnbp_cli.config.sources import located
from cnnbp_cli.data.dataset import Dataset, check_labels
from cnnbp_cli.diagnosis.collect.data import data_facts
from cnnbp_cli.diagnosis.collect.run import evidence_of_run
from cnnbp_cli.diagnosis.collect.start import start_facts
from cnnbp_cli.diagnosis.collect.training import VariantFactory, probe_steps, train
from cnnbp_cli.diagnosis.confirm import confirmed
from cnnbp_cli.diagnosis.evidence import Evidence
from cnnbp_cli.diagnosis.findings import Diagnosis, Finding
from cnnbp_cli.diagnosis.plan import one_plan
from cnnbp_cli.diagnosis.registry import RULES, Rule, chosen_rules
from cnnbp_cli.diagnosis.remedies import as_remedy
from cnnbp_cli.diagnosis.rules import load_rules
from cnnbp_cli.diagnosis.search import steps_of_trial, with_trials
from cnnbp_cli.loading import load, load_data
from cnnbp_cli.model import Model, quiet


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
        A config as `load` takes it, ``-`` for standard input, or a run: its directory, or ``"last"``.
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
    source = located(source)
    if source.is_dir():
        evidence, data, notes = evidence_of_run(source)
        if data is not None and evidence.can_be_judged:
            model = build(evidence.config)
            evidence = with_trials(evidence, VariantFactory(model, data), steps or probe_steps(model, data))
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
        findings = confirmed(evidence, findings, lambda overrides: _variant(evidence, variants, overrides, steps))
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
    return with_trials(evidence, variants, steps)


def _variant(evidence: Evidence, variants: VariantFactory, overrides: tuple[str, ...], steps: int) -> Evidence:
    """Collect the evidence of a variant, without further trials."""
    model, data = variants(overrides)
    facts = data_facts(model, data)
    start = start_facts(model, data)
    record = train(model, data, steps_of_trial(evidence, model, data, steps), facts)
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
