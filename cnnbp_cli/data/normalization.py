"""How raw pixels become numbers around zero, as a value that a checkpoint can carry to `predict`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import DTypeLike

from cnnbp_cli.core.types import Array
from cnnbp_cli.data.errors import DataError
from cnnbp_cli.data.file_rows import FileRows, Images, blocks_of
from cnnbp_cli.data.kept import Kept
from cnnbp_cli.data.progress import Reading, tell

PIXELS_AT_A_TIME = 1 << 18
"""Pixels that are widened at a time: statistics must not need eight times the data set's memory."""

EXACT = 256
"""Bytes whose squares sum to less than 2**24, up to which float32 has all whole numbers."""

WHITES = ((1.0, 0.0), (255.0, 32.0), (65535.0, 8192.0))
"""What stands for white in the usual scales, and what the largest value of a set exceeds that is in this scale."""

TOLERANCE = 0.1
"""How far beyond black and white resizing may carry floats, as a part of white."""

EDGES_MEASURED = 1000
"""So many images tell whether a data set is light on dark or dark on light."""

AGREEMENT = 0.99
"""The share of images with light (or dark) edges that makes it a property of the data set."""


class Numbers(Protocol):
    """Means and standard deviations that are given: the config's `normalize`, where that is a mapping."""

    @property
    def mean(self) -> tuple[float, ...]:
        """One for each channel, or one for all."""
        ...

    @property
    def std(self) -> tuple[float, ...]:
        """As many."""
        ...

    @property
    def white(self) -> float:
        """The value of white in the scale that they are in."""
        ...


@dataclass(frozen=True, slots=True)
class Normalization:
    """x = (raw − mean) / std, with one mean and one std per channel, and the scale that raw values are in.

    Attributes
    ----------
    kind : str
        The config's word: ``standard``, ``unit`` or ``none``; ``given`` where it has the numbers.
    mean, std : tuple of float
        One number per channel, in units of the raw pixels. `std` is never zero.
    low, high : float or None
        The smallest and the largest raw value of the training images. None where older versions did not record it.
    light_edges : float or None
        The share of training images whose outermost pixels are light: 1 for ink on paper, 0 for MNIST. None for images
        that have no scale, and where older versions did not record it.
    """

    kind: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    low: float | None = None
    high: float | None = None
    light_edges: float | None = None

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not self.mean:
            raise DataError("normalization: expected as many means as standard deviations, one per channel")
        if not np.isfinite([*self.mean, *self.std]).all() or min(self.std) <= 0:
            raise DataError("normalization: expected finite means and standard deviations above zero")
        recorded = [value for value in (self.low, self.high, self.light_edges) if value is not None]
        if not np.isfinite(recorded).all() or (self.low is None) != (self.high is None):
            raise DataError("normalization: expected minimum and maximum, both finite numbers")

    @classmethod
    def fit(cls, kind: str | Numbers, images: Images, kept: Kept | None = None) -> Normalization:
        """Measure the normalization on training images.

        Parameters
        ----------
        kind : str or Numbers
            ``standard``: the mean and the (population) standard deviation of each channel, 1 in place of
            a deviation of 0. ``unit``: 0…255 to 0…1 for bytes, but for those that are 0 or 1; for floats the channels'
            common minimum…maximum to 0…1. ``none``: raw values. Given numbers are brought to the scale of the images.
        images : Array or FileRows, shape (N, C, H, W)
        kept : Kept, optional
            What was measured on images in a file before; what is measured now is added.

        Raises
        ------
        DataError
            When images in a file have a pixel that is not finite, or there are not as many numbers as channels.
        """
        channels, measured = images.shape[1], measure(images, kept)
        low, high = measured.low, measured.high
        white = white_of(low, high)
        mean, std = (0.0,) * channels, (1.0,) * channels
        if not isinstance(kind, str):
            return cls.given(kind, channels, white, low, high, light_edges=_light_edges(images, white))
        if kind == "standard":
            mean, std = measured.mean, tuple(value if value > 0 else 1.0 for value in measured.std)
        elif kind == "unit" and images.dtype == np.uint8:
            std = (1.0 if high <= 1 else 255.0,) * channels
        elif kind == "unit":
            mean, std = (low,) * channels, (high - low or 1.0,) * channels
        return cls(kind, mean, std, low, high, _light_edges(images, white))

    @classmethod
    def given(
        cls,
        numbers: Numbers,
        channels: int,
        white: float | None = None,
        low: float | None = None,
        high: float | None = None,
        light_edges: float | None = None,
    ) -> Normalization:
        """Return the normalization with given numbers, for pixels with this value of white; by default with their own.

        Raises
        ------
        DataError
            When there are not as many numbers as channels.
        """
        if len(numbers.mean) not in (1, channels):
            raise DataError(
                f"data.normalize: has {len(numbers.mean)} means, but the images have {channels} "
                f"channel{'s' * (channels != 1)}"
            )
        scale, each = (white or numbers.white) / numbers.white, channels // len(numbers.mean)
        mean, std = (tuple(scale * value for value in values) * each for values in (numbers.mean, numbers.std))
        return cls("given", mean, std, low, high, light_edges)

    @property
    def white(self) -> float | None:
        """The raw value of white: 1, 255 or 65535; None for values in a scale of their own."""
        if self.low is not None and self.high is not None:
            return white_of(self.low, self.high)
        # Not recorded, but means and deviations of bytes and of floats from 0 to 1 cannot be mistaken.
        if self.kind == "none" or min(self.mean) < 0:
            return None
        return 1.0 if max(self.mean) <= 1 and max(self.std) <= 1 else 255.0

    @property
    def is_light(self) -> bool | None:
        """Whether the training images have light edges; None if only some of them do, or if they have no scale."""
        if self.light_edges is None:
            if self.low is not None:
                return None
            return self.kind == "standard" and self.white is not None and min(self.mean) > self.white / 2
        return None if 1 - AGREEMENT < self.light_edges < AGREEMENT else self.light_edges > 0.5

    def rescale(self, images: Array, where: str, white: float | None = None) -> Array:
        """Return raw images in the scale of the training images.

        Parameters
        ----------
        images : Array, shape (N, C, H, W)
        where : str
            What messages call them.
        white : float, optional
            The scale that they are in, where that is known; by default their values tell it: booleans and values up to
            1 are 0…1, others up to 255 are 0…255, whole numbers up to 65535 are 0…65535.

        Raises
        ------
        DataError
            When the scale cannot be told, or the training images have one of their own that these do not share.
        """
        low, high = float(images.min()), float(images.max())
        if not np.isfinite([low, high]).all():
            raise DataError(f"{where}: has pixels that are not finite; remove or replace them")
        own = self.white
        if own is None:
            if self.low is not None and self.high is not None:
                if white is not None:
                    low, high = 0.0, white
                span = self.high - self.low
                # Far beyond the training images, or all but constant beside them.
                if low < self.low - span / 2 or high > self.high + span / 2 or 0 < high - low < span / 10:
                    raise DataError(
                        f"{where}: has values from {low:g} to {high:g}, but the model was trained on values from "
                        f"{self.low:g} to {self.high:g}; give an array that was scaled in the same way"
                    )
            return images
        given = white or _white_of_array(images, low, high)
        if given is None:
            raise DataError(
                f"{where}: has values from {low:g} to {high:g}, which are neither 0 to 1 nor 0 to 255; "
                f"the model was trained on pixels from 0 to {own:g}, give pixels in that range"
            )
        return images if given == own and images.dtype.kind != "b" else images * np.float32(own / given)

    def is_raw(self, images: Array) -> bool:
        """Return whether floats look like training images before they are normalized: no normalized ones do."""
        if self.kind not in ("standard", "given") or self.low is None or self.high is None or not images.size:
            return False
        low, high = float(images.min()), float(images.max())
        return (
            self.low <= low < high <= self.high
            and low > min((self.low - mean) / std for mean, std in zip(self.mean, self.std, strict=True)) / 2
        )

    def require_channels(self, channels: int) -> None:
        """Complain unless it is for images of so many channels."""
        if len(self.mean) != channels:
            raise DataError(
                f"normalization: has {len(self.mean)} means, but the model's images have "
                f"{channels} channel{'s' * (channels != 1)}"
            )

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

    @property
    def background(self) -> Array:
        """What the raw value 0 becomes, in each channel: float64, shape (C, 1, 1)."""
        return (-np.array(self.mean) / np.array(self.std))[:, None, None]

    def apply_to(self, x: Array) -> None:
        """Normalize, in place, floats of shape (c, h, w, n)."""
        if self.kind == "none":
            return
        x -= np.array(self.mean, x.dtype)[:, None, None, None]
        x /= np.array(self.std, x.dtype)[:, None, None, None]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        scale = {"minimum": self.low, "maximum": self.high, "light_edges": self.light_edges}
        return {"kind": self.kind, "mean": list(self.mean), "std": list(self.std), **scale}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Normalization:
        """Return the normalization that `to_dict` wrote, of this version or an older one.

        Raises
        ------
        DataError
            When a key is missing, or a number is not one.
        """
        try:
            scale = (values.get(key) for key in ("minimum", "maximum", "light_edges"))
            return cls(
                str(values["kind"]),
                tuple(float(value) for value in values["mean"]),
                tuple(float(value) for value in values["std"]),
                *(None if value is None else float(value) for value in scale),
            )
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError("normalization: expected kind, mean and std, the last two as lists of numbers") from error


def white_of(low: float, high: float) -> float | None:
    """Return the value of white in the scale of a data set with these extremes, or None if it is no usual one."""
    if low < 0:
        return None
    return next((white for white, exceeded in WHITES if exceeded < high <= white or high == 0), None)


def _light_edges(images: Images, white: float | None) -> float | None:
    """Return the share of images with light edges, of some of them."""
    step = -(-len(images) // EDGES_MEASURED)
    return None if white is None else float(np.mean(have_light_edges(images[::step], white)))


def _white_of_array(images: Array, low: float, high: float) -> float | None:
    """Return the value of white in the scale of a few images, which need not reach it."""
    if images.dtype.kind == "f":
        for white, exceeded in WHITES[:2]:
            if exceeded <= high <= white * (1 + TOLERANCE) and low >= -TOLERANCE * white:
                return white
        return None
    if low < 0:
        return None
    return next((white for white, _ in WHITES if high <= white), None)


def is_normalized(images: Array) -> bool:
    """Return whether floats go so far below zero that they are no pixels, but the outcome of a normalization."""
    low, high = float(images.min()), float(images.max())
    return images.dtype.kind == "f" and low < 0 and _white_of_array(images, low, high) is None


def have_light_edges(images: Array, white: float) -> Array:
    """Return for each image (N, C, H, W) whether the median of its outermost pixels is above half of `white`."""
    frame = np.concatenate([images[:, :, 0], images[:, :, -1], images[:, :, :, 0], images[:, :, :, -1]], axis=2)
    return np.median(frame, axis=(1, 2)) > white / 2


class Measured(NamedTuple):
    """The extremes of images, and the mean and the population standard deviation of each channel."""

    low: float
    high: float
    mean: tuple[float, ...]
    std: tuple[float, ...]


def measure(images: Images, kept: Kept | None = None) -> Measured:
    """Measure images (N, C, H, W), those in a file in one pass over it, unless that was done before.

    Float64 sums of uint8 values and of their squares are whole numbers below 2**53, hence exact:
    the result does not depend on the order of summation, nor on the machine.

    Raises
    ------
    DataError
        When images in a file have a pixel that is not finite.
    """
    if kept is not None and (found := kept.get(images, "statistics")):
        return Measured(found["low"], found["high"], tuple(found["mean"]), tuple(found["std"]))
    channels, size = images.shape[1], len(images) * prod(images.shape[2:])
    low, high = math.inf, -math.inf
    totals, squares = [0.0] * channels, [0.0] * channels
    # Floats are shifted by one of their values, so that a large common offset does not cancel the digits.
    shifts = [0.0] * channels if images.dtype == np.uint8 else images[0].reshape(channels, -1)[:, 0].tolist()
    done = 0
    for block in blocks_of(images):
        if isinstance(images, FileRows):
            done += len(block)
            tell(Reading(f"measuring {images.path}", done, len(images), "images"))
        low, high = min(low, float(block.min())), max(high, float(block.max()))
        if isinstance(images, FileRows) and not (math.isfinite(low) and math.isfinite(high)):
            raise DataError(f"{images.path}: has a pixel that is not finite; remove or replace it")
        rows = block.reshape(len(block), channels, -1)
        step = max(1, PIXELS_AT_A_TIME // rows.shape[2])
        for channel, shift in enumerate(shifts):
            for first in range(0, len(rows), step):
                total, square = _sums(rows[first : first + step, channel], shift)
                totals[channel] += total
                squares[channel] += square
    means = [total / size for total in totals]
    stds = [max(0.0, square / size - mean * mean) ** 0.5 for square, mean in zip(squares, means, strict=True)]
    measured = Measured(low, high, tuple(m + s for m, s in zip(means, shifts, strict=True)), tuple(stds))
    if kept is not None:
        kept.put(images, "statistics", measured._asdict())
    return measured


def _sums(pixels: Array, shift: float) -> tuple[float, float]:
    """Return the sum of pixels, less `shift` each, and the sum of their squares."""
    if pixels.dtype != np.uint8:
        values = pixels.astype(np.float64).ravel()
        values -= shift
        return float(values.sum()), float(values @ values)
    # In half the time of float64: as many bytes in a row as float32 can sum the squares of without rounding.
    size = pixels.size // EXACT * EXACT
    wide = pixels.astype(np.float32).ravel()
    rest, rows = wide[size:].astype(np.float64), wide[:size].reshape(-1, EXACT)
    squares = np.einsum("ij,ij->i", rows, rows)
    total = rows.sum(1).sum(dtype=np.float64) + rest.sum()
    return float(total), float(squares.sum(dtype=np.float64) + rest @ rest)
