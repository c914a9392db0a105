"""A sweep that is stopped and goes on ends with what an uninterrupted one would have had."""

from __future__ import annotations

import os
import re
from contextlib import closing
from multiprocessing import get_context

import numpy as np
import pytest
from cli.bars import BARS

from cnnbp_cli.config.load import ConfigText
from cnnbp_cli.loading import load
from cnnbp_cli.sweep.engine import PointProgress, SweepFinished, sweep
from cnnbp_cli.sweep.outcome import Outcome, ranked
from cnnbp_cli.sweep.plan import SweepError, make_plan
from cnnbp_cli.sweep.points import read_space
from cnnbp_cli.train.events import RUN_FIGURES, EpochDone

pytestmark = pytest.mark.slow


def make_bars(folder):
    text = ConfigText(BARS.replace("epochs: 2", "epochs: 40"), "bars", folder, "bars")
    return make_plan(text, read_space(["model.layers.edges.filters=1,2,3"], sampling=False))


@pytest.fixture
def plan(tmp_path):
    return make_bars(tmp_path)


def test_interrupted_runs_go_on_from_their_checkpoints(plan, tmp_path):
    *_, straight = sweep(plan, tmp_path / "straight", jobs=1)
    epochs = []
    for event in sweep(plan, tmp_path / "broken", jobs=2, stop=lambda: bool(epochs)):
        if isinstance(event, PointProgress) and isinstance(event.event, EpochDone):
            epochs.append(event)
    assert isinstance(event, SweepFinished)
    assert event.interrupted
    assert [one.status for one in event.outcomes] == ["interrupted"] * 2
    *_, resumed = sweep(plan, tmp_path / "broken", jobs=3, resume=True)
    assert not resumed.interrupted
    assert [one.run for one in resumed.outcomes] == [one.run for one in straight.outcomes]
    assert [one.figures for one in resumed.outcomes] == [one.figures for one in straight.outcomes]
    for run in ("01", "02", "03"):
        one, other = (load(tmp_path / name / run).parameters() for name in ("straight", "broken"))
        for name, value in one.items():
            np.testing.assert_array_equal(other[name], value)


def outcome(run, accuracy, loss, status="finished"):
    figures = dict.fromkeys(RUN_FIGURES) | {"validation_accuracy": accuracy, "validation_loss": loss}
    return Outcome(run, {}, status, None, figures)


def test_equal_accuracies_are_ranked_by_the_loss_and_what_has_none_comes_last():
    every = [
        outcome("1", None, None, "failed"),
        outcome("2", 0.9, 0.3),
        outcome("3", 0.9, 0.2),
        outcome("4", 0.95, 0.5),
        outcome("5", 0.99, 0.1, "interrupted"),
        outcome("6", float("nan"), 0.1),
    ]
    assert [one.run for one in ranked(every, "validation_accuracy")] == ["4", "3", "2", "6", "5", "1"]
    assert [one.run for one in ranked(every, "validation_loss")][:4] == ["6", "3", "2", "4"]


def test_two_sweeps_do_not_share_a_folder(plan, tmp_path):
    folder = tmp_path / "one"
    with closing(sweep(plan, folder, jobs=1)) as first:
        next(first)
        in_use = rf"^{folder}: is in use by process {os.getpid()}; wait for its end, or choose another with --out$"
        with pytest.raises(SweepError, match=in_use):
            next(sweep(plan, folder, jobs=1, resume=True))
        pool = get_context("spawn").Pool(1)
        with pool:
            message = pool.apply(sweep_of, (tmp_path, folder))
        assert re.match(in_use, message)
    *_, last = sweep(plan, folder, jobs=2, resume=True)
    assert not last.interrupted


def sweep_of(parent, folder):
    """Try to go on with the sweep of another process, and return what it says."""
    try:
        next(sweep(make_bars(parent), folder, jobs=1, resume=True))
    except SweepError as error:
        return str(error)
    return ""
