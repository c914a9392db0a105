"""Rules about what flows through the layers: signals forward, gradients back, updates into the weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isfinite, prod, sqrt
from statistics import median

from cnnbp_cli.core.graph import Node
from cnnbp_cli.diagnosis.evidence import FEW_STEPS, Evidence
from cnnbp_cli.diagnosis.findings import Finding, Severity
from cnnbp_cli.diagnosis.registry import rule
from cnnbp_cli.diagnosis.remedies import (
    as_remedy,
    best_rate,
    higher_rates,
    lower_rate,
    lower_rates,
    number,
    sounder_init,
    suitable_init,
    with_layers,
    with_sound_init,
)
from cnnbp_cli.train.events import LayersWatched

# ---------------------------------------------------------------------- gradients across the depth

VANISHING_RATIO, EXPLODING_RATIO = 0.01, 50.0
"""Gradient at a layer divided by that at the last one. Sound networks of up to twenty layers start between 0.07 and
14; a sigmoid passes on a quarter at most, so five of them in a row fade it to a thousandth."""

EXPLODING_GRADIENT = 100.0
"""Gradient of a layer's parameters divided by their norm: a step of learning rate 0.01 replaces them."""


@rule(
    definition="The gradient fades on its way back, so that the first layers get next to none.",
    formula="L2 norm of an image's loss gradient at the output of a layer with weights, divided by that "
    "at the last such "
    f"layer, in the first step below {VANISHING_RATIO:g}",
    source="Hochreiter 1991; Bengio, Simard and Frasconi 1994; Glorot and Bengio 2010, section 4",
    advice="ReLU instead of sigmoid or tanh, initial weights that suit the activation, normalisation, shortcuts.",
)
def vanishing_gradient(evidence: Evidence) -> Iterator[Finding]:
    if not evidence.record.watched:
        return
    watched = evidence.record.watched[0]
    flow = _flow(evidence, watched)
    if flow is None or flow[0] >= VANISHING_RATIO or _silent(watched):
        return
    ratio, layer = flow
    remedy = _more_gradient(evidence)
    last = evidence.weighted[-1].name
    yield Finding(
        severity=evidence.verdict(remedy),
        layer=layer,
        step=watched.step,
        evidence=f"the gradient at {layer} is {ratio:.1e} of that at {last}, {len(evidence.weighted)} layers with "
        f"weights "
        f"in all: {_per_layer(evidence, ratio):.2g} for each",
        threshold=f"below {VANISHING_RATIO:g}",
        why="What gets a hundredth of the gradient learns a hundred times as slowly, and the layers behind it build "
        "on what it was drawn as.",
        remedy=as_remedy(remedy) or "Put a batch_norm behind every layer with weights, or shortcuts around them.",
    )


@rule(
    definition="The gradient grows on its way back, or is out of proportion to the weights.",
    formula="L2 norm of an image's loss gradient at the output of a layer with weights, divided by that "
    "at the last such "
    f"layer, above {EXPLODING_RATIO:g}; or the gradient of a layer's parameters above {EXPLODING_GRADIENT:g} times "
    f"their norm; in the "
    "first step",
    source="Bengio, Simard and Frasconi 1994; Pascanu, Mikolov and Bengio 2013, arXiv:1211.5063; Zhang, Dauphin and Ma "
    "2019, arXiv:1901.09321 (residual networks)",
    advice="Initial weights that suit the activation, normalisation, branches that start at zero; clipping limits the "
    "harm.",
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
    remedy = _less_gradient(evidence)
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
    yield Finding(
        severity=evidence.verdict(remedy),
        layer=layer,
        step=watched.step,
        evidence=seen,
        threshold=threshold,
        why="A step that suits the other layers throws this one's weights far away, and one that suits "
        "it moves nothing "
        "else.",
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


def _per_layer(evidence: Evidence, ratio: float) -> float:
    return ratio ** (1 / max(1, len(evidence.weighted) - 1))


def _silent(watched: LayersWatched) -> bool:
    """Return whether whole layers of ReLUs are off, which stops a gradient as well."""
    return any(statistics.dead is not None and statistics.dead > ALL_DEAD for statistics in watched.layers.values())


def _more_gradient(evidence: Evidence) -> tuple[str, ...]:
    """Return the overrides that let more of the gradient through."""
    nodes, output = evidence.graph.nodes, evidence.graph.output
    gates = {name for node in nodes if len(node.inputs) > 1 and not node.layer.is_linear for name in node.inputs}
    flat = [node.name for node in nodes if _is_flat(node) and node.name not in gates and node.name != output]
    if flat:
        return (*with_layers(evidence, [(name, "=relu") for name in flat]), "model.init=he_normal")
    return sounder_init(evidence)


def _is_flat(node: Node) -> bool:
    """Return whether an activation's outputs lie within 1 of each other: its slope is small nearly everywhere."""
    low, high = node.layer.output_range()
    return node.layer.is_activation and high - low <= 1


def _less_gradient(evidence: Evidence) -> tuple[str, ...]:
    """Return the overrides that let less of the gradient through."""
    if sounder := sounder_init(evidence):
        return sounder
    shapes = evidence.graph.shapes
    sums = [
        node
        for node in evidence.graph.nodes
        if len(node.inputs) > 1 and node.layer.is_linear and shapes[node.name] == shapes[node.inputs[0]]
    ]
    ends = [name for node in sums for name in node.inputs if evidence.nodes.get(name) in evidence.weighted]
    branches = [name for name in ends if hasattr(evidence.nodes[name].layer, "init")]
    if branches:
        return with_layers(evidence, [(name, ".init=zeros") for name in dict.fromkeys(branches)])
    return ("train.clip_norm=1",)


@rule(
    definition="A value became infinite, or no number at all.",
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
    told = (
        f"; the loss was {finite[0]:.3g} in the first step and {finite[-1]:.3g} in the last good one" if finite else ""
    )
    remedy = lower_rate(evidence) if finite else sounder_init(evidence)
    yield Finding(
        severity="error",
        layer=bad.layer if bad.layer in evidence.nodes else None,
        step=bad.step,
        evidence=f"{bad.what} became infinite or NaN at step {bad.step}{told}",
        threshold="finite values",
        why="No sum with it is a number any more, so the run is over.",
        remedy=as_remedy(remedy) or "Scale the data: data.normalize=standard.",
    )


# ---------------------------------------------------------------------- units that no longer answer

FEW_UNITS = 3
"""Units below which a share of them means nothing."""

DEAD_SHARE, ALL_DEAD = 0.5, 0.99
"""Share of the units of a layer. Sound ReLU layers have up to 0.3 within a window (Lu et al. 2019)."""


@rule(
    definition="Units are off for every image, so they get no gradient and stay off.",
    formula="share of a layer's units whose output was not above 0 for any image since the watched step before, median "
    f"of the second half above {DEAD_SHARE:.0%}; above 0 where the units are the network's answers",
    source="Lu et al. 2019, Dying ReLU and initialization, arXiv:1903.06733; Maas, Hannun and Ng 2013",
    advice="Lower the learning rate, start from he_normal, or use leaky_relu, which lets some gradient through.",
)
def dead_relu(evidence: Evidence) -> Iterator[Finding]:
    dead = {
        node.name: share
        for node in evidence.graph.nodes
        if node.layer.can_die
        and evidence.graph.shapes[node.name][0] >= FEW_UNITS
        and (share := evidence.record.late_median(node.name, "dead")) is not None
        and share > (0 if node.name == evidence.graph.output else DEAD_SHARE)
    }
    if not dead:
        return
    layer, share = max(dead.items(), key=lambda item: item[1])
    layer = next(name for name, own in dead.items() if own >= min(share, 0.9))
    first = next(
        (step for step, own in evidence.record.series(layer, "dead") if own >= min(dead[layer], DEAD_SHARE)), None
    )
    from_the_start = (
        evidence.start is not None and (found := evidence.start.layers.get(layer)) and found.dead > DEAD_SHARE
    )
    remedy = _revive_units(evidence, layer, from_the_start=bool(from_the_start))
    more = f", and of {len(dead) - 1} more layers" if len(dead) > 2 else ", and of one more layer" * (len(dead) > 1)
    yield Finding(
        severity=_severity(evidence, remedy, shows=layer == evidence.graph.output),
        layer=layer,
        step=first,
        evidence=f"{dead[layer]:.0%} of the {evidence.graph.shapes[layer][0]} units of {layer}{more} are off "
        "for every image" + (" from the start" if from_the_start else ""),
        threshold=f"more than {0 if layer == evidence.graph.output else DEAD_SHARE:.0%}",
        why="A ReLU that is off for every image gets no gradient, and nothing switches it on again.",
        remedy=as_remedy(remedy)
        or "Look at the biases before it, and at where they come from; leaky_relu instead of relu lets "
        "gradient through.",
    )


def _severity(evidence: Evidence, remedy: Sequence[str], *, shows: bool = False) -> Severity:
    """Return how grave it is that units no longer answer: nothing to act on where the others do the work."""
    if evidence.well:
        return "warning" if shows else "info"
    return evidence.verdict(remedy)


def _revive_units(evidence: Evidence, layer: str, *, from_the_start: bool) -> tuple[str, ...]:
    """Return the overrides that keep a layer's units from dying."""
    if layer == evidence.graph.output:
        return with_layers(evidence, [(layer, "=identity")])
    if from_the_start:
        return sounder_init(evidence) or with_layers(evidence, [(layer, "=leaky_relu")])
    return lower_rate(evidence)


SATURATED_SHARE = 0.5
"""Share of a layer's outputs. At a sound start it is below 0.05; sound networks reach 0.3 late in training."""


@rule(
    definition="Sigmoids or tanhs are at the ends of their range, where they are flat.",
    formula="share of a hidden layer's output within 1 % of the range's width of its ends, median of the second half "
    f"above {SATURATED_SHARE:.0%}",
    source="Glorot and Bengio 2010, section 3; LeCun et al. 1998, Efficient BackProp, section 4.4",
    advice="Smaller initial weights (glorot_normal), normalised inputs, a lower learning rate, or relu.",
)
def saturated_activation(evidence: Evidence) -> Iterator[Finding]:
    shares = {
        node.name: share
        for node in evidence.graph.nodes
        if node.layer.saturates
        and node.name != evidence.graph.output
        and (share := evidence.record.late_median(node.name, "saturated")) is not None
        and share > SATURATED_SHARE
    }
    if not shares:
        return
    layer, share = next(iter(shares.items()))
    first = next((step for step, own in evidence.record.series(layer, "saturated") if own > SATURATED_SHARE), None)
    before = evidence.start.layers[layer].saturated if evidence.start and layer in evidence.start.layers else 0.0
    remedy = (sounder_init(evidence) if before > SATURATED_SHARE / 2 else ()) or lower_rate(evidence)
    more = f", and in {len(shares) - 1} more" if len(shares) > 1 else ""
    yield Finding(
        severity=_severity(evidence, remedy),
        layer=layer,
        step=first,
        evidence=f"{share:.0%} of the output of {layer} is at the ends of its range{more}; {before:.0%} was before the "
        "first step",
        threshold=f"more than {SATURATED_SHARE:.0%}",
        why="The slope there is next to 0, so hardly any gradient gets past.",
        remedy=as_remedy(remedy),
    )


# ---------------------------------------------------------------------- updates


@rule(
    definition="The parameters of a layer never change.",
    formula="L2 norm of the change that a step makes to a layer's parameters: 0 in every watched step",
    source="Schoop, Huang and Hartmann 2021, UMLAUT (CHI) and common practice; by definition",
    advice="See whether anything that reaches the output reads the layer, whether a gradient comes back to it "
    "(cnnbp gradcheck), and whether the learning rate is above 0.",
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
    everything = len(frozen) == len(evidence.weighted)
    still = everything and not any(evidence.record.rates)
    if still:
        reason, remedy = (
            "the learning rate is 0",
            as_remedy(best_rate(evidence, higher_rates(evidence)) or higher_rates(evidence)[0]),
        )
    elif stray:
        reason = "nothing that leads to the output reads it"
        remedy = f"Name {first.name}, or what follows it, among the inputs of a layer on the way to the output."
    else:
        zeros = [
            node for node in evidence.weighted if getattr(getattr(node.layer, "init", None), "type", "") == "zeros"
        ]
        reason = "no gradient comes back to it"
        remedy = as_remedy(
            with_layers(evidence, [(node.name, f".init={suitable_init(evidence, node)}") for node in zeros])
        ) or ("Prove the layers behind it with `cnnbp gradcheck`: one of them passes nothing on.")
    more = f", and of {len(frozen) - 1} more," if len(frozen) > 1 else ""
    yield Finding(
        severity="error" if everything or not evidence.well else "warning",
        layer=first.name,
        step=watched[0].step,
        evidence=f"in {len(watched)} steps looked at, {first.name}'s parameters{more} did not change at all: {reason}",
        threshold="any change",
        why="The layer stays what it was drawn as, and the rest has to make do with random features.",
        remedy=remedy,
    )


def _behind_dead(evidence: Evidence, node: Node) -> bool:
    """Return whether ReLUs that are all off lie between a layer and the output, and explain that nothing comes back."""
    off = {
        name
        for name, statistics in (evidence.record.watched[0].layers.items() if evidence.record.watched else ())
        if statistics.dead is not None and statistics.dead > ALL_DEAD
    }
    return bool(off) and node.name not in _reaching(evidence, without=off)


def _reaching(evidence: Evidence, without: set[str] | None = None) -> set[str]:
    """Return the layers whose output reaches the network's, on ways that avoid some layers."""
    found: set[str] = set()
    waiting = [evidence.graph.output]
    while waiting:
        name = waiting.pop()
        if name in found or name in (without or ()):
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
    f"{LARGE_UPDATE:g}, or so small that all planned steps together could change them by less than {FROZEN_CHANGE:.0%}",
    source="Karpathy, CS231n notes, Neural networks part 3 (about 1e-3); You, Gitman and Ginsburg 2017, "
    "arXiv:1708.03888 (trust ratio)",
    advice="Initial weights of a size that suits the layer; then another learning rate.",
)
def update_ratio(evidence: Evidence) -> Iterator[Finding]:
    record = evidence.record
    if len(record.watched) < 2:
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
    if still and not evidence.well:
        layer = min(still, key=lambda name: still[name])
        remedy = _proportionate(evidence, list(still))
        some = len(still) < len(ratios)
        yield Finding(
            severity=evidence.verdict(remedy) if some or remedy not in higher_rates(evidence) else "warning",
            layer=layer,
            evidence=f"a step changes the weights of {layer} by {still[layer]:.1e} of themselves"
            + _others(still)
            + f": at most {still[layer] * growth:.1e} in all {steps:,} planned steps",
            threshold=f"less than {FROZEN_CHANGE:.0%} in all steps",
            why="The layer stays what it was drawn as, however long the training.",
            remedy=as_remedy(remedy),
        )
    elif jumping and not evidence.well:
        layer = max(jumping, key=lambda name: jumping[name])
        remedy = lower_rate(evidence)
        yield Finding(
            severity="warning" if evidence.learns or best_rate(evidence, lower_rates(evidence)) else "error",
            layer=layer,
            evidence=f"a step changes the weights of {layer} by {jumping[layer]:.0%} of themselves{_others(jumping)}",
            threshold=f"more than {LARGE_UPDATE:.0%}",
            why="What earlier steps have learned is overwritten by every new one.",
            remedy=as_remedy(remedy),
        )


def _others(layers: dict[str, float]) -> str:
    return f", and those of {len(layers) - 1} more hardly otherwise" if len(layers) > 1 else ""


LARGE_WEIGHTS = 5.0
"""Weights in units of what the layer's fan-in asks for."""


def _proportionate(evidence: Evidence, layers: Sequence[str]) -> tuple[str, ...]:
    """Return the overrides that make weights smaller where they are too large, else steps longer."""
    heavy = [evidence.nodes[name] for name in layers if _heaviness(evidence, evidence.nodes[name]) > LARGE_WEIGHTS]
    if heavy:
        return with_sound_init(evidence, heavy)
    return best_rate(evidence, higher_rates(evidence)) or higher_rates(evidence)[0]


def _heaviness(evidence: Evidence, node: Node) -> float:
    """Return the norm of a layer's weights divided by what He's initialisation would give them."""
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
    definition="The gradient is clipped in every step, so its size means nothing and steps are shorter than intended.",
    formula=f"the whole gradient's norm above clip_norm in more than {CLIPPED_SHARE:.0%} of the steps of the second "
    f"half; an "
    "error where a training without clipping has clearly more skill",
    source="Pascanu, Mikolov and Bengio 2013, arXiv:1211.5063, section 3.2 (a limit of half to ten times the average "
    "norm)",
    advice="Set clip_norm to some times the median norm, which `cnnbp gradnorms` shows, or leave it out.",
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
    helped = evidence.helps(remedy)
    severity = evidence.verdict(remedy) if typical > TIGHT_CLIPPING * limit or helped else "warning"
    yield Finding(
        severity="info" if evidence.well and typical <= TIGHT_CLIPPING * limit else severity,
        evidence=f"{share:.0%} of the steps are clipped to {limit:g}; the gradient's norm is {number(typical)}, so "
        f"{limit / typical:.2g} of it is left",
        threshold=f"more than {CLIPPED_SHARE:.0%} of the steps",
        why="Every step has the same length then, whatever the slope: the learning rate is not what it says.",
        remedy=as_remedy(remedy),
    )
