"""A run's curves as a TensorBoard event file: loss, accuracy, learning rate, and every figure of every layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory

from cnnbp_cli.analysis.history import History, read_history
from cnnbp_cli.exports.errors import ExportError
from cnnbp_cli.files import WriteError, replace_file
from cnnbp_cli.train.run_directory import RunDirectory
from cnnbp_cli.train.statistics import LayerStatistics

FILE = "events.out.tfevents.cnnbp"
"""TensorBoard knows event files by the middle of the name; always the same, so that a newer export replaces it."""

Scalar = tuple[str, int, float]
"""The name of a curve, a step, and the value there."""


def export_tensorboard(run: Path, folder: Path) -> None:
    """Write what a run recorded into a folder, for `tensorboard --logdir`.

    The hour that TensorBoard shows is the time of training steps alone, counted back from the run's last event.

    Parameters
    ----------
    run : Path
        A run directory, which may still be training.
    folder : Path
        Made if it is missing; an earlier export in it is replaced.

    Raises
    ------
    ExportError, WriteError
        When tensorboard is not installed, or the folder cannot be written.
    RunError
        When there is no such run, it made no step, or its events are damaged.
    """
    history = read_history(run)
    try:
        from tensorboard.summary import Writer
    except ImportError:
        raise ExportError(
            f"{folder}: needs tensorboard, which is not installed: pip install 'cnnbp[tensorboard]'"
        ) from None
    clock = RunDirectory(run).events.stat().st_mtime - sum(step.seconds for step in history.steps)
    times: dict[int, float] = {}
    for step in history.steps:
        clock += step.seconds
        times[step.step] = clock
    with TemporaryDirectory() as temporary:
        writer = Writer(temporary)
        for name, number, value in scalars(history):
            writer.add_scalar(name, value, number, wall_time=times.get(number, clock))
        writer.close()
        (written,) = Path(temporary).iterdir()
        content = written.read_bytes()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"{folder}: cannot be made: {error.strerror or error}") from None
    replace_file(folder / FILE, content)


def scalars(history: History) -> Iterator[Scalar]:
    """Yield every point of every curve; what does not apply to the run has none."""
    for step in history.steps:
        yield "loss/train", step.step, step.loss
        if step.accuracy is not None:
            yield "accuracy/train", step.step, step.accuracy
        yield "learning_rate", step.step, step.learning_rate
        yield "grad_norm", step.step, step.grad_norm
    for epoch in history.epochs:
        yield from _given("validation", epoch.step, epoch.validation_loss, epoch.validation_accuracy)
    if history.finished is not None:
        last = history.finished
        yield from _given("test", last.step, last.test_loss, last.test_accuracy)
    for watched in history.watched:
        for layer, statistics in watched.layers.items():
            for figure in fields(LayerStatistics):
                value = getattr(statistics, figure.name)
                if value is not None:
                    yield f"{figure.name}/{layer}", watched.step, value


def _given(split: str, step: int, loss: float | None, accuracy: float | None) -> Iterator[Scalar]:
    for name, value in (("loss", loss), ("accuracy", accuracy)):
        if value is not None:
            yield f"{name}/{split}", step, value
