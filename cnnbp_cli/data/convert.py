"""A data set as one npz file, which loads in an instant whatever it was before; or pictures as a folder of files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cnnbp_cli.config.schema import AnyData, Pictures
from cnnbp_cli.core.types import Shape, pair
from cnnbp_cli.data.convert_pictures import convert_pictures
from cnnbp_cli.data.dataset import Task, image_shape, load_dataset
from cnnbp_cli.data.errors import DataError
from cnnbp_cli.data.file_rows import FileRows
from cnnbp_cli.data.folder import classes_of, places_of
from cnnbp_cli.files import replacing


class Converted(NamedTuple):
    """What was written.

    Attributes
    ----------
    counts : dict of str to int
        The images of each split.
    section : dict
        The `data` section of a config that reads it.
    remarks : tuple of str
        What should be known.
    """

    counts: dict[str, int]
    section: dict[str, Any]
    remarks: tuple[str, ...] = ()


def convert(data_config: AnyData, input_shape: Shape, seed: int, task: Task, path: Path) -> Converted:
    """Write what a config's `data` describes, without limits and before anything is held out, and replace `path`.

    A name that ends in ``.npz`` is one file, for which all has to fit into memory. Another one is a folder, for
    pictures, which go there as they are decoded; an earlier attempt is gone on with.

    Raises
    ------
    DataError
        When the data cannot be read, or the file not be written.
    """
    if path.suffix != ".npz":
        if not isinstance(data_config, Pictures) or path.suffix:
            raise DataError(f"{path}: expected a name that ends in .npz, or, for pictures, the name of a folder")
        classes = data_config.class_names or classes_of(places_of(data_config.path, data_config.test)["train"])
        counts = convert_pictures(data_config, image_shape(data_config, input_shape), seed, path)
        return Converted(counts, _section(data_config, "npy", path, classes))
    data = load_dataset(replace(data_config, validation=0, limit=None, augment=None), input_shape, seed, task)
    section = _section(data_config, "npz", path, data.class_names)
    if isinstance(data.train.images, FileRows):
        raise DataError(f"{data.name}: is read from its file, part by part, and loads as quickly as it is")
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    arrays = {
        f"{part}_{name}": values
        for name, split in splits.items()
        if split is not None
        for part, values in (("x", split.whole.images), ("y", split.whole.labels))
    }
    try:
        with replacing(path.resolve()) as file:
            np.savez(file, allow_pickle=False, **arrays)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from None
    counts = {name: len(split) for name, split in splits.items() if split is not None}
    return Converted(counts, section, data.remarks)


def _section(data_config: AnyData, source: str, path: Path, classes: Sequence[str] | None) -> dict[str, Any]:
    size = data_config.image_size
    return (
        {"source": source, "path": str(path)}
        | ({"image_size": list(pair(size))} if size is not None else {})
        | ({"classes": list(classes)} if classes else {})
    )
