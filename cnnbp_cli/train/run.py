"""A run directory: `config.yaml`, `events.jsonl`, `metrics.csv` and `checkpoints/*.npz`."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import TracebackType
from typing import Any

from cnnbp_cli.data.errors import DataError, require_file
from cnnbp_cli.errors import UserError
from cnnbp_cli.train.checkpoint import Checkpoint, CheckpointError
from cnnbp_cli.train.events import EpochDone, Event, RunFinished, StepDone, to_dict

KEPT = 3  # checkpoints besides the best one

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

    def require_free(self, *, resume: bool) -> None:
        """Raise `RunError` when the folder holds a run already, and nobody means to resume it."""
        if self.config.exists() and not resume:
            raise RunError(
                f"{self.path}: holds a run already; continue it with --resume, or choose another folder with --out"
            )

    def create(self, config: str) -> None:
        """Make the folder and write the complete config into it.

        Raises
        ------
        RunError
            When it cannot be written.
        """
        try:
            self.best.parent.mkdir(parents=True, exist_ok=True)
            self.config.write_text(config, encoding="utf-8")
        except OSError as error:
            raise RunError(f"{self.path}: the run directory cannot be written: {error.strerror or error}") from None

    @classmethod
    def next_under(cls, parent: Path, name: str) -> Path:
        """Return the first of `parent/name-1`, `name-2`, … that does not exist."""
        number = 1
        while (parent / f"{name}-{number}").exists():
            number += 1
        return parent / f"{name}-{number}"

    def checkpoints(self) -> list[Path]:
        """Return the numbered checkpoints, the latest first."""
        return sorted((self.path / "checkpoints").glob("step-*.npz"), reverse=True)

    def save(self, checkpoint: Checkpoint, step: int, *, best: bool) -> Path:
        """Save a checkpoint, as the best too if it is, and drop those that are too old."""
        path = self.path / "checkpoints" / f"step-{step:08d}.npz"
        if best:  # first: a crash in between must not leave a step behind whose best is not there
            checkpoint.save(self.best)
        checkpoint.save(path)
        for old in self.checkpoints()[KEPT:]:
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

    Parameters
    ----------
    run : RunDirectory
    since : int
        Lines of an earlier attempt past this step are dropped: a resumed run repeats those steps.
    """

    def __init__(self, run: RunDirectory, since: int = 0) -> None:
        kept = _until(since, read_events(run.path)) if since and run.events.exists() else []
        self._events = run.events.open("w", encoding="utf-8")
        self._metrics = run.metrics.open("w", encoding="utf-8", newline="")
        self._table = csv.DictWriter(self._metrics, METRICS, extrasaction="ignore")
        self._table.writeheader()
        for record in kept:
            self._append(record)
        self._flush()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._events.close()
        self._metrics.close()

    def write(self, event: Event) -> None:
        """Append one event; all but steps are flushed at once."""
        self._append(to_dict(event))
        if not isinstance(event, StepDone):
            self._flush()

    def _append(self, record: dict[str, Any]) -> None:
        self._events.write(json.dumps(record) + "\n")
        if record["event"] == EpochDone.event:
            self._table.writerow(record)

    def _flush(self) -> None:
        self._events.flush()
        self._metrics.flush()


def read_events(run: Path) -> list[dict[str, Any]]:
    """Return the events of a run, as dicts; a last line cut short by a crash is left out.

    Raises
    ------
    RunError
        When there are none, or a line is damaged.
    """
    path = RunDirectory(run).events
    try:
        require_file(path, "events.jsonl")
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError, DataError):
        raise RunError(f"{path}: cannot be read; expected the events of a run") from None
    events: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        try:
            event = json.loads(line)
            if not isinstance(event, dict) or "event" not in event:
                raise ValueError
            events.append(event)
        except (ValueError, RecursionError):
            if number < len(lines):
                raise RunError(f"{path}:{number}: is not an event of a run") from None
    return events


def _until(step: int, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event.get("step", 0) <= step and event["event"] != RunFinished.event]
