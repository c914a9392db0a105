"""What weight files hold: npz, safetensors, checkpoints, and the state dicts of PyTorch.

A file's content tells what it is, not its name.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnbp_cli.core.types import Array
from cnnbp_cli.data.errors import DataError, require_file, unreadable
from cnnbp_cli.data.normalization import Normalization
from cnnbp_cli.data.npz import read_arrays
from cnnbp_cli.errors import UserError
from cnnbp_cli.train.checkpoint import Checkpoint

FLOATS = {"F16", "F32", "F64"}
"""What safetensors calls the numbers that can be parameters."""

COUNTER = ".num_batches_tracked"
"""How the name ends that PyTorch gives a batch norm's count of batches, which is no parameter."""

PICKLE = b"\x80"
"""How a file of PyTorch begins that is no zip archive; so may safetensors, which has a ``{`` behind eight bytes."""

INSIDE = ("state_dict", "model_state_dict", "model", "net", "weights")
"""Where checkpoints of other programs keep their parameters."""


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
    class_names : tuple of str, or None
        In the order of the class numbers, where the file says it.
    in_order : bool
        Whether the parameters come in the order in which the layers were made; safetensors does not keep it.
    """

    parameters: dict[str, Array]
    normalization: Normalization | None = None
    class_names: tuple[str, ...] | None = None
    in_order: bool = True


def read_weights(path: Path) -> Weights:
    """Read a weight file.

    Raises
    ------
    WeightsError, CheckpointError
        When it is missing, damaged or holds anything but parameters.
    """
    try:
        require_file(path, "--weights")
        with path.open("rb") as file:
            begins = file.read(9)
        zipped = begins[:2] == b"PK"
        if _is_of_pytorch(path) if zipped else begins.startswith(PICKLE) and not begins.endswith(b"{"):
            return Weights(_read_pytorch(path))
        parameters, metadata = _read_npz(path) if zipped else _read_safetensors(path)
        found = metadata.get("normalization")
        normalization = None if found is None else Normalization.from_dict(_json(path, found))
        return Weights(parameters, normalization, _class_names(path, metadata.get("classes")), in_order=zipped)
    except OSError as error:
        raise WeightsError(str(unreadable(path, error))) from None
    except DataError as error:
        text = str(error)
        raise WeightsError(text if text.startswith(str(path)) else f"{path}: {text}") from None


def _read_npz(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    arrays = read_arrays(path)
    if "header" in arrays:
        checkpoint = Checkpoint.read(path)
        known = {"normalization": json.dumps(checkpoint.normalization)}
        return checkpoint.parameters, known | {"classes": json.dumps(checkpoint.class_names)}
    parameters = {name: value for name, value in arrays.items() if not name.endswith(COUNTER)}
    for name, value in parameters.items():
        if value.dtype.kind != "f":
            raise WeightsError(f"{path}: {name} has dtype {value.dtype}, expected float32 or float64")
    with zipfile.ZipFile(path) as archive:
        comment = archive.comment.decode(errors="replace")
    return parameters, _json(path, comment) if comment.startswith("{") else {}  # else another program's


def _read_safetensors(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    safetensors = require_safetensors(path)
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


def _class_names(path: Path, text: str | None) -> tuple[str, ...] | None:
    """Return the names of the classes that a file says it has."""
    names = [] if text is None else _json(path, text)
    if not isinstance(names, list) or not all(isinstance(name, str) and name.isprintable() for name in names):
        raise WeightsError(f"{path}: is damaged: its classes are no list of names")
    return tuple(names) or None


def _json(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError):
        raise WeightsError(f"{path}: is damaged: what it says about its model cannot be read") from None


def _is_of_pytorch(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.split("/")[-1] == "data.pkl" for name in archive.namelist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return False


def _read_pytorch(path: Path) -> dict[str, Array]:
    """Return the floats of a state dict that `torch.save` wrote; nothing else in the file is run."""
    try:
        import torch
    except ImportError:
        raise WeightsError(
            f"{path}: is a file of PyTorch, which reads it: pip install 'cnnbp[torch]'; or save safetensors where "
            "PyTorch is: safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
        ) from None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what the loader raises depends on where the damage is
        if "weights_only" in str(error) or "WeightsUnpickler" in str(error):
            raise WeightsError(
                f"{path}: holds more than tensors, such as a whole module, which could run code; save its state dict: "
                "torch.save(model.state_dict(), 'weights.pt')"
            ) from None
        raise WeightsError(f"{path}: is damaged, or no file of PyTorch") from None
    tensors = _state_dict(content)
    if tensors is None:
        raise WeightsError(f"{path}: holds no state dict; save one: torch.save(model.state_dict(), 'weights.pt')")
    return {
        name: value.detach().to(torch.promote_types(value.dtype, torch.float32)).numpy()
        for name, value in tensors.items()
        if value.is_floating_point()
    }


def _state_dict(content: Any) -> Mapping[str, Any] | None:
    """Return the tensors by name, where there are any, also of a checkpoint that has more beside them."""
    if not isinstance(content, Mapping):
        return None
    for inner in (content, *(content[key] for key in INSIDE if key in content)):
        if (
            isinstance(inner, Mapping)
            and inner
            and all(hasattr(value, "is_floating_point") for value in inner.values())
        ):
            return inner
    return None


def require_safetensors(path: Path) -> Any:
    try:
        import safetensors
    except ImportError:
        raise WeightsError(
            f"{path}: safetensors needs the package of that name: pip install 'cnnbp[safetensors]'"
        ) from None
    return safetensors
