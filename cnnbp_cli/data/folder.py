"""Folders of pictures, one for each class: each is made to fit the network as `predict` makes a single one fit."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cnnbp_cli.core.rng import generator
from cnnbp_cli.core.types import Array, Shape, show
from cnnbp_cli.data.errors import MAX_BYTES, DataError, unreadable
from cnnbp_cli.data.labels import listed
from cnnbp_cli.data.pictures import SUFFIXES, decoding, fitted
from cnnbp_cli.data.progress import Reading, tell
from cnnbp_cli.data.source import Source
from cnnbp_cli.data.split import Split, proportional

SPLITS = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""What the folders of the splits are called."""

CHUNK = 64  # pictures that a thread decodes at a time

LARGE = 8 << 10
"""Bytes of a file from which on its decoder works long enough without Python for several threads to be faster: with
two, photos of 1600×1200 take 0.55 of the time, and digits of 28×28 1.4 times as long."""

WORST = 5  # broken pictures that a message names


class Listed(NamedTuple):
    """The pictures of a split.

    Attributes
    ----------
    paths : list of Path
    labels : list of str
        The class of each.
    """

    paths: list[Path]
    labels: list[str]


def read_pictures_of(path: Path, input_shape: Shape, test: float, on_error: str, seed: int) -> Source:
    """Read a folder with the splits, or with the classes themselves.

    Parameters
    ----------
    path : Path
        With ``train``, perhaps ``val``, and ``test``, each with a folder for each class; or with those alone.
    input_shape : tuple of int
        The model's (channels, height, width), which every picture is made to fit.
    test : float
        How many pictures to set aside for a test, a share or a count, where there is no folder for them.
    on_error : {"stop", "skip"}
        What to do about pictures that cannot be read.
    seed : int
        Decides which pictures are set aside.

    Raises
    ------
    DataError
        When there are no pictures, some cannot be read, or they would not fit into memory.
    """
    places = places_of(path, test)
    classes = classes_of(places["train"])
    found = {split: _listed(place) for split, place in places.items()}
    _require_pictures(places, found)
    total = sum(len(part.paths) for part in found.values())
    if total * prod(input_shape) > MAX_BYTES:
        raise DataError(
            f"{path}: {total:,} pictures of {show(input_shape)} do not fit into memory; `cnnbp data convert CONFIG "
            "FOLDER` writes them to files that need not"
        )
    splits, remarks = _decoded(path, found, input_shape, total, skip=on_error == "skip")
    if test:
        splits["train"], splits["test"] = _set_aside(splits["train"], test, seed)
    return Source(
        f"folder {path}",
        splits["train"],
        splits.get("validation"),
        splits.get("test"),
        class_names=classes,
        labels_at={split: str(place) for split, place in places.items()},
        remarks=tuple(remarks),
    )


def listed_splits(path: Path, test: float, seed: int) -> dict[str, Listed]:
    """Return the pictures of each split, without decoding any; see `read_pictures_of`."""
    places = places_of(path, test)
    classes_of(places["train"])
    found = {split: _listed(place) for split, place in places.items()}
    _require_pictures(places, found)
    if test:
        paths, labels = found["train"]
        numbers = np.arange(len(paths))
        parts = _set_aside(Split(numbers, np.array(labels, str)), test, seed)
        for split, part in zip(("train", "test"), parts, strict=True):
            found[split] = Listed([paths[k] for k in part.images[:]], [labels[k] for k in part.images[:]])
    return found


def _require_pictures(places: Mapping[str, Path], found: Mapping[str, Listed]) -> None:
    if not found["train"].paths:
        raise DataError(f"{places['train']}: has no pictures; expected files that end in {', '.join(SUFFIXES)}")


def places_of(path: Path, test: float) -> dict[str, Path]:
    """Return the folder of each split."""
    names = _folders(path)
    places = {split: path / name for split, words in SPLITS.items() for name in names if name.lower() in words}
    if "train" not in places:
        places = {"train": path}
    elif test and "test" in places:
        raise DataError(f"{path}: has a folder {places['test'].name}; leave out `data.test`")
    return places


def classes_of(place: Path) -> tuple[str, ...]:
    """Return the classes of a folder that has one for each."""
    classes = tuple(sorted(_folders(place), key=_natural))
    if len(classes) < 1:
        raise DataError(f"{place}: has no folders; expected one for each class, such as {place}/cat/1.png")
    return classes


def _folders(path: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except NotADirectoryError:
        raise DataError(f"{path}: is a file; `data.path` names a folder of pictures") from None
    except OSError as error:
        raise unreadable(path, error) from None


def _natural(name: str) -> tuple[tuple[int, str], ...]:
    """Return what sorts ``class 10`` behind ``class 9``."""
    parts = re.split(r"([0-9]+)", name)
    return tuple((int(part[:300]), "") if k % 2 else (-1, part) for k, part in enumerate(parts))


def _listed(place: Path) -> Listed:
    """Return the pictures of the classes in a folder, in order; what is called otherwise is none."""
    found = Listed([], [])
    for name in _folders(place):
        for folder, inner, files in os.walk(place / name):
            inner.sort()
            paths = [Path(folder, file) for file in sorted(files) if file.lower().endswith(SUFFIXES) and file[0] != "."]
            found.paths.extend(paths)
            found.labels.extend([name] * len(paths))
    return found


def _decoded(
    path: Path, found: dict[str, Listed], input_shape: Shape, total: int, *, skip: bool
) -> tuple[dict[str, Split], list[str]]:
    """Decode all pictures; return the splits, and what to say about those that are left out."""
    splits, broken = dict[str, Split](), list[DataError]()
    done = 0
    for split, part in found.items():
        images = np.empty((len(part.paths), *input_shape), np.uint8)
        good = np.ones(len(part.paths), bool)
        for k, picture in enumerate(fitted_pictures(part.paths, input_shape, str(path))):
            if isinstance(picture, DataError):
                good[k] = False
                broken.append(picture)
            else:
                images[k] = picture
            done += 1
            if done % CHUNK == 0 or done == total:
                tell(Reading(f"folder {path}", done, total))
        labels = np.array(part.labels, str) if part.labels else np.empty(0, "U1")
        if good.any():
            splits[split] = Split(images, labels) if good.all() else Split(images[good], labels[good])
    if not broken:
        return splits, []
    if not skip or "train" not in splits:
        others = f"; {len(broken) - 1:,} more of {total:,} cannot be read either" if len(broken) > 1 else ""
        raise DataError(f"{broken[0]}{others}: remove them, or leave them out with `data.on_error: skip`")
    names = listed([str(error).partition(": ")[0] for error in broken[:WORST]]) + ", …" * (len(broken) > WORST)
    return splits, [f"folder {path}: {len(broken):,} of {total:,} pictures left out, as they cannot be read: {names}"]


def fitted_pictures(paths: Sequence[Path], input_shape: Shape, where: str) -> Iterator[Array | DataError]:
    """Yield every picture as the network takes it, or why it cannot be read, in order."""

    def decode(some: Sequence[Path]) -> list[Array | DataError]:
        results = list[Array | DataError]()
        for path in some:
            try:
                results.append(fitted(path, input_shape)[0])
            except DataError as error:
                results.append(error)
        return results

    chunks = [paths[k : k + CHUNK] for k in range(0, len(paths), CHUNK)]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with decoding(input_shape, where):
        if cores == 1 or _mean_size(paths[:CHUNK]) < LARGE:
            for chunk in chunks:
                yield from decode(chunk)
            return
        with ThreadPoolExecutor(cores) as threads:
            try:
                for results in threads.map(decode, chunks):
                    yield from results
            finally:
                threads.shutdown(wait=True, cancel_futures=True)


def _mean_size(paths: Sequence[Path]) -> float:
    try:
        return sum(path.stat().st_size for path in paths) / max(1, len(paths))
    except OSError:
        return 0.0


def _set_aside(split: Split, amount: float, seed: int) -> tuple[Split, Split]:
    """Return what remains for training, and the pictures for the test: the same share of each class."""
    count = max(1, round(amount * len(split))) if amount < 1 else int(amount)
    if count >= len(split):
        raise DataError(f"data.test: {amount} sets aside {count:,} of {len(split):,} pictures; leave one to train on")
    chosen = np.zeros(len(split), bool)
    chosen[proportional(split.labels, generator(seed, "test").permutation(len(split)), count)] = True
    return split.take(~chosen), split.take(chosen)
