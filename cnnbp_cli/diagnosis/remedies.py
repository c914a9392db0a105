"""Remedies as overrides: what a person would type after `--set`."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import fields
from math import prod
from typing import Any

from cnnbp_cli.config.schema import LayerSpec
from cnnbp_cli.config.write import plain
from cnnbp_cli.core.graph import INPUT, Node
from cnnbp_cli.core.schedules import OneCycle
from cnnbp_cli.core.types import Operation, Shape, pair
from cnnbp_cli.diagnosis.evidence import Evidence
from cnnbp_cli.diagnosis.text import number


def as_remedy(overrides: Sequence[str]) -> str | None:
    """Write overrides as options of the command line; None where there are none."""
    return " ".join(f"--set {_quoted(override)}" for override in overrides) or None


def _quoted(override: str) -> str:
    return f'"{override}"' if any(character in override for character in " {}[]") else override


# ---------------------------------------------------------------------- learning rates

USEFUL = 100.0
"""No rate beyond this many times the usual one, or below its reciprocal, is worth a trial."""

DECADES = 4
"""Powers of ten that are tried in one direction: they find a rate that works, if there is one (Bengio 2012, 3.3.1)."""

LOW_SCHEDULE, FULL_STEPS = 0.25, 100
"""Mean rate over all planned steps divided by the highest, and how many steps at the highest rate the planned ones are
worth: below both, it is the schedule that holds the steps back. A cosine and a cycle leave a half."""


def with_rate(evidence: Evidence, rate: float) -> tuple[str, ...]:
    """Return the overrides that set the learning rate, and the peak of a schedule that has one of its own."""
    train = evidence.config.train
    key, schedule = train.main_schedule
    overrides: list[str] = []
    if not isinstance(schedule, OneCycle) or schedule is not train.schedule:
        overrides.append(f"train.optimizer.learning_rate={number(rate)}")
    if isinstance(schedule, OneCycle):
        overrides.append(f"{key}.max_learning_rate={number(rate)}")
    return tuple(overrides)


def base_rate(evidence: Evidence) -> float:
    """Return the learning rate that the config names: the highest one of its schedule."""
    _, schedule = evidence.config.train.main_schedule
    if isinstance(schedule, OneCycle):
        return schedule.max_learning_rate
    return evidence.config.train.optimizer.learning_rate


def lower_rates(evidence: Evidence) -> list[tuple[str, ...]]:
    """Return the overrides that lower the learning rate, decade by decade, from the highest useful one on."""
    rate = base_rate(evidence)
    first = min(rate / 10, USEFUL * evidence.config.train.optimizer.usual_rate)
    return [with_rate(evidence, first / 10**k) for k in range(DECADES)] if rate else []


def higher_rates(evidence: Evidence) -> list[tuple[str, ...]]:
    """Return the overrides that raise the learning rate, decade by decade; first those that lift its schedule."""
    rate, usual = base_rate(evidence), evidence.config.train.optimizer.usual_rate
    first = max(10 * rate, usual / USEFUL) if rate else usual
    lifted = [("train.schedule=constant",)] if is_held_back(evidence) else []
    return lifted + [with_rate(evidence, first * 10**k) for k in range(DECADES)]


def is_held_back(evidence: Evidence) -> bool:
    """Return whether the schedule leaves next to nothing of the learning rate over the planned steps."""
    record = evidence.record
    return record.planned_rates < base_rate(evidence) * min(LOW_SCHEDULE * record.planned, FULL_STEPS)


def better_rate(evidence: Evidence) -> tuple[str, ...]:
    """Return the rate with which a trial learned most, if clearly more than without: the one rate that is advised.

    A higher rate counts only where its trial went further than all steps that the config plans: otherwise more of
    those steps may bring the same.
    """
    record = evidence.record
    due = [o for o in higher_rates(evidence) if o in evidence.trials]
    due = [o for o in due if sum(evidence.trials[o].rates) > record.planned_rates]
    tried = [o for o in (*lower_rates(evidence), *due) if o in evidence.trials]
    best = max(tried, key=lambda overrides: evidence.trials[overrides].net_skill, default=())
    return best if best and evidence.is_better(evidence.trials[best]) else ()


def lower_rate(evidence: Evidence) -> tuple[str, ...]:
    """Return the overrides of the lower rate to advise, or to try first; nothing where trials speak against it."""
    return _rate_among(evidence, lower_rates(evidence))


def higher_rate(evidence: Evidence) -> tuple[str, ...]:
    """Return the overrides of the higher rate to advise, or to try first; nothing where trials speak against it."""
    return _rate_among(evidence, higher_rates(evidence))


def _rate_among(evidence: Evidence, rates: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    if evidence.trials:
        best = better_rate(evidence)
        return best if best in rates else ()
    return rates[0] if rates else ()


def rate_of(evidence: Evidence) -> float:
    """Return the largest learning rate of the training; that of the config where none was recorded."""
    return max(evidence.record.rates, default=evidence.config.train.optimizer.learning_rate)


# ---------------------------------------------------------------------- layers


def with_layers(evidence: Evidence, layers: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Return the overrides that put another layer, or another value of one, in the place of some.

    Parameters
    ----------
    layers : iterable of (name, ending)
        The ending follows the layer's key: ``=relu`` puts another layer there, ``.rate=0.2`` changes a value, where
        layers share it at the one that has it. A layer that others name keeps its name.
    """
    overrides: list[str] = []
    for name, ending in layers:
        if ending.startswith("=") and _is_named(evidence, name):
            ending = f"={{type: {ending[1:]}, name: {name}}}"
        # By number: a bare name counts layers of its type, and replacing one renames those behind it.
        key = _owner(evidence, name) if not ending.startswith("=") else str(evidence.index(name))
        overrides.append(f"model.layers.{key}{ending}")
    return tuple(dict.fromkeys(overrides))


def width_of(node: Node) -> tuple[str, int] | None:
    """Return the field that tells how wide a layer is, and its value; None for other layers."""
    return next(
        ((field, getattr(node.layer, field)) for field in ("units", "filters") if hasattr(node.layer, field)), None
    )


UNSEEN = 0.5
"""Share of the pixels that no output depends on, from which on strides are to blame: sound networks have none, or the
last rows and columns."""


def skipping(evidence: Evidence) -> list[tuple[Node, int]]:
    """Return the layers whose stride jumps over values that their kernel does not reach, and the largest that does not.

    Nothing where the network sees most pixels all the same.
    """
    if evidence.start is None or evidence.start.unseen <= UNSEEN:
        return []
    found: list[tuple[Node, int]] = []
    for node in evidence.graph.nodes:
        stride = getattr(node.layer, "stride", None)
        size = getattr(node.layer, "kernel_size", None) or getattr(node.layer, "pool_size", None)
        if not stride or not size or prod(evidence.graph.shapes[node.name][1:]) >= prod(_spatial(evidence, node)):
            continue
        if any(step > side for step, side in zip(pair(stride), pair(size), strict=True)):
            found.append((node, min(pair(size))))
    return found


def _spatial(evidence: Evidence, node: Node) -> Shape:
    return evidence.graph.shapes[node.inputs[0]][1:]


def seeing_more(evidence: Evidence) -> tuple[str, ...]:
    """Return the overrides that let layers read what their strides jump over; nothing where they read most of it."""
    return with_layers(evidence, [(node.name, f".stride={stride}") for node, stride in skipping(evidence)])


def with_inserted(evidence: Evidence, behind: Collection[str], word: str) -> tuple[str, ...]:
    """Return the override that writes all layers anew, with a layer of one word behind some.

    Nothing where a layer is read or shared by name: a new one of its type would rename it.
    """
    specs = evidence.config.model.layers
    if any(_is_named(evidence, spec.name) for spec in specs):
        return ()
    words = [part for spec in specs for part in (_written(evidence, spec), word)[: 1 + (spec.name in behind)]]
    return (f"model.layers=[{', '.join(words)}]",)


def _written(evidence: Evidence, spec: LayerSpec) -> str:
    """Write a layer as a person does: in one word, or with the fields that differ from what goes without saying."""
    layer, common = spec.layer, plain(evidence.config.model.init)
    given = {f.name: getattr(layer, f.name) for f in fields(layer) if f.init and f.name != "type"}  # type: ignore[arg-type]
    defaults = {f.name: f.default for f in fields(layer)}  # type: ignore[arg-type]
    told = {
        name: plain(value)
        for name, value in given.items()
        if value != defaults[name] and (name != "init" or plain(value) != common)
    }
    if not spec.name.removeprefix(f"{layer.type}_").isdigit():
        told = {"name": spec.name, **told}
    if not told:
        return layer.type
    return "{" + ", ".join([f"type: {layer.type}", *(f"{name}: {_yaml(value)}" for name, value in told.items())]) + "}"


def _yaml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_yaml(part)}" for key, part in value.items()) + "}"
    return value if isinstance(value, str) else json.dumps(value)


def _is_named(evidence: Evidence, name: str) -> bool:
    """Return whether another layer shares it, or one that is not right behind it reads it by name."""
    owners = [spec.shares or spec.name for spec in evidence.config.model.layers]
    if owners.count(_owner(evidence, name)) > 1:
        return True
    names = [INPUT, *(spec.name for spec in evidence.config.model.layers)]
    at = names.index(name)
    return any(names.index(reader.name) != at + 1 or len(reader.inputs) > 1 for reader in evidence.readers[name])


def _owner(evidence: Evidence, name: str) -> str:
    """Return the layer of the config that says what a layer is: it, or the one that it shares.

    Nodes of the graph do not know that of layers without parameters.
    """
    return next(spec.shares or name for spec in evidence.config.model.layers if spec.name == name)


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
    """Return the initializer that keeps the signal's size through a layer and the activation behind it.

    A head that reads large values starts small instead, so that the network begins without an opinion.
    """
    if node is evidence.weighted[-1] and evidence.config.model.head != "none" and evidence.start is not None:
        start = evidence.start.layers.get(node.name)
        if start is not None and start.scale_in > LARGE_FEATURES:
            return SMALL_START
    activation = activation_behind(evidence, node)
    return "glorot_normal" if activation is None or activation.saturates else "he_normal"


SMALL_START, LARGE_FEATURES = "{type: normal, std: 0.01}", 2.0
"""How a head starts small, and the root mean square of what it reads from which on it has to: kept at their size, such
values make a first loss that is a multiple of a guess's."""


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
