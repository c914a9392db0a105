"""The search by Optuna: seeded, and from listed values and ranges alike."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cli.bars import BARS

from cnnbp_cli.config.load import ConfigText
from cnnbp_cli.sweep.outcome import Outcome
from cnnbp_cli.sweep.plan import make_plan
from cnnbp_cli.sweep.points import read_space
from cnnbp_cli.train.events import RUN_FIGURES

pytest.importorskip("optuna")


def test_points_depend_on_the_seed_and_the_outcomes_alone(tmp_path):
    from cnnbp_cli.sweep.search import optuna_search

    overrides = [
        "train.optimizer.learning_rate=log(1e-4..1)",
        "train.batch_size=int(4..32)",
        "model.init=zeros,he_normal",
    ]
    space = read_space(overrides, sampling=True)
    plan = make_plan(ConfigText(BARS, "bars", tmp_path, "bars"), space, search="optuna", samples=20, by="train_loss")

    def chosen(plan):
        outcomes, suggest = [], optuna_search(plan)
        for number in range(14):
            values = suggest(outcomes, number)
            rate, size, init = values
            assert 1e-4 <= rate <= 1
            assert size in range(4, 33)
            assert init in ("zeros", "he_normal")
            named, failed = space.named(values), number == 3
            figures = dict.fromkeys(RUN_FIGURES) | {"train_loss": None if failed else abs(rate - 0.01)}
            status = "failed" if failed else "finished"
            outcomes.append(Outcome(str(number), named, status, None, figures))
        return [one.values for one in outcomes]

    assert chosen(plan) == chosen(plan)
    assert chosen(plan) != chosen(replace(plan, seed=1))
