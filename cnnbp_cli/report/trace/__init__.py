"""`cnnbp trace` on the terminal: a small network whole, a large one by rows, and any cell under the microscope."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cnnbp_cli.report.records import write_json

if TYPE_CHECKING:
    from cnnbp_cli.report.trace.numerals import Numerals
    from cnnbp_cli.tracing.trace import Trace

SMALL = 600
"""Cells of all outputs and parameters together, up to which a network is shown whole."""
FEW_CLASSES = 10


def render(
    trace: Trace,
    format: str,
    *,
    layers: Sequence[str] = (),
    cell: str | None = None,
    of: str = "gradient",
    top: int | None = 10,
    digits: int = 4,
    exact: bool = False,
) -> None:
    """Write a trace, or one cell of it, to standard output.

    Raises
    ------
    CellError
        When there is no such cell or layer.
    """
    if format == "json":
        write_json(trace.document(layers) if cell is None else trace.cell_document(cell, of, top))
        return
    from cnnbp_cli.report.trace.numerals import Numerals

    numerals = Numerals(digits, exact)
    if cell is not None:
        from cnnbp_cli.report.trace.one_cell import show_cell

        found = trace.terms(cell, of)  # which complains before anything is written
        _heading(trace, numerals)
        print()
        show_cell(trace, found.cell, of, top, numerals)
        return
    names = _chosen(trace, layers)
    _heading(trace, numerals)
    cells = sum(array.size for name in names for array in (trace.array(name), *trace.parameters(name)[0].values()))
    if cells <= SMALL:
        from cnnbp_cli.report.trace.whole import show_whole

        show_whole(trace, names, numerals)
    else:
        from cnnbp_cli.report.trace.rows import show_rows

        show_rows(trace, names, top, numerals)


def _chosen(trace: Trace, layers: Sequence[str]) -> list[str]:
    from cnnbp_cli.config.errors import suggestion
    from cnnbp_cli.core.graph import INPUT
    from cnnbp_cli.tracing.cells import CellError

    names = [INPUT, *(node.name for node in trace.model.graph.nodes)]
    for layer in layers:
        if layer not in names:
            raise CellError(f"there is no layer {layer!r}{suggestion(layer, names)}")
    return [name for name in names if not layers or name in layers]


def _heading(trace: Trace, numerals: Numerals) -> None:
    from cnnbp_cli.report.trace.lines import write

    source = trace.source
    image = "an image of your own" if source.split is None else f"image {source.index} of the {source.split} split"
    label = "" if source.label is None else f", label {_label(trace, source.label)}"
    label += " (the network's own prediction)" if source.assumed else ""
    write(f"{trace.model.config.name}: {image}{label}, {trace.mode} mode", "bold")
    if trace.images > 1:
        write(f"loss and gradients: the mean over a batch of {trace.images}, of which this is the first")
    head = trace.prediction.ravel().tolist()
    said = f", prediction {', '.join(map(numerals.short, head))}" if len(head) <= FEW_CLASSES else ""
    write(f"loss {numerals.short(trace.loss)}{said}")
    if len(trace.losses) > 1:
        parts = zip(trace.model.losses, trace.losses, strict=True)
        write(
            "its parts: " + " + ".join(f"{one.weight:g} · {numerals.short(loss)} ({one.layer})" for one, loss in parts)
        )


def _label(trace: Trace, label: float) -> str:
    """Return what people call a label: the name of its class, where it has one."""
    return trace.model.class_name(int(label)) if trace.model.classifies and label == int(label) else f"{label:g}"
