"""Single images from files, as raw pixels that fit a model: NumPy arrays, and what Pillow reads."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from cnnbp_cli.core.types import Array, Shape
from cnnbp_cli.data.errors import DataError, require_file, show_list
from cnnbp_cli.data.npz import read_array, read_arrays

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's names for what so many channels mean."""

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "PPM", "WEBP")
"""What is read. Pillow knows more, among them one that it hands to another program, and TIFF, whose library writes
its complaints past everything to standard error."""


def read_pictures(path: Path, input_shape: Shape, *, invert: bool = False) -> tuple[Array, list[str]]:
    """Read every image of a file.

    Parameters
    ----------
    path : Path
        ``.npy`` with one image, (H, W) or (C, H, W), or with several, (N, H, W) or (N, C, H, W); ``.npz``
        with such arrays; else a picture, which is converted to the model's channels and resized.
    input_shape : tuple of int
        The model's (channels, height, width).
    invert : bool
        Swap dark and light in bytes: MNIST and its kin are white on black, paper is black on white.

    Returns
    -------
    images : Array, shape (N, C, H, W)
    names : list of str
        The path, and the place in it where it holds several.

    Raises
    ------
    DataError
        When the file cannot be read, or its images do not fit the model.
    """
    if not path.exists():
        raise DataError(f"{path}: does not exist")
    require_file(path, "IMAGE")
    if path.suffix == ".npz":
        arrays = {f"{path}:{name}": array for name, array in read_arrays(path).items()}
    elif path.suffix == ".npy":
        arrays = {str(path): read_array(path)}
    else:
        arrays = {str(path): _read_picture(path, input_shape)}
    images: list[Array] = []
    names: list[str] = []
    for name, array in arrays.items():
        fitting = _as_images(name, array, input_shape)
        images.append(255 - fitting if invert and fitting.dtype == np.uint8 else fitting)
        names += [name] if len(fitting) == 1 else [f"{name}[{k}]" for k in range(len(fitting))]
    if not images:
        raise DataError(f"{path}: holds no arrays; write it again with numpy.savez")
    return np.concatenate(images), names


def _as_images(name: str, array: Array, input_shape: Shape) -> Array:
    """Return an array of one image or of several as (N, C, H, W)."""
    c, h, w = input_shape
    for shape in ((h, w), (c, h, w)):
        if array.shape[-len(shape) :] == shape and array.ndim <= len(shape) + 1 and (len(shape) == 3 or c == 1):
            return array.reshape(-1, c, h, w)
    raise DataError(f"{name}: has shape {show_list(array.shape)}, but the model takes images {show_list(input_shape)}")


def _read_picture(path: Path, input_shape: Shape) -> Array:
    """Return a picture as bytes (C, H, W), converted to the model's channels and resized without a margin."""
    try:
        from PIL import Image  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise DataError(f"{path}: reading pictures needs Pillow: pip install 'cnnbp[images]'") from None
    c, h, w = input_shape
    if c not in MODES:
        raise DataError(f"{path}: the model takes {c} channels, and pictures have 1, 3 or 4; give an array (npy)")
    image: Any
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                small = image.convert(MODES[c]).resize((w, h), Image.Resampling.LANCZOS)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        most = Image.MAX_IMAGE_PIXELS or 0
        raise DataError(f"{path}: has more than {most:,} pixels; make it smaller") from None
    except Exception as error:  # a damaged picture may make its decoder raise anything
        raise DataError(f"{path}: is not a picture that Pillow can read ({_first_line(error)})") from None
    return np.atleast_3d(np.asarray(small)).transpose(2, 0, 1)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).split("\n", 1)[0][:200]
