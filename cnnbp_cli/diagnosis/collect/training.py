"""Short trainings: the probe, the same with something changed, and overfitting one batch."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from cnnbp_cli.build import build
from cnnbp_cli.config.load import parse_config
from cnnbp_cli.config.schema import Config, LossAt, TrainConfig
from cnnbp_cli.config.write import to_dict
from cnnbp_cli.core.graph import INPUT, Graph
from cnnbp_cli.core.optim import Adam
from cnnbp_cli.core.schedules import Constant, LinearWarmup, Progress, ReduceOnPlateau, Schedule
from cnnbp_cli.core.types import Array, Context, Workspace
from cnnbp_cli.data.batches import make_batch, order
from cnnbp_cli.data.dataset import Dataset, load_dataset
from cnnbp_cli.data.leave_out import sifted
from cnnbp_cli.data.normalization import Normalization
from cnnbp_cli.data.progress import Reading, tell
from cnnbp_cli.data.split import Split
from cnnbp_cli.diagnosis.collect.data import spread
from cnnbp_cli.diagnosis.facts import FAILED, DataFacts, OverfitTest, Score, TrainingRecord
from cnnbp_cli.model import Model, quiet
from cnnbp_cli.train.evaluate import predicted_classes
from cnnbp_cli.train.events import EpochDone, LayersWatched, NonFinite, StepDone
from cnnbp_cli.train.fit import fit

BUDGET = 200e9
"""Multiply-accumulates of a probe: some seconds on one core, for networks whose steps are not tiny."""

MIN_STEPS, MAX_STEPS = 60, 250
"""Steps of a probe: sound networks learn most of what they will within 250, and tell that they do within 60."""

WATCHED_STEPS = 25
"""Steps of a probe whose layers are watched."""

SCORED_IMAGES = 500
"""Images that a score is measured on; an accuracy over as many is known to two points."""

IMAGES_PER_PASS = 250
"""Images in one pass."""

OVERFIT_IMAGES, OVERFIT_STEPS, OVERFIT_RATE = 16, 100, 0.003
"""The images to overfit, the steps for it, and Adam's learning rate: whatever the config's own steps are, these
are sound for layers of usual widths."""


class VariantFactory:
    """Makes variants of a model that differ from it by overrides alone.

    Parameters
    ----------
    model : Model
        Its parameters are the start of every variant whose network is the same.
    data : Dataset
    """

    def __init__(self, model: Model, data: Dataset) -> None:
        self._model, self._data = model, data
        self._text = _as_written(model.config)
        self._start = model.parameters()

    def __call__(self, overrides: Sequence[str] = ()) -> tuple[Model, Dataset]:
        """Return a fresh model and its data.

        Raises
        ------
        ConfigError, DataError
            When an override does not fit.
        """
        old = self._model.config
        config = parse_config(self._text, overrides, label=old.name)
        graph = self._model.graph if config.model == old.model else None  # it may hold layers of the user's own
        losses = self._model.losses if _losses_of(config) == _losses_of(old) else None  # they may be the user's own
        model = build(config, graph=graph, losses=losses)
        if graph and config.seed == old.seed:
            model.set_parameters(self._start)
        data = self._data
        if config.data != old.data:
            was = old.data
            own = replace(config.data, normalize=was.normalize, augment=was.augment, leave_out=was.leave_out)
            if own == was and set(was.leave_out) <= set(config.data.leave_out):
                held_out = [split for split in (data.validation, data.test) if split is not None]
                train, _ = sifted(data.train, held_out, config.data.leave_out, data.name)
                data = replace(
                    data, train=train, normalization=Normalization.fit(config.data.normalize, train.whole.images)
                )
            else:
                data = load_dataset(config.data, config.model.input, config.seed, model.task)
        return model, data


def _as_written(config: Config) -> str:
    """Return a config as a person writes it: what follows from the rest is left out, so that overrides reach it.

    A layer's own name, the layer before it as its input, and the network's common initializer go without saying.
    """
    written = to_dict(config)
    model = written["model"]
    before, counts = INPUT, Counter[str]()
    for layer in model["layers"]:
        name, kind = layer["name"], layer.get("type", "")
        counts[kind] += 1
        if layer["inputs"] == [before]:
            del layer["inputs"]
        if name == f"{kind}_{counts[kind]}":
            del layer["name"]
        if "init" in layer and layer["init"] == model["init"]:
            del layer["init"]
        before = name
    for one in written["train"]["losses"]:
        if one["loss"] == written["train"]["loss"]:
            del one["loss"]
    return json.dumps(written)


def _losses_of(config: Config) -> tuple[str, tuple[LossAt, ...], float]:
    return config.model.head, config.losses, config.train.label_smoothing


def probe_steps(model: Model, data: Dataset) -> int:
    """Return how many steps a probe of a model takes."""
    affordable = int(BUDGET / probe_cost(model, data, 1))
    return min(planned_steps(model, data), max(MIN_STEPS, min(MAX_STEPS, affordable)))


def probe_cost(model: Model, data: Dataset, steps: int) -> int:
    """Return the multiply-accumulates of so many steps."""
    return max(1, 3 * model.macs * min(model.config.train.batch_size, len(data.train))) * steps


def planned_steps(model: Model, data: Dataset) -> int:
    """Return how many steps the config asks for."""
    return model.config.train.total_steps(len(data.train))


def train(
    model: Model, data: Dataset, steps: int, facts: DataFacts, *, config: Config | None = None, watch: bool = True
) -> TrainingRecord:
    """Train a model for some steps, in place and as its own or another config says, and see how good it becomes."""
    config = config or model.config
    asked = config.train
    planned = asked.total_steps(len(data.train))
    config = replace(
        config,
        train=replace(
            asked,
            max_steps=steps,
            epochs=max(asked.epochs, steps),
            early_stopping=None,
            schedule=_without_validation(asked.schedule),
        ),
    )
    shown = replace(data, validation=None, test=None)
    losses: list[float] = []
    norms: list[float] = []
    rates: list[float] = []
    watched: list[LayersWatched] = []
    epochs: list[EpochDone] = []
    bad: NonFinite | None = None
    for event in fit(model, shown, config=config, watch_every=max(1, steps // WATCHED_STEPS) if watch else 0):
        if isinstance(event, StepDone):
            tell(Reading("training", len(losses) + 1, steps, "steps"))
            losses.append(event.loss)
            norms.append(event.grad_norm)
            rates.append(event.learning_rate)
        elif isinstance(event, LayersWatched):
            watched.append(event)
        elif isinstance(event, EpochDone):
            epochs.append(event)
        elif isinstance(event, NonFinite):
            bad = event
    held = data.test or data.validation
    return TrainingRecord(
        losses=tuple(losses),
        norms=tuple(norms),
        rates=tuple(rates),
        planned=planned,
        planned_rates=planned_rates(asked, len(data.train), rates),
        watched=tuple(watched),
        epochs=tuple(epochs),
        bad=bad,
        train=FAILED if bad else score(model, data.train, data.normalization, facts),
        held=None if held is None else FAILED if bad else score(model, held, data.normalization, facts),
        batch_mode=batch_mode(model, data, facts) if not bad else None,
    )


def _without_validation(schedule: Schedule) -> Schedule:
    """Return a schedule that watches the training loss, where it would watch that of held-out images."""
    if isinstance(schedule, LinearWarmup) and isinstance(schedule.then, ReduceOnPlateau):
        return replace(schedule, then=replace(schedule.then, monitor="train_loss"))
    return replace(schedule, monitor="train_loss") if isinstance(schedule, ReduceOnPlateau) else schedule


def planned_rates(asked: TrainConfig, samples: int, seen: Sequence[float]) -> float:
    """Return the sum of the learning rates of all steps that a config asks for.

    A schedule that depends on how the training goes is continued at the last rate that was seen.
    """
    per_epoch, planned = asked.steps_per_epoch(samples), asked.total_steps(samples)
    base = asked.optimizer.learning_rate
    if isinstance(asked.main_schedule[1], ReduceOnPlateau):
        return sum(seen) + (seen[-1] if seen else base) * max(0, planned - len(seen))
    places = np.unique(np.linspace(0, planned - 1, min(planned, 1000)).astype(int)).tolist()
    some = [
        asked.schedule.learning_rate(base, Progress(step, per_epoch, planned, step // per_epoch)) for step in places
    ]
    return float(np.mean(some)) * planned


# ---------------------------------------------------------------------- scores


@quiet
def score(
    model: Model, split: Split, normalization: Normalization, facts: DataFacts, *, training: bool = False
) -> Score:
    """Measure a model on some images of a split.

    Parameters
    ----------
    training : bool
        Let batch norm use the statistics of these images.
    """
    chosen = spread(len(split), SCORED_IMAGES)
    ctx = Context(training=training, arrays=Workspace())
    predicted: list[Array] = []

    def batches() -> Iterator[tuple[Array, Array]]:
        for start in range(0, len(chosen), IMAGES_PER_PASS):
            x, labels = make_batch(split, chosen[start : start + IMAGES_PER_PASS], normalization, model.dtype)
            yield x, model.targets_in(labels, x)

    def see(z: Array) -> None:
        if facts.classes and z.ndim == 2:
            predicted.append(predicted_classes(z))

    total, count = model.summed_loss(batches(), ctx, see)
    mean = total / count
    if not predicted:
        constant = facts.constant_output_loss
        return Score(loss=mean, skill=max(0.0, 1 - mean / constant) if constant else 0.0)
    labels = split.labels[chosen]
    hits = np.concatenate(predicted) == labels
    recalls = tuple(float(hits[labels == k].mean()) if (labels == k).any() else None for k in range(facts.classes or 0))
    known = [recall for recall in recalls if recall is not None]
    chance = 1 / max(2, len(known))
    skill = max(0.0, (float(np.mean(known)) - chance) / (1 - chance))
    return Score(loss=mean, accuracy=float(hits.mean()), skill=skill, recalls=recalls)


def batch_mode(model: Model, data: Dataset, facts: DataFacts) -> Score | None:
    """Score a model with batch norm in training mode, its dropout switched off."""
    if not any(node.layer.mixes_samples for node in model.graph.nodes):
        return None
    still = without_dropout(model)
    return score(still, data.train, data.normalization, facts, training=True)


def without_dropout(model: Model) -> Model:
    """Return a model like this one, with the same parameters, whose dropout lets everything pass."""
    graph = model.graph
    nodes = [replace(node, layer=node.layer.without_noise()) for node in graph.nodes]
    nodes.sort(key=lambda node: node.name == graph.output)  # the last one listed is the output
    quiet_graph = Graph(graph.shapes[INPUT], nodes, graph.outputs[1:])
    still = build(model.config, graph=quiet_graph, losses=model.losses)
    still.set_parameters(model.parameters())
    return still


# ---------------------------------------------------------------------- overfitting one batch


def overfit_batch(model: Model, data: Dataset, facts: DataFacts) -> OverfitTest:
    """Try to learn one batch, with Adam, without augmentation, dropout and weight decay."""
    still = without_dropout(model)
    asked = still.config.train
    chosen = _mixed(data.train, model, OVERFIT_IMAGES)
    few = Dataset(data.train.take(chosen), None, None, data.normalization, data.classes, data.name)
    config = replace(
        still.config,
        data=replace(still.config.data, augment=None),
        train=replace(
            asked,
            optimizer=Adam(learning_rate=OVERFIT_RATE),
            clip_norm=None,
            schedule=Constant(),
            early_stopping=None,
            batch_size=len(chosen),
            epochs=OVERFIT_STEPS,
            max_steps=None,
        ),
    )
    record = train(still, few, OVERFIT_STEPS, facts, config=config, watch=False)
    return OverfitTest(
        images=len(chosen),
        steps=record.steps,
        first=record.first_loss,
        last=record.losses[-1] if record.losses and not record.bad else float("inf"),
        skill=record.skill,
    )


def _mixed(split: Split, model: Model, count: int) -> Array:
    """Return some images with as many classes as possible, in the order in which training meets them."""
    visit = order(model.config.seed, 0, len(split))
    if not split.has_classes:
        return visit[:count]
    labels = split.labels[visit]
    rank = np.empty(len(visit), int)
    for label in np.unique(labels):
        mine = labels == label
        rank[mine] = np.arange(mine.sum())
    return visit[np.argsort(rank, kind="stable")[:count]]
