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
from cnnbp_cli.diagnosis.remedies import as_remedy, with_layers


@rule(
    definition="A softmax layer stands where the head, or the next layer, would rather have its input.",
    formula="the output is a softmax before a softmax head, or a sigmoid before a sigmoid head; or a softmax lies "
    "between layers with weights",
    source="Humbatova et al. 2020, arXiv:1910.11015 (redundant softmax); Islam et al. 2019, arXiv:1906.01388",
    advice="End with plain units: the head applies softmax or sigmoid itself, together with the loss.",
)
def redundant_softmax(evidence: Evidence) -> Iterator[Finding]:
    output = evidence.nodes[evidence.graph.output]
    head = evidence.config.model.head
    if _doubles_head(output.layer, head):
        remedy = with_layers(evidence, [(output.name, "=identity")])
        yield Finding(
            severity="error",
            layer=output.name,
            evidence=f"the output of {output.name} lies between 0 and 1, and the {head} head takes it for logits",
            threshold=f"no {output.layer.type} right before a {head} head",
            why="Probabilities as logits keep the prediction close to uniform, the loss far above 0, and the gradient "
            "small.",
            remedy=as_remedy(remedy),
        )
    for node in evidence.graph.nodes:
        if node.layer.is_distribution and node is not output:
            remedy = with_layers(evidence, [(node.name, "=relu")])
            yield Finding(
                severity=evidence.verdict(remedy),
                layer=node.name,
                evidence=f"{node.name} is a softmax over {evidence.graph.shapes[node.name][0]} values inside the "
                f"network",
                threshold="no softmax between layers with weights, unless it weighs something",
                why="Its outputs share a sum of 1, so they shrink with the width and pass on little gradient.",
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
    definition="The loss, the head or the last activation do not fit what is to be learned.",
    formula="classes learned by squared error, without a head, or with an independent sigmoid each; an activation "
    "between the last weights and the head; targets outside the range of the output",
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
    remedy: str | None = None,
) -> Finding:
    return Finding(
        severity=severity or evidence.verdict(overrides),
        layer=layer,
        evidence=seen,
        threshold=threshold,
        why=why,
        remedy=remedy or as_remedy(overrides),
    )


def _wrong_loss(evidence: Evidence) -> Iterator[Finding]:
    """Classes that are learned as if they were something else."""
    classes = evidence.data.classes if evidence.data else None
    head, loss = evidence.config.model.head, evidence.config.train.loss
    outputs = evidence.graph.shapes[evidence.graph.output][0]
    if not classes:
        return
    if head == "none":
        overrides: tuple[str, ...] = ("model.head=softmax", "train.loss=cross_entropy")
        if outputs == 1:
            last = evidence.weighted[-1].name
            field = "filters" if hasattr(evidence.nodes[last].layer, "filters") else "units"
            overrides = (*overrides, *with_layers(evidence, [(last, f".{field}={classes}")]))
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
            (f"train.loss={fitting}",),
            f"a {head} head with squared error",
            f"{head} goes with {fitting}",
            "Its gradient vanishes where the head is sure of a wrong answer, just where it is needed most.",
        )
    elif head == "sigmoid" and outputs > 2 and outputs >= classes:
        overrides = ("model.head=softmax", "train.loss=cross_entropy")
        severity = evidence.verdict(overrides)
        yield _mismatch(
            evidence,
            overrides,
            f"{outputs} independent yes-or-no outputs for {classes} classes that exclude each other",
            "classes that exclude each other share one softmax",
            "Nothing tells the outputs that exactly one of them is right, and most of the first gradient says no.",
            severity=severity,
        )


def _wrong_output(evidence: Evidence) -> Iterator[Finding]:
    """A last activation that keeps the output from where it has to go."""
    output = evidence.nodes[evidence.graph.output]
    head, data = evidence.config.model.head, evidence.data
    low, high = output.layer.output_range()
    if head != "none":
        if output.layer.is_activation and not _doubles_head(output.layer, head):
            overrides = with_layers(evidence, [(output.name, "=identity")])
            yield _mismatch(
                evidence,
                overrides,
                f"{output.name} stands between the last weights and the {head} head",
                "no activation right before a head",
                "The head needs logits of any size and sign; what the activation cuts off can be neither said nor "
                "learned.",
                layer=output.name,
            )
        return
    if data is None or data.target_low is None or data.target_high is None:
        return
    slack = RANGE_SLACK * (data.target_high - data.target_low)
    if data.target_low < low - slack or data.target_high > high + slack:
        as_image = evidence.graph.shapes[output.name] == evidence.graph.shapes[INPUT] and (low, high) == (0.0, 1.0)
        overrides = ("data.normalize=unit",) if as_image else with_layers(evidence, [(output.name, "=identity")])
        yield _mismatch(
            evidence,
            overrides,
            f"targets go from {data.target_low:.3g} to {data.target_high:.3g}, the output of {output.name} from "
            f"{low:g} to {high:g}",
            "an output that can take every target",
            "What lies outside the activation's range cannot be reached, and pushes it into its flat ends.",
            layer=output.name,
        )


@rule(
    definition="Nothing between the layers with weights bends the signal, so that several are worth one.",
    formula="no activation anywhere between two layers with weights",
    source="Goodfellow, Bengio and Courville 2016, Deep Learning, section 6.1 (linear layers compose to "
    "a linear layer)",
    advice="Put a relu behind every layer with weights but the last.",
)
def no_activation(evidence: Evidence) -> Iterator[Finding]:
    if len(evidence.weighted) < 2:
        return
    pairs = [(node, after) for node in evidence.weighted for after in _next_weighted(evidence, node)]
    if not pairs or not all(node.layer.is_linear or node.layer.selects for node in evidence.graph.nodes):
        return
    pooled = [node.name for node in evidence.graph.nodes if node.layer.selects]
    told = f"; only the maximum of {pooled[0]} bends it" if pooled else ", so the network is linear"
    first = evidence.weighted[0]
    yield Finding(
        severity="warning" if pooled and evidence.well else "error",
        layer=first.name,
        evidence=f"{len(evidence.weighted)} layers with weights and no activation between them{told}",
        threshold="an activation between layers with weights",
        why="A chain of linear layers can do no more than a single one, whatever it costs.",
        remedy=f"Put `- relu` behind {', '.join(node.name for node, _ in pairs[:4])}{', …' * (len(pairs) > 4)}.",
    )


def _next_weighted(evidence: Evidence, node: Node) -> list[Node]:
    """Return the layers with weights that a layer's output reaches through linear layers alone."""
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
            evidence=f"batches of {size} {'image' if size == 1 else 'images'} with batch norm in {len(norms)} "
            f"{'place' if len(norms) == 1 else 'places'}",
            threshold=f"{SMALL_BATCH} images",
            why="The batch's mean and variance are noise then, and differ from the running ones that evaluation uses.",
            remedy=as_remedy(overrides),
        )
    elif rest == 1 and any(len(evidence.graph.shapes[node.name]) == 1 for node in norms):
        yield Finding(
            severity="warning",
            layer=norms[0].name,
            evidence=f"the last of each epoch's batches has one image ({count:,} images in batches of {size})",
            threshold="two images",
            why="The variance of a single image is 0: its features all become the bias.",
            remedy=f"--set train.batch_size={size + 1}",
        )


GAP = 0.15
"""Skill: several times what 500 images leave uncertain."""

STALE_SHARE, FORGETFUL_MOMENTUM = 0.5, 0.5
"""Share of the initial statistics that is left after all planned steps; momentum below which two batches are all that
the running statistics know."""


@rule(
    definition="The network is good with the batch's own statistics and bad with the running ones.",
    formula="skill on the same training images with the batch's statistics less that in evaluation mode, above "
    f"{GAP:g}; or momentum to the power of all planned steps above {STALE_SHARE:g}",
    source="Ioffe and Szegedy 2015, arXiv:1502.03167, algorithm 2; Wu and Johnson 2021, Rethinking 'batch' in "
    "BatchNorm, arXiv:2105.07576, section 3",
    advice="momentum is the share of the old that stays: 0.9 follows in 20 steps. Other frameworks call 1 less that "
    "number momentum.",
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
    unusual = [
        node for node in adjustable if _lags(node, evidence.record.steps) or _momentum(node) < FORGETFUL_MOMENTUM
    ]
    overrides = with_layers(evidence, [(node.name, ".momentum=0.9") for node in unusual or stale])
    odd = f"; momentum is {_momentum(unusual[0]):g}" if unusual else ""
    kept = (
        f"; {_momentum(stale[0]) ** evidence.record.planned:.0%} of what they started as will be left" if stale else ""
    )
    yield Finding(
        severity="error" if gap > GAP and batch.skill >= GAP else "warning",
        layer=(unusual or norms)[0].name,
        step=evidence.record.steps,
        evidence=f"on the same training images: {_told(batch)} with the batch's statistics, {_told(running)} with the "
        f"running ones{odd}{kept}",
        threshold=f"a skill lower by more than {GAP:g}, or more than {STALE_SHARE:.0%} left of the start",
        why="Evaluation, tests and predictions use the running statistics, so what was learned is lost to them.",
        remedy=as_remedy(overrides)
        or "Use larger batches and a lower learning rate, so that running statistics can follow.",
    )


def _lags(node: Node, steps: int) -> bool:
    """Return whether more than a third of what the layer started with is still in its running statistics."""
    return _momentum(node) ** max(1, steps) > 1 / 3 or _momentum(node) > 0.99


def _momentum(node: Node) -> float:
    return float(getattr(node.layer, "momentum", 0.9))


def _told(score: Score) -> str:
    return f"accuracy {score.accuracy:.0%}" if score.accuracy is not None else f"loss {score.loss:.3g}"
