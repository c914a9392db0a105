"""`export`: a model as one file, in the form that its name or the caller says."""

from __future__ import annotations

from pathlib import Path

from cnnbp_cli.exports.errors import ExportError as ExportError
from cnnbp_cli.exports.onnx import save_onnx
from cnnbp_cli.model import Model
from cnnbp_cli.weights import save_weights

FORMS = ("onnx", "safetensors", "npz")


def export(model: Model, path: Path | str, to: str | None = None) -> None:
    """Write a model for other tools.

    Parameters
    ----------
    model : Model
    path : path
        Replaced if it exists.
    to : {"onnx", "safetensors", "npz"}, optional
        The whole network for any ONNX runtime, or its parameters by name; by default what the file's name
        ends in.

    Raises
    ------
    ExportError, WeightsError, WriteError
        When the form is unknown or cannot express the model, a package is missing, or the file cannot be
        written.
    """
    path = Path(path)
    form = path.suffix.removeprefix(".") if to is None else to
    if form not in FORMS:
        raise ExportError(f"{path}: expected a file name that ends in .{', .'.join(FORMS)}, or one of these as --to")
    if form == "onnx":
        save_onnx(model, path)
    else:
        save_weights(model, path, form)
