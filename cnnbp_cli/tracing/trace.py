"""One pass through a network, forward and backward, and for every cell of it: the number, its terms and its readers.

`Trace` translates between two vocabularies. A layer states terms over what it knows: its inputs by number, its
parameters by key (`core.terms`). Here a cell has the name that the whole network knows it by (`tracing.cells`), the
terms of a gradient are those of all layers that read the output, and behind the last layer stand head and loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from math import fsum
from typing import Any, Literal

import numpy as np

from cnnbp_cli.core.graph import INPUT, Node
from cnnbp_cli.core.optim import Step, update_terms
from cnnbp_cli.core.terms import OUTPUT, TARGET, LossPass, Pass, Reason, Ref, Term, Terms, products, why_zero
from cnnbp_cli.core.types import Array, Context, Shape
from cnnbp_cli.model import Model, ModelInputError, quiet
from cnnbp_cli.tracing.cells import Cell, CellError, parse_cell
from cnnbp_cli.tracing.digits import snapped
from cnnbp_cli.tracing.update import Update, next_update

LOSS, PREDICTION = "loss", "prediction"

Mode = Literal["evaluation", "training"]


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


@dataclass(frozen=True, slots=True)
class Factor:
    """One cell in a sum: which, what of it, of which image of the batch (None of a parameter), and its number."""

    cell: Cell
    of: str
    image: int | None
    value: float


@dataclass(frozen=True, slots=True)
class Summand:
    """One term of a cell: coefficient · Π factors = product.

    `via` is the layer that states it, for a gradient the layer that the output goes to.
    """

    coefficient: float
    factors: tuple[Factor, ...]
    product: float
    via: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """One cell, explained.

    Attributes
    ----------
    cell : Cell
    of : str
        ``value``, ``gradient`` or ``update``.
    value : float
        The cell's number, as the pass computed it.
    formula, filled : str
        The rule in letters, and with its numbers.
    terms : tuple of Summand
        In the order of the formula.
    reads : tuple of Factor
        Further cells that it depends on, through coefficients and decisions.
    reason : Reason or None
        Why it is 0.
    retold : str
        The same sum told another way; empty where there is none.
    stated : bool
        False where a layer of the user's own does not state its terms, or some reader is one.
    """

    cell: Cell
    of: str
    value: float
    formula: str
    filled: str
    terms: tuple[Summand, ...]
    reads: tuple[Factor, ...]
    reason: Reason | None
    retold: str
    stated: bool

    def largest(self, top: int | None) -> tuple[tuple[Summand, ...], int, float]:
        """Return the `top` largest terms, how many others there are, and their sum.

        All terms are in the order of the formula; a choice of them begins with the largest. The sum of the others is
        what the value has beyond the terms shown: with all of them, what rounding left.
        """
        shown = self.terms
        if top is not None and len(shown) > top:
            shown = tuple(sorted(shown, key=lambda term: -abs(term.product))[:top])
        rest = fsum([self.value, *(-term.product for term in shown)]) if np.isfinite(self.value) else float("nan")
        return shown, len(self.terms) - len(shown), rest


@dataclass(frozen=True, slots=True)
class _Told:
    """Terms with what they are stated about: how to look up a `Ref`, and what the network calls it."""

    terms: Terms
    at: Callable[[Ref], float]
    name: Callable[[Ref], tuple[Cell, int | None]]
    via: str

    def factor(self, ref: Ref) -> Factor:
        return Factor(*_with_of(self.name(ref), ref.of), self.at(ref))

    def summands(self) -> Iterator[Summand]:
        numbers = products(self.at, self.terms.terms)
        for term, number in zip(self.terms.terms, numbers, strict=True):
            yield Summand(float(term.coefficient), tuple(map(self.factor, term.factors)), float(number), self.via)

    def refs(self) -> Iterator[Ref]:
        """Yield every cell that is mentioned."""
        for term in self.terms.terms:
            yield from term.factors
        yield from self.terms.reads


def _with_of(place: tuple[Cell, int | None], of: str) -> tuple[Cell, str, int | None]:
    return place[0], of, place[1]


def trace(
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
) -> Trace:
    """Run one pass forward and backward, to ask about every number in it.

    Parameters
    ----------
    model : Model
    image : Array, shape (C, H, W) or (N, C, H, W)
        One image or a batch; (H, W) will do for one channel. Integers are raw pixels, floats are normalized already.
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
        model, images = snapped(model, images)
    assumed = label is None and model.classifies
    if assumed:
        prediction = model.predict(images)
        label = (prediction[:, 0] > 0.5).astype(int) if prediction.shape[1] == 1 else prediction.argmax(1)
    number = None if label is None or np.ndim(label) != 1 else np.asarray(label)[shown].item()
    x, target = model.batch_in(images, label)
    return Trace(model, x, target, mode, shown, Source(split, index, number, assumed), update or next_update(model))


class Trace:
    """A pass that has been run.

    Cells are given as text, ``"conv1[2,5,7]"``, or as `Cell`. Parameters are arrays of `core`: images last.

    Attributes
    ----------
    model : Model
    mode : {"evaluation", "training"}
    shown : int
        The image on show, of `images`.
    images : int
        How many the mean loss is over.
    target : Array
        What the predictions are compared with: labels (n,), or numbers (…, n).
    context : Context
        That of both passes.
    source : Source
    loss : float
        The mean loss.
    shapes : dict of str to Shape
        The public shape of every tensor, in the order of the pass: input, layers and their parameters, prediction,
        target, loss.
    """

    @quiet
    def __init__(
        self, model: Model, x: Array, target: Array, mode: Mode, shown: int, source: Source, update: Update
    ) -> None:
        self.model, self.mode, self.shown, self.source, self.update = model, mode, shown, source, update
        self.images, self.target = x.shape[-1], target
        self.context = ctx = Context(training=mode == "training", seed=model.config.seed)
        graph, loss = model.graph, model.loss_function
        self._values: dict[str, Array] = {INPUT: x}
        self._flows: dict[str, Array] = {}
        z, self._tape = graph.forward(model.params, x, ctx, self._values.__setitem__)
        loss_sum, residuals = loss.forward(z, target)
        count = loss.count(z)
        self.loss = float(loss_sum) / count
        dx, self._grads = graph.backward(
            model.params, self._tape, loss.backward(residuals) / count, ctx, self._flows.__setitem__
        )
        self._flows[INPUT] = np.zeros_like(x) if dx is None else dx
        self._at_loss = LossPass(z, loss.predict(z), loss.expected(z, target), count)
        self._nodes = {node.name: node for node in graph.nodes}
        self._readers: dict[str, list[tuple[Node, int]]] = {name: [] for name in self._values}
        for node in graph.nodes:
            for k, name in enumerate(node.inputs):
                self._readers[name].append((node, k))
        self._owners: dict[str, tuple[str, str]] = {}
        self.shapes: dict[str, Shape] = {INPUT: x.shape[:-1]}
        for node in graph.nodes:
            self.shapes[node.name] = graph.shapes[node.name]
        for node in graph.nodes:
            for key, value in model.params.get(node.name, {}).items():
                self.shapes[f"{node.name}.{key}"] = value.shape
                self._owners[f"{node.name}.{key}"] = node.name, key
        self._beyond: dict[str, Array] = {}  # what only the loss knows, unless a layer has its name
        for name, array in ((PREDICTION, self._at_loss.p), (TARGET, self._at_loss.target)):
            if name not in self.shapes:
                self.shapes[name] = array.shape[:-1]
                self._beyond[name] = array
        self.shapes.setdefault(LOSS, ())

    # ------------------------------------------------------------------ numbers

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
        return self._number(self.cell(cell), "value", self.shown)

    def gradient(self, cell: str | Cell) -> float:
        """Return the gradient of the mean loss to a cell: loss per unit of the cell.

        Raises
        ------
        CellError
            When there is no such cell, or it has no gradient.
        """
        return self._number(self.cell(cell), "gradient", self.shown)

    def array(self, tensor: str, of: Literal["value", "gradient"] = "value") -> Array:
        """Return all numbers of a tensor in its public shape, of the image on show."""
        if tensor not in self.shapes:
            self.cell(tensor)  # which complains
        if tensor == LOSS and not self.shapes[LOSS]:
            return np.array(self.loss if of == "value" else 1.0)
        if tensor in self._owners:
            node, key = self._owners[tensor]
            if of == "value":
                return self.model.params[node][key]
            if key not in self._grads[node]:
                raise CellError(f"{tensor}: has no gradient: running statistics follow the batches, not the loss")
            return self._grads[node][key]
        if tensor in self._beyond:
            if of == "gradient":
                raise CellError(f"{tensor}: has no gradient of its own; see the gradient of {self.model.graph.output}")
            return self._beyond[tensor][..., self.shown]
        return (self._values if of == "value" else self._flows)[tensor][..., self.shown]

    def of_batch(self, output: str, of: Literal["value", "gradient"] = "value") -> Array:
        """Return all numbers of the input or of a layer's output, of all images: (…, n)."""
        return (self._values if of == "value" else self._flows)[output]

    def residuals(self, node: str) -> Any:
        """Return what a layer's forward pass left for its backward pass."""
        return self._tape.residuals[node]

    @property
    def prediction(self) -> Array:
        """The head's output for the image on show."""
        return self._at_loss.p[..., self.shown]

    def parameters(self, node: str) -> tuple[Mapping[str, Array], Mapping[str, Array]]:
        """Return the values and the gradients of a layer's parameters by key; running statistics have no gradient."""
        return self.model.params.get(node, {}), self._grads.get(node, {})

    def decisions(self, node: str) -> tuple[Array | None, Array | None]:
        """Return the winners (…, 2) of a layer's maxima and its gates, of the image on show; None where it has none."""
        layer, residuals = self._nodes[node].layer, self._tape.residuals[node]
        winners, gates = layer.winners(residuals), layer.branches(residuals)
        return (
            None if winners is None else winners[..., self.shown],
            gates[..., self.shown] if gates is not None and gates.dtype == bool else None,
        )

    def _number(self, cell: Cell, of: str, image: int | None) -> float:
        if of == "update":
            return self.terms(cell, of).value
        if of not in ("value", "gradient"):
            return self._state(cell, of)
        if cell.tensor in self._owners or not cell.index or image is None or image == self.shown:
            return float(self.array(cell.tensor, "value" if of == "value" else "gradient")[cell.index])
        home = self._beyond if cell.tensor in self._beyond else self._values if of == "value" else self._flows
        return float(home[cell.tensor][(*cell.index, image)])

    def _state(self, cell: Cell, name: str) -> float:
        """Return an element of one of the optimizer's vectors."""
        vector = self.update.state.get(name)
        if vector is None:
            return float(self.update.transform.slots[name])
        node, key = self._owners[cell.tensor]
        entry = next(e for e in self.model.layout.entries if (e.node, e.key) == (node, key))
        return float(vector[entry.start : entry.stop].reshape(entry.shape)[cell.index])

    # ------------------------------------------------------------------ terms

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
        if of == "value":
            told = [self._value_told(cell)]
        elif of == "gradient":
            self._number(cell, of, self.shown)  # which complains where there is none
            told = self._gradient_told(cell)
        elif of == "update":
            told = [self._update_told(cell)]
        else:
            raise CellError(f"expected value, gradient or update, got {of!r}")
        value = told[0].terms.numbers["change"] if of == "update" else self._number(cell, of, self.shown)
        summands = tuple(summand for one in told for summand in one.summands())
        reads = dict.fromkeys(one.factor(ref) for one in told for ref in one.terms.reads)
        return Explanation(
            cell,
            of,
            value,
            self._joined(told, Terms.symbols),
            self._joined(told, Terms.filled),
            summands,
            tuple(reads),
            self._reason(cell, of, value, told),
            "; ".join(one.terms.retold for one in told if one.terms.retold),
            all(one.terms.stated for one in told),
        )

    def used_by(self, cell: str | Cell, of: str = "gradient") -> tuple[Cell, ...]:
        """Return the cells whose own terms name this one: next in the pass, which for a gradient is backward.

        Only those of the image on show; none of a layer that does not state its terms.
        """
        cell = self.cell(cell)
        if of == "value":
            return self._forward_readers(cell)
        self._number(cell, of, self.shown)
        return self._backward_readers(cell) if of == "gradient" else ()

    @staticmethod
    def _joined(told: Sequence[_Told], text: Callable[[Terms], str]) -> str:
        if len(told) == 1:
            return text(told[0].terms)
        return "the sum over its readers: " + "; ".join(f"{one.via}: {text(one.terms)}" for one in told)

    def _reason(self, cell: Cell, of: str, value: float, told: Sequence[_Told]) -> Reason | None:
        if of == "gradient" and cell.tensor not in self._leading:
            return "detached"
        epsilon = float(np.finfo(self.model.dtype).eps)
        reasons = [why_zero(value, one.terms, one.at, epsilon) for one in told]
        if len(told) > 1 and value == 0 and any(any(products(one.at, one.terms.terms)) for one in told):
            return "canceled"
        return next(filter(None, reasons), None) if len(told) == 1 or value == 0 else None

    @cached_property
    def _leading(self) -> set[str]:
        """The tensors whose numbers the loss depends on."""
        found = {self.model.graph.output, LOSS, PREDICTION, TARGET}
        for node in reversed(self.model.graph.nodes):
            if node.name in found:
                found.update(node.inputs)
        return found | {name for name, (node, _) in self._owners.items() if node in found}

    # ------------------------------------------------------------------ what layers, head and loss say

    def _at(self, node: Node) -> Pass:
        return Pass(
            self.model.params.get(node.name, {}),
            [self._values[name] for name in node.inputs],
            self._values[node.name],
            self._flows[node.name],
            self._tape.residuals[node.name],
        )

    def _said(self, node: Node, say: Callable[..., Terms], *where: Any) -> _Told:
        """Return what a layer's method says about one of its cells."""
        at = self._at(node)

        def name(ref: Ref) -> tuple[Cell, int | None]:
            if isinstance(ref.tensor, str):
                return Cell(f"{node.name}.{ref.tensor}", ref.where), None
            tensor = node.name if ref.tensor == OUTPUT else node.inputs[ref.tensor]
            return Cell(tensor, ref.where[:-1]), ref.where[-1]

        return _Told(say(at, *where), at.__getitem__, name, node.name)

    def _said_by_loss(self, terms: Terms) -> _Told:
        names = {0: self.model.graph.output, OUTPUT: PREDICTION, TARGET: TARGET}

        def name(ref: Ref) -> tuple[Cell, int | None]:
            return Cell(names[ref.tensor], ref.where[:-1]), ref.where[-1]

        return _Told(terms, self._at_loss.__getitem__, name, LOSS)

    @staticmethod
    def _given(text: str, value: float) -> _Told:
        """Return an explanation of a number that nothing is behind."""
        return _Told(Terms(text, (Term(value),)), lambda ref: 0.0, lambda ref: (Cell(""), None), "")

    def _value_told(self, cell: Cell) -> _Told:
        where = (*cell.index, self.shown)
        loss = self.model.loss_function
        if cell.tensor in self._nodes:
            node = self._nodes[cell.tensor]
            return self._said(node, node.layer.y_terms, where)
        if cell.tensor == LOSS:
            return self._said_by_loss(loss.loss_terms(self._at_loss))
        if cell.tensor == PREDICTION:
            return self._said_by_loss(loss.head_terms(self._at_loss, where))
        kind = "a pixel of the image" if cell.tensor == INPUT else "given with the image"
        if cell.tensor in self._owners:
            owner, key = self._owners[cell.tensor]
            kind = "learned" if key in self._grads[owner] else "a running statistic of the batches in training"
        return self._given(kind, self.value(cell))

    def _gradient_told(self, cell: Cell) -> list[_Told]:
        """Return what each reader of an output says about its gradient."""
        if cell.tensor in self._owners:
            owner, key = self._owners[cell.tensor]
            return [self._said(self._nodes[owner], self._nodes[owner].layer.grad_terms, key, cell.index)]
        if cell.tensor == LOSS and cell.tensor not in self._nodes:
            return [self._given("the loss itself: 1", 1.0)]
        where = (*cell.index, self.shown)
        told: list[_Told] = []
        if cell.tensor == self.model.graph.output:
            told.append(self._said_by_loss(self.model.loss_function.dz_terms(self._at_loss, where)))
        for node, k in self._readers[cell.tensor]:
            if node.name in self._leading:
                told.append(self._said(node, node.layer.dx_terms, k, where))
        return told or [_Told(Terms("nothing that leads to the loss reads it"), lambda ref: 0.0, _nowhere, "")]

    def _update_told(self, cell: Cell) -> _Told:
        if (
            cell.tensor not in self._owners
            or self._owners[cell.tensor][1] not in self._grads[self._owners[cell.tensor][0]]
        ):
            raise CellError(f"{cell}: has no update: only parameters are learned")
        slots = self.update.transform.slots
        numbers = {of: self._number(cell, of, None) for of in ("value", "gradient", *slots)}
        step = Step(self.update.number, self.update.learning_rate, self._gradient_norm)
        terms = update_terms(self.update.transform, Ref(cell.tensor, cell.index), numbers, step)
        return _Told(terms, lambda ref: numbers[ref.of], lambda ref: (cell, None), "optimizer")

    @cached_property
    def _gradient_norm(self) -> float:
        """The L2 norm of the gradient over all parameters, which clipping looks at."""
        squares = (np.square(grad, dtype=np.float64).sum() for own in self._grads.values() for grad in own.values())
        return float(np.sqrt(fsum(squares)))

    # ------------------------------------------------------------------ who uses a cell

    def _forward_readers(self, cell: Cell) -> tuple[Cell, ...]:
        if cell.tensor == LOSS and cell.tensor not in self._nodes:
            return ()
        if cell.tensor in self._beyond:
            return (Cell(LOSS),)
        if cell.tensor in self._owners:
            owner, key = self._owners[cell.tensor]
            if key not in self._grads[owner]:
                return ()
            told = [self._said(self._nodes[owner], self._nodes[owner].layer.grad_terms, key, cell.index)]
        else:
            where = (*cell.index, self.shown)
            told = [self._said(node, node.layer.dx_terms, k, where) for node, k in self._readers[cell.tensor]]
        users = [one.name(ref) for one in told for ref in one.refs() if ref.tensor == OUTPUT and ref.of == "gradient"]
        found = dict.fromkeys(user for user, image in users if image == self.shown)
        if cell.tensor == self.model.graph.output and PREDICTION in self._beyond:
            found |= dict.fromkeys(self._predictions_of(cell))
        return tuple(found)

    def _predictions_of(self, logit: Cell) -> Iterator[Cell]:
        """Yield the predictions that read a logit: its own, or after a softmax all of them at its place."""
        loss = self.model.loss_function
        for index in np.ndindex(self.shapes[PREDICTION]) if len(self.shapes[PREDICTION]) == 1 else [logit.index]:
            terms = loss.head_terms(self._at_loss, (*index, self.shown))
            told = self._said_by_loss(terms)
            if any(told.name(ref)[0] == logit for ref in told.refs()):
                yield Cell(PREDICTION, index)

    def _backward_readers(self, cell: Cell) -> tuple[Cell, ...]:
        if cell.tensor == LOSS and cell.tensor not in self._nodes:
            output = self.model.graph.output
            return tuple(Cell(output, index) for index in np.ndindex(self.shapes[output]))
        if cell.tensor not in self._nodes or cell.tensor not in self._leading:
            return ()
        node = self._nodes[cell.tensor]
        told = self._said(node, node.layer.y_terms, (*cell.index, self.shown))
        users = (told.name(ref) for ref in told.refs())
        fixed = {f"{node.name}.{key}" for key in getattr(node.layer, "state", ())}
        return tuple(
            dict.fromkeys(user for user, image in users if image in (None, self.shown) and user.tensor not in fixed)
        )

    # ------------------------------------------------------------------ documents

    def document(self, layers: Sequence[str] = ()) -> dict[str, Any]:
        """Return the whole trace as plain values; see `document.trace_document`."""
        from cnnbp_cli.tracing.document import trace_document

        return trace_document(self, layers)

    def cell_document(self, cell: str | Cell, of: str = "gradient", top: int | None = 10) -> dict[str, Any]:
        """Return one cell's explanation as plain values; see `document.cell_document`."""
        from cnnbp_cli.tracing.document import cell_document

        return cell_document(self, self.cell(cell), of, top)

    def to_json(self, layers: Sequence[str] = ()) -> str:
        """Return `document` as JSON."""
        import json

        return json.dumps(self.document(layers), allow_nan=False)

    def to_html(self, **options: Any) -> str:
        """Return the page that shows the trace, one file that loads nothing; `options` go to `payload.page_payload`."""
        from cnnbp_cli.tracing.html import page
        from cnnbp_cli.tracing.payload import page_payload

        return page(page_payload(self, **options))

    def _repr_html_(self) -> str:
        """Return the page in a frame, as a notebook shows it."""
        style = "width: 100%; height: 720px; border: 0"
        return f'<iframe sandbox="allow-scripts" style="{style}" srcdoc="{escape(self.to_html())}"></iframe>'


def _nowhere(ref: Ref) -> tuple[Cell, int | None]:
    raise LookupError(ref)
