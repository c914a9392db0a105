"""An image out of characters: two pixels in each, so that a person sees what a model was given."""

from __future__ import annotations

import sys

import numpy as np
from rich.text import Text

from cnnbp_cli.core.types import Array
from cnnbp_cli.report.terminal import console, is_unicode

BLOCKS = (" ", "▄", "▀", "█")  # the upper pixel counts two, the lower one
RAMP = " .:-=+*#%@"
LIGHT = 0.35  # from here on a pixel is drawn where there are only two shades


def preview(image: Array, width: int) -> list[Text]:
    """Return the lines of an image, light pixels as light characters.

    Gray or colored half blocks where colors are shown, black and white ones where they are not, and a ramp
    of characters in ASCII.

    Parameters
    ----------
    image : Array, shape (C, H, W)
        Bytes from 0 to 255; floats are drawn from their smallest to their largest value.
    width : int
        Columns at most; a larger image is shrunk by a whole factor.
    """
    pixels = _shrunk(_between_0_and_1(image), width)
    if pixels.shape[1] % 2:
        pixels = np.concatenate([pixels, np.zeros_like(pixels[:, :1])], 1)
    upper, lower = pixels[:, ::2], pixels[:, 1::2]  # (c, lines, columns)
    if not is_unicode(sys.stdout):
        levels = ((upper + lower).mean(0) / 2 * (len(RAMP) - 1)).round().astype(int)
        return [Text("".join(RAMP[level] for level in row)) for row in levels.tolist()]
    if console().color_system is None:
        drawn = 2 * (upper.mean(0) > LIGHT) + (lower.mean(0) > LIGHT)
        return [Text("".join(BLOCKS[both] for both in row)) for row in drawn.tolist()]
    lines = [Text() for _ in range(upper.shape[1])]
    for line, above, below in zip(lines, upper.transpose(1, 2, 0), lower.transpose(1, 2, 0), strict=True):
        for front, back in zip(above, below, strict=True):
            line.append("▀", f"{_color(front)} on {_color(back)}")
    return lines


def _between_0_and_1(image: Array) -> Array:
    if image.dtype == np.uint8:
        return image / 255
    image = np.nan_to_num(image.astype(np.float64), posinf=0.0, neginf=0.0)
    low, high = float(image.min()), float(image.max())
    return (image - low) / (high - low or 1.0)


def _shrunk(pixels: Array, width: int) -> Array:
    """Return means over squares, so that no more than `width` columns remain."""
    _, h, w = pixels.shape
    factor = -(-w // width)
    rows = np.add.reduceat(pixels, np.arange(0, h, factor), 1)
    sums = np.add.reduceat(rows, np.arange(0, w, factor), 2)
    counts = [np.minimum(factor, size - np.arange(0, size, factor)) for size in (h, w)]
    return sums / np.outer(*counts)


def _color(values: Array) -> str:
    """Return rich's name of a color of one, three or any number of channels."""
    channels = values[:3] if len(values) >= 3 else values[:1].repeat(3)
    return "#" + "".join(f"{round(255 * float(value)):02x}" for value in channels)
