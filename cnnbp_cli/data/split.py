"""What every source delivers: raw samples with their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cnnbp_cli.core.types import Array
from cnnbp_cli.data.file_rows import FileRows, Images


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Samples and their labels, as the source has them: not normalized.

    Attributes
    ----------
    images : Array or FileRows of uint8 (or of the source's floats), shape (N, C, H, W)
        In memory, or in a file that is larger than that.
    labels : Array of int64, shape (N,)
        Or targets: of a regression float64, (N,) or (N, K); masks of class numbers (N, H, W); images, floats
        (N, C, H, W), which are normalized already.
    uncropped : Split or None
        The same samples before the images, and masks or images that are targets, were cut to what the network takes;
        None where nothing was cut.
    """

    images: Images
    labels: Array
    uncropped: Split | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def has_classes(self) -> bool:
        """Whether the labels are class numbers rather than regression targets."""
        return self.labels.dtype.kind == "i" and self.labels.ndim == 1

    @property
    def has_images(self) -> bool:
        """Whether the targets are masks or images."""
        return self.labels.ndim >= 3

    @property
    def chance(self) -> float | None:
        """The share of the most frequent class, which is the accuracy of always saying it; None without classes."""
        if not self.has_classes or not len(self):
            return None
        return float(np.unique_counts(self.labels).counts.max() / len(self))

    @property
    def whole(self) -> Split:
        """The samples as the source has them, whatever part of them the network takes."""
        return self.uncropped or self

    def cropped(self, size: Sequence[int]) -> Split:
        """Return the middle (height, width) of each image, and of each target that is a mask or an image.

        Those in memory are views.
        """
        height, width = self.images.shape[2:]
        if (height, width) == tuple(size):
            return self
        labels = self.labels
        rows, columns = middle((height, width), size)
        if self.has_images:
            starts, stops = (
                scaled(labels.shape[-2:], (height, width), edge)
                for edge in ((rows.start, columns.start), (rows.stop, columns.stop))
            )
            labels = labels[..., starts[0] : stops[0], starts[1] : stops[1]]
        images = self.images
        cut = images.windowed(rows, columns) if isinstance(images, FileRows) else images[:, :, rows, columns]
        return Split(cut, labels, uncropped=self)

    def take(self, indices: Array | slice) -> Split:
        """Return the samples at `indices` (or where a mask is true), copied; those of a slice are views.

        Images in a file stay there.
        """
        images = self.images.take(indices) if isinstance(self.images, FileRows) else self.images[indices]
        return Split(images, self.labels[indices], self.uncropped and self.uncropped.take(indices))


def middle(size: Sequence[int], wanted: Sequence[int]) -> tuple[slice, slice]:
    """Return the slices of (height, width) of the middle part of the `wanted` size, as torchvision's CenterCrop."""
    (height, width), (rows, columns) = size, wanted
    top, left = round((height - rows) / 2), round((width - columns) / 2)
    return slice(top, top + rows), slice(left, left + columns)


def scaled(target: Sequence[int], image: Sequence[int], part: Sequence[int]) -> tuple[int, ...]:
    """Return the (height, width) of a target that belongs to a part of an image, given those of the whole."""
    return tuple(have * want // whole for have, whole, want in zip(target, image, part, strict=True))


def proportional(labels: Array, order: Array, count: int) -> Array:
    """Return `count` of the samples in `order`: the first of each class, in the classes' proportions.

    A sample that is the k-th of the m of its class has position (k + 1/2) / m in it; the samples with
    the smallest positions are taken.
    """
    ordered = labels[order]
    by_class = np.argsort(ordered, kind="stable")
    _, firsts, sizes = np.unique(ordered[by_class], return_index=True, return_counts=True)
    position = np.empty(len(order))
    position[by_class] = (np.arange(len(order)) - np.repeat(firsts, sizes) + 0.5) / np.repeat(sizes, sizes)
    return order[np.argsort(position, kind="stable")[:count]]
