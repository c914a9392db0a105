"""The evidence of a run that is over, or has crashed: what it recorded, and how good its last checkpoint is."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from statistics import mean

from cnnbp_cli.build import build
from cnnbp_cli.config.load import load_config
from cnnbp_cli.data.dataset import Dataset, check_labels
from cnnbp_cli.data.errors import DataError
from cnnbp_cli.diagnosis.collect.data import data_facts
from cnnbp_cli.diagnosis.collect.start import start_facts
from cnnbp_cli.diagnosis.collect.training import batch_mode, planned_rates, planned_steps, score
from cnnbp_cli.diagnosis.evidence import FEW_STEPS, Evidence
from cnnbp_cli.diagnosis.facts import FAILED, DataFacts, Score, TrainingRecord
from cnnbp_cli.loading import load_checkpoint, load_data
from cnnbp_cli.model import Model
from cnnbp_cli.train.checkpoint import CheckpointError
from cnnbp_cli.train.event_log import run_events
from cnnbp_cli.train.events import ConfigChanged, EpochDone, LayersWatched, NonFinite, RunFinished, StepDone
from cnnbp_cli.train.run_directory import RunDirectory, RunError


def evidence_of_run(run: Path) -> tuple[Evidence, Dataset | None, tuple[str, ...]]:
    """Read a run, without training anything.

    Returns
    -------
    evidence : Evidence
    data : Dataset or None
        None where they cannot be read.
    notes : tuple of str
        What could not be looked at.

    Raises
    ------
    RunError, ConfigError
        When there is no run, it has made no step, or its files are damaged.
    """
    notes: list[str] = []
    events = list(run_events(run))
    config = load_config(str(RunDirectory(run).config))
    steps = [event for event in events if isinstance(event, StepDone)]
    bad = next((event for event in events if isinstance(event, NonFinite)), None)
    if not steps and bad is None:
        raise RunError(f"{run}: has made no step yet")
    model = build(config)
    data = _data(model, notes)
    facts = None if data is None else data_facts(model, data)
    trained = None if bad or data is None else _trained(RunDirectory(run), model, notes)
    planned = planned_steps(model, data) if data else 0
    finished = any(isinstance(event, RunFinished) for event in events)
    notes += [str(event) for event in events if isinstance(event, ConfigChanged) and not event.safe]
    if len(steps) < FEW_STEPS and bad is None:
        notes.append(f"the run has made {len(steps)} steps: too few to tell where the loss goes")
    elif not finished and bad is None:
        notes.append(f"the run has not finished: it is judged by its {len(steps):,} steps so far")
    record = TrainingRecord(
        losses=tuple(step.loss for step in steps),
        norms=tuple(step.grad_norm for step in steps),
        rates=tuple(step.learning_rate for step in steps),
        planned=planned,
        planned_rates=planned_rates(config.train, len(data.train), [step.learning_rate for step in steps])
        if data
        else 0.0,
        watched=tuple(event for event in events if isinstance(event, LayersWatched)),
        epochs=tuple(event for event in events if isinstance(event, EpochDone)),
        bad=bad,
        train=FAILED if bad else _on_training_images(steps, facts, data, trained),
        held=FAILED if bad else _on_held_out_images(facts, data, trained),
        batch_mode=batch_mode(trained, data, facts) if trained and data and facts else None,
    )
    if not record.watched:
        notes.append("the run recorded nothing about its layers: rules about them are silent")
    start = start_facts(model, data) if data else None
    evidence = Evidence(config=config, graph=model.graph, data=facts, start=start, record=record, is_run=True)
    return evidence, data, tuple(notes)


def _data(model: Model, notes: list[str]) -> Dataset | None:
    try:
        data = load_data(model)
        if model.classifies:
            check_labels(data, model.classes)
    except DataError as error:
        notes.append(f"the data cannot be looked at: {error}")
        return None
    return data


def _trained(run: RunDirectory, model: Model, notes: list[str]) -> Model | None:
    """Return the model as the run left it; its best state is no evidence of what went wrong after it."""
    paths = run.checkpoints()
    if not paths:
        notes.append("the run has no checkpoint: how much it learned is read off its last batches")
    for path in paths:
        try:
            return load_checkpoint(path)
        except CheckpointError as error:
            notes.append(str(error))
    return None


def _on_training_images(
    steps: list[StepDone], facts: DataFacts | None, data: Dataset | None, trained: Model | None
) -> Score | None:
    """Score the model; where there is none, take the figures of the last batches."""
    if trained and data and facts:
        return score(trained, data.train, data.normalization, facts)
    last = steps[-max(1, len(steps) // 10) :]
    loss = mean(step.loss for step in last)
    right = [step.accuracy for step in last if step.accuracy is not None]
    if right and facts and facts.classes:
        accuracy, chance = mean(right), max(facts.class_counts) / max(1, sum(facts.class_counts))
        return Score(
            loss=loss, accuracy=accuracy, skill=max(0.0, (accuracy - chance) / (1 - chance)) if chance < 1 else 0
        )
    if right:
        return Score(loss=loss, accuracy=mean(right), skill=mean(right))
    known = facts and facts.constant_loss and isfinite(loss)
    return Score(loss=loss, skill=max(0.0, 1 - loss / facts.constant_loss)) if facts and known else None


def _on_held_out_images(facts: DataFacts | None, data: Dataset | None, trained: Model | None) -> Score | None:
    held = (data.test or data.validation) if data else None
    if trained is None or data is None or facts is None or held is None:
        return None
    return score(trained, held, data.normalization, facts)
