"""What a network takes in memory, compared with what there is, before any of it is asked for.

Systems lend more memory than they have and end the program that uses it, so that an allocation that
succeeds proves nothing. The estimates are bounds from below: what is refused could not have worked.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from math import prod
from pathlib import Path

from cnnbp_cli.config.errors import ConfigError, KeyPath
from cnnbp_cli.config.schema import Config
from cnnbp_cli.core.graph import INPUT, Graph
from cnnbp_cli.text import show_bytes

UNKNOWN = 1 << 40
"""Bytes that a machine is taken to have where it does not say."""

MAX_OUTPUT_BYTES = 1 << 30
"""The most bytes of one layer's output when images are only predicted, unless a single image takes more."""

_GROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def available() -> int:
    """Return the bytes of memory of this machine, or of the container that the program runs in."""
    try:
        limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    except (AttributeError, OSError, ValueError):
        limits = [UNKNOWN]
    for group in _GROUPS:
        try:
            limits.append(int(Path(group).read_text()))
        except (OSError, ValueError):  # not Linux, or without a limit
            continue
    return min(limit for limit in limits if limit > 0)


def require_parameters(config: Config, graph: Graph, item_bytes: int) -> None:
    """Complain about parameters that no memory can hold.

    Raises
    ------
    ConfigError
        Names the largest layer and what it takes.
    """
    _require(
        config,
        {name: sum(map(prod, own.values())) * item_bytes for name, own in graph.param_shapes.items()},
        "the parameters take",
        "make the layer smaller",
    )


def require_batch(
    config: Config, graph: Graph, images: int, item_bytes: int, remedy: str, *, keep: bool = True
) -> None:
    """Complain about a batch that no memory can hold.

    Parameters
    ----------
    images : int
        In the batch.
    item_bytes : int
        Of one number.
    remedy : str
        What to change.
    keep : bool
        Whether the outputs of all layers are there at once, as in training, or only the largest.
    """
    values = {INPUT: prod(graph.shapes[INPUT])}
    values |= {node.name: node.memory(graph.in_shapes(node)) for node in graph.nodes}
    outputs = {name: count * images * item_bytes for name, count in values.items()}
    if not keep:
        largest = max(outputs, key=outputs.__getitem__)
        outputs = {largest: outputs[largest]}
    _require(config, outputs, f"the layers' outputs for {images:,} image{'s' * (images != 1)} take", remedy)


def affordable(graph: Graph, images: int, item_bytes: int) -> int:
    """Return how many of so many images to compute at once, so that no output takes more than `MAX_OUTPUT_BYTES`."""
    return max(1, min(images, MAX_OUTPUT_BYTES // (item_bytes * max(map(prod, graph.shapes.values())))))


def _require(config: Config, bytes_of: Mapping[str, int], what: str, remedy: str) -> None:
    total, most = sum(bytes_of.values()), available()
    if total <= most:
        return
    largest = max(bytes_of, key=bytes_of.__getitem__)
    index = next((k for k, spec in enumerate(config.model.layers) if spec.name == largest), None)
    place: KeyPath = ("model", "input") if index is None else ("model", "layers", index)
    name = "the image" if largest == INPUT else f"layer {largest}"
    message = (
        f"{what} {show_bytes(total)}, {show_bytes(bytes_of[largest])} of them in {name}; there are "
        f"{show_bytes(most)} of memory: {remedy}"
    )
    raise ConfigError([config.positions.problem(place, message)])
