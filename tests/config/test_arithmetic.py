"""The arithmetic of blocks: what it computes, and that nothing else is computed."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnbp_cli.config.arithmetic import ExpressionError, evaluate, is_expression, parameter_alone, parameters_of

VALUES = {"a": 6, "b": 4, "half": 0.5, "if": 2, "zero": 0}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$a", 6),
        ("4 * $a", 24),
        ("$a*$b", 24),
        ("$a + $b * 2", 14),
        ("($a + $b) * 2", 20),
        ("$a // $b", 1),
        ("-$a + 1", -5),
        ("$a - $b - 1", 1),
        ("$if * 2", 4),
        ("$a * $half", 3.0),
        ("$a * 0.75 // 1", 4),
        (" 1 - -$a", 7),
    ],
)
def test_values(text, value):
    found = evaluate(text, VALUES.__getitem__)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        *("$a ** 2", "$a / 2", "$a % 2", "$a $b", "a + $b", "$a if $b", "$a.real", "$a[0]", "$a(1)", "$a, $b"),
        *("$a == 1", "not $a", "__import__('os') + $a", "$a = 1", "lambda: $a", "$", "$1", "${a}", "$a +", "()", "$é"),
        *(
            "$a or 1",
            "0x10 * $a",
            "1_000 * $a",
            "1e3 * $a",
            "$a; $b",
            "$a\n",
            "1j * $a",
            "~$a",
            "+$a",
            "'$a'",
            "$a * *$b",
        ),
    ],
)
def test_everything_else_is_refused(text):
    with pytest.raises(ExpressionError, match=r"^expected numbers and \$parameters with"):
        evaluate(text, VALUES.__getitem__)
    with pytest.raises(ExpressionError):
        parameters_of(text)


def test_a_single_slash_gets_the_double_one():
    with pytest.raises(ExpressionError, match=r"; // divides and rounds down$"):
        evaluate("$a / 2", VALUES.__getitem__)


@pytest.mark.parametrize("text", ["$a // $zero", "$a // (1 - 1)", "$half // 0"])
def test_division_by_zero(text):
    with pytest.raises(ExpressionError, match="divides by zero"):
        evaluate(text, VALUES.__getitem__)


def test_long_and_deep_ones_are_refused():
    for text in ("-" * 99 + "1", "(" * 49 + "1" + ")" * 49, "1" + "*1" * 50):
        with suppress(ExpressionError):
            evaluate(text, VALUES.__getitem__)
    with pytest.raises(ExpressionError, match="100 characters or fewer, got 101"):
        evaluate("1" * 101, VALUES.__getitem__)


def test_parameters():
    assert parameters_of("4 * $growth + $in_2") == ["growth", "in_2"]
    assert parameter_alone(" $a ") == "a"
    assert parameter_alone("$a + 1") is None
    assert is_expression("$")
    assert not is_expression("a")
    assert not is_expression(3)


@given(st.text(alphabet="$ab01.+-*/() \n_e", max_size=30) | st.text(max_size=20))
def test_any_text_is_a_number_or_refused(text):
    with suppress(ExpressionError):
        assert isinstance(evaluate(text, lambda name: VALUES.get(name, 3)), int | float)


@given(
    st.recursive(
        st.sampled_from(["$a", "$b", "3", "0.5"]),
        lambda inner: st.tuples(inner, st.sampled_from("+-*"), inner).map(lambda parts: f"({' '.join(parts)})"),
        max_leaves=6,
    )
)
def test_agrees_with_python(text):
    expected = eval(text.replace("$", ""), {}, VALUES)
    assert evaluate(text, VALUES.__getitem__) == expected
