"""Backpropagation through a network and its loss: the one place where forward, loss and backward meet."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, NamedTuple, Protocol

from cnnbp_cli.core.graph import Done, Graph, Tape
from cnnbp_cli.core.types import Array, Context, Loss, Params

Part = Literal["begin", "batch", "forward", "loss", "backward", "gradients", "sums", "update"]
"""The parts of a training step, in their order."""


class Observer(Protocol):
    """Follows a step while it runs: called with a part, a layer's name or ``""``, and what there is to see.

    ========= =================================== ================================================
    part      called                              arrays
    ========= =================================== ================================================
    begin     first                               none
    batch     when the input is ready             the input (c, h, w, n)
    forward   after each layer                    its output
    loss      after the loss                      the loss summed over the batch, a single number
    backward  before each layer; then for         the gradient at its output
              ``"input"`` if that has a gradient
    gradients after the last layer                none
    sums      after the workers have summed       this worker's share of gradient and parameters
    update    after the update                    this worker's share of the parameters
    ========= =================================== ================================================
    """

    def __call__(self, part: Part, layer: str, *arrays: Array) -> None: ...


def ignore(part: Part, layer: str, *arrays: Array) -> None:
    """Observe nothing."""


class BackpropResult(NamedTuple):
    """What one forward and backward pass gives.

    Attributes
    ----------
    z : Array
        The network's output, before the head.
    loss_sum : Array
        The loss summed over the samples of the batch, a single number.
    loss_count : float
        What it was divided by before it was differentiated.
    tape : Tape
        The residuals of the forward pass.
    dx : Array or None
        The gradient of ``loss_sum / loss_count`` to the image (c, h, w, n); None unless the context wants it.
    grads : dict of str to Params
        Its gradients to the trainable parameters, by node.
    """

    z: Array
    loss_sum: Array
    loss_count: float
    tape: Tape
    dx: Array | None
    grads: dict[str, Params]


def backpropagate(
    graph: Graph,
    loss: Loss[Any],
    params: Mapping[str, Params],
    x: Array,
    target: Array,
    ctx: Context,
    *,
    count: float | None = None,
    observe: Observer = ignore,
    done: Done | None = None,
) -> BackpropResult:
    """Run a batch forward through the network and the loss, and its gradient backward.

    Parameters
    ----------
    graph : Graph
    loss : Loss
    params : mapping of str to Params
    x : Array, shape (c, h, w, n)
    target : Array
        As the loss takes it.
    ctx : Context
    count : float, optional
        What the summed loss is divided by; by default what makes it the mean over this batch. Workers that share a
        batch pass the count of the whole of it.
    observe : Observer
    done : callable, optional
        Called with every layer's name and the gradients to its parameters, from the last layer to the first.
    """
    z, tape = graph.forward(params, x, ctx, partial(observe, "forward"))
    loss_sum, residuals = loss.forward(z, target)
    if count is None:
        count = loss.count(z)
    dz = loss.backward(residuals) / count
    observe("loss", "", loss_sum)
    dx, grads = graph.backward(params, tape, dz, ctx, partial(observe, "backward"), done)
    observe("gradients", "")
    return BackpropResult(z, loss_sum, count, tape, dx, grads)
