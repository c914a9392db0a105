"""The way from the config to splits: embedded subset, caps, hold-out, labels, start-up."""

import subprocess
import sys
from importlib.resources import files

import numpy as np
import pytest

from cnnbp_cli.config.schema import Limit
from cnnbp_cli.data import dataset as dataset_module
from cnnbp_cli.data.dataset import DataError, Dataset, Normalization, Split, check_labels, load_dataset
from cnnbp_cli.errors import UserError

MNIST_INPUT = (1, 28, 28)


@pytest.fixture
def sorted_npz(tmp_path):
    """Write 60 samples sorted by class (30, 20 and 10 of them), each image filled with its number."""
    path = tmp_path / "sorted.npz"
    images = np.broadcast_to(np.arange(60, dtype=np.uint8)[:, None, None], (60, 2, 2))
    np.savez(path, x_train=images, y_train=np.repeat([0, 1, 2], [30, 20, 10]))
    return path


def samples(split):
    """Return the numbers that the images of `sorted_npz` are filled with."""
    return split.images[:, 0, 0, 0].tolist()


def load_sorted(data_config, path, seed=0, **fields):
    return load_dataset(data_config("npz", path=path, **fields), (1, 2, 2), seed)


def test_embedded_subset(data_config):
    dataset = load_dataset(data_config("mnist-subset"), MNIST_INPUT, seed=0)
    assert dataset.train.images.shape == (6000, 1, 28, 28)
    assert dataset.test.images.shape == (1000, 1, 28, 28)
    assert np.bincount(dataset.train.labels).tolist() == [600] * 10
    assert np.bincount(dataset.test.labels).tolist() == [100] * 10
    assert (dataset.validation, dataset.classes, dataset.name) == (None, 10, "mnist-subset")
    np.testing.assert_allclose(dataset.normalization.mean, dataset.train.images.mean())
    np.testing.assert_allclose(dataset.normalization.std, dataset.train.images.std())


def test_embedded_subset_names_its_authors_and_licence():
    notice = (files("cnnbp_cli.data") / "mnist_subset" / "NOTICE").read_text()
    assert "by Yann LeCun, Corinna Cortes and Christopher J. C. Burges" in notice
    assert "https://creativecommons.org/licenses/by-sa/3.0/" in notice


def test_embedded_subset_does_not_fit_other_inputs(data_config):
    with pytest.raises(DataError) as caught:
        load_dataset(data_config("mnist-subset"), (3, 32, 32), seed=0)
    assert str(caught.value).endswith(
        "train-images-idx3-ubyte.gz: images are [1, 28, 28], but the config says [3, 32, 32]; "
        "write `model.input: [1, 28, 28]`"
    )


@pytest.mark.parametrize(("amount", "count"), [(0.1, 6), (0.001, 1), (12, 12), (59, 59)])
def test_validation_is_held_out(data_config, sorted_npz, amount, count):
    dataset = load_sorted(data_config, sorted_npz, validation=amount)
    assert len(dataset.validation) == count
    assert sorted(samples(dataset.train) + samples(dataset.validation)) == list(range(60))
    assert samples(dataset.train) == sorted(samples(dataset.train))


def test_validation_has_the_proportions_of_the_whole(data_config, sorted_npz):
    dataset = load_sorted(data_config, sorted_npz, validation=0.2)
    assert np.bincount(dataset.validation.labels).tolist() == [6, 4, 2]


def test_validation_depends_on_the_seed(data_config, sorted_npz):
    first, again, other = (
        samples(load_sorted(data_config, sorted_npz, s, validation=12).validation) for s in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_normalization_is_measured_without_the_validation_samples(data_config, sorted_npz):
    dataset = load_sorted(data_config, sorted_npz, validation=30)
    assert dataset.normalization == Normalization.fit("standard", dataset.train.images)


@pytest.mark.parametrize(("amount", "count"), [(60, 60), (100, 100), (0.999, 60)])
def test_validation_leaves_something(data_config, sorted_npz, amount, count):
    with pytest.raises(DataError) as caught:
        load_sorted(data_config, sorted_npz, validation=amount)
    assert str(caught.value) == (
        f"data.validation: {amount} holds out {count} of 60 training images; leave at least one to train on"
    )


def test_limit_keeps_the_first_of_each_class(data_config, sorted_npz):
    dataset = load_sorted(data_config, sorted_npz, limit=Limit(train=6, test=None))
    assert samples(dataset.train) == [0, 1, 2, 30, 31, 50]
    assert dataset.classes == 3


def test_limit_beyond_the_split_changes_nothing(data_config, sorted_npz):
    dataset = load_sorted(data_config, sorted_npz, limit=Limit(train=100, test=10))
    assert samples(dataset.train) == list(range(60))


def test_limit_comes_before_the_hold_out(data_config):
    limit = Limit(train=1000, test=50)
    dataset = load_dataset(data_config("mnist-subset", limit=limit, validation=0.1), MNIST_INPUT, seed=0)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (900, 100, 50)


def test_more_than_the_memory_holds(data_config, monkeypatch):
    def exhausted(*_):
        raise MemoryError

    monkeypatch.setattr(dataset_module, "_read_source", exhausted)
    with pytest.raises(DataError) as caught:
        load_dataset(data_config("mnist-subset"), MNIST_INPUT, seed=0)
    assert str(caught.value) == "data: does not fit into memory; use a smaller set"


def build(train_labels, test_labels=(0,)):
    train, test = (
        Split(np.zeros((len(labels), 1, 2, 2), np.uint8), np.array(labels)) for labels in (train_labels, test_labels)
    )
    return Dataset(train, None, test, Normalization("none", (0.0,), (1.0,)), None, "idx letters")


def test_labels_within_the_classes():
    check_labels(build([0, 1, 2]), 3)


def test_targets_are_not_labels():
    check_labels(build([0.5, 7.5], [9.5]), 1)


@pytest.mark.parametrize(
    ("train", "test", "expected"),
    [
        (
            [0, 1, 2, 3],
            [0],
            "label 2 of sample 2 in the train split is outside the model's 2 classes (0 to 1); "
            "give the last layer 4 units or more",
        ),
        (
            [0, 1],
            [1, 26],
            "label 26 of sample 1 in the test split is outside the model's 2 classes (0 to 1); "
            "give the last layer 27 units or more",
        ),
        (
            [0, -1],
            [0],
            "label -1 of sample 1 in the train split is outside the model's 2 classes (0 to 1); the labels are -1, 0: "
            "number them from 0, as with np.unique(y, return_inverse=True)[1]",
        ),
        (
            [-1, 0, 1],
            [0],
            "label -1 of sample 0 in the train split is outside the model's 2 classes (0 to 1); labels start at 0",
        ),
        (
            [1, 2],
            [2],
            "label 2 of sample 1 in the train split is outside the model's 2 classes (0 to 1); do labels start at 1? "
            "write `data.first_label: 1`, or give the last layer 3 units",
        ),
        (
            [97, 98],
            [98],
            "label 97 of sample 0 in the train split is outside the model's 2 classes (0 to 1); do labels start at 97? "
            "write `data.first_label: 97`",
        ),
        (
            [0, 10],
            [0],
            "label 10 of sample 1 in the train split is outside the model's 2 classes (0 to 1); the labels are 0, 10: "
            "number them from 0, as with np.unique(y, return_inverse=True)[1]",
        ),
    ],
)
def test_labels_outside_the_classes(train, test, expected):
    with pytest.raises(UserError) as caught:
        check_labels(build(train, test), 2)
    assert str(caught.value) == f"idx letters: {expected}"


def test_what_looks_like_a_mistake_is_remarked(tmp_path, data_config):
    images = np.zeros((4, 1, 2), np.uint8)
    np.savez(tmp_path / "one.npz", x_train=images, y_train=[3, 3, 3, 3])
    np.savez(tmp_path / "rows.npz", x_train=images, y_train=np.eye(4)[[0, 1, 1, 3]])
    np.savez(tmp_path / "soft.npz", x_train=images, y_train=np.full((4, 2), 0.5))
    (tmp_path / "one.csv").write_text("0,0,7\n0,9,1\n")
    remarks = {
        name: load_dataset(data_config(name.rpartition(".")[2], path=tmp_path / name), (1, 1, 2), seed=0).remarks
        for name in ("one.npz", "one.csv", "rows.npz", "soft.npz")
    }
    assert remarks == {
        "one.npz": (f"npz {tmp_path}/one.npz: all 4 training labels are 3, so that there is nothing to learn",),
        "one.csv": (
            f"csv {tmp_path}/one.csv: all 2 training labels are 0, so that there is nothing to learn; is the label in "
            "another column? `data.label` says which it is",
        ),
        "rows.npz": (
            f"npz {tmp_path}/rows.npz: one-hot rows are taken as targets, so that there is no accuracy; for a head "
            "softmax or sigmoid they are the numbers of the classes",
        ),
        "soft.npz": (),
    }


def test_import_is_light():
    code = (
        "import sys, cnnbp_cli.data.dataset, cnnbp_cli.data.batches; print(*sorted({*sys.modules} & {*sys.argv[1:]}))"
    )
    heavy = ["pydantic", "yaml", "rich", "typer", "zipfile", "cnnbp_cli.data.npz", "cnnbp_cli.data.synthetic"]
    run = subprocess.run([sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""
