"""`fit`: train a model as a config says, on as many workers as pay, as a generator of events."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from multiprocessing import current_process
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cnnbp_cli.config.custom_layers import load_layers
from cnnbp_cli.config.schema import Config
from cnnbp_cli.config.write import to_yaml
from cnnbp_cli.core.backprop import Observer, Part, ignore
from cnnbp_cli.core.types import Array
from cnnbp_cli.data.dataset import DataError, Dataset, check_labels
from cnnbp_cli.data.file_rows import FileRows
from cnnbp_cli.data.fingerprint import fingerprint
from cnnbp_cli.data.split import Split
from cnnbp_cli.errors import UserError
from cnnbp_cli.memory import require_batch
from cnnbp_cli.model import Model
from cnnbp_cli.parallel.blas import blas_threads
from cnnbp_cli.parallel.local import LocalWorker, local_workers
from cnnbp_cli.parallel.mpi import MpiTeam, MpiWorker, Receive
from cnnbp_cli.parallel.processes import SharedArray, StartMethod, available_cores, forks, start_method
from cnnbp_cli.parallel.solo import SoloWorker
from cnnbp_cli.train.class_weights import class_weights
from cnnbp_cli.train.event_log import RunLog, metrics
from cnnbp_cli.train.events import Event
from cnnbp_cli.train.job import Job
from cnnbp_cli.train.resume import find_changes
from cnnbp_cli.train.run_directory import RunDirectory
from cnnbp_cli.train.statistics import WATCH_EVERY
from cnnbp_cli.train.trainer import Trainer

WORTHWHILE = 2_000_000
"""Multiply-accumulates per step and worker: about 0.1 ms of work."""

WORTHWHILE_RUN = {"fork": 4_000_000_000, "spawn": 60_000_000_000}
"""Multiply-accumulates of a run, by the way in which workers start: about 0.2 s of work where that takes a few
hundredths of a second, and 3 s where each of them has to load NumPy first."""


def fit(
    model: Model,
    data: Dataset,
    *,
    config: Config | None = None,
    run: Path | str | None = None,
    resume: bool = False,
    allow_changes: bool = False,
    watch_every: int = WATCH_EVERY,
    stop: Callable[[], bool] | None = None,
    observer: Observer = ignore,
    mark: Callable[[str, str], None] | None = None,
    team: MpiTeam | None = None,
) -> Iterator[Event]:
    """Train a model as a config says, and yield what happens.

    Parameters
    ----------
    model : Model
        Trained in place. At the end it holds the best parameters by the monitored figure, when there is
        one (a validation split, or early stopping), else the last.
    data : Dataset
    config : Config, optional
        How to train: its `train`, `seed` and `data.augment`. By default the model's own.
    run : path, optional
        A folder for the config, the events, the metrics and the checkpoints; without it nothing is
        written.
    resume : bool
        Go on from the folder's last good checkpoint, if it has one.
    allow_changes : bool
        Resume also where the config or the data are not those of the run so far; this is recorded.
    watch_every : int
        After the first step, and after every one whose number is a multiple of this, an event tells what
        every layer did; 0 for none of them.
    stop : callable, optional
        Asked before every step; when it returns true the run saves a checkpoint and ends.
    observer : Observer, optional
        Called by the first worker as the parts of a step go by.
    mark : callable, optional
        The older form of `observer`: called with the part and the layer, without arrays.
    team : MpiTeam, optional
        The processes of an MPI launcher, which train together; this is the first of them.

    Raises
    ------
    ConfigError
        When a batch would not fit into memory.
    UserError
        When every layer with parameters is frozen, or the config wants another number of workers than there are.
    DataError
        When labels do not fit the model.
    RunError, CheckpointError
        When the folder cannot be used, or holds a run that was made with other settings.
    """
    if mark is not None:
        observer = partial(_marked, mark)
    if any(model.params.values()) and not model.layout.size:
        raise UserError("nothing to train: every layer with parameters is frozen, by trainable: false or model.freeze")
    if model.classifies:
        check_labels(data, model.classes)
    config = config or model.config
    if team is not None:
        _require_size(config, team.size)
    batch = min(config.train.batch_size, len(data.train))
    require_batch(config, model.graph, batch, model.dtype.itemsize, "choose a smaller train.batch_size")
    require_validation(config, data)
    model.normalization, model.class_names = data.normalization, data.class_names
    model.target_normalization = data.target_normalization
    class_weights(config.train, data, model)  # complain before anything is started
    directory = None if run is None else RunDirectory(Path(run))
    job = Job(model, data, config, watch_every)
    try:
        with nullcontext() if directory is None else directory.reserved(resume=resume):
            if directory is not None:
                job = _in_directory(job, directory, resume=resume, allow_changes=allow_changes)
            yield from _on_workers(job, team, stop or (lambda: False), observer)
    finally:
        model.move_to(np.empty_like(model.vector))  # out of memory that workers shared


def require_validation(config: Config, data: Dataset) -> None:
    """Complain where a figure of validation images is to be watched, and the data have none after all."""
    schedule = config.train.main_schedule[1]
    for what, part in (("early_stopping", config.train.early_stopping), ("schedule", schedule)):
        monitor = getattr(part, "monitor", "")
        if monitor.startswith("validation") and data.validation is None:
            raise DataError(
                f"{data.name}: has no validation images, but train.{what} monitors {monitor}: set data.validation, "
                "or monitor train_loss"
            )


def _in_directory(job: Job, directory: RunDirectory, *, resume: bool, allow_changes: bool) -> Job:
    """Return the job with its directory, and with the checkpoint that it begins from."""
    found, data = directory.last_good() if resume else None, fingerprint(job.data, job.data.kept)
    directory.keep_measured(job.data.kept)
    changes = None
    if found is not None:
        path, checkpoint = found
        samples = len(job.data.train)
        changes = find_changes(path, checkpoint, job.config, data, samples, allow=allow_changes)
    return replace(job, directory=directory, fingerprint=data, start=found, changes=changes)


def _marked(mark: Callable[[str, str], None], part: Part, layer: str, *arrays: Array) -> None:
    mark(part, layer)


def planned_workers(model: Model, samples: int, config: Config | None = None) -> int:
    """Return how many workers to use: the config's number, or as many cores as pay for themselves.

    A worker pays when it takes over at least `WORTHWHILE` multiply-accumulates of a step: below that,
    waiting for each other costs more than is gained. Starting workers takes its time, so a short run is not
    worth it either. A process of a pool is one of several already, and may not start more.
    """
    train = (config or model.config).train
    if current_process().daemon:
        return 1
    if train.workers != "auto":
        return min(train.workers, train.batch_size)
    per_step = 3 * model.macs * min(train.batch_size, samples)
    if per_step * train.total_steps(samples) < WORTHWHILE_RUN[start_method().get_start_method()]:
        return 1
    return max(1, min(available_cores(), per_step // WORTHWHILE, train.batch_size // 8))


def _require_size(config: Config, size: int) -> None:
    """Make sure that a config wants as many workers as a launcher has started."""
    wanted = config.train.workers
    if wanted not in ("auto", size):
        raise UserError(
            f"train.workers is {wanted}, but the launcher has started {size} processes: "
            f"start {wanted}, or set train.workers=auto"
        )


def _on_workers(job: Job, team: MpiTeam | None, stop: Callable[[], bool], observer: Observer) -> Iterator[Event]:
    model, values = job.model, job.model.layout.size
    if team is not None:
        with team.workers(values, model.dtype, _work_afar, (_layer_files(model), job)) as far:
            yield from _logged(job, Trainer(job, far, stop, observer))
        return
    count = planned_workers(model, len(job.data.train), job.config)
    if count == 1:
        with blas_threads(1):
            yield from _logged(job, Trainer(job, SoloWorker(values, model.dtype), stop, observer))
        return
    script = _needs_script(job)
    with local_workers(count, values, model.dtype, _work, partial(_packed, job), script=script, stop=stop) as workers:
        yield from _logged(job, Trainer(job, workers, stop, observer))


def _needs_script(job: Job) -> bool:
    """Tell whether the job has objects of classes from the script that is running."""
    model, train = job.model, job.config.train
    parts = (
        *(node.layer for node in model.graph.nodes),
        *(one.loss for one in model.losses),
        train.optimizer,
        train.schedule,
    )
    return any(type(part).__module__ == "__main__" for part in parts)


def _logged(job: Job, trainer: Trainer) -> Iterator[Event]:
    if job.directory is None:
        yield from trainer.events()
        return
    # Not before the trainer could resume.
    job.directory.begin(to_yaml(job.config), trainer.best_checkpoint())
    if job.changes and job.start:
        job.directory.keep_config(job.start[1].config, trainer.state.step)
    with RunLog(job.directory, metrics(job.config), since=trainer.state.step) as log:
        for event in trainer.events():
            log.write(event)
            yield event


def _work(workers: LocalWorker, job: Job | Packed) -> None:
    """Run the program of a worker other than the first, whose events nobody reads."""
    for _ in Trainer(_unpacked(job), workers, lambda: False).events():
        pass


def _work_afar(workers: MpiWorker, receive: Receive) -> None:
    """Run the program of a worker on another machine, perhaps, which gets the job from the first one."""
    for file in receive():
        load_layers(file)
    for _ in Trainer(receive(), workers, lambda: False).events():
        pass


def _layer_files(model: Model) -> list[str]:
    """Return the user's files that define layers of the model."""
    modules = {type(node.layer).__module__ for node in model.graph.nodes}
    return [str(sys.modules[name].__file__) for name in sorted(modules) if Path(name).is_absolute()]


class Packed(NamedTuple):
    """A job on its way to a worker that shares nothing with its parent yet.

    Attributes
    ----------
    layers : list of str
        The user's files that define layers, which are run before the job can be read.
    job : bytes
        Without the images.
    images : dict of str to SharedArray
        By split: they lie in shared memory, and are not copied.
    """

    layers: list[str]
    job: bytes
    images: dict[str, SharedArray]


def _packed(job: Job, method: StartMethod) -> Job | Packed:
    """Prepare a job for workers; those that are forked have it already."""
    if forks(method):
        return job
    images: dict[str, SharedArray] = {}

    def without(name: str, split: Split) -> Split:
        pixels = split.whole.images
        if isinstance(pixels, FileRows):
            return split  # each process reads the file itself
        images[name] = SharedArray(method, pixels)
        return replace(split.whole, images=pixels[:0]).cropped(split.images.shape[2:])

    data = job.data
    train = without("train", data.train)
    validation = None if data.validation is None else without("validation", data.validation)
    test = None if data.test is None else without("test", data.test)
    job = replace(job, data=replace(data, train=train, validation=validation, test=test))
    return Packed(_layer_files(job.model), pickle.dumps(job), images)


def _unpacked(content: Job | Packed) -> Job:
    if isinstance(content, Job):
        return content
    for file in content.layers:
        load_layers(file)
    job: Job = pickle.loads(content.job)
    data, images = job.data, content.images

    def whole(name: str, split: Split | None) -> Split | None:
        if split is None or name not in images:
            return split
        return replace(split.whole, images=images[name].array).cropped(split.images.shape[2:])

    train, validation, test = whole("train", data.train), whole("validation", data.validation), whole("test", data.test)
    return replace(job, data=replace(data, train=train or data.train, validation=validation, test=test))
