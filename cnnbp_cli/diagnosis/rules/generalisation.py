"""Rules about what lies between learning and knowing: too much regularisation, and too little."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from cnnbp_cli.core.graph import Node
from cnnbp_cli.core.optim import AdamW
from cnnbp_cli.diagnosis.evidence import CLEAR_GAIN, Evidence
from cnnbp_cli.diagnosis.findings import Finding
from cnnbp_cli.diagnosis.registry import rule
from cnnbp_cli.diagnosis.remedies import as_remedy, with_layers

STRONG_DECAY, STRONG_DROPOUT, STRONG_SMOOTHING = 0.01, 0.7, 0.5
"""L2 decay, dropout rate, label smoothing. In use are 1e-5 to 1e-3, up to 0.5, and 0.1 (Goodfellow et al. 2016,
section 7; Srivastava et al. 2014; Szegedy et al. 2016)."""

DECAY_SHARE = 0.2
"""Share of a weight that decoupled decay takes away over the probe, where nothing pushes back."""


@rule(
    definition="Weight decay, dropout or label smoothing are so strong that little can be learned.",
    formula=f"weight decay above {STRONG_DECAY:g} (decoupled: that takes more than {DECAY_SHARE:.0%} of a weight "
    "during the probe), "
    f"dropout above {STRONG_DROPOUT:g}, or label smoothing above {STRONG_SMOOTHING:g}; an error where a training "
    f"with usual strengths "
    f"has {CLEAR_GAIN:g} more skill",
    source="Goodfellow, Bengio and Courville 2016, Deep Learning, sections 7.1, 7.5 and 7.12",
    advice="Begin without regularisation, until the training images are learned; then add what the held-out images "
    "ask for.",
)
def over_regularised(evidence: Evidence) -> Iterator[Finding]:
    parts, overrides = _strong(evidence)
    if not parts:
        return
    trial = evidence.trials.get(overrides)
    told = (
        f"; with usual strengths the skill is {trial.skill:.0%} instead of {evidence.record.skill:.0%}" if trial else ""
    )
    yield Finding(
        severity=evidence.verdict(overrides),
        evidence=f"{', '.join(parts)}{told}",
        threshold=f"weight decay {STRONG_DECAY:g}, dropout {STRONG_DROPOUT:g}, label smoothing {STRONG_SMOOTHING:g}",
        why="What pulls weights to zero, drops nearly all units or blurs nearly all labels outweighs what the images "
        "say.",
        remedy=as_remedy(overrides),
    )


def _strong(evidence: Evidence) -> tuple[list[str], tuple[str, ...]]:
    """Return what is strong, in words, and the overrides that make it usual."""
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
    rates = {node.name: _dropout_rate(node) for node in evidence.graph.nodes}
    if dropped := [name for name, rate in rates.items() if rate > STRONG_DROPOUT]:
        parts.append(f"dropout {max(rates.values()):g} in {', '.join(dropped[:3])}")
        overrides += with_layers(evidence, [(name, ".rate=0.2") for name in dropped])
    if train.label_smoothing > STRONG_SMOOTHING:
        parts.append(f"label smoothing {train.label_smoothing:g}")
        overrides.append("train.label_smoothing=0.1")
    return parts, tuple(overrides)


def _dropout_rate(node: Node) -> float:
    """Return the `rate` of a layer that is random in training, else 0."""
    is_random = node.layer.without_noise() != node.layer
    return float(getattr(node.layer, "rate", 0)) if is_random else 0.0


ERROR_GAP, GAP = 0.2, 0.1
"""Skill on training images less that on held-out ones. Sound networks on a few thousand digits have 0 to 0.06."""


@rule(
    definition="The network knows the training images and not others of their kind.",
    formula=f"skill on training images less that on held-out images, above {GAP:g} (an error above {ERROR_GAP:g}), "
    "where the training images are learned",
    source="Goodfellow, Bengio and Courville 2016, Deep Learning, section 5.2; Zhang et al. 2017, arXiv:1611.03530",
    advice="More images, augmentation, dropout or weight decay, fewer epochs, a smaller network.",
)
def overfitting(evidence: Evidence) -> Iterator[Finding]:
    train, held, data = evidence.record.train, evidence.record.held, evidence.data
    if train is None or held is None or train.skill < 0.6 or train.skill - held.skill <= GAP:
        return
    figures = (
        f"accuracy {train.accuracy:.0%} on training images, {held.accuracy:.0%} on held-out ones"
        if train.accuracy is not None and held.accuracy is not None
        else f"loss {train.loss:.3g} on training images, {held.loss:.3g} on held-out ones"
    )
    per_image = ""
    if data and data.count:
        values = sum(prod(shape) for shapes in evidence.graph.param_shapes.values() for shape in shapes.values())
        per_image = f"; {values / data.count:,.0f} parameters for each of {data.count:,} training images"
    yield Finding(
        severity="error" if train.skill - held.skill > ERROR_GAP else "warning",
        step=evidence.record.steps,
        evidence=f"{figures}{per_image}",
        threshold=f"a difference of skill above {GAP:g}",
        why="It has learned the images by heart instead of what they have in common.",
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
