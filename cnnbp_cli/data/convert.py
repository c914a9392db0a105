"""A data set as one npz file, which loads in an instant whatever it was before: the cache of a folder of pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cnnbp_cli.config.schema import AnyData
from cnnbp_cli.core.types import Shape
from cnnbp_cli.data.dataset import Dataset, Task, load_dataset
from cnnbp_cli.data.errors import DataError
from cnnbp_cli.data.file_rows import FileRows
from cnnbp_cli.files import replacing


def convert(
    data_config: AnyData, input_shape: Shape, seed: int, task: Task, path: Path
) -> tuple[Dataset, dict[str, Any]]:
    """Write what a config's `data` describes, without limits and before anything is held out, and replace `path`.

    Returns
    -------
    Dataset
        What was written.
    dict
        The `data` section that reads it.

    Raises
    ------
    DataError
        When the data cannot be read, or the file not be written.
    """
    if path.suffix != ".npz":
        raise DataError(f"{path}: expected a name that ends in .npz")
    data = load_dataset(replace(data_config, validation=0, limit=None, augment=None), input_shape, seed, task)
    if isinstance(data.train.images, FileRows):
        raise DataError(f"{data.name}: is read from its file, part by part, and loads as quickly as it is")
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    arrays = {
        f"{part}_{name}": values
        for name, split in splits.items()
        if split is not None
        for part, values in (("x", split.images), ("y", split.labels))
    }
    try:
        with replacing(path.resolve()) as file:
            np.savez(file, allow_pickle=False, **arrays)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from None
    section: dict[str, Any] = {"source": "npz", "path": str(path)}
    if data.class_names:
        section["classes"] = list(data.class_names)
    return data, section
