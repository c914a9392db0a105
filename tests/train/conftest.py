"""What the training tests share: a network with everything that has a state, small enough to train in milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from cnnbp_cli.build import build
from cnnbp_cli.config.load import parse_config
from cnnbp_cli.data.dataset import Dataset
from cnnbp_cli.loading import load_data
from cnnbp_cli.model import Model

CONFIG = """
name: bars
data:
  source: synthetic
  kind: bars
  train: 54                  # 44 remain: five batches of eight and one of four
  test: 20
  validation: 10
model:
  input: [1, 6, 6]
  layers:
    - {type: conv2d, name: conv, filters: 3, kernel_size: 3}
    - {type: batch_norm, name: norm}
    - relu
    - {type: max_pool2d, pool_size: 2}
    - flatten
    - {type: dropout, rate: 0.2}
    - {type: dense, name: last, units: 2}
  head: softmax
train:
  epochs: 2
  batch_size: 8
  optimizer: {type: adam, learning_rate: 0.01}
  workers: 1
"""

Setup = Callable[..., tuple[Model, Dataset]]


@pytest.fixture
def setup() -> Setup:
    """Return a function that builds the model and loads its data, given overrides."""

    def make(*overrides: str) -> tuple[Model, Dataset]:
        model = build(parse_config(CONFIG, overrides))
        return model, load_data(model)

    return make


@pytest.fixture
def after() -> Callable[[int], Callable[[], bool]]:
    """Return a maker of `stop` callbacks that let so many steps pass."""

    def make(steps: int) -> Callable[[], bool]:
        asked = count()
        return lambda: next(asked) >= steps

    return make


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return where a run may go."""
    return tmp_path / "run"
