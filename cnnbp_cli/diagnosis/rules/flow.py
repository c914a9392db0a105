"""Rules about what flows through the layers: signals forward, gradients back, updates into the weights."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from math import isfinite, prod, sqrt
from statistics import median

from cnnbp_cli.core.graph import Node
from cnnbp_cli.diagnosis.evidence import FEW_STEPS, Evidence
from cnnbp_cli.diagnosis.findings import Finding, Severity
from cnnbp_cli.diagnosis.registry import rule
from cnnbp_cli.diagnosis.remedies import (
    as_remedy,
    better_rate,
    higher_rate,
    lower_rate,
    sounder_init,
    suitable_init,
    with_layers,
    with_sound_init,
)
from cnnbp_cli.diagnosis.text import number, percent, share_of
from cnnbp_cli.train.events import LayersWatched

# ---------------------------------------------------------------------- gradients across the depth

VANISHING_RATIO, EXPLODING_RATIO = 0.01, 50.0
"""Gradient at a layer divided by that at the last one. Sound networks of up to twenty layers start between 0.07 and
14; a sigmoid passes on a quarter at most, so five of them in a row leave a thousandth."""

EXPLODING_GRADIENT = 100.0
"""Gradient of a layer's parameters divided by their norm: a step of learning rate 0.01 replaces them."""

FIRST_LOOKS = 3
"""Watched steps over which a gradient has to stay small: a head that starts at zero lets none through at first."""


@rule(
    definition="The gradient shrinks on its way back, so that the first layers get almost none.",
    formula="L2 norm of an image's loss gradient at the output of a layer with weights, divided by that at the last "
    f"such layer, below {VANISHING_RATIO:g} in each of the first {FIRST_LOOKS} watched steps",
    source="Hochreiter 1991; Bengio, Simard and Frasconi 1994; Glorot and Bengio 2010, section 4",
    advice="ReLU instead of sigmoid or tanh, initial weights that suit the activation, normalization, shortcuts.",
)
def vanishing_gradient(evidence: Evidence) -> Iterator[Finding]:
    looks = evidence.record.watched[:FIRST_LOOKS]
    flows = [flow for watched in looks if not _is_dead(watched) and (flow := _flow(evidence, watched))]
    if not flows or any(_is_dead(watched) for watched in looks[:1]):
        return
    ratio, layer = max(flows)
    if ratio >= VANISHING_RATIO:
        return
    remedy = _more_gradient(evidence)
    depth = len(evidence.weighted)
    yield Finding(
        severity=evidence.verdict(remedy),
        layer=layer,
        step=looks[0].step,
        evidence=f"the gradient at {layer} is {ratio:.1e} of that at {evidence.weighted[-1].name}, {depth} layers with "
        f"weights in all: a factor of {ratio ** (1 / max(1, depth - 1)):.2g} per layer",
        threshold=f"below {VANISHING_RATIO:g}",
        why="Layers that get a hundredth of the gradient hardly learn, and all later ones build on their random "
        "features.",
        remedy=as_remedy(remedy) or "Put a batch_norm behind every layer with weights, or shortcuts around them.",
    )


@rule(
    definition="The gradient grows on its way back, or is out of proportion to the weights.",
    formula="L2 norm of an image's loss gradient at the output of a layer with weights, divided by that at the last "
    f"such layer, above {EXPLODING_RATIO:g}; or the gradient of a layer's parameters above {EXPLODING_GRADIENT:g} "
    "times their norm; in the first step",
    source="Bengio, Simard and Frasconi 1994; Pascanu, Mikolov and Bengio 2013, arXiv:1211.5063; Zhang, Dauphin and Ma "
    "2019, arXiv:1901.09321 (residual networks)",
    advice="Initial weights that suit the activation, normalization, branches that start at zero; clipping limits the "
    "damage.",
)
def exploding_gradient(evidence: Evidence) -> Iterator[Finding]:
    if not evidence.record.watched:
        return
    watched = evidence.record.watched[0]
    flow = _flow(evidence, watched, largest=True)
    steep = [
        (statistics.gradient / statistics.weight, node.name)
        for node, statistics in evidence.statistics(watched)
        if statistics.gradient and statistics.weight and isfinite(statistics.gradient)
    ]
    slope, steepest = max(steep, default=(0.0, ""))
    if flow and flow[0] > EXPLODING_RATIO:
        layer = flow[1]
        seen = f"the gradient at {layer} is {flow[0]:.1e} times that at {evidence.weighted[-1].name}"
        threshold = f"above {EXPLODING_RATIO:g} times"
    elif slope > EXPLODING_GRADIENT:
        layer = steepest
        seen = f"the gradient of {layer} is {slope:.2g} times the norm of its weights"
        threshold = f"above {EXPLODING_GRADIENT:g} times"
    else:
        return
    remedy = _less_gradient(evidence)
    yield Finding(
        severity=evidence.verdict(remedy),
        layer=layer,
        step=watched.step,
        evidence=seen,
        threshold=threshold,
        why="A step that suits the other layers throws this layer's weights far off, and one that suits it moves "
        "nothing else.",
        remedy=as_remedy(remedy),
    )


def _flow(evidence: Evidence, watched: LayersWatched, *, largest: bool = False) -> tuple[float, str] | None:
    """Return the gradient at the layer that has the least (or the most) of it, relative to the last, and its name."""
    norms: dict[str, float] = {}
    for node, statistics in evidence.statistics(watched):
        if statistics.signal is not None and isfinite(statistics.signal):
            norms[node.name] = statistics.signal * sqrt(prod(evidence.graph.shapes[node.name]))
    last = norms.pop(evidence.weighted[-1].name, 0.0) if evidence.weighted else 0.0
    inner = {name: norm / last for name, norm in norms.items() if norm > 0} if last > 0 else {}
    if not inner:
        return None
    name = (max if largest else min)(inner, key=lambda name: inner[name])
    return inner[name], name


def _is_dead(watched: LayersWatched) -> bool:
    """Return whether whole layers of ReLUs are inactive, which stops a gradient as well."""
    return any(statistics.dead is not None and statistics.dead > ALL_DEAD for statistics in watched.layers.values())


def _more_gradient(evidence: Evidence) -> tuple[str, ...]:
    """Return the overrides that let more of the gradient through."""
    nodes = evidence.graph.nodes
    gates = {name for node in nodes if len(node.inputs) > 1 and not node.layer.is_linear for name in node.inputs}
    flat = [node.name for node in nodes if _is_flat(node) and node.name not in gates and node not in evidence.tail]
    if flat:
        bent = with_layers(evidence, [(name, "=relu") for name in flat])
        return (*bent, "model.init=he_normal", *with_layers(evidence, _zero_branches(evidence)))
    return sounder_init(evidence)


def _is_flat(node: Node) -> bool:
    """Return whether an activation's outputs lie within 1 of each other: its slope is small nearly everywhere."""
    low, high = node.layer.output_range()
    return node.layer.is_activation and high - low <= 1


def _less_gradient(evidence: Evidence) -> tuple[str, ...]:
    """Return the overrides that let less of the gradient through."""
    if sounder := sounder_init(evidence):
        return sounder
    if branches := _zero_branches(evidence):
        return with_layers(evidence, branches)
    return ("train.clip_norm=1",) if evidence.config.train.clip_norm is None else ()


def _zero_branches(evidence: Evidence) -> list[tuple[str, str]]:
    """Return the layers with weights that end residual branches, each with a start at zero."""
    shapes = evidence.graph.shapes
    sums = [
        node
        for node in evidence.graph.nodes
        if len(node.inputs) > 1 and node.layer.is_linear and shapes[node.name] == shapes[node.inputs[0]]
    ]
    ends = [name for node in sums for name in node.inputs if evidence.nodes.get(name) in evidence.weighted]
    return [(name, ".init=zeros") for name in dict.fromkeys(ends) if hasattr(evidence.nodes[name].layer, "init")]


@rule(
    definition="A value became infinite or NaN.",
    formula="NaN or infinity in parameters, outputs, loss or gradients; the layer is the first in the order of "
    "computation",
    source="Goldberg 1991, What every computer scientist should know about floating-point arithmetic",
    advice="Lower the learning rate, warm up or clip; look for a division by 0 or a logarithm of 0 in layers of your "
    "own; scale the data.",
)
def non_finite(evidence: Evidence) -> Iterator[Finding]:
    bad = evidence.record.bad
    if bad is None:
        return
    finite = [loss for loss in evidence.record.losses if isfinite(loss)]
    told = f"; the loss was {finite[0]:.3g} at first and {finite[-1]:.3g} just before" if finite else ""
    remedy = (lower_rate(evidence) if finite else ()) or sounder_init(evidence)
    yield Finding(
        severity="error",
        layer=bad.layer if bad.layer in evidence.nodes else None,
        step=bad.step,
        evidence=f"{bad.what} became infinite or NaN at step {bad.step}{told}",
        threshold="finite values",
        why="Everything computed from it is infinite or NaN as well, so the run is over.",
        remedy=as_remedy(remedy) or "Scale the data: data.normalize=standard.",
    )


# ---------------------------------------------------------------------- units that no longer respond

FEW_UNITS = 3
"""Units below which a share of them means nothing."""

DEAD_SHARE, ALL_DEAD = 0.5, 0.99
"""Share of the units of a layer. Sound ReLU layers have up to 0.3 within a window (Lu et al. 2019)."""


@rule(
    definition="Units are inactive for every image, so they get no gradient and stay inactive.",
    formula="share of a layer's units whose output was not above 0 for any image since the watched step before, median "
    f"of the second half above {percent(DEAD_SHARE)}; above 0 where the units are the network's answers",
    source="Lu et al. 2019, Dying ReLU and initialization, arXiv:1903.06733; Maas, Hannun and Ng 2013",
    advice="Lower the learning rate, start from he_normal, or use leaky_relu, which lets some gradient through.",
)
def dead_relu(evidence: Evidence) -> Iterator[Finding]:
    answers = evidence.ends_with.name
    dead = {
        node.name: share
        for node in evidence.graph.nodes
        if node.layer.can_die
        and evidence.graph.shapes[node.name][0] >= FEW_UNITS
        and (share := evidence.record.late_median(node.name, "dead")) is not None
        and share > (0 if node.name == answers else DEAD_SHARE)
    }
    if not dead:
        return
    largest = max(dead.values())
    layer = next(name for name, own in dead.items() if own >= min(largest, 0.9))
    share, units = dead[layer], evidence.graph.shapes[layer][0]
    first = next((step for step, own in evidence.record.series(layer, "dead") if own >= min(share, DEAD_SHARE)), None)
    at_start = evidence.start.layers.get(layer) if evidence.start else None
    from_start = at_start is not None and at_start.dead > DEAD_SHARE
    remedy = _revive_units(evidence, layer, from_start=from_start)
    yield Finding(
        severity=_severity(evidence, remedy, shows=layer == answers),
        layer=layer,
        step=first,
        evidence=f"{share_of(share, units)} units of {layer}{_and_of_others(len(dead) - 1)} are inactive for all images"
        + (" from the start" if from_start else ""),
        threshold=f"more than {percent(0 if layer == answers else DEAD_SHARE)}",
        why="A ReLU that is inactive for every image gets no gradient, and nothing switches it on again.",
        remedy=as_remedy(remedy)
        or "Look at the biases before it, and where they come from; leaky_relu instead of relu lets gradient through.",
    )


def _and_of_others(count: int) -> str:
    return f" and of {count} more layer{'s' * (count > 1)}" if count else ""


def _severity(evidence: Evidence, remedy: Sequence[str], *, shows: bool = False) -> Severity:
    """Return how severe it is that units no longer respond: harmless where the others do the work."""
    if evidence.well:
        return "warning" if shows else "info"
    return evidence.verdict(remedy)


def _revive_units(evidence: Evidence, layer: str, *, from_start: bool) -> tuple[str, ...]:
    """Return the overrides that keep a layer's units from dying."""
    if layer == evidence.ends_with.name:
        return with_layers(evidence, [(layer, "=identity")])
    if from_start:
        return sounder_init(evidence) or with_layers(evidence, [(layer, "=leaky_relu")])
    return lower_rate(evidence)


SATURATED_SHARE = 0.5
"""Share of a layer's outputs. At a sound start it is below 0.05; sound networks reach 0.3 late in training."""


@rule(
    definition="Sigmoid or tanh outputs are at the ends of their range, where the slope is almost 0.",
    formula="share of a hidden layer's output within 1% of the range's width of its ends, median of the second half "
    f"above {percent(SATURATED_SHARE)}",
    source="Glorot and Bengio 2010, section 3; LeCun et al. 1998, Efficient BackProp, section 4.4",
    advice="Smaller initial weights (glorot_normal), normalized inputs, a lower learning rate, or relu.",
)
def saturated_activation(evidence: Evidence) -> Iterator[Finding]:
    shares = {
        node.name: share
        for node in evidence.graph.nodes
        if node.layer.saturates
        and node not in evidence.tail
        and (share := evidence.record.late_median(node.name, "saturated")) is not None
        and share > SATURATED_SHARE
    }
    if not shares:
        return
    layer, share = next(iter(shares.items()))
    series = evidence.record.series(layer, "saturated")
    first = next((step for step, own in series if own > SATURATED_SHARE), None)
    before = evidence.start.layers[layer].saturated if evidence.start and layer in evidence.start.layers else 0.0
    remedy = (sounder_init(evidence) if before > SATURATED_SHARE / 2 else ()) or lower_rate(evidence)
    yield Finding(
        severity=_severity(evidence, remedy),
        layer=layer,
        step=first,
        evidence=f"{percent(share)} of the output of {layer}{_and_of_others(len(shares) - 1)} is at the ends of its "
        f"range; before the first step it was {percent(before)}",
        threshold=f"more than {percent(SATURATED_SHARE)}",
        why="The slope there is almost 0, so hardly any gradient gets through.",
        remedy=as_remedy(remedy) or "Use relu, or normalize what comes before it.",
    )


# ---------------------------------------------------------------------- updates


@rule(
    definition="The parameters of a layer never change.",
    formula="L2 norm of the change that a step makes to a layer's parameters: 0 in every watched step",
    source="Schoop, Huang and Hartmann 2021, UMLAUT (CHI) and common practice; by definition",
    advice="Check that something on the way to the output reads the layer, or that train.losses names it, that a "
    "gradient comes back to it (cnnbp gradcheck), and that the learning rate is above 0.",
)
def frozen_layer(evidence: Evidence) -> Iterator[Finding]:
    watched = evidence.record.watched
    if len(watched) < 2:
        return
    frozen = [
        node
        for node in evidence.weighted
        if all((own := step.layers.get(node.name)) is not None and own.update == 0 for step in watched)
        and not _behind_dead(evidence, node)
    ]
    if not frozen:
        return
    reached = _reaching(evidence)
    stray = [node for node in frozen if node.name not in reached]
    first = (stray or frozen)[0]
    everything = len(frozen) == len({node.owner for node in evidence.weighted})
    if everything and not any(evidence.record.rates):
        reason, remedy = "the learning rate is 0", as_remedy(higher_rate(evidence))
    elif stray:
        reason = "nothing on the way to the output reads it"
        remedy = (
            f"Name {first.name}, or what follows it, among the inputs of a layer on the way to the output, or in "
            "train.losses, for a loss of its own."
        )
    else:
        zeros = [
            node for node in evidence.weighted if getattr(getattr(node.layer, "init", None), "type", "") == "zeros"
        ]
        reason = "no gradient comes back to it"
        remedy = as_remedy(
            with_layers(evidence, [(node.name, f".init={suitable_init(evidence, node)}") for node in zeros])
        ) or ("Check the layers behind it with `cnnbp gradcheck`: one of them passes no gradient on.")
    yield Finding(
        severity="error" if everything or not evidence.well else "warning",
        layer=first.name,
        step=watched[0].step,
        evidence=f"the parameters of {first.name}{_and_of_others(len(frozen) - 1)} did not change in any of "
        f"{len(watched)} watched steps: {reason}",
        threshold="any change",
        why="The layer stays as it was initialized, and the rest has to make do with random features.",
        remedy=remedy or "Set a learning rate above 0.",
    )


def _behind_dead(evidence: Evidence, node: Node) -> bool:
    """Return whether ReLUs that are all inactive lie between a layer and the output, and stop its gradient."""
    inactive = {
        name
        for name, statistics in (evidence.record.watched[0].layers.items() if evidence.record.watched else ())
        if statistics.dead is not None and statistics.dead > ALL_DEAD
    }
    return bool(inactive) and node.name not in _reaching(evidence, without=inactive)


def _reaching(evidence: Evidence, without: Collection[str] = ()) -> set[str]:
    """Return the layers whose output reaches a loss, on ways that avoid some layers."""
    found: set[str] = set()
    waiting = [*evidence.graph.outputs]
    while waiting:
        name = waiting.pop()
        if name in found or name in without:
            continue
        found.add(name)
        waiting += evidence.nodes[name].inputs if name in evidence.nodes else ()
    return found


FROZEN_CHANGE = 0.02
"""By which share of itself a layer's weights could change in all planned steps, if each went the same way."""

LARGE_UPDATE = 0.3
"""By which share of itself a step changes a layer's weights."""


@rule(
    definition="Steps are out of proportion to the weights of a layer.",
    formula="L2 norm of a step's change divided by that of the parameters before it, median of the second half: above "
    f"{LARGE_UPDATE:g}, or so small that all planned steps together could change them by less than "
    f"{percent(FROZEN_CHANGE)}",
    source="Karpathy, CS231n notes, Neural networks part 3 (about 1e-3); You, Gitman and Ginsburg 2017, "
    "arXiv:1708.03888 (trust ratio)",
    advice="Initial weights of a size that suits the layer; then another learning rate.",
)
def update_ratio(evidence: Evidence) -> Iterator[Finding]:
    record = evidence.record
    if len(record.watched) < 2 or evidence.well:
        return
    ratios = {
        node.name: ratio
        for node in evidence.weighted
        if (ratio := record.late_median(node.name, "ratio")) is not None and ratio > 0
    }
    steps = max(record.planned, record.steps)
    growth = record.planned_rates / sum(record.rates) * record.steps if sum(record.rates) > 0 else steps
    still = {name: ratio for name, ratio in ratios.items() if ratio * growth < FROZEN_CHANGE}
    jumping = {name: ratio for name, ratio in ratios.items() if ratio > LARGE_UPDATE}
    if still:
        layer = min(still, key=lambda name: still[name])
        heavy = [evidence.nodes[name] for name in still if _heaviness(evidence, evidence.nodes[name]) > LARGE_WEIGHTS]
        remedy = with_sound_init(evidence, heavy) if heavy else higher_rate(evidence)
        some = len(still) < len(ratios)
        yield Finding(
            severity=evidence.verdict(remedy) if some or heavy else "warning",
            layer=layer,
            evidence=f"a step changes the weights of {layer}{_and_of_others(len(still) - 1)} by {still[layer]:.1e} of "
            f"their norm: at most {still[layer] * growth:.1e} in all {steps:,} planned steps",
            threshold=f"less than {percent(FROZEN_CHANGE)} in all steps",
            why="The layer stays as it was initialized, however long the training.",
            remedy=as_remedy(remedy) or "Start from smaller weights, or use a higher learning rate.",
        )
    elif jumping:
        layer = max(jumping, key=lambda name: jumping[name])
        yield Finding(
            severity="warning" if evidence.learns or better_rate(evidence) else "error",
            layer=layer,
            evidence=f"a step changes the weights of {layer}{_and_of_others(len(jumping) - 1)} by "
            f"{percent(jumping[layer])} of their norm",
            threshold=f"more than {percent(LARGE_UPDATE)}",
            why="Every step overwrites what earlier ones have learned.",
            remedy=as_remedy(lower_rate(evidence)) or "Start from larger weights, or take smaller steps.",
        )


LARGE_WEIGHTS = 5.0
"""Weights in units of what the layer's fan-in asks for."""


def _heaviness(evidence: Evidence, node: Node) -> float:
    """Return the norm of a layer's weights divided by what He's initialization would give them."""
    statistics = evidence.record.watched[0].layers.get(node.name)
    shape = max(evidence.graph.param_shapes[node.name].values(), key=len, default=())
    if statistics is None or statistics.weight is None or len(shape) < 2:
        return 1.0
    return statistics.weight / sqrt(2 * prod(shape) / max(1, prod(shape[1:])))


CLIPPED_SHARE = 0.95
"""Share of the steps."""

TIGHT_CLIPPING = 10.0
"""The gradient's norm divided by the limit: what is left of it is a tenth."""


@rule(
    definition="The gradient is clipped in every step, so steps are smaller than intended.",
    formula=f"the gradient's total norm above clip_norm in more than {percent(CLIPPED_SHARE)} of the steps of the "
    "second half; an error where a training without clipping has clearly more skill",
    source="Pascanu, Mikolov and Bengio 2013, arXiv:1211.5063, section 3.2 (a limit of half to ten times the average "
    "norm)",
    advice="Set clip_norm to a few times the median norm, which `cnnbp gradnorms` shows, or leave it out.",
)
def clipping_always_active(evidence: Evidence) -> Iterator[Finding]:
    limit, record = evidence.config.train.clip_norm, evidence.record
    norms = [norm for norm in record.norms[len(record.norms) // 2 :] if isfinite(norm)]
    if not limit or len(norms) < FEW_STEPS // 2:
        return
    share, typical = sum(norm > limit for norm in norms) / len(norms), median(norms)
    if share <= CLIPPED_SHARE:
        return
    remedy = ("train.clip_norm=null",)
    tight = typical > TIGHT_CLIPPING * limit
    severity = evidence.verdict(remedy) if tight or evidence.helps(remedy) else "warning"
    yield Finding(
        severity="info" if evidence.well and not tight else severity,
        evidence=f"{percent(share)} of the steps are clipped to {limit:g}; the gradient's typical norm is "
        f"{number(typical)}, so {percent(limit / typical)} of it is left",
        threshold=f"more than {percent(CLIPPED_SHARE)} of the steps",
        why="Every step has the same size whatever the gradient, so the learning rate does not mean what it says.",
        remedy=as_remedy(remedy),
    )
