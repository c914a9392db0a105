"""`sweep`: the runs of a plan, each in a process of its own, as a generator of events.

A run has one worker and one thread for its matrix products, so that its result does not depend on what runs beside it.
Where processes are forked they share the data, which the parent loads; where they are spawned each loads its own.
A run's process saves a checkpoint and ends when it is asked to stop, and ends at once when its parent is gone.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite
from multiprocessing.connection import Connection, wait
from pathlib import Path
from time import perf_counter
from typing import Any

from cnnbp_cli.build import build
from cnnbp_cli.config.custom_layers import load_layers
from cnnbp_cli.config.errors import ConfigError
from cnnbp_cli.config.load import parse_config
from cnnbp_cli.config.write import to_yaml
from cnnbp_cli.data.dataset import Dataset
from cnnbp_cli.errors import UserError
from cnnbp_cli.files import replacing, reserved
from cnnbp_cli.parallel.processes import (
    POLL_SECONDS,
    Child,
    StoppedProcesses,
    cause_of_death,
    forks,
    shared_bytes,
    start_method,
    start_process,
)
from cnnbp_cli.sweep.folder import SweepFolder
from cnnbp_cli.sweep.outcome import Outcome, ranked, read_outcome
from cnnbp_cli.sweep.plan import Plan, SweepError, load_data
from cnnbp_cli.sweep.points import Values
from cnnbp_cli.train.events import EpochDone, Event, RunStarted, StepDone
from cnnbp_cli.train.fit import fit

STEP_SECONDS = 0.2  # from one step that a run reports to the next


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

    Raises
    ------
    SweepError
        When the folder cannot be used, or another process sweeps in it.
    """
    with reserved(folder, "the sweep", SweepError):
        runs = SweepFolder(folder, plan, resume=resume)
        runs.write()
        yield from _sweep(plan, runs, _Team(stop or (lambda: False), layers), jobs, suggest)


def _sweep(plan: Plan, runs: SweepFolder, team: _Team, jobs: int, suggest: Suggest | None) -> Iterator[SweepEvent]:
    outcomes: dict[int, Outcome] = {}
    for number, values in enumerate(runs.values):
        outcome = read_outcome(runs.run(number), plan.space.named(values))
        if outcome.status != "interrupted":
            outcomes[number] = outcome
    yield SweepStarted(runs.path, plan.count, len(outcomes), jobs, plan.by)
    waiting = [number for number in range(plan.count) if number not in outcomes]
    try:
        while waiting or team.running:
            team.pass_on_stop()
            while waiting and len(team.running) < jobs and not team.stopped:
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
                if failure := team.start(number, plan, values, runs.run(number)):
                    outcomes[number] = read_outcome(runs.run(number), named, failure)
                    yield PointDone(outcomes[number])
            if not team.running:
                if team.stopped:
                    break
                continue
            for number, message in team.messages():
                run, named = runs.run(number), plan.space.named(runs.values[number])
                if isinstance(message, _Ended):
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


@dataclass(frozen=True, slots=True)
class _Ended:
    """The process of a run is gone; `failure` is why, if it is not that the run is over or was asked to stop."""

    failure: str | None


@dataclass(frozen=True, slots=True)
class _Failed:
    """What a run's process says before it ends, when it could not do its work."""

    reason: str


@dataclass(frozen=True, slots=True)
class _Job:
    """What the process of a run is given; under `fork` with the data, else with the files of the user's layers."""

    config: str
    run: Path
    data: Dataset | None
    layers: tuple[Path, ...]


class _Team:
    """The processes that are running."""

    def __init__(self, stop: Callable[[], bool], layers: Sequence[Path]) -> None:
        self._method = start_method()
        self._flag = shared_bytes(self._method, 1)
        self._stop, self._layers = stop, tuple(layers)
        self._failures: dict[int, str] = {}
        self.running: dict[int, Child] = {}
        self._stopped_processes = StoppedProcesses()

    @property
    def stopped(self) -> bool:
        return bool(self._flag[0])

    def pass_on_stop(self) -> None:
        """Tell the runs when the sweep is asked to stop."""
        if self._stop():
            self._flag[0] = 1
        named = ((f"run {number + 1}", process.pid or 0) for number, (process, _) in self.running.items())
        self._stopped_processes.look(named, go_on=self.stopped)

    def start(self, number: int, plan: Plan, values: Values, run: Path) -> str | None:
        """Start a run; return why it cannot be, if so."""
        try:
            point = plan.point(values)
            data = load_data(point.config) if forks(self._method) else None
        except ConfigError as error:
            return error.problems[0].message
        except UserError as error:
            return str(error)
        job = _Job(to_yaml(point.config), run, data, () if forks(self._method) else self._layers)
        start_process(self._method, partial(self.running.__setitem__, number), _work, job, self._flag)
        return None

    def messages(self) -> Iterator[tuple[int, Event | _Ended]]:
        """Wait a moment, and yield what runs say meanwhile."""
        numbers = {connection: number for number, (_, connection) in self.running.items()}
        for connection in wait([*numbers], POLL_SECONDS):
            assert isinstance(connection, Connection)
            number = numbers[connection]
            try:
                message = connection.recv()
            except (EOFError, OSError):
                yield number, self._end(number)
                continue
            if isinstance(message, _Failed):
                self._failures[number] = message.reason
            else:
                yield number, message

    def _end(self, number: int) -> _Ended:
        process, connection = self.running.pop(number)
        process.join()
        failure = self._failures.pop(number, None)
        if failure is None and process.exitcode:
            failure = f"its process {cause_of_death(process.exitcode)}"
        process.close()
        connection.close()
        return _Ended(failure)

    def kill(self) -> None:
        """End what is still running, at once."""
        for process, connection in self.running.values():
            process.kill()
            process.join()
            process.close()
            connection.close()
        self.running.clear()


def _work(messages: Connection, job: _Job, stop: Any) -> None:
    """Be the process of one run."""
    try:
        for file in job.layers:
            load_layers(file)
        config = parse_config(job.config, label=str(job.run))
        data = job.data or load_data(config)
        next_step = 0.0
        for event in fit(build(config), data, run=job.run, resume=True, stop=lambda: bool(stop[0])):
            if isinstance(event, StepDone):
                if perf_counter() < next_step:
                    continue
                next_step = perf_counter() + STEP_SECONDS
            if isinstance(event, RunStarted | StepDone | EpochDone):
                messages.send(event)
    except UserError as error:
        messages.send(_Failed(str(error)))
    except MemoryError:
        messages.send(_Failed("out of memory; try fewer --jobs, or a smaller train.batch_size"))
    except OSError as error:
        messages.send(_Failed(f"{error.filename}: {error.strerror}" if error.filename else str(error)))
    except Exception as error:  # a defect of the program, or of the user's layers: the other runs go on
        job.run.mkdir(parents=True, exist_ok=True)
        place = job.run / "traceback.txt"
        with replacing(place) as report:
            report.write(traceback.format_exc().encode())
        messages.send(_Failed(f"{type(error).__name__}: {error} (see {place})"))
