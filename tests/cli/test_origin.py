"""Which checkpoint a result rests on: untrained weights and runs that did not finish do not pass for a model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cli.bars import Command

from cnnbp_cli.build import build
from cnnbp_cli.config.load import load_config
from cnnbp_cli.loading import load_data, load_with_origin
from cnnbp_cli.train.fit import fit

UNTRAINED = "warning: these parameters are untrained: the checkpoint was saved before the first step"


def stopped(steps: int, *overrides: str) -> Path:
    """Make a run that stops after some of its eight steps."""
    config = load_config("bars.yaml", overrides)
    run, left = Path(f"stopped-{steps}"), iter([False] * steps + [True])
    list(fit(build(config), load_data(config), run=run, stop=lambda: next(left)))
    return run


@pytest.fixture(params=["evaluate", "predict", "export"])
def use(request: pytest.FixtureRequest, cnnbp: Command):  # type: ignore[no-untyped-def]
    """Use a trained model by one of the three commands, and return what is said about it."""
    np.save("image.npy", np.zeros((6, 6), np.uint8))
    rest = {"evaluate": [], "predict": ["image.npy"], "export": ["out.npz"]}[request.param]

    def call(trained: Path) -> list[str]:
        done = cnnbp(request.param, trained, *rest)
        assert done.code == 0
        return done.stderr.splitlines()

    return call


def test_untrained_weights_are_named(use) -> None:  # type: ignore[no-untyped-def]
    run = stopped(0)
    assert use(run) == [
        f"checkpoint: {run / 'checkpoints' / 'step-00000000.npz'} (the last; step 0, epoch 0)",
        UNTRAINED,
        "warning: the run did not finish; this checkpoint has made 0 of 8 steps",
    ]


def test_a_run_that_did_not_finish_is_named(use) -> None:  # type: ignore[no-untyped-def]
    run = stopped(6, "data.validation=0", "train.max_steps=8", "train.batch_size=12")
    assert use(run)[-1].startswith("warning: the run did not finish; this checkpoint has made 6 of ")


def test_the_best_of_a_run_that_did_not_finish(use) -> None:  # type: ignore[no-untyped-def]
    run = stopped(6)
    assert use(run) == [
        f"checkpoint: {run / 'checkpoints' / 'best.npz'} (the best; step 4, epoch 1)",
        "warning: the run did not finish; this checkpoint has made 4 of 8 steps",
    ]


def test_a_finished_run_and_each_of_its_checkpoints(use, bars_run: Path) -> None:  # type: ignore[no-untyped-def]
    checkpoints = bars_run / "checkpoints"
    for trained, name, which in (
        (bars_run, "best.npz", "the best; step 8, epoch 2"),
        (checkpoints / "step-00000008.npz", "step-00000008.npz", "the last; step 8, epoch 2"),
        (checkpoints / "step-00000004.npz", "step-00000004.npz", "not the last; step 4, epoch 1"),
    ):
        assert use(trained) == [f"checkpoint: {checkpoints / name} ({which})"]


def test_a_checkpoint_away_from_its_run_says_what_it_knows(use, bars_run: Path) -> None:  # type: ignore[no-untyped-def]
    Path("away.npz").write_bytes((bars_run / "checkpoints" / "step-00000008.npz").read_bytes())
    assert use(Path("away.npz")) == ["checkpoint: away.npz (not the last; step 8, epoch 2)"]


def test_a_resumed_run_is_not_finished_until_it_ends_again(cnnbp: Command) -> None:
    cnnbp("train", "bars.yaml", "--out", "run", "--quiet")
    assert load_with_origin("run")[1].finished  # type: ignore[union-attr]
    config = load_config("bars.yaml", ["train.epochs=3"])
    left = iter([False, True])
    list(fit(build(config), load_data(config), run="run", resume=True, stop=lambda: next(left)))
    origin = load_with_origin("run")[1]
    assert origin is not None
    assert (origin.finished, origin.total_steps) == (False, 12)


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_json_has_it_too(cnnbp: Command, bars_run: Path, command: str) -> None:
    np.save("image.npy", np.zeros((6, 6), np.uint8))
    images = ["image.npy"] if command == "predict" else []
    found = json.loads(cnnbp(command, bars_run, *images, "--format", "json").stdout)["checkpoint"]
    assert found == {
        "path": str(bars_run / "checkpoints" / "best.npz"),
        "kind": "best",
        "step": 8,
        "epoch": 2,
        "finished": True,
        "total_steps": 8,
        "diverged": False,
    }
