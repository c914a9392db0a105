"""Everything about a sweep that is settled before its first run: the points, each checked, and the folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from cnnbp_cli.build import build_graph
from cnnbp_cli.config.errors import ConfigError, Problem
from cnnbp_cli.config.load import ConfigText
from cnnbp_cli.config.schema import Config
from cnnbp_cli.config.write import to_yaml
from cnnbp_cli.data.dataset import Dataset, check_labels, load_dataset
from cnnbp_cli.errors import UserError
from cnnbp_cli.files import replacing
from cnnbp_cli.model import class_count, classifies
from cnnbp_cli.sweep.outcome import BY
from cnnbp_cli.sweep.points import Choices, Space, Values
from cnnbp_cli.train.run_directory import RunDirectory

Search = Literal["grid", "random", "optuna"]


class SweepError(UserError):
    """A sweep that cannot begin, or cannot go on."""


@dataclass(frozen=True, slots=True)
class Point:
    """One run of a sweep.

    Attributes
    ----------
    values : tuple
        One for each axis.
    named : dict
        The same by key.
    config : Config
    """

    values: Values
    named: dict[str, Any]
    config: Config


@dataclass(frozen=True, slots=True)
class Plan:
    """A sweep that can begin.

    Attributes
    ----------
    text : ConfigText
    space : Space
    search : {"grid", "random", "optuna"}
    count : int
        How many runs there will be.
    seed : int
        What draws depend on.
    points : list of Point
        All of them; for ``optuna``, which makes them up as results come in, some that stand for the others.
    by : str
        The figure to rank by.
    """

    text: ConfigText
    space: Space
    search: Search
    count: int
    seed: int
    points: list[Point]
    by: str

    def point(self, values: Values) -> Point:
        """Return the point with these values.

        Raises
        ------
        ConfigError
            When it makes no valid config.
        """
        config = self.text.parse(self.space.settings(values))
        build_graph(config)
        return Point(values, self.space.named(values), config)


def make_plan(
    text: ConfigText, space: Space, *, search: Search = "grid", samples: int = 0, seed: int = 0, by: str | None = None
) -> Plan:
    """Check every point of a sweep, its network and its data included.

    Parameters
    ----------
    text : ConfigText
    space : Space
    search : {"grid", "random", "optuna"}
    samples : int
        How many points to draw, unless all of a grid are taken.
    seed : int
        What the draws depend on.
    by : str, optional
        The figure to rank by: by default the validation accuracy, or the loss where there is no accuracy; the
        loss of training where no images are held out.

    Raises
    ------
    ConfigError
        With what is wrong with any of the points.
    DataError
        When data cannot be read, or do not fit.
    SweepError
        When there will be no such figure.
    """
    if search == "grid":
        values = space.grid()
    elif search == "random":
        values = space.sample(samples, seed)
    else:
        values = _ends(space)
    plan = Plan(text, space, search, samples if search == "optuna" else len(values), seed, [], by or "")
    plan.points.extend(_checked(plan, values))
    return replace(plan, by=_figure(plan.points, by))


def _ends(space: Space) -> list[Values]:
    """Return points that have every listed value and both ends of every range, beside the first of the others."""
    ends = [axis.values if isinstance(axis, Choices) else (axis.low, axis.high) for axis in space.axes]
    first = tuple(values[0] for values in ends)
    return [first, *((*first[:k], value, *first[k + 1 :]) for k, values in enumerate(ends) for value in values[1:])]


def _checked(plan: Plan, every: Sequence[Values]) -> list[Point]:
    points: list[Point] = []
    problems: list[tuple[Problem, Values]] = []
    for values in every:
        try:
            points.append(plan.point(values))
        except ConfigError as error:
            problems += [(problem, values) for problem in error.problems]
    if problems:
        raise ConfigError(_told(plan, problems, len(every)))
    return points


def _told(plan: Plan, problems: list[tuple[Problem, Values]], points: int) -> list[Problem]:
    """Return each problem once; of one that some points have and whose place is not in an override, name a point."""
    met: dict[Any, list[tuple[Problem, Values]]] = {}
    for problem, values in problems:
        met.setdefault((problem.span or problem.path, problem.label, problem.message), []).append((problem, values))
    told: list[Problem] = []
    for same in met.values():
        problem, values = same[0]
        if len(same) < points and not (problem.span and problem.span.source.order):
            named = " ".join(f"{key}={json.dumps(value)}" for key, value in plan.space.named(values).items())
            problem = replace(problem, message=f"{problem.message}; with {named}")
        told.append(problem)
    return told


def _figure(points: Sequence[Point], by: str | None) -> str:
    """Return the figure to rank by, having looked at all data."""
    validated = classified = tested = False
    seen: set[Any] = set()
    for point in points:
        config = point.config
        output = (graph := build_graph(config)).shapes[graph.output]
        classes = class_count(output) if classifies(config, output) else None
        validated |= bool(config.data.validation)
        classified |= classes is not None
        # The seed changes which images are held out, not whether they can be read.
        data = (replace(config.data, augment=None), config.model.input, classes)
        if data not in seen:
            seen.add(data)
            dataset = load_data(config)
            tested |= dataset.test is not None
            if classes is not None:
                check_labels(dataset, classes)
    missing = {
        "validation": None if validated else "no images are held out: set data.validation, or choose another figure",
        "test": None if tested else "the data have no test split: choose another figure",
        "accuracy": None if classified else "the model does not classify: choose a loss",
    }
    if by is None:
        return "train_loss" if not validated else "validation_accuracy" if classified else "validation_loss"
    if reason := next((reason for part in by.split("_") if (reason := missing.get(part))), None):
        raise SweepError(f"--by {by}: {reason} (of {', '.join(BY)})")
    return by


def load_data(config: Config) -> Dataset:
    """Load what a config describes, or take it from the last few that were loaded."""
    return _load_data(replace(config.data, augment=None), tuple(config.model.input), config.seed)


@lru_cache(maxsize=4)
def _load_data(data: Any, input_shape: tuple[int, ...], seed: int) -> Dataset:
    return load_dataset(data, input_shape, seed)


class Record:
    """`sweep.json` in the folder of a sweep: what it runs, so that nobody goes on with something else.

    Parameters
    ----------
    folder : Path
    plan : Plan
    resume : bool
        Go on with the sweep that the folder holds, if it does.

    Raises
    ------
    SweepError
        When the folder holds a sweep and it is not to be resumed, or is another one.
    """

    def __init__(self, folder: Path, plan: Plan, *, resume: bool) -> None:
        self.folder, self._plan = folder, plan
        self.path = folder / "sweep.json"
        self._sweep: dict[str, Any] = {
            "search": plan.search,
            "set": [part if isinstance(part, str) else part.text for part in plan.space.parts],
        }
        if plan.search != "grid":
            self._sweep |= {"samples": plan.count, "search_seed": plan.seed}
        if plan.search == "optuna":
            self._sweep["by"] = plan.by
        self.runs: list[Values] = [] if plan.search == "optuna" else [point.values for point in plan.points]
        if self.path.exists():
            if not resume:
                raise SweepError(
                    f"{folder}: holds a sweep already; continue it with --resume, or choose another folder with --out"
                )
            self._match()
        elif RunDirectory(folder).config.exists():
            raise SweepError(f"{folder}: holds a single run; choose another folder with --out")

    def _match(self) -> None:
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            begun = [[*run["set"].values()] for run in found.pop("runs")]
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            raise SweepError(f"{self.path}: is not the record of a sweep; choose another folder with --out") from None
        for key in (*self._sweep, *found):
            if found.get(key) != self._sweep.get(key):
                was, now = (json.dumps(record.get(key)) for record in (found, self._sweep))
                raise SweepError(
                    f"{self.folder}: holds another sweep: its {key} was {was}, now it is {now}; "
                    "give the same options, or choose another folder with --out"
                )
        if self._plan.search == "optuna":
            self.runs = [tuple(values) for values in begun]
        elif begun != [[*values] for values in self.runs]:
            raise SweepError(f"{self.folder}: holds another sweep: its points differ; choose another folder with --out")
        for number in range(len(self.runs)):
            config = RunDirectory(self.run(number)).config
            point = self._plan.point(self.runs[number])
            if config.exists() and config.read_text(encoding="utf-8") != to_yaml(point.config):
                raise SweepError(
                    f"{self.run(number)}: was made by another config; "
                    "resume with the config it was made by, or choose another folder with --out"
                )

    def run(self, number: int) -> Path:
        """Return the folder of a run, by its number counted from 0."""
        return self.folder / f"{number + 1:0{max(2, len(str(self._plan.count)))}}"

    def add(self, values: Values) -> None:
        """Add a run that a search came up with."""
        self.runs.append(values)
        self.write()

    def write(self) -> None:
        """Write the record; what was there is replaced at once, or not at all.

        Raises
        ------
        SweepError
            When the folder cannot be written.
        """
        runs = [
            {"run": self.run(number).name, "set": self._plan.space.named(values)}
            for number, values in enumerate(self.runs)
        ]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(self.path) as file:
                file.write(json.dumps(self._sweep | {"runs": runs}, indent=1).encode())
        except OSError as error:
            raise SweepError(f"{self.folder}: the sweep cannot be written: {error.strerror or error}") from None
