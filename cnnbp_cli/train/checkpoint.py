"""Checkpoints: everything needed to go on, or to predict, in one file that is either whole or not there.

A checkpoint is an uncompressed `.npz`: the arrays `parameters/<name>`, `optimizer/<name>` and `best/<name>`, and
`header`, a JSON text as bytes, which carries the config, the progress and the normalization. It holds no pickles.
Its last bytes, which to a zip archive are a comment, are a digest of all others. It is written beside its place,
flushed to the disk and renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cnnbp_cli.core.types import Array
from cnnbp_cli.data.npz import read_arrays
from cnnbp_cli.errors import UserError
from cnnbp_cli.files import replacing

FORMAT = 2

DIGEST = 64
"""The length of the digest: SHA-256 in hexadecimal."""

GROUPS = ("parameters", "optimizer", "best")


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
        Where in the run it was taken; see `RunState`. Of the best parameters only ``step`` and ``epochs``.
    normalization : dict
        How raw images become inputs.
    parameters : dict of str to Array
        Parameters and running statistics, by name.
    optimizer : dict of str to Array
        The optimizer's state vectors.
    best : dict of str to Array
        The best parameters until then, where a figure says which they are.
    data : dict of str to str
        What the data are, as `fingerprint` has it; empty in checkpoints of version 0.1.
    target_normalization : dict
        How raw target images become what is learned; empty where there are none.
    class_names : list of str
        In the order of the class numbers; empty where the classes have no names.
    """

    config: str
    progress: dict[str, Any]
    normalization: dict[str, Any]
    parameters: dict[str, Array]
    optimizer: dict[str, Array] = field(default_factory=dict[str, Array])
    best: dict[str, Array] = field(default_factory=dict[str, Array])
    data: dict[str, str] = field(default_factory=dict[str, str])
    target_normalization: dict[str, Any] = field(default_factory=dict[str, Any])
    class_names: list[str] = field(default_factory=list[str])

    def of_best(self) -> Checkpoint:
        """Return the best parameters as a checkpoint to predict with."""
        epochs = self.progress["epochs"] - self.progress["epochs_since_best"]
        progress = {"step": self.progress["best_step"], "epochs": epochs}
        return replace(self, progress=progress, parameters=self.best, optimizer={}, best={})

    def save(self, path: Path) -> None:
        """Write the checkpoint to `path`; what was there is replaced at once, or not at all.

        Raises
        ------
        CheckpointError
            When the disk is full or the folder cannot be written.
        """
        arrays = {f"{group}/{name}": value for group in GROUPS for name, value in getattr(self, group).items()}
        header = {
            "format": FORMAT,
            "config": self.config,
            "progress": self.progress,
            "normalization": self.normalization,
            "data": self.data,
            "target_normalization": self.target_normalization,
            "classes": self.class_names,
        }
        arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
        try:
            with replacing(path) as file:
                np.savez(file, allow_pickle=False, **arrays)
                with zipfile.ZipFile(file, "a") as archive:
                    archive.comment = bytes(DIGEST)
                computed, _ = digests(file)
                file.seek(-DIGEST, os.SEEK_END)
                file.write(computed)
        except OSError as error:
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
            if (made_by := header["format"]) != FORMAT:
                raise CheckpointError(
                    f"{path}: is a checkpoint of format {made_by!s:.20}, this version reads format {FORMAT}"
                )
            with path.open("rb") as file:
                computed, written = digests(file)
            if computed != written:
                raise CheckpointError(
                    f"{path}: the checkpoint is damaged: its digest does not match; use an earlier one"
                )
            groups: dict[str, dict[str, Array]] = {group: {} for group in GROUPS}
            for name, value in arrays.items():
                group, _, rest = name.partition("/")
                groups[group][rest] = value
            checkpoint = cls(
                header["config"],
                header["progress"],
                header["normalization"],
                **groups,
                data=header.get("data", {}),
                target_normalization=header.get("target_normalization", {}),
                class_names=header.get("classes", []),
            )
            if [type(getattr(checkpoint, f.name)) for f in fields(cls)] != [str, *[dict] * 7, list]:
                raise TypeError
            if not all(isinstance(name, str) and name.isprintable() for name in checkpoint.class_names):
                raise TypeError
        except (KeyError, TypeError, ValueError, RecursionError):
            raise CheckpointError(f"{path}: is not a checkpoint of cnnbp") from None
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
        return checkpoint


def digests(file: BinaryIO) -> tuple[bytes, bytes]:
    """Return the digest of a file without its end, as it is and as its end has it."""
    total = hashlib.sha256()
    left = file.seek(0, os.SEEK_END) - DIGEST
    file.seek(0)
    while left > 0 and (chunk := file.read(min(left, 1 << 20))):
        left -= len(chunk)
        total.update(chunk)
    return total.hexdigest().encode(), file.read()
