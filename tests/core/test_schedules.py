"""The schedules against PyTorch's schedulers and against values worked out by hand."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from functools import reduce

import pytest
from by_type import SCHEDULES
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cnnbp_cli.core.schedules import (
    Constant,
    Cosine,
    Exponential,
    LinearWarmup,
    MultiStep,
    OneCycle,
    Plateau,
    Progress,
    ReduceOnPlateau,
    StepDecay,
)
from cnnbp_cli.core.types import FieldErrors

BASE = 0.3
PER_EPOCH = 4
EPOCHS = 10
TOTAL = PER_EPOCH * EPOCHS


def at(step, total=TOTAL):
    return Progress(step, PER_EPOCH, total, step // PER_EPOCH)


def after(schedule, history):
    return Progress(0, PER_EPOCH, TOTAL, 0, reduce(schedule.after_epoch, history, Plateau()))


def rates(schedule, total=TOTAL):
    return [schedule.learning_rate(BASE, at(step, total)) for step in range(total)]


def torch_rates(make, count):
    """The rates of a PyTorch scheduler before each of `count` steps."""
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=BASE)
    scheduler = make(torch.optim.lr_scheduler, optimizer)
    found = [optimizer.param_groups[0]["lr"]]
    for _ in range(count - 1):
        optimizer.step()
        with warnings.catch_warnings():  # SequentialLR calls its parts in a way that PyTorch deprecates
            warnings.simplefilter("ignore")
            scheduler.step()
        found.append(optimizer.param_groups[0]["lr"])
    return found


def one_cycle(lr, optimizer, total, **options):
    return lr.OneCycleLR(optimizer, total_steps=total, cycle_momentum=False, **options)


def after_warmup(lr, optimizer, then):
    first = lr.LinearLR(optimizer, start_factor=0.25, total_iters=7)
    return lr.SequentialLR(optimizer, [first, then], milestones=[7])


PER_STEP_CASES = {
    "constant": (Constant(), lambda lr, o: lr.ConstantLR(o, factor=1.0)),
    "cosine": (Cosine(), lambda lr, o: lr.CosineAnnealingLR(o, TOTAL)),
    "cosine-minimum": (Cosine(minimum=0.01), lambda lr, o: lr.CosineAnnealingLR(o, TOTAL, eta_min=0.01)),
    "one_cycle": (OneCycle(0.7), lambda lr, o: one_cycle(lr, o, TOTAL, max_lr=0.7)),
    "one_cycle-options": (
        OneCycle(0.7, warmup=0.11, initial_divisor=5.0, final_divisor=30.0),
        lambda lr, o: one_cycle(lr, o, TOTAL, max_lr=0.7, pct_start=0.11, div_factor=5.0, final_div_factor=30.0),
    ),
    "one_cycle-no-warmup": (
        OneCycle(0.7, warmup=0.0),
        lambda lr, o: one_cycle(lr, o, TOTAL, max_lr=0.7, pct_start=0.0),
    ),
    "one_cycle-all-warmup": (
        OneCycle(0.7, warmup=1.0),
        lambda lr, o: one_cycle(lr, o, TOTAL, max_lr=0.7, pct_start=1.0),
    ),
    "linear_warmup": (LinearWarmup(7), lambda lr, o: lr.LinearLR(o, start_factor=1 / 3, total_iters=7)),
    "linear_warmup-cosine": (
        LinearWarmup(7, 0.25, then=Cosine(0.01)),
        lambda lr, o: after_warmup(lr, o, lr.CosineAnnealingLR(o, TOTAL - 7, eta_min=0.01)),
    ),
}


@pytest.mark.parametrize(("schedule", "make"), PER_STEP_CASES.values(), ids=PER_STEP_CASES.keys())
def test_schedules_per_step_agree_with_torch(schedule, make):
    assert rates(schedule) == pytest.approx(torch_rates(make, TOTAL), rel=1e-12)


PER_EPOCH_CASES = {
    "step": (StepDecay(3), lambda lr, o: lr.StepLR(o, 3)),
    "step-gamma": (StepDecay(1, gamma=0.7), lambda lr, o: lr.StepLR(o, 1, gamma=0.7)),
    "multi_step": (MultiStep((2, 3, 7)), lambda lr, o: lr.MultiStepLR(o, [2, 3, 7])),
    "multi_step-gamma": (MultiStep((4,), gamma=0.5), lambda lr, o: lr.MultiStepLR(o, [4], gamma=0.5)),
    "multi_step-never": (MultiStep(()), lambda lr, o: lr.MultiStepLR(o, [])),
    "exponential": (Exponential(0.9), lambda lr, o: lr.ExponentialLR(o, 0.9)),
}


@pytest.mark.parametrize(("schedule", "make"), PER_EPOCH_CASES.values(), ids=PER_EPOCH_CASES.keys())
def test_schedules_per_epoch_agree_with_torch(schedule, make):
    expected = [rate for rate in torch_rates(make, EPOCHS) for _ in range(PER_EPOCH)]
    assert rates(schedule) == pytest.approx(expected, rel=1e-12)


@settings(max_examples=50, deadline=None)
@given(
    history=st.lists(st.sampled_from([0.9, 0.99, 0.995, 1.0, 1.001, 2.0, math.nan]), max_size=30),
    factor=st.sampled_from([0.1, 0.5, 0.9]),
    patience=st.integers(0, 3),
    threshold=st.sampled_from([0.0, 1e-4, 0.01]),
    minimum=st.sampled_from([0.0, 0.05]),
)
@example(history=[1.0] * 30, factor=0.1, patience=0, threshold=0.0, minimum=0.0)  # down to PyTorch's eps
def test_reduce_on_plateau_agrees_with_torch(history, factor, patience, threshold, minimum):
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=BASE)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=factor, patience=patience, threshold=threshold, min_lr=minimum
    )
    schedule = ReduceOnPlateau(factor, patience, threshold, minimum)
    for epoch in range(len(history) + 1):
        ours = schedule.learning_rate(BASE, after(schedule, history[:epoch]))
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        if epoch < len(history):
            scheduler.step(history[epoch])


# By hand.


def test_constant():
    assert rates(Constant(), 3) == [0.3, 0.3, 0.3]


def test_step_decay():
    assert rates(StepDecay(1, gamma=0.5), 9) == [0.3] * 4 + [0.15] * 4 + [0.075]


def test_multi_step():
    by_epoch = rates(MultiStep((1, 3), gamma=0.5))[::PER_EPOCH]
    assert by_epoch == [0.3, 0.15, 0.15] + [0.075] * 7


def test_exponential():
    assert rates(Exponential(0.5))[:: 2 * PER_EPOCH] == [0.3, 0.075, 0.01875, 0.0046875, 0.001171875]


def test_cosine():
    assert rates(Cosine(minimum=0.1), 4) == pytest.approx(
        [0.3, 0.2 + 0.1 * math.sqrt(0.5), 0.2, 0.2 - 0.1 * math.sqrt(0.5)]
    )


def test_one_cycle():
    # Ten steps, the peak at step 0.4 · 10 − 1 = 3, the end at step 9.
    found = rates(OneCycle(1.0, warmup=0.4, initial_divisor=5.0, final_divisor=2.0), 10)
    assert found[0] == pytest.approx(0.2)
    assert found[1] == pytest.approx(0.2 + 0.8 / 4)  # (1 − cos 60°) / 2 = 1/4
    assert found[3] == pytest.approx(1.0)
    assert found[6] == pytest.approx((1.0 + 0.1) / 2)
    assert found[9] == pytest.approx(0.1)


def test_one_cycle_does_not_look_at_the_base_rate():
    schedule = OneCycle(1.0)
    assert schedule.learning_rate(0.1, at(3)) == schedule.learning_rate(100.0, at(3))


def test_one_cycle_whose_rise_has_no_length_starts_at_its_peak():
    assert rates(OneCycle(1.0, warmup=0.1), 10)[0] == 1.0


@pytest.mark.parametrize("warmup", [0.0, 0.3, 1.0])
def test_one_cycle_of_a_single_step(warmup):
    [rate] = rates(OneCycle(1.0, warmup=warmup, initial_divisor=5.0, final_divisor=2.0), 1)
    assert rate == pytest.approx(1.0 if warmup == 1.0 else 0.1)


def test_linear_warmup():
    assert rates(LinearWarmup(4, start_factor=0.5), 6) == pytest.approx([0.15, 0.1875, 0.225, 0.2625, 0.3, 0.3])


def test_after_a_warmup_epochs_count_from_the_beginning():
    found = rates(LinearWarmup(6, 0.5, then=StepDecay(2, gamma=0.5)), 12)
    assert found[6:] == [0.3] * 2 + [0.15] * 4


def test_a_warmup_longer_than_the_run_only_rises():
    found = rates(LinearWarmup(100, then=Cosine()), 5)
    assert found == sorted(found)
    assert found[-1] < BASE


def test_reduce_on_plateau():
    schedule = ReduceOnPlateau(factor=0.5, patience=1, threshold=0.1, minimum=0.1)
    # Better is below 0.9 · best: 1.0 and 0.8 are, 0.75 and 0.73 are not; the second miss in a row is one too many.
    history = [1.0, 0.8, 0.75, 0.73, 0.5, 0.5, 0.5, 0.5, 0.5]
    found = [schedule.learning_rate(0.3, after(schedule, history[:epoch])) for epoch in range(10)]
    assert found == [0.3, 0.3, 0.3, 0.3, 0.15, 0.15, 0.15, 0.1, 0.1, 0.1]


# Laws of every schedule.

EXAMPLES = {
    "constant": Constant(),
    "step": StepDecay(2),
    "multi_step": MultiStep((1, 5)),
    "exponential": Exponential(0.9),
    "cosine": Cosine(),
    "one_cycle": OneCycle(0.7),
    "linear_warmup": LinearWarmup(5, then=Cosine()),
    "reduce_on_plateau": ReduceOnPlateau(patience=1),
}


def test_every_schedule_has_an_example():
    assert {name: type(schedule) for name, schedule in EXAMPLES.items()} == SCHEDULES


@pytest.mark.parametrize("schedule", EXAMPLES.values(), ids=EXAMPLES.keys())
@given(
    total=st.integers(1, 200),
    fraction=st.floats(0, 1, exclude_max=True),
    per_epoch=st.integers(1, 50),
    reductions=st.integers(0, 1000),
)
@settings(max_examples=30, deadline=None)
def test_rates_are_positive_bounded_and_scale_with_the_base(schedule, total, fraction, per_epoch, reductions):
    step = int(fraction * total)
    progress = Progress(step, per_epoch, total, step // per_epoch, Plateau(1.0, 0, reductions))
    rate = schedule.learning_rate(BASE, progress)
    assert 0 <= rate <= (0.7 if schedule.type == "one_cycle" else BASE) * (1 + 1e-12)
    if schedule.type not in {"one_cycle", "reduce_on_plateau"}:
        assert schedule.learning_rate(2 * BASE, progress) == pytest.approx(2 * rate)


# Impossible values.


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("step", {"step_size": 0}, "step_size: expected 1 or more, got 0"),
        ("step", {"gamma": 0.0}, "gamma: expected a number above 0, got 0.0"),
        ("multi_step", {"gamma": -1.0}, "gamma: expected a number above 0, got -1.0"),
        ("exponential", {"gamma": 0.0}, "gamma: expected a number above 0, got 0.0"),
        ("cosine", {"minimum": -0.1}, "minimum: expected 0 or more, got -0.1"),
        ("one_cycle", {"max_learning_rate": 0.0}, "max_learning_rate: expected a number above 0, got 0.0"),
        ("one_cycle", {"warmup": 1.1}, "warmup: expected a number from 0 to 1, got 1.1"),
        ("one_cycle", {"initial_divisor": 0.0}, "initial_divisor: expected a number above 0, got 0.0"),
        ("one_cycle", {"final_divisor": -1.0}, "final_divisor: expected a number above 0, got -1.0"),
        ("linear_warmup", {"steps": 0}, "steps: expected 1 or more, got 0"),
        ("linear_warmup", {"start_factor": 0.0}, "start_factor: expected a number above 0 to 1, got 0.0"),
        ("reduce_on_plateau", {"patience": -1}, "patience: expected 0 or more, got -1"),
        ("reduce_on_plateau", {"threshold": -1.0}, "threshold: expected 0 or more, got -1.0"),
        ("reduce_on_plateau", {"minimum": -1.0}, "minimum: expected 0 or more, got -1.0"),
    ],
)
def test_impossible_values_are_refused(name, values, message):
    with pytest.raises(FieldErrors) as caught:
        replace(EXAMPLES[name], **values)
    assert str(caught.value) == message


@pytest.mark.parametrize("milestones", [(0,), (3, 2), (2, 2)])
def test_milestones_increase_from_1(milestones):
    with pytest.raises(FieldErrors) as caught:
        MultiStep(milestones)
    shown = str(list(milestones))
    assert str(caught.value) == f"milestones: expected increasing numbers of epochs, 1 or more, got {shown}"


@pytest.mark.parametrize("factor", [0.0, 1.0])
def test_a_plateaus_factor_lies_between_0_and_1(factor):
    with pytest.raises(FieldErrors) as caught:
        ReduceOnPlateau(factor=factor)
    assert str(caught.value) == f"factor: expected a number above 0 below 1, got {factor}"
