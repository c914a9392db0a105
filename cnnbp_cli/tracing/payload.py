"""What the page is made from: one traced pass as one JSON document, its arrays packed."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

import numpy as np

from cnnbp_cli.core.graph import INPUT, Node
from cnnbp_cli.core.losses import unfolded
from cnnbp_cli.core.types import Array, Operation
from cnnbp_cli.model import Model
from cnnbp_cli.tracing.miniatures import miniatures
from cnnbp_cli.tracing.precision import EXACT, in_double, numbers_in
from cnnbp_cli.tracing.traced_pass import TracedPass

FORMAT = "cnnbp-trace-page"
VERSION = 1

GRADIENTS = 100_000
"""Parameter gradients of so many numbers or fewer go into the page; it computes the others itself."""

CHECKPOINTS = 500_000
"""Numbers of all checkpoints together that go into the page."""

PAGE_LAYERS = {
    *("conv2d", "conv_transpose2d", "max_pool2d", "avg_pool2d", "global_avg_pool2d", "global_max_pool2d"),
    *("flatten", "identity", "dense", "batch_norm", "layer_norm", "group_norm", "dropout"),
    *("relu", "leaky_relu", "elu", "gelu", "silu", "sigmoid", "tanh", "softplus", "softmax"),
    *("add", "multiply", "concat"),
}
"""The types of layers that the page can run, those of `RULES` in `page/layers.js`; of others it has the numbers."""

PAGE_SETTINGS: dict[str, dict[str, Any]] = {"gelu": {"approximate": "tanh"}, "layer_norm": {"over": "sample"}}
"""What fields have to say for the page to run a layer."""

Packed = dict[str, Any]

P = TypeVar("P", bound=TracedPass)


def page_payload(
    trace: TracedPass,
    *,
    origin: str = "",
    classes: Sequence[str] = (),
    checkpoints: Iterable[tuple[str, Mapping[str, Array]]] = (),
    batch: tuple[Array, Array | None] | None = None,
    light: bool = False,
) -> dict[str, Any]:
    """Return what the page shows of a trace.

    Parameters
    ----------
    trace : TracedPass
        A small network is traced again in float64, so that the page can be held to its last digits.
    origin : str
        The file that the model comes from.
    classes : sequence of str
        Names of the classes; their numbers by default.
    checkpoints : iterable of (label, parameters)
        A run's checkpoints, from the first to the last, each with its parameters by name.
    batch : (images, labels)
        Images (N, C, H, W) as the network takes them, for some steps of training in the page.
    light : bool
        Leave out the weights of dense layers, and their gradients. What depends on them cannot be edited then.
    """
    trace = in_double(trace) if numbers_in(trace.model) <= EXACT else trace
    return {
        "format": FORMAT,
        "version": VERSION,
        **pass_document(trace, light=light),
        "origin": origin,
        **({"classes": list(classes)} if classes else {}),
        "checkpoints": checkpoint_documents(trace.model, checkpoints),
        "batch": None if batch is None else batch_document(trace.model, *batch),
        "miniatures": {name: pass_document(small) for name, small in miniatures().items()},
    }


def pass_document(trace: TracedPass, *, light: bool = False) -> dict[str, Any]:
    """Return a network with the numbers of one pass."""
    model = trace.model
    return {
        "name": model.config.name,
        "origin": "",
        "mode": trace.mode,
        "count": trace.images,
        "sample": trace.shown,
        "image": {"split": trace.source.split, "index": trace.source.index, "assumed": trace.source.assumed},
        "input": {
            "shape": list(trace.shapes[INPUT]),
            "value": pack(by_image(trace.of_batch(INPUT))),
            "gradient": pack(by_image(trace.of_batch(INPUT, "gradient"))),
        },
        "losses": [
            {
                "layer": one.layer,
                "weight": one.weight,
                "head": model.config.model.head,
                "loss": said.loss,
                "label_smoothing": model.config.train.label_smoothing,
                "per_image": one.loss.count(np.empty((*model.output_shape, 1))),
            }
            for one, said in zip(model.losses, model.config.losses, strict=True)
        ],
        "measured": pack(np.array([trace.loss], model.dtype)),
        **wanted(trace.target, model),
        "classes": [model.class_name(k) for k in range(model.classes if model.classifies else 0)],
        "nodes": [node_document(trace, node, light=light) for node in model.graph.nodes],
        "output": model.graph.output,
        "optimizer": optimizer_document(trace),
        "checkpoints": [],
        "batch": None,
    }


def page_runs(layer: Operation[Any]) -> bool:
    """Return whether the page can compute a layer, and so show what an edited number changes."""
    wanted = PAGE_SETTINGS.get(layer.type, {})
    return layer.type in PAGE_LAYERS and all(getattr(layer, key) == value for key, value in wanted.items())


def pack(array: Array) -> Packed:
    """Return an array as its shape, its type and its bytes in base64, little-endian."""
    kind = "f8" if array.dtype == np.float64 else "f4"
    data = np.ascontiguousarray(array, f"<{kind}")
    return {"shape": list(data.shape), "dtype": kind, "data": base64.b64encode(data.tobytes()).decode()}


def by_image(array: Array) -> Array:
    """Turn (…, n) into (n, …)."""
    return np.moveaxis(array, -1, 0)


def wanted(target: Array, model: Model) -> dict[str, Any]:
    """Return labels as a list, and any other targets as an array."""
    if target.ndim == 1:
        return {"labels": target.tolist(), "target": None}
    whole = unfolded(np.empty((*model.output_shape, target.shape[-1]), model.dtype), target)
    return {"labels": None, "target": pack(by_image(whole.astype(model.dtype)))}


def node_document(trace: TracedPass, node: Node, *, light: bool) -> dict[str, Any]:
    """Return a layer as the page reads it, with what flowed through it."""
    layer: Any = node.layer
    params, grads = trace.parameters(node.name)
    used = trace.model.params.get(node.owner, {})
    withheld = {key for key, value in used.items() if light and value.ndim == 2}  # as of dense layers
    document: dict[str, Any] = {
        "name": node.name,
        "type": layer.type,
        "inputs": list(node.inputs),
        **({"shares": node.shares} if node.shares else {}),
        "fields": {},
        "shape": list(trace.shapes[node.name]),
        "parameters": {key: pack(value) for key, value in params.items() if key not in withheld},
        "withheld": {key: list(value.shape) for key, value in params.items() if key in withheld},
        "state": [key for key in params if key not in grads],
        "output": pack(by_image(trace.of_batch(node.name))),
        "gradient": pack(by_image(trace.of_batch(node.name, "gradient"))),
        "parameter_gradients": {
            key: pack(value) for key, value in grads.items() if key not in withheld and value.size <= GRADIENTS
        },
    }
    if page_runs(layer):
        document["fields"] = {key: value for key, value in asdict(layer).items() if key not in ("type", "init")}
    else:
        document["opaque"] = f"was computed by {type(layer).__name__}, which this page cannot run"
    if withheld:
        document["opaque"] = "has its weights left out of this file"
    if (mask := layer.drawn_mask(trace.residuals(node.name))) is not None:
        document["mask"] = pack(by_image(mask))
    if "opaque" in document:
        dy = trace.of_batch(node.name, "gradient")
        dxs, _ = node.backward(dict(used), trace.residuals(node.name), dy, trace.context)
        document["input_gradients"] = [pack(by_image(dx)) for dx in dxs if dx is not None]
    return document


def optimizer_document(trace: TracedPass) -> dict[str, Any]:
    """Return the optimizer as it is at the next update; large state vectors are left out."""
    train, update, layout = trace.model.config.train, trace.update, trace.model.layout
    fields = asdict(train.optimizer)
    return {
        "type": fields.pop("type"),
        "fields": fields,
        "learning_rate": update.learning_rate,
        "step": update.number,
        "clip_norm": train.clip_norm,
        "state": {
            slot: {entry.name: pack(vector[entry.start : entry.stop]) for entry in layout.entries}
            for slot, vector in update.state.items()
        }
        if layout.size <= GRADIENTS
        else {},
    }


def checkpoint_documents(model: Model, checkpoints: Iterable[tuple[str, Mapping[str, Array]]]) -> list[dict[str, Any]]:
    """Return as many checkpoints as the page has room for, the first and the last of them, and the one on show."""
    shown = model.parameters()
    room = room_for_checkpoints(model)
    found = list(checkpoints) if room > 1 else []
    if len(found) > room:
        found = [found[round(k)] for k in np.linspace(0, len(found) - 1, room)]
    same = [all(np.array_equal(own[name], value) for name, value in shown.items()) for _, own in found]
    if found and not any(same):
        found, same = [*found, ("best", shown)], [*same, True]
    return [
        {"label": label, "shown": on, "parameters": {name: pack(value) for name, value in own.items()}}
        for (label, own), on in zip(found, same, strict=True)
    ]


def room_for_checkpoints(model: Model) -> int:
    """Return how many checkpoints the page has room for."""
    return CHECKPOINTS // max(1, sum(value.size for own in model.params.values() for value in own.values()))


def batch_document(model: Model, images: Array, labels: Array | None) -> dict[str, Any]:
    """Return images to train on; where the target is the image they are the targets, too."""
    x, target = model.batch_in(images, labels)
    targets = {"labels": None, "target": None} if labels is None else wanted(target, model)
    return {"images": pack(by_image(x).astype(np.float32)), "count": x.shape[-1], **targets}
