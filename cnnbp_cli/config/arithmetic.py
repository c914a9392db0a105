"""What stands in a block in place of a value: `$filters`, or arithmetic with it, such as `4 * $filters`.

The language is numbers, parameters, `+ - * //` and parentheses. Nothing is evaluated as Python: its parser only tells
which operator takes which operands, and every other kind of expression is refused.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from math import floor

LONGEST = 100  # characters; no network needs more
PARAMETER = re.compile(r"[A-Za-z][A-Za-z0-9_]*", re.ASCII)
_ALONE = re.compile(rf"\s*\$({PARAMETER.pattern})\s*", re.ASCII)
_REFERENCE = re.compile(rf"\$({PARAMETER.pattern})", re.ASCII)
_TOKENS = re.compile(
    rf"(?: |\${PARAMETER.pattern}(?!\w)|[0-9]{{1,30}}(?:\.[0-9]{{1,30}})?(?![\w.])|//?|[-+*()])+", re.ASCII
)
_LANGUAGE = "numbers and $parameters with + - * // and parentheses"

Number = int | float


class ExpressionError(ValueError):
    """An expression that is not of the language, or that has no value."""


def is_expression(value: object) -> bool:
    """Tell whether a value in a block stands for another one."""
    return isinstance(value, str) and "$" in value


def parameter_alone(text: str) -> str | None:
    """Return the parameter that an expression consists of, if that is all there is: it may have any value."""
    match = _ALONE.fullmatch(text)
    return match[1] if match else None


def parameters_of(text: str) -> list[str]:
    """Return the parameters that an expression names, without their `$`.

    Raises
    ------
    ExpressionError
        When it is not of the language.
    """
    _parse(text)
    return _REFERENCE.findall(text)


def evaluate(text: str, value_of: Callable[[str], Number]) -> Number:
    """Return the value of an expression, `//` being division rounded down to an integer.

    Raises
    ------
    ExpressionError
        When it is not of the language, divides by zero, or is too large.
    """
    try:
        return _value(_parse(text), value_of)
    except ZeroDivisionError:
        raise ExpressionError(f"'{text}' divides by zero") from None
    except OverflowError:
        raise ExpressionError(f"'{text}' is too large") from None


def _parse(text: str) -> ast.expr:
    if len(text) > LONGEST:
        raise ExpressionError(f"expected {LONGEST} characters or fewer, got {len(text)}")
    # Without the `$`, a parameter might be one of Python's own words.
    source = _REFERENCE.sub(r"_\1", text.strip())
    if _TOKENS.fullmatch(text):
        try:
            parsed = ast.parse(source, mode="eval").body
        except (SyntaxError, RecursionError, MemoryError):
            pass
        else:
            if all(map(_is_known, _operations(parsed))):
                return parsed
    hint = "; // divides and rounds down" if re.search(r"[^/]/[^/]", text) else ""
    raise ExpressionError(f"expected {_LANGUAGE}, got '{text}'{hint}")


def _operations(expression: ast.expr) -> list[ast.expr]:
    return [node for node in ast.walk(expression) if isinstance(node, ast.expr)]


def _is_known(node: ast.expr) -> bool:
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, ast.Add | ast.Sub | ast.Mult | ast.FloorDiv)
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.op, ast.USub)
    return isinstance(node, ast.Name | ast.Constant)


def _value(node: ast.expr, value_of: Callable[[str], Number]) -> Number:
    match node:
        case ast.Name(name):
            return value_of(name.removeprefix("_"))
        case ast.Constant(int() | float() as number):
            return number
        case ast.UnaryOp(_, operand):
            return -_value(operand, value_of)
        case ast.BinOp(left, op, right):
            a, b = _value(left, value_of), _value(right, value_of)
            match op:
                case ast.Add():
                    return a + b
                case ast.Sub():
                    return a - b
                case ast.Mult():
                    return a * b
                case _:
                    return floor(a / b) if isinstance(a, float) or isinstance(b, float) else a // b
    raise AssertionError(ast.dump(node))  # `_parse` lets nothing else through
