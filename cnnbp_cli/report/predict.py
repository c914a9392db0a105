"""`cnnbp predict`: the class of each image, and how sure the model is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cnnbp_cli.report.records import write_csv, write_json
from cnnbp_cli.report.text import figure, percent, shape

if TYPE_CHECKING:
    from cnnbp_cli.inspect.predict import Prediction
    from cnnbp_cli.report.table import Cell


def render(predictions: Sequence[Prediction], format: str) -> None:
    """Write predictions to standard output."""
    if format == "json":
        write_json({"predictions": [one.to_dict() for one in predictions]})
    elif predictions[0].output is not None:
        _outputs(predictions, format)
    elif format == "csv":
        classes = range(len(predictions[0].probabilities or ()))
        header = ["image", "class", *(f"probability_{k}" for k in classes)]
        write_csv(header, [[one.image, one.label, *(one.probabilities or ())] for one in predictions])
    else:
        _classes(predictions)


def _classes(predictions: Sequence[Prediction]) -> None:
    from cnnbp_cli.report.table import Column, show

    classes = range(len(predictions[0].probabilities or ()))
    columns = [Column("image", text=True), Column("class", leaves=1)]
    columns += [Column(f"class {k}", leaves=2 + k, width=8) for k in classes]
    rows: list[list[Cell]] = [
        [one.image, (str(one.label), "bold"), *map(percent, one.probabilities or ())] for one in predictions
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
        [image, shape(output.shape), *(figure(float(f())) for f in (output.min, output.mean, output.max))]
        for image, output in outputs
    ]
    show(columns, rows)
