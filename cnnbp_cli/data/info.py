"""What a data set holds, in numbers: the report behind `cnnbp data info`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cnnbp_cli.core.types import Shape
from cnnbp_cli.data.dataset import Dataset
from cnnbp_cli.data.normalization import Normalization, measure
from cnnbp_cli.data.split import Split


@dataclass(frozen=True, slots=True)
class SplitInfo:
    """One split, before normalization.

    Attributes
    ----------
    name : str
        ``train``, ``validation`` or ``test``.
    count : int
        Samples.
    dtype : str
        Of the images in memory.
    minimum, maximum : float
        Over all pixels.
    mean, std : tuple of float
        Per channel, over all pixels; the deviation is the population's.
    per_class : dict of int to int, or None
        Samples of each class that occurs; None for regression targets.
    bytes : int
        Images and labels in memory.
    """

    name: str
    count: int
    dtype: str
    minimum: float
    maximum: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    per_class: dict[int, int] | None
    bytes: int


@dataclass(frozen=True, slots=True)
class DataInfo:
    """A data set as the model will see it.

    Attributes
    ----------
    name : str
    shape : tuple of int
        (channels, height, width) of one image.
    classes : int or None
        None for regression targets.
    normalization : Normalization
        What batches are normalized with: measured on `train`.
    splits : tuple of SplitInfo
        Those that exist, in the order train, validation, test.
    bytes : int
        All splits in memory.
    class_names : tuple of str, or None
        In the order of the class numbers.
    """

    name: str
    shape: Shape
    classes: int | None
    normalization: Normalization
    splits: tuple[SplitInfo, ...]
    bytes: int
    class_names: tuple[str, ...] | None = None

    def class_name(self, label: int) -> str:
        """Return what people call a class: its number where it has no name."""
        return self.class_names[label] if self.class_names and label < len(self.class_names) else str(label)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON; the keys of `per_class` are strings there."""
        values = asdict(self)
        values["shape"] = list(self.shape)
        values["class_names"] = self.class_names and list(self.class_names)
        values["normalization"] = self.normalization.to_dict()
        values["splits"] = [
            {
                **split,
                "mean": list(split["mean"]),
                "std": list(split["std"]),
                "per_class": split["per_class"] and {str(label): n for label, n in split["per_class"].items()},
            }
            for split in values["splits"]
        ]
        return values


def data_info(dataset: Dataset) -> DataInfo:
    """Measure every split of a data set."""
    named = (("train", dataset.train), ("validation", dataset.validation), ("test", dataset.test))
    splits = tuple(_split_info(name, split) for name, split in named if split is not None)
    return DataInfo(
        name=dataset.name,
        shape=dataset.train.images.shape[1:],
        classes=dataset.classes,
        normalization=dataset.normalization,
        splits=splits,
        bytes=sum(split.bytes for split in splits),
        class_names=dataset.class_names,
    )


def _split_info(name: str, split: Split) -> SplitInfo:
    measured = measure(split.images)
    per_class = None
    if split.has_classes:
        labels, counts = np.unique(split.labels, return_counts=True)
        per_class = dict(zip(labels.tolist(), counts.tolist(), strict=True))
    return SplitInfo(
        name=name,
        count=len(split),
        dtype=split.images.dtype.name,
        minimum=measured.low,
        maximum=measured.high,
        mean=measured.mean,
        std=measured.std,
        per_class=per_class,
        bytes=split.whole.images.nbytes + split.whole.labels.nbytes,
    )
