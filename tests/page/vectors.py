"""Write random networks with their numbers, for the tests of the page's engine.

python tests/page/vectors.py COUNT SEED FILE
"""

from __future__ import annotations

import json
import random
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from core.test_optim import CASES
from hypothesis import HealthCheck, Phase, given, seed, settings
from proof.example import Example
from proof.networks import networks

from cnnbp_cli.build import build
from cnnbp_cli.config.load import parse_config
from cnnbp_cli.core.optim import Step, Updater
from cnnbp_cli.core.types import Context
from cnnbp_cli.tracing.payload import PAGE_LAYERS, pack, page_payload, page_runs
from cnnbp_cli.tracing.trace import trace


def examples(count: int, start: int) -> list[Example]:
    """Draw networks over all of the config format that the page can run."""
    drawn: list[Example] = []

    @seed(start)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(networks(PAGE_LAYERS))
    def collect(example: Example) -> None:
        if all(page_runs(node.layer) for node in example.build()[0].graph.nodes):
            drawn.append(example)

    collect()
    return drawn


def vector(example: Example, *, training: bool) -> dict[str, Any] | None:
    """Return a page's payload of the network, in float64, or None where what it normalizes is constant.

    Dividing by a deviation that is nothing but rounding leaves nothing to compare.
    """
    model, images, labels = example.build()
    x, _ = model.batch_in(images, labels)
    _, tape = model.graph.forward(model.params, x, Context(training=training, seed=model.config.seed))
    if any(np.max(residual.r) > LARGEST_GAIN for residual in tape.residuals.values() if hasattr(residual, "r")):
        return None
    return page_payload(trace(model, images, labels, mode="training" if training else "evaluation"))


LARGEST_GAIN = 100
"""One over the smallest standard deviation that a normalization may divide by."""


MASKS = """
dtype: float64
seed: 3
data: {source: synthetic, kind: bars, image: [2, 4, 5], target: TARGET}
model:
  input: [2, 4, 5]
  head: HEAD
  layers:
    - {type: conv2d, filters: 3, kernel_size: 3, padding: same}
    - relu
    - {type: conv2d, filters: LAST, kernel_size: 1}
train: {loss: LOSS, label_smoothing: SMOOTHING}
"""


def per_pixel() -> list[dict[str, Any]]:
    """Return the pages of networks whose loss is that of every pixel."""
    documents = []
    rng = np.random.default_rng(7)
    for target, head, last, loss, smoothing in (
        ("mask", "softmax", 3, "cross_entropy", 0),
        ("mask", "softmax", 3, "cross_entropy", 0.2),
        ("mask", "sigmoid", 1, "binary_cross_entropy", 0),
        ("mask", "softmax", 3, "mse", 0),
        ("image", "softmax", 2, "mse", 0),
        ("image", "sigmoid", 2, "binary_cross_entropy", 0),
    ):
        text = MASKS
        filled = {"TARGET": target, "HEAD": head, "LAST": last, "LOSS": loss, "SMOOTHING": smoothing}
        for name, value in filled.items():
            text = text.replace(name, str(value))
        model = build(parse_config(text))
        images = rng.normal(size=(3, 2, 4, 5))
        labels = rng.integers(0, max(2, last), (3, 4, 5)) if target == "mask" else rng.uniform(size=(3, last, 4, 5))
        for count, mode in ((1, "evaluation"), (3, "training")):
            documents.append(page_payload(trace(model, images[:count], labels[:count], mode=mode)))
    return documents


def updates() -> list[dict[str, Any]]:
    """Return three updates of a few weights by each optimizer, with the clipping of their norm."""
    documents = []
    for optimizer in CASES.values():
        rng = np.random.default_rng(0)
        updater = Updater(optimizer.transform(), 5, np.float64)
        weights = rng.normal(size=5)
        steps = []
        for number in (1, 2, 3):
            before, gradient = weights.copy(), rng.normal(size=5)
            updater.update(weights, gradient, Step(number, 0.1 / number, float(np.linalg.norm(gradient))))
            steps.append({"weights": pack(before), "gradient": pack(gradient), "after": pack(weights)})
        fields = asdict(optimizer)
        documents.append({"type": fields.pop("type"), "fields": fields, "steps": steps})
    return documents


def main() -> None:
    count, start, path = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    random.seed(start)
    warnings.simplefilter("ignore")
    document = {
        "networks": [
            payload
            for example in examples(count, start)
            for training in (False, True)
            if (payload := vector(example, training=training))
        ]
        + per_pixel(),
        "updates": updates(),
    }
    path.write_text(json.dumps(document))


if __name__ == "__main__":
    main()
