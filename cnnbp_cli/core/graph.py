"""The graph: nodes in a fixed order, their shapes, and the walk through them forward and backward.

The graph owns the plumbing that layers know nothing about: which output goes where, and that the
gradients of an output with several readers add up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from typing import Any

import numpy as np

from cnnbp_cli.core.fusion import Fusion
from cnnbp_cli.core.node import Node as Node
from cnnbp_cli.core.recycling import RecycledArrays
from cnnbp_cli.core.rng import generator
from cnnbp_cli.core.types import Array, Context, Params, Shape, ShapeError, show_shape

INPUT = "input"
"""The name by which nodes refer to the image."""

Watch = Callable[[str, Array], None]
"""Called with a node's name and an array of that node while a pass goes by."""

Done = Callable[[str, Params], None]
"""Called with a node's name and the gradients to its parameters, once they are known."""


class NodeShapeError(ShapeError):
    """A layer of the graph cannot take its input.

    Attributes
    ----------
    node : str
        The layer that failed.
    trace : list of (name, shape)
        The shapes of everything before it.
    """

    def __init__(self, node: str, message: str, trace: Sequence[tuple[str, Shape]]) -> None:
        super().__init__(f"layer {node}: {message}")
        self.node = node
        self.message = message
        self.trace = list(trace)


@dataclass(frozen=True, slots=True)
class Tape:
    """What a forward pass leaves for the backward pass: each node's residuals and each node's output shape."""

    residuals: Mapping[str, Any]
    shapes: Mapping[str, Shape]
    dtype: np.dtype[Any]


class Graph:
    """A directed acyclic graph of layers; the last node listed is the output, and others may be auxiliary ones.

    Parameters
    ----------
    input_shape : Shape
        One image's (c, h, w).
    nodes : sequence of Node
        In any order that reads well; they are computed in topological order.
    auxiliary : sequence of str
        Further nodes whose outputs leave the graph, for losses of their own.

    Attributes
    ----------
    nodes : tuple of Node
        In the order in which they are computed.
    shapes : dict of str to Shape
        The output shape of every node, and of ``"input"``.
    uses : dict of str to list of Node
        By the owner of parameters, the nodes that compute with them, in order: it alone, unless others share them.
    param_shapes, trainable : dict of str to dict of str to Shape
        The shapes of every node's own parameters, and of those among them that have a gradient.
    output : str
        The last node's name: what the network predicts with.
    outputs : tuple of str
        It, and the auxiliary ones.
    leading : tuple of Node
        Those that the output depends on, in the same order: all that predicting computes.
    fusion : Fusion
        Which layers leave their work to a neighbor in a fused pass.

    Raises
    ------
    NodeShapeError
        When a layer cannot take the shape of its input, or shares parameters of another shape than it needs.
    ValueError
        When names repeat, an input is unknown, nodes feed each other in a cycle, or a node shares the parameters of one
        that does not own any.
    """

    def __init__(self, input_shape: Shape, nodes: Sequence[Node], auxiliary: Sequence[str] = ()) -> None:
        self.output = nodes[-1].name
        self.outputs = (self.output, *auxiliary)
        self.nodes = _in_order(nodes)
        self.shapes: dict[str, Shape] = {INPUT: input_shape}
        for node in self.nodes:
            try:
                self.shapes[node.name] = node.out_shape(self.in_shapes(node))
            except ShapeError as error:
                raise NodeShapeError(node.name, str(error), list(self.shapes.items())) from error
        needed = {node.name: node.param_shapes(self.in_shapes(node)) for node in self.nodes}
        # A layer without parameters is the same at each node: there is nothing to share.
        self.nodes = tuple(node if needed[node.name] else replace(node, shares="") for node in self.nodes)
        self.uses = _by_owner(self.nodes)
        self._require_fit(needed)
        self.param_shapes = {node.name: {} if node.shares else needed[node.name] for node in self.nodes}
        # In the order of first uses, so that backward completes the gradients from the last to the first.
        first = [nodes[0] for nodes in self.uses.values()]
        self.trainable = {node.owner: node.trainable_shapes(self.in_shapes(node)) for node in first}
        self.trainable |= {node.name: {} for node in self.nodes if node.shares}
        found = self.ancestors(self.output)
        self.leading = tuple(node for node in self.nodes if node.name in found)
        self._last_reader = {name: node.name for node in self.leading for name in node.inputs}
        self._needs_gradient = self._find_needs_gradient()
        self.fusion = Fusion(self.nodes, self.outputs, self.shapes)

    def in_shapes(self, node: Node) -> list[Shape]:
        """Return the shapes of the node's inputs."""
        return [self.shapes[name] for name in node.inputs]

    def ancestors(self, *names: str) -> set[str]:
        """Return the outputs that some of these depend on, themselves among them."""
        found = set(names)
        for node in reversed(self.nodes):
            if node.name in found:
                found.update(node.inputs)
        return found

    def has_gradient(self, name: str) -> bool:
        """Return whether training computes the gradient at an output: some parameter lies in it or before it."""
        return self._needs_gradient[name]

    def init_params(self, seed: int, dtype: np.dtype[Any] | type = np.float64) -> dict[str, Params]:
        """Draw every layer's parameters; each layer has a stream of its own, named after it."""
        return {
            node.name: {
                key: value.astype(dtype)
                for key, value in node.init_params(generator(seed, "init", node.name), self.in_shapes(node)).items()
            }
            for node in self.nodes
            if not node.shares
        } | {node.name: {} for node in self.nodes if node.shares}

    def forward(
        self, params: Mapping[str, Params], x: Array, ctx: Context, watch: Watch | None = None
    ) -> tuple[tuple[Array, ...], Tape]:
        """Return the `outputs` for images x (c, h, w, n), and the tape for `backward`.

        `watch` is called with every node's output.
        """
        values = {INPUT: x}
        residuals: dict[str, Any] = {}
        for node, y, residual in self._walk(self.nodes, params, values, ctx):
            residuals[node.name] = residual
            if watch is not None:
                watch(node.name, y)
        shapes = {name: value.shape for name, value in values.items()}
        return tuple(values[name] for name in self.outputs), Tape(residuals, shapes, x.dtype)

    def apply(self, params: Mapping[str, Params], x: Array, ctx: Context) -> Array:
        """Return the output for images x (c, h, w, n), keeping nothing that is not needed any more."""
        values = {INPUT: x}
        for node, _, _ in self._walk(self.leading, params, values, ctx):
            for name in set(node.inputs):
                if self._last_reader[name] == node.name and name != self.output:
                    del values[name]
        return values[self.output]

    def _walk(
        self, nodes: Sequence[Node], params: Mapping[str, Params], values: dict[str, Array], ctx: Context
    ) -> Iterator[tuple[Node, Array, Any]]:
        for node in nodes:
            y, residual = self._compute(node, params, values, ctx)
            values[node.name] = y
            yield node, y, residual

    def _compute(
        self, node: Node, params: Mapping[str, Params], values: Mapping[str, Array], ctx: Context
    ) -> tuple[Array, Any]:
        if not ctx.fused:
            return node.forward(params[node.owner], [values[name] for name in node.inputs], ctx)
        fusion = self.fusion
        if node.name in fusion.clipped:
            y = values[node.inputs[0]]
            return y, y  # a ReLU's output is its residual, too
        if node.name in fusion.added:
            return values[fusion.added[node.name]], None
        _, other = fusion.sums.get(node.name, ("", ""))
        return node.forward(
            params[node.owner],
            [values[name] for name in node.inputs],
            ctx,
            then_relu=node.name in fusion.forward,
            then_add=values[other] if other else None,
        )

    def backward(
        self,
        params: Mapping[str, Params],
        tape: Tape,
        dys: Sequence[Array],
        ctx: Context,
        watch: Watch | None = None,
        done: Done | None = None,
    ) -> tuple[Array | None, dict[str, Params]]:
        """Send the gradients `dys` at the outputs back to the image; where the ways meet, they add up.

        Parameters
        ----------
        dys : sequence of Array
            The gradient at each of the `outputs`, of its shape.
        ctx : Context
            The one of the forward pass; with `wants_dx` false the image's gradient is not computed.
        watch : callable, optional
            Called with every node's name and the gradient at its *output*, from the last to the first,
            and at last with ``"input"`` and the image's gradient; without `wants_dx`, not with nodes that no
            parameter to train lies in or before. A `Workspace` uses these arrays again while the pass goes on.
        done : callable, optional
            Called with every node's name and the gradients to its own parameters, once they are known: where others
            share them, after the first use, which is the last that backward comes to.

        Returns
        -------
        dx : Array or None
            The gradient to the image (c, h, w, n).
        grads : dict of str to Params
            The gradient to every trainable parameter, by node.
        """
        flows: dict[str, Array] = dict(zip(self.outputs, dys, strict=True))
        grads: dict[str, Params] = {}
        recycled = RecycledArrays(ctx.arrays)
        ctx = replace(ctx, gradients=recycled)
        for node in reversed(self.nodes):
            if not (ctx.wants_dx or self._needs_gradient[node.name]):
                continue
            flow = flows.pop(node.name, None)
            if flow is None:  # nothing that leads to an output reads this node
                flow = np.zeros(tape.shapes[node.name], dys[0].dtype)
            if watch is not None:
                watch(node.name, flow)
            dxs: tuple[Array | None, ...] = (flow,) * len(node.inputs)
            own: Params = {}
            if not (ctx.fused and node.name in self.fusion.passing):
                # The gradient that other readers of the input have found already, if this one adds its own to it.
                plus = flows.pop(node.inputs[0], None) if ctx.fused and node.name in self.fusion.adding else None
                dxs, own = node.backward(
                    params[node.owner],
                    tape.residuals[node.name],
                    flow,
                    ctx,
                    wants_dx=ctx.wants_dx or any(self._needs_gradient[name] for name in node.inputs),
                    after_relu=ctx.fused and node.name in self.fusion.backward,
                    plus=plus,
                    dy_is_free=ctx.fused and recycled.only_holds(flow, [*flows.values(), plus]),
                )
            grads[node.owner] = _sum_over_uses(grads.get(node.owner), own, node, ctx)
            if done is not None and node is self.uses[node.owner][0]:
                done(node.owner, grads[node.owner])
            for name, dx in zip(node.inputs, dxs, strict=True):
                if dx is None:
                    continue
                if name in flows:
                    # Never `+=`: a layer may have returned one array to several inputs.
                    total = ctx.at(name, training=ctx.training).empty("flow", dx.shape, np.result_type(dx, flows[name]))
                    dx = np.add(flows[name], dx, out=total)
                flows[name] = dx
            recycled.keep(flows.values(), own.values())
        dx = flows.get(INPUT) if ctx.wants_dx else None  # without, layers may have left out their parts
        if watch is not None and dx is not None:
            watch(INPUT, dx)
        return dx, {node.name: grads.get(node.name, {}) for node in self.nodes}

    def next_state(self, params: Mapping[str, Params], tape: Tape) -> dict[str, Params]:
        """Return what changes without a gradient, such as running statistics, as it is after this step.

        Where nodes share it, each use goes on from what the one before it has made of it.
        """
        state: dict[str, Params] = {}
        for node in self.nodes:
            if node.layer.state:
                before = state.setdefault(node.owner, {})
                before |= node.next_state(params[node.owner] | before, tape.residuals[node.name])
        return state

    def _require_fit(self, needed: Mapping[str, Mapping[str, Shape]]) -> None:
        """Complain about a node that needs parameters of another shape than those that it shares."""
        for node in self.nodes:
            for key, shape in needed[node.name].items():
                owned = needed[node.owner].get(key)
                if shape != owned:
                    owner = next(use for use in self.uses[node.owner] if not use.shares)
                    here, there = (show_shape(self.shapes[one.inputs[0]]) for one in (node, owner))
                    message = (
                        f"shares the parameters of {owner.name}, which takes {there}, but takes {here} itself: "
                        f"{key} would be {show_shape(shape)} here and {show_shape(owned or ())} there"
                    )
                    raise NodeShapeError(node.name, message, list(self.shapes.items())[: self.nodes.index(node) + 1])

    def _find_needs_gradient(self) -> dict[str, bool]:
        """Tell for every output whether some parameter lies before it, so that its gradient is worth computing."""
        needs = {INPUT: False}
        for node in self.nodes:
            needs[node.name] = bool(self.trainable[node.owner]) or any(needs[name] for name in node.inputs)
        return needs


def _by_owner(nodes: Sequence[Node]) -> dict[str, list[Node]]:
    """Return the nodes that compute with each one's parameters, in order."""
    uses: dict[str, list[Node]] = {}
    for node in nodes:
        uses.setdefault(node.owner, []).append(node)
    owners = {node.name for node in nodes if not node.shares}
    for node in nodes:
        if node.owner not in owners:
            raise ValueError(f"layer {node.name} shares the parameters of {node.owner!r}, which owns none")
        if node.trainable != uses[node.owner][0].trainable:
            raise ValueError(f"layer {node.name} shares the parameters of {node.owner!r}, and only one is frozen")
    return uses


def _sum_over_uses(others: Params | None, own: Params, node: Node, ctx: Context) -> Params:
    """Return a layer's gradients with those of its later uses: dw = Σ dw of each use.

    In an array of this node, which may be the gradient's own: never in one of a later use.
    """
    if others is None:
        return own
    return {
        key: np.add(others[key], value, out=ctx.arrays.empty((node.name, key), value.shape, value.dtype))
        for key, value in own.items()
    }


def _in_order(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """Return the nodes in the order given, or, where one reads a later one, in topological order."""
    by_name = {node.name: node for node in nodes}
    if len(by_name) < len(nodes) or INPUT in by_name:
        raise ValueError("every layer needs a unique name other than 'input'")
    for node in nodes:
        unknown = [name for name in node.inputs if name != INPUT and name not in by_name]
        if unknown:
            raise ValueError(f"layer {node.name} reads {unknown[0]!r}, which does not exist")
    position = {INPUT: -1} | {node.name: k for k, node in enumerate(nodes)}
    if all(position[name] < k for k, node in enumerate(nodes) for name in node.inputs):
        return tuple(nodes)
    sorter = TopologicalSorter({node.name: [name for name in node.inputs if name != INPUT] for node in nodes})
    try:
        return tuple(by_name[name] for name in sorter.static_order())
    except CycleError as error:
        raise ValueError("layers feed each other in a cycle: " + " → ".join(error.args[1])) from error
