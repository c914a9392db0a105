"""Small random shifts, turns and zooms, and mirror images, so that a network learns the shape and not its place.

One affine map per sample is drawn and applied backwards: each pixel of the result looks up where it came
from, and mixes the four pixels around that place (bilinear interpolation). What comes from outside the
image is 0, the raw background.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike

from cnnbp_cli.core.rng import sample_uniforms
from cnnbp_cli.core.types import Array


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


def warp(images: Array, maps: Array, dtype: DTypeLike) -> Array:
    """Apply one affine map to each image, about its center.

    Parameters
    ----------
    images : Array, shape (N, C, H, W)
        Raw pixels.
    maps : Array, shape (4, N)
        From `draw_maps`.

    Returns
    -------
    Array of `dtype`, shape (c, h, w, n)
        Still raw pixels, not normalized.
    """
    count, channels, height, width = images.shape
    # A frame of background: one pixel before and two after, so that all four neighbors of any place exist.
    padded = np.zeros((channels, count, height + 3, width + 3), dtype)
    padded[:, :, 1:-2, 1:-2] = images.transpose(1, 0, 2, 3)
    pixels = padded.reshape(channels, -1)

    y, x = _sources(maps, height, width, np.dtype(dtype))  # (h, w, n), in the frame's coordinates
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
