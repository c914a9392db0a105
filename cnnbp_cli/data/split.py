"""What every source delivers: raw samples with their labels."""

from __future__ import annotations

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
    """

    images: Images
    labels: Array

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

    def take(self, indices: Array | slice) -> Split:
        """Return the samples at `indices` (or where a mask is true), copied; those of a slice are views.

        Images in a file stay there.
        """
        images = self.images.take(indices) if isinstance(self.images, FileRows) else self.images[indices]
        return Split(images, self.labels[indices])


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
