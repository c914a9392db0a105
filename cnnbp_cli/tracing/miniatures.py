"""Networks of a few numbers, for what the user's own network may not have: branches, batch norm, averages and ties."""

from __future__ import annotations

from typing import Any

import numpy as np

from cnnbp_cli.build import build
from cnnbp_cli.config.load import config_from_dict
from cnnbp_cli.core.types import Array
from cnnbp_cli.tracing.numbers import Mode
from cnnbp_cli.tracing.traced_pass import TracedPass


def miniatures() -> dict[str, TracedPass]:
    """Return each miniature's trace by its name."""
    return {
        "branches": _traced(
            [
                {"type": "conv2d", "name": "stem", "filters": 1, "kernel_size": 1},
                {"type": "relu", "name": "left", "inputs": ["stem"]},
                {"type": "tanh", "name": "right", "inputs": ["stem"]},
                {"type": "add", "name": "sum", "inputs": ["left", "right"]},
                {"type": "multiply", "name": "product", "inputs": ["left", "right"]},
                {"type": "concat", "name": "both", "inputs": ["sum", "product"]},
                {"type": "global_avg_pool2d", "name": "mean"},
            ],
            {"stem.weight": [[[[0.5]]]], "stem.bias": [0.25]},
            [[[[1, -2], [3, 0.5]]]],
            [0],
        ),
        "batch-norm": _traced(
            [
                {"type": "conv2d", "name": "conv", "filters": 1, "kernel_size": 1},
                {"type": "batch_norm", "name": "norm"},
                {"type": "flatten", "name": "flat"},
                {"type": "dense", "name": "dense", "units": 2},
            ],
            {
                "conv.weight": [[[[2]]]],
                "conv.bias": [0.5],
                "norm.weight": [1.5],
                "dense.weight": [[1, -0.5], [-1, 0.5]],
            },
            [[[[1, 2]]], [[[0, -1]]], [[[3, 1]]]],
            [0, 1, 1],
            mode="training",
        ),
        "pools": _traced(
            [
                {"type": "avg_pool2d", "name": "average", "pool_size": 2, "padding": "same", "inputs": ["input"]},
                {"type": "max_pool2d", "name": "maximum", "pool_size": 2, "padding": "same", "inputs": ["input"]},
                {"type": "concat", "name": "both", "inputs": ["average", "maximum"]},
                {"type": "global_avg_pool2d", "name": "mean"},
            ],
            {},
            [[[[2, 2, 0], [1, 2, -1], [3, 3, 1]]]],
            [1],
        ),
    }


def _traced(
    layers: list[dict[str, Any]], numbers: dict[str, Any], images: Any, labels: list[int], mode: Mode = "evaluation"
) -> TracedPass:
    """Return the trace of a network with these parameters; those that are not named start as they do."""
    pixels: Array = np.array(images, np.float64)
    config = {
        "name": "in miniature",
        "dtype": "float64",
        "data": {"source": "synthetic", "kind": "bars", "normalize": "none", "target": "label"},
        "model": {"input": list(pixels.shape[1:]), "layers": layers},
        "train": {"optimizer": {"type": "sgd", "learning_rate": 0.1}},
    }
    model = build(config_from_dict(config))
    model.set_parameters({name: np.array(value, np.float64) for name, value in numbers.items()})
    return TracedPass.of(model, pixels, np.array(labels), mode=mode)
