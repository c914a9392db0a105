"""Checkpoints: everything needed to go on, or to predict, in one file that is either whole or not there.

A checkpoint is an uncompressed `.npz`: the arrays `parameters/<name>` and `optimizer/<name>`, and
`header`, a JSON text as bytes, which carries the config, the progress, the normalisation and a digest of
all arrays. It holds no pickles. It is written beside its place, flushed to the disk and renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cnnbp_cli.core.types import Array
from cnnbp_cli.data.npz import read_arrays
from cnnbp_cli.errors import UserError

FORMAT = 1


class CheckpointError(UserError):
    """A checkpoint that cannot be read, written or used."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes
    ----------
    config : str
        The complete config as YAML.
    progress : dict
        Where in the run it was taken; see `train.loop`.
    normalization : dict
        How raw images become inputs.
    parameters : dict of str to Array
        Parameters and running statistics, by name.
    optimizer : dict of str to Array
        The optimizer's state vectors.
    """

    config: str
    progress: dict[str, Any]
    normalization: dict[str, Any]
    parameters: dict[str, Array]
    optimizer: dict[str, Array]

    def save(self, path: Path) -> None:
        """Write the checkpoint to `path`; what was there is replaced at once, or not at all.

        Raises
        ------
        CheckpointError
            When the disk is full or the folder cannot be written.
        """
        arrays = {f"parameters/{name}": value for name, value in self.parameters.items()}
        arrays |= {f"optimizer/{name}": value for name, value in self.optimizer.items()}
        header = {
            "format": FORMAT,
            "config": self.config,
            "progress": self.progress,
            "normalization": self.normalization,
            "digest": digest(arrays),
        }
        arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            reason = error.strerror or error
            raise CheckpointError(
                f"{path}: the checkpoint cannot be written: {reason}; earlier ones are intact"
            ) from None

    @classmethod
    def read(cls, path: Path) -> Checkpoint:
        """Read and verify a checkpoint.

        Raises
        ------
        CheckpointError
            When it is missing, damaged, or of another format.
        """
        try:
            arrays = read_arrays(path)
        except UserError as error:
            raise CheckpointError(str(error)) from None
        try:
            header = json.loads(arrays.pop("header").tobytes())
            made_by = header["format"]
            if made_by == FORMAT and header["digest"] != digest(arrays):
                raise CheckpointError(
                    f"{path}: the checkpoint is damaged: its digest does not match; use an earlier one"
                )
            groups: dict[str, dict[str, Array]] = {"parameters": {}, "optimizer": {}}
            for name, value in arrays.items():
                group, _, rest = name.partition("/")
                groups[group][rest] = value
            checkpoint = cls(header["config"], header["progress"], header["normalization"], **groups)
            if [type(value) for value in (checkpoint.config, checkpoint.progress)] != [str, dict]:
                raise TypeError
        except (KeyError, TypeError, ValueError, RecursionError):
            raise CheckpointError(f"{path}: is not a checkpoint of cnnbp") from None
        if made_by != FORMAT:
            shown = str(made_by)[:20]
            raise CheckpointError(f"{path}: is a checkpoint of format {shown}, this version reads format {FORMAT}")
        return checkpoint


def digest(arrays: dict[str, Array]) -> str:
    """Return the SHA-256 of names, dtypes, shapes and contents, in hexadecimal."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        value = np.ascontiguousarray(arrays[name])
        total.update(f"{name} {value.dtype.str} {value.shape}\n".encode())
        total.update(value.view(np.uint8).data if value.size else b"")
    return total.hexdigest()
