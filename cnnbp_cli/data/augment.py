"""Random crops, shifts, turns and zooms, and mirror images, so that a network learns the shape and not its place.

First a window of the image is cut out, then it is mirrored, last moved. For that, one affine map per sample is drawn
and applied backwards: each pixel of the result looks up where it came from, and mixes the four pixels around that
place (bilinear interpolation). What comes from outside the image is 0, the raw background.

A mask or an image that is the target goes through the same, by as many times as many pixels as it is larger. Of a mask,
whose numbers cannot be mixed, the nearest pixel is taken, and what comes from outside is class 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, DTypeLike

from cnnbp_cli.core.rng import sample_uniforms
from cnnbp_cli.core.types import Array, show_shape
from cnnbp_cli.data.errors import DataError


class Window(Protocol):
    """How a random crop is made: the config's `augment.crop`."""

    @property
    def padding(self) -> int:
        """Pixels of background on each side, before the place is chosen."""
        ...


class Strength(Protocol):
    """How far a sample may move: the config's `augment`."""

    @property
    def shift(self) -> int:
        """Whole pixels, up, down, left or right."""
        ...

    @property
    def rotate(self) -> float:
        """Degrees, either way."""
        ...

    @property
    def scale(self) -> float:
        """The factor's distance from 1, below 1."""
        ...

    @property
    def flip(self) -> bool:
        """Whether to mirror half of the samples."""
        ...

    @property
    def crop(self) -> Window | None:
        """Whether to take a part of each image, and of what."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Moves:
    """What happens to the samples of a batch, to their images and to targets that are images, too.

    Attributes
    ----------
    corners : Array of int, shape (2, n), or None
        The top and the left of each window, in the padded image.
    padding : int
    flips : Array of bool, shape (n,), or None
        Which are mirrored.
    maps : Array of float64, shape (4, n), or None
        See `draw_maps`.
    """

    corners: Array | None = None
    padding: int = 0
    flips: Array | None = None
    maps: Array | None = None

    @classmethod
    def draw(
        cls, strength: Strength, room: Sequence[int], seed: int, step: int, first_sample: int, count: int
    ) -> Moves:
        """Draw what happens to samples; `room` is by how much the images are higher and wider than the windows."""
        drawn = (seed, step, first_sample, count)
        crop = strength.crop
        padding = crop.padding if crop else 0
        return cls(
            draw_corners([extra + 2 * padding for extra in room], *drawn) if crop else None,
            padding,
            draw_flips(*drawn) if strength.flip else None,
            draw_maps(strength, *drawn) if strength.shift or strength.rotate or strength.scale else None,
        )

    def cut(self, images: Array, size: Sequence[int], factor: int = 1, background: ArrayLike = 0) -> Array:
        """Return images (N, C, H, W) after the first two moves, the windows of the given (height, width).

        Of images `factor` times as large, that many times as many pixels are padded and left out.
        """
        if self.corners is not None:
            images = windows(images, self.corners * factor, size, self.padding * factor, background)
        return images if self.flips is None else flipped(images, self.flips)

    def of_targets(self, targets: Array, size: Sequence[int], factor: int, background: ArrayLike) -> Array:
        """Return masks (N, H, W) of whole numbers, or images (N, C, H, W) of floats, after all moves.

        Parameters
        ----------
        targets : Array
        size : (height, width)
            Of the result.
        factor : int
            How many times as large as the images they are.
        background : array_like, shape (C, 1, 1)
            What is outside of images; outside of masks is 0.
        """
        is_mask = targets.ndim == 3
        images = targets[:, None] if is_mask else targets
        outside: ArrayLike = 0 if is_mask else background
        moved = self.cut(images, size, factor, outside)
        if self.maps is not None:
            maps = self.maps * np.array([factor, factor, 1, 1])[:, None]
            moved = np.moveaxis(warp(moved, maps, targets.dtype, background=outside, nearest=is_mask), -1, 0)
        return moved[:, 0] if is_mask else moved


def size_factor(strength: Strength, images: Sequence[int], targets: Sequence[int], where: str) -> int:
    """Return how many times as large as the images, (height, width), their targets are.

    Raises
    ------
    DataError
        When the targets cannot be moved as the images are.
    """
    if max(images) == 1:
        raise DataError(f"{where}: data.augment moves images, but the network takes vectors; leave it out")
    factor = targets[0] // images[0]
    if list(targets) == [factor * side for side in images]:
        return factor
    if strength.crop or strength.shift or strength.rotate or strength.scale:
        raise DataError(
            f"{where}: data.augment cannot move targets of {show_shape(targets)} with images of {show_shape(images)}: "
            "they need the same size, or a multiple of it; leave out all but flip"
        )
    return 1


def draw_corners(room: Sequence[int], seed: int, step: int, first_sample: int, count: int) -> Array:
    """Draw the top and the left of each sample's window, each from 0 to `room`: Array of int, shape (2, count)."""
    uniforms = sample_uniforms(seed, "crop", step, start=first_sample, count=count, size=2).T
    return (uniforms * (np.array(room)[:, None] + 1)).astype(np.intp)


def windows(images: Array, corners: Array, size: Sequence[int], padding: int, background: ArrayLike) -> Array:
    """Return a window of each image (N, C, H, W), (height, width) in size, of what it is with padding on each side."""
    count, channels, height, width = images.shape
    padded = np.empty((count, channels, height + 2 * padding, width + 2 * padding), images.dtype)
    padded[...] = background
    padded[:, :, padding : padding + height, padding : padding + width] = images
    top, left = corners
    return sliding_window_view(padded, tuple(size), (2, 3))[np.arange(count), :, top, left]


def draw_flips(seed: int, step: int, first_sample: int, count: int) -> Array:
    """Draw which samples are mirrored, half of them on average: Array of bool, shape (count,)."""
    uniforms = sample_uniforms(seed, "flip", step, start=first_sample, count=count, size=1)
    return uniforms[:, 0] < 0.5


def flipped(images: Array, flips: Array) -> Array:
    """Return images (N, C, H, W), those mirrored left to right where `flips` (N,) is true."""
    mirrored = images.copy()
    mirrored[flips] = images[flips, :, :, ::-1]
    return mirrored


def draw_maps(strength: Strength, seed: int, step: int, first_sample: int, count: int) -> Array:
    """Draw each sample's shift down, shift to the right, angle and factor.

    Returns
    -------
    Array of float64, shape (4, count)
        Pixels (whole numbers), pixels, degrees (counter-clockwise as seen), factor. Column `i` depends on
        the seed, the step and `first_sample + i` alone.
    """
    uniforms = sample_uniforms(seed, "augment", step, start=first_sample, count=count, size=4).T
    shifts = np.floor(uniforms[:2] * (2 * strength.shift + 1)) - strength.shift
    angle = (2 * uniforms[2] - 1) * strength.rotate
    factor = 1 + (2 * uniforms[3] - 1) * strength.scale
    return np.stack([*shifts, angle, factor])


def warp(images: Array, maps: Array, dtype: DTypeLike, *, background: ArrayLike = 0, nearest: bool = False) -> Array:
    """Apply one affine map to each image, about its center.

    Parameters
    ----------
    images : Array, shape (N, C, H, W)
        Raw pixels.
    maps : Array, shape (4, N)
        From `draw_maps`.
    background : array_like, shape (C, 1, 1), optional
        What is outside.
    nearest : bool
        Take the nearest pixel instead of mixing four.

    Returns
    -------
    Array of `dtype`, shape (c, h, w, n)
        Still raw pixels, not normalized.
    """
    count, channels, height, width = images.shape
    # A frame of background: one pixel before and two after, so that all four neighbors of any place exist.
    padded = np.empty((channels, count, height + 3, width + 3), dtype)
    padded.transpose(1, 0, 2, 3)[...] = background
    padded[:, :, 1:-2, 1:-2] = images.transpose(1, 0, 2, 3)
    pixels = padded.reshape(channels, -1)

    working = np.dtype(np.float64 if nearest else dtype)
    y, x = _sources(maps, height, width, working)  # (h, w, n), in the frame's coordinates
    if nearest:
        y, x = np.floor(y + 0.5), np.floor(x + 0.5)
    row, column = y.astype(np.intp), x.astype(np.intp)
    corner = row * (width + 3) + column + np.arange(count) * ((height + 3) * (width + 3))
    here = pixels.take(corner, axis=1)  # (c, h, w, n)
    y -= row
    x -= column
    if not (x.any() or y.any()):
        return here
    below = pixels.take(corner + (width + 3), axis=1)
    here += x * (pixels.take(corner + 1, axis=1) - here)
    below += x * (pixels.take(corner + (width + 4), axis=1) - below)
    below -= here
    below *= y
    here += below
    return here


def _sources(maps: Array, height: int, width: int, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """Return the (row, column) that each result pixel comes from; places outside fall on the frame."""
    down, right, degrees, factor = maps
    cos = (np.cos(np.radians(degrees)) / factor).astype(dtype)
    sin = (np.sin(np.radians(degrees)) / factor).astype(dtype)
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    dy = np.arange(height, dtype=dtype)[:, None] - (down + middle_y).astype(dtype)  # (h, n)
    dx = np.arange(width, dtype=dtype)[:, None] - (right + middle_x).astype(dtype)  # (w, n)
    y = (cos * dy + dtype.type(middle_y + 1))[:, None] + sin * dx
    x = (dtype.type(middle_x + 1) - sin * dy)[:, None] + cos * dx
    return np.clip(y, 0, height + 1, out=y), np.clip(x, 0, width + 1, out=x)
