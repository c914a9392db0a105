"""A trained model from disk, and the images to try it on: what `evaluate` and `predict` start with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cnnbp_cli.config.load import load_config
from cnnbp_cli.config.sources import located, meant
from cnnbp_cli.data.at_path import source_at
from cnnbp_cli.data.dataset import DataError, Dataset, check_labels, load_dataset
from cnnbp_cli.data.file_rows import FileRows, Images
from cnnbp_cli.data.normalization import Normalization
from cnnbp_cli.data.split import Split
from cnnbp_cli.errors import UserError
from cnnbp_cli.loading import load_with_origin
from cnnbp_cli.model import Model

if TYPE_CHECKING:
    from cnnbp_cli.origin import Origin
    from cnnbp_cli.weights import WeightsFrom


class TrainedError(UserError):
    """Something that is no trained model, or images that there are none of."""


def load_trained(path: Path, weights: Path | WeightsFrom | None = None) -> tuple[Model, Origin | None]:
    """Return the model of a run directory or a checkpoint, and which checkpoint it is.

    With a weight file, the model of a config will do.

    Raises
    ------
    TrainedError
        When `path` is something else.
    RunError, CheckpointError, ConfigError, WeightsError
        When it, or the weight file, cannot be read.
    """
    if weights is not None:
        return load_with_origin(path, weights=weights)
    path = located(path, template=False)
    if not path.exists():
        nearest = meant(path, file=False, template=False) or "; expected a run directory or a checkpoint"
        raise TrainedError(f"{path}: does not exist{nearest}")
    if not path.is_dir() and path.suffix != ".npz":
        raise TrainedError(
            f"{path}: is not a run directory or a checkpoint; `cnnbp train` makes them from a config"
            + ", or give its weights with --weights" * (path.suffix in (".yaml", ".yml"))
        )
    return load_with_origin(path)


def measured_by(trained: Path) -> Path:
    """Return where the run of a model, given by its folder or a checkpoint, has kept what it measured."""
    from cnnbp_cli.train.run_directory import RunDirectory

    return RunDirectory(trained if trained.is_dir() else trained.resolve().parent.parent).measured


def split_for(model: Model, name: str, config: str | None = None, kept: Path | None = None) -> tuple[Split, list[str]]:
    """Return a split of the data that the model was made for, or of those of another config, and what to know about it.

    Images in another scale than the training images, 0…1 instead of 0…255, are brought to theirs.

    A model that does not know its normalization yet, for its weights come from elsewhere, takes that of the data.

    Parameters
    ----------
    model : Model
    name : {"train", "validation", "test"}
    config : str, optional
        The other config, as `load_config` takes it; or a folder of pictures, a csv or an npz, all of which is taken
        where it has no test split.
    kept : Path, optional
        Where the model's run has kept what it measured on images in a file.

    Raises
    ------
    TrainedError
        When the data has no such split.
    ConfigError, DataError
        When the config is wrong, or the data cannot be read or do not fit the model.
    """
    files = None if config is None else source_at(Path(config), model.config.data)
    if files is None:
        chosen = model.config if config is None else load_config(config)
        files, seed = chosen.data, chosen.seed
    else:
        seed = model.config.seed
    known = (model.class_names, kept, model.target_normalization)
    data = load_dataset(files, model.config.model.input, seed, model.task, *known)
    if model.classifies:
        check_labels(data, model.classes)
    split: Split | None = getattr(data, name)
    if split is None and name == "test" and config is not None and source_at(Path(config), model.config.data):
        split = data.train
    if split is None:
        raise TrainedError(f"{data.name}: has no {name} split")
    if model.normalization is None:
        model.normalization, model.class_names = data.normalization, data.class_names
        return split, [*data.remarks]
    split, remarks = _in_training_scale(split, data, model.normalization)
    return split, [*data.remarks, *remarks]


def _in_training_scale(split: Split, data: Dataset, trained: Normalization) -> tuple[Split, list[str]]:
    own, remarks = data.normalization, list[str]()
    if (own.mean, own.std) == (trained.mean, trained.std):
        return split, []
    if own.white is None and trained.white is not None:
        raise DataError(
            f"{data.name}: has values from {own.low:g} to {own.high:g}, but the model was trained on pixels from 0 to "
            f"{trained.white:g}; scale them alike"
        )
    if isinstance(split.images, FileRows):
        if own.white != trained.white:
            raise DataError(
                f"{data.name}: has pixels from {own.low} to {own.high}, but the model was trained on 0 to "
                f"{trained.white}, and a set of this size cannot be brought to that scale; store it so"
            )
        images: Images = split.images
    else:
        images = trained.rescale(split.images, data.name, own.white)
    if images is not split.images:
        remarks.append(
            f"{data.name}: pixels from 0 to {own.white:g}, but the model was trained on 0 to {trained.white:g}; "
            "they are brought to that scale"
        )
    if None not in (own.is_light, trained.is_light) and own.is_light != trained.is_light:
        edges = {True: "light", False: "dark"}
        remarks.append(
            f"{data.name}: the images have {edges[bool(own.is_light)]} edges, but the model was trained on "
            f"{edges[bool(trained.is_light)]} ones; swap dark and light in one of them"
        )
    return replace(split, images=images, uncropped=None), remarks
