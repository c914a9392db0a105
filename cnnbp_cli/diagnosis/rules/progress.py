"""Rules about the loss on its way down, and the steps that bring it there."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, isfinite, prod
from statistics import mean, median, quantiles

from cnnbp_cli.core.optim import Sgd
from cnnbp_cli.diagnosis.evidence import FEW_STEPS, Evidence
from cnnbp_cli.diagnosis.findings import Finding
from cnnbp_cli.diagnosis.registry import rule
from cnnbp_cli.diagnosis.remedies import as_remedy, best_rate, higher_rates, lower_rate, lower_rates, number, rate_of

SMALL_DECREASE = 0.05
"""Share of the loss: what a network without any use for the images gains by learning how frequent the classes are."""


@rule(
    definition="The loss at the end is that of the beginning, or that of an answer which does not look at the image.",
    formula=f"median loss of the last tenth of the steps within {SMALL_DECREASE:.0%} of that of the first tenth, "
    "or of the best "
    "constant answer's",
    source="Karpathy 2019, A recipe for training neural networks (an input-independent baseline)",
    advice="See what else was found: this is a symptom. Prove that data and labels belong together, that "
    "a single batch "
    "can be learned by heart, and that every layer gets a gradient.",
)
def loss_not_falling(evidence: Evidence) -> Iterator[Finding]:
    record = evidence.record
    if evidence.well or record.bad or record.steps < FEW_STEPS:
        return
    first, last = record.early_loss, record.last_loss
    constant = evidence.data.constant_loss if evidence.data else None
    still = last > (1 - SMALL_DECREASE) * first
    blind = bool(constant) and constant is not None and abs(last - constant) <= SMALL_DECREASE * constant
    if not still and not blind:
        return
    told = f"; the best answer that ignores the image has {constant:.3g}" if constant else ""
    yield Finding(
        severity=evidence.symptom(),
        step=record.steps,
        evidence=f"the loss is {first:.4g} in the first steps and {last:.4g} in the last of {record.steps}{told}",
        threshold=f"{SMALL_DECREASE:.0%} below either",
        why="As long as the loss stays there, the network has found nothing in the images that tells about the labels.",
        remedy=as_remedy(best_rate(evidence, [*higher_rates(evidence), *lower_rates(evidence)]))
        or "Mend what else was found; if nothing was, compare some images with their labels by eye.",
    )


DIVERGING_RATIO = 2.0
"""Loss at the end divided by that at the start: batches of the same network differ by less."""

STILL_GROWING = 1.2
"""Loss at the end divided by that of the second quarter, where it still grows: after a single jump it does not."""

UPHILL_SLOPE = -0.3
"""Slope of the loss down its own gradient: 1 for a right gradient, -1 for one with the wrong sign."""


@rule(
    definition="The loss grows, or falls without an end.",
    formula=f"median loss of the last tenth of the steps above {DIVERGING_RATIO:g} times both the first loss and a "
    f"constant "
    f"answer's, and above {STILL_GROWING:g} times that of the second quarter; or the loss rises down its own "
    f"gradient (slope below {UPHILL_SLOPE:g}); or it is below 0",
    source="LeCun et al. 1998, Efficient BackProp, section 4.6 (steps beyond twice the inverse curvature diverge)",
    advice="Lower the learning rate. A loss that rises down its own gradient, or falls below 0, has the wrong sign.",
)
def diverging_loss(evidence: Evidence) -> Iterator[Finding]:
    record, start = evidence.record, evidence.start
    if start and start.slope is not None and start.slope < UPHILL_SLOPE and not evidence.well:
        yield _diverging(
            evidence,
            1,
            f"a small step down the gradient changes the fresh network's loss by {-start.slope:+.2f} of what it should "
            "take away",
            f"a slope below {UPHILL_SLOPE:g}",
            "The gradient points uphill, so every step makes the network worse.",
            "Turn the sign of the loss, or of its gradient: `cnnbp gradcheck` shows which of them is wrong.",
        )
        return
    finite = [loss for loss in record.losses if isfinite(loss)]
    if not finite:
        return
    last = median(finite[-record.window :])
    if last < 0:
        yield _diverging(
            evidence,
            next(step for step, loss in enumerate(record.losses, 1) if loss < 0),
            f"the loss falls to {last:.3g}",
            "a loss below 0",
            "Neither cross-entropy nor squared error can be negative: the network is rewarded for being wrong.",
            "Turn the sign of the loss, and of its gradient with it.",
        )
        return
    constant = evidence.data.constant_loss if evidence.data else 0.0
    limit = DIVERGING_RATIO * max(finite[0], constant)
    middle = median(finite[len(finite) // 4 : len(finite) // 2 + 1])
    if record.steps >= FEW_STEPS // 2 and last > limit and last > STILL_GROWING * middle:
        step = next(step for step, loss in enumerate(record.losses, 1) if loss > limit)
        yield _diverging(
            evidence,
            step,
            f"the loss is {finite[0]:.3g} in the first step and {last:.3g} in the last ones",
            f"more than {limit:.3g}",
            "Steps that are longer than the curvature allows overshoot, each by more than the one before.",
            as_remedy(lower_rate(evidence)) or "",
        )


def _diverging(evidence: Evidence, step: int, seen: str, threshold: str, why: str, remedy: str) -> Finding:
    return Finding(
        severity="warning" if evidence.well else "error",
        step=step,
        evidence=seen,
        threshold=threshold,
        why=why,
        remedy=remedy,
    )


LARGE_SWING = 0.5
"""Of a constant answer's loss. Sound runs that have not learned yet swing by less than 0.2 from noise alone."""

IMAGES = 32
"""Losses are averaged over about so many images, so that small batches may be as noisy as they are."""


@rule(
    definition="The loss jumps up and down and gets nowhere.",
    formula=f"in the second half, the losses' 9th decile less their 1st, means over at least {IMAGES} images, above "
    f"{LARGE_SWING:g} times the loss of a constant answer, or their own median if that is larger",
    source="LeCun et al. 1998, Efficient BackProp, section 4.6; Goodfellow, Bengio and Courville 2016, section 8.3.1",
    advice="Lower the learning rate, or use larger batches.",
)
def oscillating_loss(evidence: Evidence) -> Iterator[Finding]:
    swing = _swing(evidence)
    if swing is None or not _is_rough(evidence) or evidence.well or not any(evidence.record.rates):
        return
    low, high = swing
    remedy = lower_rate(evidence)
    yield Finding(
        severity="error" if best_rate(evidence, lower_rates(evidence)) else evidence.verdict(remedy),
        step=evidence.record.steps // 2,
        evidence=f"in the second half of {evidence.record.steps} steps the loss goes from {low:.3g} to {high:.3g} "
        f"and back",
        threshold=f"a swing above {LARGE_SWING * _level(evidence):.3g}",
        why="Each step undoes what the one before has learned: they are too long, or their batches too small.",
        remedy=as_remedy(remedy),
    )


def _swing(evidence: Evidence) -> tuple[float, float] | None:
    """Return the 1st and the 9th decile of the second half's losses; None where there are too few."""
    record = evidence.record
    size = max(1, ceil(IMAGES / evidence.config.train.batch_size))
    losses = [loss for loss in record.losses[record.steps // 2 :] if isfinite(loss)]
    means = [mean(losses[k : k + size]) for k in range(0, len(losses) - size + 1, size)]
    if record.steps < FEW_STEPS or len(means) < 5:
        return None
    deciles = quantiles(means, n=10)
    return deciles[0], deciles[-1]


def _level(evidence: Evidence) -> float:
    """Return the loss that swings are measured by: a constant answer's, or where it hovers, if that is higher."""
    record = evidence.record
    late = [loss for loss in record.losses[record.steps // 2 :] if isfinite(loss)]
    return max(median(late) if late else 0.0, evidence.data.constant_loss if evidence.data else 0.0)


def _is_rough(evidence: Evidence) -> bool:
    swing = _swing(evidence)
    return swing is not None and swing[1] - swing[0] > LARGE_SWING * _level(evidence)


# ---------------------------------------------------------------------- learning rates

LARGE_STEP, SMALL_STEP = 0.03, 1e-3
"""Change of the weights in a step, as a share of them. Sound runs have 1e-4 to 1e-2."""

RATE_TRIALS = 4, 3
"""Rates that are tried in the likelier direction, and in the other."""


def next_rates(evidence: Evidence) -> tuple[str, ...]:
    """Return the overrides of the learning rate to try next; nothing where enough was tried.

    The likelier direction comes first, in powers of ten, until a trial does well.
    """
    if evidence.solved:
        return ()
    ways = [lower_rates(evidence), higher_rates(evidence)]
    if not _steps_are_long(evidence):
        ways.reverse()
    for overrides in [*ways[0][: RATE_TRIALS[0]], *ways[1][: RATE_TRIALS[1]]]:
        if overrides not in evidence.trials:
            return overrides
    return ()


def _steps_are_long(evidence: Evidence) -> bool:
    """Return whether the steps look too long rather than too short."""
    record = evidence.record
    if record.bad or _is_rough(evidence) or record.last_loss > DIVERGING_RATIO * record.first_loss:
        return True
    ratio = _typical_ratio(evidence)
    return ratio is not None and ratio > LARGE_STEP


def _typical_ratio(evidence: Evidence) -> float | None:
    """Return by which share a step changes the weights of a layer: the median over layers and watched steps."""
    values = [
        statistics.ratio
        for watched in evidence.record.watched
        for _, statistics in evidence.statistics(watched)
        if statistics.ratio is not None and isfinite(statistics.ratio)
    ]
    return median(values) if values else None


@rule(
    definition="The steps are too long for the network to settle anywhere.",
    formula="a training with a tenth of the learning rate or less, that is otherwise the same, has clearly more skill; "
    f"in a recorded run: it does not learn, and a step changes the weights by more than {LARGE_STEP:.0%}, or the "
    f"loss grows",
    source="Bengio 2012, Practical recommendations for gradient-based training, arXiv:1206.5533, section 3.3.1; "
    "Goodfellow, Bengio and Courville 2016, section 11.4.1",
    advice="Lower the learning rate until the loss falls, or warm up.",
)
def learning_rate_too_high(evidence: Evidence) -> Iterator[Finding]:
    if evidence.well:
        return
    record = evidence.record
    remedy = best_rate(evidence, lower_rates(evidence))
    if remedy:
        told = f"; {_told(remedy)} the skill is {evidence.trials[remedy].skill:.0%} instead of {record.skill:.0%}"
    elif (
        evidence.is_run
        and not evidence.learns
        and record.steps >= FEW_STEPS
        and _steps_are_long(evidence)
        and rate_of(evidence)
    ):
        remedy, told = lower_rate(evidence), ""
    else:
        return
    ratio = _typical_ratio(evidence)
    step = f", a step changes the weights by {ratio:.1%}" if ratio is not None and isfinite(ratio) else ""
    yield Finding(
        severity="error",
        evidence=f"the learning rate is up to {number(rate_of(evidence))}{step}{told}",
        threshold="a tenth of it learns clearly more"
        if told
        else f"a change above {LARGE_STEP:.0%}, or a growing loss",
        why="Steps that overshoot throw away what was learned before, or drive units where no gradient reaches them.",
        remedy=as_remedy(remedy),
    )


@rule(
    definition="The steps are too short to get anywhere in the steps that there are.",
    formula="a training with ten times the learning rate or more, that is otherwise the same, has clearly more skill, "
    "and the sum of its learning rates is more than the config plans in all its steps; in a recorded run: it does not "
    f"learn, and a step changes the weights by less than {SMALL_STEP:.1%}",
    source="Bengio 2012, arXiv:1206.5533, section 3.3.1; Goodfellow, Bengio and Courville 2016, section 11.4.1",
    advice="Raise the learning rate until the loss falls within the first hundred steps.",
)
def learning_rate_too_low(evidence: Evidence) -> Iterator[Finding]:
    record = evidence.record
    if evidence.well or record.bad:
        return
    # A trial with longer steps shows what more of the config's own steps would bring.
    due = [
        o
        for o in higher_rates(evidence)
        if o in evidence.trials and sum(evidence.trials[o].rates) > record.planned_rates
    ]
    remedy = best_rate(evidence, due)
    ratio = _typical_ratio(evidence)
    if remedy:
        told = f"; {_told(remedy)} the skill is {evidence.trials[remedy].skill:.0%} instead of {record.skill:.0%}"
    elif (
        evidence.is_run
        and not evidence.learns
        and record.steps >= FEW_STEPS
        and ratio is not None
        and ratio < SMALL_STEP
    ):
        remedy, told = higher_rates(evidence)[0], ""
    else:
        return
    step = f", a step changes the weights by {ratio:.1e} of themselves" if ratio is not None else ""
    yield Finding(
        severity="error" if max(record.planned, record.steps) >= FEW_STEPS else "warning",  # else the run is short
        evidence=f"the learning rate is up to {number(rate_of(evidence))}{step}{told}",
        threshold="ten times as much learns clearly more" if told else f"a change below {SMALL_STEP:.1%}",
        why="At this pace the weights are still about where they were drawn when the run is over.",
        remedy=as_remedy(remedy),
    )


def _told(overrides: tuple[str, ...]) -> str:
    return "with " + " and ".join(override.removeprefix("train.") for override in overrides)


LARGE_EPSILON = 1.0
"""Epsilon divided by the gradient's root mean square: above, it outweighs what it should only protect."""

SMALLEST_EPSILON = {"float32": 1e-23, "float64": 1e-160}
"""Gradients below square to less than the smallest number of the type."""


@rule(
    definition="The optimizer's epsilon drowns the gradient, or is too small to protect from a division by 0.",
    formula=f"epsilon above {LARGE_EPSILON:g} times the gradient's root mean square, or so small that it is nothing "
    f"beside "
    f"the root of the smallest square ({SMALLEST_EPSILON['float32']:g} in float32)",
    source="Kingma and Ba 2015, arXiv:1412.6980, algorithm 1 (1e-8); Choi et al. 2019, arXiv:1910.05446 (epsilon as a "
    "setting); Humbatova et al. 2020, arXiv:1910.11015",
    advice="Leave epsilon at its default.",
)
def absurd_epsilon(evidence: Evidence) -> Iterator[Finding]:
    optimizer = evidence.config.train.optimizer
    if isinstance(optimizer, Sgd):  # it has no epsilon
        return
    usual = type(optimizer)().epsilon
    remedy = (f"train.optimizer.epsilon={number(usual)}",)
    tiny = SMALLEST_EPSILON[evidence.config.dtype]
    if optimizer.epsilon < tiny:
        yield Finding(
            severity=evidence.verdict(remedy),
            evidence=f"epsilon is {optimizer.epsilon:g}"
            + (f"; values went bad at step {evidence.record.bad.step}" if evidence.record.bad else ""),
            threshold=f"at least {tiny:g} in {evidence.config.dtype}",
            why="A parameter that has had no gradient yet is changed by 0/0, which is no number.",
            remedy=as_remedy(remedy),
        )
        return
    size = _gradient_size(evidence)
    if size is not None and optimizer.epsilon > max(LARGE_EPSILON * size, 1e3 * usual):
        yield Finding(
            severity=evidence.verdict(remedy),
            evidence=f"epsilon is {optimizer.epsilon:g}, the gradient's root mean square {size:.2g}",
            threshold=f"above {LARGE_EPSILON:g} times the gradient",
            why="Dividing by epsilon instead of the gradient's own size leaves steps as small as the gradient is.",
            remedy=as_remedy(remedy),
        )


def _gradient_size(evidence: Evidence) -> float | None:
    """Return the root mean square of a typical step's gradient."""
    count = sum(prod(shape) for shapes in evidence.graph.param_shapes.values() for shape in shapes.values())
    norms = [norm for norm in evidence.record.norms if isfinite(norm)]
    return median(norms) / count**0.5 if norms and count else None
