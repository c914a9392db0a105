"""Rules about the fresh network: its weights, its first loss, and whether it can learn a single batch."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite, prod

from cnnbp_cli.core.graph import INPUT, Node
from cnnbp_cli.diagnosis.evidence import Evidence
from cnnbp_cli.diagnosis.facts import LayerStart
from cnnbp_cli.diagnosis.findings import Finding, Severity
from cnnbp_cli.diagnosis.registry import RULES, rule
from cnnbp_cli.diagnosis.remedies import (
    SMALL_START,
    as_remedy,
    is_sound,
    seeing_more,
    width_of,
    with_layers,
    with_sound_init,
)
from cnnbp_cli.diagnosis.rules.generalisation import NARROW
from cnnbp_cli.diagnosis.text import percent, share_of

TWIN_SHARE = 0.5
"""Share of a layer's units that are copies. Random weights give none; a constant gives all but one."""


@rule(
    definition="Units of a layer start alike and get the same gradient, so they stay copies of one unit.",
    formula=f"share of a layer's units whose weights and gradients equal another unit's, above {percent(TWIN_SHARE)}",
    source="Goodfellow, Bengio and Courville 2016, Deep Learning, section 8.4",
    advice="Draw weights at random; only biases, the last layer and the ends of residual branches may start at zero.",
)
def symmetric_init(evidence: Evidence) -> Iterator[Finding]:
    if evidence.start is None:
        return
    nodes = [node for node in evidence.weighted if _start(evidence, node).twins > TWIN_SHARE]
    if not nodes:
        return
    first = nodes[0]
    units = evidence.graph.shapes[first.name][0]
    more = f"; the same holds for {_layers(len(nodes) - 1)}" if len(nodes) > 1 else ""
    yield Finding(
        severity="error",
        layer=first.name,
        step=1,
        evidence=f"{share_of(_start(evidence, first).twins, units)} units of {first.name} have the weights and the "
        f"gradient of another{more}",
        threshold=f"more than {percent(TWIN_SHARE)}",
        why="Units that start alike and get the same gradient stay alike, so the layer is worth a single unit.",
        remedy=as_remedy(with_sound_init(evidence, nodes)),
    )


def _layers(count: int) -> str:
    return "one more layer" if count == 1 else f"{count} more layers"


MIN_GAIN, MAX_GAIN = 0.1, 6.0
"""Root mean square of a layer's output divided by that of its input. He gives 1.4, Glorot between 0.3 and 1.4 for the
widths in use, LeCun 1; inputs whose values go together, such as grey areas under a filter, add a factor of up to 3."""

MAX_SPREAD = 100.0
"""By which factor the signal may grow or shrink on its way through the whole network, at most: two decimal digits of
the seven that float32 has, and more than Glorot loses in a dozen ReLU layers (a factor of √2 each)."""

BAND = f"a factor from {MIN_GAIN:g} to {MAX_GAIN:g}"


@rule(
    definition="The initial weights make the signal grow or shrink from layer to layer.",
    formula="root mean square of a layer's output divided by that of its input outside "
    f"{MIN_GAIN:g} to {MAX_GAIN:g}; or its largest value in the network more than {MAX_SPREAD:g} times the smallest. "
    "Layers right before a normalization are left out, and so are a last layer that starts small and weights of zero "
    "that get a gradient, as at the end of a residual branch",
    source="Glorot and Bengio 2010; He et al. 2015, arXiv:1502.01852, section 2.2",
    advice="he_normal before ReLU and its relatives, glorot_normal before tanh, sigmoid and the head.",
)
def badly_scaled_init(evidence: Evidence) -> Iterator[Finding]:
    if evidence.start is None:
        return
    nodes = [node for node in evidence.weighted if _is_judged(evidence, node)]
    gains = {node.name: _start(evidence, node).scale / _start(evidence, node).scale_in for node in nodes}
    head = evidence.weighted[-1] if evidence.weighted else None  # it may start as small as it likes
    bad = [node for node in nodes if gains[node.name] > MAX_GAIN or (gains[node.name] < MIN_GAIN and node is not head)]
    small_head = head is not None and gains.get(head.name, 1.0) < MIN_GAIN
    scales = {
        name: _start(evidence, evidence.nodes[name]).scale
        for name in gains
        if not (small_head and evidence.nodes[name] is head)
    }
    lowest, highest = min(scales.values(), default=1.0), max(scales.values(), default=1.0)
    spread = highest / lowest if lowest > 0 else float("inf")
    if not bad and not (len(scales) > 2 and spread > MAX_SPREAD):
        return
    if bad:
        worst = max(bad, key=lambda node: _distance_from_one(gains[node.name]))
        layer = worst.name
        seen = (
            f"{layer} turns a root mean square of {_start(evidence, worst).scale_in:.2g} into {scales[layer]:.2g}: a "
        )
        seen += f"factor of {gains[layer]:.2g}"
        seen += f"; {_layers(len(bad) - 1)} likewise" if len(bad) > 1 else ""
        threshold = BAND
    else:
        bad = [node for node in nodes if node.name in scales]
        nodes = bad
        grows = scales[nodes[-1].name] > scales[nodes[0].name]
        layer = (max if grows else min)(scales, key=lambda name: scales[name])
        seen = f"the root mean square of the layers' outputs goes from {scales[nodes[0].name]:.2g} in {nodes[0].name} "
        seen += f"to {scales[layer]:.2g} in {layer}"
        threshold = f"a factor of {MAX_SPREAD:g} across the network"
    remedy = with_sound_init(evidence, bad)
    yield Finding(
        severity="warning" if threshold != BAND and _depth_explains(evidence) else evidence.verdict(remedy),
        layer=layer,
        step=1,
        evidence=seen,
        threshold=threshold,
        why="A shrinking signal takes the gradient with it; a growing one saturates units and makes the loss steep.",
        remedy=as_remedy(remedy),
    )


def _is_judged(evidence: Evidence, node: Node) -> bool:
    start = _start(evidence, node)
    at_zero = start.weight == 0 and start.gradient > 0
    return not (evidence.is_normalized(node) or start.twins > TWIN_SHARE or at_zero) and start.scale_in > 0


def _depth_explains(evidence: Evidence) -> bool:
    """Return whether gradients vanish or explode: where each layer is sound by itself, that says it better."""
    return any(list(RULES[name].findings(evidence)) for name in ("vanishing-gradient", "exploding-gradient"))


def _distance_from_one(ratio: float) -> float:
    return max(ratio, 1 / ratio) if ratio > 0 and isfinite(ratio) else float("inf")


def _start(evidence: Evidence, node: Node) -> LayerStart:
    assert evidence.start is not None
    return evidence.start.layers.get(node.name) or LayerStart(scale_in=1.0, scale=1.0)


HIGH_FIRST_LOSS, EXTREME_FIRST_LOSS = 3.0, 10.0
"""First loss divided by that of a uniform guess. He initialization of ReLU networks gives 1 to 2.2, and up to 6 where
the head reads thousands of values; a network that does well is told from the second limit on."""


@rule(
    definition="The first loss is far above that of a uniform guess.",
    formula="loss of the fresh network on a batch, without dropout, divided by the loss of a uniform guess (ln K for K "
    f"classes), above {HIGH_FIRST_LOSS:g}",
    source="Karpathy 2019, A recipe for training neural networks (verify loss @ init)",
    advice="Make the last layer's initial weights smaller, or normalize what comes before it.",
)
def bad_initial_loss(evidence: Evidence) -> Iterator[Finding]:
    data = evidence.data
    if data is None or data.uniform_loss <= 0:
        return
    first = evidence.start.loss if evidence.start else evidence.record.first_loss
    if not first > HIGH_FIRST_LOSS * data.uniform_loss or not isfinite(first) or not evidence.weighted:
        return
    last = evidence.weighted[-1]
    if is_sound(evidence, last):  # a head that starts small claims nothing, whatever it reads
        remedy = with_layers(evidence, [(last.name, f".init={SMALL_START}")])
    else:
        remedy = with_sound_init(evidence, [last])
    overcome = evidence.record.last_loss < HIGH_FIRST_LOSS * data.uniform_loss
    mild = first < EXTREME_FIRST_LOSS * data.uniform_loss
    weighs = evidence.config.model.head != "none" and (
        evidence.helps(remedy) or not (overcome or mild)
    )  # numbers have no guess
    severity: Severity = evidence.verdict(remedy) if weighs else "warning"
    yield Finding(
        severity="info" if (evidence.well and mild) or (evidence.learns_numbers and evidence.learns) else severity,
        layer=last.name,
        step=1,
        evidence=f"the first loss is {first:.3g}; a uniform guess has {data.uniform_loss:.3g}",
        threshold=f"more than {HIGH_FIRST_LOSS:g} times a uniform guess",
        why="The network starts out sure of wrong answers, and spends its first steps unlearning them.",
        remedy=as_remedy(remedy),
    )


OVERFIT_SKILL = 0.5
"""Skill on the batch. Sound networks of the shipped kinds know 16 images completely within 100 steps."""

RIGHT_SLOPE = 0.9
"""Slope of the loss down its gradient, 1 for a right one, from which on the gradient needs no further proof."""


@rule(
    definition="The network cannot even memorize a single batch.",
    formula=f"skill on 16 images below {OVERFIT_SKILL:g} after 100 steps of Adam on them alone, without augmentation, "
    "dropout and weight decay; tried where the probe does not do well",
    source="Karpathy 2019, A recipe for training neural networks (overfit one batch)",
    advice="Look for a layer that discards information or is too narrow, or for a wrong gradient (cnnbp gradcheck).",
)
def cannot_overfit_batch(evidence: Evidence) -> Iterator[Finding]:
    test = evidence.overfit
    if test is None or test.skill >= OVERFIT_SKILL or evidence.well or (evidence.learns_numbers and evidence.learns):
        return
    narrow = None if evidence.learns_numbers else _narrow(evidence)
    remedy = seeing_more(evidence) or (_wider(evidence, narrow) if narrow else ())
    passes = f"; {narrow.name} hands on {prod(evidence.graph.shapes[narrow.name])} values per image" if narrow else ""
    slope = evidence.start.slope if evidence.start else None
    proven = slope is not None and slope > RIGHT_SLOPE
    yield Finding(
        severity="error" if remedy and evidence.helps(remedy) else evidence.symptom(),
        layer=narrow.name if narrow else None,
        evidence=f"{test.steps} steps on the same {test.images} images bring the loss from {test.first:.3g} to "
        f"{test.last:.3g} and the skill to {percent(test.skill)}{passes}",
        threshold=f"a skill of {percent(OVERFIT_SKILL)}",
        why="A network that cannot memorize a few images lacks capacity, a gradient, or steps of a sensible size.",
        remedy=as_remedy(remedy)
        or (
            "Look for a layer that discards what tells the images apart."
            if proven
            else "Prove the gradients with `cnnbp gradcheck`; then look for a layer that discards information."
        ),
    )


def _narrow(evidence: Evidence) -> Node | None:
    """Return the layer before the last weights that hands on fewer values than there are classes, if any."""
    wanted = NARROW * evidence.graph.shapes[evidence.graph.output][0]
    sizes = {
        node.name: prod(evidence.graph.shapes[node.name])
        for node in evidence.graph.nodes
        if node.name != evidence.graph.output and INPUT not in node.name
    }
    slim = [name for name, size in sizes.items() if size < wanted]
    return evidence.nodes[min(slim, key=lambda name: sizes[name])] if slim else None


def _wider(evidence: Evidence, node: Node) -> tuple[str, ...]:
    """Return the overrides that let more through a layer, or through the one that gave it its shape."""
    in_shape = evidence.graph.in_shapes(node)[0]
    pools_all_positions = len(in_shape) == 3 and evidence.graph.shapes[node.name] == in_shape[:1]
    if pools_all_positions and node not in evidence.weighted:
        return with_layers(evidence, [(node.name, "=flatten")])
    while node not in evidence.weighted and node.inputs and node.inputs[0] in evidence.nodes:
        node = evidence.nodes[node.inputs[0]]
    width = width_of(node)
    wanted = 4 * evidence.graph.shapes[evidence.graph.output][0]
    return with_layers(evidence, [(node.name, f".{width[0]}={wanted}")]) if width else ()
