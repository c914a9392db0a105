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
        ],
        "updates": updates(),
    }
    path.write_text(json.dumps(document))


if __name__ == "__main__":
    main()
