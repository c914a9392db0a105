"""`cnnbp evaluate`: the figures of a split, class by class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cnnbp_cli.report.markup import Sheet, sheet
from cnnbp_cli.report.records import write_csv, write_json
from cnnbp_cli.report.table import Cell, Column, folded
from cnnbp_cli.report.text import count, figure, percent

if TYPE_CHECKING:
    from cnnbp_cli.origin import Origin
    from cnnbp_cli.train.evaluate import Evaluation

MATRIX = 30  # classes up to which the whole confusion matrix is shown
HEADING = 10  # characters of a class's name in a line above the matrix
WORST = 10  # confusions that are shown instead where there are more


def render(evaluation: Evaluation, format: str, origin: Origin | None = None) -> None:
    """Write an evaluation to standard output."""
    if format == "json":
        write_json(evaluation.to_dict() | {"checkpoint": origin and origin.to_dict()})
    elif format == "csv":
        _csv(evaluation)
    else:
        _report(evaluation, sheet(format))


def _csv(evaluation: Evaluation) -> None:
    """Write a row for each class with its row of the confusion matrix; one row in all for a regression."""
    if evaluation.masks is not None:
        scores = [[one.label, one.iou, one.dice, one.pixels, one.name] for one in evaluation.masks.per_class]
        write_csv(("label", "iou", "dice", "pixels", "name"), scores)
        return
    if evaluation.per_class is None or evaluation.confusion is None:
        write_csv(("loss", "count"), [(evaluation.loss, evaluation.count)])
        return
    header = ["label", "precision", "recall", "count", *(f"predicted_{one.name}" for one in evaluation.per_class)]
    rows: list[list[object]] = [
        [one.label, one.precision, one.recall, one.count, *row]
        for one, row in zip(evaluation.per_class, evaluation.confusion, strict=True)
    ]
    if _named([one.name for one in evaluation.per_class]):
        header.append("name")
        rows = [[*row, one.name] for row, one in zip(rows, evaluation.per_class, strict=True)]
    write_csv(header, rows)


def _report(evaluation: Evaluation, sheet: Sheet) -> None:
    figures = f"loss {figure(evaluation.loss)}"
    if evaluation.accuracy is not None:
        figures += f", accuracy {percent(evaluation.accuracy)}"
    if evaluation.masks is not None:
        figures += f", mean IoU {percent(evaluation.masks.mean_iou)}, mean Dice {percent(evaluation.masks.mean_dice)}"
    sheet.line(f"{figures}, {count(evaluation.count, 'image')}", "bold")
    if evaluation.masks is not None:
        names = [one.name for one in evaluation.masks.per_class]
        sheet.line(f"{percent(evaluation.masks.pixel_accuracy)} of the pixels have the right class")
        sheet.line()
        sheet.show(
            [Column("class", text=_named(names)), Column("IoU"), Column("Dice"), Column("pixels")],
            [[one.name, percent(one.iou), percent(one.dice), count(one.pixels)] for one in evaluation.masks.per_class],
        )
        return
    if evaluation.per_class is None or evaluation.confusion is None:
        return
    names = [one.name for one in evaluation.per_class]
    sheet.line()
    sheet.show(
        [Column("class", text=_named(names)), Column("precision"), Column("recall"), Column("images")],
        [[one.name, percent(one.precision), percent(one.recall), count(one.count)] for one in evaluation.per_class],
    )
    sheet.line()
    if len(evaluation.confusion) <= MATRIX:
        _matrix(evaluation.confusion, names, sheet)
    else:
        _confusions(evaluation.confusion, names, sheet)


def _matrix(confusion: list[list[int]], names: Sequence[str], sheet: Sheet) -> None:
    sheet.line("confusion: the true class down, the predicted class across", "bold")
    columns = [
        Column("true", text=_named(names)),
        *(Column("\n".join(folded(name, HEADING)), leaves=k + 1, width=4) for k, name in enumerate(names)),
    ]
    rows: list[list[Cell]] = [
        [names[true], *(_entry(number, true == called) for called, number in enumerate(row))]
        for true, row in enumerate(confusion)
    ]
    sheet.show(columns, rows)


def _named(names: Sequence[str]) -> bool:
    """Return whether classes are called otherwise than by their numbers."""
    return any(name != str(number) for number, name in enumerate(names))


def _entry(number: int, right: bool) -> Cell:
    return (count(number), "green" if right else "red") if number else ("0", "dim")


def _confusions(confusion: list[list[int]], names: Sequence[str], sheet: Sheet) -> None:
    worst = sorted(
        ((number, true, called) for true, row in enumerate(confusion) for called, number in enumerate(row) if number),
        key=lambda entry: -entry[0],
    )
    wrong = [entry for entry in worst if entry[1] != entry[2]][:WORST]
    if wrong:
        sheet.line("the most frequent confusions", "bold")
        sheet.show(
            [Column("true", text=_named(names)), Column("predicted", text=_named(names)), Column("images")],
            [[names[true], names[called], count(number)] for number, true, called in wrong],
        )
