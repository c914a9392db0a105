"""One pass through a network, forward and backward, and all its numbers by the names of their cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from math import fsum
from typing import Any, Literal

import numpy as np

from cnnbp_cli.core.backprop import Part, backpropagate
from cnnbp_cli.core.graph import INPUT
from cnnbp_cli.core.losses import WeightedLoss
from cnnbp_cli.core.terms import TARGET, LossPass
from cnnbp_cli.core.types import Array, Context
from cnnbp_cli.model import Model, quiet
from cnnbp_cli.tracing.cells import Cell, CellError, parse_cell

PREDICTION, LOSS = "prediction", "loss"

Mode = Literal["evaluation", "training"]
Kind = Literal["input", "layer", "parameter", "prediction", "target", "loss"]


class Numbers:
    """A pass that has been run.

    Cells are given as text, ``"conv1[2,5,7]"``, or as `Cell`. Arrays of outputs are those of `core`, with the images
    last.

    Parameters
    ----------
    model : Model
    x, target : Array
        As `Model.batch_in` returns them.
    mode : {"evaluation", "training"}
    shown : int
        The image on show.
    step : int
        The updates that training has made; it names the streams of dropout.

    Attributes
    ----------
    images : int
        How many the mean loss is over.
    context : Context
        That of both passes.
    loss : float
        The mean loss: the weighted sum, where there are several.
    losses : tuple of float
        Each of them, before it is weighted.
    at_losses : list of LossPass
        What each of them has met, in the order of the model's `losses`.
    shapes : dict of str to Shape
        The public shape of every tensor: input, layers, parameters, prediction, target, loss. A layer that is called
        like one of the last three stands in its place. Where there are several losses, `loss` is their weighted sum,
        each one is called by its layer, as in ``aux1.loss``, and so are predictions and targets of all but the first.
    """

    @quiet
    def __init__(self, model: Model, x: Array, target: Array, mode: Mode, shown: int, step: int = 0) -> None:
        self.model, self.target, self.mode, self.shown = model, target, mode, shown
        self.images = x.shape[-1]
        self.context = ctx = Context(training=mode == "training", seed=model.config.seed, step=step)
        graph = model.graph
        self._values: dict[str, Array] = {INPUT: x}
        self._flows: dict[str, Array] = {INPUT: np.zeros_like(x)}  # where nothing reads the image

        def observe(part: Part, layer: str, *arrays: Array) -> None:
            if part in ("forward", "backward"):
                (self._values if part == "forward" else self._flows)[layer] = arrays[0]

        found = backpropagate(graph, model.losses, model.params, x, target, ctx, observe=observe)
        self.loss = found.loss
        self.losses = tuple(own / count for own, count in zip(found.loss_sums, found.loss_counts, strict=True))
        self._residuals, self._grads = found.tape.residuals, found.grads
        self.at_losses = [
            LossPass(z, one.loss.predict(z), one.loss.expected(z, target), one.loss.count(z))
            for one, z in zip(model.losses, found.zs, strict=True)
        ]
        self._nodes = {node.name: node for node in graph.nodes}
        self._owners = {f"{node}.{key}": (node, key) for node, own in model.params.items() for key in own}
        self.shapes = dict(graph.shapes)
        self.shapes |= {name: model.params[node][key].shape for name, (node, key) in self._owners.items()}
        self._beyond = _beyond(model.losses)
        for name, (kind, _) in self._beyond.items():
            self.shapes.setdefault(name, () if kind == "loss" else self.prediction.shape)

    def kind(self, tensor: str) -> Kind:
        """Return what a tensor is."""
        if tensor in self._owners:
            return "parameter"
        if tensor in self._values:
            return "input" if tensor == INPUT else "layer"
        return self._beyond[tensor][0]

    def loss_of(self, tensor: str) -> int | None:
        """Return which loss a prediction, a target or a loss belongs to; None for the sum of several."""
        return self._beyond[tensor][1]

    def tensor_of(self, kind: Kind, loss: int) -> str:
        """Return the tensor that is the prediction, the target or the value of a loss."""
        return next(name for name, found in self._beyond.items() if found == (kind, loss))

    def owner(self, parameter: str) -> tuple[str, str]:
        """Return the layer and the key of a parameter."""
        return self._owners[parameter]

    def is_learned(self, tensor: str) -> bool:
        """Return whether it is a parameter with a gradient."""
        return tensor in self._owners and self._owners[tensor][1] in self._grads[self._owners[tensor][0]]

    def cell(self, cell: str | Cell) -> Cell:
        """Return the cell that `cell` names.

        Raises
        ------
        CellError
            When there is none.
        """
        return parse_cell(str(cell), self.shapes)

    def value(self, cell: str | Cell) -> float:
        """Return the number in a cell, of the image on show."""
        cell = self.cell(cell)
        return float(self.array(cell.tensor)[cell.index])

    def gradient(self, cell: str | Cell) -> float:
        """Return the gradient of the mean loss to a cell: loss per unit of the cell.

        Raises
        ------
        CellError
            When there is no such cell, or it has no gradient.
        """
        cell = self.cell(cell)
        return float(self.array(cell.tensor, "gradient")[cell.index])

    def array(self, tensor: str, of: Literal["value", "gradient"] = "value") -> Array:
        """Return all numbers of a tensor in its public shape, of the image on show."""
        if tensor not in self.shapes:
            self.cell(tensor)  # which complains
        array = self._whole(tensor, of)
        return array if self.kind(tensor) in ("parameter", "loss") else array[..., self.shown]

    def _whole(self, tensor: str, of: str) -> Array:
        """Return all numbers of a tensor, of all images."""
        match self.kind(tensor):
            case "parameter":
                node, key = self._owners[tensor]
                if of == "gradient" and not self.is_learned(tensor):
                    raise CellError(f"{tensor}: has no gradient: running statistics follow the batches, not the loss")
                return (self.model.params if of == "value" else self._grads)[node][key]
            case "loss" if (k := self.loss_of(tensor)) is not None:
                return np.array(self.losses[k] if of == "value" else self.model.losses[k].weight)
            case "loss":
                return np.array(self.loss if of == "value" else 1.0)
            case "prediction" | "target" if of == "gradient":
                layer = self.model.losses[self.loss_of(tensor) or 0].layer
                raise CellError(f"{tensor}: has no gradient of its own; see the gradient of {layer}")
            case "prediction":
                return self.at_losses[self.loss_of(tensor) or 0].p
            case "target":
                return self.at_losses[self.loss_of(tensor) or 0].target
            case _:
                return (self._values if of == "value" else self._flows)[tensor]

    def of_batch(self, output: str, of: Literal["value", "gradient"] = "value") -> Array:
        """Return all numbers of the input or of a layer's output, of all images: (…, n)."""
        return (self._values if of == "value" else self._flows)[output]

    def residuals(self, node: str) -> Any:
        """Return what a layer's forward pass left for its backward pass."""
        return self._residuals[node]

    @property
    def prediction(self) -> Array:
        """The head's output for the image on show."""
        return self.at_losses[0].p[..., self.shown]

    def parameters(self, node: str) -> tuple[Mapping[str, Array], Mapping[str, Array]]:
        """Return the values and the gradients of a layer's parameters by key; running statistics have no gradient."""
        return self.model.params.get(node, {}), self._grads.get(node, {})

    def decisions(self, node: str) -> tuple[Array | None, Array | None]:
        """Return the winners (…, 2) of a layer's maxima and its gates, of the image on show; None where it has none."""
        layer, residuals = self._nodes[node].layer, self._residuals[node]
        winners, gates = layer.winning_pixels(residuals), layer.branches(residuals)
        return (
            None if winners is None else winners[..., self.shown],
            gates[..., self.shown] if gates is not None and gates.dtype == bool else None,
        )

    @cached_property
    def gradient_norm(self) -> float:
        """The L2 norm of the gradient over all parameters, which clipping looks at."""
        squares = (np.square(grad, dtype=np.float64).sum() for own in self._grads.values() for grad in own.values())
        return float(np.sqrt(fsum(squares)))


def _beyond(losses: Sequence[WeightedLoss]) -> dict[str, tuple[Kind, int | None]]:
    """Return the tensors that no layer has: of which kind each is, and of which loss."""
    found: dict[str, tuple[Kind, int | None]] = {}
    alone = len(losses) == 1 and losses[0].weight == 1
    for k, one in enumerate(losses):
        prefix = f"{one.layer}." if k else ""
        found |= {f"{prefix}{PREDICTION}": ("prediction", k), f"{prefix}{TARGET}": ("target", k)}
        found[LOSS if alone else f"{one.layer}.{LOSS}"] = ("loss", k)
    return found | ({} if alone else {LOSS: ("loss", None)})
