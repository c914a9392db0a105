"""What a network consists of and what it costs, by integer arithmetic: nothing is allocated or computed.

The receptive field is the patch of the image that one output position depends on, [height, width]. A layer
with windows of k pixels, dilation d and stride s makes of a field r with jump j (the distance, in the
image, between neighboring positions)

    r' = r + (k - 1)·d·j        j' = j·s

Padding is not taken off, so deep in a network a field may be larger than the image. What mixes all
positions (flatten, dense, global pooling) sees the image as far as its input covers it. Where branches
meet, the largest field counts. The statistics of normalization layers are left aside. The positions after
a transposed convolution differ in what they see; later windows over them may see a little more or less.

References
----------
Araujo, Norris & Sim 2019, *Computing Receptive Fields of Convolutional Neural Networks*, Distill.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from math import ceil, prod
from typing import Any, NamedTuple

from cnnbp_cli.build import build_graph
from cnnbp_cli.config.schema import Config, LossAt
from cnnbp_cli.core.graph import INPUT, Graph, Node
from cnnbp_cli.core.types import Shape
from cnnbp_cli.model import Model

ITEM_BYTES = {"float32": 4, "float64": 8}


@dataclass(frozen=True, slots=True)
class Kernel:
    """The windows through which a layer looks, each pair (vertical, horizontal)."""

    size: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]


@dataclass(frozen=True, slots=True)
class LayerSummary:
    """One layer. Shapes are (c, h, w) or (features,), without the batch.

    Attributes
    ----------
    name, type : str
    inputs : list of str
        The layers that it reads; ``"input"`` is the image.
    input_shape : list of int
        The shape of the first input.
    output_shape : list of int
    kernel : Kernel or None
    parameters, trainable_parameters : int
        With and without running statistics.
    tensors : dict of str to int
        How many values each parameter has, running statistics aside: ``{"weight": 150, "bias": 6}``.
    macs : int
        Multiply-accumulate operations of one image's forward pass.
    receptive_field : list of int
        Pixels of the image, [height, width].
    activation_bytes : int
        The output of one image; backward holds a gradient of this size to it.
    gradient_bytes : int
        The gradients to the layer's parameters.
    shares : str or None
        The layer whose parameters it computes with; they are counted there.
    """

    name: str
    type: str
    inputs: list[str]
    input_shape: list[int]
    output_shape: list[int]
    kernel: Kernel | None
    parameters: int
    trainable_parameters: int
    macs: int
    receptive_field: list[int]
    activation_bytes: int
    gradient_bytes: int
    tensors: dict[str, int]
    shares: str | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """A network layer by layer, in the order of computation, and its totals.

    Attributes
    ----------
    losses : list of LossAt
        Those that training minimizes the weighted sum of, that of the network's output first.
    total_macs, inference_macs : int
        Of all layers, and of those that the network's output depends on.
    """

    name: str
    dtype: str
    input_shape: list[int]
    batch_size: int
    layers: list[LayerSummary]
    total_parameters: int
    trainable_parameters: int
    total_macs: int
    total_activation_bytes: int
    total_gradient_bytes: int
    losses: list[LossAt]
    inference_macs: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def summary(model: Model | Config) -> Summary:
    """Describe the network of a model, or of a config that may be too large to build.

    Raises
    ------
    ConfigError
        When the shapes of a config do not fit.
    """
    if isinstance(model, Model):
        config, graph = model.config, model.graph
    else:
        config, graph = model, build_graph(model)
    layers = describe(graph, ITEM_BYTES[config.dtype])
    return Summary(
        name=config.name,
        dtype=config.dtype,
        input_shape=list(graph.shapes[INPUT]),
        batch_size=config.train.batch_size,
        layers=layers,
        total_parameters=sum(layer.parameters for layer in layers),
        trainable_parameters=sum(layer.trainable_parameters for layer in layers),
        total_macs=sum(layer.macs for layer in layers),
        total_activation_bytes=sum(layer.activation_bytes for layer in layers),
        total_gradient_bytes=sum(layer.gradient_bytes for layer in layers),
        losses=[*config.losses],
        inference_macs=sum(node.macs(graph.in_shapes(node)) for node in graph.leading),
    )


def describe(graph: Graph, item_bytes: int) -> list[LayerSummary]:
    """Describe every layer of a graph whose numbers take `item_bytes` each."""
    views: dict[str, View] = {INPUT: View.of_image(graph.shapes[INPUT])}
    layers: list[LayerSummary] = []
    for node in graph.nodes:
        views[node.name] = view = View.through(node, graph, [views[name] for name in node.inputs])
        in_shapes, out_shape = graph.in_shapes(node), graph.shapes[node.name]
        values, gradients = (sum(map(prod, of[node.name].values())) for of in (graph.param_shapes, graph.trainable))
        layers.append(
            LayerSummary(
                name=node.name,
                type=node.layer.type,
                inputs=list(node.inputs),
                input_shape=list(in_shapes[0]),
                output_shape=list(out_shape),
                kernel=kernel_of(node),
                parameters=values,
                trainable_parameters=gradients,
                macs=node.macs(in_shapes),
                receptive_field=view.extent(),
                activation_bytes=prod(out_shape) * item_bytes,
                gradient_bytes=gradients * item_bytes,
                tensors={
                    key: prod(shape)
                    for key, shape in graph.param_shapes[node.name].items()
                    if key not in node.layer.state
                },
                shares=node.shares or None,
            )
        )
    return layers


def kernel_of(node: Node) -> Kernel | None:
    """Return the windows of a layer that has any; those of a transposed convolution lie over its output."""
    windows = node.layer.kernel()
    return Kernel(*windows) if windows else None


class Axis(NamedTuple):
    """What the positions of an output see, along one direction of the image."""

    image: int  # pixels of the image
    field: Fraction  # pixels that one position sees
    jump: Fraction  # pixels from one position to the next
    positions: int

    def windowed(self, kernel: int, dilation: int, stride: int, positions: int) -> Axis:
        return Axis(self.image, self.field + (kernel - 1) * dilation * self.jump, self.jump * stride, positions)

    def upsampled(self, kernel: int, stride: int, positions: int) -> Axis:
        """An output pixel of a transposed convolution lies under ceil(kernel / stride) positions at most."""
        return Axis(self.image, self.field + (ceil(kernel / stride) - 1) * self.jump, self.jump / stride, positions)

    def mixed(self, positions: int) -> Axis:
        """Every position sees what all of them saw together."""
        together = min(Fraction(self.image), self.field + (self.positions - 1) * self.jump)
        return Axis(self.image, together, Fraction(0), positions)


class View(NamedTuple):
    """What the positions of an output see of the image."""

    vertical: Axis
    horizontal: Axis

    @classmethod
    def of_image(cls, shape: Shape) -> View:
        return cls(*(Axis(size, Fraction(1), Fraction(1), size) for size in shape[1:]))

    @classmethod
    def through(cls, node: Node, graph: Graph, views: Sequence[View]) -> View:
        """Return what a node's output sees, given what its inputs see."""
        widest = cls(*(max(axes, key=lambda axis: axis.field) for axes in zip(*views, strict=True)))
        before, after = graph.in_shapes(node)[0], graph.shapes[node.name]
        sizes = after[1:] if len(after) == 3 else (1, 1)
        kernel = kernel_of(node)
        axes: list[Axis] = []
        for direction, (axis, size) in enumerate(zip(widest, sizes, strict=True)):
            if kernel and node.layer.transposed:
                span = kernel.dilation[direction] * (kernel.size[direction] - 1) + 1
                axes.append(axis.upsampled(span, kernel.stride[direction], size))
            elif kernel:
                k, d, s = kernel.size[direction], kernel.dilation[direction], kernel.stride[direction]
                axes.append(axis.windowed(k, d, s, size))
            elif before[1:] == after[1:] and len(before) == len(after) == 3:
                axes.append(axis)
            else:
                axes.append(axis.mixed(size))
        return cls(*axes)

    def extent(self) -> list[int]:
        return [ceil(axis.field) for axis in self]
