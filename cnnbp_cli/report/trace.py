"""`cnnbp trace` on the terminal: a small network whole, a large one by rows, and any cell under the microscope."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from math import floor, isfinite, log10
from typing import TYPE_CHECKING

import numpy as np
from rich.text import Text

from cnnbp_cli.config.errors import suggestion
from cnnbp_cli.core.graph import INPUT
from cnnbp_cli.core.types import Array, show_shape
from cnnbp_cli.report.records import write_json
from cnnbp_cli.report.table import Cell as Entry
from cnnbp_cli.report.table import Column, line, show
from cnnbp_cli.report.terminal import console, plain
from cnnbp_cli.tracing.cells import Cell, CellError
from cnnbp_cli.tracing.digits import addition
from cnnbp_cli.tracing.explanation import Explanation, Summand
from cnnbp_cli.tracing.numbers import LOSS
from cnnbp_cli.tracing.trace import Trace

if TYPE_CHECKING:
    from rich.console import Console

SMALL = 600  # cells of all tensors together, up to which a network is shown whole
FEW_TERMS = 3  # of a cell under the microscope, where there is one for each layer
FEW_READERS = 6  # cells that are named
PICTURE = 12  # columns of a small picture
VALUES, GRADIENTS = "blue", "magenta"


def render(
    trace: Trace,
    format: str,
    *,
    layers: Sequence[str] = (),
    cell: str | None = None,
    of: str = "gradient",
    top: int | None = 10,
    digits: int = 4,
) -> None:
    """Write a trace, or one cell of it, to standard output.

    Raises
    ------
    CellError
        When there is no such cell or layer.
    """
    if format == "json":
        write_json(trace.document(layers) if cell is None else trace.cell_document(cell, of, top))
    elif cell is not None:
        _explain(trace, cell, of, top, digits)
    else:
        _heading(trace, digits)
        names = _chosen(trace, layers)
        whole = sum(array.size for name in names for array in _arrays(trace, name)) <= SMALL
        (_whole if whole else _by_rows)(trace, names, top, digits)


def _chosen(trace: Trace, layers: Sequence[str]) -> list[str]:
    names = [INPUT, *(node.name for node in trace.model.graph.nodes)]
    for layer in layers:
        if layer not in names:
            raise CellError(f"there is no layer {layer!r}{suggestion(layer, names)}")
    return [name for name in names if not layers or name in layers]


def _arrays(trace: Trace, name: str) -> list[Array]:
    return [trace.array(name), *trace.parameters(name)[0].values()]


def _heading(trace: Trace, digits: int) -> None:
    source = trace.source
    image = "an image of your own" if source.split is None else f"image {source.index} of the {source.split} split"
    label = "" if source.label is None else f", label {source.label:g}"
    label += " (the network's own prediction)" if source.assumed else ""
    batch = f", the first of a batch of {trace.images}" if trace.images > 1 else ""
    line(f"{trace.model.config.name}: {image}{batch}{label}, {trace.mode} mode", "bold")
    head = trace.prediction
    said = f", prediction {', '.join(_short(p, digits) for p in head.ravel().tolist())}" if head.size <= 10 else ""
    line(f"loss {_short(trace.loss, digits)}{said}")


# ---------------------------------------------------------------------- a small network, whole


def _whole(trace: Trace, names: Sequence[str], top: int | None, digits: int) -> None:
    line()
    line("Forward: values, from the image to the loss", f"bold {VALUES}")
    for name in names:
        line()
        _title(trace, name)
        for key, value in trace.parameters(name)[0].items():
            _matrices(key, value, digits, VALUES)
        output = trace.array(name)
        _matrices("the image, as the network sees it" if name == INPUT else "output", output, digits, VALUES)
        if name != INPUT:
            _worked(trace, Cell(name, _largest(output)), "value", digits)
    line()
    line(f"loss = {_short(trace.loss, digits)}", "bold")
    _worked(trace, Cell(LOSS), "value", digits)
    line()
    line("Backward: gradients of the loss, from the loss to the image", f"bold {GRADIENTS}")
    for name in reversed(names):
        line()
        _title(trace, name)
        flow = trace.array(name, "gradient")
        _matrices("gradient of every pixel" if name == INPUT else "gradient at the output", flow, digits, GRADIENTS)
        _worked(trace, Cell(name, _largest(flow)), "gradient", digits)
        for key, gradient in trace.parameters(name)[1].items():
            _matrices(f"gradient of the {key}", gradient, digits, GRADIENTS)
            _worked(trace, Cell(f"{name}.{key}", _largest(gradient)), "gradient", digits)
    weights = [f"{name}.weight" for name in names if "weight" in trace.parameters(name)[1]]
    if weights:
        line()
        rate = _short(trace.update.learning_rate, digits)
        line(f"Update: {trace.model.config.train.optimizer.type}, step {trace.update.number}, rate {rate}", "bold")
        _worked(trace, Cell(weights[0], _largest(trace.array(weights[0], "gradient"))), "update", digits)


def _title(trace: Trace, name: str) -> None:
    if name == INPUT:
        line(f"input  {show_shape(trace.shapes[INPUT])}", "bold")
        return
    node = next(node for node in trace.model.graph.nodes if node.name == name)
    reads = f"  reads {', '.join(node.inputs)}" if len(node.inputs) > 1 else ""
    line(f"{name}  {node.layer.type}, {show_shape(trace.shapes[name])}{reads}", "bold")


def _largest(array: Array) -> tuple[int, ...]:
    """Return the index of the number with the largest magnitude; one that is no number counts as the largest."""
    magnitude = np.abs(np.nan_to_num(array, nan=np.inf, posinf=np.inf, neginf=np.inf))
    return tuple(map(int, np.unravel_index(int(magnitude.argmax()), array.shape)))


def _matrices(title: str, array: Array, digits: int, style: str) -> None:
    """Write an array as matrices, as many side by side as there is room for; vectors as one row."""
    out = console()
    room = max(out.width - 2, 10)
    matrices = array.reshape(-1, *array.shape[-2:]) if array.ndim > 1 else array.reshape(1, 1, -1)
    leading = array.shape[:-2] if array.ndim > 1 else ()
    texts, unit = _written(array, digits)
    cell = max(len(text) for text in texts)
    while digits > 2 and matrices.shape[-1] * (cell + 2) > room:
        digits -= 1
        texts, unit = _written(array, digits)
        cell = max(len(text) for text in texts)
    h, w = matrices.shape[-2:]
    w = w if array.ndim > 1 else min(w, max(1, room // (cell + 2)))  # a long vector goes on below
    rows = [texts[k : k + w] for k in range(0, len(texts), w)]
    h = h if array.ndim > 1 else len(rows)
    blocks = [rows[k : k + h] for k in range(0, len(rows), h)]
    named = len(blocks) > 1
    titles = [f"[{','.join(map(str, index))}]" if named else "" for index in np.ndindex(*leading)] or [""]
    width = max(w * (cell + 2) - 2, max(map(len, titles)))
    beside = max(1, (room + 4) // (width + 4))
    _print(out, f"  {title}{unit}", "dim")
    for start in range(0, len(blocks), beside):
        some = range(start, min(start + beside, len(blocks)))
        if named:
            _print(out, "  " + "    ".join(titles[k].ljust(width) for k in some), "dim")
        for r in range(h):
            lines = [blocks[k][r] if r < len(blocks[k]) else [] for k in some]
            _print(
                out,
                "  " + "    ".join("  ".join(text.rjust(cell) for text in one).ljust(width) for one in lines),
                style,
            )


def _written(array: Array, digits: int) -> tuple[list[str], str]:
    """Return all numbers to the same decimal place, and the power of ten that goes with them."""
    numbers = [float(number) for number in array.ravel().tolist()]
    finite = [abs(number) for number in numbers if isfinite(number) and number]
    magnitude = floor(log10(max(finite))) if finite else 0
    exponent = 0 if -4 <= magnitude < 6 else magnitude
    places = max(0, digits - 1 - magnitude + exponent)
    unit = f" (times 1e{exponent})" if exponent else ""
    return [_fixed(number / 10**exponent, places) for number in numbers], unit


def _fixed(number: float, places: int) -> str:
    if not isfinite(number):
        return _minus(str(number))
    return "0" if number == 0 else _minus(f"{number:.{places}f}")


def _short(number: float, digits: int) -> str:
    """Write a number with so many significant digits."""
    return _minus(f"{number:.{digits}g}")


def _minus(text: str) -> str:
    return text.replace("-", "−")


def _print(out: Console, text: str, style: str = "") -> None:
    out.print(Text(plain(text.rstrip(), sys.stdout), style))


def _worked(trace: Trace, cell: Cell, of: str, digits: int) -> None:
    """Write how one cell comes about, in a sum that adds up."""
    found = trace.terms(cell, of)
    for text in _sum_in_words(found, digits):
        line(f"  {text}")


def _sum_in_words(found: Explanation, digits: int) -> Iterator[str]:
    """Yield the rule of a cell, its factors, its products and its total."""
    name = _named(found.cell, found.of)
    total = _short(found.value, digits)
    rule = found.formula.partition(" = ")[2] or found.formula
    yield f"{name} = {rule}"
    if found.reason:
        yield f"  = {total}: {found.reason}"
        return
    if not found.stated:
        yield f"  = {total}"
        return
    terms = [term for term in found.terms if term.product or len(found.terms) == 1]
    if any(term.factors for term in terms):
        yield "  = " + " + ".join(_product(term, digits) for term in terms)
    else:
        filled = found.filled.partition(" = ")[2]
        yield f"  = {filled}" if filled and filled != rule else f"  = {total}"
    if len(terms) > 1:
        sum_ = addition([term.product for term in terms], found.value, digits)
        factor = f" (times 1e{sum_.exponent})" if sum_.exponent else ""
        shown = " + ".join(_parenthesized(_minus(text)) for text in sum_.terms)
        yield f"  = {shown} = {_minus(sum_.total)}{factor}"
    elif any(term.factors for term in terms):
        yield f"  = {total}"


def _product(term: Summand, digits: int) -> str:
    numbers = [factor.value for factor in term.factors]
    if term.coefficient != 1 or not numbers:
        numbers = [term.coefficient, *numbers]
    return "·".join(_parenthesized(_short(number, digits)) for number in numbers)


def _parenthesized(text: str) -> str:
    return f"({text})" if text.startswith("−") else text


def _named(cell: Cell, of: str) -> str:
    """Write a cell's name, and `d` before it for its gradient."""
    return {"value": f"{cell}", "gradient": f"d {cell}", "update": f"change of {cell}"}.get(of, f"{of} of {cell}")


# ---------------------------------------------------------------------- a large network, by rows


def _by_rows(trace: Trace, names: Sequence[str], top: int | None, digits: int) -> None:
    line()
    columns = [
        Column("layer", text=True),
        Column("output", text=True, leaves=4),
        Column("L2 norm of\nthe values", leaves=1),
        Column("L2 norm of\nthe gradient", leaves=1),
        Column("units\nopen", leaves=3),
        Column("cell with the\nlargest gradient", leaves=2, text=True),
    ]
    rows: list[list[Entry]] = []
    for name in names:
        flow, output = trace.array(name, "gradient"), trace.array(name)
        rows.append(
            [
                name,
                show_shape(trace.shapes[name]),
                (_short(float(np.linalg.norm(output.astype(float))), digits), VALUES),
                (_short(float(np.linalg.norm(flow.astype(float))), digits), GRADIENTS),
                _share_open(trace, name),
                str(Cell("", _largest(flow))).strip(),
            ]
        )
    show(columns, rows)
    if console().color_system is not None:
        _pictures(trace, names)
    line()
    line("Under the microscope: the cell of each layer with the largest gradient, from the loss to the image", "bold")
    few = FEW_TERMS if top is None else min(top, FEW_TERMS)
    for name in reversed(names):
        line()
        _cell(trace, Cell(name, _largest(trace.array(name, "gradient"))), "gradient", few, digits)


def _share_open(trace: Trace, name: str) -> str:
    gates = None if name == INPUT else trace.decisions(name)[1]
    return "" if gates is None else f"{float(np.mean(gates)):.1%}"


def _pictures(trace: Trace, names: Sequence[str]) -> None:
    """Draw the channel with the largest gradient of each image, its values beside its gradients."""
    from cnnbp_cli.report.preview import preview

    out = console()
    for name in names:
        if len(trace.shapes[name]) == 3 and min(trace.shapes[name][1:]) > 1:
            flow = trace.array(name, "gradient")
            channel = int(np.abs(np.nan_to_num(flow)).sum((1, 2)).argmax())
            line()
            line(f"{name}, channel {channel}: values, magnitude of the gradient", "dim")
            pairs = zip(
                preview(trace.array(name)[channel : channel + 1], PICTURE),
                preview(np.abs(flow[channel : channel + 1]), PICTURE),
                strict=True,
            )
            for left, right in pairs:
                out.print(Text("  ").append_text(left).append("   ").append_text(right))


# ---------------------------------------------------------------------- one cell


def _explain(trace: Trace, cell: str, of: str, top: int | None, digits: int) -> None:
    _heading(trace, digits)
    line()
    _cell(trace, trace.cell(cell), of, top, digits)
    users = trace.used_by(cell, of)
    if users:
        more = f" and {len(users) - FEW_READERS} more" if len(users) > FEW_READERS else ""
        line(f"goes into {', '.join(_named(user, of) for user in users[:FEW_READERS])}{more}")


def _cell(trace: Trace, cell: Cell, of: str, top: int | None, digits: int) -> None:
    """Write a cell's rule, its largest terms with their numbers, the rest, and the sum."""
    found = trace.terms(cell, of)
    style = VALUES if of == "value" else GRADIENTS
    line(f"{_named(cell, of)} = {_short(found.value, digits)}", f"bold {style}")
    line(f"  {found.formula}")
    if found.filled != found.formula:
        line(f"  {found.filled}")
    if found.reason:
        line(f"  it is 0: {found.reason}" if found.value == 0 else f"  {found.reason}")
    if not found.stated or not any(term.factors for term in found.terms):
        return
    terms, count, rest = found.largest(top)
    numbers = [term.product for term in terms] + ([rest] if count else [])
    sum_ = addition(numbers, found.value, digits)
    texts = [*map(_minus, sum_.terms), _minus(sum_.total)]
    width = max(map(len, texts))
    for term, text in zip(terms, texts, strict=False):
        _term(text.rjust(width), term, digits)
    if count:
        line(f"  {texts[-2].rjust(width)}  {count} other{'s' * (count != 1)}")
    factor = f" times 1e{sum_.exponent}" if sum_.exponent else ""
    line(f"  {'─' * width}")
    line(f"  {texts[-1].rjust(width)}{factor}", style)
    if found.retold:
        line(f"  told the other way: {found.retold}")


def _term(product: str, term: Summand, digits: int) -> None:
    """Write one term: its product, then each factor with the cell that it is."""
    out = console()
    parts = [f"{_short(factor.value, digits)} {_named(factor.cell, factor.of)}" for factor in term.factors]
    if term.coefficient != 1:
        parts.insert(0, _short(term.coefficient, digits))
    text, indent = f"  {product}  = ", " " * (len(product) + 6)
    for k, part in enumerate(parts):
        joint = " · " if k else ""
        if k and len(text) + len(joint) + len(part) > out.width:
            _print(out, text)
            text, joint = indent, "· "
        text += joint + part
    _print(out, text)
