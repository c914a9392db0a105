"""From the config's `data` to arrays in memory: the source, the caps, the hold-out, the normalization."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

import numpy as np

from cnnbp_cli.core.rng import generator
from cnnbp_cli.core.types import Array, Shape, pair, show_shape
from cnnbp_cli.data.augment import size_factor
from cnnbp_cli.data.errors import DataError, ShapeError
from cnnbp_cli.data.kept import Kept
from cnnbp_cli.data.labels import Names, Task, one_hot, resolved
from cnnbp_cli.data.leave_out import sifted
from cnnbp_cli.data.normalization import Normalization
from cnnbp_cli.data.source import Source
from cnnbp_cli.data.split import Split, proportional, scaled

if TYPE_CHECKING:
    from cnnbp_cli.config.schema import AnyData, MeanStd

__all__ = ["DataError", "Dataset", "Normalization", "Split", "Task", "check_labels", "load_dataset"]


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Everything that training, evaluation and `data info` need to know about the data.

    Attributes
    ----------
    train : Split
        What remains after the hold-out.
    validation, test : Split or None
        None when nothing is held out, or when the source has no test split.
    normalization : Normalization
        Measured on `train`.
    classes : int or None
        What the source declares, else the largest training label plus one; None for regression targets.
    name : str
        The source and where it lies, for people.
    remarks : tuple of str
        What is no error, but looks like a mistake.
    class_names : tuple of str, or None
        In the order of the class numbers; None where these are all that is known.
    kept : Kept
        What was measured on images that stay in their file.
    target_normalization : Normalization or None
        What target images were normalized with: measured on those of `train`, or that of a trained model.
    """

    train: Split
    validation: Split | None
    test: Split | None
    normalization: Normalization
    classes: int | None
    name: str
    remarks: tuple[str, ...] = ()
    class_names: tuple[str, ...] | None = None
    kept: Kept = field(default_factory=Kept, repr=False)
    target_normalization: Normalization | None = None


def load_dataset(
    data_config: AnyData,
    input_shape: Shape,
    seed: int,
    task: Task = Task(),  # noqa: B008  (immutable)
    class_names: Sequence[str] | None = None,
    kept: Path | None = None,
    target_normalization: Normalization | None = None,
) -> Dataset:
    """Load what the config's `data` describes.

    Parameters
    ----------
    data_config
        The config's `data` section.
    input_shape : tuple of int
        The config's `model.input`: (channels, height, width).
    seed : int
        The config's seed; the hold-out and synthetic images depend on it.
    task : Task
        What the network is to learn.
    class_names : sequence of str, optional
        Those of a trained model that the data are for: named classes get its numbers.
    kept : Path, optional
        Where an earlier run has kept what it measured on images in a file.
    target_normalization : Normalization, optional
        That of such a model; by default it is measured.

    Notes
    -----
    `limit` keeps the first samples of each class, in the proportions of the whole and in the source's
    order, so that a file sorted by class still has all of them. `validation` is then held out of what
    remains, in the same proportions, by a permutation drawn from the seed. Regression targets have no
    classes: the first samples, and a plain permutation. `leave_out` takes away what it names of the
    training images that are left, before they are measured.

    Raises
    ------
    DataError
        When a file is missing or damaged, or does not fit the model.
    """
    try:
        whole = image_shape(data_config, tuple(input_shape))
        seen = replace(task, output=_of_whole_images(task.output, input_shape, whole))
        data = _load(data_config, whole, seed, seen, tuple(class_names) if class_names else None, Kept(kept))
        if data_config.augment is not None and data.train.has_images:
            size_factor(data_config.augment, input_shape[1:], task.output[-2:], data.name)
        if task.target == "image" and data.train.has_images:
            data = _with_normalized_targets(data, target_normalization, data_config.normalize)
        return _cropped(data, (input_shape[1], input_shape[2]))
    except ShapeError as error:
        if data_config.image_size is None:
            raise
        raise error.of_parts(pair(data_config.image_size), input_shape) from None
    except MemoryError:
        raise DataError("data: does not fit into memory; use a smaller set") from None


def _load(
    data_config: AnyData, input_shape: Shape, seed: int, task: Task, of_model: tuple[str, ...] | None, kept: Kept
) -> Dataset:
    names = Names(data_config.class_names, of_model, data_config.first_label)
    source = resolved(_read_source(data_config, input_shape, seed), task, names)
    _require_targets(source, task, input_shape)
    train, validation, test, classes = source.train, source.validation, source.test, source.classes
    if train.has_classes:
        known = len(source.class_names) if source.class_names else int(train.labels.max()) + 1
        classes = data_config.class_count or classes or known
    numerals = tuple(map(str, range(len(source.class_names or ()))))
    class_names = None if source.class_names == numerals else source.class_names
    remarks = (*source.remarks, *_remarks(source))
    limit = data_config.limit
    if limit is not None:
        train = _limited(train, limit.train)
        test = _limited(test, limit.test) if test else None
    if validation is None:
        train, validation = _hold_out(train, data_config.validation, seed)
    elif data_config.validation:
        raise DataError(f"{source.origin}: has a validation split of its own; leave out `data.validation`")
    if data_config.leave_out:
        others = [split for split in (validation, test) if split is not None]
        train, told = sifted(train, others, data_config.leave_out, source.origin)
        remarks = (*remarks, *told)
    normalization = Normalization.fit(data_config.normalize, train.images, kept)
    return Dataset(
        train,
        validation,
        test,
        normalization,
        classes if train.has_classes else None,
        source.origin,
        remarks,
        class_names if train.has_classes or task.target == "mask" else None,
        kept,
    )


def image_shape(data_config: AnyData, input_shape: Shape) -> Shape:
    """Return the shape that images have before the network gets a part of each.

    Raises
    ------
    DataError
        When the part is larger than the whole.
    """
    if data_config.image_size is None:
        return input_shape
    whole = (input_shape[0], *pair(data_config.image_size))
    if whole[1] < input_shape[1] or whole[2] < input_shape[2]:
        raise DataError(
            f"data.image_size: images of {show_shape(whole[1:])} have no part of the size of model.input, "
            f"{show_shape(input_shape[1:])}"
        )
    return whole


def _of_whole_images(output: Shape, input_shape: Shape, whole: Shape) -> Shape:
    """Return the shape of the targets of whole images, given what the network makes of a part of each."""
    if len(output) != 3 or whole == input_shape:
        return output
    return (output[0], *scaled(output[1:], input_shape[1:], whole[1:]))


def _cropped(data: Dataset, size: tuple[int, int]) -> Dataset:
    """Return data whose images, and targets that are images, are the middle ones of the size that the network takes."""

    def cropped(split: Split | None) -> Split | None:
        return split and split.cropped(size)

    return replace(data, train=data.train.cropped(size), validation=cropped(data.validation), test=cropped(data.test))


def _require_targets(source: Source, task: Task, input_shape: Shape) -> None:
    """Complain about a network that is to give its input, and gives images of another size."""
    own = (input_shape, (prod(input_shape),))
    if task.target == "image" and task.output and not source.train.has_images and task.output not in own:
        raise DataError(
            f"{source.origin}: the network gives {show_shape(task.output)}, but the target is the image itself, "
            f"{show_shape(input_shape)}; other targets are arrays, as y_train of an npz"
        )


def _with_normalized_targets(data: Dataset, normalization: Normalization | None, kind: str | MeanStd) -> Dataset:
    """Return data whose target images are floats, normalized as images are."""
    measured = normalization or Normalization.fit(kind, data.train.labels)

    def normalized(split: Split | None) -> Split | None:
        return split and replace(split, labels=measured.apply(split.labels))

    return replace(
        data,
        train=replace(data.train, labels=measured.apply(data.train.labels)),
        validation=normalized(data.validation),
        test=normalized(data.test),
        target_normalization=measured,
    )


def _remarks(source: Source) -> Iterator[str]:
    """Yield what looks like a mistake in the labels of the training images."""
    labels = source.train.labels
    if source.train.has_classes and len(labels) > 1 and labels.min() == labels.max():
        is_table = source.origin.startswith("csv ")
        where = "; is the label in another column? `data.label` says which it is" if is_table else ""
        label = source.class_names[labels[0]] if source.class_names else labels[0]
        yield (
            f"{source.origin}: all {len(labels):,} training labels are {label}, so that there is nothing "
            f"to learn{where}"
        )
    if labels.ndim == 2 and labels.shape[1] > 1 and one_hot(labels):
        yield (
            f"{source.origin}: one-hot rows are taken as targets, so that there is no accuracy; for a head softmax or "
            "sigmoid they are the numbers of the classes"
        )


def check_labels(dataset: Dataset, classes: int) -> None:
    """Complain about the first label that is not one of the model's classes.

    Raises
    ------
    DataError
        Names the split, the sample and its label.
    """
    for split_name, split in (("train", dataset.train), ("validation", dataset.validation), ("test", dataset.test)):
        if split is None or not split.has_classes:
            continue
        outside = np.flatnonzero((split.labels < 0) | (split.labels >= classes))
        if outside.size:
            label, remedy = split.labels[outside[0]], _remedy(dataset, classes)
            if dataset.name.startswith("csv "):
                remedy = f"is it in another column? `data.label` says which it is; else {remedy}"
            raise DataError(
                f"{dataset.name}: label {label} of sample {outside[0]} in the {split_name} split is outside "
                f"the model's {classes} classes (0 to {classes - 1}); {remedy}"
            )


def _remedy(dataset: Dataset, classes: int) -> str:
    """Return what to do about labels that are no classes of the model."""
    splits = (dataset.train, dataset.validation, dataset.test)
    found = np.unique(np.concatenate([split.labels for split in splits if split is not None and split.has_classes]))
    low, high = int(found[0]), int(found[-1])
    if low > 0 and high - low < classes:
        more = f", or give the last layer {high + 1} units" if low == 1 else ""
        return f"do labels start at {low}? write `data.first_label: {low}`{more}"
    if len(found) <= classes:
        words = ", ".join(map(str, found[:5])) + ", …" * (len(found) > 5)
        return f"the labels are {words}: number them from 0, as with np.unique(y, return_inverse=True)[1]"
    return f"give the last layer {high + 1} units or more" if low >= 0 else "labels start at 0"


def _read_source(data_config: AnyData, input_shape: Shape, seed: int) -> Source:
    """Read what a source has."""
    from cnnbp_cli.config.schema import Csv, Idx, MnistSubset, Npy, Npz, Pictures, Synthetic

    match data_config:
        case MnistSubset(source=source):
            from importlib.resources import files

            from cnnbp_cli.data.idx import read_split

            folder = files("cnnbp_cli.data") / "mnist_subset"
            train, test = (
                read_split(
                    folder / f"{part}-images-idx3-ubyte.gz", folder / f"{part}-labels-idx1-ubyte.gz", input_shape
                )
                for part in ("train", "t10k")
            )
            return Source(source, train, test=test, classes=10)
        case Idx(path=path):
            from cnnbp_cli.data.idx import read_folder

            train, test = read_folder(path, input_shape)
            return Source(f"idx {path}", train, test=test)
        case Npz(path=path, keys=keys):
            from cnnbp_cli.data.npz import read_npz

            return read_npz(path, input_shape, keys)
        case Npy(path=path, keys=keys):
            from cnnbp_cli.data.npy import read_npy

            return read_npy(path, input_shape, keys)
        case Csv(path=path, test_path=test_path, label=label, delimiter=delimiter):
            from cnnbp_cli.data.csv import read_tables

            return read_tables(path, test_path, input_shape, label, delimiter)
        case Pictures(path=path, test=share, on_error=on_error):
            from cnnbp_cli.data.folder import read_pictures_of

            return read_pictures_of(path, input_shape, share, on_error, seed)
        case Synthetic(kind=kind, image=image):
            classes = data_config.class_count or 0
            from cnnbp_cli.data.synthetic import check_synthetic, draw_split

            check_synthetic(kind, data_config.train + data_config.test, image, input_shape)
            train = draw_split(kind, data_config.train, image, classes, seed, "train")
            drawn = draw_split(kind, data_config.test, image, classes, seed, "test") if data_config.test else None
            return Source(f"synthetic {kind}", train, test=drawn, classes=classes)
        case _:
            assert_never(data_config)


def _limited(split: Split, count: int | None) -> Split:
    if count is None or count >= len(split):
        return split
    return split.take(np.sort(_chosen(split, np.arange(len(split)), count)))


def _hold_out(split: Split, amount: float, seed: int) -> tuple[Split, Split | None]:
    """Split off the validation samples; both parts keep the source's order."""
    if not amount:
        return split, None
    count = max(1, round(amount * len(split))) if amount < 1 else int(amount)
    if count >= len(split):
        raise DataError(
            f"data.validation: {amount} holds out {count:,} of {len(split):,} training images; "
            "leave at least one to train on"
        )
    held = np.zeros(len(split), bool)
    held[_chosen(split, generator(seed, "validation").permutation(len(split)), count)] = True
    return split.take(~held), split.take(held)


def _chosen(split: Split, order: Array, count: int) -> Array:
    """Return `count` of the samples in `order`: in the classes' proportions, where there are classes."""
    return proportional(split.labels, order, count) if split.has_classes else order[:count]
