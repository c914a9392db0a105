"""Random networks over the whole config format: DAGs with every layer, every head and every loss.

Hypothesis draws what the network is; the numbers in it are drawn from a seed that is part of the example,
so that a failing network is shrunk without its weights being searched one by one.
"""

from __future__ import annotations

from collections.abc import Collection
from math import prod
from typing import Any

from hypothesis import strategies as st
from proof.example import Example

from cnnbp_cli.core.layers import LAYERS
from cnnbp_cli.core.types import FieldErrors, Shape, ShapeError

POINTWISE = [*(kind for kind, layer in LAYERS.items() if layer.is_activation), "identity"]
NORMS = ["batch_norm", "layer_norm", "group_norm"]
RESIZING = ["adaptive_avg_pool2d", "upsample", "upsample", "pad", "crop", "pixel_shuffle"]
MERGES = ["add", "multiply", "concat"]
ON_IMAGES = ["conv2d", "conv2d", "conv2d", "conv_transpose2d", "max_pool2d", "max_pool2d", "avg_pool2d"]
ON_IMAGES += ["conv2d", "max_pool2d", *RESIZING, "slice_channels", "channel_shuffle"]
ON_BOTH = [*POINTWISE, *NORMS, *NORMS, *MERGES, *MERGES, "dropout", "relu", "local_response_norm"]

LARGEST = 16
"""Rows and columns of the largest image within a network."""


def sizes(low: int, high: int) -> st.SearchStrategy[Any]:
    """One number for both directions, or a pair."""
    size = st.integers(low, high)
    return st.one_of(size, st.tuples(size, size).map(list))


def borders(high: int) -> st.SearchStrategy[Any]:
    amount = st.integers(0, high)
    return st.one_of(sizes(0, high), st.tuples(amount, amount, amount, amount).map(list))


def paddings(high: int) -> st.SearchStrategy[Any]:
    return st.one_of(st.sampled_from(["valid", "same"]), borders(high))


def fits_pytorchs_ceil_mode(size: Any, padding: Any) -> bool:
    """Tell whether PyTorch can judge a pool with `ceil_mode`: it pads both sides alike, by half a window at most."""
    if isinstance(padding, str):
        return True
    sizes, amounts = (value if isinstance(value, list) else [value, value] for value in (size, padding))
    return len(amounts) == 2 and all(2 * amount <= of for amount, of in zip(amounts, sizes, strict=True))


class _Drawing:
    """A network that is being drawn: its layers so far, and the shape of each."""

    def __init__(self, draw: st.DrawFn, image: Shape, only: Collection[str]) -> None:
        self.draw, self.only = draw, only
        self.layers: list[dict[str, Any]] = []
        self.shapes: dict[str, Shape] = {"input": image}

    @property
    def last(self) -> str:
        return [*self.shapes][-1]

    def shape(self) -> Shape:
        return self.shapes[self.last]

    def add(self, kind: str, inputs: list[str] | None = None, **fields: Any) -> bool:
        """Add a layer; tell whether it can take its input."""
        inputs = inputs or [self.last]
        name = f"{kind}_{len(self.layers)}"
        of = [self.shapes[source] for source in inputs]
        own = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
        try:
            layer = LAYERS[kind](**own)
            shape = layer.node_out_shape(of)
        except (ShapeError, FieldErrors):
            return False
        if max(shape[1:], default=0) > LARGEST or (shape[0] > 24 and len(shape) > 1):
            return False
        self.layers.append({"type": kind, "name": name, "inputs": inputs, **fields})
        self.shapes[name] = shape
        return True

    def source(self, rank: int) -> str:
        """Draw which output to go on from: mostly the last, else any of the same rank."""
        others = [name for name, shape in self.shapes.items() if len(shape) == rank]
        return self.draw(st.sampled_from([others[-1]] * (2 + len(others)) + others))

    def anything(self, kinds: list[str], rank: int) -> None:
        """Add a random layer of these kinds on an image (rank 3) or on a vector (rank 1)."""
        kind, source = self.draw(st.sampled_from(kinds)), self.source(rank)
        if kind not in self.only:
            return
        if kind in MERGES:
            self.add(kind, self.partners(kind, source))
        else:
            self.add(kind, [source], **self.fields(kind, self.shapes[source]))

    def sometimes_again(self, rank: int) -> None:
        """Perhaps use a layer with parameters once more, wherever they fit."""
        if self.draw(st.integers(0, 3)) < 3:
            return
        owners = [layer for layer in self.layers if layer.get("type") in LAYERS and "share" not in layer]
        fitting = []
        for owner in owners:
            own = {key: value for key, value in owner.items() if key not in ("type", "name", "inputs")}
            layer = LAYERS[owner["type"]](**{k: tuple(v) if isinstance(v, list) else v for k, v in own.items()})
            needed = layer.param_shapes(self.shapes[owner["inputs"][0]])
            for name, shape in self.shapes.items() if needed else ():
                try:
                    out = layer.node_out_shape([shape])
                except ShapeError:
                    continue
                if len(out) == rank and layer.param_shapes(shape) == needed and max(out[1:], default=0) <= LARGEST:
                    fitting.append((owner["name"], name, out))
        if not fitting:
            return
        owner, source, out = self.draw(st.sampled_from(fitting))
        name = f"again_{len(self.layers)}"
        self.layers.append({"share": owner, "name": name, "inputs": [source]})
        self.shapes[name] = out

    def partners(self, kind: str, source: str) -> list[str]:
        shape = self.shapes[source]
        fits = [
            name
            for name, other in self.shapes.items()
            if (other == shape if kind != "concat" else len(other) == len(shape) and other[1:] == shape[1:])
        ]
        inputs = [source, *self.draw(st.lists(st.sampled_from(fits), min_size=1, max_size=2))]
        return self.draw(st.permutations(inputs))

    def fields(self, kind: str, shape: Shape) -> dict[str, Any]:
        """Draw the hyper-parameters of a layer."""
        draw, c = self.draw, shape[0]
        divisors = [k for k in range(1, c + 1) if c % k == 0]
        if kind == "conv2d":
            groups = draw(st.sampled_from(divisors))
            return {
                "filters": groups * draw(st.integers(1, 3 if groups < 4 else 1)),
                "kernel_size": draw(sizes(1, 4)),
                "stride": draw(st.one_of(st.just(1), sizes(1, 3))),
                "padding": draw(paddings(3)),
                "dilation": draw(st.one_of(st.just(1), sizes(1, 3))),
                "groups": groups,
                "bias": draw(st.booleans()),
            }
        if kind == "conv_transpose2d":
            groups = draw(st.sampled_from(divisors))
            return {
                "filters": groups * draw(st.integers(1, 3 if groups < 4 else 1)),
                "kernel_size": draw(sizes(1, 4)),
                "stride": draw(sizes(1, 3)),
                "padding": draw(paddings(2)),
                "dilation": draw(st.one_of(st.just(1), sizes(1, 3))),
                "groups": groups,
                "output_padding": draw(st.one_of(st.just(0), sizes(0, 2))),
                "bias": draw(st.booleans()),
            }
        if kind in ("max_pool2d", "avg_pool2d"):
            size, padding = draw(sizes(1, 4)), draw(paddings(2))
            fields = {"pool_size": size, "padding": padding}
            if draw(st.booleans()):
                fields["stride"] = draw(sizes(1, 3))
            if fits_pytorchs_ceil_mode(size, padding) and draw(st.booleans()):
                fields["ceil_mode"] = True
            if kind == "avg_pool2d":
                fields["count_include_pad"] = draw(st.booleans())
            return fields
        if kind == "slice_channels":
            start = draw(st.integers(0, c - 1))
            return {"start": start, "stop": draw(st.integers(start + 1, c))}
        if kind == "channel_shuffle":
            return {"groups": draw(st.sampled_from(divisors))}
        if kind in RESIZING:
            return self.resizing(kind)
        if kind == "local_response_norm":
            return {"size": draw(st.sampled_from([1, 3, 5])), "alpha": draw(st.sampled_from([1e-4, 0.5]))}
        if kind == "prelu":
            return {"shared": draw(st.booleans())}
        if kind == "gelu":
            return {"approximate": draw(st.sampled_from(["tanh", "none"]))}
        if kind in NORMS:
            fields = {"affine": draw(st.booleans()), "epsilon": draw(st.sampled_from([1e-5, 0.1, 1e-9]))}
            if kind == "layer_norm":
                fields["over"] = draw(st.sampled_from(["sample", "channels"]))
            return fields | ({"groups": draw(st.sampled_from(divisors))} if kind == "group_norm" else {})
        if kind == "dense":
            return {"units": draw(st.integers(1, 6)), "bias": draw(st.booleans())}
        if kind == "dropout":
            return {"rate": draw(st.sampled_from([0.0, 0.25, 0.5, 0.9]))}
        if kind == "leaky_relu":
            return {"slope": draw(st.sampled_from([0.01, 0.3, -0.5]))}
        return {"alpha": draw(st.sampled_from([1.0, 0.5]))} if kind == "elu" else {}

    def resizing(self, kind: str) -> dict[str, Any]:
        """Draw the hyper-parameters of a layer that changes the size of images and little else."""
        draw = self.draw
        if kind == "adaptive_avg_pool2d":
            return {"output_size": draw(sizes(1, 6))}
        if kind == "pixel_shuffle":
            return {"factor": draw(st.integers(1, 2))}
        if kind == "crop":
            return {"cropping": draw(borders(2))}
        if kind == "pad":
            mode = draw(st.sampled_from(["constant", "reflect", "replicate"]))
            value = {"value": draw(st.sampled_from([0.0, 0.5]))} if mode == "constant" else {}
            return {"padding": draw(borders(3)), "mode": mode, **value}
        size = {"size": draw(sizes(1, 9))} if draw(st.booleans()) else {"scale": draw(sizes(1, 3))}
        mode = draw(st.sampled_from(["nearest", "bilinear"]))
        corners = mode == "bilinear" and draw(st.booleans())
        return {**size, "mode": mode, "align_corners": corners}

    def finish(self, units: int) -> None:
        """End with a vector of so many numbers."""
        if len(self.shape()) == 3:
            self.add(self.draw(st.sampled_from(["flatten", "flatten", "global_avg_pool2d", "global_max_pool2d"])))
            for _ in range(self.draw(st.integers(0, 4))):
                self.anything(["dense", "dense", "dense", *ON_BOTH], 1)
                self.sometimes_again(1)
        if self.shape() != (units,) or self.draw(st.booleans()):
            self.add("dense", units=units)

    def losses(self, names: list[str]) -> list[dict[str, Any]]:
        """Give further layers losses of these names: some that have the output's shape already, or new branches."""
        draw, output = self.draw, self.layers[-1]
        shape, found = self.shapes[output["name"]], [output["name"]]
        for _ in range(draw(st.integers(0, 2))):
            source = draw(st.sampled_from([*self.shapes]))
            if self.shapes[source] == shape and source not in ("input", *found) and draw(st.booleans()):
                found.append(source)
            elif len(shape) == 3:
                if self.shapes[source][1:] == shape[1:] and self.add(
                    "conv2d", [source], filters=shape[0], kernel_size=1
                ):
                    found.append(self.last)
            elif len(self.shapes[source]) == 1 or self.add("flatten", [source]):
                self.add("dense", [source if len(self.shapes[source]) == 1 else self.last], units=shape[0])
                found.append(self.last)
        self.layers.remove(output)
        self.layers.append(output)
        weights = st.sampled_from([1.0, 0.3, 2.0])
        every = [{"layer": name, "weight": draw(weights), "loss": draw(st.sampled_from(names))} for name in found]
        return draw(st.permutations(every))

    def listed(self) -> list[Any]:
        """Return the layers as a config may list them: in any order, and with what is understood left out."""
        if self.draw(st.integers(0, 4)) == 0:
            shuffled = self.draw(st.permutations(self.layers[:-1]))
            return [*sorted(shuffled, key=lambda layer: "share" in layer), self.layers[-1]]
        before, listed = "input", []
        for layer in self.layers:
            understood = {"inputs"} if layer["inputs"] == [before] else set()
            listed.append({key: value for key, value in layer.items() if key not in understood})
            before = layer["name"]
        return listed


@st.composite
def networks(draw: st.DrawFn, only: Collection[str] = LAYERS.keys()) -> Example:
    """Draw a network that the config format allows, of some types of layers, with the numbers to check it on."""
    side = st.one_of(st.integers(4, 9), st.integers(1, 9))
    image = (draw(st.integers(1, 4)), draw(side), draw(side))
    drawing = _Drawing(draw, image, only)
    for _ in range(draw(st.integers(2, 9))):
        drawing.anything([*ON_IMAGES, *ON_IMAGES, *ON_BOTH], 3)
        drawing.sometimes_again(3)
    head, loss = draw(
        st.sampled_from(
            [
                ("softmax", "cross_entropy"),
                ("softmax", "cross_entropy"),
                ("softmax", "mse"),
                ("sigmoid", "binary_cross_entropy"),
                ("sigmoid", "mse"),
                ("none", "mse"),
            ]
        )
    )
    target = "image" if head != "softmax" and draw(st.integers(0, 2)) == 0 else "label"
    if target == "label":
        drawing.finish(draw(st.integers(2 if head == "softmax" else 1, 5)))
    elif not (drawing.shape()[1:] == image[1:] and drawing.add("conv2d", filters=image[0], kernel_size=1)):
        drawing.finish(prod(image))
    train: dict[str, Any] = {"loss": loss}
    if loss == "cross_entropy":
        train["label_smoothing"] = draw(st.sampled_from([0.0, 0.1]))
    if draw(st.booleans()):
        fused = {"softmax": "cross_entropy", "sigmoid": "binary_cross_entropy", "none": "mse"}[head]
        train["losses"] = drawing.losses([loss] if train.get("label_smoothing") else [loss, fused, "mse"])
    return Example(
        model={"input": list(image), "head": head, "layers": drawing.listed()},
        train=train,
        target=target,
        images=draw(st.sampled_from(["normal", "levels", "flat", "zeros"])),
        weights=draw(st.sampled_from(["normal", "quarters"])),
        dead=draw(st.sampled_from([0.0, 0.0, 0.5, 1.0])),
        labels=draw(st.sampled_from(["classes", "numbers"])),
        count=draw(st.integers(1, 5)),
        seed=draw(st.integers(0, 2**20)),
    )
