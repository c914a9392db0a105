"""`cnnbp predict`: the class of each image, and how sure the model is."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from math import isfinite
from typing import TYPE_CHECKING, Any

from cnnbp_cli.core.types import show_shape
from cnnbp_cli.report.records import write_csv, write_json
from cnnbp_cli.report.terminal import note
from cnnbp_cli.report.text import count, figure, percent

if TYPE_CHECKING:
    from cnnbp_cli.analysis.predict import Prediction
    from cnnbp_cli.origin import Origin
    from cnnbp_cli.report.table import Cell

DRAWN = 10
"""So many images are drawn; of more, a table shows the probabilities."""

WIDEST = 32  # columns of a drawn image
ROWS = 14  # classes beside it, as many as MNIST's images have lines
HEADING = 12  # characters of a class's name in a line above a column
PERCENT = 8  # columns of a probability


def render(
    predictions: Sequence[Prediction],
    format: str,
    *,
    asked_to_invert: bool = False,
    origin: Origin | None = None,
    top: int | None = None,
    columns: tuple[str, str] | None = None,
    knows_pixels: bool = True,
) -> None:
    """Write predictions to standard output, and to standard error which images were inverted unasked.

    Parameters
    ----------
    predictions, format, origin
    asked_to_invert : bool
    top : int, optional
        Show so many of the most likely classes alone.
    columns : (str, str), optional
        What Kaggle calls an image's own name, or else its number from 1, and its class: a table of these two.
    knows_pixels : bool
        Whether the model has a normalization, by which pixels can be told from what is normalized.
    """
    if not asked_to_invert:
        _notes(
            [one.image for one in predictions if one.inverted],
            "dark and light are swapped, as in the training images; --no-invert keeps them",
        )
    _notes(
        [one.image for one in predictions if one.is_normalized],
        "floats below zero are taken as normalized already" if knows_pixels else "floats are taken as they are",
    )
    if format == "json":
        records = [_record(one, top) for one in predictions]
        write_json({"predictions": records, "checkpoint": origin and origin.to_dict()})
    elif predictions[0].output is not None:
        _outputs(predictions, format)
    elif columns:
        write_csv(columns, [[one.id or number, one.name] for number, one in enumerate(predictions, 1)])
    elif top:
        _best(predictions, format, min(top, len(predictions[0].names)))
    elif format == "csv":
        header = ["image", "class", *(f"probability_{name}" for name in predictions[0].names)]
        rows: list[list[object]] = [[one.image, one.label, *(one.probabilities or ())] for one in predictions]
        if predictions[0].is_named:
            header.append("name")
            rows = [[*row, one.name] for row, one in zip(rows, predictions, strict=True)]
        write_csv(header, rows)
    elif len(predictions) > DRAWN:
        _classes(predictions)
    else:
        for k, one in enumerate(predictions):
            _drawn(one, is_first=k == 0)


def _record(one: Prediction, top: int | None) -> dict[str, Any]:
    best = [{"name": name, "probability": value} for name, value in one.best(top or 0)]
    return one.to_dict() | ({"top": best} if best else {})


def _best(predictions: Sequence[Prediction], format: str, top: int) -> None:
    """Write a row for each image with its most likely classes."""
    if format == "csv":
        header = ["image", *(f"{what}_{k}" for k in range(1, top + 1) for what in ("class", "probability"))]
        write_csv(header, [[one.image, *(part for pair in one.best(top) for part in pair)] for one in predictions])
        return
    from cnnbp_cli.report.table import Column, show

    columns = [Column("image", text=True)]
    columns += [Column(f"class {k}" if top > 1 else "class", leaves=k, text=True) for k in range(1, top + 1)]
    rows: list[list[Cell]] = [
        [one.image, *(f"{name} {percent(value)}" for name, value in one.best(top))] for one in predictions
    ]
    show(columns, rows)


def _notes(images: Sequence[str], text: str) -> None:
    """Say something about images: each array once, with the number of its images."""
    for name, group in groupby(images, lambda image: image.partition("[")[0]):
        more = len(list(group)) - 1
        note(f"{name}{f' ({more + 1} images)' * bool(more)}: {text}")


def _drawn(one: Prediction, *, is_first: bool) -> None:
    """Write one image, and its probabilities as bars beside it, or below it where there is no room."""
    from rich.text import Text

    from cnnbp_cli.report.chart import draw
    from cnnbp_cli.report.preview import preview
    from cnnbp_cli.report.table import GAP, line
    from cnnbp_cli.report.terminal import width

    probabilities = one.probabilities or []
    chosen: list[tuple[str, float]] = list(zip(one.names, probabilities, strict=True))
    if len(chosen) > ROWS:
        chosen.sort(key=lambda pair: -pair[1])
        rest = chosen[ROWS - 1 :]
        chosen = [*chosen[: ROWS - 1], (count(len(rest), "other"), sum(value for _, value in rest))]
    labels = max(len(label) for label, _ in chosen)
    picture = preview(one.pixels, min(WIDEST, width()))
    across = max(map(len, picture))
    room = width() - across - GAP - labels - 1 - PERCENT
    is_beside = room >= 0
    bar = min((room if is_beside else width() - labels - 1 - PERCENT) - GAP, 40)
    bars: list[Text] = []
    for label, value in chosen:
        text = Text(f"{label:>{labels}} {percent(value):>{PERCENT}}", "bold" if label == one.name else "")
        if full := round(max(bar, 0) * value) if isfinite(value) else 0:
            text.append(" " * GAP + "█" * full)
        bars.append(text)
    if not is_first:
        line()
    best = probabilities[one.label or 0]
    line(f"{one.image}: {'' if one.is_named else 'class '}{one.name}, {percent(best)}", "bold")
    if not is_beside:
        draw([*picture, *bars])
        return
    above = max(0, len(picture) - len(bars)) // 2
    bars = [Text()] * above + bars
    blank, lines = Text(" " * across), list[Text]()
    for k in range(max(len(picture), len(bars))):
        whole = (picture[k] if k < len(picture) else blank) + Text(" " * GAP) + (bars[k] if k < len(bars) else Text())
        whole.rstrip()
        lines.append(whole)
    draw(lines)


def _classes(predictions: Sequence[Prediction]) -> None:
    from cnnbp_cli.report.table import Column, folded, show

    first = predictions[0]
    columns = [Column("image", text=True), Column("class", leaves=1, text=first.is_named)]
    columns += [
        Column("\n".join(folded(name, HEADING)) if first.is_named else f"class {name}", leaves=2 + k, width=8)
        for k, name in enumerate(first.names)
    ]
    rows: list[list[Cell]] = [
        [one.image, (one.name, "bold"), *map(percent, one.probabilities or ())] for one in predictions
    ]
    show(columns, rows)


def _outputs(predictions: Sequence[Prediction], format: str) -> None:
    """Write the outputs of a model that does not classify: all numbers for programs, an outline for people."""
    outputs = [(one.image, one.output) for one in predictions if one.output is not None]
    if format == "csv":
        header = ["image", *(f"output_{k}" for k in range(outputs[0][1].size))]
        write_csv(header, [[image, *output.ravel().tolist()] for image, output in outputs])
        return
    from cnnbp_cli.report.table import Column, show

    names = ("shape", "smallest", "mean", "largest")
    columns = [Column("image", text=True), *(Column(name, leaves=k) for k, name in enumerate(names, start=1))]
    rows: list[list[Cell]] = [
        [image, show_shape(output.shape), *(figure(float(f())) for f in (output.min, output.mean, output.max))]
        for image, output in outputs
    ]
    show(columns, rows)
