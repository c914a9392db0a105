"""A network as a picture: for Graphviz, for Mermaid, or as an SVG that is laid out here and needs neither.

The layout has one row for each rank, the longest path from the image (Sugiyama, Tagawa & Toda 1981, *Methods for Visual
Understanding of Hierarchical System Structures*): an edge over several rows gets a place of its own in each, so that it
passes beside the boxes; rows are ordered by the mean place of their neighbors; then chains become straight columns,
which move as near to what they are joined with as the order and the gaps allow.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from html import escape
from itertools import pairwise
from math import inf
from typing import TYPE_CHECKING

from rich.cells import cell_len

from cnnbp_cli.core.types import show_shape
from cnnbp_cli.report.summary import type_of
from cnnbp_cli.report.text import count

if TYPE_CHECKING:
    from cnnbp_cli.analysis.summary import LayerSummary, Summary

IMAGE = "input"

COLORS = {
    "conv": "#dbeafe",
    "dense": "#fde68a",
    "norm": "#ede9fe",
    "pool": "#fee2e2",
    "merge": "#dcfce7",
    "other": "#f3f4f6",
}
"""How boxes are filled, by what their layers do."""

KINDS = (("conv", "conv"), ("dense", "dense"), ("norm", "norm"), ("pool", "pool"))
MERGES = ("add", "concat", "multiply")

FONT, LINE, CHARACTER = 12, 16, 7.4  # pixels: a letter of a monospaced font is 0.6 of its size wide, rarely 0.615
PADDING, GAP, SLOT, BETWEEN, MARGIN = 10, 24, 16, 30, 16  # pixels
SWEEPS = 40


@dataclass(frozen=True, slots=True)
class Box:
    """What is said of one layer: lines of text, and the boxes that it reads."""

    name: str
    lines: tuple[str, ...]
    inputs: tuple[str, ...]
    kind: str


def draw(summary: Summary, language: str) -> None:
    """Write a network to standard output as `dot`, `mermaid` or `svg`."""
    boxes = [*_boxes(summary)]
    sys.stdout.write({"dot": dot, "mermaid": mermaid, "svg": svg}[language](summary.name, boxes))


def _boxes(summary: Summary) -> Iterator[Box]:
    weights = {one.layer: one.weight for one in summary.losses} if len(summary.losses) > 1 else {}
    yield Box(IMAGE, (IMAGE, show_shape(summary.input_shape)), (), "other")
    for layer in summary.layers:
        shape = show_shape(layer.output_shape)
        values = sum(layer.tensors.values())
        said = f"{shape}, {count(values, 'parameter')}" if values else shape
        said += f", shared with {layer.shares}" if layer.shares else ""
        # The name says the type where nobody chose another.
        title = (layer.name,) if type_of(layer) == layer.name.rpartition("_")[0] else (layer.name, type_of(layer))
        loss = (f"loss × {weights[layer.name]:g}",) if layer.name in weights else ()
        yield Box(layer.name, (*title, said, *loss), tuple(layer.inputs), _kind(layer))


def _kind(layer: LayerSummary) -> str:
    if layer.type in MERGES:
        return "merge"
    return next((kind for part, kind in KINDS if part in layer.type), "other")


def dot(name: str, boxes: Sequence[Box]) -> str:
    """Return a graph for Graphviz: ``dot -Tpdf``."""
    numbers = {box.name: f"n{k}" for k, box in enumerate(boxes)}
    lines = [f"digraph {_quoted(name)} {{"]
    lines.append('  node [shape=box, style="rounded,filled", fontname="Helvetica", fontsize=11, margin="0.15,0.06"];')
    for box in boxes:
        said = "\\n".join(_quoted(line)[1:-1] for line in box.lines)
        lines.append(f'  {numbers[box.name]} [label="{said}", fillcolor="{COLORS[box.kind]}"];')
    lines += [f"  {numbers[read]} -> {numbers[box.name]};" for box in boxes for read in box.inputs]
    return "\n".join([*lines, "}"]) + "\n"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def mermaid(name: str, boxes: Sequence[Box]) -> str:
    """Return a graph for Mermaid, which GitHub draws in Markdown."""
    numbers = {box.name: f"n{k}" for k, box in enumerate(boxes)}
    lines = ["flowchart TD"]
    for box in boxes:
        said = "<br/>".join(map(_entities, box.lines))
        lines.append(f'  {numbers[box.name]}("{said}"):::{box.kind}')
    lines += [f"  {numbers[read]} --> {numbers[box.name]}" for box in boxes for read in box.inputs]
    for kind in dict.fromkeys(box.kind for box in boxes):
        lines.append(f"  classDef {kind} fill:{COLORS[kind]},stroke:#6b7280,color:#111827")
    return "\n".join(lines) + "\n"


def _entities(text: str) -> str:
    """Write what Mermaid would read as markup as entities, by number."""
    return "".join(f"#{ord(c)};" if c in '"#&<>`\\*~' else c for c in text)


@dataclass(slots=True, eq=False)
class Place:
    """A box, or a long edge on its way through a row."""

    width: float
    rank: int
    box: Box | None = None
    x: float = 0.0  # of the middle
    above: list[Place] = field(default_factory=list["Place"])
    below: list[Place] = field(default_factory=list["Place"])


def svg(name: str, boxes: Sequence[Box]) -> str:
    """Return a picture that needs nothing else."""
    places, paths = _placed(boxes)
    rows = _rows(places.values(), paths)
    _order(rows)
    _align(rows)
    tops, y = [], float(MARGIN)
    for row in rows:
        tops.append(y)
        y += max(_height(place) for place in row) + BETWEEN
    everything = [place for row in rows for place in row]
    left = min(place.x - place.width / 2 for place in everything) - MARGIN
    for place in everything:
        place.x -= left
    width = max(place.x + place.width / 2 for place in everything) + MARGIN
    height = y - BETWEEN + MARGIN
    bottoms = [top + max(_height(place) for place in row) for top, row in zip(tops, rows, strict=True)]
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" font-family="ui-monospace, Menlo, Consolas, \'DejaVu Sans Mono\', monospace" '
        f'font-size="{FONT}" text-anchor="middle">',
        f"<title>{escape(name)}</title>",
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#6b7280"/></marker></defs>',
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="#fff"/>',
        '<g fill="none" stroke="#6b7280" stroke-width="1.3">',
        *(f'<path d="{_curve(path, tops, bottoms)}" marker-end="url(#arrow)"/>' for path in paths),
        "</g>",
    ]
    for place in places.values():
        lines += _drawn(place, tops[place.rank])
    return "\n".join([*lines, "</svg>"]) + "\n"


def _placed(boxes: Sequence[Box]) -> tuple[dict[str, Place], list[list[Place]]]:
    """Return a place for each box, and for each edge the places that it goes through, both ends included."""
    places: dict[str, Place] = {}
    paths: list[list[Place]] = []
    for box in boxes:
        rank = 1 + max((places[read].rank for read in box.inputs), default=-1)
        width = max(cell_len(line) for line in box.lines) * CHARACTER + 2 * PADDING
        here = places[box.name] = Place(width, rank, box)
        for read in box.inputs:
            start = places[read]
            path = [start, *(Place(SLOT, between) for between in range(start.rank + 1, rank)), here]
            for upper, lower in pairwise(path):
                upper.below.append(lower)
                lower.above.append(upper)
            paths.append(path)
    return places, paths


def _rows(boxes: Iterable[Place], paths: Sequence[Sequence[Place]]) -> list[list[Place]]:
    everything = [*boxes, *(place for path in paths for place in path[1:-1])]
    rows: list[list[Place]] = [[] for _ in range(1 + max(place.rank for place in everything))]
    for place in everything:
        rows[place.rank].append(place)
    return rows


def _order(rows: Sequence[list[Place]]) -> None:
    """Sort every row by the mean place of its neighbors, down and up in turns."""
    for row in rows:
        for k, place in enumerate(row):
            place.x = float(k)
    for sweep in range(8):
        for row in rows if sweep % 2 == 0 else reversed(rows):
            wanted = {id(place): _mean(place.above if sweep % 2 == 0 else place.below, place.x) for place in row}
            row.sort(key=lambda place: wanted[id(place)])
            for k, place in enumerate(row):
                place.x = float(k)


def _align(rows: Sequence[Sequence[Place]]) -> None:
    """Put what follows each other without a branch straight below each other, near to what it is joined with."""
    columns = _columns(rows)
    try:
        order = _left_to_right(rows, columns)
    except CycleError:  # edges cross: nothing needs to be straight then
        columns = {id(place): [place] for row in rows for place in row}
        order = _left_to_right(rows, columns)
    beside: dict[int, tuple[list[tuple[Place, float]], list[tuple[Place, float]]]] = {
        id(place): ([], []) for row in rows for place in row
    }
    for row in rows:
        for left, right in pairwise(row):
            space = (left.width + right.width) / 2 + GAP
            beside[id(left)][1].append((right, space))
            beside[id(right)][0].append((left, space))

    def limits(column: Sequence[Place]) -> tuple[float, float]:
        least = max((left.x + space for place in column for left, space in beside[id(place)][0]), default=-inf)
        return least, min((right.x - space for place in column for right, space in beside[id(place)][1]), default=inf)

    for place in (place for row in rows for place in row):
        place.x = -inf
    for column in order:
        least, _ = limits(column)
        _move(column, max(least, 0.0))
    for sweep in range(SWEEPS):
        for column in order if sweep % 2 == 0 else reversed(order):
            joined = [other for place in column for other in [*place.above, *place.below] if other not in column]
            least, most = limits(column)
            _move(column, min(max(_mean(joined, column[0].x), least), most))


def _columns(rows: Sequence[Sequence[Place]]) -> dict[int, list[Place]]:
    """Return for every place those that stand straight below each other with it."""
    columns: dict[int, list[Place]] = {}
    for place in (place for row in rows for place in row):
        above = place.above[0] if len(place.above) == 1 and len(place.above[0].below) == 1 else None
        columns[id(place)] = columns[id(above)] if above else []
        columns[id(place)].append(place)
    return columns


def _left_to_right(rows: Sequence[Sequence[Place]], columns: dict[int, list[Place]]) -> list[list[Place]]:
    """Return the columns, each after all that stand to the left of it."""
    by_first = {id(column[0]): column for column in columns.values()}
    before: dict[int, set[int]] = {first: set() for first in by_first}
    for row in rows:
        for left, right in pairwise(row):
            before[id(columns[id(right)][0])].add(id(columns[id(left)][0]))
    return [by_first[first] for first in TopologicalSorter(before).static_order()]


def _move(column: Sequence[Place], x: float) -> None:
    for place in column:
        place.x = x


def _mean(neighbors: Sequence[Place], otherwise: float) -> float:
    return sum(place.x for place in neighbors) / len(neighbors) if neighbors else otherwise


def _height(place: Place) -> float:
    return len(place.box.lines) * LINE + PADDING if place.box else 0.0


def _curve(path: Sequence[Place], tops: Sequence[float], bottoms: Sequence[float]) -> str:
    """Return an edge: from row to row as a curve, straight down through the rows that it passes."""
    start, *middle, end = path
    y = tops[start.rank] + _height(start)
    words = [f"M{start.x:.1f} {y:.1f}"]
    if y < bottoms[start.rank]:
        y = bottoms[start.rank]
        words.append(f"V{y:.1f}")
    x = start.x
    for place in [*middle, end]:
        below = tops[place.rank]
        half = (y + below) / 2
        words.append(f"C{x:.1f} {half:.1f} {place.x:.1f} {half:.1f} {place.x:.1f} {below:.1f}")
        x, y = place.x, below
        if place is not end:
            y = bottoms[place.rank]
            words.append(f"V{y:.1f}")
    return "".join(words)


def _drawn(place: Place, top: float) -> Iterator[str]:
    box = place.box
    assert box is not None
    left, height = place.x - place.width / 2, _height(place)
    yield (
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{place.width:.1f}" height="{height:.1f}" rx="6" '
        f'fill="{COLORS[box.kind]}" stroke="#9ca3af"/>'
    )
    for k, line in enumerate(box.lines):
        y = top + PADDING / 2 + (k + 0.75) * LINE
        weight = ' font-weight="bold"' if k == 0 else ""
        color = "#111827" if k < len(box.lines) - 1 else "#4b5563"
        yield f'<text x="{place.x:.1f}" y="{y:.1f}" fill="{color}"{weight}>{escape(line)}</text>'
