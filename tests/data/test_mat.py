"""MAT-files of version 5: what the format's document says, what SciPy writes, and what is damaged."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from data.mat_bytes import TYPES, compressed, element, header, matrix

from cnnbp_cli.data.errors import DataError
from cnnbp_cli.data.mat import read_mat

X = np.arange(2 * 3 * 3 * 5, dtype=np.uint8).reshape(2, 3, 3, 5)
Y = np.array([[1], [10], [3]], np.uint8)
MOST = 1000


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", TYPES)
def test_plain_and_compressed_arrays(dtype, order):
    x = X.astype(dtype)
    content = header(order) + compressed(matrix("X", x, order), order) + matrix("y", Y, order)
    found = read_mat("a.mat", content, MOST)
    assert list(found) == ["X", "y"]
    assert found["X"].dtype.name == dtype
    np.testing.assert_array_equal(found["X"], x)
    np.testing.assert_array_equal(found["y"], Y)


def test_doubles_that_are_stored_as_bytes():
    found = read_mat("a.mat", header() + matrix("y", Y, mat_class=6), MOST)
    np.testing.assert_array_equal(found["y"], Y)


@pytest.mark.parametrize("do_compression", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64", "float32", "float64"])
def test_what_scipy_writes(dtype, do_compression):
    scipy_io = pytest.importorskip("scipy.io")
    file = io.BytesIO()
    arrays = {"X": X.astype(dtype), "y": Y.astype(dtype), "a_name_of_more_than_eight": np.eye(3)}
    scipy_io.savemat(file, arrays, do_compression=do_compression)
    found = read_mat("a.mat", file.getvalue(), MOST)
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_what_scipy_writes_besides_arrays_of_numbers():
    scipy_io = pytest.importorskip("scipy.io")
    for value in ("text", {"a": 1}, np.array([1 + 2j])):
        file = io.BytesIO()
        scipy_io.savemat(file, {"s": value})
        with pytest.raises(DataError, match=r"^a.mat: 's' is no array of real numbers$"):
            read_mat("a.mat", file.getvalue(), MOST)


PACKED = compressed(matrix("X", X))
DAMAGED = {
    "is not a MAT-file of version 5": b"",
    "is not a MAT-file of version 5 ": header(version=0x0200) + matrix("y", Y),
    "is not a MAT-file of version 5  ": b"x" * 200,
    "ends within a tag": header() + matrix("y", Y)[:4],
    "declares a data element of 48 bytes, and 10 follow": header() + matrix("y", Y[:2])[:18],
    "declares a data element of 4,294,967,295 bytes, and 0 follow": header() + struct.pack("<II", 14, 2**32 - 1),
    "has a small data element of 5 bytes, which takes 4 at most": header() + struct.pack("<II", 5 << 16 | 1, 0),
    "has a data element of type 9 in place of an array": header() + element(9, bytes(8)),
    "has a data element of type 15 in place of an array": header() + compressed(PACKED),
    "the compressed data are damaged": header() + PACKED[:9] + b"\0\0" + PACKED[11:],
    "the compressed data end too early": header() + struct.pack("<II", 15, len(PACKED) - 12) + PACKED[8:-4],
    "an array takes more than 1,000 bytes": header() + compressed(matrix("X", np.zeros((1, 9000)))),
    "the array 'X' takes more than 1,000 bytes": header() + matrix("X", np.zeros((1, 126))),
    "has an array without flags": header() + element(14, element(5, bytes(8))),
    "has an array without dimensions": header() + element(14, element(6, bytes(8)) + element(5, bytes(4))),
    "has an array without a name": header()
    + element(14, element(6, bytes(8)) + element(5, bytes(8)) + element(2, bytes(8))),
    "'y' is no array of real numbers": header() + matrix("y", Y, mat_class=4),
    "the array 'y' has values of the unknown type 16": header() + matrix("y", Y, kind=16),
    "the array 'y' declares 4 × 1 values of uint8, and has 3 bytes": header() + matrix("y", Y, dimensions=(4, 1)),
    "the array 'y' declares -3 × -1 values of uint8, and has 3 bytes": header() + matrix("y", Y, dimensions=(-3, -1)),
}


@pytest.mark.parametrize("problem", DAMAGED)
def test_what_is_damaged(problem):
    with pytest.raises(DataError) as caught:
        read_mat("a.mat", DAMAGED[problem], MOST)
    assert str(caught.value) == f"a.mat: {problem.rstrip()}"


def test_every_beginning_is_refused_or_has_fewer_arrays():
    content = header() + matrix("X", X) + compressed(matrix("y", Y))
    for end in range(len(content)):
        try:
            assert len(read_mat("a.mat", content[:end], MOST)) < 2
        except DataError:
            continue


def test_any_byte_may_be_wrong():
    content = header() + matrix("X", X) + compressed(matrix("y", Y))
    for at in range(124, len(content)):
        for bits in (0x01, 0x80, 0xFF):
            wrong = bytearray(content)
            wrong[at] ^= bits
            try:
                read_mat("a.mat", bytes(wrong), MOST)
            except DataError:
                continue
