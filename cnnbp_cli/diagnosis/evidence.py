"""The evidence of one diagnosis, collected once; rules read it and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod

from cnnbp_cli.config.schema import Config
from cnnbp_cli.core.graph import Graph, Node
from cnnbp_cli.diagnosis.facts import DataFacts, OverfitTest, StartFacts, TrainingRecord
from cnnbp_cli.diagnosis.findings import Severity
from cnnbp_cli.train.events import LayersWatched
from cnnbp_cli.train.statistics import LayerStatistics

GOOD_SKILL, POOR_SKILL = 0.75, 0.5
"""A network does well from three quarters of the skill that the data allow, and poorly below a half of it.

The measure of what the data allow is a cheap one (nearest neighbors), and a probe is short: sound networks reach
80% to 100% of it within a probe, those with a fault 0% to 60%.
"""

DEFAULT_SKILL = 0.5
"""The skill to expect where no reference tells more: of images, or of data whose neighbors say nothing."""

CLUELESS = 0.2
"""Skill of nearest neighbors below which it says nothing about what a network can reach."""

CLEAR_GAIN = 0.1
"""A remedy helps when it adds this much skill: several times what two probes with different seeds differ by."""

SMALL_GAIN, ERROR_LEFT = 0.04, 0.6
"""Where the network does well already: a remedy helps when it adds this much skill and leaves at most this share of
what was missing to a skill of 1."""

NEARLY_ALL = 0.95
"""Skill above which nothing is tried any more."""

FEW_STEPS = 20
"""Steps below which a run says nothing about where its loss goes."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything a rule may look at.

    Attributes
    ----------
    config : Config
    graph : Graph
    data : DataFacts or None
        None where a run's data are no longer there.
    start : StartFacts or None
    record : TrainingRecord
    overfit : OverfitTest or None
        None where it was not tried: a network that does well needs no such test.
    trials : dict of tuple of str to TrainingRecord
        Trainings that differ from `record` by the overrides alone.
    is_run : bool
        Whether `record` is a run's, and not a probe's.
    searching : bool
        Whether findings are wanted for the remedies to try, also those of which only a trial can tell.
    """

    config: Config
    graph: Graph
    data: DataFacts | None = None
    start: StartFacts | None = None
    record: TrainingRecord
    overfit: OverfitTest | None = None
    trials: Mapping[tuple[str, ...], TrainingRecord] = field(default_factory=dict)
    is_run: bool = False
    searching: bool = False

    # ------------------------------------------------------------------ how well it learns

    @cached_property
    def expected(self) -> float:
        """The skill that the data allow, as far as can be told."""
        return DEFAULT_SKILL if self.reference is None else self.reference

    @cached_property
    def reference(self) -> float | None:
        """The skill of nearest neighbors; None where they have next to none."""
        known = [part.agreement for part in (self.data.across, self.data.labels) if part] if self.data else []
        return max(known) if known and max(known) > CLUELESS else None

    @cached_property
    def well(self) -> bool:
        """Whether the network learns what the data allow, on images it was not shown, too, where there are any."""
        return self.does_well(self.record)

    def does_well(self, record: TrainingRecord) -> bool:
        return record.bad is None and record.net_skill >= GOOD_SKILL * self.expected

    @property
    def fits(self) -> bool:
        """Whether it does well on the training images, at least."""
        return self.record.bad is None and self.record.skill >= GOOD_SKILL * self.expected

    @property
    def mediocre(self) -> bool:
        """Whether it does well, but not so well that nothing could be gained, at the end of what the config plans."""
        covered = 2 * sum(self.record.rates) >= self.record.planned_rates
        return self.well and covered and self.record.net_skill < NEARLY_ALL

    @property
    def can_be_judged(self) -> bool:
        """Whether there are enough steps, or an end by infinity or NaN, to say that it does not do well."""
        return self.record.bad is not None or self.record.steps >= min(FEW_STEPS, max(1, self.record.planned))

    @cached_property
    def learns(self) -> bool:
        """Whether it learns what it is shown: half of what the data allow, or of numbers, to halve the loss."""
        record = self.record
        falls = self.learns_numbers and record.last_loss < POOR_SKILL * record.early_loss
        return record.bad is None and (record.skill >= POOR_SKILL * self.expected or falls)

    @property
    def learns_numbers(self) -> bool:
        """Whether the targets are no classes; then nothing tells how small the loss can become."""
        return self.data is not None and self.data.classes is None

    @property
    def solved(self) -> bool:
        """Whether a trial does well that changes one thing, and not the learning rate with it."""
        return any(is_rate(key) or not any(is_rate([part]) for part in key) for key in self._enough())

    @property
    def solved_together(self) -> bool:
        """Whether any trial does well, also one that changes the learning rate besides something else."""
        return bool(self._enough())

    def _enough(self) -> list[tuple[str, ...]]:
        """Return what was enough: to do well, or where the network did well already, to do clearly better."""
        return [key for key, trial in self.trials.items() if self.does_well(trial) and self.is_better(trial)]

    def is_better(self, trial: TrainingRecord, than: TrainingRecord | None = None) -> bool:
        """Return whether a training learned clearly more than another, than `record` by default."""
        record = than or self.record
        if not self.does_well(record):
            return trial.skill >= record.skill + CLEAR_GAIN
        missing, left = 1 - record.net_skill, 1 - trial.net_skill
        return left <= min(missing - SMALL_GAIN, ERROR_LEFT * missing)

    def helps(self, overrides: Sequence[str]) -> bool | None:
        """Whether a training with these overrides, alone or among others, learned clearly more.

        The latter counts where it also beats everything tried without them. None where neither was tried.
        """
        asked = set(overrides)
        known = [key for key in self.trials if asked <= set(key)]
        others = [trial for key, trial in self.trials.items() if not asked <= set(key)]
        return (
            any(
                self.is_better(self.trials[key])
                and (len(key) == len(asked) or all(self.is_better(self.trials[key], other) for other in others))
                for key in known
            )
            if known
            else None
        )

    def verdict(self, overrides: Sequence[str] = ()) -> Severity:
        """Return how severe a mistake is.

        An error where the network does not do well and fixing it helps; also where it does not learn, and nothing
        that was tried helps.
        """
        if self.well:
            return "warning"
        if overrides and self.helps(overrides):
            return "error"
        explained = any(map(self.is_better, self.trials.values()))
        return "warning" if self.learns or explained else "error"

    def symptom(self) -> Severity:
        """Return how severe a symptom is: an error as long as no trial has shown where it comes from."""
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

    @cached_property
    def parameter_count(self) -> int:
        return sum(prod(shape) for shapes in self.graph.param_shapes.values() for shape in shapes.values())

    def is_normalized(self, node: Node) -> bool:
        """Return whether whatever reads a layer's output takes its scale out again."""
        readers = self.readers[node.name]
        return bool(readers) and all(reader.layer.normalizes for reader in readers)

    @cached_property
    def tail(self) -> list[Node]:
        """The layers that end the network, the output first, up to one that does more than hand its input on."""
        found = [self.nodes[self.graph.output]]
        while self._hands_on(found[-1]) and found[-1].inputs[0] in self.nodes:
            found.append(self.nodes[found[-1].inputs[0]])
        return found

    def _hands_on(self, node: Node) -> bool:
        """Return whether a layer gives what it gets, in another shape at most, as identity, dropout and flatten do."""
        shapes = self.graph.shapes
        same_size = prod(shapes[node.name]) == prod(shapes[node.inputs[0]]) and len(node.inputs) == 1
        return (
            same_size and node.layer.is_linear and not node.layer.normalizes and not self.graph.param_shapes[node.owner]
        )

    @property
    def ends_with(self) -> Node:
        """The layer that decides what values the output can take."""
        return self.tail[-1]

    def index(self, name: str) -> int:
        """Return a layer's place in the config's list."""
        return next(k for k, spec in enumerate(self.config.model.layers) if spec.name == name)

    def statistics(self, which: LayersWatched) -> Iterator[tuple[Node, LayerStatistics]]:
        """Yield the weighted layers with what was watched of them."""
        for node in self.weighted:
            if node.name in which.layers:
                yield node, which.layers[node.name]


def is_rate(overrides: Iterable[str]) -> bool:
    """Return whether overrides change the learning rate alone."""
    return all("learning_rate=" in override or override == "train.schedule=constant" for override in overrides)


def weighted(graph: Graph) -> list[Node]:
    """Return the layers with a matrix or a filter bank of weights: what counts for the depth of a network."""
    return [
        node
        for node in graph.nodes
        if not node.layer.normalizes and any(len(shape) > 1 for shape in graph.param_shapes[node.owner].values())
    ]
