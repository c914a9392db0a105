"""A small network's trace, whole: every number, forward from the image and backward from the loss."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import numpy as np

from cnnbp_cli.core.graph import INPUT
from cnnbp_cli.core.optim import Sgd
from cnnbp_cli.core.types import Array, show_shape
from cnnbp_cli.report.text import count
from cnnbp_cli.report.trace.lines import GLUE, GRADIENTS, VALUES, matrices, write
from cnnbp_cli.report.trace.numerals import Numerals, minus
from cnnbp_cli.report.trace.sums import WHY, chained, rule, worked
from cnnbp_cli.tracing.cells import Cell
from cnnbp_cli.tracing.digits import addition
from cnnbp_cli.tracing.numbers import LOSS
from cnnbp_cli.tracing.trace import Trace
from cnnbp_cli.tracing.update import Update

INLINE = 16
"""Terms in a line; of more, the largest."""

SWAPPED = (
    'Beware of a sentence that circulates: "output_grad * filter updates the weights, output_grad * input goes back" '
    "has the two swapped. The weights need the input, as here; the input needs the weights."
)


def show_whole(trace: Trace, names: Sequence[str], numerals: Numerals) -> None:
    """Write all numbers of the named tensors, and how the largest of each comes about."""
    _count_parameters(trace, names)
    write()
    write("Forward: from the image to the loss", f"bold {VALUES}")
    write("x is a layer's input, y its output; dx and dy are the gradients to them", "dim")
    for name in names:
        _forward(trace, name, numerals)
    for k, one in enumerate(trace.model.losses):
        if one.layer in names:
            _loss(trace, k, numerals)
    if trace.loss_of(LOSS) is None and trace.kind(LOSS) == "loss":
        write()
        work(trace, Cell(LOSS), "value", numerals)
    write()
    write("Backward: from the loss to the image", f"bold {GRADIENTS}")
    write("d is the gradient of the loss: loss per unit of the cell", "dim")
    told = False
    for name in reversed(names):
        _gradients(trace, name, _origin(trace, name), numerals)
        for key in trace.parameters(name)[1]:
            _gradients(trace, f"{name}.{key}", "", numerals)
            if not told and is_kernel(trace, f"{name}.{key}"):
                told = True
                write(SWAPPED, "dim", 1)
    learned = [f"{name}.{key}" for name in names for key in trace.parameters(name)[1]]
    if learned:
        _update(trace, learned[0], numerals)


def _count_parameters(trace: Trace, names: Sequence[str]) -> None:
    sizes = {name: [gradient.size for gradient in trace.parameters(name)[1].values()] for name in names}
    sizes = {name: own for name, own in sizes.items() if own}
    if sizes:
        parts = " + ".join(f"{' + '.join(map(str, own))} ({name})" for name, own in sizes.items())
        write(f"{parts} = {sum(map(sum, sizes.values()))} parameters")


def _forward(trace: Trace, name: str, numerals: Numerals) -> None:
    write()
    if name == INPUT:
        write(f"input  {show_shape(trace.shapes[INPUT])}, as the network sees it", "bold")
    else:
        node = next(node for node in trace.model.graph.nodes if node.name == name)
        shared = f", with the parameters of {node.shares}" if node.shares else ""
        write(f"{name} = {node.layer.type}({', '.join(node.inputs)})  {show_shape(trace.shapes[name])}{shared}", "bold")
    parameters, output = trace.parameters(name)[0], trace.array(name)
    for key, value in parameters.items():
        matrices(key, value, numerals, VALUES)
    matrices("output" if parameters else "", output, numerals, VALUES)
    if name != INPUT:
        winners, gates = trace.decisions(name)
        if winners is not None:
            places = winners.reshape(-1, 2).tolist()
            write("winners, [row,column]: " + " ".join(f"[{r},{c}]" for r, c in places), "", 1)
            found = [trace.terms(Cell(name, tuple(map(int, index))), "value") for index in np.ndindex(output.shape)]
            ties = sum(any(factor.value == one.value for factor in one.reads) for one in found)
            if ties:
                write(f"{count(ties, 'tie')}, in which the first in row-major order wins", "", 1)
        if gates is not None:
            write(f"open: {np.count_nonzero(gates)} of {gates.size}", "", 1)
        work(trace, Cell(name, largest(output)), "value", numerals)


def _loss(trace: Trace, k: int, numerals: Numerals) -> None:
    """Write the prediction that a loss looks at, and the loss."""
    prediction, loss = trace.tensor_of("prediction", k), trace.tensor_of("loss", k)
    write()
    write(loss, "bold")
    if trace.prediction.ndim == 1 and trace.kind(prediction) == "prediction":
        values = trace.array(prediction)
        matrices("prediction", values, numerals, VALUES)
        work(trace, Cell(prediction, largest(values)), "value", numerals)
    if trace.kind(loss) == "loss":
        work(trace, Cell(loss), "value", numerals)


def _origin(trace: Trace, name: str) -> str:
    """Say where the gradient to an output comes from."""
    readers = [node.name for node in trace.model.graph.nodes if name in node.inputs]
    if name in trace.model.graph.outputs:
        readers.insert(0, "the loss" if len(trace.losses) == 1 else "its loss")
    return f"  from {' and '.join(readers)}" if readers else ""


def _gradients(trace: Trace, tensor: str, origin: str, numerals: Numerals) -> None:
    write()
    write(f"d{GLUE}{tensor}{origin}", "bold")
    gradient = trace.array(tensor, "gradient")
    matrices("", gradient, numerals, GRADIENTS)
    work(trace, Cell(tensor, largest(gradient)), "gradient", numerals)
    zeros = [Cell(tensor, tuple(map(int, index))) for index in np.argwhere(gradient == 0)]
    if zeros and gradient.any():
        reasons = [trace.terms(cell).reason for cell in zeros]
        counts = {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)}
        said = [
            (WHY[reason] if reason else "not stated") + f" ({many})" * (len(counts) > 1)
            for reason, many in counts.items()
        ]
        write(f"{len(zeros)} of {gradient.size} are 0: {'; '.join(said)}", "dim", 1)


def _update(trace: Trace, tensor: str, numerals: Numerals) -> None:
    """Write what the next update does to a weight, and what plain gradient descent would do."""
    cell, finer = Cell(tensor, largest(trace.array(tensor, "gradient"))), numerals.more(1)
    found = trace.terms(cell, "update")
    write()
    write(f"Update: what the next step of training does to w = {cell}", "bold")
    plain = copy(trace)
    plain.update = Update(Sgd().transform(), 1, trace.update.learning_rate)
    descent = plain.terms(cell, "update")
    steps = {"plain gradient descent": descent}
    if descent.formula != found.formula:
        steps[f"{trace.model.config.train.optimizer.type}, update {trace.update.number}"] = found
    for name, step in steps.items():
        write(f"{name}: change = {rule(step)}", "", 1)
        for level, text in [*worked(step, numerals, INLINE)][1:]:
            write(text, "", level + 1)
    after = addition([trace.value(cell), found.value], trace.value(cell) + found.value, finer.digits)
    write(f"w ← {chained([*map(minus, after.terms)])} = {minus(after.total)}", "", 1)


def work(trace: Trace, cell: Cell, of: str, numerals: Numerals) -> None:
    """Write how one cell comes about."""
    for level, text in worked(trace.terms(cell, of), numerals, INLINE):
        write(text, "", level + 1)


def is_kernel(trace: Trace, tensor: str) -> bool:
    """Return whether it is the weight of a convolution."""
    if trace.kind(tensor) != "parameter":
        return False
    owner, key = trace.owner(tensor)
    layer = next(node.layer for node in trace.model.graph.nodes if node.name == owner)
    return key == "weight" and layer.kernel() is not None


def largest(array: Array) -> tuple[int, ...]:
    """Return the index of the number with the largest magnitude; one that is no number counts as the largest."""
    magnitude = np.abs(np.nan_to_num(array, nan=np.inf, posinf=np.inf, neginf=np.inf))
    return tuple(map(int, np.unravel_index(int(magnitude.argmax()), array.shape)))
