"""Layers that choose among channels and put them in another order, as networks with a split of the channels need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from cnnbp_cli.core.layers.registry import register
from cnnbp_cli.core.terms import OUTPUT, Index, LayerPass, Ref, Term, Terms, listed
from cnnbp_cli.core.traits import OnnxOperator
from cnnbp_cli.core.types import Array, Context, Layer, Params, Shape, ShapeError, at_least, require, show_shape


@register
@dataclass(frozen=True, slots=True)
class SliceChannels(Layer[Shape]):
    """Take the channels (or the features of a vector) from `start` to before `stop`; the others get no gradient."""

    start: int = 0
    """The first channel to take."""
    stop: int | None = None
    """The first channel not to take any more; by default all to the last are taken."""
    type: Literal["slice_channels"] = "slice_channels"
    is_linear = True
    selects = True

    def __post_init__(self) -> None:
        require(
            at_least(self, 0, "start"),
            [("stop", f"expected more than start {self.start}, got {self.stop}")]
            if self.stop is not None and self.stop <= self.start
            else (),
        )

    def out_shape(self, in_shape: Shape) -> Shape:
        stop = in_shape[0] if self.stop is None else self.stop
        if not self.start < stop <= in_shape[0]:
            raise ShapeError(f"cannot take channels {self.start} to {stop - 1} of {in_shape[0]}")
        return (stop - self.start, *in_shape[1:])

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Shape]:
        return x[self.start : self.stop], x.shape

    def backward(self, params: Params, residuals: Shape, dy: Array, ctx: Context) -> tuple[Array, Params]:
        dx = ctx.empty("dx", residuals, dy.dtype)
        dx.fill(0)
        dx[self.start : self.stop] = dy
        return dx, {}

    def y_terms(self, at: LayerPass, index: Index) -> Terms:
        place = (index[0] + self.start, *index[1:])
        return Terms(f"y[{listed(index)}] = x[{listed(place)}]", (Term(1, (Ref(0, place),)),))

    def dx_terms(self, at: LayerPass, k: int, index: Index) -> Terms:
        place = (index[0] - self.start, *index[1:])
        if 0 <= place[0] < len(at.y):
            return Terms(f"dx[{listed(index)}] = dy[{listed(place)}]", (Term(1, (Ref(OUTPUT, place, "gradient"),)),))
        return Terms(f"dx[{listed(index)}] = 0, as its channel was not taken", reason="not read")

    def onnx(self, in_shape: Shape) -> list[OnnxOperator]:
        stop = in_shape[0] if self.stop is None else self.stop
        return [OnnxOperator("Slice", ("x", *(np.array([value]) for value in (self.start, stop, 1))))]


@register
@dataclass(frozen=True, slots=True)
class ChannelShuffle(Layer[None]):
    """Deal the channels of `groups` equal parts out in turn, so that each part gets some of all.

        y[k·g + i] = x[i·c/g + k]

    References
    ----------
    Zhang et al. 2018, *ShuffleNet*, arXiv:1707.01083, section 3.1; PyTorch's `nn.ChannelShuffle`.
    """

    groups: int
    """Equal parts that the channels are in, for example `2`."""
    type: Literal["channel_shuffle"] = "channel_shuffle"
    is_linear = True
    selects = True

    def __post_init__(self) -> None:
        require(at_least(self, 1, "groups"))

    def out_shape(self, in_shape: Shape) -> Shape:
        if len(in_shape) != 3:
            raise ShapeError(f"needs an image (channels, height, width), got {show_shape(in_shape)}")
        if in_shape[0] % self.groups:
            raise ShapeError(f"needs a number of channels that {self.groups} groups divide, got {in_shape[0]}")
        return in_shape

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, None]:
        return x[self._sources(len(x))], None

    def backward(self, params: Params, residuals: None, dy: Array, ctx: Context) -> tuple[Array, Params]:
        dx = ctx.empty("dx", dy.shape, dy.dtype)
        dx[self._sources(len(dy))] = dy
        return dx, {}

    def _sources(self, channels: int) -> Array:
        """Return which input channel each output channel is."""
        return np.arange(channels).reshape(self.groups, -1).T.ravel()

    def y_terms(self, at: LayerPass, index: Index) -> Terms:
        place = (int(self._sources(len(at.x))[index[0]]), *index[1:])
        return Terms(f"y[{listed(index)}] = x[{listed(place)}]", (Term(1, (Ref(0, place),)),))

    def dx_terms(self, at: LayerPass, k: int, index: Index) -> Terms:
        place = (int(np.argsort(self._sources(len(at.x)))[index[0]]), *index[1:])
        return Terms(f"dx[{listed(index)}] = dy[{listed(place)}]", (Term(1, (Ref(OUTPUT, place, "gradient"),)),))

    def onnx(self, in_shape: Shape) -> list[OnnxOperator]:
        c, h, w = in_shape
        parts, whole = np.array([0, self.groups, c // self.groups, h, w]), np.array([0, c, h, w])
        cut = OnnxOperator("Reshape", ("x", parts), {}, "parts")
        dealt = OnnxOperator("Transpose", ("parts",), {"perm": (0, 2, 1, 3, 4)}, "dealt")
        return [cut, dealt, OnnxOperator("Reshape", ("dealt", whole))]
