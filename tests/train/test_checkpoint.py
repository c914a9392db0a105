"""Checkpoints: what is written is read back to the bit, and whatever is damaged or foreign is refused."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile

import numpy as np
import pytest

from cnnbp_cli.train.checkpoint import DIGEST, Checkpoint, CheckpointError


@pytest.fixture
def checkpoint():
    rng = np.random.default_rng(0)
    return Checkpoint(
        config="name: toy\n",
        progress={"step": 3, "loss_sum": 0.1, "history": [{"train_loss": float("nan")}], "best": None},
        normalization={"kind": "standard", "mean": [33.1], "std": [78.5]},
        parameters={"conv.weight": rng.normal(size=(2, 1, 3, 3)).astype(np.float32), "a.b.bias": rng.normal(size=5)},
        optimizer={"momentum": rng.normal(size=23).astype(np.float32)},
    )


@pytest.fixture
def path(tmp_path, checkpoint):
    path = tmp_path / "step-00000003.npz"
    checkpoint.save(path)
    return path


def assert_equal(one, two):
    assert json.dumps([one.config, one.progress, one.normalization]) == json.dumps(
        [two.config, two.progress, two.normalization]
    )
    for mine, yours in ((one.parameters, two.parameters), (one.optimizer, two.optimizer)):
        assert list(mine) == list(yours)
        for name, value in mine.items():
            assert value.dtype == yours[name].dtype
            np.testing.assert_array_equal(value, yours[name])


def rewrite(path, **changes):
    """Write the file again with other members; None drops one."""
    with np.load(path) as old:
        members = dict(old)
    np.savez(path, **{name: value for name, value in (members | changes).items() if value is not None})


def with_header(path, **changes):
    with np.load(path) as old:
        header = json.loads(old["header"].tobytes())
    rewrite(path, header=np.frombuffer(json.dumps(header | changes).encode(), np.uint8))
    seal(path)


def seal(path):
    """Give the file a digest that is right."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = bytes(DIGEST)
    content = path.read_bytes()[:-DIGEST]
    path.write_bytes(content + hashlib.sha256(content).hexdigest().encode())


def refusal(path):
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.read(path)
    return str(caught.value)


def test_round_trip(checkpoint, path):
    assert_equal(Checkpoint.read(path), checkpoint)


def test_same_content_same_bytes(checkpoint, path, tmp_path):
    checkpoint.save(tmp_path / "again.npz")
    with zipfile.ZipFile(path) as one, zipfile.ZipFile(tmp_path / "again.npz") as two:
        assert one.namelist() == two.namelist()
        assert all(one.read(name) == two.read(name) for name in one.namelist())


def test_holds_plain_arrays_that_numpy_reads_without_pickles(path):
    with np.load(path, allow_pickle=False) as archive:
        assert sorted(archive) == ["header", "optimizer/momentum", "parameters/a.b.bias", "parameters/conv.weight"]
        header = json.loads(archive["header"].tobytes())
    both = ["normalization", "target_normalization"]
    assert sorted(header) == sorted(["classes", "config", "data", "format", "progress", *both])
    assert header["format"] == 2


def test_saving_replaces_and_leaves_nothing_else(checkpoint, path):
    checkpoint.save(path)
    assert os.listdir(path.parent) == [path.name]


def test_a_folder_that_cannot_be_written(checkpoint, tmp_path):
    path = tmp_path / "missing" / "a.npz"
    with pytest.raises(CheckpointError) as caught:
        checkpoint.save(path)
    assert str(caught.value) == (
        f"{path}: the checkpoint cannot be written: No such file or directory; earlier ones are intact"
    )


def test_a_full_disk_leaves_the_old_checkpoint(checkpoint, path, monkeypatch):
    before = path.read_bytes()

    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.save(path)
    assert str(caught.value) == (
        f"{path}: the checkpoint cannot be written: No space left on device; earlier ones are intact"
    )
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_a_missing_file(tmp_path):
    assert refusal(tmp_path / "a.npz") == f"{tmp_path / 'a.npz'}: there is no such file"


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04" + bytes(100)])
def test_a_file_of_something_else(path, content):
    path.write_bytes(content)
    assert refusal(path) == f"{path}: is not an npz archive, or a damaged one"


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_file(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert refusal(path) == f"{path}: is not an npz archive, or a damaged one"


def test_a_file_without_its_last_byte(path):
    path.write_bytes(path.read_bytes()[:-1])
    assert refusal(path).startswith(f"{path}: ")


def test_any_flipped_bit_is_noticed(path):
    content = path.read_bytes()
    for place in range(0, len(content), 3):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        assert refusal(path).startswith(f"{path}: ")


def test_a_flipped_bit_in_the_values(path):
    content = bytearray(path.read_bytes())
    with np.load(path) as archive:
        place = content.find(archive["optimizer/momentum"].tobytes())
    content[place] ^= 1
    path.write_bytes(content)
    assert refusal(path) == f"{path}: is not an npz archive, or a damaged one"


def test_values_that_somebody_changed(path):
    rewrite(path, **{"parameters/conv.weight": np.zeros((2, 1, 3, 3), np.float32)})
    assert refusal(path) == f"{path}: the checkpoint is damaged: its digest does not match; use an earlier one"


def test_values_that_somebody_removed(path):
    rewrite(path, **{"parameters/conv.weight": None})
    assert refusal(path) == f"{path}: the checkpoint is damaged: its digest does not match; use an earlier one"


def test_pickled_objects_are_never_loaded(path):
    rewrite(path, **{"parameters/conv.weight": np.array([{"a": 1}], object)})
    assert refusal(path) == (
        f"{path}: parameters/conv.weight: contains Python objects, which are never loaded; store numbers"
    )


def test_another_format(path):
    with_header(path, format=1)
    assert refusal(path) == f"{path}: is a checkpoint of format 1, this version reads format 2"


def test_an_archive_of_something_else(tmp_path):
    path = tmp_path / "images.npz"
    np.savez(path, x_train=np.zeros((3, 28, 28)), y_train=np.zeros(3))
    assert refusal(path) == f"{path}: is not a checkpoint of cnnbp"


@pytest.mark.parametrize(
    "header", [b"{}", b"[]", b"3", b"not json", b"\xff\xfe", b"[" * 100_000, b'{"format": 2, "config": 0}']
)
def test_a_header_of_something_else(path, header):
    rewrite(path, header=np.frombuffer(header, np.uint8))
    assert refusal(path) in (
        f"{path}: is not a checkpoint of cnnbp",
        f"{path}: the checkpoint is damaged: its digest does not match; use an earlier one",
    )


@pytest.mark.parametrize("changes", [{"config": 5}, {"progress": [1]}, {"normalization": None, "config": None}])
def test_a_header_with_values_of_the_wrong_kind(path, changes):
    with_header(path, **changes)
    assert refusal(path) == f"{path}: is not a checkpoint of cnnbp"


def test_arrays_of_no_known_group(path):
    rewrite(path, other=np.zeros(3))
    assert refusal(path) == f"{path}: the checkpoint is damaged: its digest does not match; use an earlier one"
