"""A trace as plain values: the two JSON documents, whose keys are a contract.

JSON has no word for NaN and infinity: they are null.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnbp_cli.config.errors import suggestion
from cnnbp_cli.core.graph import INPUT, Node
from cnnbp_cli.core.types import Array
from cnnbp_cli.tracing.cells import Cell, CellError

if TYPE_CHECKING:
    from cnnbp_cli.tracing.explanation import Factor
    from cnnbp_cli.tracing.traced_pass import TracedPass


def trace_document(trace: TracedPass, layers: Sequence[str] = ()) -> dict[str, Any]:
    """Return every number of the pass, of the image on show; `layers` limits the nodes.

    Raises
    ------
    CellError
        When a layer is named that there is not.
    """
    names = [INPUT, *(node.name for node in trace.model.graph.nodes)]
    for layer in layers:
        if layer not in names:
            raise CellError(f"there is no layer {layer!r}{suggestion(layer, names)}")
    nodes: list[dict[str, Any]] = []
    if not layers or INPUT in layers:
        nodes.append({"name": INPUT, "type": INPUT, "inputs": [], **_numbers(trace, INPUT), "parameters": {}})
    nodes += (_node(trace, node) for node in trace.model.graph.nodes if not layers or node.name in layers)
    source = trace.source
    return {
        "format": "cnnbp-trace",
        "version": 1,
        "mode": trace.mode,
        "image": {"split": source.split, "index": source.index, "label": source.label},
        "loss": plain(trace.loss),
        "prediction": plain(trace.prediction),
        "losses": _losses(trace),
        "nodes": nodes,
    }


def _losses(trace: TracedPass) -> list[dict[str, Any]]:
    """Return what each loss has met, that of the output first; the document's own loss is their weighted sum."""
    return [
        {
            "layer": one.layer,
            "weight": one.weight,
            "loss": plain(loss),
            "prediction": plain(at.p[..., trace.shown]),
        }
        for one, loss, at in zip(trace.model.losses, trace.losses, trace.at_losses, strict=True)
    ]


def _node(trace: TracedPass, node: Node) -> dict[str, Any]:
    found: dict[str, Any] = {"name": node.name, "type": node.layer.type, "inputs": list(node.inputs)}
    if node.shares:
        found["shares"] = node.shares  # its parameters, and their gradients, are there
    found |= _numbers(trace, node.name)
    values, gradients = trace.parameters(node.name)
    found["parameters"] = {
        key: {
            "shape": list(value.shape),
            "value": plain(value),
            "gradient": plain(gradients[key]) if key in gradients else None,
        }
        for key, value in values.items()
    }
    winners, gates = trace.decisions(node.name)
    if winners is not None:
        found["winners"] = winners.tolist()
    if gates is not None:
        found["gates"] = gates.tolist()
    return found


def _numbers(trace: TracedPass, name: str) -> dict[str, Any]:
    return {
        "shape": list(trace.shapes[name]),
        "output": plain(trace.array(name)),
        "gradient": plain(trace.array(name, "gradient")),
    }


def cell_document(trace: TracedPass, cell: Cell, of: str = "gradient", top: int | None = 10) -> dict[str, Any]:
    """Return one cell with its `top` largest terms, or with all of them; Σ product + others.sum = value.

    Beyond the contract's keys there are `filled`, `reason`, `retold` and `reads`, in each factor of a batch its
    `image`, and in each term of an output with several readers the layer that it comes `via`.
    """
    found = trace.terms(cell, of)
    terms, count, rest = found.largest(top)
    several = len(found.told) > 1
    return {
        "format": "cnnbp-trace-cell",
        "version": 1,
        "cell": str(cell),
        "of": of,
        "value": plain(found.value),
        "formula": found.formula,
        "filled": found.filled,
        "terms": [
            {
                "factors": [_factor(trace, factor) for factor in term.factors],
                "coefficient": plain(term.coefficient),
                "product": plain(term.product),
                **({"via": term.via} if several else {}),
            }
            for term in terms
        ],
        "others": {"count": count, "sum": plain(rest)},
        "reads": [str(read) for read in found.reads_of(trace.shown)],
        "reason": found.reason,
        "retold": found.retold or None,
        "used_by": [str(user) for user in trace.used_by(cell, of)],
    }


def _factor(trace: TracedPass, factor: Factor) -> dict[str, Any]:
    image = {"image": factor.image} if trace.images > 1 and factor.image is not None else {}
    index, value = list(factor.cell.index), plain(factor.value)
    return {"tensor": factor.cell.tensor, "of": factor.of, "index": index, "value": value, **image}


def plain(value: Array | float) -> Any:
    """Return nested lists or a number, with None in place of what is not finite."""
    if isinstance(value, np.ndarray):
        if np.isfinite(value).all():
            return value.tolist()
        numbers = value.astype(object)
        numbers[~np.isfinite(value)] = None
        return numbers.tolist()
    return float(value) if isfinite(value) else None
