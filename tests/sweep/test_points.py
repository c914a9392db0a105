"""What overrides offer: lists cut where YAML cuts them, ranges, draws that repeat."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnbp_cli.config.errors import ConfigError
from cnnbp_cli.sweep.points import Choices, Range, commas, read_space

scalars = st.one_of(
    st.integers(-1000, 1000),
    st.floats(-1e6, 1e6),
    st.booleans(),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=8),
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3)
)


@given(st.lists(values, min_size=2, max_size=5, unique_by=repr))
def test_values_are_cut_at_the_outer_commas_only(offered):
    space = read_space(["key=" + ",".join(map(json.dumps, offered))], sampling=False)
    (axis,) = space.axes
    assert [*map(repr, axis.values)] == [*map(repr, offered)]
    assert [values for (values,) in space.grid()] == offered


@given(st.text("[]{},'\"#: ab1-", max_size=30))
def test_any_text_is_cut_at_commas_or_not_at_all(text):
    assert all(text[place] == "," for place in commas(text))


@pytest.mark.parametrize("text", ["seed=3", "model.input=[1, 28, 28]", "a={type: adam, learning_rate: 0.1}", 'a="b,c"'])
def test_one_value_is_an_ordinary_override(text):
    assert read_space([text], sampling=False).parts == (text,)


@given(
    st.sampled_from(["uniform", "log", "int"]),
    st.integers(1, 10**6),
    st.integers(1, 10**6),
    st.integers(0, 5),
)
def test_draws_lie_within_their_range_and_repeat(kind, low, width, seed):
    space = read_space([f"a={kind}({low}..{low + width})"], sampling=True)
    drawn = space.sample(min(5, width), seed)
    assert drawn == space.sample(min(5, width), seed)
    assert all(low <= value <= low + width for (value,) in drawn)
    assert all(isinstance(value, int) for (value,) in drawn) or kind != "int"


@given(st.floats(0, 1, exclude_max=True))
def test_the_logarithm_is_uniform(place):
    (axis,) = read_space(["a=log(1e-4..1)"], sampling=True).axes
    assert isinstance(axis, Range)
    assert axis.draw(place) == pytest.approx(10 ** (4 * place - 4), rel=1e-3)


def test_a_grid_varies_the_last_axis_fastest():
    space = read_space(["a=1,2", "b=x", "c=3,4"], sampling=False)
    assert space.grid() == [(1, 3), (1, 4), (2, 3), (2, 4)]
    assert space.named((1, 4)) == {"a": 1, "c": 4}


def test_samples_of_a_grid_are_all_different():
    space = read_space(["a=1,2,3", "b=int(1..3)"], sampling=True)
    drawn = space.sample(8, 1)
    assert len(set(drawn)) == 8
    assert set(drawn) < set(space.grid())
    assert space.sample(9, 1) == space.sample(100, 1) == space.grid()
    assert drawn[:3] == space.sample(3, 1)
    assert drawn != space.sample(8, 2)


def test_a_setting_points_into_its_override():
    (axis,) = read_space(["a=1, [2, 3]"], sampling=False).axes
    assert isinstance(axis, Choices)
    assert [s.text[s.start : s.end] for s in axis.settings] == ["1", " [2, 3]"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("a=1,,2", "--set a=1,,2:5: expected a value between the commas; nothing is written null"),
        ("a=1,2,1", "--set a=1,2,1:7: the value 1 is there twice"),
        ("a=log(1e-4,1e-1)", "--set a=log(1e-4,1e-1):3: expected a range, log(LOW..HIGH)"),
        ("a=log(0..1)", "--set a=log(0..1):7: a logarithmic range begins above 0"),
        ("a=int(1..2.5)", "--set a=int(1..2.5):10: expected an integer, got '2.5'"),
        ("a=uniform(x..1)", "--set a=uniform(x..1):11: expected a number, got 'x'"),
        ("a=uniform(2..1)", "--set a=uniform(2..1):14: the high end is not above the low one"),
        ("a=int(1..2)", "--set a=int(1..2):3: a range needs --samples N, the number of points to draw"),
        ("b=1,2", "--set b=1,2:1: b is set twice; --set b=3 sets it, too"),
    ],
)
def test_bad_axes(override, message):
    with pytest.raises(ConfigError) as caught:
        read_space(["b=3", override], sampling="(1..2)" not in override)
    assert str(caught.value).splitlines()[0] == message


def test_a_grid_that_is_too_large():
    with pytest.raises(ConfigError, match="more than 10,000: draw some of them with --samples"):
        read_space([f"a{k}=" + ",".join(map(str, range(10))) for k in range(5)], sampling=False)
