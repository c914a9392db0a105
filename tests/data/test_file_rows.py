"""Rows that stay in their file are what the array in memory is."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from cnnbp_cli.data.errors import DataError
from cnnbp_cli.data.file_rows import FileRows

START = 16


@pytest.fixture(params=[np.uint8, np.float32])
def both(request, tmp_path):
    """Return an array, and its rows in a file."""
    array = np.random.default_rng(0).integers(0, 200, (50, 2, 3, 4)).astype(request.param)
    (tmp_path / "rows").write_bytes(bytes(START) + array.tobytes() + b"more")
    return array, FileRows(tmp_path / "rows", START, array.shape, array.dtype)


@pytest.mark.parametrize(
    "key",
    [
        slice(None),
        slice(3, 9),
        slice(3, 40, 7),
        slice(9, 3),
        7,
        -1,
        np.array([4, 4, 49, 0]),
        np.array([-2, 3]),
        np.array([], int),
        np.arange(50) % 3 == 0,
    ],
    ids=str,
)
def test_indexing(both, key):
    array, rows = both
    np.testing.assert_array_equal(rows[key], array[key])
    chosen = np.array([5, 3, 30, 31, 32, 49, 0, 1, 2, 7])
    if not isinstance(key, np.ndarray) or key.size < 4:
        np.testing.assert_array_equal(
            rows.take(chosen)[slice(*key.indices(10)) if isinstance(key, slice) else key], array[chosen][key]
        )


def test_it_says_what_an_array_says(both):
    array, rows = both
    chosen = rows.take(np.arange(50) % 2 == 0)
    for one, other in ((rows, array), (chosen, array[::2])):
        assert (len(one), one.shape, one.ndim, one.dtype, one.nbytes, one.min(), one.max()) == (
            len(other),
            other.shape,
            other.ndim,
            other.dtype,
            other.nbytes,
            other.min(),
            other.max(),
        )
        np.testing.assert_array_equal(np.asarray(one), other)
        np.testing.assert_array_equal(np.concatenate([*one.blocks()]), other)
    np.testing.assert_array_equal(chosen.take(slice(3, 5))[:], array[::2][3:5])


def test_another_process_opens_the_file_itself(both):
    array, rows = both
    rows[:1]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(rows))[:], array)


@pytest.mark.parametrize("key", [50, -51, np.array([0, 50])])
def test_rows_that_there_are_none_of(both, key):
    with pytest.raises(IndexError):
        both[1][key]


def test_a_file_that_has_become_shorter(both):
    array, rows = both
    rows[:1]
    rows.path.write_bytes(bytes(START) + array[:20].tobytes())
    np.testing.assert_array_equal(rows[:20], array[:20])
    with pytest.raises(DataError, match="has become shorter since the start; restore the file"):
        rows[20:]


def test_a_file_that_is_gone(both):
    both[1].path.unlink()
    with pytest.raises(DataError, match="does not exist"):
        both[1][0]
