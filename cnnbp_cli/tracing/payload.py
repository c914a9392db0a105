"""What the page is made from: a network and one pass through it, as one JSON document with packed arrays."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import prod
from typing import Any

import numpy as np

from cnnbp_cli.core.graph import INPUT, Node, Tape
from cnnbp_cli.core.layers.dropout import Dropout
from cnnbp_cli.core.losses import MeanSquaredError, SoftmaxCrossEntropy
from cnnbp_cli.core.types import Array, Context, Layer, Params
from cnnbp_cli.model import Model, quiet

FORMAT = "cnnbp-trace-page"
VERSION = 1

EXACT = 20_000
"""Networks with so many numbers or fewer are traced in float64, whatever they are trained in."""

GRADIENTS = 100_000
"""Parameter gradients of so many numbers or fewer go into the page; it computes the others itself."""

LAYERS_OF_THE_FORMAT = "cnnbp_cli.core.layers"
"""Where the layers come from that the page can compute; the user's own come from elsewhere."""

Packed = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sight:
    """What is on show: where the images come from, and which of the batch.

    Attributes
    ----------
    split : str
        The split of the data, or the name of a picture.
    index : int or None
        The image's place in the split.
    sample : int
        Its place in the batch that is traced.
    """

    split: str = "test"
    index: int | None = 0
    sample: int = 0


def pack(array: Array) -> Packed:
    """Return an array as its shape, its type and its bytes in base64, little-endian."""
    kind = "f8" if array.dtype == np.float64 else "f4"
    data = np.ascontiguousarray(array, f"<{kind}")
    return {"shape": list(data.shape), "dtype": kind, "data": base64.b64encode(data.tobytes()).decode()}


def in_double(model: Model) -> Model:
    """Return the model in float64, with the same numbers."""
    params = {node: {key: value.astype(np.float64) for key, value in own.items()} for node, own in model.params.items()}
    config = replace(model.config, dtype="float64")
    return Model(config, model.graph, model.loss_function, params, np.dtype(np.float64), model.normalization)


def numbers_in(model: Model) -> int:
    """Count the outputs and the parameters of one image's pass."""
    return sum(prod(shape) for shape in model.graph.shapes.values()) + model.layout.size


@quiet
def page_payload(
    model: Model,
    images: Array,
    labels: Array | None,
    *,
    sight: Sight | None = None,
    training: bool = False,
    step: int = 0,
    learning_rate: float | None = None,
    source: str = "",
    classes: Sequence[str] = (),
    optimizer_state: Mapping[str, Array] | None = None,
    checkpoints: Iterable[tuple[str, Mapping[str, Array]]] = (),
    batch: tuple[Array, Array | None] | None = None,
    light: bool = False,
) -> dict[str, Any]:
    """Trace a batch of images and return what the page shows.

    Parameters
    ----------
    model : Model
    images : Array, shape (N, C, H, W)
        Floats as the network takes them, or raw pixels where the model knows its normalization.
    labels : Array or None
        Class numbers (N,), or targets of the output's shape.
    sight : Sight
        Which of the images is on show.
    training : bool
        Trace in training mode: batch norm by the batch's statistics, dropout under its drawn mask.
    step : int
        The updates made so far; it names dropout's streams.
    learning_rate : float
        The next update's, by the schedule; the optimizer's own by default.
    source : str
        The file that the model comes from.
    classes : sequence of str
        Names of the classes; their numbers by default.
    optimizer_state : mapping of str to Array
        A checkpoint's state vectors.
    checkpoints : iterable of (label, parameters)
        A run's checkpoints, from the first to the last, each with its parameters by name.
    batch : (images, labels)
        More images, for some steps of training in the page.
    light : bool
        Leave out the weights of dense layers, and the gradients with them.
    """
    sight = sight or Sight()
    if numbers_in(model) <= EXACT:
        model = in_double(model)
        images = images.astype(np.float64) if images.dtype.kind == "f" else images
    x, target = model.batch_in(images, labels)
    ctx = Context(training=training, seed=model.config.seed, step=step)
    values: dict[str, Array] = {}
    gradients: dict[str, Array] = {}
    z, tape = model.graph.forward(model.params, x, ctx, values.__setitem__)
    total, residuals = model.loss_function.forward(z, target)
    count = model.loss_function.count(z)
    dz = model.loss_function.backward(residuals) / count
    _, grads = model.graph.backward(model.params, tape, dz, ctx, gradients.__setitem__)
    whole_numbers = target.ndim == 1
    document: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "name": model.config.name,
        "source": source,
        "mode": "training" if training else "evaluation",
        "count": x.shape[-1],
        "sample": sight.sample,
        "image": {"split": sight.split, "index": sight.index},
        "input": {
            "shape": list(model.graph.shapes[INPUT]),
            "value": pack(by_image(x)),
            "gradient": pack(by_image(gradients[INPUT])),
        },
        "loss": loss_spec(model),
        "measured": pack(np.array([total / count], model.dtype)),
        "labels": target.tolist() if whole_numbers else None,
        "target": None if whole_numbers else pack(by_image(target.astype(model.dtype))),
        "classes": list(classes) or [str(k) for k in range(model.classes if model.classifies else 0)],
        "nodes": [
            pack_node(model, node, tape, values, gradients, grads, ctx, light=light) for node in model.graph.nodes
        ],
        "output": model.graph.output,
        "optimizer": optimizer_spec(model, step, learning_rate, optimizer_state),
        "checkpoints": [
            {"label": label, "parameters": {name: pack(value) for name, value in parameters.items()}}
            for label, parameters in checkpoints
        ],
        "batch": None,
    }
    if batch is not None:
        more, wanted = model.batch_in(*batch)
        plain = wanted.ndim == 1
        document["batch"] = {
            "images": pack(by_image(more).astype(np.float32)),
            "labels": wanted.tolist() if plain else None,
            "target": None if plain or model.target == "image" else pack(by_image(wanted.astype(np.float32))),
            "count": more.shape[-1],
        }
    return document


def by_image(array: Array) -> Array:
    """Turn (…, n) into (n, …)."""
    return np.moveaxis(array, -1, 0)


def pack_node(
    model: Model,
    node: Node,
    tape: Tape,
    values: Mapping[str, Array],
    gradients: Mapping[str, Array],
    grads: Mapping[str, Params],
    ctx: Context,
    *,
    light: bool,
) -> dict[str, Any]:
    """Return a layer as the page reads it, with what flowed through it."""
    layer = node.layer
    params = model.params.get(node.name, {})
    withheld = light and layer.type == "dense"
    document: dict[str, Any] = {
        "name": node.name,
        "type": layer.type,
        "inputs": list(node.inputs),
        "fields": {key: value for key, value in asdict(layer).items() if key not in ("type", "init")},  # type: ignore[call-overload]
        "shape": list(model.graph.shapes[node.name]),
        "parameters": {key: pack(value) for key, value in params.items() if not (withheld and key == "weight")},
        "state": list(layer.state) if isinstance(layer, Layer) else [],
        "output": pack(by_image(values[node.name])),
        "gradient": pack(by_image(gradients[node.name])),
        "parameter_gradients": {
            key: pack(value)
            for key, value in grads.get(node.name, {}).items()
            if value.size <= GRADIENTS and not (withheld and key == "weight")
        },
    }
    if isinstance(layer, Dropout) and (mask := tape.residuals[node.name]) is not None:
        document["mask"] = pack(by_image(mask))
    if withheld:
        document["withheld"] = {"weight": list(params["weight"].shape)}
        document["opaque"] = "has its weights left out of this file"
    elif not type(layer).__module__.startswith(LAYERS_OF_THE_FORMAT):
        document["opaque"] = f"was computed by {type(layer).__name__}, which this page cannot run"
        document["fields"] = {}
    if "opaque" in document:
        document["input_gradients"] = [pack(by_image(dx)) for dx in input_gradients(model, node, tape, gradients, ctx)]
    return document


def input_gradients(
    model: Model, node: Node, tape: Tape, gradients: Mapping[str, Array], ctx: Context
) -> Sequence[Array]:
    """Return what a layer sends back to each of its inputs."""
    dxs, _ = node.backward(model.params[node.name], tape.residuals[node.name], gradients[node.name], ctx)
    return [dx for dx in dxs if dx is not None]


def loss_spec(model: Model) -> dict[str, Any]:
    """Return the head and the loss as the config calls them."""
    loss = model.loss_function
    head = model.config.model.head
    if isinstance(loss, MeanSquaredError):
        return {"head": head, "loss": "mse", "label_smoothing": 0.0}
    if isinstance(loss, SoftmaxCrossEntropy):
        return {"head": head, "loss": "cross_entropy", "label_smoothing": loss.label_smoothing}
    return {"head": head, "loss": "binary_cross_entropy", "label_smoothing": 0.0}


def optimizer_spec(
    model: Model, step: int, learning_rate: float | None, state: Mapping[str, Array] | None
) -> dict[str, Any]:
    """Return the optimizer as it is at the next update; large state vectors are left out."""
    train = model.config.train
    fields = asdict(train.optimizer)
    document: dict[str, Any] = {
        "type": fields.pop("type"),
        "fields": fields,
        "learning_rate": train.optimizer.learning_rate if learning_rate is None else learning_rate,
        "step": step + 1,
        "clip_norm": train.clip_norm,
        "state": None,
    }
    if state is not None and model.layout.size <= GRADIENTS:
        document["state"] = {
            name: {f"{e.node}.{e.key}": pack(vector[e.start : e.stop].reshape(e.shape)) for e in model.layout.entries}
            for name, vector in state.items()
        }
    return document
