"""The evidence of one diagnosis, collected once; rules read it and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from cnnbp_cli.config.schema import Config
from cnnbp_cli.core.graph import Graph, Node
from cnnbp_cli.diagnosis.facts import DataFacts, OverfitTest, StartFacts, TrainingRecord
from cnnbp_cli.diagnosis.findings import Severity
from cnnbp_cli.train.events import LayersWatched
from cnnbp_cli.train.statistics import LayerStatistics

GOOD_SKILL, POOR_SKILL = 0.75, 0.5
"""A network does well from three quarters of the skill that the data allow, and poorly below a half of it.

The measure of what the data allow is a cheap one (nearest neighbours), and a probe is short: sound networks reach
80 % to 100 % of it within a probe, those with a fault 0 % to 60 %.
"""

DEFAULT_SKILL = 0.5
"""The skill to expect where no reference tells more: of images, or of data whose neighbours say nothing."""

CLEAR_GAIN = 0.1
"""A remedy helps when it adds this much skill: several times what two probes with different seeds differ by."""


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
        None where it was not tried: a run is read without training, and who does well needs no such test.
    trials : dict of tuple of str to TrainingRecord
        Trainings that differ from `record` by the overrides alone.
    is_run : bool
        Whether `record` is a run's, and not a probe's.
    """

    config: Config
    graph: Graph
    data: DataFacts | None = None
    start: StartFacts | None = None
    record: TrainingRecord
    overfit: OverfitTest | None = None
    trials: Mapping[tuple[str, ...], TrainingRecord] = field(default_factory=dict)
    is_run: bool = False

    # ------------------------------------------------------------------ how well it learns

    @cached_property
    def expected(self) -> float:
        """The skill that the data allow, as far as nearest neighbours can tell."""
        known = [part.agreement for part in (self.data.across, self.data.labels) if part] if self.data else []
        return max([*known, 0.0]) if known and max(known) > 0.2 else DEFAULT_SKILL

    @cached_property
    def well(self) -> bool:
        """Whether the network learns what the data allow, on images it was not shown, too, where there are any."""
        return self._does_well(self.record)

    def _does_well(self, record: TrainingRecord) -> bool:
        skill = min(record.skill, record.held.skill) if record.held else record.skill
        return record.bad is None and skill >= GOOD_SKILL * self.expected

    @cached_property
    def learns(self) -> bool:
        """Whether it learns what it is shown: half of what the data allow."""
        return self.record.bad is None and self.record.skill >= POOR_SKILL * self.expected

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
        return max([self.record.skill, *rates]) + CLEAR_GAIN

    def verdict(self, overrides: Sequence[str] = ()) -> Severity:
        """Return how severe a mistake is.

        An error where the network does not do well and fixing it helps; also where it does not learn, and nothing
        that was tried helps.
        """
        if self.well:
            return "warning"
        if overrides and self.helps(overrides):
            return "error"
        explained = any(trial.skill >= self.record.skill + CLEAR_GAIN for trial in self.trials.values())
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
        for node in graph.nodes
        if not node.layer.normalizes and any(len(shape) > 1 for shape in graph.param_shapes[node.name].values())
    ]
