"""Rules about the network's structure: activations, heads and losses, batch norm."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cnnbp_cli.core.graph import INPUT, Node
from cnnbp_cli.core.types import Operation
from cnnbp_cli.diagnosis.evidence import Evidence
from cnnbp_cli.diagnosis.facts import Score
from cnnbp_cli.diagnosis.findings import Finding, Severity
from cnnbp_cli.diagnosis.registry import rule
from cnnbp_cli.diagnosis.remedies import as_remedy, width_of, with_inserted, with_layers
from cnnbp_cli.diagnosis.text import percent


@rule(
    definition="A softmax or sigmoid layer doubles the head's, or a softmax lies inside the network.",
    formula="the network ends with a softmax before a softmax head, or with a sigmoid before a sigmoid head, also "
    "behind identity, dropout or flatten; or a softmax lies between layers with weights",
    source="Humbatova et al. 2020, arXiv:1910.11015 (redundant softmax); Islam et al. 2019, arXiv:1906.01388",
    advice="End with plain units: the head applies softmax or sigmoid itself, together with the loss.",
)
def redundant_softmax(evidence: Evidence) -> Iterator[Finding]:
    last, head = evidence.ends_with, evidence.config.model.head
    if _doubles_head(last.layer, head):
        yield Finding(
            severity="error",
            layer=last.name,
            evidence=f"the output of {last.name} lies between 0 and 1, and the {head} head takes it for logits",
            threshold=f"no {last.layer.type} before a {head} head",
            why="Probabilities as logits keep the prediction nearly uniform, the loss high and the gradient small.",
            remedy=as_remedy(with_layers(evidence, [(last.name, "=identity")])),
        )
    for node in evidence.graph.nodes:
        if node.layer.is_distribution and node not in evidence.tail:
            remedy = with_layers(evidence, [(node.name, "=relu")])
            yield Finding(
                severity=evidence.verdict(remedy),
                layer=node.name,
                evidence=f"{node.name} is a softmax over {evidence.graph.shapes[node.name][0]} values inside the "
                "network",
                threshold="no softmax between layers with weights, unless it weights something",
                why="Its outputs add up to 1, so they shrink with the width and pass little gradient.",
                remedy=as_remedy(remedy),
            )


def _doubles_head(layer: Operation[Any], head: str) -> bool:
    """Return whether a layer does already what the head does."""
    match head:
        case "softmax":
            return layer.is_distribution
        case "sigmoid":
            return layer.saturates and layer.output_range() == (0, 1)
        case _:
            return False


RANGE_SLACK = 0.02
"""Of the targets' range: how far it may reach beyond what the output can be."""


@rule(
    definition="The loss, the head or the last activation does not fit what is to be learned.",
    formula="classes learned by squared error, without a head, or with an independent sigmoid each; an activation "
    "between the last weights and the head, also one followed by identity, dropout or flatten; targets outside the "
    "range of the output",
    source="Bishop 2006, Pattern Recognition and Machine Learning, section 4.3 (the canonical link); Humbatova et al. "
    "2020, arXiv:1910.11015 (wrong loss function)",
    advice="Classes: head softmax with cross_entropy. Yes or no: head sigmoid with binary_cross_entropy. Numbers: head "
    "none with mse, and an output that can take all of them.",
)
def loss_head_mismatch(evidence: Evidence) -> Iterator[Finding]:
    yield from _wrong_loss(evidence)
    yield from _wrong_output(evidence)


def _mismatch(
    evidence: Evidence,
    overrides: tuple[str, ...],
    seen: str,
    threshold: str,
    why: str,
    *,
    layer: str | None = None,
    severity: Severity | None = None,
) -> Finding:
    return Finding(
        severity=severity or evidence.verdict(overrides),
        layer=layer,
        evidence=seen,
        threshold=threshold,
        why=why,
        remedy=as_remedy(overrides),
    )


def _loss_key(evidence: Evidence) -> str:
    """Return the key of the loss of the network's output."""
    chosen = [one.layer for one in evidence.config.train.losses]
    return f"train.losses.{chosen.index(evidence.graph.output)}.loss" if chosen else "train.loss"


def _wrong_loss(evidence: Evidence) -> Iterator[Finding]:
    """Classes that are learned as if they were something else."""
    classes = evidence.data.classes if evidence.data else None
    head, loss = evidence.config.model.head, evidence.config.losses[0].loss
    outputs = evidence.graph.shapes[evidence.graph.output][0]
    if not classes:
        return
    others = (f"train.losses.{k}.loss=cross_entropy" for k in range(len(evidence.config.train.losses)))
    to_softmax = ("model.head=softmax", "train.loss=cross_entropy", *others)
    if head == "none":
        overrides: tuple[str, ...] = to_softmax
        if outputs == 1 and (width := width_of(evidence.weighted[-1])):
            overrides += with_layers(evidence, [(evidence.weighted[-1].name, f".{width[0]}={classes}")])
        yield _mismatch(
            evidence,
            overrides,
            f"{classes} classes are learned without a head, by squared error"
            + (" of the class's number" if outputs == 1 else ""),
            "classes need a head",
            "Squared error treats classes as numbers, and punishes an output for being more right than asked.",
            severity="error" if outputs == 1 and classes > 2 else None,
        )
    elif loss == "mse":
        fitting = "cross_entropy" if head == "softmax" else "binary_cross_entropy"
        yield _mismatch(
            evidence,
            (f"{_loss_key(evidence)}={fitting}",),
            f"a {head} head with squared error",
            f"{head} goes with {fitting}",
            "Its gradient vanishes where the head is sure of a wrong answer, just where it is needed most.",
        )
    elif head == "sigmoid" and outputs > 2 and outputs >= classes:
        yield _mismatch(
            evidence,
            to_softmax,
            f"{outputs} independent yes-or-no outputs for {classes} classes that exclude each other",
            "classes that exclude each other share one softmax",
            "Nothing tells the outputs that exactly one of them is right, and most of the first gradient says no.",
        )


def _wrong_output(evidence: Evidence) -> Iterator[Finding]:
    """A last activation that keeps the output from where it has to go."""
    last, head, data = evidence.ends_with, evidence.config.model.head, evidence.data
    if not last.layer.is_activation or _doubles_head(last.layer, head):
        return
    without = with_layers(evidence, [(last.name, "=identity")])
    if head != "none":
        yield _mismatch(
            evidence,
            without,
            f"{last.name} stands between the last weights and the {head} head",
            "no activation between the last weights and a head",
            "The head needs logits of any size and sign; what the activation cuts off cannot be learned.",
            layer=last.name,
        )
        return
    low, high = last.layer.output_range()
    if data is None or data.target_low is None or data.target_high is None:
        return
    slack = RANGE_SLACK * (data.target_high - data.target_low)
    if data.target_low < low - slack or data.target_high > high + slack:
        as_image = evidence.graph.shapes[last.name] == evidence.graph.shapes[INPUT] and (low, high) == (0.0, 1.0)
        yield _mismatch(
            evidence,
            ("data.normalize=unit",) if as_image else without,
            f"targets go from {data.target_low:.3g} to {data.target_high:.3g}, the output of {last.name} from "
            f"{low:g} to {high:g}".replace("inf", "infinity"),
            "an output that can take every target",
            "Targets outside the activation's range cannot be reached, and push it into its flat ends.",
            layer=last.name,
        )


@rule(
    definition="There is no activation between layers with weights, so that several are worth one.",
    formula="no activation anywhere between two layers with weights; an error for classes, which need one",
    source="Goodfellow, Bengio and Courville 2016, Deep Learning, section 6.1 (linear layers compose to "
    "a linear layer); Baldi and Hornik 1989 (a linear autoencoder is a principal component analysis)",
    advice="Put a relu behind every layer with weights but the last.",
)
def no_activation(evidence: Evidence) -> Iterator[Finding]:
    pairs = [(node, after) for node in evidence.weighted for after in _next_weighted(evidence, node)]
    others = [node for node in evidence.graph.nodes if node not in (*evidence.weighted, *evidence.tail)]
    if not pairs or any(not (node.layer.is_linear or node.layer.selects) for node in others):
        return
    pooled = [node.name for node in others if node.layer.selects]
    told = f"; only the maximum of {pooled[0]} is not linear" if pooled else ": the network is linear"
    first = evidence.weighted[0]
    if evidence.learns_numbers:
        severity: Severity = "info" if evidence.learns else "warning"
    else:
        severity = "warning" if pooled and evidence.well else "error"
    yield Finding(
        severity=severity,
        layer=first.name,
        evidence=f"{len(evidence.weighted)} layers with weights and no activation between them{told}",
        threshold="an activation between layers with weights",
        why="A chain of linear layers can do no more than a single one, whatever it costs.",
        remedy=as_remedy(with_inserted(evidence, {node.name for node, _ in pairs}, "relu"))
        or f"Put `- relu` behind {', '.join(node.name for node, _ in pairs[:4])}{', …' * (len(pairs) > 4)}.",
    )


def _next_weighted(evidence: Evidence, node: Node) -> list[Node]:
    """Return the layers with weights that a layer's output reaches through linear layers or maxima alone."""
    found: list[Node] = []
    open_nodes, seen = [node], {node.name}
    while open_nodes:
        for reader in evidence.readers[open_nodes.pop().name]:
            if reader.name in seen:
                continue
            seen.add(reader.name)
            if reader in evidence.weighted:
                found.append(reader)
            elif reader.layer.is_linear or reader.layer.selects:
                open_nodes.append(reader)
    return found


def _batch_norms(evidence: Evidence) -> list[Node]:
    return [node for node in evidence.graph.nodes if node.layer.normalizes and node.layer.mixes_samples]


SMALL_BATCH = 8
"""Images in a batch: below, Wu and He (figure 1) find errors that batch norm causes by itself."""

TINY_BATCH = 4


@rule(
    definition="Batch norm measures its mean and variance on too few images.",
    formula=f"fewer than {SMALL_BATCH} images in a batch, or in the last batch of each epoch fewer than 2",
    source="Wu and He 2018, Group normalization, arXiv:1803.08494, figure 1; Ioffe 2017, arXiv:1702.03275",
    advice="Use larger batches, or layer_norm or group_norm, which look at one image at a time.",
)
def batch_norm_small_batch(evidence: Evidence) -> Iterator[Finding]:
    norms = _batch_norms(evidence)
    if not norms:
        return
    count = evidence.data.count if evidence.data else 0
    size = min(evidence.config.train.batch_size, count or 10**9)
    rest = count % size if count else 0
    if size < SMALL_BATCH:
        overrides = ("train.batch_size=32",)
        yield Finding(
            severity="error" if size <= TINY_BATCH and not evidence.well else evidence.verdict(overrides),
            layer=norms[0].name,
            evidence=f"batches of {size} image{'s' * (size > 1)} with {len(norms)} batch norm "
            f"layer{'s' * (len(norms) > 1)}",
            threshold=f"{SMALL_BATCH} images",
            why="The batch's mean and variance are mostly noise, and differ from the running ones used in evaluation.",
            remedy=as_remedy(overrides),
        )
    elif rest == 1 and any(len(evidence.graph.shapes[node.name]) == 1 for node in norms):
        yield Finding(
            severity="warning",
            layer=norms[0].name,
            evidence=f"the last batch of each epoch has one image ({count:,} images in batches of {size})",
            threshold="two images",
            why="The variance of a single image is 0, so all that is left of its features is the bias.",
            remedy=f"--set train.batch_size={size + 1}",
        )


GAP = 0.15
"""Skill: several times what 500 images leave uncertain."""

STALE_SHARE, FORGETFUL_MOMENTUM = 0.5, 0.5
"""Share of the initial statistics that is left after all planned steps; momentum below which two batches are all that
the running statistics know."""

LAGGING_SHARE, SLOW_MOMENTUM = 1 / 3, 0.99
"""The same after the steps made so far, and the momentum above which a hundred steps change little."""


@rule(
    definition="The network is good with the batch's own statistics and bad with the running ones.",
    formula="skill on the same training images with the batch's statistics minus that in evaluation mode, above "
    f"{GAP:g}; or momentum to the power of all planned steps above {STALE_SHARE:g}",
    source="Ioffe and Szegedy 2015, arXiv:1502.03167, algorithm 2; Wu and Johnson 2021, Rethinking 'batch' in "
    "BatchNorm, arXiv:2105.07576, section 3",
    advice="momentum is the share of the old value that stays: with 0.9 the statistics follow within 20 steps. Other "
    "frameworks call 1 minus that number momentum.",
)
def batch_norm_train_eval_gap(evidence: Evidence) -> Iterator[Finding]:
    batch, running = evidence.record.batch_mode, evidence.record.train
    norms = _batch_norms(evidence)
    if batch is None or running is None or not norms:
        return
    gap = batch.skill - running.skill
    adjustable = [node for node in norms if hasattr(node.layer, "momentum")]
    stale = [node for node in adjustable if _momentum(node) ** max(1, evidence.record.planned) > STALE_SHARE]
    if gap <= GAP and not stale:
        return
    unusual = [n for n in adjustable if _lags(n, evidence.record.steps) or _momentum(n) < FORGETFUL_MOMENTUM]
    overrides = with_layers(evidence, [(node.name, ".momentum=0.9") for node in unusual or stale])
    odd = f"; momentum is {_momentum(unusual[0]):g}" if unusual else ""
    left = _momentum(stale[0]) ** evidence.record.planned if stale else 0.0
    kept = f"; {percent(left)} of their initial values will be left" if stale else ""
    yield Finding(
        severity="error" if gap > GAP and batch.skill >= GAP else "warning",
        layer=(unusual or norms)[0].name,
        step=evidence.record.steps,
        evidence=f"on the same training images: {_told(batch)} with the batch's statistics, {_told(running)} with the "
        f"running ones{odd}{kept}",
        threshold=f"a skill lower by more than {GAP:g}, or more than {percent(STALE_SHARE)} left of the initial values",
        why="Evaluation and predictions use the running statistics, so what was learned does not reach them.",
        remedy=as_remedy(overrides)
        or "Use larger batches and a lower learning rate, so that running statistics can follow.",
    )


def _lags(node: Node, steps: int) -> bool:
    """Return whether much of what the layer started with is still in its running statistics."""
    return _momentum(node) ** max(1, steps) > LAGGING_SHARE or _momentum(node) > SLOW_MOMENTUM


def _momentum(node: Node) -> float:
    return float(getattr(node.layer, "momentum", 0.9))


def _told(score: Score) -> str:
    return f"accuracy {percent(score.accuracy)}" if score.accuracy is not None else f"loss {score.loss:.3g}"
