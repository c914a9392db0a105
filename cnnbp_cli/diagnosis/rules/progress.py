"""Rules about the loss on its way down, and the steps that bring it there."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, isfinite
from statistics import mean, median, quantiles

from cnnbp_cli.core.optim import Adam, AdamW, Sgd
from cnnbp_cli.diagnosis.evidence import FEW_STEPS, SMALL_GAIN, Evidence, is_rate
from cnnbp_cli.diagnosis.findings import Finding
from cnnbp_cli.diagnosis.registry import rule
from cnnbp_cli.diagnosis.remedies import (
    as_remedy,
    better_rate,
    higher_rate,
    higher_rates,
    is_held_back,
    lower_rate,
    lower_rates,
    rate_of,
    seeing_more,
    skipping,
)
from cnnbp_cli.diagnosis.text import number, percent

SMALL_DECREASE = 0.05
"""Share of the loss: what a network without any use for the images gains by learning how frequent the classes are."""


@rule(
    definition="The loss does not fall, or not below that of an answer that ignores the image.",
    formula=f"median loss of the last tenth of the steps within {percent(SMALL_DECREASE)} of that of the first tenth, "
    "or of the best constant answer's",
    source="Karpathy 2019, A recipe for training neural networks (an input-independent baseline)",
    advice="This is a symptom: fix what else was found. If nothing was, check that images and labels belong together, "
    "that a single batch can be overfitted, that no stride jumps over most of the pixels, and that every layer gets a "
    "gradient.",
)
def loss_not_falling(evidence: Evidence) -> Iterator[Finding]:
    record = evidence.record
    if evidence.well or record.bad or record.steps < FEW_STEPS:
        return
    first, last = record.early_loss, record.last_loss
    constant = evidence.data.constant_loss if evidence.data else 0.0
    still = last > (1 - SMALL_DECREASE) * first
    blind = constant > 0 and abs(last - constant) <= SMALL_DECREASE * constant
    if not still and not blind:
        return
    told = f"; the best answer that ignores the image has {constant:.3g}" if constant else ""
    blind_layers, more = skipping(evidence), seeing_more(evidence)
    if blind_layers and evidence.start:
        told += f"; strides beyond the kernel leave {percent(evidence.start.unseen)} of the pixels unread"
    helps = evidence.helps(more) if more else False
    yield Finding(
        severity="error" if helps else evidence.symptom(),
        layer=blind_layers[0][0].name if blind_layers else None,
        step=record.steps,
        evidence=f"the loss is {first:.4g} in the first steps and {last:.4g} in the last of {record.steps:,}{told}",
        threshold=f"{percent(SMALL_DECREASE)} below either",
        why="The network has found nothing in the images that tells about the labels.",
        remedy=as_remedy(better_rate(evidence) if helps is False else more)
        or "Compare some images with their labels by eye.",
    )


DIVERGING_RATIO = 2.0
"""Loss at the end divided by that at the start: batches of the same network differ by less."""

LEAP = 10.0
"""The same of two in three steps, at any time: noise and warm-up stay below 3."""

STILL_GROWING = 1.2
"""Loss at the end divided by that of the second quarter, where it still grows: after a single jump it does not."""

UPHILL_SLOPE = -0.3
"""Slope of the loss down its own gradient: 1 for a right gradient, -1 for one with the wrong sign."""


@rule(
    definition="The loss grows, or falls without limit.",
    formula=f"median loss of the last tenth of the steps above {DIVERGING_RATIO:g} times both the first loss and a "
    f"constant answer's, and above {STILL_GROWING:g} times that of the second quarter; or two of three steps above "
    f"{LEAP:g} times both, where the network does not do well; or the loss rises down its own "
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
            f"a small step down the gradient raises the fresh network's loss, by {-start.slope:.2f} of what it should "
            "lower it by",
            f"a slope below {UPHILL_SLOPE:g}",
            "The gradient points uphill, so every step makes the network worse.",
            "Flip the sign of the loss, or of its gradient: `cnnbp gradcheck` shows which of them is wrong.",
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
            "Flip the sign of the loss, and of its gradient with it.",
        )
        return
    constant = evidence.data.constant_loss if evidence.data else 0.0
    limit = DIVERGING_RATIO * max(finite[0], constant)
    middle = median(finite[len(finite) // 4 : len(finite) // 2 + 1])
    grows = last > limit and last > STILL_GROWING * middle
    peak = max(map(median, zip(finite, finite[1:], finite[2:], strict=False)), default=0.0)
    leaps = peak > LEAP * max(finite[0], constant) and not evidence.well
    if record.steps >= FEW_STEPS // 2 and (grows or leaps):
        yield _diverging(
            evidence,
            next(step for step, loss in enumerate(record.losses, 1) if loss > limit),
            f"the loss is {finite[0]:.3g} in the first step and {last:.3g} in the last ones"
            if grows
            else f"the loss is {finite[0]:.3g} in the first step and leaps to {peak:.3g}",
            f"more than {limit if grows else LEAP * max(finite[0], constant):.3g}",
            "Steps that are larger than the curvature allows overshoot, each by more than the one before.",
            as_remedy(lower_rate(evidence)) or "Look at the first step at which the loss rises: `cnnbp gradnorms`.",
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
    definition="The loss jumps up and down and makes no progress.",
    formula=f"in the second half, the losses' 9th decile minus their 1st, means over at least {IMAGES} images, above "
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
        severity="error" if better_rate(evidence) else evidence.verdict(remedy),
        step=evidence.record.steps // 2,
        evidence=f"in the second half of {evidence.record.steps:,} steps the loss goes back and forth between "
        f"{low:.3g} and {high:.3g}",
        threshold=f"a swing above {LARGE_SWING * _level(evidence):.3g}",
        why="Each step undoes what the one before has learned: steps are too large, or batches too small.",
        remedy=as_remedy(remedy) or "Use larger batches.",
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

    The likelier direction comes first, in powers of ten, until a trial does well. A network that does well already is
    tried with the next rate on either side.
    """
    if evidence.solved:
        return ()
    ways = [lower_rates(evidence), higher_rates(evidence)]
    if not _steps_are_large(evidence):
        ways.reverse()
    first, second = (1, 1) if evidence.well else RATE_TRIALS
    for overrides in [*ways[0][:first], *ways[1][:second]]:
        if overrides not in evidence.trials:
            return overrides
    return ()


def _steps_are_large(evidence: Evidence) -> bool:
    """Return whether the steps look too large rather than too small."""
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


def _is_stuck(evidence: Evidence) -> bool:
    """Return whether a run does not learn, of which nothing could be tried: only its own figures can tell why."""
    untried = evidence.is_run and not evidence.trials
    return untried and not evidence.learns and evidence.record.steps >= FEW_STEPS and rate_of(evidence) > 0


@rule(
    definition="The steps are too large for the network to settle.",
    formula="a training with a tenth of the learning rate or less, that is otherwise the same, has clearly more skill; "
    f"in a run that nothing can be tried with: it does not learn, and a step changes the weights by more than "
    f"{percent(LARGE_STEP)}, or the loss grows",
    source="Bengio 2012, Practical recommendations for gradient-based training, arXiv:1206.5533, section 3.3.1; "
    "Goodfellow, Bengio and Courville 2016, section 11.4.1",
    advice="Lower the learning rate until the loss falls, or warm up.",
)
def learning_rate_too_high(evidence: Evidence) -> Iterator[Finding]:
    remedy = better_rate(evidence)
    if remedy in lower_rates(evidence):
        told, threshold = _comparison(evidence, remedy), "a tenth of it or less learns clearly more"
    elif _is_stuck(evidence) and _steps_are_large(evidence):
        remedy, told, threshold = lower_rate(evidence), "", f"a change above {percent(LARGE_STEP)}, or a growing loss"
    else:
        return
    ratio = _typical_ratio(evidence)
    step = f", and a step changes the weights by {percent(ratio)}" if ratio is not None else ""
    yield Finding(
        severity="warning" if evidence.well or _is_second_best(evidence, remedy) else "error",
        evidence=f"the learning rate is up to {number(rate_of(evidence))}{step}{told}",
        threshold=threshold,
        why="Steps that overshoot destroy what was learned before, or drive units where no gradient reaches them.",
        remedy=as_remedy(remedy),
    )


@rule(
    definition="The steps are too small to get anywhere in the planned number of steps.",
    formula="a training with ten times the learning rate or more, or without the schedule, that is otherwise the same, "
    "has clearly more skill, and the sum of its learning rates is more than the config plans in all its steps; in a "
    f"run that nothing can be tried with: it does not learn, and a step changes the weights by less than "
    f"{percent(SMALL_STEP)}, or its schedule leaves next to nothing of the rate",
    source="Bengio 2012, arXiv:1206.5533, section 3.3.1; Goodfellow, Bengio and Courville 2016, section 11.4.1",
    advice="Raise the learning rate until the loss falls within the first hundred steps, and look at what the schedule "
    "leaves of it.",
)
def learning_rate_too_low(evidence: Evidence) -> Iterator[Finding]:
    record = evidence.record
    remedy, ratio = better_rate(evidence), _typical_ratio(evidence)
    held_back = is_held_back(evidence)
    small = ratio is not None and ratio < SMALL_STEP
    if remedy in higher_rates(evidence):
        told, threshold = _comparison(evidence, remedy), "a higher rate learns clearly more"
    elif _is_stuck(evidence) and not record.bad and (held_back or (small and not _steps_are_large(evidence))):
        remedy, told, threshold = higher_rate(evidence), "", f"a change below {percent(SMALL_STEP)}"
    else:
        return
    step = f", and a step changes the weights by {ratio:.1e} of their norm" if ratio is not None else ""
    if held_back:
        step += f"; the schedule leaves {percent(record.planned_rates / (rate_of(evidence) * record.planned))} of it"
    few = max(record.planned, record.steps) < FEW_STEPS  # then the run is short
    yield Finding(
        severity="warning" if evidence.well or few or _is_second_best(evidence, remedy) else "error",
        evidence=f"the learning rate is up to {number(rate_of(evidence))}{step}{told}",
        threshold=threshold,
        why="At this pace the weights hardly move from where they were initialized.",
        remedy=as_remedy(remedy),
    )


def _is_second_best(evidence: Evidence, rate: tuple[str, ...]) -> bool:
    """Return whether a rate is not enough, and a change of something else brings clearly more."""
    trial = evidence.trials.get(rate)
    if trial is None or evidence.does_well(trial):
        return False
    return any(evidence.is_better(one, trial) for key, one in evidence.trials.items() if not is_rate(key))


def _comparison(evidence: Evidence, overrides: tuple[str, ...]) -> str:
    """Return the skill with overrides and without, in words."""
    changed = " and ".join(override.removeprefix("train.") for override in overrides)
    trial = evidence.trials[overrides]
    return f"; skill {percent(evidence.record.net_skill)}, with {changed} {percent(trial.net_skill)}"


HIGH_MOMENTUM, USUAL_MOMENTUM = 0.98, 0.9
"""With 0.98 a step is the sum of the last fifty gradients. In use are 0.5 to 0.95; 0.99 is reached late, if at all
(Sutskever et al. 2013)."""


@rule(
    definition="The momentum is so high that steps follow gradients of long ago.",
    formula=f"momentum, or Adam's first beta, of {HIGH_MOMENTUM:g} or more, where the network does not do well or a "
    f"training with {USUAL_MOMENTUM:g} does clearly better",
    source="Sutskever, Martens, Dahl and Hinton 2013, On the importance of initialization and momentum",
    advice="Use 0.9, and raise the learning rate instead: 0.99 makes steps ten times as large as 0.9 does.",
)
def momentum_too_high(evidence: Evidence) -> Iterator[Finding]:
    optimizer = evidence.config.train.optimizer
    if isinstance(optimizer, Adam | AdamW):
        momentum, remedy = optimizer.betas[0], (f"train.optimizer.betas=[{USUAL_MOMENTUM}, {optimizer.betas[1]}]",)
    else:
        momentum, remedy = getattr(optimizer, "momentum", 0.0), (f"train.optimizer.momentum={USUAL_MOMENTUM}",)
    if momentum < HIGH_MOMENTUM:
        return
    trial = evidence.trials.get(remedy)
    better = trial is not None and trial.net_skill >= evidence.record.net_skill + SMALL_GAIN
    told = ""
    if trial is not None:
        told = f"; skill {percent(evidence.record.net_skill)}, with {USUAL_MOMENTUM:g} {percent(trial.net_skill)}"
    yield Finding(
        severity="info" if evidence.well and not better else evidence.verdict(remedy),
        evidence=f"with momentum {momentum:g} a step adds up about {1 / max(1 - momentum, 1e-9):,.0f} gradients{told}",
        threshold=f"{HIGH_MOMENTUM:g} or more",
        why="Steps go on in directions that have long been wrong, and are many times as large as the learning rate "
        "says.",
        remedy=as_remedy(remedy),
    )


MIN_PLANNED, ASKED_STEPS = 50, 300
"""Planned steps below which hardly any network learns, and how many the remedy asks for."""

USUAL_BATCH = 32


@rule(
    definition="The config plans too few steps to learn anything.",
    formula=f"fewer than {MIN_PLANNED} planned steps, where a training with more steps learns clearly more",
    source="Masters and Luschi 2018, Revisiting small batch training, arXiv:1804.07612; Goodfellow, Bengio and "
    "Courville 2016, section 8.1.3",
    advice="Use smaller batches or more epochs: one step per batch is all that an epoch gives.",
)
def too_few_steps(evidence: Evidence) -> Iterator[Finding]:
    record, train, data = evidence.record, evidence.config.train, evidence.data
    if evidence.well or record.bad or not 0 < record.planned < MIN_PLANNED or data is None:
        return
    size = min(train.batch_size, data.count)
    per_epoch = ceil(data.count / size)
    overrides: tuple[str, ...] = ()
    if size > USUAL_BATCH:
        overrides, per_epoch = (f"train.batch_size={USUAL_BATCH}",), ceil(data.count / USUAL_BATCH)
    if per_epoch * train.epochs < ASKED_STEPS:
        overrides = (*overrides, f"train.epochs={ceil(ASKED_STEPS / per_epoch)}")
    if train.max_steps:
        overrides = (*overrides, "train.max_steps=null")
    if not evidence.searching and not evidence.helps(overrides):
        return
    trial = evidence.trials.get(overrides)
    told = f"; skill {percent(record.net_skill)}, with more steps {percent(trial.net_skill)}" if trial else ""
    yield Finding(
        severity=evidence.verdict(overrides),
        evidence=f"{record.planned} planned step{'s' * (record.planned > 1)}: {data.count:,} images in batches of "
        f"{size:,}, {train.epochs} epoch{'s' * (train.epochs > 1)}{told}",
        threshold=f"fewer than {MIN_PLANNED} steps",
        why="However good the gradient is, a few steps do not take the weights far.",
        remedy=as_remedy(overrides),
    )


LARGE_EPSILON = 1.0
"""Epsilon divided by the gradient's root mean square: above, it outweighs what it should only protect."""

SMALLEST_EPSILON = {"float32": 1e-23, "float64": 1e-160}
"""Gradients below square to less than the smallest number of the type."""


@rule(
    definition="The optimizer's epsilon outweighs the gradient, or is too small to prevent a division by 0.",
    formula=f"epsilon above {LARGE_EPSILON:g} times the gradient's root mean square, or so small that it is nothing "
    f"beside the root of the smallest square ({SMALLEST_EPSILON['float32']:g} in float32)",
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
        bad = evidence.record.bad
        yield Finding(
            severity=evidence.verdict(remedy),
            evidence=f"epsilon is {optimizer.epsilon:g}" + (f"; values became NaN at step {bad.step}" if bad else ""),
            threshold=f"at least {tiny:g} in {evidence.config.dtype}",
            why="A parameter that has had no gradient yet is changed by 0/0, which is not a number.",
            remedy=as_remedy(remedy),
        )
        return
    size = _gradient_size(evidence)
    if size is not None and optimizer.epsilon > max(LARGE_EPSILON * size, 1e3 * usual):
        yield Finding(
            severity=evidence.verdict(remedy),
            evidence=f"epsilon is {optimizer.epsilon:g}; the gradient's root mean square is {size:.2g}",
            threshold=f"above {LARGE_EPSILON:g} times the gradient",
            why="Divided by epsilon instead of the gradient's own size, steps are as small as the gradient is.",
            remedy=as_remedy(remedy),
        )


def _gradient_size(evidence: Evidence) -> float | None:
    """Return the root mean square of a typical step's gradient."""
    norms = [norm for norm in evidence.record.norms if isfinite(norm)]
    return median(norms) / evidence.parameter_count**0.5 if norms and evidence.parameter_count else None
