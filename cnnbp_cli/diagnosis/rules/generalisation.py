"""Rules about learning against memorizing: too much regularization, and too little."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from cnnbp_cli.core.graph import INPUT, Node
from cnnbp_cli.core.optim import AdamW
from cnnbp_cli.diagnosis.evidence import CLEAR_GAIN, SMALL_GAIN, Evidence
from cnnbp_cli.diagnosis.findings import Finding
from cnnbp_cli.diagnosis.registry import rule
from cnnbp_cli.diagnosis.remedies import as_remedy, width_of, with_layers
from cnnbp_cli.diagnosis.text import percent

STRONG_DECAY, STRONG_DROPOUT, STRONG_SMOOTHING = 0.01, 0.7, 0.5
"""L2 decay, dropout rate, label smoothing. In use are 1e-5 to 1e-3, up to 0.5, and 0.1 (Goodfellow et al. 2016,
section 7; Srivastava et al. 2014; Szegedy et al. 2016)."""

KEPT = 0.1
"""Share of the signal that all dropout layers on a path let through together. Two of 0.5 keep a quarter, as in AlexNet
and VGG; three keep an eighth."""

DECAY_SHARE = 0.2
"""Share of a weight that decoupled decay takes away over the probe, where nothing pushes back."""


@rule(
    definition="Weight decay, dropout or label smoothing are so strong that little can be learned.",
    formula=f"weight decay above {STRONG_DECAY:g} (decoupled: that takes more than {percent(DECAY_SHARE)} of a weight "
    f"during the probe), dropout above {STRONG_DROPOUT:g}, dropout layers that together keep less than {percent(KEPT)} "
    f"on the way to the output, or label smoothing above {STRONG_SMOOTHING:g}; an error where a training with usual "
    f"strengths has {CLEAR_GAIN:g} more skill",
    source="Goodfellow, Bengio and Courville 2016, Deep Learning, sections 7.1, 7.5 and 7.12",
    advice="Begin without regularization, until the training images are learned; then add as much as the held-out "
    "images need.",
)
def over_regularised(evidence: Evidence) -> Iterator[Finding]:
    parts, overrides, moderate = _strong(evidence)
    if not parts or (moderate and evidence.well and not evidence.helps(overrides)):
        return
    trial = evidence.trials.get(overrides)
    told = f"; skill {percent(evidence.record.skill)}, with usual strengths {percent(trial.skill)}" if trial else ""
    yield Finding(
        severity=evidence.verdict(overrides),
        evidence=f"{', '.join(parts)}{told}",
        threshold=f"weight decay {STRONG_DECAY:g}, dropout {STRONG_DROPOUT:g} or {percent(KEPT)} kept in all, label "
        f"smoothing {STRONG_SMOOTHING:g}",
        why="Regularization this strong outweighs what the images teach.",
        remedy=as_remedy(overrides),
    )


def _strong(evidence: Evidence) -> tuple[list[str], tuple[str, ...], bool]:
    """Return what is strong, in words, the overrides that make it usual, and whether each part alone is usual."""
    train = evidence.config.train
    decay = train.optimizer.weight_decay
    parts: list[str] = []
    overrides: list[str] = []
    if isinstance(train.optimizer, AdamW):
        strong = decay * sum(evidence.record.rates) > DECAY_SHARE and decay > 0.1
    else:
        strong = decay > STRONG_DECAY
    if strong:
        parts.append(f"weight decay {decay:g}")
        overrides.append("train.optimizer.weight_decay=0.0001")
    rates = {node.name: rate for node in evidence.graph.nodes if (rate := _dropout_rate(node))}
    moderate = False
    if dropped := [name for name, rate in rates.items() if rate > STRONG_DROPOUT]:
        parts.append(f"dropout {max(rates.values()):g} in {', '.join(dropped[:3])}")
        overrides += with_layers(evidence, [(name, ".rate=0.2") for name in dropped])
    elif (kept := _kept(evidence)) < KEPT:
        moderate = not parts and train.label_smoothing <= STRONG_SMOOTHING
        parts.append(f"{len(rates)} dropout layers that together keep {percent(kept)} of the signal")
        overrides += with_layers(evidence, [(name, ".rate=0.1") for name in rates])
    if train.label_smoothing > STRONG_SMOOTHING:
        parts.append(f"label smoothing {train.label_smoothing:g}")
        overrides.append("train.label_smoothing=0.1")
    return parts, tuple(overrides), moderate


def _dropout_rate(node: Node) -> float:
    """Return the `rate` of a layer that is random in training, else 0."""
    is_random = node.layer.without_noise() != node.layer
    return float(getattr(node.layer, "rate", 0)) if is_random else 0.0


def _kept(evidence: Evidence) -> float:
    """Return the share that dropout lets through on the way that has least of it, as around a residual branch."""
    kept = {INPUT: 1.0}
    for node in evidence.graph.nodes:
        kept[node.name] = (1 - _dropout_rate(node)) * max(kept[name] for name in node.inputs)
    return kept[evidence.graph.output]


ERROR_GAP, GAP = 0.2, 0.1
"""Skill on training images minus that on held-out ones. Sound networks on a few thousand digits have 0 to 0.06."""

GENERALIZES = 0.9
"""Skill on held-out images, as a share of that of nearest neighbors: beyond, more is not to be had from the images."""

LEARNED = 0.6
"""Skill on training images from which a lower one on others is a matter of memorizing."""


@rule(
    definition="The network does well on the training images, and clearly worse on others.",
    formula=f"skill on training images minus that on held-out images, above {GAP:g} (an error above {ERROR_GAP:g}), "
    "where the training images are learned; up to the larger gap, where nearest neighbors do better on held-out ones",
    source="Goodfellow, Bengio and Courville 2016, Deep Learning, section 5.2; Zhang et al. 2017, arXiv:1611.03530",
    advice="More images, augmentation, dropout or weight decay, fewer epochs, a smaller network.",
)
def overfitting(evidence: Evidence) -> Iterator[Finding]:
    train, held, data = evidence.record.train, evidence.record.held, evidence.data
    if train is None or held is None or train.skill < LEARNED or train.skill - held.skill <= GAP:
        return
    large = train.skill - held.skill > ERROR_GAP
    if not large and evidence.reference and held.skill >= GENERALIZES * evidence.reference:
        return
    figures = (
        f"accuracy {percent(train.accuracy)} on training images, {percent(held.accuracy)} on held-out ones"
        if train.accuracy is not None and held.accuracy is not None
        else f"loss {train.loss:.3g} on training images, {held.loss:.3g} on held-out ones"
    )
    per_image = ""
    if data and data.count:
        per_image = f"; {evidence.parameter_count / data.count:,.0f} parameters per training image ({data.count:,})"
    yield Finding(
        severity="error" if large else "warning",
        step=evidence.record.steps,
        evidence=f"{figures}{per_image}",
        threshold=f"a difference in skill above {GAP:g}",
        why="It has memorized the images instead of learning what they have in common.",
        remedy=_more_images(evidence),
    )


def _more_images(evidence: Evidence) -> str:
    limit = evidence.config.data.limit
    if limit and limit.train:
        return "--set data.limit.train=null"
    if evidence.config.data.source == "synthetic":
        return "--set data.train=4000"
    if evidence.config.data.augment is None:
        return '--set "data.augment={shift: 2, rotate: 10, scale: 0.1}"'
    return "Add dropout before the last layer, more weight decay, or more images; or stop early."


NARROW = 0.5
"""Values that a layer hands on for each image, divided by the number of classes: below, they cannot be told apart."""

WIDER = 4
"""How many times as wide the network of the trial is."""

SMALL_WIDTH = 64
"""Units or filters from which on width is no reason to learn nothing."""


@rule(
    definition="The network is too small for its task.",
    formula=f"a training with {WIDER} times as many units and filters in all layers but the last has clearly more "
    f"skill; tried where the widest of them has at most {SMALL_WIDTH}, and where the network does well only if a layer "
    "hands on fewer values than there are outputs",
    source="Goodfellow, Bengio and Courville 2016, Deep Learning, section 5.2; Karpathy 2019, A recipe for training "
    "neural networks (overfit first)",
    advice="Make the network larger until it learns the training images; then regularize.",
)
def capacity(evidence: Evidence) -> Iterator[Finding]:
    overrides = wider_network(evidence)
    if not overrides or not (evidence.searching or evidence.helps(overrides)):
        return
    narrow, trial = narrowest(evidence), evidence.trials.get(overrides)
    values = prod(evidence.graph.shapes[narrow.name])
    if evidence.well and values >= prod(evidence.graph.shapes[evidence.graph.output]):
        return
    others = [one.net_skill for key, one in evidence.trials.items() if not any(map(_is_width, key))]
    if trial and trial.net_skill < max(others, default=0.0) + SMALL_GAIN:  # what else brings it is no matter of size
        return
    yield Finding(
        severity="info" if trial is None else evidence.verdict(overrides),
        layer=narrow.name,
        evidence=f"{narrow.name} hands on {values} values per image; the network has "
        f"{evidence.parameter_count:,} parameters"
        + (f"; skill {percent(evidence.record.skill)}, {WIDER} times as wide {percent(trial.skill)}" if trial else ""),
        threshold=f"{WIDER} times the width learns clearly more",
        why="A network that is too small cannot represent what tells the images apart, however long it trains.",
        remedy=as_remedy(overrides),
    )


def narrowest(evidence: Evidence) -> Node:
    """Return the layer before the last that hands on the fewest values for each image."""
    inner = [node for node in evidence.graph.nodes if node not in evidence.tail] or list(evidence.graph.nodes)
    return min(inner, key=lambda node: prod(evidence.graph.shapes[node.name]))


def _is_width(override: str) -> bool:
    return ".units=" in override or ".filters=" in override


def wider_network(evidence: Evidence) -> tuple[str, ...]:
    """Return the overrides that widen all layers but the last; nothing where they are wide, or without classes."""
    if evidence.data is None or not evidence.data.classes:
        return ()
    last = evidence.weighted[-1] if evidence.weighted else None
    widths = [(node, width) for node in evidence.weighted if node is not last and (width := width_of(node))]
    if not widths or max(value for _, (_, value) in widths) > SMALL_WIDTH:
        return ()
    return with_layers(evidence, [(node.name, f".{field}={WIDER * value}") for node, (field, value) in widths])
