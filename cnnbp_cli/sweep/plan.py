"""Everything about a sweep that is settled before its first run: the points, each of them checked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

from cnnbp_cli.build import build_graph, require_target
from cnnbp_cli.config.errors import ConfigError, Problem
from cnnbp_cli.config.load import ConfigText
from cnnbp_cli.config.schema import Config
from cnnbp_cli.data.dataset import Dataset, Task, check_labels, load_dataset
from cnnbp_cli.errors import UserError
from cnnbp_cli.model import class_count, classifies, task_of
from cnnbp_cli.sweep.outcome import BY
from cnnbp_cli.sweep.points import Choices, Space, Values

Search = Literal["grid", "random", "optuna"]


class SweepError(UserError):
    """A sweep that cannot begin, or cannot go on."""


@dataclass(frozen=True, slots=True)
class SweepPoint:
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
    points : list of SweepPoint
        All of them; for ``optuna``, which makes them up as results come in, some that stand for the others.
    by : str
        The figure to rank by.
    """

    text: ConfigText
    space: Space
    search: Search
    count: int
    seed: int
    points: list[SweepPoint]
    by: str

    def point(self, values: Values) -> SweepPoint:
        """Return the point with these values.

        Raises
        ------
        ConfigError
            When it makes no valid config.
        """
        config = self.text.parse(self.space.settings(values))
        require_target(config, build_graph(config))
        return SweepPoint(values, self.space.named(values), config)


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


def _checked(plan: Plan, every: Sequence[Values]) -> list[SweepPoint]:
    points: list[SweepPoint] = []
    problems: list[tuple[Problem, Values]] = []
    for values in every:
        try:
            points.append(plan.point(values))
        except ConfigError as error:
            problems += [(problem, values) for problem in error.problems]
    if problems:
        raise ConfigError(_distinct(plan, problems, len(every)))
    return points


def _distinct(plan: Plan, problems: list[tuple[Problem, Values]], points: int) -> list[Problem]:
    """Return each problem once; of one that some points have and whose place is not in an override, name a point."""
    met: dict[Any, list[tuple[Problem, Values]]] = {}
    for problem, values in problems:
        met.setdefault((problem.span or problem.path, problem.label, problem.message), []).append((problem, values))
    distinct: list[Problem] = []
    for same in met.values():
        problem, values = same[0]
        if len(same) < points and not (problem.span and problem.span.source.order):
            named = " ".join(f"{key}={json.dumps(value)}" for key, value in plan.space.named(values).items())
            problem = replace(problem, message=f"{problem.message}; with {named}")
        distinct.append(problem)
    return distinct


def _figure(points: Sequence[SweepPoint], by: str | None) -> str:
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
    output = (graph := build_graph(config)).shapes[graph.output]
    data = replace(config.data, augment=None)
    return _load_data(data, tuple(config.model.input), config.seed, task_of(config, output))


@lru_cache(maxsize=4)
def _load_data(data: Any, input_shape: tuple[int, ...], seed: int, task: Task) -> Dataset:
    return load_dataset(data, input_shape, seed, task)
