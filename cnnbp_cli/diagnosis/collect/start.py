"""The fresh network on one batch: how its layers scale, whether units are twins, whether the gradient points uphill."""

from __future__ import annotations

import math

import numpy as np

from cnnbp_cli.core.graph import INPUT, Node
from cnnbp_cli.core.types import Array
from cnnbp_cli.data.batches import make_batch, order
from cnnbp_cli.data.dataset import Dataset
from cnnbp_cli.diagnosis.collect.training import without_dropout
from cnnbp_cli.diagnosis.facts import LayerStart, StartFacts
from cnnbp_cli.gradient_check.reference_pass import ReferencePass
from cnnbp_cli.model import Model, quiet
from cnnbp_cli.train.statistics import saturated_ends

IMAGES = 64
"""Images in the batch: with as many, a standard deviation over it is known to a tenth."""

TWIN = 1e-6
"""Units are twins when weights and gradients differ by less than this, relative to the largest of the layer."""

CHANGES = (1e-2, 1e-3, 1e-4, 1e-5)
"""How far to walk down the gradient, as the share of the loss that it should take away: less where a kink is near."""


@quiet
def start_facts(model: Model, data: Dataset) -> StartFacts:
    """Look at a model before it is trained."""
    chosen = order(model.config.seed, 0, len(data.train))[:IMAGES]
    x, labels = make_batch(data.train, chosen, data.normalization, np.float64)
    target = model.targets_in(labels, x)
    point = ReferencePass(without_dropout(model), x, target, "training")  # dropout would tell twins apart, for one step
    layers = {node.name: _layer(point, node) for node in model.graph.nodes}
    unseen = float((point.gradients[INPUT] == 0).all(-1).mean())
    return StartFacts(loss=point.loss_value, slope=_slope(point), unseen=unseen, layers=layers)


def _layer(point: ReferencePass, node: Node) -> LayerStart:
    y = point.values[node.name]
    ends = saturated_ends(node.layer)
    own = [name for name in point.gradients if name != INPUT and name.rpartition(".")[0] == node.owner]
    active = y.reshape(len(y), -1).max(1) > 0
    return LayerStart(
        scale_in=_scale(point.values[node.inputs[0]]),
        scale=_scale(_without_bias(point, node, y)),
        dead=float(1 - active.mean()) if node.layer.rectifies else 0.0,
        saturated=float(((y < ends[0]) | (y > ends[1])).mean()) if ends else 0.0,
        twins=_twins(point, node),
        weight=_norm(*(point.params[node.owner][name.rpartition(".")[2]] for name in own)),
        gradient=_norm(*(point.gradients[name] for name in own)),
    )


def _without_bias(point: ReferencePass, node: Node, y: Array) -> Array:
    """Return what a layer's weights make of its input."""
    bias = point.params[node.owner].get("bias")
    return y if bias is None or bias.shape != y.shape[:1] else y - bias.reshape(-1, *[1] * (y.ndim - 1))


def _twins(point: ReferencePass, node: Node) -> float:
    """Return the share of a layer's units that are copies of another one, and stay so."""
    weight, gradient = point.params[node.name].get("weight"), point.gradients.get(f"{node.name}.weight")
    if weight is None or gradient is None or weight.ndim < 2 or len(weight) < 2:
        return 0.0
    axis = node.layer.unit_axis
    rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    slopes = np.moveaxis(gradient, axis, 0).reshape(len(rows), -1)
    if len(rows) < 2:
        return 0.0
    both = np.concatenate([rows / (np.abs(rows).max() or 1), slopes / (np.abs(slopes).max() or 1)], 1)
    if not np.isfinite(both).all():
        return 0.0
    kinds = np.unique(np.round(both / TWIN), axis=0)
    return 1 - (len(kinds) - 1) / (len(rows) - 1)


def _slope(point: ReferencePass) -> float | None:
    """Return how much the loss falls along the negative gradient, relative to what the gradient promises."""
    gradients = {name: gradient for name, gradient in point.gradients.items() if name != INPUT}
    square = sum(float((gradient * gradient).sum()) for gradient in gradients.values())
    if not (math.isfinite(square) and square > 0 and math.isfinite(point.loss_value) and point.loss_value):
        return None
    best: float | None = None
    for change in CHANGES:
        step = change * abs(point.loss_value) / square
        fallen = point.loss_value - _loss_after(point, gradients, step)
        slope = fallen / (step * square)
        if best is None or abs(abs(slope) - 1) < abs(abs(best) - 1):
            best = slope
    return best


def _loss_after(point: ReferencePass, gradients: dict[str, Array], step: float) -> float:
    """Return the loss after a step down the gradient."""
    params = {node: dict(own) for node, own in point.params.items()}
    for name, gradient in gradients.items():
        node, _, key = name.rpartition(".")
        params[node][key] = params[node][key] - step * gradient
    zs, _ = point.graph.forward(params, point.values[INPUT], point.ctx)
    return float(point.mean_loss(dict(zip(point.graph.outputs, zs, strict=True))))


def _scale(y: Array) -> float:
    return float(np.sqrt(np.mean(np.square(y.astype(np.float64)))))


def _norm(*arrays: Array) -> float:
    return math.sqrt(sum(float(np.square(array, dtype=np.float64).sum()) for array in arrays))
