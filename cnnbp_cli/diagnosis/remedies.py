"""Remedies as overrides: what a person would type after `--set`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from cnnbp_cli.config.write import plain
from cnnbp_cli.core.graph import INPUT, Node
from cnnbp_cli.core.schedules import OneCycle
from cnnbp_cli.core.types import Operation
from cnnbp_cli.diagnosis.evidence import CLEAR_GAIN, Evidence


def as_remedy(overrides: Sequence[str]) -> str | None:
    """Write overrides as options of the command line; None where there are none."""
    return " ".join(f"--set {_quoted(override)}" for override in overrides) or None


def _quoted(override: str) -> str:
    return f'"{override}"' if any(character in override for character in " {}[]") else override


def number(value: float) -> str:
    """Write a number as YAML reads it back, with three digits."""
    return f"{value:.3g}"


# ---------------------------------------------------------------------- learning rates


def with_rate(evidence: Evidence, factor: float) -> tuple[str, ...]:
    """Return the overrides that multiply the learning rate; where it is 0, those for a usual one."""
    train = evidence.config.train
    key, schedule = train.main_schedule
    rate = train.optimizer.learning_rate
    overrides: list[str] = []
    if not isinstance(schedule, OneCycle) or schedule is not train.schedule:
        usual = train.optimizer.usual_rate
        overrides.append(f"train.optimizer.learning_rate={number(rate * factor if rate else usual * factor / 10)}")
    if isinstance(schedule, OneCycle):
        peak = number(schedule.max_learning_rate * factor)
        overrides.append(f"{key}.max_learning_rate={peak}")
    return tuple(overrides)


LOWER_RATES, HIGHER_RATES = (0.1, 0.01, 1e-3, 1e-4), (10.0, 100.0, 1e3, 1e4)
"""Factors to try, in this order: powers of ten find a rate that works, if there is one (Bengio 2012, section 3.3.1)."""

LOW_SCHEDULE = 0.1
"""Mean rate over all planned steps divided by the optimizer's: below, it is the schedule that holds the steps back."""


def lower_rates(evidence: Evidence) -> list[tuple[str, ...]]:
    """Return the overrides that lower the learning rate, by more and more."""
    return [with_rate(evidence, factor) for factor in LOWER_RATES] if rate_of(evidence) else []


def higher_rates(evidence: Evidence) -> list[tuple[str, ...]]:
    """Return the overrides that raise the learning rate, by more and more; first those that free it of its schedule."""
    record, base = evidence.record, evidence.config.train.optimizer.learning_rate
    held_back = record.planned and record.planned_rates < LOW_SCHEDULE * base * record.planned
    return [("train.schedule=constant",)] * bool(held_back) + [with_rate(evidence, factor) for factor in HIGHER_RATES]


def best_rate(evidence: Evidence, candidates: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """Return those overrides with which a trial learned most, if it learned clearly more than without; else nothing."""
    tried = [overrides for overrides in candidates if overrides in evidence.trials]
    best = max(tried, key=lambda overrides: evidence.trials[overrides].skill, default=())
    return best if best and evidence.trials[best].skill >= evidence.record.skill + CLEAR_GAIN else ()


def lower_rate(evidence: Evidence) -> tuple[str, ...]:
    """Return the overrides of a lower learning rate: the best that was tried, or a tenth of the present one."""
    return best_rate(evidence, lower_rates(evidence)) or with_rate(evidence, 0.1)


def rate_of(evidence: Evidence) -> float:
    """Return the largest learning rate of the training; that of the config where none was recorded."""
    return max(evidence.record.rates, default=evidence.config.train.optimizer.learning_rate)


# ---------------------------------------------------------------------- layers


def with_layers(evidence: Evidence, layers: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Return the overrides that put another layer, or another value of one, in the place of some.

    Parameters
    ----------
    layers : iterable of (name, ending)
        The ending follows the layer's key: ``=relu`` puts another layer there, ``.rate=0.2`` changes a value.
        A layer that others name keeps its name.
    """
    overrides: list[str] = []
    for name, ending in layers:
        if ending.startswith("=") and _is_named(evidence, name):
            ending = f"={{type: {ending[1:]}, name: {name}}}"
        # By number: a bare name counts layers of its type, and replacing one renames those behind it.
        key = name if not ending.startswith("=") else str(evidence.index(name))
        overrides.append(f"model.layers.{key}{ending}")
    return tuple(overrides)


def _is_named(evidence: Evidence, name: str) -> bool:
    """Return whether a layer that is not right behind it reads it by name."""
    names = [INPUT, *(spec.name for spec in evidence.config.model.layers)]
    at = names.index(name)
    return any(names.index(reader.name) != at + 1 or len(reader.inputs) > 1 for reader in evidence.readers[name])


def activation_behind(evidence: Evidence, node: Node) -> Operation[Any] | None:
    """Return the first activation that follows a layer, through whatever does not change signs; None if none does."""
    seen = node
    for _ in evidence.graph.nodes:
        readers = evidence.readers.get(seen.name, [])
        if not readers:
            return None
        seen = readers[0]
        if seen.layer.is_activation:
            return seen.layer
        if seen in evidence.weighted:
            return None
    return None


def with_sound_init(evidence: Evidence, nodes: Sequence[Node]) -> tuple[str, ...]:
    """Return the overrides that let some layers start as suits the activation behind them."""
    common = evidence.config.model.init
    followers = [node for node in evidence.weighted if plain(getattr(node.layer, "init", None)) == plain(common)]
    if nodes and followers and all(node in followers for node in nodes):
        return (f"model.init={_commonest([suitable_init(evidence, node) for node in followers])}",)
    return with_layers(
        evidence,
        [(node.name, f".init={suitable_init(evidence, node)}") for node in nodes if hasattr(node.layer, "init")],
    )


def suitable_init(evidence: Evidence, node: Node) -> str:
    """Return the initialiser that keeps the signal's size through a layer and the activation behind it."""
    activation = activation_behind(evidence, node)
    return "glorot_normal" if activation is None or activation.saturates else "he_normal"


def sounder_init(evidence: Evidence) -> tuple[str, ...]:
    """Return the overrides that let every layer start as suits the activation behind it; nothing where all do."""

    return with_sound_init(evidence, [node for node in evidence.weighted if not is_sound(evidence, node)])


def is_sound(evidence: Evidence, node: Node) -> bool:
    """Return whether a layer's weights start at a size that suits its fan-in and the activation behind it."""
    kind = getattr(getattr(node.layer, "init", None), "type", "he_normal")
    bends = suitable_init(evidence, node) == "he_normal" and node is not evidence.weighted[-1]
    return kind in (("he_normal", "he_uniform") if bends else SOUND)


SOUND = ("he_normal", "he_uniform", "glorot_normal", "glorot_uniform", "lecun_normal", "orthogonal")
"""Initialisers that look at the fan; before tanh, sigmoid and the head the differences between them are small."""


def _commonest(words: Sequence[str]) -> str:
    return max(dict.fromkeys(words), key=list(words).count)
