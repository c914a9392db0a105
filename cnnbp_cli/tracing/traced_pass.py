"""`trace`: one pass through a network, to ask about every number in it; what `cnnbp.trace` is.

The terms of a gradient are those of all layers that read the output; behind each layer with a loss stand head and loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np

from cnnbp_cli.core.graph import Node
from cnnbp_cli.core.optim import Step, update_terms
from cnnbp_cli.core.terms import OUTPUT, TARGET, LayerPass, Ref, Term, Terms, scaled
from cnnbp_cli.core.types import Array
from cnnbp_cli.model import Model, ModelInputError, quiet
from cnnbp_cli.tracing.cells import Cell, CellError
from cnnbp_cli.tracing.explanation import Explanation, Told, given
from cnnbp_cli.tracing.numbers import LOSS, Mode, Numbers
from cnnbp_cli.tracing.update import Update, next_update


@dataclass(frozen=True, slots=True)
class Source:
    """Where the image on show comes from.

    Attributes
    ----------
    split : str or None
        Of the data; None for an image of the user's own.
    index : int or None
        In the split.
    label : int, float or None
        Its class or number; None where the target is an image or several numbers.
    assumed : bool
        True where nobody said the label and the network's own prediction stands for it.
    """

    split: str | None = None
    index: int | None = None
    label: float | None = None
    assumed: bool = False


class TracedPass(Numbers):
    """A pass that has been run, with the terms and the readers of its cells; see `Numbers` for the numbers.

    Attributes
    ----------
    source : Source
        Where the image on show comes from.
    update : Update
        What the optimizer brings to the next update.
    """

    def __init__(
        self, model: Model, x: Array, target: Array, mode: Mode, shown: int, source: Source, update: Update
    ) -> None:
        super().__init__(model, x, target, mode, shown, update.step)
        self.source, self.update = source, update
        self._readers: dict[str, list[tuple[Node, int]]] = {name: [] for name in model.graph.shapes}
        for node in model.graph.nodes:
            for k, name in enumerate(node.inputs):
                self._readers[name].append((node, k))

    @classmethod
    def of(
        cls,
        model: Model,
        image: Array,
        label: Any = None,
        *,
        mode: Mode = "evaluation",
        shown: int = 0,
        split: str | None = None,
        index: int | None = None,
        exact: bool = False,
        update: Update | None = None,
    ) -> Self:
        """Run one pass forward and backward, to ask about every number in it.

        Parameters
        ----------
        model : Model
        image : Array, shape (C, H, W) or (N, C, H, W)
            One image or a batch; (H, W) will do for one channel. Integers are raw pixels, floats are normalized.
        label : int or array, optional
            The label, or one for each image; none where the target is the image. A classifier without a label is asked
            about the class that it predicts.
        mode : {"evaluation", "training"}
            Training drops units and normalizes over the batch.
        shown : int
            The image on show. Gradients are always those of the mean loss over all images.
        split, index : str and int, optional
            Where the image on show comes from, for the document.
        exact : bool
            Round weights and pixels to eighths first, so that a person with a pencil gets finite decimals.
        update : Update, optional
            What the optimizer brings to the next update; by default its first.

        Raises
        ------
        ModelInputError
            When image or label do not fit the model.
        """
        images = np.asarray(image)
        if images.ndim == 2 and model.config.model.input[0] == 1:
            images = images[None]
        label = None if label is None else np.asarray(label)
        if label is not None and (images.ndim == 3 or (label.ndim == 0 and len(images) == 1)):
            label = label[None]
        images = images[None] if images.ndim == 3 else images
        if not 0 <= shown < len(images):
            raise ModelInputError(f"expected the image on show to be one from 0 to {len(images) - 1}, got {shown}")
        if exact:
            from cnnbp_cli.tracing.digits import snapped

            model, images = snapped(model, images)
        assumed = label is None and model.classifies
        if assumed:
            prediction = model.predict(images)
            label = (prediction[:, 0] > 0.5).astype(int) if prediction.shape[1] == 1 else prediction.argmax(1)
        number = None if label is None or np.ndim(label) != 1 else np.asarray(label)[shown].item()
        x, target = model.batch_in(images, label)
        return cls(model, x, target, mode, shown, Source(split, index, number, assumed), update or next_update(model))

    @quiet
    def terms(self, cell: str | Cell, of: str = "gradient") -> Explanation:
        """Explain a cell.

        Parameters
        ----------
        of : {"gradient", "value", "update"}
            The gradient of the mean loss, the number itself, or the change that the optimizer makes to a parameter.

        Raises
        ------
        CellError
            When there is no such cell, or it has no gradient or no update.
        """
        cell = self.cell(cell)
        epsilon = float(np.finfo(self.model.dtype).eps)
        match of:
            case "value":
                return Explanation(cell, of, self.value(cell), (self._value_told(cell),), epsilon)
            case "gradient":
                value, told = self.gradient(cell), tuple(self._gradient_told(cell))
                return Explanation(
                    *(cell, of, value, told, epsilon),
                    detached=cell.tensor not in self._leading,
                    tellers="uses" if self.kind(cell.tensor) == "parameter" else "readers",
                )
            case "update":
                update = self._update_told(cell)
                return Explanation(cell, of, update.terms.numbers["change"], (update,), epsilon)
            case _:
                raise CellError(f"expected value, gradient or update, got {of!r}")

    @quiet
    def used_by(self, cell: str | Cell, of: str = "gradient") -> tuple[Cell, ...]:
        """Return the cells whose own terms name this one: next in the pass, which for a gradient is backward.

        Only those of the image on show; none of a layer that does not state its terms.
        """
        cell = self.cell(cell)
        if of == "value":
            return tuple(dict.fromkeys(self._read_forward(cell)))
        if of == "gradient":
            self.gradient(cell)  # which complains where there is none
            return tuple(dict.fromkeys(self._read_backward(cell)))
        return ()

    @cached_property
    def _leading(self) -> set[str]:
        """The tensors that the loss depends on."""
        found = self.model.graph.ancestors(*self.model.graph.outputs)
        found.update(name for name in self.shapes if self.kind(name) == "loss")
        parameters = (name for name in self.shapes if self.kind(name) == "parameter")
        return found | {name for name in parameters if any(node.name in found for node in self._uses(name))}

    def _uses(self, parameter: str) -> list[Node]:
        """Return the layers that compute with a parameter: one, unless others share it."""
        return self.model.graph.uses[self.owner(parameter)[0]]

    # ------------------------------------------------------------------ what layers, head and loss say

    def _said(self, node: Node, say: Callable[..., Terms], *where: Any) -> Told:
        """Return what a method of the layer says about one of its cells."""
        at = LayerPass(
            self.model.params.get(node.owner, {}),
            [self.of_batch(name) for name in node.inputs],
            self.of_batch(node.name),
            self.of_batch(node.name, "gradient"),
            self.residuals(node.name),
        )

        def name(ref: Ref) -> tuple[Cell, int | None]:
            if isinstance(ref.tensor, str):
                return Cell(f"{node.owner}.{ref.tensor}", ref.where), None
            tensor = node.name if ref.tensor == OUTPUT else node.inputs[ref.tensor]
            return Cell(tensor, ref.where[:-1]), ref.where[-1]

        return Told(say(at, *where), at.__getitem__, name, node.name)

    def _said_by_loss(self, k: int, say: Callable[..., Terms], *where: Any, times: float = 1.0) -> Told:
        """Return what a method of the k-th loss says about one of its cells, which is so many times in the total."""
        at, layer = self.at_losses[k], self.model.losses[k].layer
        names = {0: layer, OUTPUT: self.tensor_of("prediction", k), TARGET: self.tensor_of("target", k)}

        def name(ref: Ref) -> tuple[Cell, int | None]:
            return Cell(names[ref.tensor], ref.where[:-1]), ref.where[-1]

        return Told(scaled(say(at, *where), times), at.__getitem__, name, self.tensor_of("loss", k))

    def _total(self) -> Told:
        """Return how the total loss is made of several."""
        terms = tuple(Term(one.weight, (Ref(k, ()),)) for k, one in enumerate(self.model.losses))

        def name(ref: Ref) -> tuple[Cell, int | None]:
            return Cell(self.tensor_of("loss", int(ref.tensor))), None

        return Told(Terms("loss = Σ w · L", terms), lambda ref: self.losses[int(ref.tensor)], name, LOSS)

    def _value_told(self, cell: Cell) -> Told:
        where = (*cell.index, self.shown)
        match self.kind(cell.tensor):
            case "layer":
                return self._said(self._nodes[cell.tensor], self._nodes[cell.tensor].layer.y_terms, where)
            case "loss" if (k := self.loss_of(cell.tensor)) is not None:
                return self._said_by_loss(k, self.model.losses[k].loss.loss_terms)
            case "loss":
                return self._total()
            case "prediction":
                k = self.loss_of(cell.tensor) or 0
                return self._said_by_loss(k, self.model.losses[k].loss.head_terms, where)
            case "input":
                return given("a pixel of the image", self.value(cell))
            case "target":
                return given("what the prediction is compared with", self.value(cell))
            case "parameter":
                learned = self.is_learned(cell.tensor)
                return given("learned" if learned else "follows the batches of training", self.value(cell))

    def _gradient_told(self, cell: Cell) -> Iterator[Told]:
        """Yield what each reader of an output, the loss among them, or each use of a parameter says of its gradient."""
        match self.kind(cell.tensor):
            case "parameter":
                uses = self._uses(cell.tensor)
                yield from self._said_of_parameter(cell, [u for u in uses if u.name in self._leading] or uses[:1])
            case "loss" if cell.tensor != LOSS:
                yield given("how much this loss counts in the total", self.gradient(cell))
            case "loss":
                yield given("the gradient of the loss to itself", 1.0)
            case _ if cell.tensor not in self._leading:
                yield given("nothing that leads to the loss reads it")
            case _:
                where = (*cell.index, self.shown)
                for k, one in enumerate(self.model.losses):
                    if one.layer == cell.tensor:
                        yield self._said_by_loss(k, one.loss.dz_terms, where, times=one.weight)
                for node, k in self._readers[cell.tensor]:
                    if node.name in self._leading:
                        yield self._said(node, node.layer.dx_terms, k, where)

    def _said_of_parameter(self, cell: Cell, uses: Sequence[Node]) -> Iterator[Told]:
        _, key = self.owner(cell.tensor)
        for node in uses:
            yield self._said(node, node.layer.grad_terms, key, cell.index)

    def _update_told(self, cell: Cell) -> Told:
        if not self.is_learned(cell.tensor):
            raise CellError(f"{cell}: has no update: only parameters are learned")
        numbers = {"value": self.value(cell), "gradient": self.gradient(cell)}
        entry = next(entry for entry in self.model.layout.entries if entry.name == cell.tensor)
        numbers |= {name: self.update.element(name, entry, cell.index) for name in self.update.transform.slots}
        step = Step(self.update.number, self.update.learning_rate, self.gradient_norm)
        terms = update_terms(self.update.transform, Ref(cell.tensor, cell.index), numbers, step)
        return Told(terms, lambda ref: numbers[ref.of], lambda ref: (cell, None), "optimizer")

    # ------------------------------------------------------------------ who uses a cell

    def _read_forward(self, cell: Cell) -> Iterator[Cell]:
        """Yield the outputs that read a cell: those whose gradients its own gradient is made of."""
        where = (*cell.index, self.shown)
        match self.kind(cell.tensor):
            case "prediction" | "target":
                yield Cell(self.tensor_of("loss", self.loss_of(cell.tensor) or 0))
            case "loss" if cell.tensor != LOSS:
                yield Cell(LOSS)
            case "parameter" if self.is_learned(cell.tensor):
                for told in self._said_of_parameter(cell, self._uses(cell.tensor)):
                    yield from self._outputs_in(told)
            case "input" | "layer":
                for node, k in self._readers[cell.tensor]:
                    yield from self._outputs_in(self._said(node, node.layer.dx_terms, k, where))
                for loss, one in enumerate(self.model.losses):
                    if one.layer == cell.tensor:
                        yield from self._predictions_of(cell, loss)

    def _outputs_in(self, told: Told) -> Iterator[Cell]:
        for ref in told.mentions():
            if ref.tensor == OUTPUT and ref.of == "gradient" and ref.where[-1] == self.shown:
                yield told.name(ref)[0]

    def _predictions_of(self, logit: Cell, loss: int) -> Iterator[Cell]:
        """Yield the predictions that read a logit: its own, and after a softmax all others at its place."""
        tensor, head_terms = self.tensor_of("prediction", loss), self.model.losses[loss].loss.head_terms
        if self.kind(tensor) == "prediction":
            for k in range(self.shapes[tensor][0]):
                index = (k, *logit.index[1:])
                told = self._said_by_loss(loss, head_terms, (*index, self.shown))
                if any(told.name(ref)[0] == logit for ref in told.mentions()):
                    yield Cell(tensor, index)

    def _read_backward(self, cell: Cell) -> Iterator[Cell]:
        """Yield the cells whose gradients are made of an output's: those that the output itself reads."""
        if self.kind(cell.tensor) == "loss":
            k = self.loss_of(cell.tensor)
            if k is None:
                yield from (Cell(self.tensor_of("loss", number)) for number in range(len(self.losses)))
            else:
                layer = self.model.losses[k].layer
                yield from (Cell(layer, index) for index in np.ndindex(self.shapes[layer]))
        elif self.kind(cell.tensor) == "layer" and cell.tensor in self._leading:
            told = self._said(
                self._nodes[cell.tensor], self._nodes[cell.tensor].layer.y_terms, (*cell.index, self.shown)
            )
            for source, image in map(told.name, told.mentions()):
                if image == self.shown or self.is_learned(source.tensor):
                    yield source
