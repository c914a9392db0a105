"""MAT-files of version 5, byte by byte as "MAT-File Format" lays them out, for tests of what reads them."""

from __future__ import annotations

import struct
import zlib

import numpy as np

TYPES = {"int8": 1, "uint8": 2, "int16": 3, "uint16": 4, "int32": 5, "uint32": 6, "float32": 7, "float64": 9}
CLASSES = {"float64": 6, "float32": 7, "int8": 8, "uint8": 9, "int16": 10, "uint16": 11, "int32": 12, "uint32": 13}


def header(order: str = "<", version: int = 0x0100) -> bytes:
    return b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(f"{order}HH", version, 0x4D49)


def element(kind: int, content: bytes, order: str = "<", *, small: bool = True) -> bytes:
    """A tag and its content: in the small form where that fits and is wanted."""
    if small and 0 < len(content) <= 4:
        return struct.pack(f"{order}I", len(content) << 16 | kind) + content.ljust(4, b"\0")
    return struct.pack(f"{order}II", kind, len(content)) + content + bytes(-len(content) % 8)


def matrix(
    name: str, array: np.ndarray, order: str = "<", *, mat_class: int = 0, dimensions=None, kind: int = 0
) -> bytes:
    """An array, whose class, dimensions and type of values may be given other than they are."""
    shape = array.shape if dimensions is None else dimensions
    content = array.astype(array.dtype.newbyteorder(order)).tobytes("F")
    parts = (
        element(6, struct.pack(f"{order}II", mat_class or CLASSES[array.dtype.name], 0), order),
        element(5, struct.pack(f"{order}{len(shape)}i", *shape), order),
        element(1, name.encode(), order),
        element(kind or TYPES[array.dtype.name], content, order),
    )
    return element(14, b"".join(parts), order, small=False)


def compressed(content: bytes, order: str = "<") -> bytes:
    """An element, deflated; nothing is padded after it."""
    packed = zlib.compress(content)
    return struct.pack(f"{order}II", 15, len(packed)) + packed
