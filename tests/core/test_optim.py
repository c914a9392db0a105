"""The optimizers against PyTorch and against plain loops, and the laws that let a vector be cut anywhere."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from by_type import OPTIMIZERS
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnbp_cli.core.optim import (
    Adagrad,
    Adam,
    AdamW,
    RmsProp,
    Sgd,
    Step,
    Updater,
    add_weight_decay,
    chain,
    clip_by_global_norm,
    momentum,
    scale_by_adagrad,
    scale_by_adam,
    scale_by_learning_rate,
    scale_by_rms,
)
from cnnbp_cli.core.types import FieldErrors

STEPS = 30

CASES = {
    "sgd": Sgd(),
    "sgd-decay": Sgd(learning_rate=0.1, weight_decay=0.05),
    "sgd-momentum": Sgd(learning_rate=0.1, momentum=0.9),
    "sgd-momentum-decay": Sgd(learning_rate=0.1, momentum=0.9, weight_decay=0.05),
    "sgd-nesterov-decay": Sgd(learning_rate=0.1, momentum=0.9, nesterov=True, weight_decay=0.05),
    "adam": Adam(),
    "adam-betas-decay": Adam(learning_rate=0.01, betas=(0.8, 0.95), epsilon=1e-3, weight_decay=0.1),
    "adam-no-memory": Adam(betas=(0.0, 0.0)),
    "adamw": AdamW(),
    "adamw-betas-decay": AdamW(learning_rate=0.01, betas=(0.8, 0.95), epsilon=1e-3, weight_decay=0.1),
    "rmsprop": RmsProp(),
    "rmsprop-decay": RmsProp(alpha=0.9, epsilon=1e-3, weight_decay=0.1),
    "rmsprop-momentum": RmsProp(momentum=0.9),
    "rmsprop-centered": RmsProp(centered=True),
    "rmsprop-everything": RmsProp(alpha=0.9, weight_decay=0.1, momentum=0.5, centered=True),
    "adagrad": Adagrad(),
    "adagrad-everything": Adagrad(learning_rate_decay=0.1, weight_decay=0.1, initial_accumulator=0.3, epsilon=1e-3),
}

every_case = pytest.mark.parametrize("optimizer", CASES.values(), ids=CASES.keys())


def test_every_optimizer_is_in_the_table():
    """Its plain loop, PyTorch, the terms of its updates and the trace page are compared by these cases."""
    assert {optimizer.type for optimizer in CASES.values()} == set(OPTIMIZERS)


def problem(size=23, dtype=np.float64, seed=0):
    """Parameters, and a gradient for each step."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal(size).astype(dtype), rng.standard_normal((STEPS, size)).astype(dtype)


def rate(optimizer, number):
    """A learning rate that changes with every step, as under a schedule."""
    return optimizer.learning_rate * (1 + 0.5 * math.sin(number))


def step_of(optimizer, number):
    return Step(number, rate(optimizer, number), grad_norm=1.0)


def run(updater, optimizer, params, grads, first=1):
    for number, grad in enumerate(grads, start=first):
        updater.update(params, grad, step_of(optimizer, number))


def trained(optimizer, params, grads, block=32):
    params = params.copy()
    run(Updater(optimizer.transform(), params.size, params.dtype, block), optimizer, params, grads)
    return params


def assert_agrees(actual, expected, tolerance=1e-12):
    assert np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()


# One parameter, one number at a time, straight from the definitions: shares no code with `optim`.


def sgd_loop(o, p, grads, rates):
    b = 0.0
    for g, lr in zip(grads, rates, strict=True):
        g += o.weight_decay * p
        b = o.momentum * b + g
        p -= lr * (g + o.momentum * b if o.nesterov else b)
    return p


def adam_loop(o, p, grads, rates):
    m = v = 0.0
    for t, (g, lr) in enumerate(zip(grads, rates, strict=True), start=1):
        if o.type == "adamw":
            p -= lr * o.weight_decay * p
        else:
            g += o.weight_decay * p
        m = o.betas[0] * m + (1 - o.betas[0]) * g
        v = o.betas[1] * v + (1 - o.betas[1]) * g**2
        m_hat = m / (1 - o.betas[0] ** t)
        v_hat = v / (1 - o.betas[1] ** t)
        p -= lr * m_hat / (math.sqrt(v_hat) + o.epsilon)
    return p


def rmsprop_loop(o, p, grads, rates):
    s = a = b = 0.0
    for g, lr in zip(grads, rates, strict=True):
        g += o.weight_decay * p
        s = o.alpha * s + (1 - o.alpha) * g**2
        a = o.alpha * a + (1 - o.alpha) * g
        variance = s - a**2 if o.centered else s
        b = o.momentum * b + g / (math.sqrt(variance) + o.epsilon)
        p -= lr * b
    return p


def adagrad_loop(o, p, grads, rates):
    s = o.initial_accumulator
    for t, (g, lr) in enumerate(zip(grads, rates, strict=True)):
        g += o.weight_decay * p
        s += g**2
        p -= lr / (1 + t * o.learning_rate_decay) * g / (math.sqrt(s) + o.epsilon)
    return p


LOOPS = {"sgd": sgd_loop, "adam": adam_loop, "adamw": adam_loop, "rmsprop": rmsprop_loop, "adagrad": adagrad_loop}


@every_case
def test_agrees_with_a_plain_loop(optimizer):
    params, grads = problem()
    rates = [rate(optimizer, number) for number in range(1, STEPS + 1)]
    expected = [
        LOOPS[optimizer.type](optimizer, float(p), [float(g) for g in column], rates)
        for p, column in zip(params, grads.T, strict=True)
    ]
    assert_agrees(trained(optimizer, params, grads), np.array(expected))


def torch_optimizer(o, tensor):
    from oracles.torch_model import optimizer

    return optimizer(o, [tensor])


@every_case
@pytest.mark.parametrize("max_norm", [None, 2.0])
def test_agrees_with_torch(optimizer, max_norm):
    torch = pytest.importorskip("torch")
    params, grads = problem()
    tensor = torch.tensor(params, requires_grad=True)
    reference = torch_optimizer(optimizer, tensor)
    clip = () if max_norm is None else (clip_by_global_norm(max_norm),)
    updater = Updater(chain(*clip, optimizer.transform()), params.size, params.dtype)
    for number, grad in enumerate(grads, start=1):
        tensor.grad = torch.tensor(grad)
        if max_norm is not None:
            torch.nn.utils.clip_grad_norm_([tensor], max_norm)
        reference.param_groups[0]["lr"] = rate(optimizer, number)
        reference.step()
        updater.update(params, grad, replace(step_of(optimizer, number), grad_norm=float(np.linalg.norm(grad))))
    assert_agrees(params, tensor.detach().numpy())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_defaults_are_torchs(name):
    torch = pytest.importorskip("torch")
    optimizer = OPTIMIZERS[name]()
    tensor = torch.zeros(1, requires_grad=True)
    ours = torch_optimizer(optimizer, tensor)
    defaults = type(ours)([tensor]).defaults
    assert ours.defaults == defaults


# Single links, by hand.


def apply(transform, grad, param=(0.0,), state=None, number=1, learning_rate=0.1, grad_norm=1.0):
    vectors = {name: np.array(values, float) for name, values in (state or {}).items()}
    grad, new = transform(np.array(grad, float), np.array(param), vectors, Step(number, learning_rate, grad_norm))
    return grad.tolist(), {name: vector.tolist() for name, vector in new.items()}


def test_clipping_scales_a_long_gradient_to_the_norm():
    grad, state = apply(clip_by_global_norm(1.0), [3.0, 4.0], grad_norm=5.0)
    assert grad == pytest.approx([0.6, 0.8], rel=1e-6)
    assert state == {}


def test_clipping_leaves_a_short_gradient_alone():
    assert apply(clip_by_global_norm(5.1), [3.0, 4.0], grad_norm=5.0) == ([3.0, 4.0], {})


def test_clipping_goes_by_the_whole_gradients_norm_and_not_by_the_slices():
    grad, _ = apply(clip_by_global_norm(1.0), [0.5], grad_norm=10.0)
    assert grad == pytest.approx([0.05], rel=1e-6)


def test_weight_decay():
    assert apply(add_weight_decay(0.5), [1.0, 1.0], [2.0, -4.0]) == ([2.0, -1.0], {})


def test_momentum_starts_with_the_gradient_itself():
    assert apply(momentum(0.5), [3.0], state={"momentum": [0.0]}) == ([3.0], {"momentum": [3.0]})


def test_momentum_and_nesterov():
    assert apply(momentum(0.5), [3.0], state={"momentum": [4.0]}) == ([5.0], {"momentum": [5.0]})
    assert apply(momentum(0.5, nesterov=True), [3.0], state={"momentum": [4.0]}) == ([5.5], {"momentum": [5.0]})


def test_adams_first_step_is_the_sign_of_the_gradient():
    grad, _ = apply(scale_by_adam(), [1e-3, -1e3, 0.0], [0.0] * 3, {"mean": [0.0] * 3, "square": [0.0] * 3})
    assert grad == pytest.approx([1.0, -1.0, 0.0], rel=2e-5)


def test_rms_of_a_steady_gradient():
    assert apply(scale_by_rms(0.75, 0.5), [2.0], state={"square": [4.0]}) == ([0.8], {"square": [4.0]})


def test_a_centered_variance_that_rounds_below_zero_counts_as_zero():
    value = 0.1
    state = {"square": [value * value * (1 - 1e-15)], "mean": [value]}
    grad, _ = apply(scale_by_rms(0.99, 0.5, centered=True), [value], state=state)
    assert grad == pytest.approx([0.2], rel=1e-6)


def test_adagrad_adds_up_squares():
    assert apply(scale_by_adagrad(epsilon=1.0), [3.0], state={"sum": [16.0]}) == ([0.5], {"sum": [25.0]})
    assert scale_by_adagrad(0.3).slots == {"sum": 0.3}


def test_the_learning_rate_multiplies_and_decays():
    assert apply(scale_by_learning_rate(), [3.0], number=5, learning_rate=0.5) == ([1.5], {})
    assert apply(scale_by_learning_rate(0.25), [3.0], number=5, learning_rate=0.5) == ([0.75], {})


def test_a_chain_goes_from_left_to_right_and_gathers_the_state():
    links = chain(scale_by_learning_rate(), momentum(0.5), add_weight_decay(1.0))
    assert links.slots == {"momentum": 0.0}
    assert apply(links, [10.0], [7.0], {"momentum": [2.0]}) == ([9.0], {"momentum": [2.0]})


def test_an_empty_chain_is_the_identity():
    assert apply(chain(), [3.0]) == ([3.0], {})


def test_a_chain_refuses_two_state_vectors_of_one_name():
    with pytest.raises(ValueError, match=r"^two transforms of the chain have a state vector 'momentum'$"):
        chain(momentum(0.9), scale_by_learning_rate(), momentum(0.5))


# Laws of every optimizer.


@every_case
def test_transforms_are_pure(optimizer):
    transform = chain(clip_by_global_norm(0.5), optimizer.transform())
    params, (grad, *_) = problem()
    state = {name: np.full_like(params, 0.7) for name in transform.slots}
    arrays = [grad, params, *state.values()]
    before = [array.copy() for array in arrays]
    for array in arrays:
        array.flags.writeable = False
    first = transform(grad, params, state, step_of(optimizer, 3))
    second = transform(grad, params, state, step_of(optimizer, 3))
    np.testing.assert_equal(arrays, before)
    np.testing.assert_equal(first, second)
    assert first[1].keys() == transform.slots.keys()
    for new in first[1].values():
        assert not any(np.shares_memory(new, array) for array in arrays)


@every_case
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtypes_stay_what_they_are(optimizer, dtype):
    transform = chain(clip_by_global_norm(0.5), optimizer.transform())
    params, (grad, *_) = problem(dtype=dtype)
    state = Updater(transform, params.size, dtype).state_dict()
    # Numbers that were computed by NumPy must not promote either.
    step = Step(np.int64(2), np.float64(0.1), np.float64(3.0))
    update, new = transform(grad, params, state, step)
    assert {array.dtype for array in (update, *state.values(), *new.values())} == {np.dtype(dtype)}


@every_case
def test_float32_follows_float64(optimizer):
    params, grads = problem()
    single = trained(optimizer, params.astype(np.float32), grads.astype(np.float32))
    assert_agrees(single, trained(optimizer, params, grads), tolerance=2e-4)


@every_case
@settings(max_examples=10, deadline=None)
@given(size=st.integers(0, 70), block=st.integers(1, 80), seed=st.integers(0, 99))
def test_the_block_size_does_not_change_a_bit(optimizer, size, block, seed):
    params, grads = problem(size, np.float32, seed)
    whole = trained(optimizer, params, grads[:5], block=1000)
    np.testing.assert_array_equal(trained(optimizer, params, grads[:5], block), whole)


@every_case
@settings(max_examples=10, deadline=None)
@given(size=st.integers(2, 70), data=st.data())
def test_slices_make_the_whole(optimizer, size, data):
    cut = data.draw(st.integers(0, size), label="cut")
    params, grads = problem(size, np.float32)
    whole = trained(optimizer, params, grads[:5])
    for part in (slice(None, cut), slice(cut, None)):  # each worker updates its slice of the shared vector
        view = params[part]
        run(Updater(optimizer.transform(), view.size, view.dtype, 16), optimizer, view, grads[:5, part])
    np.testing.assert_array_equal(params, whole)


@every_case
def test_a_resumed_run_is_the_same_to_the_bit(optimizer):
    params, grads = problem(dtype=np.float32)
    whole = trained(optimizer, params, grads)
    before = Updater(optimizer.transform(), params.size, params.dtype)
    run(before, optimizer, params, grads[:11])
    saved = before.state_dict()
    kept = {name: vector.copy() for name, vector in saved.items()}
    run(before, optimizer, params.copy(), grads[11:])
    after = Updater(optimizer.transform(), params.size, params.dtype)
    after.load_state_dict(saved)
    run(after, optimizer, params, grads[11:], first=12)
    np.testing.assert_array_equal(params, whole)
    np.testing.assert_equal(saved, kept)  # neither run writes into what was saved


@every_case
def test_a_learning_rate_of_zero_changes_nothing(optimizer):
    params, grads = problem()
    idle = replace(optimizer, learning_rate=0.0)
    np.testing.assert_array_equal(trained(idle, params, grads), params)


@pytest.mark.parametrize("optimizer", [cls(learning_rate=0.05) for cls in OPTIMIZERS.values()], ids=OPTIMIZERS)
def test_goes_down_a_bowl(optimizer):
    params = np.array([1.0, -2.0])
    updater = Updater(optimizer.transform(), 2, np.float64)
    for number in range(1, 301):
        updater.update(params, 2 * params, Step(number, optimizer.learning_rate, 1.0))
    assert np.abs(params).max() < 1.0


# The updater's complaints.


def test_vectors_of_another_size_are_refused():
    updater = Updater(Sgd().transform(), 4, np.float64)
    with pytest.raises(ValueError, match=r"^expected vectors of 4, got \(4,\) and \(3,\)$"):
        updater.update(np.zeros(4), np.zeros(3), Step(1, 0.1, 1.0))


@pytest.mark.parametrize(
    ("state", "found"),
    [
        ({}, "nothing"),
        ({"mean": np.ones(3)}, "mean (3,) float64"),
        ({"mean": np.ones(3), "square": np.ones(4)}, "mean (3,) float64, square (4,) float64"),
        (
            {"mean": np.ones(3, np.float32), "square": np.ones(3)},
            "mean (3,) float32, square (3,) float64",
        ),
    ],
    ids=["nothing", "missing", "size", "dtype"],
)
def test_a_state_that_does_not_fit_is_refused_and_nothing_is_loaded(state, found):
    updater = Updater(Adam().transform(), 3, np.float64)
    with pytest.raises(ValueError, match=r"^optimizer state") as caught:
        updater.load_state_dict(state)
    assert str(caught.value) == f"optimizer state: expected mean (3,) float64, square (3,) float64, got {found}"
    np.testing.assert_equal(updater.state_dict(), {"mean": np.zeros(3), "square": np.zeros(3)})


# Impossible values.


@pytest.mark.parametrize(
    ("cls", "values", "message"),
    [
        (Sgd, {"learning_rate": -0.1}, "learning_rate: expected 0 or more, got -0.1"),
        (Sgd, {"learning_rate": math.nan}, "learning_rate: expected 0 or more, got nan"),
        (Sgd, {"weight_decay": -1.0}, "weight_decay: expected 0 or more, got -1.0"),
        (Sgd, {"nesterov": True}, "nesterov: needs a momentum above 0"),
        (Adam, {"learning_rate": -0.1}, "learning_rate: expected 0 or more, got -0.1"),
        (Adam, {"betas": (0.9, 1.0)}, "betas: expected two numbers from 0 below 1, got [0.9, 1.0]"),
        (Adam, {"epsilon": 0.0}, "epsilon: expected a number above 0, got 0.0"),
        (AdamW, {"betas": (-0.1, 0.9)}, "betas: expected two numbers from 0 below 1, got [-0.1, 0.9]"),
        (AdamW, {"epsilon": -1.0}, "epsilon: expected a number above 0, got -1.0"),
        (AdamW, {"weight_decay": -1.0}, "weight_decay: expected 0 or more, got -1.0"),
        (RmsProp, {"epsilon": 0.0}, "epsilon: expected a number above 0, got 0.0"),
        (RmsProp, {"weight_decay": -1.0}, "weight_decay: expected 0 or more, got -1.0"),
        (Adagrad, {"learning_rate_decay": -1.0}, "learning_rate_decay: expected 0 or more, got -1.0"),
        (Adagrad, {"initial_accumulator": -1.0}, "initial_accumulator: expected 0 or more, got -1.0"),
        (
            Adagrad,
            {"learning_rate": -1.0, "epsilon": 0.0},
            "learning_rate: expected 0 or more, got -1.0; epsilon: expected a number above 0, got 0.0",
        ),
    ],
)
def test_impossible_values_are_refused(cls, values, message):
    with pytest.raises(FieldErrors) as caught:
        cls(**values)
    assert str(caught.value) == message


@pytest.mark.parametrize(("cls", "name"), [(Sgd, "momentum"), (RmsProp, "momentum"), (RmsProp, "alpha")])
@pytest.mark.parametrize("value", [-0.1, 1.0])
def test_decays_lie_from_0_to_below_1(cls, name, value):
    with pytest.raises(FieldErrors) as caught:
        cls(**{name: value})
    assert str(caught.value) == f"{name}: expected a number from 0 below 1, got {value}"
