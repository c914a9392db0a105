"""Small networks, and images for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cnnbp_cli.build import build
from cnnbp_cli.config.load import config_from_dict


@pytest.fixture
def network() -> Callable[..., Any]:
    """Build a network from its layers, in float64."""

    def make(*layers: Any, image: tuple[int, int, int] = (1, 6, 6), head: str = "softmax", **values: Any) -> Any:
        config = {
            "dtype": "float64",
            "data": {"source": "synthetic", "kind": "bars"},
            "model": {"input": list(image), "head": head, "layers": list(layers)},
        }
        model = build(config_from_dict(config))
        model.set_parameters({name.replace("__", "."): np.array(value, float) for name, value in values.items()})
        return model

    return make


@pytest.fixture
def batch() -> Callable[..., tuple[Any, Any]]:
    """Draw images and labels."""

    def make(count: int = 4, image: tuple[int, int, int] = (1, 6, 6), classes: int = 2) -> tuple[Any, Any]:
        rng = np.random.default_rng(1)
        return rng.normal(size=(count, *image)), rng.integers(0, classes, count)

    return make
