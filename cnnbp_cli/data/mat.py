"""Numeric arrays of a MAT-file of version 5, as MATLAB's `save -v6` and `-v7` write them: no cells, structs or texts.

Each size that the file states is compared with what is there before it is used.

References
----------
The MathWorks, "MAT-File Format", chapter 1: "Level 5 MAT-Files".
"""

from __future__ import annotations

import struct
import zlib
from math import prod

import numpy as np

from cnnbp_cli.core.types import Array
from cnnbp_cli.data.errors import DataError

HEADER = 128
VERSION = 0x0100

INT8, INT32, UINT32, MATRIX, COMPRESSED = 1, 5, 6, 14, 15
DTYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
"""Types of data elements, as NumPy writes them. An array of doubles may be stored in any that holds its values."""

NUMERIC_CLASSES = range(6, 16)
COMPLEX = 0x0800

MOST_AXES = 32
"""What any version of NumPy can hold."""

AROUND = 4096
"""Bytes that an array may take besides its values: its flags, dimensions and name."""


def read_mat(where: str, content: bytes, most: int) -> dict[str, Array]:
    """Return a file's arrays by name, with the axes as MATLAB has them.

    Parameters
    ----------
    where : str
        Names the file in complaints.
    content : bytes
        All of the file.
    most : int
        Bytes that the values of one array may take. No more is decompressed.

    Returns
    -------
    dict
        Arrays in Fortran order, read-only, of the type they are stored in.

    Raises
    ------
    DataError
        When the file is damaged, of another version, or has anything but real numeric arrays of at most this size.
    """
    order = {b"IM": "<", b"MI": ">"}.get(content[126:HEADER])
    if order is None or struct.unpack(f"{order}H", content[124:126])[0] != VERSION:
        raise DataError(f"{where}: is not a MAT-file of version 5")
    arrays = dict[str, Array]()
    rest = memoryview(content)[HEADER:]
    try:
        while rest:
            kind, element, rest = _element(rest, order)
            if kind == COMPRESSED:
                kind, element, _ = _element(_decompressed(element, most), order)
            if kind != MATRIX:
                raise _Damage(f"has a data element of type {kind} in place of an array")
            name, array = _array(element, order)
            if array.nbytes > most:
                raise _Damage(f"the array {name!r} takes more than {most:,} bytes")
            arrays[name] = array
    except _Damage as damage:
        raise DataError(f"{where}: {damage}") from None
    return arrays


class _Damage(Exception):
    """What is wrong with the file."""


def _element(data: memoryview, order: str) -> tuple[int, memoryview, memoryview]:
    """Return the type and the content of the first data element, and what follows it."""
    if len(data) < 8:
        raise _Damage("ends within a tag")
    kind, size = struct.unpack(f"{order}II", data[:8])
    if kind >> 16:  # the small form: four bytes of content at most, within the tag
        kind, size = kind & 0xFFFF, kind >> 16
        if size > 4:
            raise _Damage(f"has a small data element of {size:,} bytes, which takes 4 at most")
        return kind, data[4 : 4 + size], data[8:]
    if size > len(data) - 8:
        raise _Damage(f"declares a data element of {size:,} bytes, and {len(data) - 8:,} follow")
    padding = 0 if kind == COMPRESSED else -size % 8
    return kind, data[8 : 8 + size], data[8 + size + padding :]


def _decompressed(packed: memoryview, most: int) -> memoryview:
    unpacker = zlib.decompressobj()
    try:
        content = unpacker.decompress(packed, most + AROUND)
    except zlib.error:
        raise _Damage("the compressed data are damaged") from None
    if not unpacker.eof:
        too_large = len(content) == most + AROUND
        raise _Damage(f"an array takes more than {most:,} bytes" if too_large else "the compressed data end too early")
    return memoryview(content)


def _array(content: memoryview, order: str) -> tuple[str, Array]:
    """Return the name and the values of an array: its elements are flags, dimensions, name and values."""
    kind, flags, content = _element(content, order)
    if kind != UINT32 or len(flags) != 8:
        raise _Damage("has an array without flags")
    kind, sizes, content = _element(content, order)
    if kind != INT32 or len(sizes) % 4 or len(sizes) < 8:
        raise _Damage("has an array without dimensions")
    shape = struct.unpack(f"{order}{len(sizes) // 4}i", sizes)
    kind, text, content = _element(content, order)
    if kind != INT8:
        raise _Damage("has an array without a name")
    name = bytes(text).decode("ascii", "replace")
    bits = struct.unpack(f"{order}I", flags[:4])[0]
    if bits & 0xFF not in NUMERIC_CLASSES or bits & COMPLEX:
        raise _Damage(f"{name!r} is no array of real numbers")
    kind, values, _ = _element(content, order)
    if kind not in DTYPES:
        raise _Damage(f"the array {name!r} has values of the unknown type {kind}")
    dtype = np.dtype(order + DTYPES[kind])
    if len(shape) > MOST_AXES or min(shape) < 0 or prod(shape) * dtype.itemsize != len(values):
        dimensions = " × ".join(map(str, shape[:MOST_AXES]))
        raise _Damage(f"the array {name!r} declares {dimensions} values of {dtype.name}, and has {len(values):,} bytes")
    return name, np.frombuffer(values, dtype).reshape(shape, order="F")
