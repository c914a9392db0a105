"""What every source delivers: raw samples with their labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cnnbp_cli.core.types import Array


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Samples and their labels, as the source has them: not normalized.

    Attributes
    ----------
    images : Array of uint8 (or of the source's floats), shape (N, C, H, W)
    labels : Array of int64, shape (N,); regression targets are float64, shape (N,) or (N, K)
    """

    images: Array
    labels: Array

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def has_classes(self) -> bool:
        """Whether the labels are class numbers rather than regression targets."""
        return self.labels.dtype.kind == "i"

    @property
    def chance(self) -> float | None:
        """The share of the most frequent class, which is the accuracy of always saying it; None without classes."""
        if not self.has_classes or not len(self):
            return None
        return float(np.unique_counts(self.labels).counts.max() / len(self))

    def take(self, indices: Array | slice) -> Split:
        """Return the samples at `indices` (or where a mask is true), copied; those of a slice are views."""
        return Split(self.images[indices], self.labels[indices])
