"""Single images from files, as raw pixels that fit a model: NumPy arrays, and what Pillow reads."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cnnbp_cli.core.types import Array, Shape, show
from cnnbp_cli.data.errors import DataError, require_file
from cnnbp_cli.data.npz import read_array, read_arrays

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's names for what so many channels mean."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".ppm", ".pgm", ".pbm", ".webp")
"""What pictures are called."""

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "PPM", "WEBP")
"""What is read. Pillow knows more, among them one that it hands to another program, and TIFF, whose library writes
its complaints past everything to standard error."""


@dataclass(frozen=True, slots=True, eq=False)
class RawImages:
    """The images of one picture or array, as they stand there.

    Attributes
    ----------
    name : str
        The path, and the array in it where it holds several.
    images : Array, shape (N, C, H, W)
    white : float or None
        The value of white: 255 in pictures, not known of arrays.
    light_edges : bool or None
        Whether the median of a picture's outermost pixels is above half of white; None for arrays.
    ids : tuple of str
        What the images are called where they come from: in a column of a table, or a picture by its file.
    """

    name: str
    images: Array
    white: float | None = None
    light_edges: bool | None = None
    ids: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """A name for each image: the place in the array where it holds several."""
        count = len(self.images)
        return [self.name] if count == 1 else [f"{self.name}[{k}]" for k in range(count)]


def read_pictures(path: Path, input_shape: Shape, label: int | str = "auto", ids: str | None = None) -> list[RawImages]:
    """Read every image of a file.

    Parameters
    ----------
    path : Path
        ``.npy`` with one image, (H, W) or (C, H, W), or with several, (N, H, W) or (N, C, H, W); ``.npz``
        with such arrays; ``.csv`` with a line of pixels for each; a folder of pictures; else a picture, which is made
        to fit.
    input_shape : tuple of int
        The model's (channels, height, width).
    label : int or str
        The column of a table that is no pixel, where it has one more than there are pixels; see `config.schema.Csv`.
    ids : str, optional
        What a table may call a column that names its images.

    Raises
    ------
    DataError
        When the file cannot be read, or its images do not fit the model.

    Notes
    -----
    A picture is turned as its EXIF orientation says; 16 bits become 8; what is transparent becomes white behind
    dark strokes and black behind light ones (but for models of four channels); colors become gray by ITU-R 601
    luma, or gray becomes colors; last, it is resized (Lanczos) to fit into the model's image without distortion, in
    the middle, and the margins get the median color of its outermost pixels. One that has the model's size is left as
    it is.
    """
    if not path.exists():
        raise DataError(f"{path}: does not exist")
    if path.is_dir():
        return [_read_picture(inner, input_shape) for inner in pictures_in(path)]
    require_file(path, "IMAGE")
    if path.suffix == ".npz":
        arrays = {f"{path}:{name}": array for name, array in read_arrays(path).items()}
    elif path.suffix == ".npy":
        arrays = {str(path): read_array(path)}
    elif path.suffix == ".csv":
        from cnnbp_cli.data.csv import read_table

        table = read_table(path, input_shape, "IMAGE", label, may_lack_labels=True, ids=ids)
        return [RawImages(str(path), table.images, ids=() if table.ids is None else tuple(table.ids.tolist()))]
    else:
        return [_read_picture(path, input_shape)]
    if not arrays:
        raise DataError(f"{path}: contains no arrays; write it again with numpy.savez")
    return [RawImages(name, _as_images(name, array, input_shape)) for name, array in arrays.items()]


def _as_images(name: str, array: Array, input_shape: Shape) -> Array:
    """Return an array of one image or of several as (N, C, H, W)."""
    c, h, w = input_shape
    for shape in ((h, w), (c, h, w)):
        if array.shape[-len(shape) :] == shape and array.ndim <= len(shape) + 1 and (len(shape) == 3 or c == 1):
            return array.reshape(-1, c, h, w)
    raise DataError(f"{name}: has shape {show(array.shape)}, but the model takes images {show(input_shape)}")


def _read_picture(path: Path, input_shape: Shape) -> RawImages:
    """Return a picture as bytes; `read_pictures` says what is done to it."""
    with decoding(input_shape, str(path)):
        array, is_light = fitted(path, input_shape)
    return RawImages(str(path), array[None], white=255.0, light_edges=is_light, ids=(path.stem,))


def pictures_in(folder: Path) -> list[Path]:
    """Return the pictures in a folder and the folders in it, by name.

    Raises
    ------
    DataError
        When there are none.
    """
    found = [
        Path(place, name)
        for place, inner, names in os.walk(folder)
        for name in (inner.sort() or sorted(names))  # the folders in their order, too
        if name.lower().endswith(SUFFIXES) and name[0] != "."
    ]
    if not found:
        raise DataError(f"{folder}: has no pictures; expected files that end in {', '.join(SUFFIXES)}")
    return found


@contextmanager
def decoding(input_shape: Shape, where: str) -> Iterator[None]:
    """Make sure that pictures can be decoded for such a model, and let no decoder write to the terminal.

    Raises
    ------
    DataError
        When Pillow is not there, or pictures cannot have so many channels.
    """
    try:
        from PIL import Image  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise DataError(f"{where}: reading pictures needs Pillow: pip install 'cnnbp[images]'") from None
    if input_shape[0] not in MODES:
        raise DataError(
            f"{where}: the model takes {input_shape[0]} channels, and pictures have 1, 3 or 4; give an array (npy)"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about details of a file that can be read all the same
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def fitted(path: Path, input_shape: Shape) -> tuple[Array, bool]:
    """Return a picture (C, H, W) as bytes, and whether its edges are light; several threads may do so at once.

    To be called under `decoding`; `read_pictures` says what is done to a picture.

    Raises
    ------
    DataError
        When it cannot be read.
    """
    from PIL import Image, ImageOps  # type: ignore[import-not-found,unused-ignore]

    c, h, w = input_shape
    try:
        with Image.open(path, formats=FORMATS) as image:
            image.load()
            upright = ImageOps.exif_transpose(image) if _may_be_turned(image) else image
            converted = _on_paper(_in_bytes(upright), c)
            if converted.mode != MODES[c]:
                converted = converted.convert(MODES[c])
            pixels = np.atleast_3d(np.asarray(converted))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        most = Image.MAX_IMAGE_PIXELS or 0
        raise DataError(f"{path}: has more than {most:,} pixels; make it smaller") from None
    except Exception as error:  # a damaged picture may make its decoder raise anything
        raise DataError(f"{path}: is not a picture that Pillow can read ({_first_line(error)})") from None
    frame = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    edge = np.partition(frame, (half := (len(frame) - 1) // 2, len(frame) // 2), axis=0)
    middle = ((edge[half].astype(int) + edge[len(frame) // 2]) / 2).astype(int)  # the median (c,), cut to bytes
    if converted.size != (w, h):
        color = tuple(middle.tolist()) if c > 1 else int(middle[0])
        pixels = np.atleast_3d(np.asarray(ImageOps.pad(converted, (w, h), Image.Resampling.LANCZOS, color)))
    return pixels.transpose(2, 0, 1).copy(), bool(middle[0] > 127)


def _may_be_turned(image: Any) -> bool:
    """Return whether the file has a part that may say which way is up: to look into it takes its time."""
    return any(word in str(key).lower() for key in image.info for word in ("exif", "xmp"))


def _in_bytes(image: Any) -> Any:
    """Return a picture of 16 bits, or of larger integers, as one of 8."""
    if not image.mode.startswith("I"):
        return image
    from PIL import Image  # type: ignore[import-not-found,unused-ignore]

    values = np.asarray(image).astype(np.float64)
    return Image.fromarray((values / 257 if values.max() > 255 else values).clip(0, 255).round().astype(np.uint8))


def _on_paper(image: Any, channels: int) -> Any:
    """Return a picture without transparency, on what its strokes stand out from."""
    if channels == 4 or not image.has_transparency_data:
        return image
    from PIL import Image  # type: ignore[import-not-found,unused-ignore]

    layered = image.convert("RGBA")
    weight = np.asarray(layered.getchannel("A"), np.float64)
    gray = np.asarray(layered.convert("RGB").convert("L"), np.float64)
    is_light = (gray * weight).sum() > 127 * weight.sum()
    paper = Image.new("RGBA", layered.size, (0, 0, 0, 255) if is_light else (255, 255, 255, 255))
    return Image.alpha_composite(paper, layered)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).split("\n", 1)[0][:200]
