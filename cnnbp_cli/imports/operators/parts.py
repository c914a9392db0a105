"""Parts of a tensor: borders cut off, and some of the channels."""

from __future__ import annotations

from cnnbp_cli.imports.errors import NoLayer
from cnnbp_cli.imports.graph import Op
from cnnbp_cli.imports.operators.fields import border
from cnnbp_cli.imports.translation import Translation, Value

CHANNELS = {"image": 1, "vector": 1, "pixel": 1, "last": 3}
"""The axis of the channels, by how a tensor lies."""


def slice_(t: Translation, op: Op) -> None:
    """Translate what cuts a border off, or takes channels that lie together."""
    x, shape = t.value(op), t.graph.shapes[op.inputs[0]]
    starts, ends = (list(map(int, t.optional(op, k, name))) for k, name in ((1, "starts"), (2, "ends")))
    axes, steps = t.optional(op, 3, "axes"), t.optional(op, 4, "steps")
    axes = list(range(len(starts))) if axes is None else [int(axis) % len(shape) for axis in axes]
    if steps is not None and any(int(step) != 1 for step in steps):
        raise NoLayer("takes every so many-th only")
    kept = [(0, size) for size in shape]
    for axis, start, end in zip(axes, starts, ends, strict=True):
        first, last, _ = slice(start, end).indices(shape[axis])
        kept[axis] = (first, last)
    channels = CHANNELS.get(x.layout)
    if channels is None or kept[0] != (0, shape[0]):
        raise NoLayer("takes some of the samples, or of what is no axis of an image")
    y = _channels(t, op, x, *kept[channels])
    rows, columns = {"image": (2, 3), "last": (1, 2)}.get(x.layout, (0, 0))
    cut = [(first, shape[axis] - last) for axis in (rows, columns) for first, last in (kept[axis],)]
    if any(cut[0] + cut[1]):
        y = t.emit("crop", [y], op, {"cropping": border([*cut[0], *cut[1]])})
    t.write(op, y)


def split(t: Translation, op: Op) -> None:
    """Translate a split of the channels: a layer for each part that anything reads."""
    x, shape = t.value(op), t.graph.shapes[op.inputs[0]]
    axis = op.get("axis", 0) % len(shape)
    if axis != CHANNELS.get(x.layout):
        raise NoLayer(f"splits axis {axis}, expected that of the channels")
    sizes = [int(t.graph.shapes[name][axis]) for name in op.outputs]
    if sum(sizes) != shape[axis]:
        raise NoLayer(f"splits {shape[axis]} channels into {sizes}")
    start = 0
    for name, size in zip(op.outputs, sizes, strict=True):
        if t.graph.readers.get(name) or name == t.graph.output:
            t.write(op, _channels(t, op, x, start, start + size), name)
        start += size


def gather(t: Translation, op: Op) -> None:
    """Translate what takes channels that lie together, one after another."""
    x, shape = t.value(op), t.graph.shapes[op.inputs[0]]
    axis, indices = op.get("axis", 0) % len(shape), t.constant(op, 1, "indices")
    if axis != CHANNELS.get(x.layout) or indices.ndim != 1:
        raise NoLayer(f"takes places {indices.tolist()} of axis {axis}, expected a list of channels")
    places = [int(k) % shape[axis] for k in indices]
    if places != list(range(places[0], places[-1] + 1)):
        raise NoLayer(f"takes the channels {places}, expected some that lie together")
    t.write(op, _channels(t, op, x, places[0], places[-1] + 1))


def _channels(t: Translation, op: Op, x: Value, start: int, stop: int) -> Value:
    """Return some of the channels."""
    count = x.shape[0]
    if (start, stop) == (0, count):
        return x
    fields = ({"start": start} if start else {}) | ({"stop": stop} if stop < count else {})
    return t.emit("slice_channels", [x], op, fields)
