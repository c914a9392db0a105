"""What a run recorded, read back from its folder: the source of every report on a run that is over."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from cnnbp_cli.train.event_log import run_events
from cnnbp_cli.train.events import ConfigChanged, EpochDone, LayersWatched, RunFinished, StepDone
from cnnbp_cli.train.run_directory import RunDirectory, RunError


@dataclass(frozen=True, slots=True)
class History:
    """The events of one run.

    Attributes
    ----------
    run : Path
    steps : list of StepDone
    epochs : list of EpochDone
    watched : list of LayersWatched
    finished : RunFinished or None
        None when the run was stopped, or still goes on.
    changes : list of ConfigChanged
        Where the run went on under conditions that its steps before were not made under.
    """

    run: Path
    steps: list[StepDone]
    epochs: list[EpochDone]
    watched: list[LayersWatched]
    finished: RunFinished | None
    changes: list[ConfigChanged] = field(default_factory=list[ConfigChanged])


def read_history(run: Path) -> History:
    """Read the events of a run.

    Raises
    ------
    RunError
        When there is no such run, it made no step, or its events are damaged.
    """
    history = History(run, [], [], [], None)
    finished: RunFinished | None = None
    for number, event in enumerate(run_events(run), 1):
        if isinstance(event, StepDone):
            before = history.steps[-1].step if history.steps else 0
            if event.step <= before:
                raise RunError(
                    f"{RunDirectory(run).events}:{number}: is damaged: step {event.step} after step {before}"
                )
            history.steps.append(event)
        elif isinstance(event, EpochDone):
            history.epochs.append(event)
        elif isinstance(event, LayersWatched):
            history.watched.append(event)
        elif isinstance(event, ConfigChanged) and not event.safe:
            history.changes.append(event)
        elif isinstance(event, RunFinished):
            finished = event
    if not history.steps:
        raise RunError(f"{run}: has made no step yet")
    return replace(history, finished=finished)
