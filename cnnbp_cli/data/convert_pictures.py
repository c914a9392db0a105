"""A folder of pictures as npy files, which need not fit into memory: written as they are decoded, and gone on with.

`progress.json` beside the files says how far an earlier attempt came; it is gone when all is written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from io import BytesIO
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
    total = sum(len(part.paths) for part in splits.values())
    listing = sha256(json.dumps([{k: [str(p) for p in v.paths] for k, v in splits.items()}, input_shape]).encode())
    record = folder / "progress.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        done = _kept(record, listing.hexdigest())
        counts: dict[str, int] = {}
        for split, part in splits.items():
            state = done.setdefault(split, {"read": 0, "good": []})
            _write_images(
                folder / f"x_{split}.npy", part, input_shape, state, record, (listing.hexdigest(), done, total), config
            )
            labels = np.array([part.labels[k] for k in state["good"]], str)
            with replacing(folder / f"y_{split}.npy") as file:
                np.save(file, labels, allow_pickle=False)
            counts[split] = len(labels)
        record.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written: {error.strerror or error}") from None
    return counts


Done = dict[str, dict[str, Any]]
"""By split: how many pictures were read, and the numbers of those that could be."""


def _write_images(
    path: Path,
    part: Listed,
    input_shape: Shape,
    state: dict[str, Any],
    record: Path,
    kept: tuple[str, Done, int],
    config: Pictures,
) -> None:
    """Decode the pictures of a split that are left, behind those that are in the file already."""
    listing, done, total = kept
    row = int(np.prod(input_shape))
    size = HEADER + len(state["good"]) * row
    with path.open("r+b" if path.exists() else "w+b") as file:
        if file.seek(0, 2) < size:  # the file of another attempt was lost: begin anew
            state.update(read=0, good=[])
            size = HEADER
        file.truncate(size)
        file.seek(max(size, HEADER))
        for k, picture in enumerate(fitted_pictures(part.paths[state["read"] :], input_shape, str(config.path))):
            if isinstance(picture, DataError):
                if config.on_error != "skip":
                    raise DataError(f"{picture}: remove it, or leave it out with `data.on_error: skip`")
            else:
                file.write(picture.tobytes())
                state["good"].append(state["read"])
            state["read"] += 1
            if (k + 1) % AT_A_TIME == 0 or state["read"] == len(part.paths):
                file.flush()
                _keep(record, listing, done)
                tell(Reading(f"folder {config.path}", sum(each["read"] for each in done.values()), total))
        file.seek(0)
        file.write(_header((len(state["good"]), *input_shape)))


def _header(shape: Shape) -> bytes:
    """Return the header of an npy file of bytes, always as long."""
    head = BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": shape})
    assert len(head.getvalue()) == HEADER
    return head.getvalue()


def _kept(record: Path, listing: str) -> Done:
    """Return how far an earlier attempt on the same pictures came."""
    with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
        found: Mapping[str, Any] = json.loads(record.read_text(encoding="utf-8"))
        if found["pictures"] == listing:
            return {
                name: {"read": int(state["read"]), "good": [*map(int, state["good"])]}
                for name, state in found["done"].items()
            }
    return {}


def _keep(record: Path, listing: str, done: Done) -> None:
    with replacing(record) as file:
        file.write(json.dumps({"pictures": listing, "done": done}).encode())
