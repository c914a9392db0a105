"""One number per layer and step: how the gradient, or what follows from it, flows through the network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cnnbp_cli.analysis.history import read_history
from cnnbp_cli.build import build_graph
from cnnbp_cli.config.load import load_config
from cnnbp_cli.core.graph import INPUT, Graph
from cnnbp_cli.data.dataset import Dataset
from cnnbp_cli.errors import UserError
from cnnbp_cli.model import Model
from cnnbp_cli.train.events import LayersWatched, NonFinite, StepDone
from cnnbp_cli.train.fit import fit
from cnnbp_cli.train.run_directory import RunDirectory, RunError
from cnnbp_cli.train.statistics import DEFINITIONS, Statistic


class NoSuchStatisticError(UserError):
    """No layer of the network has the statistic."""


@dataclass(frozen=True, slots=True)
class NormRow:
    """One statistic of every layer that has it, at one step.

    Attributes
    ----------
    step : int
        Counted from 1.
    loss : float
    total : float
        The L2 norm of the gradient of all parameters together.
    of : Statistic
    norms : dict of str to float
        By layer, in network order.
    """

    step: int
    loss: float
    total: float
    of: Statistic
    norms: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        return {
            **{"step": self.step, "loss": self.loss, "total": self.total},
            **{"of": self.of, "definition": DEFINITIONS[self.of], "norms": self.norms},
        }


def norm_row(done: StepDone, watched: LayersWatched, of: Statistic) -> NormRow:
    """Return a statistic of a step.

    Raises
    ------
    NoSuchStatisticError
        When no layer has it.
    """
    values = {name: getattr(statistics, of) for name, statistics in watched.layers.items()}
    norms = {name: value for name, value in values.items() if value is not None}
    if not norms:
        raise NoSuchStatisticError(f"no layer has this statistic; {of}: {DEFINITIONS[of]}")
    return NormRow(done.step, done.loss, done.grad_norm, of, norms)


def blocks_of(graph: Graph) -> list[list[str]]:
    """Return the layers in blocks, in network order: what lies between two places where the network does not branch.

    A block begins with a layer that has a weight matrix or kernels, where everything before is reached through one
    output only; so a residual block is one, and of a plain network each convolution with what follows it.
    """
    last_reader = {name: k for k, node in enumerate(graph.nodes) for name in node.inputs}
    blocks: list[list[str]] = []
    for k, node in enumerate(graph.nodes):
        open_outputs = [before.name for before in graph.nodes[:k] if last_reader.get(before.name, -1) >= k]
        has_weights = any(len(shape) > 1 for shape in graph.trainable[node.name].values())
        if not blocks or (has_weights and len(open_outputs) == 1 and last_reader.get(INPUT, -1) < k):
            blocks.append([])
        blocks[-1].append(node.name)
    return blocks


def blocks_of_run(run: Path) -> list[list[str]]:
    """Return the blocks of a run's network; none where its config cannot be read, as without its custom layers."""
    try:
        return blocks_of(build_graph(load_config(RunDirectory(run).config)))
    except UserError:
        return []


def watch_norms(
    model: Model, data: Dataset, *, steps: int = 10, every: int = 1, of: Statistic = "gradient"
) -> Iterator[NormRow]:
    """Train `model` for some steps and yield a row for every `every`-th, as long as all values are finite."""
    train = model.config.train
    config = replace(model.config, train=replace(train, max_steps=steps, epochs=max(train.epochs, steps)))
    done: StepDone | None = None
    for event in fit(model, data, config=config, watch_every=every):
        if isinstance(event, NonFinite):
            return
        if isinstance(event, StepDone):
            done = event
        elif isinstance(event, LayersWatched) and done and event.step % every == 0:
            yield norm_row(done, event, of)


def recorded_norms(run: Path, *, every: int = 1, of: Statistic = "gradient") -> Iterator[NormRow]:
    """Yield a row for every step that a run watched and whose number is a multiple of `every`.

    Raises
    ------
    RunError
        When there is none.
    NoSuchStatisticError
        When no layer has the statistic.
    """
    history = read_history(run)
    if not history.watched:
        raise RunError(f"{run}: watched no step; train with --watch-every 1 or more")
    chosen = [watched for watched in history.watched if watched.step % every == 0]
    if not chosen:
        first = ", ".join(str(watched.step) for watched in history.watched[:4])
        more = ", …" if len(history.watched) > 4 else ""
        raise RunError(f"{run}: watched no multiple of {every}, but steps {first}{more}")
    done = {step.step: step for step in history.steps}
    layers: list[str] = []
    for watched in chosen:
        if watched.step in done:
            row = norm_row(done[watched.step], watched, of)
            layers = layers or list(row.norms)
            if list(row.norms) != layers:
                raise RunError(f"{run}: the events are damaged: step {row.step} has other layers than the steps before")
            yield row
