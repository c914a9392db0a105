"""The events of a run on disk, `events.jsonl` and `metrics.csv`: written as they happen, and read back."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from cnnbp_cli.config.schema import Config
from cnnbp_cli.config.sources import inside, meant
from cnnbp_cli.data.errors import DataError, require_file
from cnnbp_cli.files import appending, replacing
from cnnbp_cli.train.events import EPOCH_FIGURES, EpochDone, Event, RunFinished, StepDone, from_dict, to_dict
from cnnbp_cli.train.run_directory import RunDirectory, RunError

METRICS = ("epoch", "step", *EPOCH_FIGURES, "learning_rate", "seconds", "images_per_second")


def metrics(config: Config) -> tuple[str, ...]:
    """Return the columns of `metrics.csv`: with `train.losses`, there is one more for each of them."""
    return (*METRICS, *(f"train_loss.{one.layer}" for one in (config.losses if config.train.losses else ())))


def metrics_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an epoch, as a dict, has in these columns."""
    return {**record, **{f"train_loss.{layer}": loss for layer, loss in (record.get("train_losses") or {}).items()}}


class RunLog:
    """Writes `events.jsonl` and `metrics.csv` as events happen.

    Every line is handed to the system at once, so a process that is killed has recorded all steps up to its last
    checkpoint.

    Parameters
    ----------
    run : RunDirectory
    columns : tuple of str
        Those of `metrics.csv`.
    since : int
        Lines of an earlier attempt past this step are cut off: a resumed run repeats those steps.

    Raises
    ------
    RunError
        When they cannot be written, here and whenever an event is.
    """

    def __init__(self, run: RunDirectory, columns: tuple[str, ...] = METRICS, since: int = 0) -> None:
        self._run, self._columns = run, columns
        kept, end = _until(since, run.events) if since and run.events.exists() else ([], 0)
        try:
            with replacing(run.metrics) as file:
                file.write(",".join(self._columns).encode() + b"\r\n")
                for record in kept:
                    file.write(self._row(record))
            self._files = [appending(path) for path in (run.events, run.metrics)]
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
            for file, line in zip(self._files, (json.dumps(record).encode() + b"\n", self._row(record)), strict=True):
                while line:  # a disk takes a part of it before it says that it is full
                    line = line[file.write(line) :]
        except OSError as error:
            raise self._unwritable(error) from None

    def _row(self, record: dict[str, Any]) -> bytes:
        """Return an event's line of `metrics.csv`, empty for all but epochs."""
        text = io.StringIO()
        if record["event"] == EpochDone.event:
            csv.DictWriter(text, self._columns, extrasaction="ignore").writerow(metrics_of(record))
        return text.getvalue().encode()

    def _unwritable(self, error: OSError) -> RunError:
        return RunError(
            f"{self._run.path}: the record of the run cannot be written: {error.strerror or error}; "
            "the last checkpoint is intact"
        )


def run_events(run: Path, *, without: tuple[type[Event], ...] = ()) -> Iterator[Event]:
    """Yield the events of a run; a last line that a crash has cut short is left out.

    Parameters
    ----------
    run : Path
    without : tuple of event types
        Those that are not wanted: the lines of steps are many, and parsing them takes most of the time.

    Raises
    ------
    RunError
        When there is no such run, or its events are damaged.
    """
    directory = RunDirectory(run)
    directory.require_files()
    if not run.is_dir() or not directory.events.exists():
        nearest = meant(run, file=False, template=False) if not run.exists() else ""
        if runs := inside(run, file=False):
            nearest = f"; expected one{runs}"
        raise RunError(f"{run}: is not a run directory{nearest or '; `cnnbp train` makes one from a config'}")
    for number, record in _numbered(directory.events, tuple(_start(kind) for kind in without)):
        try:
            yield from_dict(record)
        except ValueError:
            raise _damaged(directory.events, number) from None


def read_events(run: Path) -> list[dict[str, Any]]:
    """Return the events of a run, as dicts; a last line cut short by a crash is left out.

    Raises
    ------
    RunError
        When there are none, or a line is damaged.
    """
    RunDirectory(run).require_files()
    return [record for _, record in _numbered(RunDirectory(run).events)]


def last_step(run: Path) -> int:
    """Return the last step that a run recorded; 0 where it has made none.

    Raises
    ------
    RunError
        When its events cannot be read.
    """
    start = _start(StepDone)
    records = (_record(line) for line in reversed(_lines(RunDirectory(run).events)) if line.startswith(start))
    return next((step for record in records if record and isinstance(step := record.get("step"), int)), 0)


def _numbered(path: Path, unwanted: tuple[bytes, ...] = ()) -> Iterator[tuple[int, dict[str, Any]]]:
    lines = _lines(path)
    for number, line in enumerate(lines, 1):
        if unwanted and line.startswith(unwanted) and line.endswith(b"\n"):
            continue
        record = _record(line)
        if record is not None:
            yield number, record
        elif number < len(lines):
            raise _damaged(path, number)


def _until(step: int, path: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the events of an earlier attempt up to a step, and where in the file they end.

    They end at the first line that is past the step, or damaged: a crash leaves damage at the end only.
    """
    kept: list[dict[str, Any]] = []
    end = 0
    for line in _lines(path):
        record = _record(line) if line.endswith(b"\n") else None
        if record is None or record.get("step", 0) > step or record["event"] == RunFinished.event:
            break
        kept.append(record)
        end += len(line)
    return kept, end


def _start(kind: type[Event]) -> bytes:
    """Return what the lines of an event begin with."""
    return json.dumps({"event": kind.event})[:-1].encode()


def _lines(path: Path) -> list[bytes]:
    try:
        require_file(path, "events.jsonl")
        return path.read_bytes().splitlines(keepends=True)
    except (OSError, DataError):
        raise RunError(f"{path}: cannot be read; expected the events of a run") from None


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and "event" in record else None


def _damaged(path: Path, number: int) -> RunError:
    return RunError(f"{path}:{number}: is not an event of a run")
