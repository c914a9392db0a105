"""Runs side by side: what differs in their configs, how far they came, and where the gradient flows differently."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite, isnan, log10
from pathlib import Path
from statistics import median
from typing import Any

from cnnbp_cli.analysis.history import History, read_history
from cnnbp_cli.analysis.summary import Summary, summary
from cnnbp_cli.config.differences import Difference, differences
from cnnbp_cli.config.load import load_config
from cnnbp_cli.train.events import RUN_FIGURES, ConfigChanged, to_dict
from cnnbp_cli.train.run_directory import RunDirectory
from cnnbp_cli.train.statistics import DEFINITIONS

FLOW = f"median over the watched steps that all runs reached of the {DEFINITIONS['gradient']}"
"""What `LayerFlow` compares."""

SAME = 0.005  # powers of ten, about 1%: what rounding may make of the same training


@dataclass(frozen=True, slots=True)
class ComparedRun:
    """How far a run came.

    Attributes
    ----------
    run : str
    finished : bool
    steps, epochs : int
    figures : dict of str to float or None
        By the names in `RUN_FIGURES`: the last epoch's, and the test's.
    seconds : float
        Spent in steps.
    diverged : bool
        See `RunFinished`.
    changes : list of ConfigChanged
        Where it went on with another config, so that the config tells only a part of it.
    """

    run: str
    finished: bool
    steps: int
    epochs: int
    figures: dict[str, float | None]
    seconds: float
    diverged: bool
    changes: list[ConfigChanged]


@dataclass(frozen=True, slots=True)
class LayerFlow:
    """The gradient norm of one layer in every run; `FLOW` defines it.

    Attributes
    ----------
    layer : str
    norms : list of float or None
        None where the run has no such layer.
    factors : list of float or None
        Each norm divided by the first run's; None where one of them is missing, or both are 0.
    """

    layer: str
    norms: list[float | None]
    factors: list[float | None]

    @property
    def change(self) -> float:
        """The largest of the factors in powers of ten, whatever its sign."""
        return max(map(magnitude, self.factors))


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs or more, in the order given; the first is what the others are measured against.

    Attributes
    ----------
    outcomes : list of ComparedRun
    differences : list of Difference
    flows : list of LayerFlow
        In network order.
    losses : list of dict of int to float
        The loss of each run's training batches, by step.
    networks : list of Summary
    """

    outcomes: list[ComparedRun]
    differences: list[Difference]
    flows: list[LayerFlow]
    losses: list[dict[int, float]]
    networks: list[Summary]

    @property
    def same_layers(self) -> bool:
        """Whether all networks have the same layers by name and type, so that their keys can be compared one by one."""
        layers = [[(layer.name, layer.type) for layer in network.layers] for network in self.networks]
        return all(own == layers[0] for own in layers)

    @property
    def most_changed(self) -> LayerFlow | None:
        """The layer whose gradient norm differs by the largest factor from the first run's; None if none does."""
        flow = max(self.flows, key=lambda flow: flow.change, default=None)
        return flow if flow and flow.change > SAME else None

    def to_dict(self) -> dict[str, Any]:
        changed = self.most_changed
        return {
            "runs": [
                {"run": outcome.run, "finished": outcome.finished, "steps": outcome.steps, "epochs": outcome.epochs}
                | outcome.figures
                | {
                    "seconds": outcome.seconds,
                    "diverged": outcome.diverged,
                    "changes": [*map(to_dict, outcome.changes)],
                }
                for outcome in self.outcomes
            ],
            "differences": [{"key": difference.key, "values": difference.values} for difference in self.differences],
            "definition": FLOW,
            "gradient_flow": [
                {"layer": flow.layer, "norms": flow.norms, "factors": flow.factors} for flow in self.flows
            ],
            "most_changed": changed.layer if changed else None,
            "losses": [{"step": list(losses), "loss": list(losses.values())} for losses in self.losses],
        }


def magnitude(factor: float | None) -> float:
    """Return a factor in powers of ten, without its sign; 0 where there is none."""
    if factor is None:
        return 0.0
    return abs(log10(factor)) if 0 < factor < inf else inf


def compare(runs: Sequence[Path]) -> Comparison:
    """Compare runs.

    Raises
    ------
    RunError, ConfigError
        When one of them cannot be read.
    """
    histories = [read_history(run) for run in runs]
    configs = [load_config(RunDirectory(run).config) for run in runs]
    return Comparison(
        [_outcome(history) for history in histories],
        differences(configs),
        _flows(histories),
        [{step.step: step.loss for step in history.steps} for history in histories],
        [summary(config) for config in configs],
    )


def _outcome(history: History) -> ComparedRun:
    last = history.epochs[-1] if history.epochs else None
    figures = {name: getattr(history.finished or last, name, None) for name in RUN_FIGURES}
    return ComparedRun(
        str(history.run),
        history.finished is not None,
        history.steps[-1].step,
        last.epoch if last else 0,
        figures,
        sum(step.seconds for step in history.steps),
        history.finished is not None and history.finished.diverged,
        history.changes,
    )


def _flows(histories: Sequence[History]) -> list[LayerFlow]:
    end = min(history.watched[-1].step if history.watched else 0 for history in histories)
    norms = [_norms(history, end) for history in histories]
    layers = dict.fromkeys(layer for own in norms for layer in own)
    flows: list[LayerFlow] = []
    for layer in layers:
        values = [own.get(layer) for own in norms]
        flows.append(LayerFlow(layer, values, [_factor(value, values[0]) for value in values]))
    return flows


def _norms(history: History, end: int) -> dict[str, float]:
    """Return the median gradient norm of every layer over the watched steps up to `end`."""
    series: dict[str, list[float]] = {}
    for watched in history.watched:
        for layer, statistics in watched.layers.items():
            value = statistics.gradient
            if watched.step <= end and value is not None and not isnan(value):
                series.setdefault(layer, []).append(value)
    return {layer: median(values) for layer, values in series.items()}


def _factor(value: float | None, first: float | None) -> float | None:
    if value is None or first is None or not isfinite(value) or not isfinite(first) or value == first == 0:
        return None
    return value / first if first else inf
