"""A model, and its data, from whatever describes them: a config, a run directory or a checkpoint."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cnnbp_cli.build import build, build_graph
from cnnbp_cli.config.errors import ConfigError
from cnnbp_cli.config.load import Override, load_config, parse_config
from cnnbp_cli.config.schema import Config
from cnnbp_cli.config.sources import located
from cnnbp_cli.data.dataset import Dataset, Task, load_dataset
from cnnbp_cli.data.errors import DataError
from cnnbp_cli.data.normalization import Normalization
from cnnbp_cli.model import Model, task_of

if TYPE_CHECKING:
    from cnnbp_cli.origin import Origin
    from cnnbp_cli.train.checkpoint import Checkpoint
    from cnnbp_cli.weights import WeightsFrom


def load(
    path: str | Path, overrides: Sequence[Override] = (), *, weights: str | Path | WeightsFrom | None = None
) -> Model:
    """Return the model that `path` describes.

    Parameters
    ----------
    path : str or Path
        A config (the parameters are drawn from its seed), the name of a template, a run directory (its best checkpoint,
        or its last where there is no validation), a checkpoint, or ``"last"``, the newest run under ``runs``.
    overrides : sequence of str or Path
        As after `--set` on the command line, such as ``"dtype=float64"``, or the paths of files as after `--set-file`.
    weights : path or WeightsFrom, optional
        A weight file, npz, safetensors or a state dict of PyTorch, whose parameters take the place of those.
        `WeightsFrom` also says how other names become the model's.

    Raises
    ------
    ConfigError
        When the config is wrong.
    RunError, CheckpointError
        When the run or the checkpoint cannot be read, or does not fit the overrides.
    WeightsError
        When the weight file cannot be read, or does not fit the model.
    """
    return load_with_origin(path, overrides, weights=weights)[0]


def load_with_origin(
    path: str | Path, overrides: Sequence[Override] = (), *, weights: str | Path | WeightsFrom | None = None
) -> tuple[Model, Origin | None]:
    """Return the model that `path` describes, and the checkpoint that its parameters come from; see `load`."""
    where = located(path)
    if weights is None and not os.path.isdir(where) and where.suffix != ".npz":
        return build(load_config(str(where), overrides)), None  # without the imports that runs need
    from cnnbp_cli.origin import origin_of
    from cnnbp_cli.train.checkpoint import Checkpoint
    from cnnbp_cli.train.run_directory import RunDirectory
    from cnnbp_cli.weights import use_weights

    origin = None
    if where.is_dir():
        where = RunDirectory(where).chosen()
    if where.suffix == ".npz":
        checkpoint = Checkpoint.read(where)
        model = _from_checkpoint(where, checkpoint, overrides)
        origin = origin_of(where, checkpoint)
    else:
        model = build(load_config(str(where), overrides))
    if weights is not None:
        use_weights(model, Path(weights) if isinstance(weights, str) else weights)
        origin = None
    return model, origin


def load_checkpoint(path: Path, overrides: Sequence[Override] = ()) -> Model:
    """Return the model of a checkpoint, with its parameters and its normalization."""
    from cnnbp_cli.train.checkpoint import Checkpoint

    return _from_checkpoint(path, Checkpoint.read(path), overrides)


def _from_checkpoint(path: Path, checkpoint: Checkpoint, overrides: Sequence[Override]) -> Model:
    from cnnbp_cli.train.checkpoint import CheckpointError
    from cnnbp_cli.weights import converted, first_non_finite

    config = parse_config(checkpoint.config, overrides, label=str(path))
    _require_shapes(path, config, checkpoint)
    model = build(config)
    try:
        values = converted(model, checkpoint.parameters)
        if bad := first_non_finite(values):
            raise CheckpointError(f"{path}: parameter {bad} has values that are not finite; use an earlier checkpoint")
        model.set_parameters(values, complete=True)
        model.normalization = Normalization.from_dict(checkpoint.normalization)
        model.normalization.require_channels(config.model.input[0])
        if checkpoint.target_normalization:
            model.target_normalization = Normalization.from_dict(checkpoint.target_normalization)
            model.target_normalization.require_channels(model.output_shape[0])
        model.class_names = tuple(checkpoint.class_names) or model.class_names
    except (ValueError, DataError) as error:
        raise CheckpointError(f"{path}: does not fit the model: {error}") from None
    return model


def _require_shapes(path: Path, config: Config, checkpoint: Checkpoint) -> None:
    """Complain about a network that the file's arrays do not make, before one of its size is built."""
    from cnnbp_cli.train.checkpoint import CheckpointError

    for node, shapes in build_graph(config).param_shapes.items():
        for key, shape in shapes.items():
            name = f"{node}.{key}"
            found = checkpoint.parameters.get(name)
            if found is None:
                raise CheckpointError(f"{path}: does not fit the model: parameter {name} is missing")
            if found.shape != shape:
                raise CheckpointError(
                    f"{path}: does not fit the model: parameter {name}: expected shape {shape}, got {found.shape}"
                )


def load_data(source: Model | Config | str | Path, kept: Path | None = None) -> Dataset:
    """Return the data that a model or a config describes, or what `load` takes as a config: a path, a template, a run.

    `kept` is where an earlier run has kept what it measured on images in a file.

    Raises
    ------
    ConfigError, DataError
        When the config is wrong, or the data cannot be read.
    """
    if isinstance(source, Model):
        config, task = source.config, source.task
    else:
        config = source if isinstance(source, Config) else load_config(str(source))
        task = task_for(config)
    return load_dataset(config.data, config.model.input, config.seed, task, kept=kept)


def task_for(config: Config) -> Task:
    """Return what a network is to learn, which its data can be looked at without: it may be wrong."""
    try:
        graph = build_graph(config)
    except ConfigError:
        return Task()
    return task_of(config, graph.shapes[graph.output])
