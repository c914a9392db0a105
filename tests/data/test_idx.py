"""IDX folders: every way that they are published, and every way that they can be broken."""

import gzip
import os
import re
import struct
import tracemalloc
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cnnbp_cli.data.dataset import load_dataset
from cnnbp_cli.data.errors import DataError
from cnnbp_cli.data.idx import open_idx, read_folder

MNIST = Path(os.environ.get("CNNBP_MNIST", Path(__file__).parents[2].parent / "shared" / "data" / "mnist"))


def idx_bytes(array, *, shape=None):
    """Encode an array as IDX, with another shape in the header if given."""
    shape = array.shape if shape is None else shape
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{len(shape)}I", *shape) + array.astype(np.uint8).tobytes()


@pytest.fixture
def images():
    """Return the four arrays of a small set: 12 training and 5 test images of 4×6 in 3 classes."""
    rng = np.random.default_rng(7)
    return {
        "train-images": rng.integers(0, 256, (12, 4, 6), dtype=np.uint8),
        "train-labels": np.arange(12, dtype=np.uint8) % 3,
        "t10k-images": rng.integers(0, 256, (5, 4, 6), dtype=np.uint8),
        "t10k-labels": np.arange(5, dtype=np.uint8) % 3,
    }


@pytest.fixture
def idx_folder(tmp_path, images):
    """Write the set as four compressed IDX files and return their folder."""
    folder = tmp_path / "set"
    folder.mkdir()
    for name, array in images.items():
        path = folder / f"{name}-idx{array.ndim}-ubyte.gz"
        path.write_bytes(gzip.compress(idx_bytes(array)))
    return folder


def message(read, *arguments):
    """Return the whole complaint of a call that must complain."""
    with pytest.raises(DataError) as caught:
        read(*arguments)
    return str(caught.value)


class Memory:
    """A source that lies in memory; named like a file."""

    def __init__(self, content):
        self.content = content

    def __str__(self):
        return "x-idx3-ubyte"

    def open(self, mode):
        assert mode == "rb"
        return BytesIO(self.content)


def read_memory(content, axes=3):
    with open_idx(Memory(content), axes) as file:
        return file.read()


def test_folder_gives_both_splits(idx_folder, images):
    train, test = read_folder(idx_folder, (1, 4, 6))
    np.testing.assert_array_equal(train.images[:, 0], images["train-images"])
    np.testing.assert_array_equal(test.images[:, 0], images["t10k-images"])
    np.testing.assert_array_equal(train.labels, images["train-labels"])
    np.testing.assert_array_equal(test.labels, images["t10k-labels"])
    assert train.images.dtype == np.uint8
    assert train.labels.dtype == np.int64


def test_dotted_names_without_compression(tmp_path, images):
    for name, array in images.items():
        (tmp_path / f"{name}.idx{array.ndim}-ubyte").write_bytes(idx_bytes(array))
    train, _ = read_folder(tmp_path, (1, 4, 6))
    np.testing.assert_array_equal(train.images[:, 0], images["train-images"])


def test_plain_file_is_preferred_to_its_compressed_twin(idx_folder, images):
    (idx_folder / "train-labels-idx1-ubyte").write_bytes(idx_bytes(images["train-labels"] + 1))
    train, _ = read_folder(idx_folder, (1, 4, 6))
    np.testing.assert_array_equal(train.labels, images["train-labels"] + 1)


def test_emnist_is_turned_upright_and_keeps_its_labels(tmp_path, images):
    for name, array in images.items():
        published = array.transpose(0, 2, 1) if array.ndim == 3 else array + 1
        file = f"emnist-letters-{name.replace('t10k', 'test')}-idx{array.ndim}-ubyte.gz"
        (tmp_path / file).write_bytes(gzip.compress(idx_bytes(published)))
    train, test = read_folder(tmp_path, (1, 4, 6))
    np.testing.assert_array_equal(train.images[:, 0], images["train-images"])
    np.testing.assert_array_equal(test.images[:, 0], images["t10k-images"])
    np.testing.assert_array_equal(train.labels, images["train-labels"] + 1)
    assert train.images.flags.c_contiguous


def test_two_sets_in_one_folder(idx_folder):
    (idx_folder / "emnist-letters-train-images-idx3-ubyte.gz").write_bytes(b"")
    assert message(read_folder, idx_folder, (1, 4, 6)) == (
        f"{idx_folder}: contains several sets (train-images…, emnist-letters-train-images…); "
        "give each set its own folder"
    )


def test_missing_folder(tmp_path):
    assert message(read_folder, tmp_path / "nowhere", (1, 4, 6)) == (
        f"{tmp_path}/nowhere: does not exist; check the path (a relative one starts at the config's folder)"
    )


def test_file_in_place_of_the_folder(idx_folder):
    file = idx_folder / "train-images-idx3-ubyte.gz"
    assert message(read_folder, file, (1, 4, 6)) == (
        f"{file}: is a file; `data.path` names the folder with the four IDX files"
    )


def test_missing_files(idx_folder):
    (idx_folder / "t10k-images-idx3-ubyte.gz").unlink()
    (idx_folder / "train-labels-idx1-ubyte.gz").unlink()
    (idx_folder / "train-labels-idx1-ubyte.gz").mkdir()  # a folder is no file
    assert message(read_folder, idx_folder, (1, 4, 6)) == (
        f"{idx_folder}: has no train labels and no test images; expected files named like "
        "train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz, "
        "t10k-labels-idx1-ubyte.gz"
    )


def test_file_without_permission():
    class Locked(Memory):
        def open(self, mode):
            raise PermissionError(13, "Permission denied")

    def read():
        with open_idx(Locked(b""), 3):
            pass

    assert message(read) == "x-idx3-ubyte: permission denied; change its permissions"


def test_shape_that_the_model_does_not_take(idx_folder):
    assert message(read_folder, idx_folder, (1, 28, 28)) == (
        f"{idx_folder}/train-images-idx3-ubyte.gz: images are [1, 4, 6], but the config says [1, 28, 28]; "
        "write `model.input: [1, 4, 6]`"
    )


def test_as_many_labels_as_images(idx_folder, images):
    (idx_folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(images["train-labels"][:9])))
    assert message(read_folder, idx_folder, (1, 4, 6)) == (
        f"{idx_folder}/train-images-idx3-ubyte.gz: has 12 images, but "
        f"{idx_folder}/train-labels-idx1-ubyte.gz has 9 labels; take both files from the same set"
    )


ARRAY = np.zeros((2, 3, 4), np.uint8)
DAMAGES = {
    "other format": (
        b"\x89PNG and so on",
        "x-idx3-ubyte: starts with 89 50 4e 47, but IDX images start with 00 00 08 03; check that it is the right file",
    ),
    "labels": (
        idx_bytes(np.zeros(3)),
        "x-idx3-ubyte: starts with 00 00 08 01, but IDX images start with 00 00 08 03; check that it is the right file",
    ),
    "no content": (
        b"",
        "x-idx3-ubyte: starts with nothing, but IDX images start with 00 00 08 03; check that it is the right file",
    ),
    "cut header": (
        idx_bytes(ARRAY)[:10],
        "x-idx3-ubyte: ends within its header; fetch the file again",
    ),
    "no images": (
        idx_bytes(np.zeros((0, 3, 4))),
        "x-idx3-ubyte: is empty (its header declares 0 × 3 × 4); fetch the file again",
    ),
    "absurd size": (
        idx_bytes(ARRAY, shape=(2**32 - 1,) * 3),
        "x-idx3-ubyte: declares 4294967295 × 4294967295 × 4294967295 bytes, more than a file of its size can hold; "
        "fetch the file again",
    ),
    "absurd size, compressed": (
        gzip.compress(idx_bytes(ARRAY, shape=(60000, 28, 28))),
        "x-idx3-ubyte: declares 60000 × 28 × 28 bytes, more than a file of its size can hold; fetch the file again",
    ),
    "cut content": (
        idx_bytes(ARRAY)[:-1],
        "x-idx3-ubyte: contains 23 of the 24 bytes that its header declares; fetch the file again",
    ),
    "short content, compressed": (
        gzip.compress(idx_bytes(ARRAY)[:-1]),
        "x-idx3-ubyte: contains 23 of the 24 bytes that its header declares; fetch the file again",
    ),
    "trailing bytes": (
        idx_bytes(ARRAY) + b"!",
        "x-idx3-ubyte: is longer than the 24 bytes that its header declares; fetch the file again",
    ),
    "trailing bytes, compressed": (
        gzip.compress(idx_bytes(ARRAY) + b"!"),
        "x-idx3-ubyte: is longer than the 24 bytes that its header declares; fetch the file again",
    ),
    "cut compressed data": (
        gzip.compress(idx_bytes(ARRAY))[:-9],
        "x-idx3-ubyte: the compressed data end too early; fetch the file again",
    ),
    "wrong checksum": (
        gzip.compress(idx_bytes(ARRAY))[:-8] + bytes(8),
        "x-idx3-ubyte: the compressed data are damaged; fetch the file again",
    ),
    "rubbish after the compressed data": (
        gzip.compress(idx_bytes(ARRAY)) + b"rubbish",
        "x-idx3-ubyte: the compressed data are damaged; fetch the file again",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage(damage):
    content, expected = DAMAGES[damage]
    assert message(read_memory, content) == expected


def test_gzip_bomb_is_not_inflated():
    bomb = gzip.compress(idx_bytes(ARRAY) + bytes(50_000_000))
    tracemalloc.start()
    try:
        complaint = message(read_memory, bomb)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert complaint == "x-idx3-ubyte: is longer than the 24 bytes that its header declares; fetch the file again"
    assert peak < 1_000_000


def test_as_a_source(idx_folder, images, data_config):
    dataset = load_dataset(data_config("idx", path=idx_folder), (1, 4, 6), seed=0)
    np.testing.assert_array_equal(dataset.train.labels, images["train-labels"])
    assert (len(dataset.test), dataset.classes, dataset.name) == (5, 3, f"idx {idx_folder}")


@given(arrays(np.uint8, st.tuples(*[st.integers(1, 6)] * 3)), st.booleans())
def test_round_trip(array, packed):
    content = idx_bytes(array)
    np.testing.assert_array_equal(read_memory(gzip.compress(content) if packed else content), array)


@given(st.data(), st.booleans())
def test_random_damage_is_a_complaint_or_harmless(data, packed):
    content = idx_bytes(np.arange(24).reshape(2, 3, 4))
    content = bytearray(gzip.compress(content, mtime=0) if packed else content)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    complaint = None
    try:
        result = read_memory(bytes(content[:cut]))
    except DataError as error:
        complaint = str(error)
    assert result.ndim == 3 if complaint is None else re.match(r"x-idx3-ubyte: .+; .+", complaint)


@given(st.binary(max_size=60))
def test_random_bytes_are_a_complaint(content):
    assert message(read_memory, content).startswith("x-idx3-ubyte: ")


@pytest.mark.skipif(not MNIST.is_dir(), reason="no full MNIST here; CNNBP_MNIST names its folder")
def test_full_mnist():
    train, test = read_folder(MNIST, (1, 28, 28))
    assert (len(train), len(test)) == (60000, 10000)
    assert np.bincount(train.labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert train.images.mean() / 255 == pytest.approx(0.1307, abs=5e-5)
