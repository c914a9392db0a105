"""Rules about the fresh network: its weights, its first loss, and whether it can learn a single batch."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite, prod

from cnnbp_cli.core.graph import INPUT, Node
from cnnbp_cli.core.layers.norm import BatchNorm, GroupNorm, LayerNorm
from cnnbp_cli.core.layers.pool import GlobalAvgPool2d, GlobalMaxPool2d
from cnnbp_cli.diagnosis.case import Case, LayerStart
from cnnbp_cli.diagnosis.findings import Finding, Severity
from cnnbp_cli.diagnosis.registry import RULES, rule
from cnnbp_cli.diagnosis.remedies import as_remedy, is_sound, with_layers, with_sound_init

NORMS = (BatchNorm, LayerNorm, GroupNorm)

TWINS = 0.5
"""Share of a layer's units that are copies. Random weights give none; a constant gives all but one."""


@rule(
    "symmetric-init",
    family="start",
    order=12,
    definition="Units of a layer start alike and get the same gradient, so they stay copies of one unit.",
    formula=f"share of a layer's units whose weights and gradients equal another unit's, above {TWINS:.0%}",
    source="Goodfellow, Bengio and Courville 2016, Deep Learning, section 8.4",
    advice="Draw weights at random; only biases, and the last layer, may start at zero.",
)
def symmetric_init(case: Case) -> Iterator[Finding]:
    if case.start is None:
        return
    nodes = [node for node in case.weighted if _start(case, node).twins > TWINS]
    if not nodes:
        return
    first = nodes[0]
    units = case.graph.shapes[first.name][0]
    more = f", and in {len(nodes) - 1} more" if len(nodes) > 1 else ""
    yield Finding(
        rule="symmetric-init",
        severity="error",
        layer=first.name,
        step=1,
        evidence=f"{_start(case, first).twins:.0%} of the {units} units of {first.name} have the weights and the "
        f"gradient of another one{more}",
        threshold=f"more than {TWINS:.0%}",
        why="Units that start alike and get the same gradient stay alike, so the layer is worth one unit.",
        remedy=as_remedy(with_sound_init(case, nodes)),
    )


GAIN_LOW, GAIN_HIGH = 0.1, 6.0
"""Root mean square of a layer's output divided by that of its input. He gives 1.4, Glorot between 0.3 and 1.4 for the
widths in use, LeCun 1; inputs whose values go together, such as grey areas under a filter, add a factor of up to 3."""

TOTAL = 100.0
"""By which factor the signal may grow or shrink on its way through the whole network, at most: two decimal digits of
the seven that float32 has, and more than Glorot loses in a dozen ReLU layers (a factor of √2 each)."""


@rule(
    "badly-scaled-init",
    family="start",
    order=13,
    definition="The initial weights make the signal grow or shrink from layer to layer.",
    formula="root mean square of a layer's output divided by that of its input outside "
    f"{GAIN_LOW:g}…{GAIN_HIGH:g}; or its largest value in the network more than {TOTAL:g} times the smallest; layers "
    "right before a normalisation are left out",
    source="Glorot and Bengio 2010; He et al. 2015, arXiv:1502.01852, section 2.2",
    advice="he_normal before ReLU and its kin, glorot_normal before tanh, sigmoid and the head.",
)
def badly_scaled_init(case: Case) -> Iterator[Finding]:
    if case.start is None:
        return
    nodes = [
        node
        for node in case.weighted
        if not _is_normalised(case, node) and _start(case, node).twins <= TWINS and _start(case, node).scale_in > 0
    ]
    gains = {node.name: _gain(case, node) for node in nodes}
    bad = [node for node in nodes if not GAIN_LOW <= gains.get(node.name, 1.0) <= GAIN_HIGH]
    scales = {name: _start(case, case.nodes[name]).scale for name in gains}
    lowest, highest = min(scales.values(), default=1.0), max(scales.values(), default=1.0)
    spread = highest / lowest if lowest > 0 else float("inf")
    if not bad and not (len(nodes) > 2 and spread > TOTAL):
        return
    if bad:
        worst = max(bad, key=lambda node: abs_log(gains[node.name]))
        layer, gain = worst.name, gains[worst.name]
        evidence = f"{layer} turns a root mean square of {_start(case, worst).scale_in:.2g} into "
        evidence += f"{scales[layer]:.2g}, a factor of {gain:.2g}"
        evidence += f"; so {'does' if len(bad) == 2 else 'do'} {len(bad) - 1} more" if len(bad) > 1 else ""
        threshold = BAND
    else:
        bad = nodes
        layer = (max if scales[nodes[-1].name] > scales[nodes[0].name] else min)(scales, key=scales.get)  # type: ignore[arg-type]
        evidence = f"the root mean square of the layers' outputs goes from {scales[nodes[0].name]:.2g} in "
        evidence += f"{nodes[0].name} to {scales[layer]:.2g} in {layer}"
        threshold = f"a factor of {TOTAL:g} across the network"
    remedy = with_sound_init(case, bad)
    yield Finding(
        rule="badly-scaled-init",
        severity="warning" if threshold != BAND and _depth_explains(case) else case.verdict(remedy),
        layer=layer,
        step=1,
        evidence=evidence,
        threshold=threshold,
        why="A signal that shrinks takes the gradient with it, one that grows saturates units and makes "
        "the loss steep.",
        remedy=as_remedy(remedy),
    )


BAND = f"a factor from {GAIN_LOW:g} to {GAIN_HIGH:g}"


def _depth_explains(case: Case) -> bool:
    """Return whether gradients vanish or explode: where each layer is sound by itself, that says it better."""
    return any(list(RULES[name].check(case)) for name in ("vanishing-gradient", "exploding-gradient"))


def abs_log(ratio: float) -> float:
    """Return how far a ratio is from 1, either way."""
    return max(ratio, 1 / ratio) if ratio > 0 and isfinite(ratio) else float("inf")


def _start(case: Case, node: Node) -> LayerStart:
    assert case.start is not None
    return case.start.layers.get(node.name) or LayerStart(scale_in=1.0, scale=1.0)


def _gain(case: Case, node: Node) -> float:
    start = _start(case, node)
    return start.scale / start.scale_in


def _is_normalised(case: Case, node: Node) -> bool:
    readers = case.readers[node.name]
    return bool(readers) and all(isinstance(reader.layer, NORMS) for reader in readers)


FIRST_LOSS, FAR = 3.0, 10.0
"""First loss divided by that of a uniform guess. He initialisation of ReLU networks gives 1 to 2.2, and up to 6 where
the head reads thousands of values; a network that does well is told from the second limit on."""


@rule(
    "bad-initial-loss",
    family="start",
    order=14,
    definition="The first loss is far from that of a network that knows nothing and claims nothing.",
    formula=f"loss of the first batch divided by the loss of a uniform guess (ln K for K classes) above {FIRST_LOSS:g}",
    source="Karpathy 2019, A recipe for training neural networks (verify loss @ init)",
    advice="Make the last layer's initial weights smaller, or normalise what comes before it.",
)
def bad_initial_loss(case: Case) -> Iterator[Finding]:
    data = case.data
    if data is None or data.uniform_loss <= 0:
        return
    first = case.start.loss if case.start else case.record.first_loss
    if not first > FIRST_LOSS * data.uniform_loss or not isfinite(first):
        return
    last = case.nodes[case.graph.output] if case.nodes[case.graph.output] in case.weighted else case.weighted[-1]
    if is_sound(case, last):  # a head that starts small claims nothing, whatever it reads
        remedy = with_layers(case, [(last.name, ".init={type: normal, std: 0.01}")])
    else:
        remedy = with_sound_init(case, [last])
    overcome = case.record.last_loss < FIRST_LOSS * data.uniform_loss
    mild = first < FAR * data.uniform_loss
    weighs = case.config.model.head != "none" and (
        case.helps(remedy) or not (overcome or mild)
    )  # numbers have no guess
    grave: Severity = case.verdict(remedy) if weighs else "warning"
    yield Finding(
        rule="bad-initial-loss",
        severity="info" if case.well and mild else grave,
        layer=last.name,
        step=1,
        evidence=f"the first loss is {first:.3g}, that of a uniform guess {data.uniform_loss:.3g}",
        threshold=f"more than {FIRST_LOSS:g} times a uniform guess",
        why="The network starts out sure of answers that are wrong, and the first steps go into unlearning them.",
        remedy=as_remedy(remedy),
    )


HEART = 0.5
"""Skill on the batch. Sound networks of the shipped kinds know 16 images completely within 100 steps."""


@rule(
    "cannot-overfit-batch",
    family="start",
    order=39,
    definition="The network cannot even learn a single batch by heart.",
    formula=f"skill on 16 images below {HEART:g} after 100 steps of Adam on them alone, without augmentation, dropout "
    "and decay; tried where the probe does not do well",
    source="Karpathy 2019, A recipe for training neural networks (overfit one batch)",
    advice="Look for a layer that throws the information away, for a wrong gradient (cnnbp gradcheck), "
    "or a larger width.",
)
def cannot_overfit_batch(case: Case) -> Iterator[Finding]:
    test = case.batch
    if test is None or test.skill >= HEART or case.well:
        return
    narrow = _narrowest(case)
    remedy = _wider(case, narrow) if narrow else ()
    yield Finding(
        rule="cannot-overfit-batch",
        severity="error" if remedy and case.helps(remedy) else case.symptom(),
        layer=narrow.name if narrow else None,
        evidence=f"{test.steps} steps on the same {test.images} images bring the loss from {test.first:.3g} to "
        f"{test.last:.3g} and the skill to {test.skill:.0%}"
        + (
            f"; {narrow.name} passes on {prod(case.graph.shapes[narrow.name])} numbers for each image" if narrow else ""
        ),
        threshold=f"a skill of {HEART:.0%}",
        why="A network that cannot learn a few images by heart lacks capacity, a gradient, or steps of a "
        "sensible length.",
        remedy=as_remedy(remedy)
        or "Prove the gradients with `cnnbp gradcheck`; then look for a layer that passes too little on.",
    )


def _narrowest(case: Case) -> Node | None:
    """Return the layer before the last weights that passes on fewer numbers than there are classes, if any."""
    inner = [node for node in case.graph.nodes if node.name != case.graph.output]
    wanted = case.graph.shapes[case.graph.output][0]
    sizes = {node.name: prod(case.graph.shapes[node.name]) for node in inner}
    slim = [node for node in inner if sizes[node.name] < wanted / 2 and INPUT not in node.name]
    return min(slim, key=lambda node: sizes[node.name]) if slim else None


def _wider(case: Case, node: Node) -> tuple[str, ...]:
    """Return the overrides that let more through a layer, or through the one that gave it its shape."""
    if isinstance(node.layer, GlobalAvgPool2d | GlobalMaxPool2d):
        return with_layers(case, [(node.name, "=flatten")])
    while node not in case.weighted and node.inputs and node.inputs[0] in case.nodes:
        node = case.nodes[node.inputs[0]]
    wanted = 4 * case.graph.shapes[case.graph.output][0]
    for field in ("units", "filters"):
        if hasattr(node.layer, field):
            return with_layers(case, [(node.name, f".{field}={wanted}")])
    return ()
