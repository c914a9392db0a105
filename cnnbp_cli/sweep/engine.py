"""`sweep`: the runs of a plan, as a generator of events; a `Team` does them, on this machine or on many."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from cnnbp_cli.config.errors import ConfigError
from cnnbp_cli.errors import UserError
from cnnbp_cli.files import reserved
from cnnbp_cli.sweep.folder import SweepFolder
from cnnbp_cli.sweep.local import LocalTeam
from cnnbp_cli.sweep.outcome import Outcome, ranked, read_outcome
from cnnbp_cli.sweep.plan import Plan, SweepError
from cnnbp_cli.sweep.points import Values
from cnnbp_cli.sweep.team import Ended, Team
from cnnbp_cli.train.events import Event


@dataclass(frozen=True, slots=True)
class SweepStarted:
    """A sweep begins, or goes on: `done` of its `count` runs are over already."""

    folder: Path
    count: int
    done: int
    jobs: int
    by: str


@dataclass(frozen=True, slots=True)
class PointStarted:
    """A run begins, or goes on from its last checkpoint."""

    run: str
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class PointProgress:
    """Something happened in a run: it started, an epoch is over, or one of its steps is done."""

    run: str
    event: Event


@dataclass(frozen=True, slots=True)
class PointDone:
    """A run is over, whatever became of it."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class SweepFinished:
    """A sweep is over.

    Attributes
    ----------
    folder : Path
    by : str
        What the outcomes are ranked by.
    outcomes : list of Outcome
        Of all runs that have begun, the best first.
    count : int
        How many runs there were to be.
    """

    folder: Path
    by: str
    outcomes: list[Outcome]
    count: int

    @property
    def interrupted(self) -> bool:
        """Whether there is something left to go on with."""
        return len(self.outcomes) < self.count or any(outcome.status == "interrupted" for outcome in self.outcomes)

    @property
    def best(self) -> Outcome | None:
        """The best of the runs that have the figure."""
        first = self.outcomes[0] if self.outcomes else None
        return first if first and isfinite(first.score(self.by)) else None


SweepEvent = SweepStarted | PointStarted | PointProgress | PointDone | SweepFinished

Suggest = Callable[[Sequence[Outcome], int], Values]
"""Called with the outcomes of the first runs and the number of another; returns what that one is to have."""


def sweep(
    plan: Plan,
    folder: Path,
    *,
    jobs: int,
    resume: bool = False,
    stop: Callable[[], bool] | None = None,
    layers: Sequence[Path] = (),
    suggest: Suggest | None = None,
    team: Team | None = None,
) -> Iterator[SweepEvent]:
    """Do the runs of a plan, and yield what happens.

    Parameters
    ----------
    plan : Plan
    folder : Path
        Gets a run directory for each run, and `sweep.json`.
    jobs : int
        How many runs go on at the same time.
    resume : bool
        Go on with the sweep in the folder, if there is one: finished runs are not repeated.
    stop : callable, optional
        When it returns true, runs save a checkpoint and end.
    layers : sequence of Path
        The user's files that define layers.
    suggest : callable, optional
        What makes up the points of a search as it goes.
    team : Team, optional
        What does the runs; by default processes of this machine.

    Raises
    ------
    SweepError
        When the folder cannot be used, or another process sweeps in it.
    """
    with reserved(folder, "the sweep", SweepError):
        runs = SweepFolder(folder, plan, resume=resume)
        runs.write()
        yield from _sweep(plan, runs, team or LocalTeam(layers), stop or (lambda: False), jobs, suggest)


def _sweep(
    plan: Plan, runs: SweepFolder, team: Team, stop: Callable[[], bool], jobs: int, suggest: Suggest | None
) -> Iterator[SweepEvent]:
    outcomes: dict[int, Outcome] = {}
    for number, values in enumerate(runs.values):
        outcome = read_outcome(runs.run(number), plan.space.named(values))
        if outcome.status != "interrupted":
            outcomes[number] = outcome
    yield SweepStarted(runs.path, plan.count, len(outcomes), jobs, plan.by)
    waiting = [number for number in range(plan.count) if number not in outcomes]
    try:
        stopped = False
        while waiting or team.running:
            stopped = stopped or stop()
            team.look_after(stop=stopped)
            while waiting and len(team.running) < jobs and not stopped:
                number = waiting[0]
                # What a search learns from does not depend on which of the runs beside each other ends first.
                known = range(max(0, number - jobs + 1))
                if suggest and number >= len(runs.values):
                    if not all(k in outcomes for k in known):
                        break
                    runs.add(suggest([outcomes[k] for k in known], number))
                del waiting[0]
                values = runs.values[number]
                named = plan.space.named(values)
                yield PointStarted(runs.run(number).name, named)
                if failure := _start(team, number, plan, values, runs.run(number)):
                    outcomes[number] = read_outcome(runs.run(number), named, failure)
                    yield PointDone(outcomes[number])
            if not team.running:
                if stopped:
                    break
                continue
            for number, message in team.messages():
                run, named = runs.run(number), plan.space.named(runs.values[number])
                if isinstance(message, Ended):
                    outcomes[number] = read_outcome(run, named, message.failure)
                    yield PointDone(outcomes[number])
                else:
                    yield PointProgress(run.name, message)
    finally:
        team.kill()
    for number in waiting:  # those that an earlier attempt began
        if number < len(runs.values) and runs.run(number).exists():
            outcomes[number] = read_outcome(runs.run(number), plan.space.named(runs.values[number]))
    yield SweepFinished(runs.path, plan.by, ranked([*outcomes.values()], plan.by), plan.count)


def _start(team: Team, number: int, plan: Plan, values: Values, run: Path) -> str | None:
    """Start a run; return why it cannot be, if so."""
    try:
        team.start(number, plan.point(values).config, run)
    except ConfigError as error:
        return error.problems[0].message
    except UserError as error:
        return str(error)
    return None
