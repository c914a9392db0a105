"""A run directory: `config.yaml`, `events.jsonl`, `metrics.csv` and `checkpoints/*.npz`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from cnnbp_cli.data.errors import DataError, require_file
from cnnbp_cli.errors import UserError
from cnnbp_cli.files import InUseError, locked, remove_leftovers, replacing, sync
from cnnbp_cli.train.checkpoint import Checkpoint, CheckpointError
from cnnbp_cli.train.events import EpochDone, Event, RunFinished, to_dict

METRICS = (
    *("epoch", "step", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy"),
    *("learning_rate", "seconds", "images_per_second"),
)


class RunError(UserError):
    """A run directory that cannot be made, read or continued."""


class RunDirectory:
    """The folder of one run.

    Attributes
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def best(self) -> Path:
        return self.path / "checkpoints" / "best.npz"

    @contextmanager
    def reserved(self, *, resume: bool) -> Iterator[None]:
        """Make the folder, and keep it from others for the length of a block.

        Raises
        ------
        RunError
            When it cannot be written, when another process trains in it, or when it holds a run already and nobody
            means to resume it.
        """
        with ExitStack() as stack:
            try:
                self.best.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(self.path / ".lock"))
            except InUseError as error:
                raise RunError(
                    f"{self.path}: is in use by process {error}; wait for its end, or choose another with --out"
                ) from None
            except OSError as error:
                raise self._unwritable(error) from None
            if self.config.exists() and not resume:
                raise RunError(
                    f"{self.path}: holds a run already; continue it with --resume, or choose another folder with --out"
                )
            yield

    def begin(self, config: str, best: Checkpoint | None) -> None:
        """Write the complete config and the best checkpoint so far, and remove what a killed process left.

        Raises
        ------
        RunError, CheckpointError
            When they cannot be written.
        """
        try:
            for folder in (self.path, self.best.parent):
                remove_leftovers(folder)
            with replacing(self.config) as file:
                file.write(config.encode())
            if best is None:
                self.best.unlink(missing_ok=True)  # of steps that are to be made again
        except OSError as error:
            raise self._unwritable(error) from None
        if best is not None:
            best.save(self.best)

    def _unwritable(self, error: OSError) -> RunError:
        return RunError(f"{self.path}: the run directory cannot be written: {error.strerror or error}")

    @classmethod
    def next_under(cls, parent: Path, name: str) -> Path:
        """Return the first of `parent/name-1`, `name-2`, … that does not exist."""
        number = 1
        while (parent / f"{name}-{number}").exists():
            number += 1
        return parent / f"{name}-{number}"

    def checkpoints(self) -> list[Path]:
        """Return the numbered checkpoints, the latest first."""
        paths = (self.path / "checkpoints").glob("step-*.npz")
        return sorted(paths, key=lambda path: (len(path.name), path.name), reverse=True)

    def save(self, checkpoint: Checkpoint, step: int, *, best: bool, keep: int) -> Path:
        """Save a checkpoint, as the best too if it is, and drop all but the latest `keep`."""
        path = self.path / "checkpoints" / f"step-{step:08d}.npz"
        if self.events.exists():
            sync(self.events)  # after a power failure the log must not end before the checkpoint
        if best:  # first: a crash in between must not leave a step behind whose best is not there
            checkpoint.of_best().save(self.best)
        checkpoint.save(path)
        for old in self.checkpoints()[keep:]:
            old.unlink(missing_ok=True)
        return path

    def last_good(self) -> tuple[Path, Checkpoint] | None:
        """Return the latest checkpoint that can be read; None when there is none at all.

        Raises
        ------
        CheckpointError
            When there are checkpoints but none is whole.
        """
        paths = self.checkpoints()
        for path in paths:
            try:
                return path, Checkpoint.read(path)
            except CheckpointError:
                if path == paths[-1]:
                    raise
        return None

    def chosen(self) -> Path:
        """Return the checkpoint to evaluate: the best, or the last where no best was kept.

        Raises
        ------
        RunError
            When there is none.
        """
        if self.best.exists():
            return self.best
        paths = self.checkpoints()
        if not paths:
            raise RunError(f"{self.path}: holds no checkpoint; train it first")
        return paths[0]


class RunLog:
    """Writes `events.jsonl` and `metrics.csv` as events happen.

    Every line is handed to the system at once, so a process that is killed has recorded all steps up to its last
    checkpoint.

    Parameters
    ----------
    run : RunDirectory
    since : int
        Lines of an earlier attempt past this step are cut off: a resumed run repeats those steps.

    Raises
    ------
    RunError
        When they cannot be written, here and whenever an event is.
    """

    def __init__(self, run: RunDirectory, since: int = 0) -> None:
        self._run = run
        kept, end = _until(since, run.events) if since and run.events.exists() else ([], 0)
        try:
            with replacing(run.metrics) as file:
                file.write(",".join(METRICS).encode() + b"\r\n")
                for record in kept:
                    file.write(_row(record))
            self._files = [path.open("ab", buffering=0) for path in (run.events, run.metrics)]
            self._files[0].truncate(end)
        except OSError as error:
            raise self._unwritable(error) from None

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files:
            file.close()

    def write(self, event: Event) -> None:
        """Append one event."""
        record = to_dict(event)
        try:
            for file, line in zip(self._files, (json.dumps(record).encode() + b"\n", _row(record)), strict=True):
                while line:  # a disk takes a part of it before it says that it is full
                    line = line[file.write(line) :]
        except OSError as error:
            raise self._unwritable(error) from None

    def _unwritable(self, error: OSError) -> RunError:
        return RunError(
            f"{self._run.path}: the record of the run cannot be written: {error.strerror or error}; "
            "the last checkpoint is intact"
        )


def _row(record: dict[str, Any]) -> bytes:
    """Return an event's line of `metrics.csv`, empty for all but epochs."""
    text = io.StringIO()
    if record["event"] == EpochDone.event:
        csv.DictWriter(text, METRICS, extrasaction="ignore").writerow(record)
    return text.getvalue().encode()


def read_events(run: Path) -> list[dict[str, Any]]:
    """Return the events of a run, as dicts; a last line cut short by a crash is left out.

    Raises
    ------
    RunError
        When there are none, or a line is damaged.
    """
    path = RunDirectory(run).events
    lines = _lines(path)
    events = [_event(line) for line in lines]
    for number, event in enumerate(events, 1):
        if event is None and number < len(events):
            raise RunError(f"{path}:{number}: is not an event of a run")
    return [event for event in events if event is not None]


def _until(step: int, path: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the events of an earlier attempt up to a step, and where in the file they end.

    They end at the first line that is past the step, or damaged: a crash leaves damage at the end only.
    """
    kept: list[dict[str, Any]] = []
    end = 0
    for line in _lines(path):
        event = _event(line) if line.endswith(b"\n") else None
        if event is None or event.get("step", 0) > step or event["event"] == RunFinished.event:
            break
        kept.append(event)
        end += len(line)
    return kept, end


def _lines(path: Path) -> list[bytes]:
    try:
        require_file(path, "events.jsonl")
        return path.read_bytes().splitlines(keepends=True)
    except (OSError, DataError):
        raise RunError(f"{path}: cannot be read; expected the events of a run") from None


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and "event" in event else None
