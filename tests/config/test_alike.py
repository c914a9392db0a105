"""Configs that are read section by section say what they say as a whole."""

from __future__ import annotations

import pytest

from cnnbp_cli.config import alike, templates
from cnnbp_cli.config.differences import flat
from cnnbp_cli.config.errors import ConfigError
from cnnbp_cli.config.load import parse_config
from cnnbp_cli.config.write import to_dict, to_yaml

TOY = to_yaml(parse_config(templates.template("toy").text))
"""As a run keeps it."""


def as_a_whole(text: str) -> dict[str, object] | str:
    try:
        return dict(flat(to_dict(parse_config(text))))
    except ConfigError as error:
        return str(error)


def by_sections(text: str) -> dict[str, object] | str:
    try:
        return alike.values_of(text)
    except ConfigError as error:
        return str(error)


@pytest.mark.parametrize("name", templates.names())
def test_every_template(name: str) -> None:
    text = templates.template(name).text
    for written in (text, to_yaml(parse_config(text))):
        found, expected = by_sections(written), as_a_whole(written)
        assert found == expected
        assert [*found] == [*expected]  # in the same order


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("  loss: binary_cross_entropy\n", ""),  # which the head decides
        ("binary_cross_entropy", "mse"),
        ("binary_cross_entropy", "cross_entropy"),  # sections that contradict each other
        ("early_stopping: null", "early_stopping: {monitor: validation_loss}"),
        ("seed: 0", "seed: -1"),
        ("seed: 0", "seed: &a 0"),
        ("seed: 0", "# nothing\nseed: 0"),
        ("seed: 0", ""),
        ("seed: 0", "seed: 0\nseed: 1"),
        ("seed: 0", "seed: 0\nsed: 1"),
        ("seed: 0", 'seed: 0\n"dtype": float64'),
        ("seed: 0", "seed: 0\n---"),
        ("seed: 0", 'seed: "0\nname: a"'),
        ("dtype: float32", "dtype: {a: 1,\nseed: 2}"),
        ("  epochs: 10", "  epochs: ten"),
        ("  epochs: 10", "  epochs: *a"),
        ("  epochs: 10", "  epochs: 10\n<<: {seed: 3}"),
        ("name: toy", "name: |\n  a\n  seed: 3"),
        ("name: toy", "\tname: toy"),
        ("name: toy", "name: toy\x85seed: 3"),
        ("filters: 1", "filters: 0"),
        ("model:", "mdoel:"),
        ("model:", "model: {}\nmodels:"),
    ],
)
def test_every_other_text(old: str, new: str) -> None:
    text = TOY.replace(old, new)
    assert text != TOY
    assert by_sections(TOY) == as_a_whole(TOY)
    assert by_sections(text) == as_a_whole(text)


def test_blocks() -> None:
    blocks = TOY.replace("  layers:\n", "  blocks:\n    act: {layers: [relu]}\n  layers:\n    - block: act\n")
    assert by_sections(blocks) == as_a_whole(blocks)


def test_what_configs_share_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    original = alike.parse_section

    def counted(text: str, key: str) -> object:
        read.append(key)
        return original(text, key)

    monkeypatch.setattr(alike, "parse_section", counted)
    alike._section.cache_clear()
    for seed in range(5):
        for rate in ("0.01", "0.02"):
            values = alike.values_of(TOY.replace("seed: 0", f"seed: {seed}").replace("0.02", rate))
            assert (values["seed"], values["train.optimizer.learning_rate"]) == (seed, float(rate))
    assert {key: read.count(key) for key in alike.SECTIONS} == {
        **{"name": 1, "seed": 5, "dtype": 1, "data": 1, "model": 1, "train": 2}
    }
