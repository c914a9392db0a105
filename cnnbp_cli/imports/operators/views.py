"""The same values otherwise: in other shapes and orders of the axes, with other borders, in parts, in other sizes."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from cnnbp_cli.imports.errors import NoLayer
from cnnbp_cli.imports.graph import Op
from cnnbp_cli.imports.operators.fields import border, size_of
from cnnbp_cli.imports.translation import Translation, Value

CHANNELS_LAST, CHANNELS_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]


def reshape(t: Translation, op: Op) -> None:
    """Translate what only changes the shape: flattening, and views of the same values."""
    x, before, after = t.value(op), t.graph.shapes[op.inputs[0]], t.graph.shapes[op.output]
    batch = before[0]
    if before == after:
        return t.same(op, x)
    if after[:1] != (batch,):
        raise NoLayer(f"mixes samples: {list(before)} becomes {list(after)}")
    if len(after) == 2 and x.layout == "image":
        return t.write(op, replace(t.emit("flatten", [x], op), layout="vector", image=x.shape))
    if len(after) == 2 and x.layout == "last":
        one = x.shape[0] == 1 or x.shape[1:] == (1, 1)
        flat = t.emit("flatten", [x], op)
        return t.write(op, replace(flat, layout="vector" if one else "last vector", image=x.shape))
    if after == (batch, *x.shape, 1, 1) and x.layout == "vector":
        return t.same(op, replace(x, layout="pixel"))
    if after == (batch, 1, 1, *x.shape) and x.layout == "vector":
        return t.same(op, replace(x, layout="pixel"))
    if len(after) == 2 and x.layout == "pixel":
        return t.same(op, replace(x, layout="vector"))
    if x.layout == "vector" and len(after) == 4 and x.source == "input":
        raise NoLayer("makes images of vectors")
    if x.layout == "image" and len(after) == 3 and prod(after) == prod(before):
        return t.same(op, replace(x, layout="groups", image=after[1:]))
    if x.layout == "groups" and after == (batch, *x.shape):
        return t.same(op, replace(x, layout="image"))
    if x.layout == "image" and _shuffles(t, op, x):
        return None
    raise NoLayer(f"makes {list(after)} of {list(before)}")


def _shuffles(t: Translation, op: Op, x: Value) -> bool:
    """Translate the three operators that may be written for a shuffle of pixels or of channels."""
    middle = t.graph.only_reader(op.output)
    last = t.graph.only_reader(middle.output) if middle is not None else None
    if middle is None or last is None or (middle.kind, last.kind) != ("Transpose", "Reshape"):
        return False
    parts, perm, after = t.graph.shapes[op.output][1:], middle.get("perm"), t.graph.shapes[last.output][1:]
    found = _pixel_shuffle(x, parts, perm) or _channel_shuffle(x, parts, perm, after)
    if found is None:
        return False
    t.take(middle)
    t.take(last)
    t.write(op, t.emit(found[0], [x], op, found[1]), last.output)
    return True


def _pixel_shuffle(x: Value, parts: tuple[int, ...], perm: list[int] | None) -> tuple[str, dict[str, Any]] | None:
    (c, h, w), r = x.shape, parts[1] if len(parts) == 5 else 0
    if parts != (c // max(1, r * r), r, r, h, w) or perm != [0, 1, 4, 2, 5, 3]:
        return None
    return "pixel_shuffle", {"factor": r}


def _channel_shuffle(
    x: Value, parts: tuple[int, ...], perm: list[int] | None, after: tuple[int, ...]
) -> tuple[str, dict[str, Any]] | None:
    (c, h, w), groups = x.shape, parts[0]
    if parts not in ((groups, c // groups, h, w), (groups, c // groups, h * w)):
        return None
    if perm != [0, 2, 1, 3, 4][: 1 + len(parts)] or after != x.shape:
        return None
    return "channel_shuffle", {"groups": groups}


def transpose(t: Translation, op: Op) -> None:
    x, perm = t.value(op), list(op.get("perm", []))
    if perm == sorted(perm):
        return t.same(op, x)
    if x.layout == "image" and perm == CHANNELS_LAST:
        return t.same(op, replace(x, layout="last"))
    if x.layout == "last" and perm == CHANNELS_FIRST:
        return t.same(op, replace(x, layout="image"))
    if x.layout == "image" and x.source == "input" and perm == CHANNELS_FIRST:
        c, h, w = x.shape  # the file takes images with their channels last
        t.input_shape = (w, c, h)
        t.notes.append("the file takes images (N, H, W, C); here, as everywhere, they are (N, C, H, W)")
        return t.same(op, replace(x, shape=t.input_shape))
    raise NoLayer(f"moves axes by {perm}")


def pad(t: Translation, op: Op) -> None:
    x = t.value(op)
    pads = [int(k) for k in t.optional(op, 1, "pads")]
    axes = t.constant(op, 3, "axes").tolist() if len(op.inputs) > 3 and op.inputs[3] else list(range(len(pads) // 2))
    both = {axis % 4: (pads[k], pads[k + len(axes)]) for k, axis in enumerate(axes)}
    rows, columns = {"image": (2, 3), "last": (1, 2)}.get(x.layout, (None, None))
    if rows is None or any(any(amounts) for axis, amounts in both.items() if axis not in (rows, columns)):
        raise NoLayer("pads other axes than height and width")
    amounts = [*both.get(rows, (0, 0)), *both.get(columns, (0, 0))]
    value = t.optional(op, 2, "value", 0.0)
    mode, constant = op.get("mode", "constant"), float(np.asarray(value).item())
    if mode not in ("constant", "reflect", "edge"):
        raise NoLayer(f"pads by {mode}")
    cut = [max(0, -amount) for amount in amounts]
    if any(cut):
        x = t.emit("crop", [x], op, {"cropping": border(cut)})
    if any(amount > 0 for amount in amounts):
        fields: dict[str, Any] = {"padding": border([max(0, amount) for amount in amounts])}
        fields |= {} if mode == "constant" else {"mode": {"edge": "replicate"}.get(mode, mode)}
        fields |= {"value": constant} if mode == "constant" and constant else {}
        x = t.emit("pad", [x], op, fields)
    t.same(op, x)


def resize(t: Translation, op: Op) -> None:
    x = t.value(op)
    if x.layout not in ("image", "last"):
        raise NoLayer("resizes no image")
    mode, place = op.get("mode", "nearest"), op.get("coordinate_transformation_mode", "half_pixel")
    after = t.graph.shapes[op.output]
    size = after[2:] if x.layout == "image" else after[1:3]
    scales = [out / of for out, of in zip(size, x.shape[1:], strict=True)]
    whole = all(out % of == 0 for out, of in zip(size, x.shape[1:], strict=True))
    fields: dict[str, Any] = {"scale": size_of([round(s) for s in scales])} if whole else {"size": size_of(size)}
    if op.get("antialias", 0):
        raise NoLayer("resizes with antialias")
    if mode == "nearest":
        floors = place == "asymmetric" and op.get("nearest_mode", "round_prefer_floor") == "floor"
        halves = whole and place in ("half_pixel", "pytorch_half_pixel")  # each pixel is repeated, however it rounds
        if not floors and not halves and op.kind != "Upsample":
            raise NoLayer(f"takes the nearest pixel by {place} and {op.get('nearest_mode')}")
    elif mode == "linear" and place in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        if place == "pytorch_half_pixel" and 1 in size:
            raise NoLayer("resizes to one pixel by pytorch_half_pixel")
        fields |= {"mode": "bilinear"} | ({"align_corners": True} if place == "align_corners" else {})
    else:
        raise NoLayer(f"resizes by {mode} and {place}")
    t.write(op, t.emit("upsample", [x], op, fields))


def depth_to_space(t: Translation, op: Op) -> None:
    if op.get("mode", "DCR") != "CRD":
        raise NoLayer("orders channels by DCR, expected CRD, as PyTorch's pixel_shuffle does")
    t.write(op, t.emit("pixel_shuffle", [t.image(op)], op, {"factor": op.get("blocksize")}))


def identity(t: Translation, op: Op) -> None:
    """Pass a tensor on; in a file of our own, it is a layer that does nothing in evaluation."""
    if t.graph.producer == "cnnbp" and op.output != t.graph.output:
        return t.write(op, t.emit("identity", [t.value(op)], op))
    return t.same(op, t.value(op))


def cast(t: Translation, op: Op) -> None:
    if op.get("to") not in (1, 10, 11, 16):  # the kinds of floats
        raise NoLayer("converts to other numbers than floats")
    t.same(op, t.value(op))
