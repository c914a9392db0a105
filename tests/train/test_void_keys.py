"""Keys without effect: each that is named has none, and none is named where it has one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cnnbp_cli.config.load import load_config, parse_config
from cnnbp_cli.config.void import Counts, void_keys
from cnnbp_cli.train.fit import fit

ONE_CYCLE = "train.schedule={type: one_cycle, max_learning_rate: 0.1}"

CASES = [
    # What is set, the key that is void, and the same config with another value of it (or without it).
    ([ONE_CYCLE], "train.optimizer.learning_rate=0.5", "train.optimizer.learning_rate=0.001"),
    (["train.schedule.type=linear_warmup", "train.schedule.start_factor=1"], "train.schedule.steps=3", None),
    (["train.schedule.type=step", "train.schedule.gamma=1"], "train.schedule.step_size=1", None),
    (["train.schedule.type=step"], "train.schedule.step_size=2", None),
    (["train.schedule.type=multi_step"], "train.schedule.milestones=[2, 3]", None),
    (["train.schedule.type=multi_step", "train.schedule.gamma=1"], "train.schedule.milestones=[1]", None),
    (["train.schedule.type=reduce_on_plateau"], "train.schedule.patience=1", None),
    (
        ["train.schedule={type: linear_warmup, steps: 2, then: step}"],
        "train.schedule.then.step_size=2",
        "train.schedule.then=constant",
    ),
    (["train.schedule={type: linear_warmup, steps: 12}"], "train.schedule.then=cosine", "train.schedule.then=null"),
    (["train.early_stopping={}"], "train.early_stopping.patience=2", "train.early_stopping=null"),
    ([], "train.max_steps=12", "train.max_steps=null"),
    (["train.max_steps=6"], "train.epochs=2", "train.epochs=1"),
    (["train.max_steps=6"], "train.epochs=9", "train.epochs=1"),
    ([], "train.batch_size=45", "train.batch_size=44"),
    ([], "train.checkpoint_every=6", "train.checkpoint_every=null"),
    ([], "train.checkpoint_every=12", "train.checkpoint_every=null"),
    ([], "data.augment={shift: 0, rotate: 0}", "data.augment=null"),
    ([], "data.limit={train: 55}", "data.limit=null"),
    ([], "data.limit.test=21", "data.limit=null"),
    (["model.layers=[flatten, {type: dense, units: 2, init: zeros}]"], "model.init=orthogonal", "model.init=he_normal"),
    (["train.batch_size=2"], "train.workers=3", "train.workers=2"),
]


def void(setup, *overrides):
    model, data = setup(*overrides)
    counts = Counts(len(data.train), len(data.validation or ()), len(data.test or ()))
    return model, data, {found.key: found for found in void_keys(model.config, counts)}


@pytest.mark.parametrize(("settings", "override", "other"), CASES, ids=[case[1] for case in CASES])
def test_a_key_that_is_named_has_no_effect(setup, settings, override, other):
    model, data, found = void(setup, *settings, override)
    key = override.split("=")[0]
    key = "data.limit.train" if override == "data.limit={train: 55}" else key
    assert str(found[key]).startswith(f"{key} has no effect: ")
    without = [*settings, other] if other else []
    twin, same, _ = void(setup, *without)
    first, second = list(fit(model, data)), list(fit(twin, same))
    np.testing.assert_array_equal(model.vector, twin.vector)
    assert first[-1].test_loss == second[-1].test_loss


HAVE_EFFECT = [
    ["train.optimizer.learning_rate=0.5"],
    ["train.optimizer=adam", ONE_CYCLE, "train.schedule.max_learning_rate=0.2"],
    [
        "train.optimizer.learning_rate=0.5",
        "train.schedule={type: linear_warmup, steps: 2, then: " + ONE_CYCLE[15:] + "}",
    ],
    ["train.schedule={type: linear_warmup, steps: 3, start_factor: 1, then: cosine}"],
    ["train.schedule={type: step, step_size: 1}"],
    ["train.schedule={type: multi_step, milestones: [1, 5]}"],
    ["train.schedule={type: reduce_on_plateau, patience: 0}"],
    ["train.early_stopping={patience: 1}"],
    ["train.max_steps=11"],
    ["train.max_steps=7", "train.epochs=2"],
    ["train.batch_size=44"],
    ["train.checkpoint_every=5"],
    ["data.augment={rotate: 1}"],
    ["data.limit={train: 53, test: 19}"],
    ["model.init=orthogonal"],
    ["train.workers=8"],
    ["train.clip_norm=1", "train.label_smoothing=0.1", "data.normalize=unit", "train.keep_checkpoints=1"],
]


@pytest.mark.parametrize("overrides", HAVE_EFFECT, ids=" ".join)
def test_a_key_with_an_effect_is_not_named(setup, overrides):
    assert not void(setup, *overrides)[2]


def test_defaults_and_what_only_the_text_has_are_not_named(setup):
    """The learning rate of a config is void under one_cycle, but nobody asked for its default."""
    default = "train.optimizer={type: adam, learning_rate: 0.001}"
    assert not void(setup, ONE_CYCLE, default)[2]
    text = (
        "train: {epochs: 9, max_steps: 6}\ndata: {source: mnist-subset}\nmodel: {input: [1, 28, 28], layers: [flatten]}"
    )
    assert not void_keys(parse_config(text), Counts(64))
    assert [found.key for found in void_keys(parse_config(text, ["train.epochs=8"]), Counts(64))] == ["train.epochs"]


def test_a_csv_without_a_test_file_has_nothing_to_limit(tmp_path):
    text = "data: {source: csv, path: a.csv, limit: {test: 5}}\nmodel: {input: [1, 2, 2], layers: [flatten]}"
    assert [found.key for found in void_keys(parse_config(text))] == ["data.limit.test"]


@pytest.mark.parametrize(
    "config",
    sorted([*Path("configs").glob("*.yaml"), *(Path(__file__).parent.parent / "healthy").glob("*.yaml")]),
    ids=lambda path: path.stem,
)
def test_sound_configs_have_none(config):
    assert not void_keys(load_config(config))
