"""The runs of a folder: what became of each, how good it is, and what sets its config apart."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any

from cnnbp_cli.config import templates
from cnnbp_cli.config.alike import values_of
from cnnbp_cli.config.differences import flat
from cnnbp_cli.config.errors import ConfigError, suggestion
from cnnbp_cli.config.load import parse_config, read_config
from cnnbp_cli.config.sources import RUNS, is_there, meant, natural, runs_under
from cnnbp_cli.config.write import to_dict
from cnnbp_cli.errors import UserError
from cnnbp_cli.files import holder
from cnnbp_cli.train.event_log import last_step, run_events
from cnnbp_cli.train.events import (
    CheckpointSaved,
    EpochDone,
    Interrupted,
    LayersWatched,
    NonFinite,
    RunFinished,
    RunStarted,
    StepDone,
    StoppedEarly,
)
from cnnbp_cli.train.run_directory import RunDirectory, RunError

STATES = ("running", "finished", "stopped-early", "diverged", "non-finite", "interrupted", "killed", "damaged")
"""What may become of a run; *killed* is one whose record ends without a word, *damaged* one that cannot be read."""

FIGURES = ("validation_accuracy", "validation_loss", "test_accuracy", "test_loss", "train_accuracy", "train_loss")


class RunsError(UserError):
    """A folder that is not there, or a filter or an order that means nothing."""


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run.

    Attributes
    ----------
    run : str
        Its path.
    name : str
        That of its config.
    state : str
        One of `STATES`.
    epoch, epochs : int
        Made, and planned.
    step, total_steps : int
        Likewise.
    best_epoch : int or None
        The epoch whose parameters the run keeps: the best by the monitored figure, or the last.
    figures : dict of str to float or None
        By the names in `FIGURES`: those of that epoch, and those of the test.
    recorded_at : float
        When the last event was recorded, in seconds since 1970.
    config : dict of str to object
        By keys as after `--set`; empty where it cannot be read.
    differs_from : {"template", "runs"} or None
        What `differences` are from: the template of that name, or the other runs of that name.
    differences : dict of str to object
        The values of this run.
    problem : str or None
        Why the record, or the config, cannot be read.
    """

    run: str
    name: str
    state: str
    epoch: int = 0
    epochs: int = 0
    step: int = 0
    total_steps: int = 0
    best_epoch: int | None = None
    figures: dict[str, float | None] = field(default_factory=lambda: dict.fromkeys(FIGURES))
    recorded_at: float = 0.0
    config: dict[str, Any] = field(default_factory=dict[str, Any])
    differs_from: str | None = None
    differences: dict[str, Any] = field(default_factory=dict[str, Any])
    problem: str | None = None

    @property
    def age(self) -> float:
        """Seconds since something was recorded."""
        return max(0.0, time.time() - self.recorded_at)

    @property
    def accuracy(self) -> float | None:
        """On the validation images; without any, on the test images."""
        return _first(self.figures["validation_accuracy"], self.figures["test_accuracy"])

    @property
    def loss(self) -> float | None:
        """On the validation images; without any, on the test images; before the test, on the training images."""
        return _first(self.figures["validation_loss"], self.figures["test_loss"], self.figures["train_loss"])

    def to_dict(self) -> dict[str, Any]:
        return {
            **{"run": self.run, "name": self.name, "state": self.state, "epoch": self.epoch, "epochs": self.epochs},
            **{"step": self.step, "total_steps": self.total_steps, "best_epoch": self.best_epoch},
            **self.figures,
            "recorded_at": datetime.fromtimestamp(self.recorded_at, UTC).isoformat(timespec="seconds"),
            **{"differs_from": self.differs_from, "differences": self.differences, "problem": self.problem},
        }


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)


def runs_of(folder: Path) -> list[RunRow]:
    """Return the runs in a folder and in those below it, such as the folders of sweeps; a damaged one is a row, too.

    Raises
    ------
    RunsError
        When the folder is not there; without a folder of runs there are none.
    """
    if not is_there(folder) and folder != RUNS:
        raise RunsError(f"{folder}: no such folder{meant(folder, file=False, template=False)}")
    if folder.is_file():
        raise RunsError(f"{folder}: is a file; name a folder of runs")
    return _with_differences([_row(run) for run in runs_under(folder)])


def _row(run: Path) -> RunRow:
    directory = RunDirectory(run)
    config, problem = _config(directory)
    try:
        recorded_at = directory.events.stat().st_mtime
    except OSError:
        recorded_at = 0.0
    row = RunRow(str(run), str(config.get("name", run.name)), "damaged", recorded_at=recorded_at, config=config)
    try:
        row = _from_events(run, row)
    except RunError as error:
        return replace(row, problem=str(error))
    if holder(run / ".lock") is not None:
        row = replace(row, state="running")
    return replace(row, problem=problem)


def _from_events(run: Path, row: RunRow) -> RunRow:
    """Return a row with what the run recorded; every attempt begins with a `RunStarted`."""
    started: RunStarted | None = None
    finished: RunFinished | None = None
    epochs: dict[int, EpochDone] = {}
    state, best = "killed", 0
    for event in run_events(run, without=(StepDone, LayersWatched)):
        if isinstance(event, RunStarted):
            started, finished, state = event, None, "killed"
        elif isinstance(event, EpochDone):
            epochs[event.step] = event
        elif isinstance(event, CheckpointSaved) and event.best:
            best = event.step
        elif isinstance(event, StoppedEarly):
            state = "stopped-early"
        elif isinstance(event, NonFinite):
            state = "non-finite"
        elif isinstance(event, Interrupted):
            state = "interrupted"
        elif isinstance(event, RunFinished):
            finished = event
            state = "diverged" if event.diverged else "finished" if state == "killed" else state
    kept = epochs.get(best) or (epochs[max(epochs)] if epochs else None)
    return replace(
        row,
        state=state,
        epoch=max((done.epoch for done in epochs.values()), default=0),
        epochs=started.epochs if started else 0,
        step=finished.step if finished else last_step(run),
        total_steps=started.total_steps if started else 0,
        best_epoch=kept.epoch if kept else None,
        figures={
            name: getattr(finished if name.startswith("test") else kept or finished, name, None) for name in FIGURES
        },
    )


def _config(directory: RunDirectory) -> tuple[dict[str, Any], str | None]:
    """Return the values of a run's config, or why it cannot be read."""
    try:
        return values_of(read_config(directory.config).text), None
    except ConfigError as error:
        return {}, str(error).splitlines()[0]


def _with_differences(rows: Sequence[RunRow]) -> list[RunRow]:
    """Return the runs with what sets each apart from the template of its name, or from the others of its name."""
    shipped = set(templates.names())
    by_name: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row.config:
            by_name.setdefault(row.name, []).append(row.config)
    different = {name: _not_all_equal(configs) for name, configs in by_name.items() if name not in shipped}
    return [
        _with_own(row, "template", _not_all_equal([row.config, _template(row.name)]))
        if row.config and row.name in shipped
        else _with_own(row, "runs", different[row.name])
        if row.config and len(by_name[row.name]) > 1
        else row
        for row in rows
    ]


def _not_all_equal(configs: Sequence[dict[str, Any]]) -> list[str]:
    """Return the keys that some of the configs have another value for than the first."""
    first, *others = configs
    keys = dict.fromkeys(first)
    different: set[str] = set()
    for other in others:
        if other != first:
            keys.update(dict.fromkeys(other))
            different |= {key for key in keys if other.get(key) != first.get(key)}
    return [key for key in keys if key in different]


def _with_own(row: RunRow, differs_from: str, different: Sequence[str]) -> RunRow:
    """Return a run with its values of the keys that differ."""
    own = {key: row.config.get(key) for key in different}
    for key in different:  # a layer or a section that is of another kind differs as a whole
        above = key.rpartition(".")[0]
        if own[key] is None and key not in row.config and f"{above}.type" in own:
            del own[key]
    return replace(row, differs_from=differs_from, differences=own)


@lru_cache(maxsize=64)
def _template(name: str) -> dict[str, Any]:
    return dict(flat(to_dict(parse_config(templates.template(name).text, name=name))))


ORDERS: dict[str, Callable[[RunRow], Any]] = {
    "age": lambda row: row.age,
    "run": lambda row: [*map(natural, Path(row.run).parts)],
    "name": lambda row: (row.name, [*map(natural, Path(row.run).parts)]),
    "state": lambda row: STATES.index(row.state),
    "epoch": lambda row: -row.epoch,
    "accuracy": lambda row: None if row.accuracy is None else -row.accuracy,
    "loss": lambda row: row.loss,
    **{
        name: (lambda row, name=name: _ordered(row.figures[name], falling=name.endswith("accuracy")))  # type: ignore[misc]
        for name in FIGURES
    },
}
"""What runs may be sorted by: the newest, the best or the first in the alphabet comes first."""


def _ordered(value: float | None, *, falling: bool) -> float | None:
    return -value if falling and value is not None else value


def sorted_runs(rows: Sequence[RunRow], by: str) -> list[RunRow]:
    """Return the runs in an order of `ORDERS`, those without such a figure last."""
    key = ORDERS[by]
    known = [row for row in rows if key(row) is not None]
    return sorted(known, key=key) + [row for row in rows if key(row) is None]


_FILTER = re.compile(r"\s*([\w.-]+?)\s*(<=|>=|!=|=|<|>)\s*(.+?)\s*", re.DOTALL)
_DURATION = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_OF_ROW: dict[str, Callable[[RunRow], Any]] = {
    "run": lambda row: row.run,
    "name": lambda row: row.name,
    "state": lambda row: row.state,
    "epoch": lambda row: row.epoch,
    "epochs": lambda row: row.epochs,
    "step": lambda row: row.step,
    "best_epoch": lambda row: row.best_epoch,
    "age": lambda row: row.age,
    "accuracy": lambda row: row.accuracy,
    "loss": lambda row: row.loss,
    **{name: (lambda row, name=name: row.figures[name]) for name in FIGURES},  # type: ignore[misc]
}


def filtered(rows: Sequence[RunRow], conditions: Sequence[str]) -> list[RunRow]:
    """Return the runs that meet every condition: ``state=finished``, ``accuracy>0.98``, ``train.batch_size=32``, ….

    Keys are those of `RunRow` and, with their dots, of the config. Words may have ``*`` and ``?``, an age ends in
    s, m, h, d or w, a percentage in %.

    Raises
    ------
    RunsError
        When a condition cannot be read, or its key is of no run.
    """
    kept = [*rows]
    for condition in conditions:
        match = _FILTER.fullmatch(condition)
        if not match:
            raise RunsError(f"--filter {condition}: expected KEY=VALUE, or another of != < > <= >= in between")
        key, sign, wanted = match.groups()
        of_config = {name for row in rows for name in row.config}
        if key not in _OF_ROW and key not in of_config and rows:
            raise RunsError(
                f"--filter {condition}: unknown key '{key}'{suggestion(key, [*_OF_ROW, *sorted(of_config)])}"
            )
        if key == "state" and not any(fnmatchcase(state, wanted) for state in STATES):
            raise RunsError(f"--filter {condition}: unknown state '{wanted}'{suggestion(wanted, STATES)}")
        value_of = _OF_ROW.get(key) or (lambda row, key=key: row.config.get(key))  # type: ignore[misc]
        if sign not in ("=", "!=") and _number(wanted) is None:
            kind = "an age, such as 12h or 7d" if key == "age" else "a number"
            raise RunsError(f"--filter {condition}: expected {kind}, got '{wanted}'")
        kept = [row for row in kept if _meets(value_of(row), sign, wanted)]
    return kept


def _meets(value: Any, sign: str, wanted: str) -> bool:
    number = _number(wanted)
    if isinstance(value, int | float) and not isinstance(value, bool) and number is not None:
        compared = {"=": value == number, "<": value < number, ">": value > number}
        compared |= {"<=": value <= number, ">=": value >= number, "!=": value != number}
        return compared[sign]
    same = value is not None and fnmatchcase(value if isinstance(value, str) else json.dumps(value), wanted)
    return same if sign == "=" else sign == "!=" and not same


def _number(text: str) -> float | None:
    """Return a number; a percentage, or a duration in seconds, too."""
    match = re.fullmatch(r"([-+]?[\d.]+(?:e[-+]?\d+)?)\s*([smhdw%]?)", text, re.IGNORECASE)
    try:
        number = float(match[1]) if match else None
    except ValueError:
        return None
    if match is None or number is None or not match[2]:
        return number
    return number / 100 if match[2] == "%" else number * _DURATION[match[2].lower()]
