"""NumPy archives, taken apart member by member: no pickles, and no array larger than the file can hold.

References
----------
NumPy Enhancement Proposal 1, "A Simple File Format for NumPy Arrays".
"""

from __future__ import annotations

import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from io import BytesIO
from math import prod
from pathlib import Path
from tokenize import TokenError
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnbp_cli.core.types import Array, Shape, show
from cnnbp_cli.data.errors import DEFLATE_LIMIT, MAX_BYTES, DataError, require_file, require_shape, unreadable
from cnnbp_cli.data.file_rows import FileRows, Images, Layout
from cnnbp_cli.data.labels import listed
from cnnbp_cli.data.source import Source
from cnnbp_cli.data.split import Split

if TYPE_CHECKING:
    from cnnbp_cli.config.schema import Keys

ROLES = ("x_train", "y_train", "x_validation", "y_validation", "x_test", "y_test")

NUMBERS = "buif"
"""Booleans, whole numbers and floats, as NumPy abbreviates them."""

HEADER_LIMIT = 10_000
"""The most bytes of a header that are looked at, as in NumPy itself."""

_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, struct.error)
_HEADER_DAMAGE = (ValueError, SyntaxError, TypeError, OverflowError, MemoryError, RecursionError, TokenError)


def read_npz(path: Path, input_shape: Shape, keys: Keys | None = None) -> Source:
    """Read training images and labels and, where present, those for validation and for a test.

    Images are (N, H, W), (N, H, W, C) or (N, C, H, W): the model's input says which. Whole numbers from
    0 to 255 stay bytes, all others become float32 (float64 stays). `labels` says what labels may be.

    Parameters
    ----------
    path : Path
    input_shape : tuple of int
    keys : Keys, optional
        What the arrays are called, where `roles` would not tell.

    Raises
    ------
    DataError
        When the file is damaged, an array is missing or impossible, or the arrays do not fit together.
    """
    require_file(path, "data.path")
    try:
        file = path.open("rb")
    except OSError as error:
        raise unreadable(path, error) from None
    try:
        with file, zipfile.ZipFile(file) as archive:
            found = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
            names = names_of(path, found, keys)
            arrays: Arrays = {
                each: _read_member(archive, f"{path}: {name}", f"{name}.npy", kinds=NUMBERS + "US" * (each[0] == "y"))
                for each, name in names.items()
            }
    except (*_DAMAGE, OSError):  # a directory that points outside the file ends in an invalid seek
        raise DataError(f"{path}: is not an npz archive, or a damaged one; write it again with numpy.savez") from None
    return source_of(f"npz {path}", path, names, arrays, input_shape)


Arrays = dict[str, Images]
"""What files hold, by the roles of `ROLES`."""


def source_of(origin: str, path: Path, names: Mapping[str, str], arrays: Arrays, input_shape: Shape) -> Source:
    """Return the splits of arrays that a file, or a folder, calls by these names.

    Raises
    ------
    DataError
        When the arrays do not fit together.
    """
    splits = {
        split: _split(path, names, split, arrays, input_shape)
        for split in ("train", "validation", "test")
        if f"x_{split}" in arrays
    }
    for split, part in splits.items():
        if part.images.dtype.kind != splits["train"].images.dtype.kind:
            raise DataError(
                f"{path}: the images of train and {split} differ in kind ({splits['train'].images.dtype} and "
                f"{part.images.dtype}); store both alike"
            )
    labels_at = {split: f"{path}: {names[f'y_{split}']}" for split in splits}
    return Source(origin, splits["train"], splits.get("validation"), splits.get("test"), labels_at=labels_at)


SPLITS = {
    **{"train": "train", "training": "train"},
    **{"val": "validation", "valid": "validation", "validation": "validation"},
    **{"test": "test", "testing": "test"},
}
PARTS = {
    **dict.fromkeys(("x", "image", "images", "img", "imgs", "data", "features"), "x"),
    **dict.fromkeys(("y", "label", "labels", "target", "targets", "class", "classes", "mask", "masks"), "y"),
}


def role(name: str) -> str | None:
    """Return what an array is by its name, such as ``x_train``: what Keras, MedMNIST and others write.

    A name has a word for the part and one for the split, in any order; without the latter it is for training.
    """
    words = re.split(r"[_\-. ]+", name.lower())
    parts = [PARTS[word] for word in words if word in PARTS]
    splits = [SPLITS[word] for word in words if word in SPLITS]
    if len(parts) != 1 or len(splits) > 1 or len(parts) + len(splits) != len(words):
        return None
    return f"{parts[0]}_{splits[0] if splits else 'train'}"


def names_of(path: Path, found: Sequence[str], keys: Keys | None) -> dict[str, str]:
    """Return which array is what: by the config's word, by its own name, or by a usual one."""
    known = dict[str, str]()
    declared = {} if keys is None else {f.name: getattr(keys, f.name) for f in fields(keys)}
    for each in ROLES:
        usual = [name for name in found if name == each] or [name for name in found if role(name) == each]
        name = declared.get(each)
        if name is not None and name not in found:
            raise DataError(
                f"{path}: has no array {name!r}, which `data.keys` calls {each}; it has "
                f"{listed(sorted(found)) or 'none'}"
            )
        if name is None and len(usual) > 1:
            raise DataError(
                f"{path}: {' and '.join(usual[:3])} may all be {each}; say which, as with "
                f"`data.keys: {{{each}: {usual[0]}}}`"
            )
        if name is not None or usual:
            known[each] = name or usual[0]
    missing = [each for each in ROLES[:2] if each not in known]
    for x, y in zip(ROLES[2::2], ROLES[3::2], strict=True):
        missing += [each for each, other in ((x, y), (y, x)) if other in known and each not in known]
    if missing:
        others = [name for name in found if name not in known.values()]
        hint = f"; `data.keys` says what is what, as with `data.keys: {{{missing[0]}: {others[0]}}}`" if others else ""
        raise DataError(
            f"{path}: has no {' and no '.join(missing)}; expected the arrays x_train, y_train, x_test, y_test, "
            f"found {listed(sorted(found)) or 'none'}{hint}"
        )
    return known


def read_arrays(path: Path) -> dict[str, Array]:
    """Read every array of an archive, by name; together they may not be larger than one may be.

    Raises
    ------
    DataError
        When the file is missing, damaged or holds anything but arrays of numbers.
    """
    if not path.exists():
        raise DataError(f"{path}: there is no such file")
    size = require_file(path, "the argument")
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            declared = sum(member.file_size for member in archive.infolist())
            if declared > min(MAX_BYTES, size * DEFLATE_LIMIT):  # many members may share what is compressed once
                raise DataError(f"{path}: declares {declared:,} bytes, more than a file of its size can hold")
            return {name: _read_member(archive, f"{path}: {name}", f"{name}.npy") for name in names}
    except OSError as error:
        raise unreadable(path, error) from None
    except (*_DAMAGE, KeyError):
        raise DataError(f"{path}: is not an npz archive, or a damaged one") from None


def read_array(path: Path, *, texts: bool = False) -> Array:
    """Read a ``.npy`` file.

    Raises
    ------
    DataError
        When the file is missing or damaged, or holds anything but numbers, or texts where they are wanted.
    """
    size = require_file(path, "the argument")
    try:
        with path.open("rb") as file:
            head = BytesIO(file.read(HEADER_LIMIT + 12))
            check_header(str(path), head, size, "save", NUMBERS + "US" * texts)
            file.seek(0)
            return np.lib.format.read_array(file, allow_pickle=False)
    except OSError as error:
        raise unreadable(path, error) from None


def _read_member(archive: zipfile.ZipFile, where: str, name: str, kinds: str = NUMBERS) -> Array:
    """Read one array after its header, the archive's directory and the compressed size agree."""
    info = archive.getinfo(name)
    # Other methods inflate by any factor, and Python's decompressors do it in one go.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"{where}: is compressed in a way that NumPy does not use; write it again with numpy.savez")
    with archive.open(info) as file:
        head = BytesIO(file.read(HEADER_LIMIT + 12))
    if info.file_size > min(MAX_BYTES, info.compress_size * DEFLATE_LIMIT):
        raise DataError(f"{where}: declares {info.file_size:,} bytes, more than a file of its size can hold")
    check_header(where, head, info.file_size, "savez", kinds)
    with archive.open(info) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def check_header(where: str, head: BytesIO, size: int, writer: str, kinds: str = NUMBERS) -> None:
    """Complain unless an array of one of these kinds, by NumPy's letters, takes exactly `size` bytes."""
    shape, dtype, _ = read_header(where, head, writer)
    if dtype.hasobject:
        texts = ", or texts, as with y.astype(str)" if "U" in kinds else ""
        raise DataError(f"{where}: contains Python objects, which are never loaded; store numbers{texts}")
    if dtype.kind not in kinds:
        raise DataError(f"{where}: has dtype {dtype}, expected numbers")
    declared = prod(shape) * dtype.itemsize
    if dtype.itemsize == 0:
        raise DataError(f"{where}: holds empty texts; store the names of the classes")
    if 0 in shape:
        raise DataError(f"{where}: is empty (shape {show(shape)}); store at least one sample")
    if head.tell() + declared != size:
        raise DataError(
            f"{where}: declares the shape {show(shape)[:200]} of {dtype}, which is not what the file holds; "
            f"write it again with numpy.{writer}"
        )


def read_header(where: str, head: BytesIO, writer: str) -> tuple[Shape, np.dtype[Any], bool]:
    """Return an array's shape and dtype, and whether it is in Fortran order."""
    try:
        version = np.lib.format.read_magic(head)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what Python 2 wrote, or what never was Python
            shape, by_columns, dtype = read(head)
        if min(shape, default=0) < 0 or max(shape, default=0) > MAX_BYTES:
            raise ValueError
    except (*_HEADER_DAMAGE, KeyError, Warning):
        raise DataError(f"{where}: is not a NumPy array; write it again with numpy.{writer}") from None
    return shape, dtype, by_columns


def _split(path: Path, names: Mapping[str, str], split: str, arrays: Arrays, input_shape: Shape) -> Split:
    x, y = f"x_{split}", f"y_{split}"
    found = Split(_images(f"{path}: {names[x]}", arrays[x], input_shape), _texts(arrays[y][:]))
    if len(found.images) != len(found.labels):
        raise DataError(
            f"{path}: {names[x]} has {len(found.images):,} images, but {names[y]} has {len(found.labels):,} labels; "
            "store one label for each image"
        )
    return found


def _texts(labels: Array) -> Array:
    """Return bytes as texts, and all other labels as they are."""
    return np.char.decode(labels, "utf-8", "replace") if labels.dtype.kind == "S" else labels


def _images(where: str, images: Images, input_shape: Shape) -> Images:
    """Return images as (N, C, H, W), in bytes or floats."""
    layout = _layout(where, images.shape, input_shape)
    if isinstance(images, FileRows):
        return images.as_images(layout)
    if layout == "no channels":
        images = images[:, None]
    elif layout == "channels last":
        images = images.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(_pixels(where, images))


def _layout(where: str, shape: Shape, input_shape: Shape) -> Layout:
    """Return where the channels of images of this shape are, given the model's."""
    if (last := _batch_last(shape, input_shape)) and shape[1:] != input_shape:
        raise DataError(
            f"{where}: shape {show(shape)} looks like {last[0]}, expected the images on the first axis; "
            f"transpose it, as with x.transpose{last[1]}"
        )
    if len(shape) == 3:
        require_shape(where, (1, *shape[1:]), input_shape)
        return "no channels"
    if len(shape) != 4:
        flat = len(shape) == 2 and shape[1] == prod(input_shape)
        remedy = f"; reshape these flat ones, as with x.reshape(-1, {', '.join(map(str, input_shape))})" if flat else ""
        raise DataError(
            f"{where}: has shape {show(shape)}, expected images as (N, H, W), (N, H, W, C) or (N, C, H, W){remedy}"
        )
    as_first, as_last = shape[1:], (shape[3], *shape[1:3])
    if as_first == as_last == input_shape and input_shape != (1, 1, 1):
        raise DataError(
            f"{where}: shape {show(shape)} may mean channels first or channels last; "
            "pad the images so that their sides differ from the number of channels"
        )
    if as_last == input_shape:
        return "channels last"
    if as_first != input_shape:
        require_shape(
            where, as_last if as_last[0] in (1, 3, 4) and as_first[0] not in (1, 3, 4) else as_first, input_shape
        )
    return "channels first"


def _batch_last(shape: Shape, input_shape: Shape) -> tuple[str, Shape] | None:
    """Return the layout of images on the last axis, and the axes that put them on the first, if that is what it is."""
    c, h, w = input_shape
    if len(shape) == 4 and shape[:3] == (h, w, c):
        return "(H, W, C, N)", (3, 0, 1, 2)
    if len(shape) == 4 and shape[:3] == input_shape:
        return "(C, H, W, N)", (3, 0, 1, 2)
    if len(shape) == 3 and shape[:2] == (h, w) and c == 1 and shape[1:] != (h, w):
        return "(H, W, N)", (2, 0, 1)
    return None


def _pixels(where: str, images: Array) -> Array:
    low, high = images.min(), images.max()
    if images.dtype.kind != "f":
        return images.astype(np.uint8 if low >= 0 and high <= 255 else np.float32, copy=False)
    if not (np.isfinite(low) and np.isfinite(high)):
        sample = int(np.argwhere(~np.isfinite(images))[0][0])
        raise DataError(f"{where}: image {sample} has a pixel that is not finite; remove or replace it")
    return images.astype(np.float64 if images.dtype.itemsize >= 8 else np.float32, copy=False)
