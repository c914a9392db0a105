"""How raw pixels become numbers around zero, as a value that a checkpoint can carry to `predict`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from cnnbp_cli.core.types import Array
from cnnbp_cli.data.errors import DataError

PIXELS_AT_A_TIME = 1 << 18
"""Pixels that are widened at a time: statistics must not need eight times the data set's memory."""


@dataclass(frozen=True, slots=True)
class Normalization:
    """x = (raw − mean) / std, with one mean and one std per channel.

    Attributes
    ----------
    kind : str
        The config's word: ``standard``, ``unit`` or ``none``.
    mean, std : tuple of float
        One number per channel, in units of the raw pixels. `std` is never zero.
    """

    kind: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not self.mean:
            raise DataError("normalization: expected as many means as standard deviations, one per channel")
        if not np.isfinite([*self.mean, *self.std]).all() or min(self.std) <= 0:
            raise DataError("normalization: expected finite means and standard deviations above zero")

    @classmethod
    def fit(cls, kind: str, images: Array) -> Normalization:
        """Measure the normalization on training images.

        Parameters
        ----------
        kind : str
            ``standard``: the mean and the (population) standard deviation of each channel, 1 in place of
            a deviation of 0. ``unit``: 0…255 to 0…1, or for floats the channels' common minimum…maximum
            to 0…1. ``none``: raw values.
        images : Array, shape (N, C, H, W)
        """
        channels = images.shape[1]
        if kind == "standard":
            mean, std = moments(images)
            return cls(kind, mean, tuple(value if value > 0 else 1.0 for value in std))
        if kind == "unit" and images.dtype == np.uint8:
            return cls(kind, (0.0,) * channels, (255.0,) * channels)
        if kind == "unit":
            low, high = float(images.min()), float(images.max())
            return cls(kind, (low,) * channels, (high - low or 1.0,) * channels)
        return cls(kind, (0.0,) * channels, (1.0,) * channels)

    def apply(self, images: Array, dtype: DTypeLike = np.float32) -> Array:
        """Return raw images (N, C, H, W) normalized, in `dtype`.

        Raises
        ------
        DataError
            When the images have another number of channels than those it was measured on.
        """
        if images.ndim != 4 or images.shape[1] != len(self.mean):
            raise DataError(
                f"images of shape {tuple(images.shape)}: expected (N, {len(self.mean)}, H, W), "
                "the channels that the normalization was measured on"
            )
        x = images.astype(dtype)
        self.apply_to(x.transpose(1, 2, 3, 0))
        return x

    def apply_to(self, x: Array) -> None:
        """Normalize, in place, floats of shape (c, h, w, n)."""
        if self.kind == "none":
            return
        x -= np.array(self.mean, x.dtype)[:, None, None, None]
        x /= np.array(self.std, x.dtype)[:, None, None, None]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {"kind": self.kind, "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Normalization:
        """Return the normalization that `to_dict` wrote.

        Raises
        ------
        DataError
            When a key is missing, or a number is not one.
        """
        try:
            return cls(
                str(values["kind"]),
                tuple(float(value) for value in values["mean"]),
                tuple(float(value) for value in values["std"]),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError("normalization: expected kind, mean and std, the last two as lists of numbers") from error


def moments(images: Array) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and the population standard deviation of each channel of images (N, C, H, W).

    Float64 sums of uint8 values and of their squares are whole numbers below 2**53, hence exact:
    the result does not depend on the order of summation, nor on the machine.
    """
    count, channels = images.shape[0], images.shape[1]
    rows = images.reshape(count, channels, -1)
    size = count * rows.shape[2]
    step = max(1, PIXELS_AT_A_TIME // rows.shape[2])
    means, stds = [], []
    for channel in range(channels):
        total = squares = 0.0
        # Floats are shifted by one of their values, so that a large common offset does not cancel the digits.
        shift = 0.0 if images.dtype == np.uint8 else float(rows[0, channel, 0])
        for first in range(0, count, step):
            values = rows[first : first + step, channel].astype(np.float64).ravel()
            values -= shift
            total += float(values.sum())
            squares += float(values @ values)
        mean = total / size
        means.append(mean + shift)
        stds.append(max(0.0, squares / size - mean * mean) ** 0.5)
    return tuple(means), tuple(stds)
