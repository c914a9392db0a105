"""What everything in `core` agrees on: arrays and their axes, the layer interface, the context of a pass.

Axis letters, used in every comment below `core`:

    c channels   h height   w width   n batch   f filters (output channels)   kh kw kernel   g groups

A batch of images is `(c, h, w, n)`, a batch of vectors `(features, n)`: the batch is last, so that
every strided copy has long contiguous runs. A `Shape` is one sample's shape, without the batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from cnnbp_cli.core.terms import Explained, Index, LossPass, Terms, unstated
from cnnbp_cli.core.traits import OnnxOperator, Traits

Array = NDArray[Any]
Shape = tuple[int, ...]
Params = dict[str, Array]
Size = int | tuple[int, int]  # one number for both directions, or (vertical, horizontal)


class ShapeError(ValueError):
    """A layer cannot take an input of this shape."""


class FieldErrors(ValueError):
    """Impossible values of a declaration's fields.

    Attributes
    ----------
    problems : list of (field, message)
        One entry for each field that is wrong; the message says what was expected.
    """

    def __init__(self, problems: Sequence[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{name}: {message}" for name, message in problems))
        self.problems = list(problems)


def require(*checks: Iterable[tuple[str, str]]) -> None:
    """Raise `FieldErrors` with every problem that the checks found, if any."""
    problems = [problem for check in checks for problem in check]
    if problems:
        raise FieldErrors(problems)


def at_least(declaration: object, minimum: float, *names: str) -> Iterable[tuple[str, str]]:
    """Yield a problem for each named field with a value (or a part of a pair) below `minimum`."""
    for name in names:
        value = getattr(declaration, name)
        parts = value if isinstance(value, tuple) else (value,)
        if any(not isinstance(part, str) and part is not None and not part >= minimum for part in parts):
            yield name, f"expected {minimum} or more, got {show(value)}"


def within(
    declaration: object, low: float, high: float, *names: str, open_low: bool = False, open_high: bool = False
) -> Iterable[tuple[str, str]]:
    """Yield a problem for each named field outside the interval from `low` to `high`."""
    for name in names:
        value = getattr(declaration, name)
        if value is None:
            continue
        if not (low < value if open_low else low <= value) or not (value < high if open_high else value <= high):
            left, right = "above" if open_low else "from", "below" if open_high else "to"
            if high == float("inf"):
                yield name, f"expected a number above {low:g}, got {show(value)}"
            else:
                percent = f", did you mean {value / 100:g}?" if (low, high) == (0, 1) and 10 <= value <= 100 else ""
                yield name, f"expected a number {left} {low:g} {right} {high:g}, got {show(value)}{percent}"


def show(value: object) -> str:
    """Write a value as YAML would: pairs in brackets, `true` for True."""
    if isinstance(value, tuple | list):
        return "[" + ", ".join(show(part) for part in value) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def pair(size: Size) -> tuple[int, int]:
    """Return a size as (vertical, horizontal)."""
    return size if isinstance(size, tuple) else (size, size)


def show_shape(shape: Sequence[int]) -> str:
    """Write a shape as people say it: `6×28×28`, or `10` for a vector."""
    return "×".join(str(size) for size in shape)


class Communicator(Protocol):
    """The workers that share a batch; `parallel` has one for a single process and one for several."""

    @property
    def rank(self) -> int: ...
    @property
    def size(self) -> int: ...
    def all_reduce(self, array: Array) -> Array:
        """Return the sum of all workers' arrays, the same bits on every worker."""
        ...

    def share(self, count: int) -> slice:
        """Return which of `count` things, such as images or parameters, are this worker's."""
        ...


class Solo:
    """The communicator of one worker: sums are what they already are."""

    rank = 0
    size = 1

    def all_reduce(self, array: Array) -> Array:
        return array

    def share(self, count: int) -> slice:
        return slice(0, count)


class Allocator(Protocol):
    """Where a layer gets the arrays that it fills."""

    def empty(self, key: tuple[str, str], shape: Shape, dtype: DTypeLike) -> Array: ...


class FreshArrays:
    """A new array for every request: nothing outlives its owner, nothing is overwritten."""

    def empty(self, key: tuple[str, str], shape: Shape, dtype: DTypeLike) -> Array:
        return np.empty(shape, dtype)


class Workspace:
    """One buffer for each key, reused from step to step: fresh multi-megabyte arrays cost page faults.

    What a key's buffer held is gone at the next request for that key, so a workspace serves one pass
    at a time, and results that must outlive the step are copied.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, str], Array] = {}

    def place(self, key: tuple[str, str], buffer: Array) -> None:
        """Let a key's array lie in `buffer` (count,), which somebody else reads."""
        self._buffers[key] = buffer

    def empty(self, key: tuple[str, str], shape: Shape, dtype: DTypeLike) -> Array:
        count = prod(shape)
        buffer = self._buffers.get(key)
        if buffer is None or buffer.dtype != dtype or buffer.size < count:
            buffer = self._buffers[key] = aligned(count, np.dtype(dtype))
        return buffer[:count].reshape(shape)


GRADIENTS = ("dx", "flow")
"""The roles of gradients: what a layer's `backward` returns, and the sum of those of several readers."""

CACHE_LINE = 64
"""Bytes. A sum of two arrays that begin with a line takes half as long as one of arrays as `np.empty` places them."""


def aligned(count: int, dtype: np.dtype[Any]) -> Array:
    """Return an array (count,), not filled, that begins with a cache line."""
    memory = np.empty(count * dtype.itemsize + CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % CACHE_LINE
    return memory[start : start + count * dtype.itemsize].view(dtype)


def lies_by_rows(image: Array) -> bool:
    """Return whether the rows of image (c, h, w, n) follow one another in memory, as `Context.empty` has it."""
    return image.swapaxes(0, 1).flags.c_contiguous


@dataclass(frozen=True, slots=True)
class Context:
    """What a pass carries that is neither hyper-parameter nor parameter.

    Attributes
    ----------
    training : bool
        Training mode: dropout drops, batch norm uses the batch's own statistics.
    seed, step : int
        Name the random streams of this step (see `rng`).
    first_sample : int
        The position in the global batch of the first sample of this worker's slice.
    workers : Communicator
        Sums over all workers' slices of the batch.
    arrays : Allocator
        Where buffers come from.
    gradients : Allocator, optional
        Where those for `GRADIENTS` come from, if from elsewhere (see `core.recycling`).
    node : str
        The graph node that is being computed; it names streams and buffers.
    wants_dx : bool
        False when nobody will read the gradient to this node's input (the image, in training).
    fused : bool
        Let a ReLU be applied by its neighbors, who have its values in the cache anyway (see `Graph`).
    then_relu : bool
        Return max(y, 0) in the place of y.
    then_add : Array, optional
        Return y + this in the place of y (before the ReLU).
    after_relu : bool
        The input comes from a ReLU that leaves it to this node to stop gradients where the input is 0.
    plus : Array, optional
        Return dx + this in the place of dx (before the ReLU stops it): the gradient that other readers of the input
        have found.
    dy_is_free : bool
        Nobody else reads dy, so that dx may be written over it (see `over`).
    """

    training: bool = False
    seed: int = 0
    step: int = 0
    first_sample: int = 0
    workers: Communicator = field(default_factory=Solo)
    arrays: Allocator = field(default_factory=FreshArrays)
    gradients: Allocator | None = None
    node: str = ""
    wants_dx: bool = True
    fused: bool = False
    then_relu: bool = False
    then_add: Array | None = None
    after_relu: bool = False
    plus: Array | None = None
    dy_is_free: bool = False

    def at(
        self,
        node: str,
        *,
        training: bool,
        wants_dx: bool = True,
        then_relu: bool = False,
        then_add: Array | None = None,
        after_relu: bool = False,
        plus: Array | None = None,
        dy_is_free: bool = False,
    ) -> Context:
        """The same context, for another node."""
        return replace(
            self,
            node=node,
            training=training,
            wants_dx=wants_dx,
            then_relu=then_relu,
            then_add=then_add,
            after_relu=after_relu,
            plus=plus,
            dy_is_free=dy_is_free,
        )

    def empty(self, role: str, shape: Shape, dtype: DTypeLike) -> Array:
        """An array that belongs to this node until the end of the step.

        An image (c, h, w, n) lies in memory row by row, as (h, c, w, n): so some rows of it, all channels together,
        are one piece of memory, which is what convolution reads and writes (see `core.correlate`).

        One of `GRADIENTS` lasts only until the layers before this one have read it.
        """
        arrays = self.gradients if self.gradients is not None and role in GRADIENTS else self.arrays
        if len(shape) != 4:
            return arrays.empty((self.node, role), shape, dtype)
        c, h, w, n = shape
        return arrays.empty((self.node, role), (h, c, w, n), dtype).swapaxes(0, 1)

    def over(self, dy: Array) -> Array:
        """Where a layer that needs each value of dy once may write dx: over dy if it can, else in an array like it.

        A step of ResNet-20 takes 0.96 of the time that it takes if batch norm never writes over dy. What a layer has
        broadcast is not written over: one number of it is many values.
        """
        if self.dy_is_free and dy.flags.writeable and (lies_by_rows(dy) if dy.ndim == 4 else dy.flags.c_contiguous):
            return dy
        return self.empty("dx", dy.shape, dy.dtype)

    def scratch(self, role: str, shape: Shape, dtype: DTypeLike) -> Array:
        """An array that any node may overwrite as soon as this call of the layer returns."""
        return self.arrays.empty(("", role), shape, dtype)


R = TypeVar("R")


class Operation(Explained, Traits, ABC, Generic[R]):
    """What a node of the network computes: its hyper-parameters, as a frozen dataclass that holds no arrays.

    Both passes are pure: `forward` returns the residuals that `backward` needs, so that a check can
    perturb a parameter without disturbing a tape, and one layer may stand at several nodes.
    Every `forward` accepts complex128 and is analytic in the imaginary part (branches compare the
    real parts), which is what the complex-step gradient check rests on.

    A graph calls the `node_…` methods, which take a sequence of inputs and are the same for every operation.
    Layers are written against `Layer`, for one input, or `Merge`, for several, which provide them.
    """

    __slots__ = ()

    type: str
    several_inputs: ClassVar[bool] = False
    state: ClassVar[tuple[str, ...]] = ()
    """Entries of `params` that change without a gradient, such as running statistics."""
    unit_axis: ClassVar[int] = 0
    """The axis of `params["weight"]` along which the units (or output channels) lie."""
    transposed: ClassVar[bool] = False
    """The windows of `kernel` lie over the output, not over the input."""

    @abstractmethod
    def node_out_shape(self, in_shapes: Sequence[Shape]) -> Shape:
        """Return the shape of one output sample; raise `ShapeError` when the inputs do not fit."""

    @abstractmethod
    def node_forward(self, params: Params, xs: Sequence[Array], ctx: Context) -> tuple[Array, R]:
        """Return the output for the inputs and what `node_backward` will need."""

    @abstractmethod
    def node_backward(
        self, params: Params, residuals: R, dy: Array, ctx: Context
    ) -> tuple[tuple[Array | None, ...], Params]:
        """Return the gradient to each input and the gradients to the parameters, from `dy` at the output."""

    @abstractmethod
    def node_memory(self, in_shapes: Sequence[Shape]) -> int:
        """Return how many numbers are held for one sample, at the least; 0 where the output is the input."""

    @abstractmethod
    def node_onnx(self, in_shapes: Sequence[Shape]) -> Sequence[OnnxOperator]:
        """Return the operators that compute it in evaluation mode; none where ONNX has none."""

    def param_shapes(self, in_shape: Shape) -> dict[str, Shape]:
        """Return the shapes of what `init_params` draws; large layers say it without drawing."""
        return {name: value.shape for name, value in self.init_params(np.random.default_rng(0), in_shape).items()}

    def init_params(self, rng: np.random.Generator, in_shape: Shape) -> Params:
        """Draw fresh parameters, in float64; `{}` when there are none."""
        return {}

    def next_state(self, params: Params, residuals: R) -> Params:
        """Return the entries named in `state` as they are after this training step."""
        return {}

    def branches(self, residuals: R) -> Array | None:
        """Return the discrete decisions of a forward pass, such as which units are on, or None where there are none.

        Between two passes that decided alike the operation is smooth. Where they differ, the loss may have a
        kink between them, and a difference quotient across it is no derivative.
        """
        return None

    def macs(self, in_shape: Shape) -> int:
        """Return the multiply-accumulate operations of one sample's forward pass."""
        return 0

    def kernel(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]] | None:
        """Return (kernel size, stride, dilation) of a layer that looks through windows, else None."""
        return None


class Layer(Operation[R]):
    """An operation with one input, and with parameters if it likes.

    A subclass is a `@dataclass(frozen=True, slots=True)` with a field `type: Literal["name"] = "name"`;
    its fields are what YAML may say. Impossible values raise `FieldErrors` in `__post_init__`.
    """

    __slots__ = ()

    def out_shape(self, in_shape: Shape) -> Shape:
        """Return the shape of one output sample, by integer arithmetic.

        Raises
        ------
        ShapeError
            When the layer cannot take such an input.
        """
        return in_shape

    @abstractmethod
    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, R]:
        """Return the output for `x` and what `backward` will need."""

    @abstractmethod
    def backward(self, params: Params, residuals: R, dy: Array, ctx: Context) -> tuple[Array | None, Params]:
        """Return the gradient to the input and the gradients to the parameters, from `dy` at the output.

        The gradient to the input may be None when `ctx.wants_dx` is false.
        """

    def memory(self, in_shape: Shape) -> int:
        """Return how many numbers the layer holds for one sample, at the least; 0 where the output is the input."""
        return prod(self.out_shape(in_shape))

    def onnx(self, in_shape: Shape) -> Sequence[OnnxOperator]:
        """Return the operators that compute the layer in evaluation mode; none where ONNX has none."""
        return ()

    def node_out_shape(self, in_shapes: Sequence[Shape]) -> Shape:
        return self.out_shape(in_shapes[0])

    def node_forward(self, params: Params, xs: Sequence[Array], ctx: Context) -> tuple[Array, R]:
        return self.forward(params, xs[0], ctx)

    def node_backward(
        self, params: Params, residuals: R, dy: Array, ctx: Context
    ) -> tuple[tuple[Array | None, ...], Params]:
        dx, grads = self.backward(params, residuals, dy, ctx)
        return (dx,), grads

    def node_memory(self, in_shapes: Sequence[Shape]) -> int:
        return self.memory(in_shapes[0])

    def node_onnx(self, in_shapes: Sequence[Shape]) -> Sequence[OnnxOperator]:
        return self.onnx(in_shapes[0])


class Merge(Operation[R]):
    """An operation with several inputs and no parameters, such as the sum at the end of a residual branch."""

    __slots__ = ()

    several_inputs = True

    @abstractmethod
    def out_shape(self, in_shapes: Sequence[Shape]) -> Shape:
        """Return the shape of one output sample; raise `ShapeError` when the inputs do not fit."""

    @abstractmethod
    def forward(self, xs: Sequence[Array], ctx: Context) -> tuple[Array, R]:
        """Return the output for the inputs and what `backward` will need."""

    @abstractmethod
    def backward(self, residuals: R, dy: Array, ctx: Context) -> tuple[Array, ...]:
        """Return the gradient to each input. One array may be returned for several inputs."""

    def memory(self, in_shapes: Sequence[Shape]) -> int:
        """Return how many numbers the merge holds for one sample, at the least."""
        return prod(self.out_shape(in_shapes))

    def onnx(self, in_shapes: Sequence[Shape]) -> Sequence[OnnxOperator]:
        """Return the operators that compute the merge; none where ONNX has none."""
        return ()

    def node_out_shape(self, in_shapes: Sequence[Shape]) -> Shape:
        return self.out_shape(in_shapes)

    def node_forward(self, params: Params, xs: Sequence[Array], ctx: Context) -> tuple[Array, R]:
        return self.forward(xs, ctx)

    def node_backward(
        self, params: Params, residuals: R, dy: Array, ctx: Context
    ) -> tuple[tuple[Array | None, ...], Params]:
        return tuple(self.backward(residuals, dy, ctx)), {}

    def node_memory(self, in_shapes: Sequence[Shape]) -> int:
        return self.memory(in_shapes)

    def node_onnx(self, in_shapes: Sequence[Shape]) -> Sequence[OnnxOperator]:
        return self.onnx(in_shapes)


class Loss(ABC, Generic[R]):
    """A scalar to minimize, fused with the head that turns logits into predictions.

    `forward` returns a sum over the batch, and `count` what the sum is divided by, so that slices of
    a batch add up: the division by the global count happens once, outside.
    """

    __slots__ = ()

    @abstractmethod
    def predict(self, z: Array) -> Array:
        """Return the head's output for the logits `z`."""

    @abstractmethod
    def forward(self, z: Array, target: Array) -> tuple[Array, R]:
        """Return the loss summed over the batch, and the residuals."""

    @abstractmethod
    def backward(self, residuals: R) -> Array:
        """Return the gradient of the summed loss to the logits."""

    @abstractmethod
    def count(self, z: Array) -> int:
        """Return what the sum over this batch is divided by."""

    def expected(self, z: Array, target: Array) -> Array:
        """Return what predictions are compared with, in the shape of `z` where that can be said."""
        return target

    def loss_terms(self, at: LossPass) -> Terms:
        """Explain the mean loss."""
        return unstated(type(self), "forward")

    def head_terms(self, at: LossPass, index: Index) -> Terms:
        """Explain a prediction."""
        return unstated(type(self), "predict")

    def dz_terms(self, at: LossPass, index: Index) -> Terms:
        """Explain the gradient of the mean loss to a logit."""
        return unstated(type(self), "backward")


Tick = Callable[[int, int], None]
"""Called with how many parts of some work are done, and how many there are."""
