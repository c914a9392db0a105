"""A folder of pictures as npy files, which need not fit into memory: written as they are decoded, and gone on with.

`progress.json` beside the files says how far an earlier attempt came; it is gone when all is written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from cnnbp_cli.config.schema import Pictures
from cnnbp_cli.core.types import Shape
from cnnbp_cli.data.errors import DataError
from cnnbp_cli.data.folder import Listed, fitted_pictures, listed_splits
from cnnbp_cli.data.progress import Reading, tell
from cnnbp_cli.files import replacing

AT_A_TIME = 1024
"""Pictures after which the progress is kept."""

HEADER = 128
"""Bytes of an npy header, whatever number of rows it declares."""


def convert_pictures(config: Pictures, input_shape: Shape, seed: int, folder: Path) -> dict[str, int]:
    """Write a folder's pictures to ``x_train.npy``, ``y_train.npy`` and so on; labels are the names of the classes.

    Parameters
    ----------
    config : Pictures
    input_shape : tuple of int
        The model's (channels, height, width), which every picture is made to fit.
    seed : int
        Decides which pictures are set aside for a test.
    folder : Path
        Where the files go. An earlier attempt on the same pictures is gone on with.

    Returns
    -------
    dict of str to int
        The pictures of each split.

    Raises
    ------
    DataError
        When a picture cannot be read, or a file not be written.
    """
    splits = listed_splits(config.path, config.test, seed)
    progress = _Progress(folder, splits, input_shape)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        progress.resume()
        counts: dict[str, int] = {}
        for split, part in splits.items():
            _write_images(folder / f"x_{split}.npy", part.paths, input_shape, progress.of[split], progress, config)
            broken = set(progress.of[split].broken)
            labels = [label for k, label in enumerate(part.labels) if k not in broken]
            with replacing(folder / f"y_{split}.npy") as file:
                np.save(file, np.array(labels, str), allow_pickle=False)
            counts[split] = len(labels)
        progress.over()
    except OSError as error:
        raise DataError(f"{folder}: cannot be written: {error.strerror or error}") from None
    return counts


@dataclass(slots=True)
class _State:
    """How many pictures of a split were read, and the numbers of those that could not be."""

    read: int = 0
    broken: list[int] = field(default_factory=list[int])

    @property
    def written(self) -> int:
        return self.read - len(self.broken)


class _Progress:
    """How far a conversion is, in memory and in the folder."""

    def __init__(self, folder: Path, splits: Mapping[str, Listed], input_shape: Shape) -> None:
        pictures = {split: [str(path) for path in part.paths] for split, part in splits.items()}
        self.total = sum(map(len, pictures.values()))
        self.of = {split: _State() for split in splits}
        self._folder, self._record = folder, folder / "progress.json"
        self._listing = sha256(json.dumps([pictures, input_shape]).encode()).hexdigest()

    @property
    def done(self) -> int:
        return sum(state.read for state in self.of.values())

    def resume(self) -> None:
        """Take over how far an earlier attempt on the same pictures came; refuse files that none of them left."""
        found: Any = None
        with suppress(OSError, ValueError, TypeError, AttributeError):
            found = json.loads(self._record.read_text(encoding="utf-8"))
        with suppress(LookupError, ValueError, TypeError, AttributeError):
            if found["pictures"] == self._listing:
                for split, state in found["done"].items():
                    self.of[split] = _State(int(state["read"]), [*map(int, state["broken"])])
        named = (self._folder / f"{part}_{split}.npy" for split in self.of for part in "xy")
        files = [path for path in named if path.exists()]
        if files and found is None:
            raise DataError(f"{files[0]}: exists already; remove it, or choose another folder")

    def keep(self) -> None:
        """Write down how far all is."""
        done = {split: asdict(state) for split, state in self.of.items()}
        with replacing(self._record) as file:
            file.write(json.dumps({"pictures": self._listing, "done": done}).encode())

    def over(self) -> None:
        self._record.unlink(missing_ok=True)


def _write_images(
    path: Path, pictures: Sequence[Path], input_shape: Shape, state: _State, progress: _Progress, config: Pictures
) -> None:
    """Decode the pictures of a split that are left, behind those that are in the file already."""
    progress.keep()  # from here on the file is one of this conversion
    row = prod(input_shape)
    with path.open("r+b" if path.exists() else "w+b") as file:
        if file.seek(0, 2) < HEADER + state.written * row:  # the file of another attempt was lost: begin anew
            state.read, state.broken = 0, []
        file.truncate(HEADER + state.written * row)
        file.seek(HEADER + state.written * row)
        for picture in fitted_pictures(pictures[state.read :], input_shape, str(config.path)):
            if not isinstance(picture, DataError):
                file.write(picture.tobytes())
            elif config.on_error == "skip":
                state.broken.append(state.read)
            else:
                raise DataError(f"{picture}: remove it, or leave it out with `data.on_error: skip`")
            state.read += 1
            if state.read % AT_A_TIME == 0 or state.read == len(pictures):
                file.flush()
                progress.keep()
                tell(Reading(f"folder {config.path}", progress.done, progress.total))
        file.seek(0)
        file.write(_header((state.written, *input_shape)))


def _header(shape: Shape) -> bytes:
    """Return the header of an npy file of bytes, always as long."""
    head = BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": shape})
    assert len(head.getvalue()) == HEADER
    return head.getvalue()
