"""CIFAR-10 and SVHN, in small: archives of the same form, from a server on this machine."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.mat_bytes import compressed, header, matrix
from data.servers import serving

from cnnbp_cli.data.download import Ready
from cnnbp_cli.data.errors import DataError
from cnnbp_cli.data.fetch import PUBLISHED_SETS, fetch
from cnnbp_cli.data.npz import read_npz
from cnnbp_cli.data.repacked import REPACKED_SETS, RepackedSet

TRAIN, TEST = 10, 4
rng = np.random.default_rng(0)
IMAGES = rng.integers(0, 256, (TRAIN + TEST, 3, 32, 32), np.uint8)
LABELS = np.arange(TRAIN + TEST, dtype=np.uint8) % 10
CIFAR10, SVHN = "cifar-10-binary.tar.gz", ("train_32x32.mat", "test_32x32.mat")


def cifar10_members() -> dict[str, bytes]:
    records = [bytes([label]) + image.tobytes() for label, image in zip(LABELS, IMAGES, strict=True)]
    each = TRAIN // 5
    batches = {f"data_batch_{k + 1}.bin": b"".join(records[k * each : k * each + each]) for k in range(5)}
    others = {"batches.meta.txt": b"airplane\n", "readme.html": b"<html>"}
    return others | {"test_batch.bin": b"".join(records[TRAIN:])} | batches


def tar_gz(members: dict[str, bytes], folder: str = "cifar-10-batches-bin") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in {
            "../../evil": b"x",
            **{f"{folder}/{name}": each for name, each in members.items()},
        }.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def mat(images: np.ndarray, labels: np.ndarray, **names: str) -> bytes:
    """As published: X is (H, W, C, N), y a column of doubles in bytes, and 10 stands for the digit 0."""
    x = matrix(names.get("x", "X"), images.transpose(2, 3, 1, 0))
    return header() + compressed(x) + compressed(matrix("y", labels[:, None], mat_class=6))


TENS = np.where(LABELS == 0, 10, LABELS).astype(np.uint8)
FILES = {
    CIFAR10: tar_gz(cifar10_members()),
    SVHN[0]: mat(IMAGES[:TRAIN], TENS[:TRAIN]),
    SVHN[1]: mat(IMAGES[TRAIN:], TENS[TRAIN:]),
}


@pytest.fixture
def server(no_proxies: None) -> Iterator[Any]:
    with serving(FILES) as server:
        yield server


def small(name: str, server: Any) -> RepackedSet:
    """The set, with the counts and digests of what the server has."""
    whole = REPACKED_SETS[name]
    originals = tuple(
        replace(each, md5=hashlib.md5(server.files[each.name], usedforsecurity=False).hexdigest(), largest=10**6)
        for each in whole.originals
    )
    return replace(whole, addresses=(server.url,), counts=(TRAIN, TEST), originals=originals)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refused(source: RepackedSet, folder: Path) -> str:
    """Fetch what cannot be fetched: nothing is left, and the message is returned."""
    with pytest.raises(DataError) as caught:
        list(fetch(source, folder))
    assert not folder.exists()
    return str(caught.value).replace(source.addresses[0], "URL")


@pytest.mark.parametrize("name", REPACKED_SETS)
def test_brings_a_set_that_can_be_read(name, server, tmp_path):
    source = small(name, server)
    (ready,) = [event for event in fetch(source, tmp_path / "set") if isinstance(event, Ready)]
    path = tmp_path / "set" / f"{name}.npz"
    assert ready == Ready(path, path.stat().st_size, True, "md5 of what was published")
    assert names(tmp_path / "set") == [f"{name}.npz"]
    assert names(tmp_path) == ["set"]
    found = read_npz(path, (3, 32, 32))
    assert found.test is not None
    for split, rows in ((found.train, slice(0, TRAIN)), (found.test, slice(TRAIN, None))):
        np.testing.assert_array_equal(split.images, IMAGES[rows])
        np.testing.assert_array_equal(split.labels, LABELS[rows])
        assert split.images.dtype == split.labels.dtype == np.uint8
    server.requests.clear()
    (again,) = fetch(source, tmp_path / "set")
    assert again == Ready(path, path.stat().st_size, False, "shapes and checksums within it")
    assert server.requests == []


@pytest.mark.parametrize(("name", "file"), [("cifar10", CIFAR10), ("svhn", SVHN[1])])
def test_a_later_call_goes_on(name, file, server, tmp_path):
    """The connection breaks twice; of SVHN, the file for training had come whole."""
    answers = [1000, 0]
    server.trouble = lambda handler, asked: (
        asked == file and bool(answers) and handler.serve(FILES[file], answers.pop(0)) is None
    )
    source = small(name, server)
    with pytest.raises(DataError, match="the 1,000 bytes received are kept; the same command continues"):
        list(fetch(source, tmp_path))
    assert f"{file}.part" in names(tmp_path)
    assert f"{name}.npz" not in names(tmp_path)
    server.requests.clear()
    list(fetch(source, tmp_path))
    assert (file, "bytes=1000-") in server.requests
    assert all(asked for _, asked in server.requests)  # nothing from its start
    assert names(tmp_path) == [f"{name}.npz"]


@pytest.mark.parametrize(("name", "file"), [("cifar10", CIFAR10), ("svhn", SVHN[0])])
def test_a_wrong_checksum(name, file, server, tmp_path):
    source = small(name, server)
    expected = source.originals[0].md5
    wrong = server.files[file] = FILES[file][:-1] + b"?"
    found = hashlib.md5(wrong, usedforsecurity=False).hexdigest()
    assert refused(source, tmp_path / "set") == (
        f"URL/{file}: the md5 of the file is {found}, expected {expected}; try another address with --mirror"
    )


MEMBERS = cifar10_members()
FOLDER = "cifar-10-batches-bin"
DAMAGED = {
    ": is not a tar.gz archive, or a damaged one": b"<html>",
    ": is not a tar.gz archive, or a damaged one ": FILES[CIFAR10][:-5000],
    ": is not a tar.gz archive, or a damaged one  ": gzip.compress(b"x" * 2000),
    f": has no {FOLDER}/data_batch_1.bin": tar_gz(MEMBERS, "elsewhere"),
    f": has no {FOLDER}/test_batch.bin": tar_gz({k: v for k, v in MEMBERS.items() if k != "test_batch.bin"}),
    f": {FOLDER}/data_batch_3.bin: has 6,147 bytes, expected 2 records of 3,073": tar_gz(
        MEMBERS | {"data_batch_3.bin": MEMBERS["data_batch_3.bin"] + b"x"}
    ),
    f": {FOLDER}/test_batch.bin: has 0 bytes, expected 4 records of 3,073": tar_gz(MEMBERS | {"test_batch.bin": b""}),
    f": {FOLDER}/data_batch_1.bin: label 10 of sample 0 is not one from 0 to 9": tar_gz(
        MEMBERS | {"data_batch_1.bin": b"\x0a" + MEMBERS["data_batch_1.bin"][1:]}
    ),
}


@pytest.mark.parametrize("problem", DAMAGED)
def test_an_archive_that_is_not_what_it_should_be(problem, server, tmp_path):
    server.files[CIFAR10] = DAMAGED[problem]
    assert refused(small("cifar10", server), tmp_path / "set") == (
        f"{CIFAR10}{problem.rstrip()}; nothing of it is kept: fetch it again"
    )


def test_a_member_that_is_a_link(server, tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        member = tarfile.TarInfo(f"{FOLDER}/data_batch_1.bin")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(member)
    server.files[CIFAR10] = buffer.getvalue()
    assert "data_batch_1.bin: has 0 bytes, expected" in refused(small("cifar10", server), tmp_path / "set")


X, Y = IMAGES[TRAIN:], TENS[TRAIN:]
DAMAGED_MATS = {
    ": is not a MAT-file of version 5": b"<html>",
    ": has no array X": mat(X, Y, x="Z"),
    ": X has 32 × 32 × 3 × 3 values, expected 32 × 32 × 3 × 4": mat(X[1:], Y),
    ": y has 3 × 1 values, expected 4 × 1": mat(X, Y[1:]),
    ": an array takes more than 12,288 bytes": mat(IMAGES, TENS),
    ": X has values of int8, expected uint8": mat(X.view(np.int8), Y),
    ": y: label 0 of sample 2 is not one from 1 to 10": mat(X, np.array([1, 2, 0, 3], np.uint8)),
    ": y: label 1.5 of sample 0 is not one from 1 to 10": mat(X, np.array([1.5, 2, 0, 3])),
}


@pytest.mark.parametrize("problem", DAMAGED_MATS)
def test_a_mat_file_that_is_not_what_it_should_be(problem, server, tmp_path):
    server.files[SVHN[1]] = DAMAGED_MATS[problem]
    assert refused(small("svhn", server), tmp_path / "set") == (
        f"{SVHN[1]}{problem}; nothing of it is kept: fetch it again"
    )


def test_a_file_that_was_there_is_left_alone(server, tmp_path):
    source, path = small("cifar10", server), tmp_path / "cifar10.npz"
    list(fetch(source, tmp_path))
    with pytest.raises(DataError) as caught:
        list(fetch(replace(source, counts=(TRAIN, 5)), tmp_path))
    kept = "it was there before and is not replaced: remove it, or name another folder"
    assert str(caught.value) == f"{path}: contains 10 + 4 images, expected 10 + 5; {kept}"
    content = bytearray(path.read_bytes())
    content[5000] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"a damaged one; .*; {kept}"):
        list(fetch(source, tmp_path))
    assert path.read_bytes() == content
    assert server.requests == [(CIFAR10, None)]


def test_a_disk_that_fills_up(server, tmp_path):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit = len(FILES[CIFAR10]) + 100  # the archive fits, its content does not
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(DataError, match=r"cannot be written \(File too large\)"):
            list(fetch(small("cifar10", server), tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == [f"{CIFAR10}.part"]
    list(fetch(small("cifar10", server), tmp_path))  # with room again, it goes on
    assert names(tmp_path) == ["cifar10.npz"]


def test_the_sets():
    assert {name: PUBLISHED_SETS[name] for name in REPACKED_SETS} == REPACKED_SETS
    for name, source in REPACKED_SETS.items():
        assert (source.name, source.input, source.classes) == (name, (3, 32, 32), 10)
        assert all(len(bytes.fromhex(each.md5)) == 16 for each in source.originals)
    assert sorted(REPACKED_SETS["cifar10"].class_names) == list(REPACKED_SETS["cifar10"].class_names)
