"""The model: a graph, a loss and the current parameters, seen from outside in (N, C, H, W).

Inside, the batch is the last axis; this is the boundary where images are turned round, checked and
converted. Only the methods that say so change the model: its parameters, their place in memory, and their statistics.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any, Literal

import numpy as np

from cnnbp_cli.config.schema import Config
from cnnbp_cli.core.backprop import backpropagate
from cnnbp_cli.core.graph import INPUT, Graph
from cnnbp_cli.core.losses import WeightedLoss, total_loss
from cnnbp_cli.core.parameters import Layout
from cnnbp_cli.core.types import Array, Communicator, Context, Loss, Params, Shape, Workspace, show_shape
from cnnbp_cli.data.labels import Task
from cnnbp_cli.data.normalization import Normalization
from cnnbp_cli.errors import UserError
from cnnbp_cli.memory import affordable, require_batch

quiet = np.errstate(over="ignore", invalid="ignore", divide="ignore")
"""What becomes infinite or NaN shows in the result; NumPy's warnings would only come before it."""

IMAGES_AT_A_TIME = 64  # per forward pass in prediction: many more do not fit the cache, and take a fifth longer each


MOST_NAMES = 12  # parameters that a message lists


class ModelInputError(UserError, ValueError):
    """Images, labels or parameters that do not fit the model."""


class Model:
    """A network with its losses and its parameters.

    Parameters
    ----------
    config : Config
        What it was built from. Training reads it, unless it is given another.
    graph : Graph
    losses : sequence of WeightedLoss
        One for each of the graph's outputs, in their order.
    params : dict of str to dict
        Initial values by node and key; copied into one vector.
    dtype : float32 or float64
    normalization : Normalization, optional
    class_names : tuple of str, optional
        By default those that the config declares.

    Attributes
    ----------
    target : {"label", "mask", "image"}
        What the network learns to give.
    vector : Array, shape (parameters,)
        All trainable values; `params` holds views of it.
    params : dict of str to dict
        Trainable values and running statistics, by node and key.
    target_normalization : Normalization or None
        How raw target images become what it learns to give, where it has such.
    normalization : Normalization or None
        How raw images become inputs: known once the model was trained, or loaded from a run.
    class_names : tuple of str, or None
        By class number, perhaps of the first classes only: declared by the config, or known from training.
    """

    def __init__(
        self,
        config: Config,
        graph: Graph,
        losses: Sequence[WeightedLoss],
        params: Mapping[str, Params],
        dtype: np.dtype[Any],
        normalization: Normalization | None = None,
        class_names: tuple[str, ...] | None = None,
    ) -> None:
        self._config = config
        self.graph = graph
        self.losses = tuple(losses)
        self.dtype = dtype
        self.target = target_of(config, self.output_shape)
        self.normalization = normalization
        self.target_normalization: Normalization | None = None
        self.class_names = class_names or config.data.class_names
        self.layout = Layout(graph)
        self.vector = np.empty(self.layout.size, dtype)
        self.params: dict[str, Params] = {}
        self._adopt(self.layout.gather(params, self.vector), params)

    def _adopt(self, vector: Array, state: Mapping[str, Params]) -> None:
        """Make `vector` the home of the trainable values, and copy the running statistics."""
        self.vector = vector
        views = self.layout.views(vector)
        self.params = {
            node: {key: views[node].get(key, state[node][key]) for key in shapes}
            for node, shapes in self.graph.param_shapes.items()
        }

    def move_to(self, vector: Array) -> None:
        """Keep the trainable values in `vector` from now on, such as one in shared memory."""
        vector[...] = self.vector
        self._adopt(vector, self.params)

    def set_state(self, state: Mapping[str, Params]) -> None:
        """Take over running statistics, by node and key, as `Graph.next_state` returns them."""
        for node, values in state.items():
            self.params[node].update(values)

    @property
    def config(self) -> Config:
        return self._config

    @property
    def loss_function(self) -> Loss[Any]:
        """The loss of the network's output."""
        return self.losses[0].loss

    @loss_function.setter
    def loss_function(self, loss: Loss[Any]) -> None:
        self.losses = (replace(self.losses[0], loss=loss), *self.losses[1:])

    @property
    def output_shape(self) -> Shape:
        return self.graph.shapes[self.graph.output]

    @property
    def macs(self) -> int:
        """The multiply-accumulate operations of one image's forward pass."""
        return sum(node.macs(self.graph.in_shapes(node)) for node in self.graph.nodes)

    @property
    def classifies(self) -> bool:
        """Whether labels are class numbers and accuracy has a meaning."""
        return classifies(self.config, self.output_shape)

    @property
    def task(self) -> Task:
        """What the network is to learn."""
        return task_of(self.config, self.output_shape)

    @property
    def classes(self) -> int:
        """How many classes a classifier tells apart."""
        return class_count(self.output_shape)

    def class_name(self, number: int) -> str:
        """Return what people call a class: its number where it has no name."""
        names = self.class_names or ()
        return names[number] if number < len(names) else str(number)

    @property
    def named_classes(self) -> list[str] | None:
        """The name of every class, of images or of the pixels of masks, where classes have names."""
        if not self.class_names or not (self.classifies or self.target == "mask"):
            return None
        return [self.class_name(number) for number in range(self.classes)]

    def parameters(self) -> dict[str, Array]:
        """Return copies of all parameters and running statistics by name, in layer order.

        Returns
        -------
        dict of str to Array
            ``"conv1.weight"`` and so on; convolutions are (out, in, kh, kw), dense layers (out, in).
        """
        return {f"{node}.{key}": value.copy() for node, own in self.params.items() for key, value in own.items()}

    def set_parameters(self, values: Mapping[str, Array], *, complete: bool = False) -> None:
        """Replace the parameters that `values` names; the others stay.

        Parameters
        ----------
        values : mapping of str to Array
        complete : bool
            Whether all parameters have to be among them, as in a checkpoint.

        Raises
        ------
        ModelInputError
            When a name is unknown or missing, or an array differs from the parameter in shape or dtype.
            Nothing is changed then.
        """
        places: list[tuple[str, str, Array]] = []
        for name, value in values.items():
            node, _, key = name.rpartition(".")
            if key not in self.params.get(node, {}):
                names = list(self.parameters())
                known = ", ".join(names[:MOST_NAMES]) + ", …" * (len(names) > MOST_NAMES) or "none"
                raise ModelInputError(f"there is no parameter {name!r}; the model has {known}")
            old, value = self.params[node][key], np.asarray(value)
            if value.shape != old.shape:
                raise ModelInputError(f"parameter {name}: expected shape {old.shape}, got {value.shape}")
            if value.dtype != old.dtype:
                raise ModelInputError(f"parameter {name}: expected {old.dtype}, got {value.dtype}")
            places.append((node, key, value))
        missing = [name for name in self.parameters() if name not in values] if complete else []
        if missing:
            raise ModelInputError(f"parameter {missing[0]} is missing")
        for node, key, value in places:
            self.params[node][key][...] = value

    def images_in(self, images: Array) -> Array:
        """Turn images (N, C, H, W), or (N, H, W) for one channel, into an input (c, h, w, n).

        Floats are normalized already, and taken as they are; integers are raw pixels, and are normalized as in
        training: booleans are black and white, and bytes are brought to 0…1 for a model that was trained on such.
        Floats that look like raw pixels get a warning.

        Raises
        ------
        ModelInputError
            When the shape does not fit, or raw pixels meet a model that does not know its normalization.
        """
        images = np.asarray(images)
        c, h, w = shape = self.graph.shapes[INPUT]
        if images.ndim == 3 and c == 1:
            images = images[:, None]
        if images.ndim != 4 or images.shape[1:] != shape:
            raise ModelInputError(f"expected images of shape (N, {c}, {h}, {w}), got {images.shape}")
        if images.dtype.kind in "bui":
            if self.normalization is None:
                raise ModelInputError(
                    f"images of {images.dtype} are raw pixels, but this model has not been trained on data that "
                    "says how to normalize them; give floats"
                )
            raw = self.normalization.rescale(images, "the images") if images.size else images
            images = self.normalization.apply(raw, self.dtype)
        elif images.dtype.kind == "f":
            if self.normalization and self.normalization.is_raw(images):
                warnings.warn(
                    "these floats look like raw pixels, but floats are taken as normalized: give "
                    "model.normalization.apply(images)",
                    stacklevel=3,
                )
        else:
            raise ModelInputError(f"expected images of numbers, got {images.dtype}")
        return np.ascontiguousarray(images.transpose(1, 2, 3, 0), self.dtype)

    def targets_in(self, labels: Array | None, x: Array) -> Array:
        """Turn labels into what the loss compares with, for the input x (c, h, w, n).

        Labels are class numbers (N,), masks (N, H, W), or an array (N, …) of the output's shape; a model whose target
        is the image itself needs none.

        Raises
        ------
        ModelInputError
            When the shape does not fit or a label is no class.
        """
        n = x.shape[-1]
        out = self.output_shape
        labels = None if labels is None else np.asarray(labels)
        if labels is not None and labels.shape == (n, *out) and (labels.ndim > 1 or labels.dtype.kind == "f"):
            return np.moveaxis(labels, 0, -1).astype(self.dtype)
        if self.target == "mask":
            return self._masks_in(labels, n)
        if self.target == "image":
            if prod(out) != prod(x.shape[:-1]):
                raise ModelInputError(
                    f"expected target images of shape {(n, *out)}, got {'none' if labels is None else labels.shape}"
                )
            return x.reshape(*out, n)
        if labels is None or labels.shape[:1] != (n,):
            got = "none" if labels is None else str(labels.shape)
            raise ModelInputError(f"expected {n} labels, one for each image, got {got}")
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.ndim != 1 or len(out) != 1:
            raise ModelInputError(f"labels of shape {labels.shape} do not fit outputs of shape {show_shape(out)}")
        if labels.dtype.kind == "f" and out == (1,):
            return labels.astype(self.dtype)[None, :]
        unbounded = out == (1,) and not self.classifies
        if labels.dtype.kind == "f" and self.classifies:
            raise ModelInputError(
                f"the labels are floats, but the model's classes are whole numbers from 0 to {self.classes - 1}; "
                "convert them, as with y.astype(int)"
            )
        if labels.dtype.kind not in "bui" or not (unbounded or _in_range(labels, self.classes)):
            raise ModelInputError(f"expected labels from 0 to {self.classes - 1}, the model's classes")
        return labels

    def is_own_target(self, labels: Array) -> bool:
        """Return whether the network learns to give its input, whatever labels there are."""
        return self.target == "image" and labels.ndim < 3

    def _masks_in(self, masks: Array | None, n: int) -> Array:
        """Turn masks (N, H, W) into (h, w, n)."""
        size = self.output_shape[1:]
        if masks is None or masks.shape != (n, *size) or masks.dtype.kind not in "bui":
            got = "none" if masks is None else f"{masks.shape} of {masks.dtype}"
            raise ModelInputError(
                f"expected masks of shape {(n, *size)}, with a class number for each pixel, got {got}"
            )
        if not _in_range(masks, self.classes):
            raise ModelInputError(f"expected masks of numbers from 0 to {self.classes - 1}, the model's classes")
        return np.moveaxis(masks, 0, -1)

    def batch_in(self, images: Array, labels: Array | None) -> tuple[Array, Array]:
        """Return the input and the target of a batch to learn from, which has one image at least."""
        x = self.images_in(images)
        if not x.size:
            raise ModelInputError("expected one image or more, got none")
        return x, self.targets_in(labels, x)

    @property
    def is_portable(self) -> bool:
        """Whether all its parts are classes of this package, which any process can load."""
        parts = (*(node.layer for node in self.graph.nodes), *(one.loss for one in self.losses))
        return all(type(part).__module__.startswith(f"{__package__}.") for part in parts)

    @quiet
    def predict(self, images: Array) -> Array:
        """Return the head's outputs (N, classes), in evaluation mode; (N, c, h, w) when they are images."""
        from cnnbp_cli.parallel.team import on_all_cores  # here, as it takes 13 ms that other commands can do without

        x = self.images_in(images)
        found = on_all_cores(partial(self._predict, x), x.shape[-1] * self.macs, portable=self.is_portable)
        return np.moveaxis(found, -1, 0)

    def _predict(self, x: Array, workers: Communicator) -> Array:
        """Return the head's outputs for an input (c, h, w, n), which workers share."""
        size, ctx = self.affordable_batch(IMAGES_AT_A_TIME), Context(arrays=Workspace(), fused=True)
        y = np.zeros((*self.output_shape, x.shape[-1]), self.dtype)
        mine = workers.share(x.shape[-1])
        for start in range(mine.start, mine.stop, size):
            chosen = slice(start, min(start + size, mine.stop))
            y[..., chosen] = self.loss_function.predict(self.logits(x[..., chosen], ctx))
        return workers.all_reduce(y)

    def affordable_batch(self, images: int) -> int:
        """Return how many of so many images to compute at once, as memory allows.

        Raises
        ------
        ConfigError
            When not even one fits.
        """
        size = affordable(self.graph, images, self.dtype.itemsize)
        require_batch(self.config, self.graph, size, self.dtype.itemsize, "make the layer smaller", keep=False)
        return size

    def logits(self, x: Array, ctx: Context | None = None) -> Array:
        """Return the last layer's output for an input (c, h, w, n), in evaluation mode."""
        return self.graph.apply(self.params, x, ctx or Context())

    @quiet
    def loss(self, images: Array, labels: Array | None = None) -> float:
        """Return the mean loss of the network's output over the images, in evaluation mode."""
        x = self.images_in(images)
        target, size = self.targets_in(labels, x), self.affordable_batch(IMAGES_AT_A_TIME)
        batches = ((x[..., k : k + size], target[..., k : k + size]) for k in range(0, x.shape[-1], size))
        total, count = self.summed_loss(batches, Context(arrays=Workspace(), fused=True))
        return total / count if count else float("nan")

    def summed_loss(
        self, batches: Iterable[tuple[Array, Array]], ctx: Context, see: Callable[[Array], None] | None = None
    ) -> tuple[float, float]:
        """Return the loss summed over batches, and what to divide it by for the mean.

        Parameters
        ----------
        batches : iterable of (x, target)
            The input (c, h, w, n), and what `targets_in` returns for it.
        ctx : Context
        see : callable, optional
            Called with the last layer's output for each batch.
        """
        total = count = 0.0
        for x, target in batches:
            z = self.logits(x, ctx)
            total += float(self.loss_function.forward(z, target)[0])
            count += self.loss_function.count(z)
            if see is not None:
                see(z)
        return total, count

    def total_loss_of(self, z: Array, target: Array) -> float:
        """Return the weighted sum of the mean losses that training would meet if all of them saw the output z."""
        sums = [float(one.loss.forward(z, target)[0]) for one in self.losses]
        return float(total_loss(self.losses, sums, [one.loss.count(z) for one in self.losses]))

    def loss_and_gradients(self, images: Array, labels: Array | None = None) -> tuple[float, dict[str, Array]]:
        """Return the mean loss, the weighted sum where there are several, and its gradients, in training mode.

        Returns
        -------
        loss : float
        gradients : dict of str to Array
            By parameter name, in layer order, and ``"input"`` of shape (N, C, H, W).
        """
        x, target = self.batch_in(images, labels)
        loss, dx, grads = self.backpropagate(x, target, Context(training=True, seed=self.config.seed))
        named = {f"{node}.{key}": value for node, own in grads.items() for key, value in own.items()}
        return loss, named | {INPUT: np.moveaxis(dx, -1, 0)}

    def backpropagate(self, x: Array, target: Array, ctx: Context) -> tuple[float, Array, dict[str, Params]]:
        """Return the mean loss, its gradient to the input (c, h, w, n), and those by node and key."""
        found = backpropagate(self.graph, self.losses, self.params, x, target, ctx)
        assert found.dx is not None
        return found.loss, found.dx, found.grads


def target_of(config: Config, output: Shape) -> Literal["label", "mask", "image"]:
    """Return what a network learns to give: the config's word, or what an output of this shape can be."""
    if config.data.target != "auto":
        return config.data.target
    if len(output) == 3:
        return "mask" if config.model.head == "softmax" else "image"
    return "label"


def task_of(config: Config, output: Shape) -> Task:
    """Return what a network with outputs of this shape is to learn."""
    return Task(target_of(config, output), classifies(config, output), output)


def classifies(config: Config, output: Shape) -> bool:
    """Return whether labels are class numbers, for a network with outputs of this shape."""
    return target_of(config, output) == "label" and len(output) == 1 and config.model.head != "none"


def class_count(output: Shape) -> int:
    """Return how many classes a classifier's outputs tell apart: each is one, but a single one says yes or no."""
    return max(2, output[0])


def _in_range(labels: Array, classes: int) -> bool:
    return not labels.size or bool(labels.min() >= 0 and labels.max() < classes)
