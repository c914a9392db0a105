"""Public data sets from where they are published: under a file's name stands all of it, verified, or nothing.

What arrives goes into `NAME.part`, which a later call continues. It gets its name when its *uncompressed* content has
the digest that is known for it, for mirrors pack the same data differently.

References
----------
MNIST and Fashion-MNIST: md5 of the uncompressed files. KMNIST: md5 of the files as the CODH packs them, and EMNIST: md5
of the archive, both as in torchvision's `datasets/mnist.py`; besides, header and size of each file.
EMNIST's counts: Cohen et al. 2017, arXiv:1702.05373, table II, those of `letters` from the published files.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cnnbp_cli.core.types import Shape
from cnnbp_cli.data.download import (
    READ_SIZE,
    TIMEOUT,
    Event,
    Ready,
    compare,
    file_md5,
    new_md5,
    part_of,
    put_in_place,
    receive,
)
from cnnbp_cli.data.errors import DataError
from cnnbp_cli.data.idx import FILE_NAME, open_idx
from cnnbp_cli.data.repacked import REPACKED_SETS, RepackedSet, fetch_repacked


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """One IDX file of a set.

    Attributes
    ----------
    name : str
        As it is published, compressed.
    shape : tuple of int
        What its header has to declare.
    content_md5, packed_md5 : str
        Of the uncompressed content, header included, and of the file as published; empty where nobody says it.
    """

    name: str
    shape: Shape
    content_md5: str = ""
    packed_md5: str = ""

    @property
    def largest(self) -> int:
        """More bytes than it could take in any packing."""
        return prod(self.shape) * 11 // 10 + READ_SIZE


@dataclass(frozen=True, slots=True)
class PublishedArchive:
    """A ZIP file that all splits of a set are published in, its members below `folder`."""

    name: str
    folder: str
    md5: str
    largest: int


@dataclass(frozen=True, slots=True)
class PublishedSet:
    """A set, and where it is to be had: the addresses are tried in turn."""

    name: str
    addresses: tuple[str, ...]
    classes: int
    files: tuple[PublishedFile, ...]
    archive: PublishedArchive | None = None

    @property
    def input(self) -> Shape:
        """The config's `model.input`."""
        return (1, *self.files[0].shape[1:])

    def section(self, folder: Path) -> dict[str, Any]:
        """Return the config's `data` that reads it."""
        return {"source": "idx", "path": str(folder)}


def _four(
    prefix: str = "",
    test: str = "t10k",
    counts: tuple[int, int] = (60_000, 10_000),
    content: Sequence[str] = ("",) * 4,
    packed: Sequence[str] = ("",) * 4,
) -> tuple[PublishedFile, ...]:
    """Return the four files of 28×28 images: training images and labels, test images and labels."""
    names = [f"{prefix}{split}-{kind}-ubyte.gz" for split in ("train", test) for kind in ("images-idx3", "labels-idx1")]
    shapes = [shape for count in counts for shape in ((count, 28, 28), (count,))]
    return tuple(PublishedFile(*fields) for fields in zip(names, shapes, content, packed, strict=True))


PUBLISHED_SETS: dict[str, PublishedSet | RepackedSet] = {
    "mnist": PublishedSet(
        "mnist",
        ("https://ossci-datasets.s3.amazonaws.com/mnist", "https://storage.googleapis.com/cvdf-datasets/mnist"),
        10,
        _four(
            content=(
                "6bbc9ace898e44ae57da46a324031adb",
                "a25bea736e30d166cdddb491f175f624",
                "2646ac647ad5339dbf082846283269ea",
                "27ae3e4e09519cfbb04c329615203637",
            )
        ),
    ),
    "fashion-mnist": PublishedSet(
        "fashion-mnist",
        ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",),
        10,
        _four(
            content=(
                "f4a8712d7a061bf5bd6d2ca38dc4d50a",
                "9018921c3c673c538a1fc5bad174d6f9",
                "8181f5470baa50b63fa0f6fddb340f0a",
                "15d484375f8d13e6eb1aabb0c3f46965",
            )
        ),
    ),
    "kmnist": PublishedSet(
        "kmnist",
        ("https://codh.rois.ac.jp/kmnist/dataset/kmnist", "http://codh.rois.ac.jp/kmnist/dataset/kmnist"),
        10,
        _four(
            packed=(
                "bdb82020997e1d708af4cf47b453dcf7",
                "e144d726b3acfaa3e44228e80efcd344",
                "5c965bf0a639b31b8f53240b1b52f4d7",
                "7320c461ea6c1c855c0b718fb2a4b134",
            )
        ),
    ),
    **REPACKED_SETS,
}

EMNIST_SPLITS = {
    "byclass": (62, (697_932, 116_323)),
    "bymerge": (47, (697_932, 116_323)),
    "balanced": (47, (112_800, 18_800)),
    "letters": (27, (124_800, 20_800)),  # labeled from 1 to 26
    "digits": (10, (240_000, 40_000)),
    "mnist": (10, (60_000, 10_000)),
}
"""Classes, and how many images there are to train and to test."""

for _split, (_classes, _counts) in EMNIST_SPLITS.items():
    PUBLISHED_SETS[f"emnist-{_split}"] = PublishedSet(
        f"emnist-{_split}",
        ("https://biometrics.nist.gov/cs_links/EMNIST", "https://www.itl.nist.gov/iaui/vip/cs_links/EMNIST"),
        _classes,
        _four(f"emnist-{_split}-", "test", _counts),
        PublishedArchive("gzip.zip", "gzip", "58c8d27c78d21e728a6bc7b3cc06412e", 700_000_000),
    )


def fetch(
    source: PublishedSet | RepackedSet, folder: Path, mirror: str | None = None, *, timeout: float = TIMEOUT
) -> Iterator[Event]:
    """Yield what happens until all files of a set are in a folder, the `Ready` of each among it.

    Parameters
    ----------
    source : PublishedSet or RepackedSet
    folder : Path
        Made where it is missing. Files that are there and right are not fetched again.
    mirror : str, optional
        An address in place of those of the set: of the folder that has the files.
    timeout : float
        Seconds without a byte after which a server is given up.

    Raises
    ------
    DataError
        When a file cannot be had from any address, is not what it should be, or cannot be written; or when the
        folder has something else under its name, which is left alone.
    """
    addresses = source.addresses if mirror is None else (_checked(mirror),)
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(source, RepackedSet):
            yield from fetch_repacked(source, folder, addresses, timeout)
        else:
            yield from _fetch_idx(source, folder, addresses, timeout)
    except OSError as error:
        where = error.filename or folder
        raise DataError(f"{where}: cannot be written ({error.strerror or error}); name another folder") from None
    finally:
        if is_new and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _fetch_idx(source: PublishedSet, folder: Path, addresses: Sequence[str], timeout: float) -> Iterator[Event]:
    missing: list[PublishedFile] = []
    for file in source.files:
        if present := _present(folder, file):
            yield present
        else:
            missing.append(file)
    if missing:
        _refuse_other_sets(folder, source)
    if missing and source.archive:
        yield from _fetch_archive(source.archive, missing, folder, addresses, timeout)
    else:
        for file in missing:
            yield from _fetch_file(file, folder, addresses, timeout)


def _checked(mirror: str) -> str:
    try:
        parts = urlsplit(mirror)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.netloc or not mirror.isascii() or " " in mirror:
        raise DataError(f"--mirror: expected an address like https://example.org/mnist, got {mirror!r}")
    return mirror


def _refuse_other_sets(folder: Path, source: PublishedSet) -> None:
    """Complain about files of another set, whose names differ: a folder with two sets cannot be read."""
    own = {FILE_NAME.fullmatch(file.name)[1] for file in source.files}  # type: ignore[index]
    for path in sorted(folder.iterdir()):
        if (match := FILE_NAME.fullmatch(path.name)) and match[1] not in own:
            raise DataError(f"{path}: belongs to another set; give each set its own folder")


def _present(folder: Path, file: PublishedFile) -> Ready | None:
    """Return the file that is there already: plain, as the reader prefers it, or packed."""
    for path in (folder / file.name.removesuffix(".gz"), folder / file.name):
        if path.exists():
            try:
                return Ready(path, path.stat().st_size, False, verify(path, file))
            except DataError as error:
                raise DataError(
                    f"{error}; it was there before and is not replaced: remove it, or name another folder"
                ) from None
    return None


def verify(path: Path, file: PublishedFile) -> str:
    """Compare a file with all that is known about it, and say what that was.

    Raises
    ------
    DataError
        When it differs. At most the bytes that `file.shape` stands for are decompressed.
    """
    axes = len(file.shape)
    with open_idx(path, axes) as found:
        if found.shape != file.shape:
            shown = [" × ".join(f"{size:,}" for size in shape) for shape in (found.shape, file.shape)]
            raise DataError(f"{path}: contains {shown[0]} values, expected {shown[1]}")
        content = found.read()
    if file.content_md5:
        digest = new_md5()
        digest.update(bytes([0, 0, 8, axes]) + b"".join(size.to_bytes(4, "big") for size in file.shape))
        digest.update(content)
        compare(path, "uncompressed content", digest.hexdigest(), file.content_md5)
        return "md5 of the content"
    if file.packed_md5 and path.suffix:  # a plain file, which has none, is not packed
        compare(path, "file", file_md5(path), file.packed_md5)
        return "md5 of the file"
    return "header and size"


def _fetch_file(file: PublishedFile, folder: Path, addresses: Sequence[str], timeout: float) -> Iterator[Event]:
    path = folder / file.name
    with part_of(path) as part:
        verified = yield from receive(
            file.name, addresses, part, file.largest, lambda: verify(Path(part.name), file), timeout
        )
        yield put_in_place(part, path, verified)


def _fetch_archive(
    archive: PublishedArchive, files: Sequence[PublishedFile], folder: Path, addresses: Sequence[str], timeout: float
) -> Iterator[Event]:
    with part_of(folder / archive.name) as part:

        def verify_archive() -> str:
            compare(Path(part.name), "file", file_md5(Path(part.name)), archive.md5)
            return "md5 of the archive"

        verified = yield from receive(archive.name, addresses, part, archive.largest, verify_archive, timeout)
        with zipfile.ZipFile(part) as members:
            for file in files:
                path = folder / file.name
                with part_of(path) as unpacked, members.open(f"{archive.folder}/{file.name}") as member:
                    unpacked.truncate(0)
                    shutil.copyfileobj(member, unpacked, READ_SIZE)
                    unpacked.flush()
                    verify(Path(unpacked.name), file)
                    yield put_in_place(unpacked, path, verified)
        os.unlink(part.name)
