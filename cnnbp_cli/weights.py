"""Weight files, npz and safetensors: a model's parameters by name, for other tools and from them.

Names, shapes and order of the values are those of `Model.parameters`, and of the `state_dict` of an
equivalent PyTorch module. A file also carries the config and the normalization, as text: in the metadata of
safetensors, and in the comment of the npz archive, so that `numpy.load` finds the parameters and nothing else.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from cnnbp_cli.config.write import to_yaml
from cnnbp_cli.core.types import Array
from cnnbp_cli.data.errors import DataError, require_file, unreadable
from cnnbp_cli.data.normalization import Normalization
from cnnbp_cli.data.npz import read_arrays
from cnnbp_cli.errors import UserError
from cnnbp_cli.files import replace_file
from cnnbp_cli.model import Model
from cnnbp_cli.train.checkpoint import Checkpoint

COMMENT_LIMIT = 65_535
"""The most bytes that the comment of a zip archive can have."""

FLOATS = {"F16", "F32", "F64"}
"""What safetensors calls the numbers that can be parameters."""

COUNTER = ".num_batches_tracked"
"""How the name ends that PyTorch gives a batch norm's count of batches, which is no parameter."""


class WeightsError(UserError):
    """A weight file that cannot be read or written, or does not fit the model."""


@dataclass(frozen=True, slots=True)
class Weights:
    """What a weight file holds.

    Attributes
    ----------
    parameters : dict of str to Array
        Floats, by name.
    normalization : Normalization or None
        How raw images become inputs, where the file says it.
    """

    parameters: dict[str, Array]
    normalization: Normalization | None


def use_weights(model: Model, path: Path) -> None:
    """Give a model the parameters of a weight file, and its normalization where the file has one.

    Floats of another width are converted to the model's.

    Raises
    ------
    WeightsError, CheckpointError
        When the file is damaged, lacks a parameter, has one too many, or one of another shape or kind. The
        model is as before then.
    """
    weights = read_weights(path)
    try:
        values = converted(model, weights.parameters)
        if bad := first_non_finite(values):
            raise WeightsError(f"{path}: parameter {bad} has values that are not finite; export it before it diverges")
        if weights.normalization:
            weights.normalization.require_channels(model.config.model.input[0])
        model.set_parameters(values, complete=True)
    except (ValueError, DataError) as error:
        raise WeightsError(f"{path}: does not fit the model: {error}") from None
    model.normalization = weights.normalization or model.normalization


def converted(model: Model, parameters: Mapping[str, Array]) -> dict[str, Array]:
    """Return parameters in the model's precision."""
    with np.errstate(over="ignore"):
        return {name: value.astype(model.dtype) for name, value in parameters.items()}


def first_non_finite(parameters: Mapping[str, Array]) -> str | None:
    """Return the name of the first parameter that has infinite or NaN values."""
    return next((name for name, value in parameters.items() if not np.isfinite(value).all()), None)


def read_weights(path: Path) -> Weights:
    """Read a weight file: npz, safetensors, or a checkpoint; its content tells which.

    Raises
    ------
    WeightsError, CheckpointError
        When it is missing, damaged or holds anything but parameters.
    """
    try:
        require_file(path, "--weights")
        with path.open("rb") as file:
            zipped = file.read(2) == b"PK"
        parameters, metadata = _read_npz(path) if zipped else _read_safetensors(path)
        if "normalization" not in metadata:
            return Weights(parameters, None)
        return Weights(parameters, Normalization.from_dict(_json(path, metadata["normalization"])))
    except OSError as error:
        raise WeightsError(str(unreadable(path, error))) from None
    except DataError as error:
        text = str(error)
        raise WeightsError(text if text.startswith(str(path)) else f"{path}: {text}") from None


def _read_npz(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    arrays = read_arrays(path)
    if "header" in arrays:
        checkpoint = Checkpoint.read(path)
        return checkpoint.parameters, {"normalization": json.dumps(checkpoint.normalization)}
    parameters = {name: value for name, value in arrays.items() if not name.endswith(COUNTER)}
    for name, value in parameters.items():
        if value.dtype.kind != "f":
            raise WeightsError(f"{path}: {name} has dtype {value.dtype}, expected float32 or float64")
    with zipfile.ZipFile(path) as archive:
        comment = archive.comment.decode(errors="replace")
    return parameters, _json(path, comment) if comment.startswith("{") else {}  # else another program's


def _read_safetensors(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    safetensors = _safetensors(path)
    parameters: dict[str, Array] = {}
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 (it is no mapping)
                kind = file.get_slice(name).get_dtype()
                if name.endswith(COUNTER):
                    continue
                if kind not in FLOATS:
                    raise WeightsError(f"{path}: {name} has dtype {kind}, expected F32 or F64 (float32, float64)")
                parameters[name] = file.get_tensor(name)
            metadata: dict[str, str] = file.metadata() or {}
    except (safetensors.SafetensorError, ValueError, UnicodeError):
        raise WeightsError(f"{path}: is neither npz nor safetensors, or is damaged") from None
    return parameters, metadata


def _json(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError):
        raise WeightsError(f"{path}: is damaged: what it says about its model cannot be read") from None


def save_weights(model: Model, path: Path, to: str) -> None:
    """Write all parameters and running statistics of a model.

    Parameters
    ----------
    model : Model
    path : Path
        Replaced if it exists.
    to : {"npz", "safetensors"}

    Raises
    ------
    WeightsError, WriteError
        When safetensors is not installed, or the file cannot be written.
    """
    arrays = model.parameters()
    metadata = describe(model)
    if to == "safetensors":
        _safetensors(path)
        from safetensors.numpy import save

        replace_file(path, save(arrays, metadata))
        return
    comment = json.dumps(metadata).encode()
    if len(comment) > COMMENT_LIMIT:
        raise WeightsError(f"{path}: the config is too long for an npz file, write safetensors")
    buffer = BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = comment
    replace_file(path, buffer.getvalue())


def describe(model: Model) -> dict[str, str]:
    """Return what an exported file says about its model: the config as YAML, the normalization as JSON."""
    described = {"config": to_yaml(model.config)}
    if model.normalization is not None:
        described["normalization"] = json.dumps(model.normalization.to_dict())
    return described


def _safetensors(path: Path) -> Any:
    try:
        import safetensors
    except ImportError:
        raise WeightsError(
            f"{path}: safetensors needs the package of that name: pip install 'cnnbp[safetensors]'"
        ) from None
    return safetensors
