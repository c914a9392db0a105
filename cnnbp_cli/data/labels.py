"""Labels of every kind that files hold, as the class numbers from 0 that a loss compares with; or as targets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from cnnbp_cli.core.types import Array, Shape, show, show_shape
from cnnbp_cli.data.errors import DataError
from cnnbp_cli.data.source import Source
from cnnbp_cli.data.split import Split

NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
WHOLE_NUMBER = re.compile(r"[+-]?[0-9]+")

SHOWN = 8  # names that a message lists


@dataclass(frozen=True, slots=True)
class Task:
    """What a network is to learn, as far as labels depend on it.

    Attributes
    ----------
    target : {"label", "mask", "image"}
    classifies : bool
        Whether labels are class numbers: floats that are exactly such are taken for them.
    output : tuple of int
        The shape of the network's output; empty where that is not known.
    """

    target: Literal["label", "mask", "image"] = "label"
    classifies: bool = False
    output: Shape = ()


class Names(NamedTuple):
    """What the classes are called, and by whom.

    Attributes
    ----------
    declared : tuple of str, or None
        By the config's `data.classes`, or the source.
    of_model : tuple of str, or None
        By the trained model that the data are for.
    first : int
        The label of class 0, where labels are numbers.
    """

    declared: tuple[str, ...] | None = None
    of_model: tuple[str, ...] | None = None
    first: int = 0


def resolved(source: Source, task: Task, names: Names) -> Source:
    """Return a source whose labels are class numbers (N,), int64, or targets, or masks or images; see `Split`.

    Texts are numbered in the order of the names that are known, else alphabetically. Whole numbers start at
    `names.first`. Floats become class numbers where the network classifies and they are whole, or one-hot rows.

    Raises
    ------
    DataError
        Names the first label that is none.
    """
    names = names._replace(declared=names.declared or source.class_names)
    if task.target == "mask" or (task.target == "image" and source.train.has_images):
        return _with_images(source, task, names.declared or names.of_model)
    labels = {split: _column(part.labels) for split, part in source.splits()}
    if labels["train"].dtype.kind == "U":
        labels, found = _from_texts(source, labels, names, task)
    else:
        labels, found = _from_numbers(source, labels, names, task)
    kinds = {split: (part.dtype.name, part.shape[1:]) for split, part in labels.items()}
    for split, kind in kinds.items():
        if kind != kinds["train"]:
            raise DataError(
                f"{source.origin}: the labels of train and {split} differ in kind ({_kind(labels['train'])} and "
                f"{_kind(labels[split])}); store both alike"
            )
    if names.of_model and found and labels["train"].dtype.kind == "i":
        labels, found = _in_order_of_model(source, labels, found, names.of_model), names.of_model

    def numbered(name: str, split: Split | None) -> Split | None:
        return split and replace(split, labels=labels[name])

    return replace(
        source,
        train=replace(source.train, labels=labels["train"]),
        validation=numbered("validation", source.validation),
        test=numbered("test", source.test),
        class_names=found,
    )


def _with_images(source: Source, task: Task, class_names: tuple[str, ...] | None) -> Source:
    """Return a source whose labels are masks (N, H, W) or images (N, C, H, W), of the size that the network gives."""

    def shaped(name: str, split: Split | None) -> Split | None:
        if split is None:
            return None
        convert = _masks if task.target == "mask" else _images
        return replace(split, labels=convert(source.where(name), split.labels, task.output))

    train, validation, test = (shaped(name, getattr(source, name)) for name in ("train", "validation", "test"))
    assert train is not None
    return replace(source, train=train, validation=validation, test=test, class_names=class_names)


def _masks(where: str, labels: Array, output: Shape) -> Array:
    """Return a class number for each pixel: bytes where they fit."""
    if labels.dtype.kind not in "buif" or labels.ndim not in (3, 4) or 0 in labels.shape:
        raise DataError(
            f"{where}: has shape {show(labels.shape)} of {labels.dtype}, expected masks as (N, H, W), with the number "
            "of its class for each pixel"
        )
    classes, *size = output
    axis = {1: 1, 3: 3}.get(next((k for k in (1, 3) if labels.ndim == 4 and labels.shape[k] == 1), 0))
    masks = labels if axis is None else labels.squeeze(axis)
    if masks.shape[1:] != tuple(size):
        raise DataError(f"{where}: masks are {show_shape(labels.shape[1:])}, but the network gives {show_shape(size)}")
    classes = max(2, classes)
    wrong = (masks < 0) | (masks >= classes) | (masks != np.floor(masks)) if masks.dtype.kind != "b" else masks < 0
    if wrong.any():
        sample, *place = np.argwhere(wrong)[0].tolist()
        scaled = "; divide masks of 0 and 255 by 255" if set(np.unique(masks[:100]).tolist()) == {0, 255} else ""
        raise DataError(
            f"{where}: mask {sample} has {masks[(sample, *place)]:g} at {show(place)}, expected a class from 0 to "
            f"{classes - 1}{scaled}"
        )
    return masks.astype(np.uint8 if classes <= 256 else np.int64)


def _images(where: str, labels: Array, output: Shape) -> Array:
    """Return images that the network is to give, as (N, C, H, W)."""
    if labels.dtype.kind not in "buif":
        raise DataError(f"{where}: has dtype {labels.dtype}, expected numbers")
    fits = {
        (len(labels), *output): (0, 1, 2, 3),
        (len(labels), *output[1:], *output[:1]): (0, 3, 1, 2),
    }
    images = labels[:, None] if labels.ndim == 3 else labels
    if len(output) != 3 or images.shape not in fits:
        raise DataError(
            f"{where}: targets are {show_shape(labels.shape[1:])}, but the network gives {show_shape(output)}"
        )
    if images.dtype.kind == "f" and not np.isfinite(images).all():
        sample = int(np.argwhere(~np.isfinite(images))[0][0])
        raise DataError(f"{where}: target {sample} has a pixel that is not finite; remove or replace it")
    return images.transpose(fits[images.shape])


def _column(labels: Array) -> Array:
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels


def _kind(labels: Array) -> str:
    return f"{labels.dtype.name} of shape {show(('N', *labels.shape[1:]))}" if labels.ndim > 1 else labels.dtype.name


def listed(names: Sequence[str]) -> str:
    """Return the first names as a list for a message."""
    return ", ".join(names[:SHOWN]) + ", …" * (len(names) > SHOWN)


# ---------------------------------------------------------------------- texts


def _from_texts(
    source: Source, labels: dict[str, Array], names: Names, task: Task
) -> tuple[dict[str, Array], tuple[str, ...] | None]:
    """Number texts by the names of their classes; texts that are all numbers stand for those numbers."""
    for split, part in labels.items():
        if part.ndim != 1:
            raise DataError(f"{source.where(split)}: has shape {show(part.shape)}, expected texts as (N,)")
        if part.dtype.kind != "U":
            raise DataError(
                f"{source.origin}: the labels of train and {split} differ in kind (text and {_kind(part)}); "
                "store both alike"
            )
    found = np.unique(np.concatenate(list(labels.values())))
    known = names.declared or names.of_model
    is_number = [NUMBER.fullmatch(text.strip()) is not None for text in found]
    if all(is_number) and not (known and {*found.tolist()} <= {*known}):
        numbers = {split: _parsed(source, split, part) for split, part in labels.items()}
        return _from_numbers(source, numbers, names, task)
    if known is None and any(is_number):
        odd, usual = found[np.argmin(is_number)], found[np.argmax(is_number)]
        split, sample = _first(labels, odd)
        raise DataError(
            f"{source.where(split)}: label {str(odd)!r} of sample {sample} is text, and others are numbers, such as "
            f"{str(usual)!r}; if all are names, list them in `data.classes`"
        )
    order = known or tuple(map(str, np.unique(labels["train"])))
    number_of = {name: number for number, name in enumerate(order)}
    for text in found.tolist():
        if text not in number_of:
            split, sample = _first(labels, text)
            raise DataError(
                f"{source.where(split)}: label {text!r} of sample {sample} is none of the classes: {listed(order)}"
            )
    numbers = {}
    for split, part in labels.items():
        own, inverse = np.unique(part, return_inverse=True)
        numbers[split] = np.array([number_of[text] for text in own.tolist()], np.int64)[inverse]
    return numbers, order


def _first(labels: dict[str, Array], text: str) -> tuple[str, int]:
    """Return the split and the sample that has a label first."""
    return next((split, int(np.argmax(part == text))) for split, part in labels.items() if (part == text).any())


def _parsed(source: Source, split: str, labels: Array) -> Array:
    """Return texts of numbers as int64 if all are whole, else as float64."""
    own, inverse = np.unique(labels, return_inverse=True)
    texts = [text.strip() for text in own.tolist()]
    whole = all(WHOLE_NUMBER.fullmatch(text) for text in texts)
    for text in texts:
        if len(text) > 300 or (whole and not -(1 << 63) <= int(text) < 1 << 63) or not np.isfinite(float(text)):
            raise DataError(f"{source.where(split)}: label {text[:20]} is beyond 64 bits, expected a class number")
    values = [int(text) if whole else float(text) for text in texts]
    return np.array(values, np.int64 if whole else np.float64)[inverse]


# ---------------------------------------------------------------------- numbers


def _from_numbers(
    source: Source, labels: dict[str, Array], names: Names, task: Task
) -> tuple[dict[str, Array], tuple[str, ...] | None]:
    """Return class numbers from 0 where labels are such, else targets."""
    for split, part in labels.items():
        if part.dtype.kind == "f" and not np.isfinite(part).all():
            sample = int(np.argwhere(~np.isfinite(part))[0][0])
            raise DataError(f"{source.where(split)}: target {sample} is not finite; remove or replace it")
        if part.dtype.kind not in "buif":
            raise DataError(f"{source.where(split)}: has dtype {part.dtype}, expected numbers")
    if task.classifies or all(part.dtype.kind != "f" for part in labels.values()):
        if all(part.ndim == 2 and part.shape[1] > 1 for part in labels.values()) and all(map(one_hot, labels.values())):
            labels = {split: part.argmax(1) for split, part in labels.items()}
            return labels, names.declared
        if all(part.ndim == 1 and (part == np.floor(part)).all() for part in labels.values() if part.dtype.kind == "f"):
            found = {split: _class_numbers(source, split, part, names) for split, part in labels.items()}
            return found, names.declared or _numerals(found, names.first)
    return {split: _targets(source, split, part, names) for split, part in labels.items()}, names.declared


def one_hot(labels: Array) -> bool:
    """Return whether each row (N, K) has a single one, and zeros."""
    return bool(((labels == 0) | (labels == 1)).all() and (labels.sum(1) == 1).all())


def _numerals(labels: dict[str, Array], first: int) -> tuple[str, ...] | None:
    """Return the labels themselves as names, where they do not start at 0."""
    most = max(int(part.max()) for part in labels.values())
    return tuple(str(first + number) for number in range(most + 1)) if first and most < 10_000 else None


def _targets(source: Source, split: str, labels: Array, names: Names) -> Array:
    if labels.dtype.kind != "f":
        return _class_numbers(source, split, labels, names)
    if labels.ndim not in (1, 2):
        raise DataError(f"{source.where(split)}: has shape {show(labels.shape)}, expected targets as (N,) or (N, K)")
    return labels.astype(np.float64)


def _class_numbers(source: Source, split: str, labels: Array, names: Names) -> Array:
    where, first = source.where(split), names.first
    if labels.ndim != 1:
        raise DataError(
            f"{where}: has shape {show(labels.shape)}, expected class numbers as (N,); "
            "store the class's number instead of several numbers in a row, or floats for regression"
        )
    if labels.min() < first or labels.max() - first >= 1 << 63:
        sample = int(np.argmax((labels < first) | (labels >= 1 << 63)))
        remedy = "; write 0 for -1" if set(np.unique(labels).tolist()) == {-1, 1} else ""
        start = "classes start at 0" if first == 0 else f"`data.first_label` says that labels start at {first}"
        raise DataError(f"{where}: label {sample} is {labels[sample]}, expected a class number; {start}{remedy}")
    found = labels.astype(np.int64) - first
    if names.declared and int(found.max()) >= len(names.declared):
        sample = int(found.argmax())
        raise DataError(
            f"{where}: label {labels[sample]} of sample {sample} has no name; `data.classes` names the "
            f"{len(names.declared)} classes from {first} to {first + len(names.declared) - 1}"
        )
    return found


def _in_order_of_model(
    source: Source, labels: dict[str, Array], found: tuple[str, ...], of_model: tuple[str, ...]
) -> dict[str, Array]:
    """Return class numbers of the names `found` as those that a trained model has for the same names."""
    if found == of_model:
        return labels
    number_of = {name: number for number, name in enumerate(of_model)}
    order = np.array([number_of.get(name, -1) for name in found])
    renumbered = {split: order[part] for split, part in labels.items()}
    for split, part in renumbered.items():
        if (part < 0).any():
            sample = int(np.argmax(part < 0))
            name = found[int(labels[split][sample])]
            raise DataError(
                f"{source.where(split)}: label {name!r} of sample {sample} is none of the model's classes: "
                f"{listed(of_model)}"
            )
    return renumbered
