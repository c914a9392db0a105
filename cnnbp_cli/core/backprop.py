"""Backpropagation through a network and its loss: the one place where forward, loss and backward meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal, NamedTuple, Protocol

import numpy as np

from cnnbp_cli.core.graph import Done, Graph, Tape
from cnnbp_cli.core.losses import WeightedLoss, total_loss
from cnnbp_cli.core.types import Array, Context, Params

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
    loss      after the losses                    each loss summed over the batch (losses,)
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
    zs : tuple of Array
        The outputs of the layers that have losses, before the head; the network's own first.
    loss : float
        The weighted sum of the mean losses.
    loss_sums : tuple of float
        Each loss summed over the samples of the batch.
    loss_counts : tuple of float
        What each was divided by before it was differentiated.
    tape : Tape
        The residuals of the forward pass.
    dx : Array or None
        The gradient of `loss` to the image (c, h, w, n); None unless the context wants it.
    grads : dict of str to Params
        Its gradients to the trainable parameters, by node.
    """

    zs: tuple[Array, ...]
    loss: float
    loss_sums: tuple[float, ...]
    loss_counts: tuple[float, ...]
    tape: Tape
    dx: Array | None
    grads: dict[str, Params]


def backpropagate(
    graph: Graph,
    losses: Sequence[WeightedLoss],
    params: Mapping[str, Params],
    x: Array,
    target: Array,
    ctx: Context,
    *,
    counts: Sequence[float] | None = None,
    observe: Observer = ignore,
    done: Done | None = None,
) -> BackpropResult:
    """Run a batch forward through the network and the losses, and the gradient of their weighted sum backward.

    Parameters
    ----------
    graph : Graph
    losses : sequence of WeightedLoss
        One for each of the graph's outputs, in their order.
    params : mapping of str to Params
    x : Array, shape (c, h, w, n)
    target : Array
        As the losses take it.
    ctx : Context
    counts : sequence of float, optional
        What each summed loss is divided by; by default what makes it the mean over this batch. Workers that share a
        batch pass the counts of the whole of it.
    observe : Observer
    done : callable, optional
        Called with every layer's name and the gradients to its parameters, from the last layer to the first.
    """
    zs, tape = graph.forward(params, x, ctx, partial(observe, "forward"))
    counts = tuple(one.loss.count(z) for one, z in zip(losses, zs, strict=True)) if counts is None else tuple(counts)
    sums: list[float] = []
    dzs: list[Array] = []
    for one, z, count in zip(losses, zs, counts, strict=True):
        loss_sum, residuals = one.loss.forward(z, target)
        sums.append(float(loss_sum))
        dzs.append(one.weight * (one.loss.backward(residuals) / count))
    observe("loss", "", np.array(sums))
    dx, grads = graph.backward(params, tape, dzs, ctx, partial(observe, "backward"), done)
    observe("gradients", "")
    return BackpropResult(zs, total_loss(losses, sums, counts), tuple(sums), counts, tape, dx, grads)
