"""What a layer says about itself, for everybody who has to know more than its two passes.

Statistics, diagnosis, the gradient check and exports ask a layer for these and never for its type, so that a layer
of a user's own is treated like a built-in one. The defaults claim nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Self

from numpy.typing import NDArray

EVERYTHING = (-float("inf"), float("inf"))


class Traits:
    """What every operation can say about itself; a class that says nothing is treated as unknown."""

    __slots__ = ()

    is_linear: ClassVar[bool] = False
    """In evaluation mode the output is a linear function of the inputs, plus a constant."""
    is_activation: ClassVar[bool] = False
    """It bends the signal between layers with weights and keeps its shape."""
    rectifies: ClassVar[bool] = False
    """A unit counts as active where its output is above 0: below, little or no gradient passes."""
    can_die: ClassVar[bool] = False
    """A rectifier whose slope goes to 0 below 0: a unit that is active for no image may stay so."""
    saturates: ClassVar[bool] = False
    """Large inputs of either sign come close to the ends of `output_range`, where hardly any gradient passes."""
    is_distribution: ClassVar[bool] = False
    """The channels (or features) of its output are positive and add up to 1."""
    selects: ClassVar[bool] = False
    """Every value of the output is one of the input's, as the maximum of a window."""
    normalizes: ClassVar[bool] = False
    """The scale of the input makes no difference to the output, so that weights before it may have any."""
    mixes_samples: ClassVar[bool] = False
    """In training mode a sample's output depends on the other samples of the batch."""

    # What `core.fusion` asks. A subclass does not inherit these: its passes may be others.
    is_relu: ClassVar[bool] = False
    """The output is max(x, 0), and is also what `backward` needs."""
    applies_relu: ClassVar[bool] = False
    """`forward` returns max(y, 0) in place of y when `ctx.then_relu` is true."""
    masks_relu: ClassVar[bool] = False
    """`backward` returns 0 as the gradient to inputs that are 0 when `ctx.after_relu` is true."""
    is_sum: ClassVar[bool] = False
    """The output is the sum of the inputs; where they have one shape, the gradient to each is the one at the output."""
    applies_sum: ClassVar[bool] = False
    """`forward` returns y + `ctx.then_add` in place of y where that is given, before `applies_relu`."""
    adds_gradient: ClassVar[bool] = False
    """`backward` returns dx + `ctx.plus` in place of dx where that is given, before `masks_relu`."""

    def output_range(self) -> tuple[float, float]:
        """Return the bounds between which every output lies."""
        return EVERYTHING

    def without_noise(self) -> Self:
        """Return the layer as it is when it draws nothing at random in training; itself where it never does."""
        return self


class OnnxOperator(NamedTuple):
    """One operator of ONNX as plain data; a layer is a chain of them, the last of which gives the layer's output.

    Attributes
    ----------
    operator : str
        Its name in https://onnx.ai/onnx/operators.
    inputs : tuple of str or array
        ``"x"`` is the layer's input (``"x0"``, ``"x1"``, … those of a merge), a parameter goes by its key, the output
        of an operator before this one by its `output`; an array is a constant, and ``""`` an input that is left out.
    attributes : mapping
    output : str
        A name for operators further down the chain. The last needs none.
    """

    operator: str
    inputs: tuple[str | NDArray[Any], ...] = ("x",)
    attributes: Mapping[str, Any] = MappingProxyType({})
    output: str = ""
