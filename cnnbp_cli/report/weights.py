"""Which layer of a weight file became which of the model, on standard error."""

from __future__ import annotations

import sys

from cnnbp_cli.report.table import Column, Table
from cnnbp_cli.report.terminal import console, note
from cnnbp_cli.report.text import count
from cnnbp_cli.weight_map import Matching, show_shapes

HOW = {
    "map": "the map",
    "name": "name",
    "shape": "shape",
    "neighbor": "the layer before",
    "order": "order",
    None: "",
}


def show_matching(matching: Matching) -> None:
    """Write a row for each layer, and warn of what was matched by order alone."""
    columns = [Column("layer", text=True), Column("weights of", text=True), Column("matched by", text=True, leaves=1)]
    columns.append(Column("parameters", text=True, leaves=2))
    rows = [
        [match.layer, match.source or "(keeps its values)", HOW[match.how], show_shapes(match.shapes)]
        for match in matching.matches
    ]
    table = Table(columns, rows, console(sys.stderr))
    table.header()
    for row in rows:
        table.row(row)
    if matching.unused:
        note(f"not used: {', '.join(matching.unused)}")
    if by_order := sum(match.how == "order" for match in matching.matches):
        note(
            f"{count(by_order, 'layer')} matched by order alone, as others have the same shapes: check them, and name "
            "pairs in a file for --map where branches make the order doubtful"
        )
