"""Images drawn from the seed, so that a first run, a test and a tutorial need no download.

Nothing is stored and nothing loops over images: a picture is a lookup in a small table of shapes.
"""

from __future__ import annotations

from math import prod

import numpy as np

from cnnbp_cli.core.rng import generator
from cnnbp_cli.core.types import Array, Shape, show
from cnnbp_cli.data.errors import MAX_BYTES, DataError, require_shape
from cnnbp_cli.data.split import Split
from cnnbp_cli.text import show_bytes

NOISE = 40  # the background's brightest gray, of 255
CHUNK_IMAGES, CHUNK_PIXELS = (
    1024,
    1 << 22,
)  # images drawn at a time, and their pixels: the float intermediates stay small

# A bar is the set of pixels with a·x + b·y equal to its value at one point; (a, b) by class.
BARS = np.array([[1, 0], [0, 1], [1, -1], [1, 1]])  # vertical, horizontal, falling diagonal, rising diagonal

# Strokes of the digits as polylines, x to the right and y downwards, in a box from 0 to 1.
_STROKES: tuple[tuple[tuple[tuple[float, float], ...], ...], ...] = (
    (((0.5, 0.0), (0.8, 0.15), (0.9, 0.5), (0.8, 0.85), (0.5, 1.0), (0.2, 0.85), (0.1, 0.5), (0.2, 0.15), (0.5, 0.0)),),
    (((0.3, 0.2), (0.55, 0.0), (0.55, 1.0)),),
    (((0.15, 0.2), (0.4, 0.0), (0.7, 0.0), (0.85, 0.25), (0.7, 0.5), (0.1, 1.0), (0.9, 1.0)),),
    (
        ((0.15, 0.05), (0.6, 0.0), (0.85, 0.2), (0.7, 0.45), (0.4, 0.47)),
        ((0.7, 0.45), (0.9, 0.75), (0.6, 1.0), (0.1, 0.95)),
    ),
    (((0.7, 1.0), (0.7, 0.0), (0.1, 0.7), (0.95, 0.7)),),
    (((0.85, 0.0), (0.2, 0.0), (0.15, 0.45), (0.6, 0.4), (0.88, 0.68), (0.6, 1.0), (0.1, 0.95)),),
    (((0.75, 0.0), (0.3, 0.35), (0.12, 0.75), (0.45, 1.0), (0.8, 0.85), (0.75, 0.55), (0.4, 0.5), (0.15, 0.7)),),
    (((0.1, 0.0), (0.9, 0.0), (0.4, 1.0)),),
    (
        ((0.5, 0.45), (0.2, 0.25), (0.5, 0.0), (0.8, 0.25), (0.5, 0.45)),
        ((0.5, 0.45), (0.12, 0.75), (0.5, 1.0), (0.88, 0.75), (0.5, 0.45)),
    ),
    (((0.85, 0.3), (0.6, 0.5), (0.25, 0.45), (0.2, 0.15), (0.55, 0.0), (0.88, 0.2), (0.8, 0.6), (0.6, 1.0)),),
)
_FIELD = 64  # resolution of the table of distances
_MARGIN = 0.5  # how far the table reaches beyond the digit's box, on each side


def draw_split(kind: str, count: int, image: Shape, classes: int, seed: int, split: str) -> Split:
    """Draw `count` images with as many of each class as possible, in random order.

    Parameters
    ----------
    kind : str
        ``bars``: a bright bar at a random position on a dark, noisy background; the classes are vertical,
        horizontal, falling diagonal, rising diagonal. ``digits``: drawn digits with random place, size,
        slant, turn, stroke width and brightness.
    image : tuple of int
        (channels, height, width); 4×4 or more for bars, 8×8 or more for digits.
    classes : int
        2 to 4 for bars, 2 to 10 for digits.
    seed, split
        Name the random stream: `split` is ``train`` or ``test``.
    """
    rng = generator(seed, "synthetic", split)
    labels = rng.permutation(np.arange(count) % classes)
    draw = _bars if kind == "bars" else _digits
    images = np.empty((count, *image), np.uint8)
    chunk = max(1, min(CHUNK_IMAGES, CHUNK_PIXELS // prod(image)))
    for first in range(0, count, chunk):
        part = slice(first, first + chunk)
        _paint(rng, draw(rng, labels[part], image[1:]), images[part])
    return Split(images, labels)


def check_synthetic(kind: str, count: int, image: Shape, input_shape: Shape) -> None:
    """Complain about a drawing that does not fit the model or the memory."""
    require_shape("data.image", image, input_shape)
    if prod(image) > CHUNK_PIXELS:
        raise DataError(f"data.image: {kind} have {CHUNK_PIXELS:,} values at most, got {show(image)}")
    if count * prod(image) > MAX_BYTES:
        raise DataError(f"data: {count:,} images of {show(image)} take more than {show_bytes(MAX_BYTES)}; draw fewer")


def _paint(rng: np.random.Generator, ink: Array, images: Array) -> None:
    """Fill uint8 images (n, C, H, W) with noise and, where `ink` (n, H, W) is toward 1, with the shape."""
    bright = rng.uniform(140, 255, size=(*images.shape[:2], 1, 1)).astype(np.float32)
    noise = rng.integers(0, NOISE, size=images.shape, dtype=np.uint8)
    images[...] = np.maximum(noise, ink[:, None] * bright)


def _bars(rng: np.random.Generator, labels: Array, size: Shape) -> Array:
    extent = np.array([[size[1]], [size[0]]])
    # Straight bars keep a pixel from the border, where a filter without padding would see half of them.
    # A diagonal through a corner would be a dot, so that diagonals pass through the middle half.
    reach = np.where(labels < 2, extent - 2, (extent + 1) // 2)
    x, y = (extent - reach) // 2 + (rng.random((2, len(labels))) * reach).astype(np.int64)
    a, b = BARS[labels].T[:, :, None, None]
    line = a * np.arange(size[1]) + b * np.arange(size[0])[:, None]
    return (line == a * x[:, None, None] + b * y[:, None, None]).astype(np.float32)


def _digits(rng: np.random.Generator, labels: Array, size: Shape) -> Array:
    height, width = size
    count = len(labels)
    side = min(height, width)
    tall = side * rng.uniform(0.55, 0.75, count)  # pixels
    wide = tall * rng.uniform(0.6, 0.9, count)
    free = np.array([[width], [height]]) * 0.1
    cx, cy = np.array([[width / 2], [height / 2]]) + rng.uniform(-1, 1, (2, count)) * free
    angle, slant = rng.uniform(-0.15, 0.15, count), rng.uniform(-0.2, 0.2, count)
    stroke = rng.uniform(0.04, 0.09, count)  # half a stroke's width, in heights of the digit

    x = np.arange(width) + 0.5 - cx[:, None, None]
    y = np.arange(height)[:, None] + 0.5 - cy[:, None, None]
    sin, cos = np.sin(angle)[:, None, None], np.cos(angle)[:, None, None]
    down = (cos * y - sin * x) / tall[:, None, None]
    right = (cos * x + sin * y) / wide[:, None, None] + slant[:, None, None] * down
    fields = _distance_fields()
    column, row = (_field_index(right), _field_index(down))
    distance = fields[labels[:, None, None], row, column] * tall[:, None, None]  # pixels
    return np.clip(stroke[:, None, None] * tall[:, None, None] - distance + 0.5, 0, 1).astype(np.float32)


def _field_index(offset: Array) -> Array:
    """Return the cell of a position relative to the box's center, in box sizes."""
    cell = (offset + 0.5 + _MARGIN) * (_FIELD / (1 + 2 * _MARGIN))
    return np.clip(cell, 0, _FIELD - 1).astype(np.int64)


def _distance_fields() -> Array:
    """Return the distance of each cell of the table to each digit's strokes, shape (10, row, column)."""
    centers = (np.arange(_FIELD) + 0.5) * ((1 + 2 * _MARGIN) / _FIELD) - _MARGIN
    points = np.stack(np.meshgrid(centers, centers), axis=-1)[:, :, None]  # row, column, 1, (x, y)
    fields = []
    for strokes in _STROKES:
        start = np.array([point for stroke in strokes for point in stroke[:-1]])
        along = np.array([point for stroke in strokes for point in stroke[1:]]) - start
        t = np.clip(((points - start) * along).sum(-1) / (along * along).sum(-1), 0, 1)
        nearest = start + t[..., None] * along
        fields.append(np.sqrt(((points - nearest) ** 2).sum(-1)).min(-1))
    return np.array(fields)
