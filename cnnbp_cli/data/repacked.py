"""Public sets in formats that no source reads, CIFAR-10 and SVHN: verified, decoded, and written as one npz file.

The published files are compared with their digests before anything in them is looked at. They are `NAME.part` until
then, which a later call continues, and are gone when the npz is there.

References
----------
CIFAR-10: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images"; format and md5 on its page,
https://www.cs.toronto.edu/~kriz/cifar.html.
SVHN: Netzer et al. 2011, "Reading Digits in Natural Images with Unsupervised Feature Learning"; format 2, cropped
digits, of http://ufldl.stanford.edu/housenumbers; md5 as in torchvision's `datasets/svhn.py`.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np

from cnnbp_cli.core.types import Array, Shape
from cnnbp_cli.data.download import Event, Ready, compare, file_md5, part_of, receive
from cnnbp_cli.data.errors import DataError
from cnnbp_cli.data.mat import read_mat
from cnnbp_cli.data.npz import read_npz
from cnnbp_cli.files import replacing

IMAGE = (3, 32, 32)
"""Channels, height and width of both sets."""

Counts = tuple[int, int]
"""How many images there are to train and to test."""

Decode = Callable[[Mapping[str, IO[bytes]], Counts], dict[str, Array]]
"""From the published files by name to x_train, y_train, x_test and y_test: bytes, images as (N, C, H, W).

Raises `DataError` when they are not what they should be.
"""


@dataclass(frozen=True, slots=True)
class Original:
    """A file as it is published, and more bytes than it has."""

    name: str
    md5: str
    largest: int


@dataclass(frozen=True, slots=True)
class RepackedSet:
    """A set, where it is to be had, and how its files are read. Without names, its classes are digits."""

    name: str
    addresses: tuple[str, ...]
    counts: Counts
    originals: tuple[Original, ...]
    decode: Decode
    class_names: tuple[str, ...] = ()

    @property
    def input(self) -> Shape:
        """The config's `model.input`."""
        return IMAGE

    @property
    def classes(self) -> int:
        return len(self.class_names) or 10

    def file(self, folder: Path) -> Path:
        """Return what the set becomes."""
        return folder / f"{self.name}.npz"

    def section(self, folder: Path) -> dict[str, Any]:
        """Return the config's `data` that reads it."""
        names = {"classes": list(self.class_names)} if self.class_names else {}
        return {"source": "npz", "path": str(self.file(folder)), **names}


def fetch_repacked(source: RepackedSet, folder: Path, addresses: Sequence[str], timeout: float) -> Iterator[Event]:
    """Yield what happens until the npz file is in the folder, which is there.

    Raises
    ------
    DataError
        When a file cannot be had, is not what it should be, or the npz was there before and is something else.
    OSError
        When something cannot be written.
    """
    path = source.file(folder)
    if path.exists():
        yield _present(path, source)
        return
    with ExitStack() as stack:
        parts = {original.name: stack.enter_context(part_of(folder / original.name)) for original in source.originals}
        for original in source.originals:
            yield from _receive(original, parts[original.name], addresses, timeout)
        try:
            arrays = source.decode(parts, source.counts)
        except DataError as error:
            _empty(parts)
            raise DataError(f"{error}; nothing of it is kept: fetch it again") from None
        with replacing(path) as file:
            np.savez(file, allow_pickle=False, **arrays)
        _empty(parts)
    yield Ready(path, path.stat().st_size, True, "md5 of what was published")


def _receive(original: Original, part: IO[bytes], addresses: Sequence[str], timeout: float) -> Iterator[Event]:
    def verify() -> str:
        compare(Path(part.name), "file", file_md5(Path(part.name)), original.md5)
        return "md5 of the file"

    yield from receive(original.name, addresses, part, original.largest, verify, timeout)


def _empty(parts: Mapping[str, IO[bytes]]) -> None:
    """Leave nothing of the published files: a part that is empty does not stay."""
    for part in parts.values():
        part.truncate(0)


def _present(path: Path, source: RepackedSet) -> Ready:
    """Return the file that is there already, all of which is read."""
    try:
        found = read_npz(path, source.input)
        counts = (len(found.train), len(found.test) if found.test else 0)
        if counts != source.counts:
            shown = [f"{train:,} + {test:,}" for train, test in (counts, source.counts)]
            raise DataError(f"{path}: contains {shown[0]} images, expected {shown[1]}")
    except DataError as error:
        raise DataError(
            f"{error}; it was there before and is not replaced: remove it, or name another folder"
        ) from None
    return Ready(path, path.stat().st_size, False, "shapes and checksums within it")


CIFAR10_FOLDER = "cifar-10-batches-bin"
CIFAR10_DAMAGE = (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError)


def decode_cifar10(files: Mapping[str, IO[bytes]], counts: Counts) -> dict[str, Array]:
    """Read five members to train, of the same size, and one to test: records of a label and the pixels of an image."""
    ((name, file),) = files.items()
    train = [f"{CIFAR10_FOLDER}/data_batch_{number}.bin" for number in range(1, 6)]
    test = f"{CIFAR10_FOLDER}/test_batch.bin"
    records = {**dict.fromkeys(train, counts[0] // 5), test: counts[1]}
    found = dict[str, Array]()
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:gz") as archive:
            for member in archive:
                if member.name in records:
                    found[member.name] = _records(f"{name}: {member.name}", archive, member, records[member.name])
    except CIFAR10_DAMAGE:
        raise DataError(f"{name}: is not a tar.gz archive, or a damaged one") from None
    if missing := [member for member in records if member not in found]:
        raise DataError(f"{name}: has no {missing[0]}")
    rows = {"train": np.concatenate([found[member] for member in train]), "test": found[test]}
    return {
        f"{part}_{split}": values
        for split, both in rows.items()
        for part, values in (("x", both[:, 1:].reshape(-1, *IMAGE)), ("y", both[:, 0]))
    }


def _records(where: str, archive: tarfile.TarFile, member: tarfile.TarInfo, count: int) -> Array:
    """Return a member's records as rows of bytes."""
    size = 1 + prod(IMAGE)
    content = archive.extractfile(member) if member.isreg() else None
    if content is None or member.size != count * size:
        raise DataError(f"{where}: has {member.size:,} bytes, expected {count:,} records of {size:,}")
    rows = np.frombuffer(content.read(), np.uint8).reshape(count, size)
    _require_labels(where, rows[:, 0], 0, 9)
    return rows


def _require_labels(where: str, labels: Array, lowest: int, highest: int) -> None:
    wrong = ~np.isin(labels, np.arange(lowest, highest + 1))
    if wrong.any():
        sample = int(wrong.argmax())
        raise DataError(f"{where}: label {labels[sample]} of sample {sample} is not one from {lowest} to {highest}")


def decode_svhn(files: Mapping[str, IO[bytes]], counts: Counts) -> dict[str, Array]:
    """Read X, (H, W, C, N), and y, (N, 1), of a file for each split; the label 10 stands for the digit 0."""
    arrays = dict[str, Array]()
    for (name, file), split, count in zip(files.items(), ("train", "test"), counts, strict=True):
        file.seek(0)
        found = read_mat(name, file.read(), count * prod(IMAGE))
        channels, height, width = IMAGE
        for key, shape in (("X", (height, width, channels, count)), ("y", (count, 1))):
            if key not in found:
                raise DataError(f"{name}: has no array {key}")
            if found[key].shape != shape:
                shown = [" × ".join(map(str, size)) for size in (found[key].shape, shape)]
                raise DataError(f"{name}: {key} has {shown[0]} values, expected {shown[1]}")
        if found["X"].dtype != np.uint8:
            raise DataError(f"{name}: X has values of {found['X'].dtype}, expected uint8")
        labels = found["y"][:, 0]
        _require_labels(f"{name}: y", labels, 1, 10)
        arrays[f"x_{split}"] = np.ascontiguousarray(found["X"].transpose(3, 2, 0, 1))
        arrays[f"y_{split}"] = (labels % 10).astype(np.uint8)
    return arrays


REPACKED_SETS = {
    "cifar10": RepackedSet(
        "cifar10",
        ("https://www.cs.toronto.edu/~kriz",),
        (50_000, 10_000),
        (Original("cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530", 200_000_000),),
        decode_cifar10,
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    ),
    "svhn": RepackedSet(
        "svhn",
        ("http://ufldl.stanford.edu/housenumbers",),
        (73_257, 26_032),
        (
            Original("train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373", 200_000_000),
            Original("test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3", 100_000_000),
        ),
        decode_svhn,
    ),
}
