"""Custom layers from a user's file: the types they add to the config, and a guard that reports their mistakes.

A config alone never runs code; only a file that the user names is executed. Its layers are called through a
guard, because the mistakes of a layer under construction are the user's to fix: an exception, an output of the
wrong shape, an input changed in place become one message with the file and the line. What the file prints goes to
standard error, for standard output belongs to the report.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from functools import wraps
from inspect import isfunction, unwrap
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, NamedTuple

import numpy as np

from cnnbp_cli.core.layers import LAYERS, register
from cnnbp_cli.core.traits import OnnxOperator
from cnnbp_cli.core.types import (
    Array,
    Context,
    FieldErrors,
    Layer,
    Merge,
    Operation,
    Shape,
    ShapeError,
    show_shape,
)
from cnnbp_cli.errors import UserError

EXPECTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "output_range": (
        lambda bounds: isinstance(bounds, tuple) and len(bounds) == 2 and bounds[0] < bounds[1],
        "a pair (low, high)",
    ),
    "without_noise": (lambda layer: isinstance(layer, Operation), "a layer"),
    "memory": (lambda count: isinstance(count, int) and count >= 0, "a number from 0"),
    "onnx": (
        lambda operators: isinstance(operators, Sequence) and all(isinstance(one, OnnxOperator) for one in operators),
        "a list of OnnxOperator",
    ),
}
"""By method, whether a result is valid, and what was expected."""


class CustomLayerError(UserError):
    """A user's file that is not usable, or a layer in it that breaks the rules of a layer."""


class GuardedResiduals(NamedTuple):
    """A user's residuals, with the input shapes of the forward pass."""

    own: Any
    shapes: list[Shape]


def load_layers(path: str | Path) -> list[type[Operation[Any]]]:
    """Run a Python file, and let configs use the layers that it registers.

    Loading a file again replaces its layers.

    Parameters
    ----------
    path : str or Path
        A file with classes under ``@cnnbp_cli.register``.

    Returns
    -------
    list of layer classes
        At least one.

    Raises
    ------
    CustomLayerError
        When the file cannot be read or run, or registers no layer. The message has the file and the line.
    """
    path = Path(path)
    name = os.path.realpath(path).replace(".", "_")  # no other module's, and without what pickle takes for packages
    for word, known in list(LAYERS.items()):
        if known.__module__ == name:
            del LAYERS[word]
    before = set(LAYERS)
    if path.exists() and not (path.is_file() or path.is_dir()):  # a pipe or a device may never end
        raise CustomLayerError(f"{path}: not a regular file; expected a Python file")
    try:
        code = compile(path.read_bytes(), str(path), "exec")
    except OSError as error:
        reason = (
            "no such file; expected a Python file"
            if isinstance(error, FileNotFoundError)
            else f"cannot be read: {error.strerror}"
        )
        raise CustomLayerError(f"{path}: {reason}") from None
    except SyntaxError as error:
        shown = f"\n  {error.lineno} | {error.text.strip()}" if error.text and error.text.strip() else ""
        raise CustomLayerError(f"{path}:{error.lineno or 1}: {error.msg}{shown}") from None
    except ValueError as error:
        raise CustomLayerError(f"{path}: {error}; expected a Python file") from None
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # dataclasses look up their annotations there
    try:
        with redirect_stdout(sys.stderr):
            exec(code, module.__dict__)
    except (Exception, SystemExit) as error:
        for word in set(LAYERS) - before:
            del LAYERS[word]
        raise CustomLayerError(f"{path}:{_line(error.__traceback__, str(path))}: {_error_text(error)}") from None
    found = [LAYERS[word] for word in LAYERS if word not in before]
    if not found:
        raise CustomLayerError(f"{path}: registers no layer; put @cnnbp_cli.register above a layer's class")
    for operation in found:
        _guard(operation, path)
    return found


def _error_text(error: BaseException) -> str:
    """Return the text of an exception, with its type unless it comes from `register`."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is not None and trace.tb_frame.f_code is register.__code__ and isinstance(error, ValueError):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _line(trace: TracebackType | None, file: str) -> int:
    """Return the last line of the user's file that a traceback goes through."""
    line = 1
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _guard(operation: type[Any], path: Path) -> None:
    guard = _Guard(operation.__name__, str(path))
    one = not operation.several_inputs
    wrapped: dict[str, Callable[..., Any]] = {
        "forward": guard.layer_forward(operation.forward) if one else guard.merge_forward(operation.forward),
        "backward": guard.layer_backward(operation.backward) if one else guard.merge_backward(operation.backward),
    }
    interface = {name for name in dir(Layer if one else Merge) if not name.startswith("_")} | {"__post_init__"}
    for name, method in vars(operation).items():
        if name in interface - wrapped.keys() and isfunction(method):
            wrapped[name] = guard.with_checked_result(name, method)
    for name in {"next_state", "branches"} & {name for base in operation.__mro__ for name in vars(base)}:
        wrapped[name] = guard.with_own_residuals(wrapped.get(name, getattr(operation, name)))
    for name, method in wrapped.items():
        setattr(operation, name, method)
    operation.is_relu = False  # a fused ReLU's forward is not called, so backward would lack the guard's residuals


class _Guard:
    """Wraps the methods of one class of a user's file."""

    def __init__(self, name: str, file: str) -> None:
        self._name, self._file = name, file

    def with_checked_result(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def guarded(layer: Any, *args: Any) -> Any:
            result = self._call(name, method, "", layer, *args)
            is_valid, expected = EXPECTED.get(name, (bool, ""))
            if expected and not self._call(name, is_valid, "", result):
                line = method.__code__.co_firstlineno
                raise CustomLayerError(
                    f"{self._file}:{line}: {self._name}.{name} returned {_type_text(result)}, expected {expected}"
                )
            return result

        return guarded

    @staticmethod
    def with_own_residuals(method: Callable[..., Any]) -> Callable[..., Any]:
        """Give a method that takes residuals as the last argument its own."""

        @wraps(method)
        def guarded(layer: Any, *args: Any) -> Any:
            return method(layer, *args[:-1], args[-1].own)

        return guarded

    def layer_forward(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def guarded(
            layer: Layer[Any], params: dict[str, Array], x: Array, ctx: Context
        ) -> tuple[Array, GuardedResiduals]:
            result = self._call("forward", method, ctx.node, layer, _all_read_only(params), _read_only(x), ctx)
            expected = (*layer.out_shape(x.shape[:-1]), x.shape[-1])
            return self._checked(method, ctx, result, expected, np.result_type(x, *params.values()), [x.shape])

        return guarded

    def merge_forward(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def guarded(layer: Any, xs: Sequence[Array], ctx: Context) -> tuple[Array, GuardedResiduals]:
            result = self._call("forward", method, ctx.node, layer, [_read_only(x) for x in xs], ctx)
            expected = (*layer.out_shape([x.shape[:-1] for x in xs]), xs[0].shape[-1])
            return self._checked(method, ctx, result, expected, np.result_type(*xs), [x.shape for x in xs])

        return guarded

    def layer_backward(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def guarded(layer: Any, params: dict[str, Array], residuals: GuardedResiduals, dy: Array, ctx: Context) -> Any:
            result = self._call(
                "backward", method, ctx.node, layer, _all_read_only(params), residuals.own, _read_only(dy), ctx
            )
            if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[1], dict):
                raise self._wrong(method, ctx, f"returned {_type_text(result)}, expected dx and a dict of gradients")
            dx, grads = result
            if dx is not None or ctx.wants_dx:
                self._check(method, ctx, "dx", dx, residuals.shapes[0], dy.dtype)
            wanted = [key for key in params if key not in layer.state]
            if set(grads) != set(wanted):
                got, expected = (", ".join(keys) or "none" for keys in (grads, wanted))
                raise self._wrong(method, ctx, f"returned the gradients: {got}; expected: {expected}")
            for key in wanted:
                self._check(method, ctx, f"the gradient to {key}", grads[key], params[key].shape, dy.dtype)
            return result

        return guarded

    def merge_backward(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def guarded(layer: Any, residuals: GuardedResiduals, dy: Array, ctx: Context) -> Any:
            result = self._call("backward", method, ctx.node, layer, residuals.own, _read_only(dy), ctx)
            if not isinstance(result, tuple) or len(result) != len(residuals.shapes):
                count = len(residuals.shapes)
                raise self._wrong(
                    method, ctx, f"returned {_type_text(result)}, expected {count} gradients, one to each input"
                )
            for k, (dx, shape) in enumerate(zip(result, residuals.shapes, strict=True)):
                self._check(method, ctx, f"dx of input {k}", dx, shape, dy.dtype)
            return result

        return guarded

    def _checked(
        self,
        method: Callable[..., Any],
        ctx: Context,
        result: Any,
        shape: Shape,
        dtype: np.dtype[Any],
        in_shapes: list[Shape],
    ) -> tuple[Array, GuardedResiduals]:
        if not isinstance(result, tuple) or len(result) != 2:
            raise self._wrong(
                method, ctx, f"returned {_type_text(result)}, expected the output and what backward needs"
            )
        y, residuals = result
        self._check(method, ctx, "an output", y, shape, dtype)
        return y, GuardedResiduals(residuals, in_shapes)

    def _check(
        self, method: Callable[..., Any], ctx: Context, what: str, array: Any, shape: Shape, dtype: np.dtype[Any]
    ) -> None:
        if not isinstance(array, np.ndarray):
            raise self._wrong(method, ctx, f"returned {_type_text(array)} for {what}, expected an array")
        if array.shape != shape:
            axes = f", the batch of {shape[-1]} last" if what.startswith(("dx", "an output")) else ""
            sizes = f"{show_shape(array.shape) or 'a single number'}, expected {show_shape(shape)}"
            raise self._wrong(method, ctx, f"returned {what} of shape {sizes}{axes}")
        if array.dtype != dtype:
            raise self._wrong(method, ctx, f"returned {what} of {array.dtype}, expected {dtype} as in the input")

    def _call(self, name: str, method: Callable[..., Any], node: str, *args: Any) -> Any:
        try:
            with redirect_stdout(sys.stderr):
                return method(*args)
        except (UserError, ShapeError, FieldErrors, MemoryError):
            raise
        except Exception as error:
            line = _line(error.__traceback__, self._file)
            where = f" in layer {node}" if node else ""
            hint = "; inputs must not be changed in place" if "read-only" in str(error) else ""
            raise CustomLayerError(
                f"{self._file}:{line}: {self._name}.{name} failed{where}: {_error_text(error)}{hint}"
            ) from error

    def _wrong(self, method: Callable[..., Any], ctx: Context, complaint: str) -> CustomLayerError:
        return broken_rule(self._name, method, ctx.node, complaint)


def broken_rule(name: str, method: Callable[..., Any], node: str, complaint: str) -> CustomLayerError:
    """Return the error about a method of a custom layer that does what no layer may: "file:line: …".

    Parameters
    ----------
    name : str
        The class's.
    method : function
        Its `forward` or `backward`, guarded or not.
    node : str
        The layer's name in the network.
    complaint : str
        What it did.
    """
    code = unwrap(method).__code__
    return CustomLayerError(
        f"{code.co_filename}:{code.co_firstlineno}: {name}.{code.co_name} of layer {node} {complaint}"
    )


def _type_text(value: Any) -> str:
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return "nothing" if value is None else f"a value of type {type(value).__name__}"


def _read_only(array: Array) -> Array:
    view = array.view()
    view.flags.writeable = False
    return view


def _all_read_only(params: dict[str, Array]) -> dict[str, Array]:
    return {key: _read_only(value) for key, value in params.items()}
