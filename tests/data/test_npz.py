"""npz archives: the layouts that occur, and members that lie about what they hold."""

import pickle
import struct
import zipfile
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnbp_cli.config.schema import Keys, Npz
from cnnbp_cli.data.dataset import load_dataset
from cnnbp_cli.data.errors import DataError
from cnnbp_cli.data.labels import Task
from cnnbp_cli.data.npz import role

RNG = np.random.default_rng(3)
PIXELS = RNG.integers(0, 256, (6, 2, 4, 5), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])
SHAPE = (2, 4, 5)


@pytest.fixture
def write(tmp_path):
    """Return a writer of an archive with a valid training split, but for the arrays given."""

    def build(**arrays):
        path = tmp_path / "set.npz"
        np.savez_compressed(path, **({"x_train": PIXELS, "y_train": LABELS} | arrays))
        return path

    return build


@pytest.fixture
def write_member(tmp_path):
    """Return a writer of an archive whose `x_train` is made of raw bytes."""

    def build(content):
        path = tmp_path / "set.npz"
        labels = BytesIO()
        np.save(labels, LABELS)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x_train.npy", content)
            archive.writestr("y_train.npy", labels.getvalue())
        return path

    return build


def npy_header(text, version=1):
    text = text.encode() + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(text)) + text


CLASSIFIES = Task(classifies=True)


def read_npz(path, input_shape=SHAPE, task=None, **fields):
    data = load_dataset(Npz(path=path, **fields), input_shape, 0, task or Task())
    return data.train, data.test


def message(path, input_shape=SHAPE, task=None):
    with pytest.raises(DataError) as caught:
        read_npz(path, input_shape, task)
    return str(caught.value)


def test_channels_first(write):
    train, test = read_npz(write(), SHAPE)
    np.testing.assert_array_equal(train.images, PIXELS)
    np.testing.assert_array_equal(train.labels, LABELS)
    assert train.labels.dtype == np.int64
    assert test is None


def test_channels_last(write):
    train, _ = read_npz(write(x_train=PIXELS.transpose(0, 2, 3, 1)), SHAPE)
    np.testing.assert_array_equal(train.images, PIXELS)
    assert train.images.flags.c_contiguous


def test_without_a_channel_axis(write):
    train, _ = read_npz(write(x_train=PIXELS[:, 0]), (1, 4, 5))
    np.testing.assert_array_equal(train.images, PIXELS[:, :1])


def test_with_a_test_split(write):
    _, test = read_npz(write(x_test=PIXELS[:2], y_test=LABELS[:2]), SHAPE)
    np.testing.assert_array_equal(test.images, PIXELS[:2])
    np.testing.assert_array_equal(test.labels, LABELS[:2])


def test_fortran_order_and_foreign_byte_order(write):
    train, _ = read_npz(write(x_train=np.asfortranarray(PIXELS).astype(">i4"), y_train=LABELS.astype(">i2")), SHAPE)
    np.testing.assert_array_equal(train.images, PIXELS)
    np.testing.assert_array_equal(train.labels, LABELS)
    assert train.images.dtype == np.uint8


@pytest.mark.parametrize(
    ("stored", "loaded"),
    [(np.float16, np.float32), (np.float32, np.float32), (np.float64, np.float64), (np.uint8, np.uint8)],
)
def test_dtype_of_pixels(write, stored, loaded):
    train, _ = read_npz(write(x_train=PIXELS.astype(stored)), SHAPE)
    assert train.images.dtype == loaded
    np.testing.assert_array_equal(train.images, PIXELS)


def test_whole_numbers_beyond_a_byte_become_floats(write):
    pixels = PIXELS.astype(np.int16) * 100
    train, _ = read_npz(write(x_train=pixels), SHAPE)
    assert train.images.dtype == np.float32
    np.testing.assert_array_equal(train.images, pixels)


def test_booleans_are_labels_0_and_1(write):
    train, _ = read_npz(write(y_train=LABELS > 1), SHAPE)
    np.testing.assert_array_equal(train.labels, LABELS > 1)
    assert train.labels.dtype == np.int64


def test_a_column_of_labels(write):
    train, _ = read_npz(write(y_train=LABELS[:, None]), SHAPE)
    np.testing.assert_array_equal(train.labels, LABELS)


@pytest.mark.parametrize("shape", [(6,), (6, 3)])
def test_floats_are_targets(write, data_config, shape):
    targets = RNG.normal(size=shape).astype(np.float32)
    dataset = load_dataset(data_config("npz", path=write(y_train=targets), validation=2), SHAPE, seed=0)
    assert dataset.classes is None
    assert dataset.train.labels.dtype == np.float64
    assert dataset.train.labels.shape == (4, *shape[1:])
    both = np.concatenate([dataset.train.labels, dataset.validation.labels])
    np.testing.assert_array_equal(np.sort(both, axis=0), np.sort(targets, axis=0))


@pytest.mark.parametrize(
    "labels",
    [LABELS.astype(float), LABELS.astype(np.float32)[:, None], np.eye(3)[LABELS], np.eye(3, dtype=int)[LABELS]],
    ids=["floats", "a column of floats", "one-hot", "one-hot, whole"],
)
def test_whole_floats_and_one_hot_rows_are_classes_where_the_network_classifies(write, labels):
    train, _ = read_npz(write(y_train=labels), task=CLASSIFIES)
    np.testing.assert_array_equal(train.labels, LABELS)
    assert train.labels.dtype == np.int64


@pytest.mark.parametrize("labels", [LABELS + 0.5, np.eye(3)[LABELS] * 0.9, np.ones((6, 3))])
def test_other_floats_stay_targets(write, labels):
    np.testing.assert_array_equal(read_npz(write(y_train=labels), task=CLASSIFIES)[0].labels, labels)


def test_labels_from_one(write):
    path = write(y_train=LABELS + 1, x_test=PIXELS, y_test=LABELS + 1.0)
    train, test = read_npz(path, first_label=1, task=CLASSIFIES)
    np.testing.assert_array_equal(train.labels, LABELS)
    np.testing.assert_array_equal(test.labels, LABELS)
    data = load_dataset(Npz(path=write(y_train=LABELS + 1), first_label=1), SHAPE, 0)
    assert (data.class_names, data.classes) == (("1", "2", "3"), 3)
    with pytest.raises(DataError, match=r"label 0 is 0, expected a class number; `data.first_label` says that labels"):
        read_npz(write(), first_label=1)


@pytest.mark.parametrize("kind", ["U1", "S1"])
def test_words_are_names(write, kind):
    path = write(y_train=np.array(list("bcabca")).astype(kind))
    data = load_dataset(Npz(path=path), SHAPE, 0)
    assert (data.class_names, data.train.labels.tolist()) == (("a", "b", "c"), [1, 2, 0, 1, 2, 0])
    data = load_dataset(Npz(path=path, classes=("c", "b", "a", "d")), SHAPE, 0)
    assert (data.class_names, data.train.labels.tolist()) == (("c", "b", "a", "d"), [1, 0, 2, 1, 0, 2])
    with pytest.raises(DataError, match=r"y_train: label 'c' of sample 1 is none of the classes: a, b"):
        load_dataset(Npz(path=path, classes=("a", "b")), SHAPE, 0)


def test_words_of_numbers_are_numbers(write):
    data = load_dataset(Npz(path=write(y_train=LABELS.astype(str))), SHAPE, 0)
    assert (data.class_names, data.train.labels.tolist()) == (None, LABELS.tolist())


def test_numbers_have_the_declared_names(write):
    data = load_dataset(Npz(path=write(), classes=("cat", "dog", "cow")), SHAPE, 0)
    assert data.class_names == ("cat", "dog", "cow")
    with pytest.raises(DataError, match=r"label 2 of sample 2 has no name; `data.classes` names the 2 classes from 0"):
        load_dataset(Npz(path=write(), classes=("cat", "dog")), SHAPE, 0)


def test_classes_get_the_numbers_of_the_model_that_they_are_for(write):
    """Other data may have fewer of the classes, or name them in another order."""
    of_model, words = ("a", "b", "c"), np.array(list("bcbcbc"))
    for data_config in (Npz(path=write(y_train=words)), Npz(path=write(y_train=words), classes=("c", "b"))):
        data = load_dataset(data_config, SHAPE, 0, class_names=of_model)
        assert (data.class_names, data.train.labels.tolist()) == (of_model, [1, 2, 1, 2, 1, 2])
    numbers = Npz(path=write(y_train=LABELS % 2), classes=("c", "b"))
    assert load_dataset(numbers, SHAPE, 0, class_names=of_model).train.labels.tolist() == [2, 1, 2, 2, 1, 2]
    with pytest.raises(DataError, match="label 'd' of sample 1 is none of the model's classes: a, b, c"):
        load_dataset(Npz(path=write(y_train=LABELS % 2), classes=("c", "d")), SHAPE, 0, class_names=of_model)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("x_train", "x_train"),
        ("X_Test", "x_test"),
        ("train_images", "x_train"),
        ("val_labels", "y_validation"),
        ("test-images", "x_test"),
        ("images", "x_train"),
        ("y", "y_train"),
        ("x_train_old", None),
        ("train", None),
        ("extra", None),
        ("train_x_y", None),
    ],
)
def test_usual_names(name, expected):
    assert role(name) == expected


def test_the_names_of_medmnist(tmp_path):
    parts = {"train": 6, "val": 3, "test": 4}
    arrays = {f"{part}_images": PIXELS[:n] for part, n in parts.items()}
    np.savez(tmp_path / "a.npz", **arrays, **{f"{part}_labels": LABELS[:n, None] for part, n in parts.items()})
    data = load_dataset(Npz(path=tmp_path / "a.npz"), SHAPE, 0)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [6, 3, 4]
    with pytest.raises(DataError) as caught:
        load_dataset(Npz(path=tmp_path / "a.npz", validation=0.1), SHAPE, 0)
    assert str(caught.value) == (
        f"npz {tmp_path}/a.npz: has a validation split of its own; leave out `data.validation`"
    )


def test_keys_name_the_arrays(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, pictures=PIXELS, species=LABELS, x_train=PIXELS[:2], train_images=PIXELS)
    keys = Keys(x_train="pictures", y_train="species")
    assert len(read_npz(path, keys=keys)[0]) == 6
    with pytest.raises(DataError) as caught:
        read_npz(path, keys=Keys(x_train="photos"))
    assert str(caught.value) == (
        f"{path}: has no array 'photos', which `data.keys` calls x_train; it has pictures, species, train_images, "
        "x_train"
    )
    np.savez(path, images=PIXELS, train_images=PIXELS, y_train=LABELS)
    with pytest.raises(DataError) as caught:
        read_npz(path)
    assert str(caught.value) == (
        f"{path}: images and train_images may all be x_train; say which, as with `data.keys: {{x_train: images}}`"
    )


def test_as_a_source(write, data_config):
    path = write()
    dataset = load_dataset(data_config("npz", path=path), SHAPE, seed=0)
    assert (dataset.name, dataset.classes, dataset.test) == (f"npz {path}", 3, None)


COMPLAINTS = {
    "one of a pair": (
        {"x_test": PIXELS},
        "has no y_test; expected the arrays x_train, y_train, x_test, y_test, found x_test, x_train, y_train",
    ),
    "objects": (
        {"y_train": np.array([0, 1, 2, 0, 1, "two"], object)},
        ": y_train: contains Python objects, which are never loaded; store numbers, or texts, as with y.astype(str)",
    ),
    "words as pixels": ({"x_train": np.array(list("abcabc"))}, ": x_train: has dtype <U1, expected numbers"),
    "words and numbers": (
        {"x_test": PIXELS, "y_train": np.array(list("abcabc")), "y_test": LABELS},
        "npz {path}: the labels of train and test differ in kind (text and int64); store both alike",
    ),
    "some words": (
        {"y_train": np.array(["0", "1", "two", "0", "1", "2"])},
        ": y_train: label 'two' of sample 2 is text, and others are numbers, such as '0'; if all are names, list them "
        "in `data.classes`",
    ),
    "rows of words": (
        {"y_train": np.array(list("abcabc")).reshape(6, 1, 1)},
        ": y_train: has shape [6, 1, 1], expected texts as (N,)",
    ),
    "complex": ({"x_train": PIXELS + 1j}, ": x_train: has dtype complex128, expected numbers"),
    "empty": ({"x_train": PIXELS[:0]}, ": x_train: is empty (shape [0, 2, 4, 5]); store at least one sample"),
    "counts": (
        {"y_train": LABELS[:5]},
        ": x_train has 6 images, but y_train has 5 labels; store one label for each image",
    ),
    "flat images": (
        {"x_train": PIXELS.reshape(6, 40)},
        ": x_train: has shape [6, 40], expected images as (N, H, W), (N, H, W, C) or (N, C, H, W); reshape these flat "
        "ones, as with x.reshape(-1, 2, 4, 5)",
    ),
    "two axes": (
        {"x_train": PIXELS.reshape(12, 20)},
        ": x_train: has shape [12, 20], expected images as (N, H, W), (N, H, W, C) or (N, C, H, W)",
    ),
    "images last, channels before": (
        {"x_train": PIXELS.transpose(2, 3, 1, 0)},
        ": x_train: shape [4, 5, 2, 6] looks like (H, W, C, N), expected the images on the first axis; transpose it, "
        "as with x.transpose(3, 0, 1, 2)",
    ),
    "images last, channels first": (
        {"x_train": PIXELS.transpose(1, 2, 3, 0)},
        ": x_train: shape [2, 4, 5, 6] looks like (C, H, W, N), expected the images on the first axis; transpose it, "
        "as with x.transpose(3, 0, 1, 2)",
    ),
    "minus one and one": (
        {"y_train": LABELS % 2 * 2 - 1},
        ": y_train: label 0 is -1, expected a class number; classes start at 0; write 0 for -1",
    ),
    "other size": (
        {"x_train": PIXELS[:, :, :3]},
        ": x_train: images are [2, 3, 5], but the config says [2, 4, 5]; write `model.input: [2, 3, 5]`",
    ),
    "other size, channels last": (
        {"x_train": np.zeros((6, 8, 9, 3), np.uint8)},
        ": x_train: images are [3, 8, 9], but the config says [2, 4, 5]; write `model.input: [3, 8, 9]`",
    ),
    "no channel axis": (
        {"x_train": PIXELS[:, 0]},
        ": x_train: images are [1, 4, 5], but the config says [2, 4, 5]; write `model.input: [1, 4, 5]`",
    ),
    "not finite": (
        {"x_train": np.where(np.arange(6)[:, None, None, None] == 4, np.inf, PIXELS)},
        ": x_train: image 4 has a pixel that is not finite; remove or replace it",
    ),
    "target not finite": (
        {"y_train": np.array([0, 1, np.nan, 3, 4, 5])},
        ": y_train: target 2 is not finite; remove or replace it",
    ),
    "target cubes": (
        {"y_train": np.zeros((6, 2, 2))},
        ": y_train: has shape [6, 2, 2], expected targets as (N,) or (N, K)",
    ),
    "several classes": (
        {"y_train": np.eye(6, 3, dtype=int)},
        ": y_train: has shape [6, 3], expected class numbers as (N,); "
        "store the class's number instead of several numbers in a row, or floats for regression",
    ),
    "negative label": (
        {"y_train": LABELS - 1},
        ": y_train: label 0 is -1, expected a class number; classes start at 0",
    ),
    "label beyond 64 bits": (
        {"y_train": np.array([0, 1, 2, 0, 1, 2**63], np.uint64)},
        ": y_train: label 5 is 9223372036854775808, expected a class number; classes start at 0",
    ),
    "bytes and floats": (
        {"x_test": PIXELS / 255, "y_test": LABELS},
        ": the images of train and test differ in kind (uint8 and float64); store both alike",
    ),
    "classes and targets": (
        {"x_test": PIXELS, "y_test": LABELS / 2},
        "npz {path}: the labels of train and test differ in kind (int64 and float64); store both alike",
    ),
}


@pytest.mark.parametrize("complaint", COMPLAINTS)
def test_complaint(write, complaint):
    arrays, expected = COMPLAINTS[complaint]
    path = write(**arrays)
    whole = expected if expected.startswith("npz") else f"{{path}}{expected if expected[0] == ':' else ': ' + expected}"
    assert message(path) == whole.replace("{path}", str(path))


def test_channels_that_could_be_anywhere(write):
    path = write(x_train=np.zeros((6, 3, 3, 3), np.uint8))
    assert message(path, (3, 3, 3)) == (
        f"{path}: x_train: shape [6, 3, 3, 3] may mean channels first or channels last; "
        "pad the images so that their sides differ from the number of channels"
    )


def test_missing_file(tmp_path):
    path = tmp_path / "no.npz"
    assert message(path) == f"{path}: does not exist; check the path (a relative one starts at the config's folder)"


def test_folder_in_place_of_a_file(tmp_path):
    assert message(tmp_path) == f"{tmp_path}: is a folder; `data.path` names a file"


def test_no_archive(tmp_path):
    path = tmp_path / "set.npz"
    path.write_bytes(pickle.dumps([1, 2]))
    assert message(path) == f"{path}: is not an npz archive, or a damaged one; write it again with numpy.savez"


def test_no_arrays(tmp_path):
    path = tmp_path / "set.npz"
    zipfile.ZipFile(path, "w").close()
    assert message(path) == (
        f"{path}: has no x_train and no y_train; expected the arrays x_train, y_train, x_test, y_test, found none"
    )


LIES = {
    "more than the member holds": npy_header("{'descr': '|u1', 'fortran_order': False, 'shape': (6, 2, 4, 5)}")
    + bytes(239),
    "less than the member holds": npy_header("{'descr': '|u1', 'fortran_order': False, 'shape': (6, 2, 4, 5)}")
    + bytes(241),
}


@pytest.mark.parametrize("lie", LIES)
def test_content_of_another_size(write_member, lie):
    path = write_member(LIES[lie])
    assert message(path) == (
        f"{path}: x_train: declares the shape [6, 2, 4, 5] of uint8, which is not what the file holds; "
        "write it again with numpy.savez"
    )


def test_absurd_shape(write_member):
    path = write_member(
        npy_header("{'descr': '<f8', 'fortran_order': False, 'shape': (99999999, 99999999)}") + bytes(80)
    )
    assert message(path) == (
        f"{path}: x_train: declares the shape [99999999, 99999999] of float64, which is not what the file holds; "
        "write it again with numpy.savez"
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        b"no array at all",
        npy_header("{'descr': '|u1', 'fortran_order': False, 'shape': (-6, 2, 4, 5)}"),
        npy_header("{'descr': '|u1', 'fortran_order': False, 'shape': (True, 'x')}"),
        npy_header("{'descr': 'rubbish', 'fortran_order': False, 'shape': (6,)}"),
        npy_header("__import__('os').abort()"),
        npy_header("(" * 9000),
        npy_header("{'descr': '|u1', 'fortran_order': False, 'shape': (6,)}", version=3),
        b"\x93NUMPY\2\0" + struct.pack("<I", 2**32 - 1) + bytes(30_000_000),
    ],
)
def test_header_that_is_none(write_member, content):
    path = write_member(content)
    assert message(path) == f"{path}: x_train: is not a NumPy array; write it again with numpy.savez"


def test_second_header_version(write_member):
    path = write_member(
        npy_header("{'descr': '|u1', 'fortran_order': False, 'shape': (6, 2, 4, 5)}", version=2) + PIXELS.tobytes()
    )
    train, _ = read_npz(path, SHAPE)
    np.testing.assert_array_equal(train.images, PIXELS)


def test_members_that_are_no_npy_files_are_not_arrays(tmp_path):
    path = tmp_path / "set.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x_train", b"")
        archive.writestr("y_train.npy", b"")
    assert message(path) == (
        f"{path}: has no x_train; expected the arrays x_train, y_train, x_test, y_test, found y_train"
    )


def test_archive_names_with_paths_are_not_arrays(tmp_path):
    path = tmp_path / "set.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../x_train.npy", b"")
    assert message(path) == (
        f"{path}: has no x_train and no y_train; expected the arrays x_train, y_train, x_test, y_test, "
        "found ../../x_train; `data.keys` says what is what, as with `data.keys: {x_train: ../../x_train}`"
    )
    assert [entry.name for entry in tmp_path.iterdir()] == ["set.npz"]


@given(st.data(), st.booleans())
def test_random_damage_is_a_complaint_or_harmless(tmp_path_factory, data, packed):
    buffer = BytesIO()
    (np.savez_compressed if packed else np.savez)(buffer, x_train=PIXELS, y_train=LABELS)
    content = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))]))
    complaint = None
    try:
        train, _ = read_npz(path, SHAPE)
    except DataError as error:
        complaint = str(error)
    assert train.images.shape == PIXELS.shape if complaint is None else complaint.startswith(f"{path}: ")
