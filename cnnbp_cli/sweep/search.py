"""Points that a search makes up from the results so far: Optuna's tree-structured Parzen estimator."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any

from cnnbp_cli.core.rng import generator
from cnnbp_cli.sweep.outcome import Outcome
from cnnbp_cli.sweep.plan import Plan, SweepError
from cnnbp_cli.sweep.points import Choices, Values


def optuna_search(plan: Plan) -> Callable[[Sequence[Outcome], int], Values]:
    """Return what suggests the points of a plan; each depends on the seed, its number and the outcomes alone.

    Raises
    ------
    SweepError
        When Optuna is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise SweepError("--search optuna needs Optuna, which is not installed: pip install 'cnnbp[optuna]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    axes = plan.space.axes
    distributions: dict[str, Any] = {}
    for axis in axes:
        if isinstance(axis, Choices):  # by number, as Optuna takes no lists and no mappings
            distributions[axis.key] = optuna.distributions.CategoricalDistribution(range(len(axis.values)))
        elif axis.kind == "int":
            distributions[axis.key] = optuna.distributions.IntDistribution(int(axis.low), int(axis.high))
        else:
            log = axis.kind == "log"
            distributions[axis.key] = optuna.distributions.FloatDistribution(axis.low, axis.high, log=log)

    def params(outcome: Outcome) -> dict[str, Any]:
        return {
            axis.key: [*map(repr, axis.values)].index(repr(outcome.values[axis.key]))
            if isinstance(axis, Choices)
            else outcome.values[axis.key]
            for axis in axes
        }

    def suggest(outcomes: Sequence[Outcome], number: int) -> Values:
        seed = int(generator(plan.seed, "sweep", number).integers(2**32))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Optuna calls experimental
            study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True))
            for outcome in outcomes:
                score = outcome.score(plan.by)
                trial = optuna.trial.create_trial(
                    params=params(outcome),
                    distributions=distributions,
                    value=score if isfinite(score) else float("inf"),  # a run that failed is the worst there is
                )
                study.add_trial(trial)
            found = study.ask(distributions).params
        return tuple(
            axis.values[found[axis.key]]
            if isinstance(axis, Choices)
            else found[axis.key]
            if axis.kind == "int"
            else axis.rounded(found[axis.key])
            for axis in axes
        )

    return suggest
