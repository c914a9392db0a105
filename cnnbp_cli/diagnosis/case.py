"""A case: the evidence of one diagnosis, collected once; rules read it and nothing else.

A *skill* tells from 0 to 1 how much of what there is to learn was learned. With classes it is
``(r - 1/K) / (1 - 1/K)``, r the mean recall of the K classes, so that neither guessing nor always naming the
commonest class is worth anything. Without classes it is ``1 - L / L₀``, L₀ the loss of the best constant answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import inf, isfinite
from statistics import median

from cnnbp_cli.config.schema import Config
from cnnbp_cli.core.graph import Graph, Node
from cnnbp_cli.core.layers.norm import BatchNorm, GroupNorm, LayerNorm
from cnnbp_cli.diagnosis.findings import Severity
from cnnbp_cli.train.events import EpochDone, LayersWatched, NonFinite
from cnnbp_cli.train.statistics import LayerStatistics

WELL, POOR = 0.75, 0.5
"""A network does well from three quarters of the skill that the data allow, and poorly below a half of it.

The measure of what the data allow is a cheap one (nearest neighbours), and a probe is short: sound networks reach
80 % to 100 % of it within a probe, those with a fault 0 % to 60 %.
"""

EXPECTED = 0.5
"""The skill to expect where no reference tells more: of images, or of data whose neighbours say nothing."""

HELPS = 0.1
"""A remedy helps when it adds this much skill: several times what two probes with different seeds differ by."""


FEW_STEPS = 20
"""Steps below which a run says nothing about where its loss goes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """How well images near each other agree about their labels, in one split or across two.

    Attributes
    ----------
    count : int
        Images that were asked about.
    agreement : float
        Skill of the vote of the nearest other images.
    confident : float
        Share of the images whose own label is that of the vote, among those where the vote is clearest: 1 less the
        share of wrong labels, also where classes overlap elsewhere.
    """

    count: int
    agreement: float
    confident: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFacts:
    """What is known about the data before any training.

    Attributes
    ----------
    count, held_count : int
        Images to train on, and held out (the test split, else the validation split).
    classes : int or None
        None where labels are no class numbers.
    class_counts : tuple of int
        Training images of each class.
    raw : (mean, deviation, lowest, highest)
        Of the pixels as they are stored.
    whole_numbers : bool
        Whether pixels are stored as bytes.
    mean, deviation, low, high : float
        Of the pixels as the network gets them.
    target_low, target_high : float or None
        The range of what a network without classes has to give, all but 1 % of the values at each end.
    labels, held_labels, across : Labels or None
        Among the training images, among the held-out ones, and of held-out images with training images.
    leaked : float
        Share of the held-out images that are among the training images, to the last pixel.
    repeated : float
        Share of the training images that occur among the other training images.
    uniform_loss : float
        Loss of an answer that favours nothing: every class alike, or 0.
    constant_loss : float
        Loss of the best answer that does not look at the image.
    """

    count: int
    held_count: int = 0
    classes: int | None = None
    class_counts: tuple[int, ...] = ()
    raw: tuple[float, float, float, float] = (33.0, 78.0, 0.0, 255.0)
    whole_numbers: bool = True
    mean: float = 0.0
    deviation: float = 1.0
    low: float = -0.5
    high: float = 3.0
    texture: float = 0.9
    target_low: float | None = None
    target_high: float | None = None
    labels: Labels | None = None
    held_labels: Labels | None = None
    across: Labels | None = None
    leaked: float = 0.0
    repeated: float = 0.0
    uniform_loss: float
    constant_loss: float

    @property
    def scale(self) -> float:
        """Root mean square of what the network gets."""
        return (self.mean**2 + self.deviation**2) ** 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerStart:
    """A layer of the fresh network, on one batch.

    Attributes
    ----------
    scale_in, scale : float
        Root mean square of its input and of its output, the latter without its bias.
    dead : float
        Share of its units that are above 0 for no image of the batch.
    saturated : float
        Share of a sigmoid's or tanh's output close to its ends; 0 for other layers.
    twins : float
        Share of its units whose weights and gradients are those of another unit of the layer.
    weight, gradient : float
        Norms over its parameters; 0 without.
    """

    scale_in: float
    scale: float
    dead: float = 0.0
    saturated: float = 0.0
    twins: float = 0.0
    weight: float = 0.0
    gradient: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StartFacts:
    """The fresh network on one batch.

    Attributes
    ----------
    loss : float
    slope : float or None
        How much the loss falls along its negative gradient, divided by how much it should: 1 for a right gradient,
        -1 for one with the wrong sign. None where it could not be measured.
    layers : dict of str to LayerStart
    """

    loss: float
    slope: float | None = 1.0
    layers: Mapping[str, LayerStart] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How good a network is on some images.

    Attributes
    ----------
    loss : float
    accuracy : float or None
    skill : float
    recalls : tuple of float or None
        By class; None where the images have none of the class.
    """

    loss: float
    accuracy: float | None = None
    skill: float
    recalls: tuple[float | None, ...] = ()


NOTHING = Score(loss=inf, skill=0.0)
"""The score of a network whose values went bad."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A training: the probe's, or that of a recorded run.

    Attributes
    ----------
    losses, norms, rates : tuple of float
        By step: the batch's loss before the update, the norm of the whole gradient, the learning rate.
    planned : int
        Steps that the config asks for.
    planned_rates : float
        The sum of the learning rates of those.
    watched : tuple of LayersWatched
    epochs : tuple of EpochDone
    bad : NonFinite or None
    train, held : Score or None
        At the end, in evaluation mode, on images to train on without augmentation, and on held-out ones.
    batch_mode : Score or None
        As `train`, but normalised by the batch's own statistics; None without batch norm.
    """

    losses: tuple[float, ...]
    norms: tuple[float, ...] = ()
    rates: tuple[float, ...] = ()
    planned: int = 0
    planned_rates: float = 0.0
    watched: tuple[LayersWatched, ...] = ()
    epochs: tuple[EpochDone, ...] = ()
    bad: NonFinite | None = None
    train: Score | None = None
    held: Score | None = None
    batch_mode: Score | None = None

    @property
    def steps(self) -> int:
        return len(self.losses)

    @property
    def skill(self) -> float:
        """How well it learned what it was shown, whatever became of the rest."""
        return max((score.skill for score in (self.train, self.batch_mode) if score), default=0.0)

    @property
    def window(self) -> int:
        """Steps over which a loss is averaged: a tenth of all."""
        return max(1, self.steps // 10)

    @property
    def first_loss(self) -> float:
        return self.losses[0] if self.losses else inf

    @property
    def early_loss(self) -> float:
        return median(self.losses[: self.window]) if self.losses else inf

    @property
    def last_loss(self) -> float:
        """Median over the last window; infinite where values went bad."""
        return inf if self.bad or not self.losses else median(self.losses[-self.window :])

    def series(self, layer: str, statistic: str) -> list[tuple[int, float]]:
        """Return a statistic of a layer by watched step."""
        found: list[tuple[int, float]] = []
        for watched in self.watched:
            value = getattr(watched.layers.get(layer), statistic, None)
            if value is not None:
                found.append((watched.step, value))
        return found

    @property
    def late(self) -> Sequence[LayersWatched]:
        """The watched steps of the second half; the first, at least."""
        return self.watched[len(self.watched) // 2 :]

    def late_median(self, layer: str, statistic: str) -> float | None:
        """Return the median of a layer's statistic over the second half; None where the layer has none."""
        values = [getattr(watched.layers.get(layer), statistic, None) for watched in self.late]
        known = [value for value in values if value is not None and isfinite(value)]
        return median(known) if known else None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchTest:
    """What became of an attempt to learn one batch by heart, without augmentation, dropout and decay.

    Attributes
    ----------
    images, steps : int
    first, last : float
        The loss before and after.
    skill : float
        At the end, on the batch itself.
    """

    images: int
    steps: int
    first: float
    last: float
    skill: float


@dataclass(frozen=True, kw_only=True)
class Case:
    """Everything a rule may look at.

    Attributes
    ----------
    config : Config
    graph : Graph
    data : DataFacts or None
        None where a run's data are no longer there.
    start : StartFacts or None
    record : Record
    batch : BatchTest or None
        None where it was not tried: a run is read without training, and who does well needs no such test.
    trials : dict of tuple of str to Record
        Trainings that differ from `record` by the overrides alone.
    is_run : bool
        Whether `record` is a run's, and not a probe's.
    """

    config: Config
    graph: Graph
    data: DataFacts | None = None
    start: StartFacts | None = None
    record: Record
    batch: BatchTest | None = None
    trials: Mapping[tuple[str, ...], Record] = field(default_factory=dict)
    is_run: bool = False

    # ------------------------------------------------------------------ how well it learns

    @cached_property
    def expected(self) -> float:
        """The skill that the data allow, as far as nearest neighbours can tell."""
        known = [part.agreement for part in (self.data.across, self.data.labels) if part] if self.data else []
        return max([*known, 0.0]) if known and max(known) > 0.2 else EXPECTED

    @cached_property
    def well(self) -> bool:
        """Whether the network learns what the data allow, on images it was not shown, too, where there are any."""
        return self._does_well(self.record)

    def _does_well(self, record: Record) -> bool:
        skill = min(record.skill, record.held.skill) if record.held else record.skill
        return record.bad is None and skill >= WELL * self.expected

    @cached_property
    def learns(self) -> bool:
        """Whether it learns what it is shown: half of what the data allow."""
        return self.record.bad is None and self.record.skill >= POOR * self.expected

    @property
    def solved(self) -> bool:
        """Whether a trial does well that changes one thing, and not the learning rate with it."""
        return any(
            self._does_well(trial) and (is_rate(key) or not any(is_rate([part]) for part in key))
            for key, trial in self.trials.items()
        )

    def helps(self, overrides: Sequence[str]) -> bool | None:
        """Whether a training with these overrides, or with these and a lower rate, learned clearly more.

        The latter counts where it also beats every rate alone. None where neither was tried.
        """
        asked = tuple(overrides)
        known = [key for key in self.trials if key[: len(asked)] == asked]
        return any(self.trials[key].skill >= self._bar(key, asked) for key in known) if known else None

    def _bar(self, key: tuple[str, ...], asked: tuple[str, ...]) -> float:
        """Return the skill from which a trial speaks for what was asked about."""
        rates = [self.trials[other].skill for other in self.trials if is_rate(other)] if key != asked else []
        return max([self.record.skill, *rates]) + HELPS

    def verdict(self, overrides: Sequence[str] = ()) -> Severity:
        """Return how grave a mistake is.

        An error where the network does not do well and mending it helps; also where it does not learn, and nothing
        that was tried helps.
        """
        if self.well:
            return "warning"
        if overrides and self.helps(overrides):
            return "error"
        explained = any(trial.skill >= self.record.skill + HELPS for trial in self.trials.values())
        return "warning" if self.learns or explained else "error"

    def symptom(self) -> Severity:
        """Return how grave a symptom is: an error as long as no trial has shown where it comes from."""
        return "warning" if self.well or self.learns or self.solved else "error"

    # ------------------------------------------------------------------ the network

    @cached_property
    def nodes(self) -> Mapping[str, Node]:
        return {node.name: node for node in self.graph.nodes}

    @cached_property
    def readers(self) -> Mapping[str, list[Node]]:
        """The nodes that read each output."""
        return {name: [node for node in self.graph.nodes if name in node.inputs] for name in self.graph.shapes}

    @cached_property
    def weighted(self) -> list[Node]:
        """The layers whose weights mix their inputs, in the order of computation."""
        return weighted(self.graph)

    def index(self, name: str) -> int:
        """Return a layer's place in the config's list."""
        return next(k for k, spec in enumerate(self.config.model.layers) if spec.name == name)

    def statistics(self, which: LayersWatched) -> Iterator[tuple[Node, LayerStatistics]]:
        """Yield the weighted layers with what was watched of them."""
        for node in self.weighted:
            if node.name in which.layers:
                yield node, which.layers[node.name]


def is_rate(overrides: Sequence[str]) -> bool:
    """Return whether overrides change the learning rate alone."""
    return all("learning_rate=" in override or override == "train.schedule=constant" for override in overrides)


def weighted(graph: Graph) -> list[Node]:
    """Return the layers with a matrix or a filter bank of weights: what counts for the depth of a network."""
    return [
        node
        for node, layer in graph.layers()
        if not isinstance(layer, BatchNorm | LayerNorm | GroupNorm)
        and any(len(shape) > 1 for shape in layer.param_shapes(graph.in_shape(node)).values())
    ]
