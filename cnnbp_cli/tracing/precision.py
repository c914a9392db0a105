"""Small networks are traced in float64, whatever they are trained in, so that their numbers add up."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np

from cnnbp_cli.core.graph import INPUT
from cnnbp_cli.model import Model
from cnnbp_cli.tracing.traced_pass import TracedPass

P = TypeVar("P", bound=TracedPass)

EXACT = 20_000
"""Networks with so many numbers or fewer are traced in float64, whatever they are trained in."""


def numbers_in(model: Model) -> int:
    """Count the parameters, and the outputs of one image's pass."""
    return model.layout.size + sum(int(np.prod(shape)) for shape in model.graph.shapes.values())


def in_double(trace: P) -> P:
    """Return the trace of the same numbers in float64."""
    model = trace.model
    if model.dtype == np.float64:
        return trace
    double = Model(
        replace(model.config, dtype="float64"),
        model.graph,
        model.losses,
        {node: {key: value.astype(np.float64) for key, value in own.items()} for node, own in model.params.items()},
        np.dtype(np.float64),
        model.normalization,
        model.class_names,
    )
    target = trace.target.astype(np.float64) if trace.target.dtype.kind == "f" else trace.target
    x = trace.of_batch(INPUT).astype(np.float64)
    return type(trace)(double, x, target, trace.mode, trace.shown, trace.source, trace.update)
