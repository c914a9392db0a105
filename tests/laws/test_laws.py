"""The laws that every layer obeys, each a test over the one table in `laws/cases.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pytest
from by_type import INITIALIZERS
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from laws.cases import ALL_CASES, CASES, VECTOR, Case, on
from laws.passes import (
    EVALUATION,
    TRAINING,
    Problem,
    Result,
    derivative_errors,
    on_workers,
    passes,
    problem,
    smooth,
    tied,
)
from oracles.naive import NAIVE

from cnnbp_cli.core import rows
from cnnbp_cli.core.correlate import by_strips
from cnnbp_cli.core.initializers import AnyInitializer
from cnnbp_cli.core.layers import (
    LAYERS,
    AvgPool2d,
    BatchNorm,
    Conv2d,
    ConvTranspose2d,
    Dropout,
    MaxPool2d,
    register,
)
from cnnbp_cli.core.types import Array, Communicator, Context, Layer, Operation, Params, ShapeError, Workspace

every_case = pytest.mark.parametrize("case", ALL_CASES, ids=str)
every_float64_case = pytest.mark.parametrize("case", [case for case in ALL_CASES if case.dtype == "float64"], ids=str)
both_modes = pytest.mark.parametrize("ctx", [TRAINING, EVALUATION], ids=["training", "evaluation"])
all_values = pytest.mark.parametrize("draw", [smooth, tied])


def assert_close(actual: Array, expected: Array, tolerance: float) -> None:
    """Require equality up to rounding, which is measured against the largest value."""
    assert actual.shape == expected.shape
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale)


def assert_same(actual: dict[str, Array], expected: dict[str, Array], tolerance: float) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert_close(actual[name], value, tolerance)


# ---------------------------------------------------------------- the table


def test_every_registered_layer_is_in_the_table():
    assert CASES.keys() == LAYERS.keys()
    for name, cases in CASES.items():
        assert cases
        assert {type(case.layer) for case in cases} == {LAYERS[name]}


def test_a_layer_of_ones_own_can_be_registered(monkeypatch):
    @dataclass(frozen=True, slots=True)
    class Twice(Layer[None]):
        type: Literal["twice"] = "twice"

        def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, None]:
            return 2 * x, None

        def backward(self, params: Params, residuals: None, dy: Array, ctx: Context) -> tuple[Array, Params]:
            return 2 * dy, {}

    monkeypatch.setitem(LAYERS, "twice", Twice)
    del LAYERS["twice"]
    assert register(Twice) is Twice
    assert LAYERS["twice"] is Twice
    with pytest.raises(ValueError, match=r"^a layer of type 'twice' is registered already$"):
        register(Twice)


# ---------------------------------------------------------------- 1. out_shape is what forward returns


@every_case
@both_modes
def test_shapes_are_what_they_are_said_to_be(case, ctx):
    numbers = problem(case, n=2)
    result = passes(numbers, ctx)
    assert result.y.shape == (*case.out_shape, 2)
    assert all(isinstance(size, int) for size in case.out_shape)
    for k, x in enumerate(numbers.xs):
        assert result.arrays[f"dx{k}"].shape == x.shape
    trainable = {name: value.shape for name, value in numbers.params.items() if name not in numbers.layer.state}
    assert {name: grad.shape for name, grad in result.grads().items()} == trainable


@every_case
def test_initial_parameters_have_the_shapes_that_are_announced(case):
    params = case.layer.init_params(np.random.default_rng(0), case.in_shapes[0])
    assert {name: value.shape for name, value in params.items()} == case.layer.param_shapes(case.in_shapes[0])
    assert all(value.dtype == np.float64 for value in params.values())
    assert set(case.layer.state) <= set(params)


sizes = st.integers(1, 4) | st.tuples(st.integers(1, 4), st.integers(1, 4))
amounts = st.integers(0, 3)
paddings = (
    st.sampled_from(["valid", "same"])
    | amounts
    | st.tuples(amounts, amounts)
    | st.tuples(amounts, amounts, amounts, amounts)
)
images = st.tuples(st.sampled_from([2, 4]), st.integers(1, 8), st.integers(1, 8))
convolutions = st.builds(
    Conv2d,
    filters=st.sampled_from([2, 4]),
    kernel_size=sizes,
    stride=sizes,
    padding=paddings,
    dilation=sizes,
    groups=st.sampled_from([1, 2]),
    bias=st.booleans(),
)


def as_pair(size: Any) -> tuple[int, int]:
    return size if isinstance(size, tuple) else (size, size)


@st.composite
def transposed_convolutions(draw: Callable[..., Any]) -> ConvTranspose2d:
    stride, padding = draw(sizes), draw(paddings)
    most = (0, 0) if padding == "same" else tuple(s - 1 for s in as_pair(stride))
    extra = tuple(draw(st.integers(0, m)) for m in most)
    return ConvTranspose2d(2, draw(sizes), stride, padding, extra, draw(st.booleans()))


@st.composite
def pools(draw: Callable[..., Any]) -> MaxPool2d | AvgPool2d:
    size = draw(sizes)
    two = tuple(draw(st.integers(0, k - 1)) for k in as_pair(size))
    four = tuple(draw(st.integers(0, k - 1)) for k in as_pair(size) for _ in range(2))
    padding = draw(st.sampled_from(["valid", "same", two, four]))
    stride, ceil_mode = draw(st.none() | sizes), draw(st.booleans())
    if draw(st.booleans()):
        return MaxPool2d(size, stride, padding, ceil_mode)
    return AvgPool2d(size, stride, padding, draw(st.booleans()), ceil_mode)


@given(convolutions | transposed_convolutions() | pools(), images)
@settings(max_examples=300)
def test_any_geometry_obeys_the_laws_or_is_refused(layer, shape):
    try:
        case = Case(layer, (shape,))
        out_shape = case.out_shape
    except ShapeError:
        params = layer.init_params(np.random.default_rng(0), shape)
        with pytest.raises(ShapeError):
            layer.forward(params, np.zeros((*shape, 1)), TRAINING)
        return
    assume(np.prod(out_shape) < 300)
    numbers = problem(case, tied, n=2)
    result = passes(numbers, TRAINING)
    assert result.y.shape == (*out_shape, 2)
    assert_agrees_with_loops(numbers, TRAINING, result)
    errors = derivative_errors(numbers, result.gradients(), TRAINING)
    assert max(errors.values()) <= 1e-12


# ---------------------------------------------------------------- 2. backward is the derivative of forward


@every_case
@both_modes
@all_values
def test_backward_is_the_derivative_of_forward(case, ctx, draw):
    numbers = problem(case, draw)
    errors = derivative_errors(numbers, passes(numbers, ctx).gradients(), ctx)
    assert len(errors) == len(case.in_shapes) + len(numbers.params.keys() - set(numbers.layer.state))
    assert max(errors.values()) <= case.tolerance, errors


@every_float64_case
@all_values
def test_the_derivative_check_rejects_a_gradient_that_is_wrong_by_a_thousandth(case, draw):
    numbers = problem(case, draw)
    wrong = {name: 1.001 * gradient for name, gradient in passes(numbers, TRAINING).gradients().items()}
    assert min(derivative_errors(numbers, wrong, TRAINING).values()) > 1e-8


def test_the_derivative_check_rejects_one_wrong_element():
    numbers = problem(*on(VECTOR, CASES["dense"][0].layer))
    gradients = passes(numbers, TRAINING).gradients()
    gradients["weight"][2, 3] *= 1.001
    errors = derivative_errors(numbers, gradients, TRAINING)
    assert errors["weight"] > 1e-7
    assert errors["bias"] <= 1e-12
    assert errors["dx0"] <= 1e-12


@every_case
@both_modes
def test_an_imaginary_part_does_not_disturb_the_real_one(case, ctx):
    numbers = problem(case, tied)
    xs = [x + 1e-30j for x in numbers.xs]
    y, _ = case.layer.node_forward(numbers.params, xs, ctx)
    assert_close(y.real, passes(numbers, ctx).y, case.tolerance)


# ---------------------------------------------------------------- 3. inputs are never modified, and may lie anyhow


def freeze(numbers: Problem) -> None:
    for array in (*numbers.xs, *numbers.params.values(), numbers.dy):
        array.flags.writeable = False


@every_case
@both_modes
def test_inputs_are_not_modified_and_residuals_survive(case, ctx):
    numbers, other = problem(case), problem(case, seed=1)
    freeze(numbers)
    before = [array.copy() for array in (*numbers.xs, *numbers.params.values(), numbers.dy)]
    y, residuals = case.layer.node_forward(numbers.params, numbers.xs, ctx)
    first_y = y.copy()
    passes(other, ctx)  # a pass over other numbers between the two must not matter
    dxs, grads = case.layer.node_backward(numbers.params, residuals, numbers.dy, ctx)
    first = [array.copy() for array in (*dxs, *grads.values())]
    again_dxs, again_grads = case.layer.node_backward(numbers.params, residuals, numbers.dy, ctx)
    for array, copy, again in zip((*dxs, *grads.values()), first, (*again_dxs, *again_grads.values()), strict=True):
        np.testing.assert_array_equal(array, copy)
        np.testing.assert_array_equal(again, copy)
    np.testing.assert_array_equal(y, first_y)
    for array, copy in zip((*numbers.xs, *numbers.params.values(), numbers.dy), before, strict=True):
        np.testing.assert_array_equal(array, copy)


def strided(x: Array) -> Array:
    wide = np.full((*x.shape[:-1], 2 * x.shape[-1]), np.nan)
    wide[..., ::2] = x
    return wide[..., ::2]


LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "batch first in memory": lambda x: np.moveaxis(np.ascontiguousarray(np.moveaxis(x, -1, 0)), 0, -1),
    "fortran": np.asfortranarray,
    "strided": strided,
    "reversed": lambda x: x[::-1, ..., ::-1].copy()[::-1, ..., ::-1],
    "one sample for all": lambda x: np.broadcast_to(x[..., :1], x.shape),
    "one channel for all": lambda x: np.broadcast_to(x[:1], x.shape),
    "one value for all": lambda x: np.broadcast_to(x.ravel()[:1].reshape((1,) * x.ndim), x.shape),
}


@every_case
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_the_layout_of_arrays_does_not_matter(case, layout):
    numbers = problem(case)
    laid_out = replace(numbers, xs=[layout(x) for x in numbers.xs], dy=layout(numbers.dy))
    contiguous = replace(numbers, xs=[np.array(x, order="C") for x in laid_out.xs], dy=np.array(laid_out.dy, order="C"))
    assert_same(passes(laid_out, TRAINING).arrays, passes(contiguous, TRAINING).arrays, case.tolerance)


# ---------------------------------------------------------------- 4. batch = one by one, shards = whole


def together(results: list[Result]) -> dict[str, Array]:
    """Join what belongs to samples, and add up what belongs to the batch."""
    per_sample = results[0].per_sample()
    return {
        name: np.concatenate([result.arrays[name] for result in results], -1)
        if name in per_sample
        else np.add.reduce([result.arrays[name] for result in results])
        for name in results[0].arrays
    }


@pytest.mark.parametrize(
    ("case", "ctx"),
    [
        pytest.param(case, ctx, id=f"{case}-{'training' if ctx.training else 'evaluation'}")
        for case in ALL_CASES
        for ctx in (TRAINING, EVALUATION)
        if not (isinstance(case.layer, BatchNorm) and ctx.training)  # which has a test of its own below
    ],
)
@pytest.mark.parametrize("ends", [(0, 1, 2, 3, 4, 5), (0, 2, 2, 5)], ids=["one by one", "shards, one empty"])
def test_parts_of_a_batch_add_up_to_the_whole(case, ctx, ends):
    numbers = problem(case, n=5)
    whole = passes(numbers, replace(ctx, first_sample=100))
    parts = [
        passes(numbers.sliced(slice(first, last)), replace(ctx, first_sample=100 + first))
        for first, last in pairwise(ends)
    ]
    assert_same(together(parts), whole.arrays, case.tolerance)


@pytest.mark.parametrize("case", CASES["batch_norm"], ids=str)
@pytest.mark.parametrize("ends", [(0, 2, 5), (0, 2, 2, 5)], ids=["two workers", "three, one without samples"])
def test_batch_norm_on_several_workers_sees_the_whole_batch(case, ends):
    numbers = problem(case, n=5)
    whole = passes(numbers, TRAINING)

    def work(workers: Communicator) -> Result:
        part = slice(ends[workers.rank], ends[workers.rank + 1])
        return passes(numbers.sliced(part), replace(TRAINING, workers=workers, first_sample=part.start))

    results = on_workers(len(ends) - 1, work)
    assert_same(together(results), whole.arrays, case.tolerance)
    assert whole.state.keys() == {"running_mean", "running_var"}
    for result in results:
        assert_same(result.state, whole.state, case.tolerance)


def test_dropout_depends_on_seed_step_node_and_place_and_keeps_the_mean():
    layer, x = Dropout(0.25), np.ones((40, 50, 1, 20))
    y, _ = layer.forward({}, x, TRAINING)
    assert set(np.unique(y)) == {0.0, 1 / 0.75}
    assert abs(y.mean() - 1) < 4 * np.sqrt(0.25 / 0.75 / y.size)  # four standard errors
    for other in (
        replace(TRAINING, seed=4),
        replace(TRAINING, step=8),
        replace(TRAINING, node="there"),
        replace(TRAINING, first_sample=20),
    ):
        z, _ = layer.forward({}, x, other)
        agreement = (y == z).mean()
        assert abs(agreement - (0.75**2 + 0.25**2)) < 0.02  # two independent masks
    np.testing.assert_array_equal(layer.forward({}, x, TRAINING)[0], y)


# ---------------------------------------------------------------- 5. no silent promotion


@every_float64_case
@both_modes
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_dtype_is_kept(case, ctx, dtype):
    numbers = problem(case)
    result = passes(numbers.cast(dtype), ctx)
    assert {name: array.dtype for name, array in result.arrays.items()} == dict.fromkeys(result.arrays, dtype)
    assert {name: array.dtype for name, array in result.state.items()} == dict.fromkeys(result.state, dtype)
    assert_same(result.arrays, passes(numbers, ctx).arrays, replace(case, dtype=np.dtype(dtype).name).tolerance)


@every_case
@both_modes
def test_complex_numbers_stay_complex(case, ctx):
    numbers = problem(case)
    y, _ = case.layer.node_forward(numbers.params, [x.astype(np.complex128) for x in numbers.xs], ctx)
    assert y.dtype == np.complex128
    for name in numbers.params.keys() - set(numbers.layer.state):
        params = numbers.params | {name: numbers.params[name].astype(np.complex128)}
        y, _ = case.layer.node_forward(params, numbers.xs, ctx)
        assert y.dtype == np.complex128


# ---------------------------------------------------------------- 6. config round trip


def rebuilt(said: dict[str, Any]) -> Operation[Any]:
    """Build a layer from plain values, as they come from a config."""
    init = said.get("init")
    values = said | ({"init": rebuilt_initializer(init)} if init else {})
    return LAYERS[said["type"]](**values)


def rebuilt_initializer(said: dict[str, Any]) -> AnyInitializer:
    return INITIALIZERS[said["type"]](**said)


@every_case
def test_a_layer_is_its_hyper_parameters(case):
    said = asdict(case.layer)
    again = rebuilt(said)
    assert again == case.layer
    assert hash(again) == hash(case.layer)
    assert asdict(again) == said
    assert not hasattr(case.layer, "__dict__")


# ---------------------------------------------------------------- 7. an independent oracle agrees


def assert_agrees_with_loops(numbers: Problem, ctx: Context, result: Result) -> None:
    y, dxs, grads = NAIVE[numbers.layer.type](numbers.layer, numbers.params, numbers.xs, numbers.dy, ctx)
    assert_same(result.arrays, {"y": y} | {f"dx{k}": dx for k, dx in enumerate(dxs)} | grads, numbers.case.tolerance)


def test_every_registered_layer_has_an_oracle():
    assert NAIVE.keys() == LAYERS.keys()


@every_case
@both_modes
@all_values
def test_plain_loops_agree(case, ctx, draw):
    numbers = problem(case, draw, n=2)
    assert_agrees_with_loops(numbers, ctx, passes(numbers, ctx))


# ---------------------------------------------------------------- buffers, blocks and what nobody reads


@every_case
@both_modes
def test_reused_buffers_change_nothing(case, ctx):
    reusing = replace(ctx, arrays=Workspace())
    for n, seed in ((4, 0), (2, 1), (5, 2)):
        numbers = problem(case, n=n, seed=seed)
        assert_same(passes(numbers, reusing).arrays, passes(numbers, ctx).arrays, 0)


@every_case
def test_two_nodes_share_a_workspace_until_the_end_of_the_step(case):
    workspace = Workspace()
    contexts = [replace(TRAINING, arrays=workspace, node=node) for node in ("first", "second")]
    numbers = [problem(case, seed=seed) for seed in (0, 1)]
    tapes = [case.layer.node_forward(one.params, one.xs, ctx) for one, ctx in zip(numbers, contexts, strict=True)]
    results = [
        case.layer.node_backward(one.params, residuals, one.dy, ctx)
        for one, (_, residuals), ctx in reversed(list(zip(numbers, tapes, contexts, strict=True)))
    ]
    for one, (y, _), (dxs, grads), ctx in zip(numbers, tapes, reversed(results), contexts, strict=True):
        alone = passes(one, replace(ctx, arrays=TRAINING.arrays))
        assert_same({"y": y} | {f"dx{k}": dx for k, dx in enumerate(dxs)} | grads, alone.arrays, 0)


@every_case
def test_gradients_to_parameters_do_not_need_the_one_to_the_input(case):
    numbers = problem(case)
    without = passes(numbers, replace(TRAINING, wants_dx=False))
    assert_same(without.grads(), passes(numbers, TRAINING).grads(), case.tolerance)


@every_case
@pytest.mark.parametrize("size", [1, 500, 1 << 40])
def test_the_size_of_blocks_does_not_matter(case, size, monkeypatch):
    numbers = problem(case)
    expected = passes(numbers, TRAINING).arrays
    monkeypatch.setattr(by_strips, "STRIP_BYTES", size)
    monkeypatch.setattr(rows, "BLOCK_BYTES", size)
    assert_same(passes(numbers, TRAINING).arrays, expected, case.tolerance)
